/* SPDX-License-Identifier: Apache-2.0 */
/* Connections between movers. */

#include "mover/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/parse.h"
#include "mover/pace.h"
#include "mover/tls.h"

#define SLICE_MS 20
#define BACKLOG 80
#define LOCAL_BUFFER (128 << 10)
#define UNIX_BUFFER (2 << 20)

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

static uint64_t end_of(unsigned timeout_ms)
{
	return timeout_ms ? io_now_ns() + timeout_ms * 1000000ull : 0;
}

static int wait_for(const struct channel *ch, short events, struct error *err)
{
	uint64_t end = end_of(ch->timeout_ms);

	if (ch->deadline_ns && (!end || ch->deadline_ns < end))
		end = ch->deadline_ns;
	if (ch->deadline_ns && io_now_ns() >= ch->deadline_ns)
		return error_set(err, -ETIMEDOUT, "the peer took too long to say who it is");
	return wait_until(ch->fd, events, end, ch->cancel, err);
}

int channel_wait(struct channel *ch, struct error *err)
{
	return ch->tls && tls_pending(ch->tls) ? 0 : wait_for(ch, POLLIN, err);
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

int channel_receive(struct channel *ch, void *buf, size_t n, struct error *err)
{
	uint8_t *p = buf;

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
		rc = got == -EAGAIN ? wait_for(ch, wait, err) : (int)got;
		if (rc < 0)
			return rc;
	}
	return cancelled(ch->cancel) ? error_set(err, -ECANCELED, "cancelled") : 0;
}

int channel_peek(struct channel *ch, uint8_t *ret, struct error *err)
{
	int rc = wait_for(ch, POLLIN, err);
	ssize_t n;

	if (rc < 0)
		return rc;
	n = recv(ch->fd, ret, 1, MSG_DONTWAIT | MSG_PEEK);
	if (n > 0)
		return 0;
	return n ? error_errno(err, -errno, "cannot receive from the peer")
		 : error_set(err, -EPIPE, "the peer closed the connection");
}

int channel_secure(struct channel *ch, bool server, const uint8_t key[CHANNEL_KEY],
		   struct error *err)
{
	int rc = tls_create(ch->fd, server, key, &ch->tls, err);

	while (rc == 0) {
		short wait;
		ssize_t done = tls_handshake(ch->tls, &wait, err);

		if (done > 0)
			return 0;
		if (done == 0)
			return error_set(err, -EPIPE, "the peer closed the connection");
		rc = done == -EAGAIN ? wait_for(ch, wait, err) : (int)done;
	}
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
		rc = sent == -EAGAIN ? wait_for(ch, wait, err) : (int)sent;
		if (rc < 0)
			return rc;
	}
	return cancelled(ch->cancel) ? error_set(err, -ECANCELED, "cancelled") : 0;
}

static bool is_unix(const struct channel *ch)
{
	int domain = 0;
	socklen_t n = sizeof(domain);

	return !getsockopt(ch->fd, SOL_SOCKET, SO_DOMAIN, &domain, &n) && domain == AF_UNIX;
}

bool channel_is_sound(const struct channel *ch)
{
	return ch->tls || is_unix(ch);
}

bool channel_takes_files(const struct channel *ch)
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

/*
 * Within a host, what waits in a connection should still be in a cache when it is taken; the sizes
 * that TCP finds for networks are beyond that.
 */
static void keep_small(int fd)
{
	struct sockaddr_storage here = {0}, there = {0};
	socklen_t n = sizeof(here), m = sizeof(there);
	const int size = LOCAL_BUFFER;

	if (getsockname(fd, (struct sockaddr *)&here, &n) ||
	    getpeername(fd, (struct sockaddr *)&there, &m) || here.ss_family != there.ss_family)
		return;
	if (here.ss_family == AF_INET
		    ? memcmp(&((struct sockaddr_in *)&here)->sin_addr,
			     &((struct sockaddr_in *)&there)->sin_addr, sizeof(struct in_addr))
		    : here.ss_family != AF_INET6 ||
			      memcmp(&((struct sockaddr_in6 *)&here)->sin6_addr,
				     &((struct sockaddr_in6 *)&there)->sin6_addr,
				     sizeof(struct in6_addr)))
		return;
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
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
	keep_small(fd);
	freeaddrinfo(list);
	return rc < 0 ? rc : take_fd(&fd);
}

/* "fd=N": whoever started us listens there already, and has told the peer where. */
static int inherited_listener(const char *text, struct error *err)
{
	unsigned number;
	int listens = 0, r = parse_uint(text, "descriptor to listen on", 0, INT_MAX, &number, err);
	socklen_t size = sizeof(listens);

	if (r)
		return r;
	if (getsockopt((int)number, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) < 0 || !listens)
		return error_set(err, -EINVAL, "descriptor %u is no socket that listens", number);
	r = fcntl((int)number, F_DUPFD_CLOEXEC, 3);
	return r < 0 ? error_errno(err, -errno, "cannot take descriptor %u", number) : r;
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

	if (fd < 0)
		return fd;
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	/* sendfile() has no MSG_DONTWAIT. */
	if (fcntl(fd, F_SETFL, O_NONBLOCK)) {
		error_errno(err, -errno, "unix:%s", path);
		close(fd);
		return -EIO;
	}
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
	if (!strncmp(address, "tcp:fd=", 7))
		return inherited_listener(address + 7, err);
	if (!strncmp(address, "tcp:", 4))
		return tcp_listen(address + 4, err);
	return address_error(address, err);
}

int address_accept(int fd, unsigned timeout_ms, const _Atomic bool *const cancel[2],
		   struct error *err)
{
	const int on = 1;
	int rc = wait_until(fd, POLLIN, end_of(timeout_ms), cancel, err);
	int got;

	if (rc < 0)
		return rc;
	got = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
	if (got < 0)
		return error_errno(err, -errno, "cannot accept a connection");
	/* Not for UNIX sockets, which have no delay. */
	setsockopt(got, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	keep_small(got);
	return got;
}

void address_peer(int fd, char ret[ADDRESS_TEXT])
{
	struct sockaddr_storage name = {0};
	socklen_t n = sizeof(name);
	char host[INET6_ADDRSTRLEN], port[8];

	if (getpeername(fd, (struct sockaddr *)&name, &n) || name.ss_family == AF_UNIX ||
	    getnameinfo((struct sockaddr *)&name, n, host, sizeof(host), port, sizeof(port),
			NI_NUMERICHOST | NI_NUMERICSERV))
		snprintf(ret, ADDRESS_TEXT, "this host");
	else
		snprintf(ret, ADDRESS_TEXT, "%s port %s", host, port);
}
