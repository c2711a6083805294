/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_CHANNEL_H
#define WISP_MOVER_CHANNEL_H

/*
 * One connection between two movers: exact reads and writes that end in time, and can be cancelled;
 * in the clear or by TLS. One thread may send while another receives.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define CHANNEL_KEY 32

struct error;
struct pace;
struct tls;

struct channel {
	int fd;			       /* owned; -1: closed */
	unsigned timeout_ms;	       /* without a byte moved */
	const _Atomic bool *cancel[2]; /* any of them (or NULL): -ECANCELED within 20 ms */
	uint64_t deadline_ns;	       /* (io_now_ns()) for all until it is 0 again */
	uint32_t sent, received;       /* records so far */
	struct tls *tls;	       /* NULL: in the clear */
	const uint8_t *early;	       /* bytes that were taken, to be received first; not owned */
	size_t nearly;
	_Atomic int domain; /* of the socket, when it has been asked; private */
	struct pace *pace;  /* for what is sent; not owned; NULL: no limit */
};

/*
 * Exactly n bytes. -EPIPE when the peer closed, -ETIMEDOUT, -ECANCELED, or -errno (never
 * -ECONNABORTED, which message_expect() returns for what the peer says); the channel is of no use
 * then.
 */
int channel_receive(struct channel *ch, void *buf, size_t n, struct error *err);
int channel_send(struct channel *ch, struct iovec *iov, unsigned n, struct error *err);

/*
 * -ECANCELED when it is cancelled. channel_receive() says so only where it has to wait: what has
 * come whole is not lost, and who receives without end asks here in between.
 */
int channel_check(const struct channel *ch, struct error *err);

/*
 * No byte of it can change on its way: TLS sees to that, or there is no network. Both ends say the
 * same.
 */
bool channel_is_sound(struct channel *ch);

/*
 * Pages can go from file to file within the kernel: a UNIX socket in the clear, and no limit of its
 * bandwidth.
 */
bool channel_takes_files(struct channel *ch);

/*
 * As channel_send() and channel_receive(), from and to a file at an offset, where
 * channel_takes_files(). The file's pages are lent to the socket: what is written to them before
 * the peer has taken them may be seen there. pipe is empty, and empty again when this succeeds.
 */
int channel_send_file(struct channel *ch, int fd, uint64_t at, size_t n, struct error *err);
int channel_receive_file(struct channel *ch, const int pipe[2], int fd, uint64_t at, size_t n,
			 struct error *err);

/* Waits until there is something to receive (or the end). */
int channel_wait(struct channel *ch, struct error *err);
/* Waits until something can be sent; of a socket that connects, until that has come to an end. */
int channel_wait_to_send(struct channel *ch, struct error *err);

/*
 * TLS with this key from here on, shaken hands. -EPROTO: not with this peer; -EPROTONOSUPPORT: it
 * speaks without TLS.
 */
int channel_secure(struct channel *ch, bool server, const uint8_t key[CHANNEL_KEY],
		   struct error *err);

/*
 * Without waiting: -EAGAIN with what to poll for (POLLIN or POLLOUT) before it is tried again. The
 * first byte that the peer sent, which stays there to be received (before TLS only); some of n
 * bytes, returns how many; a step of channel_secure().
 */
int channel_try_peek(struct channel *ch, uint8_t *ret, short *wait, struct error *err);
ssize_t channel_try_receive(struct channel *ch, void *buf, size_t n, short *wait,
			    struct error *err);
int channel_try_secure(struct channel *ch, bool server, const uint8_t key[CHANNEL_KEY], short *wait,
		       struct error *err);

void channel_close(struct channel *ch);

#endif
