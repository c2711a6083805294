/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_LIB_OFFLOAD_H
#define WISP_LIB_OFFLOAD_H

/*
 * Work that may block for as long as it likes (a name server, a user database), done by a thread of
 * its own while somebody else goes on and may lose interest.
 */

struct error;
struct offload;

/*
 * work(arg) runs in a thread of its own; release(arg) frees arg when it has run and nobody waits
 * any more, in either thread. Returns 0, or -errno: then arg is still the caller's.
 */
int offload_start(void (*work)(void *arg), void (*release)(void *arg), void *arg,
		  struct offload **ret, struct error *err);

/* Readable when the work is done; arg may be read from then on. The offload's. */
int offload_fd(const struct offload *o);

/* Nobody waits for it. Sets the pointer to NULL; accepts a pointer to NULL. */
void offload_drop(struct offload **o);

#endif
