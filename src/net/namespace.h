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
 * A new user namespace in which the user is who it was, nobody else is anybody, and the next
 * program has all capabilities: over that user's files and what it makes itself, so chroot() works.
 * 0 or -errno; async-signal-safe. The process must be single-threaded.
 */
int namespace_own_user(void);

/*
 * From now on setgroups(), setresuid() and setresgid() do nothing and succeed: an ordinary user's
 * namespace refuses them, and some programs give up then. Who they are stays the user, with the
 * user's own groups. 0 or -errno; async-signal-safe.
 */
int namespace_stay_user(void);

/* Moves into the user (if other than ours), network and PID namespaces of a process. */
int namespace_join(int pidfd, struct error *err);

#endif
