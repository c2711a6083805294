/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_NET_MESSAGE_H
#define WISP_NET_MESSAGE_H

/*
 * JSON lines that may carry one open descriptor (SCM_RIGHTS): {"ok":true,...} or
 * {"ok":false,"error":"why"} answer a request {"op":"...",...}.
 */

#include <jansson.h>

struct error;

/* Sends a line, with the descriptor unless fd is -1 (it stays the caller's). 0 or -errno. */
int message_send(int socket, const json_t *value, int fd);

/*
 * Sends the request and waits for its answer. Returns 0 when it is ok, -EREMOTEIO with the
 * other side's words when it is not (-EAGAIN: but soon), or -errno. *ret is a new reference, *fd
 * the descriptor that came along or -1; either may be NULL. Blocking sockets.
 */
int message_call(int socket, const json_t *request, json_t **ret, int *fd, struct error *err);

/* The waiting half of it. */
int message_receive(int socket, json_t **ret, int *fd, struct error *err);

/* A new {"ok":false,"error":text}. */
json_t *message_failure(const struct error *err);

#endif
