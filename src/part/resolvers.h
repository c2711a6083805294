/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_PART_RESOLVERS_H
#define WISP_PART_RESOLVERS_H

/* Name servers of this node that others can ask as well. Any thread. */

/* "10.0.0.1,10.0.0.2", at most three, a new text; NULL: it has none. */
char *resolvers_read(void);

/* The same of a text like resolv.conf(5). */
char *resolvers_parse(const char *text);

#endif
