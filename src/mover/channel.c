/* SPDX-License-Identifier: Apache-2.0 */
/* Connections between movers. */

#include "mover/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

#define SLICE_MS 20
#define BACKLOG 80
#define UNIX_BUFFER (2 << 20)

static bool cancelled(const _Atomic bool *const cancel[2])
{
	return (cancel[0] && *cancel[0]) || (cancel[1] && *cancel[1]);
}

/* Waits for events in slices, so that a cancel is seen. timeout_ms 0: for ever. */
static int wait_for(int fd, short events, unsigned timeout_ms, const _Atomic bool *const cancel[2],
		    struct error *err)
{
	uint64_t end = io_now_ns() + timeout_ms * 1000000ull;

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
		if (timeout_ms && io_now_ns() >= end)
			return error_set(err, -ETIMEDOUT, "the peer said nothing for %u ms",
					 timeout_ms);
	}
}

int channel_wait(struct channel *ch, struct error *err)
{
	return wait_for(ch->fd, POLLIN, ch->timeout_ms, ch->cancel, err);
}

int channel_receive(struct channel *ch, void *buf, size_t n, struct error *err)
{
	uint8_t *p = buf;

	while (n) {
		ssize_t got = recv(ch->fd, p, n, MSG_DONTWAIT);
		int rc;

		if (!got)
			return error_set(err, -EPIPE, "the peer closed the connection");
		if (got > 0) {
			p += got;
			n -= (size_t)got;
			continue;
		}
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN)
			return error_errno(err, -errno, "cannot receive from the peer");
		rc = channel_wait(ch, err);
		if (rc < 0)
			return rc;
	}
	return cancelled(ch->cancel) ? error_set(err, -ECANCELED, "cancelled") : 0;
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

int channel_send(struct channel *ch, struct iovec *iov, unsigned n, struct error *err)
{
	advance(&iov, &n, 0);
	while (n) {
		struct msghdr msg = {.msg_iov = iov, .msg_iovlen = n};
		ssize_t sent = sendmsg(ch->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
		int rc;

		if (sent >= 0) {
			advance(&iov, &n, (size_t)sent);
			continue;
		}
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN)
			return error_errno(err, -errno, "cannot send to the peer");
		rc = wait_for(ch->fd, POLLOUT, ch->timeout_ms, ch->cancel, err);
		if (rc < 0)
			return rc;
	}
	return cancelled(ch->cancel) ? error_set(err, -ECANCELED, "cancelled") : 0;
}

void channel_close(struct channel *ch)
{
	if (ch->fd >= 0)
		close(ch->fd);
	ch->fd = -1;
}

/* Splits "HOST:PORT" and resolves it. */
static int resolve(const char *text, int flags, struct addrinfo **ret, struct error *err)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = flags};
	const char *colon = strrchr(text, ':');
	char host[256];
	int rc;

	if (!colon || (size_t)(colon - text) >= sizeof(host) || colon == text)
		return error_set(err, -EINVAL, "\"tcp:%s\" is not tcp:HOST:PORT", text);
	memcpy(host, text, (size_t)(colon - text));
	host[colon - text] = '\0';
	rc = getaddrinfo(host, colon + 1, &hints, ret);
	if (rc)
		return error_set(err, -EHOSTUNREACH, "tcp:%s: %s", text, gai_strerror(rc));
	return 0;
}

static int tcp_connect(const char *text, unsigned timeout_ms, struct error *err)
{
	const struct timeval limit = {timeout_ms / 1000, timeout_ms % 1000 * 1000L};
	CLEANUP_CLOSE int fd = -1;
	struct addrinfo *list = NULL;
	const int on = 1;
	int rc = resolve(text, 0, &list, err);

	if (rc < 0)
		return rc;
	fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) ||
	    connect(fd, list->ai_addr, list->ai_addrlen))
		rc = error_errno(err, errno == EINPROGRESS ? -ETIMEDOUT : -errno,
				 "cannot connect to tcp:%s", text);
	else
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	freeaddrinfo(list);
	return rc < 0 ? rc : take_fd(&fd);
}

static int tcp_listen(const char *text, struct error *err)
{
	CLEANUP_CLOSE int fd = -1;
	struct addrinfo *list = NULL;
	const int on = 1;
	int rc = resolve(text, AI_PASSIVE, &list, err);

	if (rc < 0)
		return rc;
	fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
	    bind(fd, list->ai_addr, list->ai_addrlen) || listen(fd, BACKLOG))
		rc = error_errno(err, -errno, "cannot listen on tcp:%s", text);
	freeaddrinfo(list);
	return rc < 0 ? rc : take_fd(&fd);
}

static int address_error(const char *address, struct error *err)
{
	return error_set(err, -EINVAL, "\"%s\" is neither unix:PATH nor tcp:HOST:PORT", address);
}

/*
 * A UNIX socket takes less than a chunk at first, and both sides would wait for each other in turn;
 * TCP finds its own size. What is more than the system allows is cut.
 */
static int unix_connect(const char *path, struct error *err)
{
	const int size = UNIX_BUFFER;
	int fd = io_unix_connect(path, err);

	if (fd >= 0)
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	return fd;
}

int address_connect(const char *address, unsigned timeout_ms, struct error *err)
{
	if (!strncmp(address, "unix:", 5))
		return unix_connect(address + 5, err);
	if (!strncmp(address, "tcp:", 4))
		return tcp_connect(address + 4, timeout_ms, err);
	return address_error(address, err);
}

int address_listen(const char *address, struct error *err)
{
	if (!strncmp(address, "unix:", 5))
		return io_unix_listen(address + 5, err);
	if (!strncmp(address, "tcp:", 4))
		return tcp_listen(address + 4, err);
	return address_error(address, err);
}

int address_accept(int fd, unsigned timeout_ms, const _Atomic bool *const cancel[2],
		   struct error *err)
{
	const int on = 1;
	int rc = wait_for(fd, POLLIN, timeout_ms, cancel, err);
	int got;

	if (rc < 0)
		return rc;
	got = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
	if (got < 0)
		return error_errno(err, -errno, "cannot accept a connection");
	/* Not for UNIX sockets, which have no delay. */
	setsockopt(got, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return got;
}
