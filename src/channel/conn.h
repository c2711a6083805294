/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_CHANNEL_CONN_H
#define WISP_CHANNEL_CONN_H

/*
 * A connection of the node protocol on the reactor (docs/formats/node.md): messages, streams with
 * credit, "I live" each second, and the verdict that the other side is dead. No call waits. Memory
 * is bounded whatever the peer does: who does not read what it is sent is left, and streams hold
 * back who fills them. For the thread of the loop. SIGPIPE has to be ignored.
 */

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "channel/frame.h"

struct conn;
struct error;
struct loop;
struct tls;

#define CONN_WINDOW (256u << 10)   /* bytes of credit that a stream begins with, and has at most */
#define CONN_QUEUE_MAX (32u << 20) /* bytes of messages that wait for a peer, at most */
#define CONN_STREAMS_MAX 1024u	   /* open at once */
#define CONN_ALIVE_MS 1000u
#define CONN_DEAD_MS 4000u

/* Each may destroy the connection, or send on it. */
struct conn_ops {
	/* A message that is not the connection's own. It stays the connection's. */
	void (*message)(void *arg, json_t *message);
	/* Data of a stream; n 0: its end. What was used up is to be granted again. */
	void (*data)(void *arg, uint32_t stream, const uint8_t *data, size_t n);
	/* So many bytes of a stream have left (conn_write()): there is room for as many. May be
	 * NULL. */
	void (*sent)(void *arg, uint32_t stream, size_t n);
	/*
	 * Nothing more comes or goes. code: 0 when either side wanted that, -ETIMEDOUT of a dead
	 * peer, else -errno. Once, never out of a call of this interface; the connection is to be
	 * destroyed.
	 */
	void (*closed)(void *arg, int code, const char *reason);
};

struct conn_params {
	struct loop *loop;
	int in, out; /* non-blocking from here on; the same for a socket. The connection's own */
	struct tls *tls;	    /* after its handshake, or NULL. The connection's own */
	const struct conn_ops *ops; /* outlives it */
	void *arg;
	size_t frame_max;	    /* longest frame, 0: FRAME_MAX */
	size_t queue_max;	    /* 0: CONN_QUEUE_MAX */
	unsigned alive_ms, dead_ms; /* 0: CONN_ALIVE_MS, CONN_DEAD_MS */
};

struct conn_counts {
	uint64_t messages_in, messages_out, bytes_in, bytes_out;
	size_t waiting; /* bytes, to be sent */
};

/* Returns 0 or -errno, and then the descriptors and tls are still the caller's. */
int conn_create(const struct conn_params *params, struct conn **ret, struct error *err);

/* What waits goes as far as it can without waiting. Accepts NULL. */
void conn_destroy(struct conn *conn);

/* Who hears of it from now on. */
void conn_set_ops(struct conn *conn, const struct conn_ops *ops, void *arg);

/*
 * Sends a message, which stays the caller's. -EMSGSIZE: too long, nothing has happened; -ENOBUFS:
 * the peer does not read, the connection ends; -EPIPE: it has ended.
 */
int conn_send(struct conn *conn, const json_t *message, struct error *err);

/*
 * The same of the members of own and of rest, the text of an object (JSON_COMPACT): what goes to
 * many is written once. Neither is empty, and no member is in both.
 */
int conn_send_with(struct conn *conn, const json_t *own, const char *rest, struct error *err);

/* Says why to the peer, if it can be said, and ends; closed() comes with the same. */
void conn_fail(struct conn *conn, int code, const char *reason);

/* Sends what waits and ends in peace: nothing may be sent any more; closed() comes. */
void conn_finish(struct conn *conn);

/* A number for a stream; odd ones are of who called, even ones of who was called. */
uint32_t conn_next_stream(struct conn *conn, int called);

/*
 * Begins a stream, at both ends with the message that names it. -EPROTO: the number is 0 or not
 * above all earlier ones of its parity; -EMFILE: too many are open.
 */
int conn_open(struct conn *conn, uint32_t stream, struct error *err);

/*
 * Takes all of the data for a stream, or nothing: -EAGAIN when CONN_WINDOW would wait (sent() tells
 * when less does), -EPIPE when the stream is not open.
 */
int conn_write(struct conn *conn, uint32_t stream, const void *data, size_t n);
/* The end of what is written, behind all of it. Nothing where there is no such stream. */
void conn_end(struct conn *conn, uint32_t stream);

/* Lets the peer send n bytes more. */
void conn_grant(struct conn *conn, uint32_t stream, size_t n);

struct conn_counts conn_counts(const struct conn *conn);

#endif
