/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_NODE_STORE_SCHEMA_H
#define WISP_NODE_STORE_SCHEMA_H

/* The tables of the daemon's database, one text of statements for each version. For store.c. */

#define STORE_APPLICATION 0x57697370 /* "Wisp", in the file's header */

extern const char *const store_schema[];
extern const unsigned store_schema_version;

#endif
