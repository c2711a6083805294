/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_NODE_LAUNCH_H
#define WISP_NODE_LAUNCH_H

/*
 * Ways to other nodes by a launcher (ssh, srun): a child whose standard input and output are a
 * connection to the daemon there (`wispd --pipe`). For the thread of the loop.
 */

struct error;
struct launch;
struct launches;
struct loop;
struct nodename;

/*
 * command: words; "%h" in one is the host, and behind them all goes "--pipe --name NAME". Without a
 * "%h" it is "COMMAND HOST wispd --pipe --name NAME". Returns 0 or -errno.
 */
int launches_create(struct loop *loop, const char *command, struct launches **ret,
		    struct error *err);
/* Ends the children. Accepts NULL. */
void launches_destroy(struct launches *l);
/* As it was given. */
const char *launches_command(const struct launches *l);

/* The child has ended, and why as far as it said. */
typedef void launch_fn(void *arg, const char *reason);

/*
 * Runs a child. *fd: our end of the connection, the caller's; the child is ended when it is closed
 * and the child does not end by itself.
 */
int launch_start(struct launches *l, const struct nodename *node, launch_fn *fn, void *arg, int *fd,
		 struct launch **ret, struct error *err);

/* Its end is not told any more. Accepts NULL. */
void launch_forget(struct launch *launch);

#endif
