/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_CHANNEL_H
#define WISP_MOVER_CHANNEL_H

/*
 * One connection between two movers: exact reads and writes that end in time, and can be cancelled.
 * One thread may send while another receives.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct error;

struct channel {
	int fd;			       /* owned; -1: closed */
	unsigned timeout_ms;	       /* without a byte moved */
	const _Atomic bool *cancel[2]; /* any of them (or NULL): -ECANCELED within 20 ms */
	uint32_t sent, received;       /* records so far */
};

/*
 * Exactly n bytes. -EPIPE when the peer closed, -ETIMEDOUT, -ECANCELED, or -errno; the channel is
 * of no use then.
 */
int channel_receive(struct channel *ch, void *buf, size_t n, struct error *err);
int channel_send(struct channel *ch, struct iovec *iov, unsigned n, struct error *err);

/* Waits until there is something to receive (or the end). */
int channel_wait(struct channel *ch, struct error *err);

void channel_close(struct channel *ch);

/* "unix:PATH" or "tcp:HOST:PORT". Return a descriptor (CLOEXEC) or -errno. */
int address_connect(const char *address, unsigned timeout_ms, struct error *err);
int address_listen(const char *address, struct error *err);

/*
 * The next connection on a listening descriptor; timeout_ms 0: for ever. Returns it, or as
 * channel_receive().
 */
int address_accept(int fd, unsigned timeout_ms, const _Atomic bool *const cancel[2],
		   struct error *err);

#endif
