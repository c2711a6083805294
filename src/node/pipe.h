/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_NODE_PIPE_H
#define WISP_NODE_PIPE_H

/*
 * `wispd --pipe`: what a launcher runs on another node. Standard input and output are a connection
 * to the daemon there, which a user starts by that where none is.
 */

struct args;
struct error;

/*
 * socket: the daemon's. start: this program and the options of the daemon to be started, whose log
 * is the file log; NULL: none is. Returns when the connection has ended, with 0, or -errno.
 */
int pipe_run(const char *socket, const struct args *start, const char *log, struct error *err);

#endif
