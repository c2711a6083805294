/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_CHANNEL_TRANSPORT_H
#define WISP_CHANNEL_TRANSPORT_H

/* Bytes over a socket, a pair of pipes, or TLS over a socket, without waiting. */

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct error;
struct tls;

struct transport {
	int in, out;	 /* the same for a socket */
	bool socket;	 /* out is one */
	struct tls *tls; /* or NULL */
};

/* Neither descriptor blocks from here on. They, and tls, become the transport's when it is 0. */
int transport_init(struct transport *t, int in, int out, struct tls *tls, struct error *err);
void transport_done(struct transport *t);

/* Bytes; 0: the end; -EAGAIN with *wait POLLIN or POLLOUT; or -errno with the reason. */
ssize_t transport_read(struct transport *t, void *buf, size_t n, short *wait, struct error *err);
ssize_t transport_write(struct transport *t, const void *buf, size_t n, short *wait,
			struct error *err);

/* Nothing more is written. */
void transport_shut(struct transport *t);

/* Something has come that polling does not tell of. */
bool transport_pending(struct transport *t);

#endif
