/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_NET_NAMESPACE_H
#define WISP_NET_NAMESPACE_H

/* Namespaces of the calling process, as root and as an ordinary user. */

struct error;

/*
 * A new network namespace, and a PID namespace for the children to come. An ordinary user
 * gets a user namespace as well, as its root. The process must be single-threaded.
 */
int namespace_enter_private(struct error *err);

/*
 * A new mount namespace in which every mount is read-only. Async-signal-safe (for
 * struct process: in_child): 0 or -errno.
 */
int namespace_make_read_only(void *unused);

/* Moves into the user (if other than ours), network and PID namespaces of a process. */
int namespace_join(int pidfd, struct error *err);

#endif
