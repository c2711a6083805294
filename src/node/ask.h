/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_NODE_ASK_H
#define WISP_NODE_ASK_H

/* A program's way to the daemon of its node: connects, asks, waits for the answer. Any thread. */

#include <jansson.h>

struct ask;
struct conn;
struct error;
struct loop;

/* socket: of the daemon. -ENOENT: nobody is there, and err says how to start it. */
int ask_open(const char *socket, struct ask **ret, struct error *err);
void ask_close(struct ask *ask);

/* How long it waits for an answer; a minute, unless it is said. */
void ask_set_patience(struct ask *ask, unsigned seconds);

/* Hears what it says unasked while an answer is waited for: valid in the call. */
typedef void ask_event_fn(void *arg, const json_t *event);
void ask_set_events(struct ask *ask, ask_event_fn *fn, void *arg);

/*
 * SIGINT, SIGTERM and SIGHUP end no more the process while an answer is waited for: this request
 * (without arguments) is sent once, whatever comes of it, and the answer says how it went. The
 * second signal ends the wait, with -EINTR.
 */
int ask_set_interrupt(struct ask *ask, const char *op, struct error *err);

/*
 * The request stays the caller's and gets an id. 0 and *ret (may be NULL itself): the answer's
 * `value`, a new reference or NULL; of a tree the whole last answer, with `errors`; -errno of the
 * daemon with its reason, and *ret: the whole answer.
 */
int ask(struct ask *ask, json_t *request, json_t **ret, struct error *err);

/*
 * Gives up the connection, on which nothing was asked for that is not answered, and its loop, which
 * are the caller's then; nobody hears it until conn_set_ops(). The ask has gone.
 */
void ask_release(struct ask *ask, struct loop **loop, struct conn **conn);

/* The socket of the node's daemon: root's where it runs, else this user's. A new string. */
int ask_socket(char **ret, struct error *err);

#endif
