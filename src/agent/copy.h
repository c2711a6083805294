/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_AGENT_COPY_H
#define WISP_AGENT_COPY_H

/*
 * Trees of files over a channel, the same on both sides (docs/formats/agent.md, copy-in
 * and copy-out). The receiver trusts nothing: no name leaves the destination, no link is
 * followed. Blocking. Any thread; a channel belongs to one.
 */

#include <stdint.h>

struct channel;
struct error;

struct copy {
	struct channel *channel;
	/* Called now and then with the name of the file in work; may be NULL. */
	void (*progress)(void *arg, const char *name, const struct copy *copy);
	void *arg;
	uint64_t files, bytes; /* done so far */
};

/* Sends the file, directory or link at path, and DONE. Stops early when the peer sends ERROR. */
int copy_send(struct copy *copy, const char *path, struct error *err);

/*
 * Receives a tree up to DONE. It becomes dest/name when dest is a directory, else dest. On
 * failure the files that were complete stay.
 */
int copy_receive(struct copy *copy, const char *dest, const char *name, struct error *err);

/* The last component of a path in a new string; NULL when it has none that can name a file. */
char *copy_base_name(const char *path);

#endif
