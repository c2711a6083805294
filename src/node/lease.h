/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_NODE_LEASE_H
#define WISP_NODE_LEASE_H

/*
 * Who keeps a cluster: a session, which is a secret of a coordinator and its user. While somebody
 * is there with it the cluster has no end, reserved or running; afterwards it has until the grace
 * time is over. In the store, so that a daemon that is killed finds it again. One thread.
 */

#include <stdbool.h>
#include <stdint.h>

struct error;
struct store;

#define LEASE_SESSION 129 /* bytes of a session's secret with its NUL */

/* Whose a cluster is; -ENOENT: nothing of it is here. */
int lease_user(struct store *s, const char *cluster, unsigned *ret, struct error *err);

/* A new reservation is that session's, and has no end for now. */
int lease_assign(struct store *s, const char *cluster, const char *session, struct error *err);

/* Somebody is there with the session; nobody is: its clusters end at until. */
int lease_keep(struct store *s, unsigned user, const char *session, struct error *err);
int lease_leave(struct store *s, unsigned user, const char *session, int64_t until,
		struct error *err);

/* After a start: nobody is there with any session. */
int lease_orphan(struct store *s, int64_t until, struct error *err);

/* When the first of them ends that is not being ended, into *ret; 0: none does. */
int lease_next(struct store *s, int64_t *ret, struct error *err);

/* Why there are no new reservations, a new string; *ret NULL: there are. And sets it. */
int lease_draining(struct store *s, char **ret, struct error *err);
int lease_drain(struct store *s, const char *because, struct error *err);

#endif
