/* SPDX-License-Identifier: Apache-2.0 */
/* Connections between movers. */

#include "mover/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/error.h"
#include "lib/io.h"
#include "mover/pace.h"
#include "channel/tls.h"

#define SLICE_MS 20

static bool cancelled(const _Atomic bool *const cancel[2])
{
	return (cancel[0] && *cancel[0]) || (cancel[1] && *cancel[1]);
}

/* Waits for events in slices, so that a cancel is seen. Ends at a time (io_now_ns()), or never: 0.
 */
static int wait_until(int fd, short events, uint64_t end, const _Atomic bool *const cancel[2],
		      struct error *err)
{
	uint64_t begin = io_now_ns();

	for (;;) {
		struct pollfd p = {.fd = fd, .events = events};
		int n;

		if (cancelled(cancel))
			return error_set(err, -ECANCELED, "cancelled");
		n = poll(&p, 1, SLICE_MS);
		if (n > 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return error_errno(err, -errno, "cannot wait for the peer");
		if (end && io_now_ns() >= end)
			return error_set(err, -ETIMEDOUT, "the peer said nothing for %u ms",
					 (unsigned)((io_now_ns() - begin) / 1000000));
	}
}

/* The one code that is the peer's word (message_expect()) and must not be the system's. */
static int lost(int rc)
{
	return rc == -ECONNABORTED ? -ECONNRESET : rc;
}

static uint64_t end_of(unsigned timeout_ms)
{
	return timeout_ms ? io_now_ns() + timeout_ms * 1000000ull : 0;
}

static int too_late(struct error *err)
{
	return error_set(err, -ETIMEDOUT, "the peer took too long to say who it is");
}

static int wait_for(const struct channel *ch, short events, struct error *err)
{
	uint64_t end = end_of(ch->timeout_ms);

	if (ch->deadline_ns && (!end || ch->deadline_ns < end))
		end = ch->deadline_ns;
	if (ch->deadline_ns && io_now_ns() >= ch->deadline_ns)
		return too_late(err);
	return wait_until(ch->fd, events, end, ch->cancel, err);
}

int channel_wait(struct channel *ch, struct error *err)
{
	return ch->tls && tls_pending(ch->tls) ? 0 : wait_for(ch, POLLIN, err);
}

int channel_wait_to_send(struct channel *ch, struct error *err)
{
	return wait_for(ch, POLLOUT, err);
}

/* Some bytes, 0 at the end, -EAGAIN with what to wait for, or -errno. */
static ssize_t receive_some(struct channel *ch, void *buf, size_t n, short *wait, struct error *err)
{
	ssize_t got;

	*wait = POLLIN;
	if (ch->tls)
		return tls_receive(ch->tls, buf, n, wait, err);
	got = recv(ch->fd, buf, n, MSG_DONTWAIT);
	if (got >= 0 || errno == EAGAIN || errno == EINTR)
		return got >= 0 ? got : -EAGAIN;
	return error_errno(err, -errno, "cannot receive from the peer");
}

int channel_check(const struct channel *ch, struct error *err)
{
	return cancelled(ch->cancel) ? error_set(err, -ECANCELED, "cancelled") : 0;
}

int channel_receive(struct channel *ch, void *buf, size_t n, struct error *err)
{
	size_t early = n < ch->nearly ? n : ch->nearly;
	uint8_t *p = buf;

	if (early) {
		memcpy(p, ch->early, early);
		p += early;
		n -= early;
		ch->early += early;
		ch->nearly -= early;
	}
	if (n && ch->deadline_ns && io_now_ns() >= ch->deadline_ns)
		return too_late(err);
	while (n) {
		short wait;
		ssize_t got = receive_some(ch, p, n, &wait, err);
		int rc;

		if (!got)
			return error_set(err, -EPIPE, "the peer closed the connection");
		if (got > 0) {
			p += got;
			n -= (size_t)got;
			continue;
		}
		rc = got == -EAGAIN ? wait_for(ch, wait, err) : lost((int)got);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int closed(struct error *err)
{
	return error_set(err, -EPIPE, "the peer closed the connection");
}

int channel_try_peek(struct channel *ch, uint8_t *ret, short *wait, struct error *err)
{
	ssize_t n = recv(ch->fd, ret, 1, MSG_DONTWAIT | MSG_PEEK);

	*wait = POLLIN;
	if (n > 0)
		return 0;
	if (n == 0)
		return closed(err);
	return errno == EAGAIN || errno == EINTR
		       ? -EAGAIN
		       : error_errno(err, lost(-errno), "cannot receive from the peer");
}

ssize_t channel_try_receive(struct channel *ch, void *buf, size_t n, short *wait, struct error *err)
{
	ssize_t got = receive_some(ch, buf, n, wait, err);

	return got > 0 ? got : got ? lost((int)got) : closed(err);
}

int channel_try_secure(struct channel *ch, bool server, const uint8_t key[CHANNEL_KEY], short *wait,
		       struct error *err)
{
	ssize_t done =
		ch->tls ? 0 : tls_create(ch->fd, server, "wisp-migration-1", key, &ch->tls, err);

	if (done == 0)
		done = tls_handshake(ch->tls, wait, err);
	return done > 0 ? 0 : done ? (int)done : closed(err);
}

int channel_secure(struct channel *ch, bool server, const uint8_t key[CHANNEL_KEY],
		   struct error *err)
{
	int rc;

	do {
		short wait;

		rc = channel_try_secure(ch, server, key, &wait, err);
		if (rc != -EAGAIN)
			return rc;
		rc = wait_for(ch, wait, err);
	} while (rc == 0);
	return rc;
}

/* Takes n bytes off the front. */
static void advance(struct iovec **iov, unsigned *count, size_t n)
{
	while (*count && n >= (*iov)->iov_len) {
		n -= (*iov)->iov_len;
		(*iov)++;
		(*count)--;
	}
	if (*count) {
		(*iov)->iov_base = (uint8_t *)(*iov)->iov_base + n;
		(*iov)->iov_len -= n;
	}
}

/* At most allowed bytes of the first part; without a limit (0), as much as goes. */
static ssize_t send_some(struct channel *ch, struct iovec *iov, unsigned n, size_t allowed,
			 short *wait, struct error *err)
{
	struct iovec part = {iov->iov_base, allowed ? allowed : iov->iov_len};
	struct msghdr msg = {.msg_iov = allowed ? &part : iov, .msg_iovlen = allowed ? 1 : n};
	ssize_t sent;

	*wait = POLLOUT;
	if (ch->tls)
		return tls_send(ch->tls, part.iov_base, part.iov_len, wait, err);
	sent = sendmsg(ch->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (sent >= 0 || errno == EAGAIN || errno == EINTR)
		return sent >= 0 ? sent : -EAGAIN;
	return error_errno(err, -errno, "cannot send to the peer");
}

int channel_send(struct channel *ch, struct iovec *iov, unsigned n, struct error *err)
{
	size_t allowed = 0;

	advance(&iov, &n, 0);
	while (n) {
		ssize_t sent;
		short wait;
		int rc = 0;

		if (ch->pace && !allowed)
			rc = pace_wait(ch->pace, iov->iov_len, ch->cancel, &allowed, err);
		if (rc < 0)
			return rc;
		sent = send_some(ch, iov, n, allowed, &wait, err);
		if (sent > 0) {
			advance(&iov, &n, (size_t)sent);
			allowed -= ch->pace ? (size_t)sent : 0;
			continue;
		}
		if (sent == 0)
			return error_set(err, -EPIPE, "the peer closed the connection");
		rc = sent == -EAGAIN ? wait_for(ch, wait, err) : lost((int)sent);
		if (rc < 0)
			return rc;
	}
	return cancelled(ch->cancel) ? error_set(err, -ECANCELED, "cancelled") : 0;
}

/* Asked once, then remembered. */
static bool is_unix(struct channel *ch)
{
	if (ch->domain == AF_UNSPEC) {
		int domain = AF_UNSPEC;
		socklen_t n = sizeof(domain);

		getsockopt(ch->fd, SOL_SOCKET, SO_DOMAIN, &domain, &n);
		ch->domain = domain;
	}
	return ch->domain == AF_UNIX;
}

bool channel_is_sound(struct channel *ch)
{
	return ch->tls || is_unix(ch);
}

bool channel_takes_files(struct channel *ch)
{
	return !ch->tls && !ch->pace && is_unix(ch);
}

int channel_send_file(struct channel *ch, int fd, uint64_t at, size_t n, struct error *err)
{
	off_t offset = (off_t)at;

	while (n) {
		ssize_t sent = sendfile(ch->fd, fd, &offset, n);
		int rc = 0;

		if (!sent)
			return error_set(err, -EIO, "the file of the memory is too short");
		if (sent > 0)
			n -= (size_t)sent;
		else if (errno == EAGAIN)
			rc = wait_for(ch, POLLOUT, err);
		else if (errno != EINTR)
			rc = error_errno(err, -errno, "cannot send pages to the peer");
		if (rc < 0)
			return rc;
	}
	return cancelled(ch->cancel) ? error_set(err, -ECANCELED, "cancelled") : 0;
}

static int pour(const int pipe[2], int fd, loff_t *at, size_t n, struct error *err)
{
	while (n) {
		ssize_t put = splice(pipe[0], NULL, fd, at, n, SPLICE_F_MOVE);

		if (put < 0 && errno == EINTR)
			continue;
		if (put <= 0)
			return error_errno(err, put ? -errno : -EIO, "cannot write pages");
		n -= (size_t)put;
	}
	return 0;
}

int channel_receive_file(struct channel *ch, const int pipe[2], int fd, uint64_t at, size_t n,
			 struct error *err)
{
	loff_t offset = (loff_t)at;

	while (n) {
		ssize_t got =
			splice(ch->fd, NULL, pipe[1], NULL, n, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
		int rc = 0;

		if (!got)
			return error_set(err, -EPIPE, "the peer closed the connection");
		if (got > 0) {
			rc = pour(pipe, fd, &offset, (size_t)got, err);
			n -= (size_t)got;
		} else if (errno == EAGAIN) {
			rc = wait_for(ch, POLLIN, err);
		} else if (errno != EINTR) {
			rc = error_errno(err, -errno, "cannot receive pages from the peer");
		}
		if (rc < 0)
			return rc;
	}
	return cancelled(ch->cancel) ? error_set(err, -ECANCELED, "cancelled") : 0;
}

void channel_close(struct channel *ch)
{
	tls_destroy(ch->tls);
	ch->tls = NULL;
	if (ch->fd >= 0)
		close(ch->fd);
	ch->fd = -1;
	ch->domain = AF_UNSPEC;
}
