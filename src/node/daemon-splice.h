/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_NODE_DAEMON_SPLICE_H
#define WISP_NODE_DAEMON_SPLICE_H

/*
 * Streams of two connections that are one: what comes on one goes out on the other, with credit as
 * it goes, and each direction has its own end (docs/formats/node.md, "Connections to VMs"). Whoever
 * has a connection with streams that may be spliced tells of it here. For the thread of the loop.
 */

#include <stddef.h>
#include <stdint.h>

struct conn;
struct daemon;
struct error;
struct splice;

/* It is over: both directions have ended, or a side has gone. The splice has, too. */
typedef void splice_fn(void *arg);

/*
 * Opens the stream that a message of the connection names. It waits for its other side; who writes
 * on it before that breaks the protocol. -EPROTO, -EMFILE: as conn_open().
 */
int splice_open(struct daemon *d, struct conn *conn, uint32_t stream, splice_fn *over, void *arg,
		struct splice **ret, struct error *err);
/* The other side: an open stream on which nothing has been written or heard. */
void splice_attach(struct splice *s, struct conn *conn, uint32_t stream);
/* There is none: the stream ends. over() does not come. */
void splice_refuse(struct splice *s);

/* From the ops of a connection. Streams that are not spliced are ignored, and their data lost. */
void splice_data(struct daemon *d, struct conn *conn, uint32_t stream, const uint8_t *data,
		 size_t n);
void splice_sent(struct daemon *d, struct conn *conn, uint32_t stream, size_t n);
/* What the stream belonged to has gone: both directions end. */
void splice_reset(struct daemon *d, struct conn *conn, uint32_t stream);
/* Tells the peer so of a stream of which nobody is there any more, and ends it. */
void stream_reset(struct conn *conn, uint32_t stream);
/* The connection goes, with all its streams. */
void streams_gone(struct daemon *d, const struct conn *conn);

#endif
