/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_NODE_TUNNEL_H
#define WISP_NODE_TUNNEL_H

/*
 * What a VM has (its agent, its console), wherever it runs, as a plain descriptor: the daemon of
 * this node is asked to `connect`, and a thread moves the bytes. Any thread.
 */

#include <jansson.h>

struct error;

/*
 * socket: the daemon's. request: a `connect` without id and stream, which stays the caller's.
 * 0 and *ret: a stream socket, non-blocking or not as the caller likes, whose directions end apart
 * (shutdown()), and which is to be closed; it ends when the other side does. Or -errno with the
 * reason.
 */
int tunnel_open(const char *socket, const json_t *request, int *ret, struct error *err);

#endif
