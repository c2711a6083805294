/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_NODE_NODENAME_H
#define WISP_NODE_NODENAME_H

/* A node as lists of nodes have it: NAME or NAME@HOST[:PORT] (docs/formats/node.md). Any thread. */

#include <stdbool.h>

struct error;

#define NODENAME_PORT "7450"

struct nodename {
	char name[64];	/* as the node calls itself */
	char host[256]; /* where it is reached; without it: the name */
	char port[6];	/* without it: NODENAME_PORT */
	bool has_port;
};

/* HOST is a name or an address; one of IPv6 is in brackets. -EINVAL. */
int nodename_parse(const char *text, struct nodename *ret, struct error *err);

/* HOST[:PORT] alone: what to listen on; port 0 is allowed. -EINVAL. */
int nodename_parse_address(const char *text, struct nodename *ret, struct error *err);

#endif
