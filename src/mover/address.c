/* SPDX-License-Identifier: Apache-2.0 */
/* Where movers find each other: sockets by the text of their address. */

#include "mover/address.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/lookup.h"
#include "lib/parse.h"
#include "mover/channel.h"

#define BACKLOG 80
#define LOCAL_BUFFER (128 << 10)
#define UNIX_BUFFER (2 << 20)

/* Splits "HOST:PORT"; host and port are for free(). */
static int split(const char *text, char **host, char **port, struct error *err)
{
	const char *colon = strrchr(text, ':');

	if (!colon || colon == text)
		return error_set(err, -EINVAL, "\"tcp:%s\" is not tcp:HOST:PORT", text);
	*host = strndup(text, (size_t)(colon - text));
	*port = strdup(colon + 1);
	return *host && *port ? 0 : error_set(err, -ENOMEM, "out of memory");
}

static int no_address(const char *text, int rc, struct error *err)
{
	return error_set(err, -EHOSTUNREACH, "tcp:%s: %s", text, gai_strerror(rc));
}

static int look_up(const char *text, struct lookup **ret, struct error *err)
{
	CLEANUP_FREE char *host = NULL, *port = NULL;
	int rc = split(text, &host, &port, err);

	return rc < 0 ? rc : lookup_start(host, port, ret, err);
}

/* The addresses are the lookup's. */
static int resolve(const char *text, const struct channel *limits, struct lookup **lookup,
		   const struct addrinfo **ret, struct error *err)
{
	struct channel wait = *limits;
	int rc = look_up(text, lookup, err);

	if (rc < 0)
		return rc;
	wait.fd = lookup_fd(*lookup);
	rc = channel_wait(&wait, err);
	if (rc == -ETIMEDOUT)
		error_set(err, rc, "tcp:%s: nobody says what address that is", text);
	if (rc == 0 && lookup_result(*lookup, ret, err) < 0)
		rc = error_prefix(err, -EHOSTUNREACH, "tcp:%s", text);
	return rc;
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

/* The socket does not block from here on, which no channel minds. */
static int begin_connect(int fd, const struct addrinfo *to, const struct channel *limits,
			 struct error *err)
{
	struct channel wait = *limits;
	socklen_t n = sizeof(int);
	int code = 0, rc;

	if (connect(fd, to->ai_addr, to->ai_addrlen) == 0)
		return 0;
	if (errno != EINPROGRESS)
		return -errno;
	wait.fd = fd;
	rc = channel_wait_to_send(&wait, err);
	if (rc == 0 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &n))
		rc = -errno;
	return rc < 0 ? rc : -code;
}

static int tcp_connect(const char *text, const struct channel *limits, struct error *err)
{
	CLEANUP_CLOSE int fd = -1;
	struct lookup *lookup = NULL;
	const struct addrinfo *to = NULL;
	const int on = 1;
	int rc = resolve(text, limits, &lookup, &to, err);

	if (rc == 0) {
		fd = socket(to->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		rc = fd < 0 ? -errno : begin_connect(fd, to, limits, err);
		if (rc < 0 && rc != -ECANCELED)
			error_errno(err, rc, "cannot connect to tcp:%s", text);
	}
	lookup_drop(&lookup);
	if (rc < 0)
		return rc;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	keep_small(fd);
	return take_fd(&fd);
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
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
	CLEANUP_FREE char *host = NULL, *port = NULL;
	CLEANUP_CLOSE int fd = -1;
	struct addrinfo *list = NULL;
	const int on = 1;
	int rc = split(text, &host, &port, err);

	if (rc < 0)
		return rc;
	rc = getaddrinfo(host, port, &hints, &list);
	if (rc)
		return no_address(text, rc, err);
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

int address_connect(const char *address, unsigned timeout_ms, const _Atomic bool *const cancel[2],
		    struct error *err)
{
	const struct channel limits = {
		.fd = -1, .timeout_ms = timeout_ms, .cancel = {cancel[0], cancel[1]}};

	if (!strncmp(address, "unix:", 5))
		return unix_connect(address + 5, err);
	if (!strncmp(address, "tcp:", 4))
		return tcp_connect(address + 4, &limits, err);
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
	struct channel ch = {.fd = fd, .timeout_ms = timeout_ms, .cancel = {cancel[0], cancel[1]}};
	int rc = channel_wait(&ch, err);
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
