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

/* A new mount namespace in which every mount is read-only. 0 or -errno; async-signal-safe. */
int namespace_make_read_only(void);

/*
 * From now on setgroups() does nothing and succeeds: an ordinary user's namespace refuses it, and
 * some programs give up then. Their groups are the user's own. 0 or -errno; async-signal-safe.
 */
int namespace_ignore_setgroups(void);

/* Moves into the user (if other than ours), network and PID namespaces of a process. */
int namespace_join(int pidfd, struct error *err);

#endif
