/* SPDX-License-Identifier: Apache-2.0 */
/* Metrics over HTTP. */

#include "node/scrape.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/loop.h"
#include "lib/parse.h"

#define READERS_MAX 16u
#define PATIENCE_NS 10000000000ull
#define REQUEST_MAX 8192u
#define BACKLOG 16

struct reader {
	struct reader *next;
	struct scrape *s;
	int fd;
	struct loop_source *source, *timer;
	char in[REQUEST_MAX + 1];
	size_t used;
	char *out;
	size_t size, sent;
};

struct scrape {
	struct loop *loop;
	scrape_fn *fn;
	void *arg;
	char *path; /* of a UNIX socket */
	int fd;
	struct loop_source *accepting;
	struct reader *readers;
	unsigned n;
};

/* -------- one reader -------- */

static void accept_more(struct scrape *s)
{
	loop_modify_fd(s->accepting, s->n < READERS_MAX ? EPOLLIN : 0);
}

static void reader_end(struct reader *r)
{
	struct reader **at = &r->s->readers;

	while (*at != r)
		at = &(*at)->next;
	*at = r->next;
	r->s->n--;
	accept_more(r->s);
	loop_remove(&r->source);
	loop_remove(&r->timer);
	close(r->fd);
	free(r->out);
	free(r);
}

static void on_patience(void *arg)
{
	reader_end(arg);
}

static int answer(struct reader *r, const char *status, const char *type, const char *text)
{
	r->out = io_format("HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
			   "Connection: close\r\n\r\n%s",
			   status, type, strlen(text), text);
	r->size = r->out ? strlen(r->out) : 0;
	return r->out ? loop_modify_fd(r->source, EPOLLOUT) : -ENOMEM;
}

/* What the first line asks for, as far as anybody does. */
static bool asks_for(const char *request, const char *path)
{
	size_t n = strlen(path);

	return !strncmp(request, "GET ", 4) && !strncmp(request + 4, path, n) &&
	       (request[4 + n] == ' ' || request[4 + n] == '?');
}

static int serve(struct reader *r)
{
	static const char plain[] = "text/plain; charset=utf-8";
	CLEANUP_FREE char *text = NULL;
	struct error err;

	if (strncmp(r->in, "GET ", 4))
		return answer(r, "405 Method Not Allowed", plain, "only GET\n");
	if (!asks_for(r->in, "/metrics"))
		return answer(r, "404 Not Found", plain, "there is /metrics\n");
	if (r->s->fn(r->s->arg, &text, &err))
		return answer(r, "500 Internal Server Error", plain, err.text);
	return answer(r, "200 OK", "text/plain; version=0.0.4; charset=utf-8", text);
}

/* 1: its request is whole; 0: not yet. */
static int hear(struct reader *r)
{
	ssize_t n = read(r->fd, r->in + r->used, REQUEST_MAX - r->used);

	if (n <= 0)
		return n < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -EPIPE;
	r->used += (size_t)n;
	r->in[r->used] = 0;
	if (strlen(r->in) < r->used)
		return -EPROTO;
	if (strstr(r->in, "\r\n\r\n"))
		return 1;
	return r->used < REQUEST_MAX ? 0 : -EMSGSIZE;
}

/* 1: all has been sent. */
static int tell(struct reader *r)
{
	ssize_t n = send(r->fd, r->out + r->sent, r->size - r->sent, MSG_NOSIGNAL);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	r->sent += (size_t)n;
	return r->sent == r->size;
}

static void on_ready(void *arg, uint32_t events)
{
	struct reader *r = arg;
	int code;

	if (r->out) {
		code = tell(r);
		if (code)
			reader_end(r);
		return;
	}
	code = hear(r);
	if (code > 0)
		code = serve(r);
	if (code < 0)
		reader_end(r);
}

/* Takes the descriptor. */
static int reader_new(struct scrape *s, int fd)
{
	struct reader *r = calloc(1, sizeof(*r));
	int code;

	if (!r) {
		close(fd);
		return -ENOMEM;
	}
	*r = (struct reader){.next = s->readers, .s = s, .fd = fd};
	s->readers = r;
	s->n++;
	code = loop_add_fd(s->loop, fd, EPOLLIN, on_ready, r, &r->source);
	if (!code)
		code = loop_add_timer(s->loop, on_patience, r, &r->timer);
	if (!code)
		code = loop_set_timer(r->timer, PATIENCE_NS, 0);
	if (code)
		reader_end(r);
	return code;
}

static void on_accept(void *arg, uint32_t events)
{
	struct scrape *s = arg;
	int fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd >= 0)
		reader_new(s, fd);
	accept_more(s);
}

/* -------- where -------- */

static int listen_at(const struct addrinfo *at, struct error *err)
{
	CLEANUP_CLOSE int fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	const int on = 1;

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
	    bind(fd, at->ai_addr, at->ai_addrlen) || listen(fd, BACKLOG))
		return error_errno(err, -errno, "cannot listen");
	return take_fd(&fd);
}

/* "9450", "0.0.0.0:9450", "[::1]:9450": the brackets and the last colon are no part of either. */
static int listen_tcp(const char *where, struct error *err)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
				       .ai_flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV};
	const char *colon = strrchr(where, ':'), *port = colon ? colon + 1 : where;
	CLEANUP_FREE char *host =
		colon ? strndup(where + (*where == '['),
				(size_t)(colon - where) - 2 * (*where == '[' && colon > where + 1))
		      : strdup("127.0.0.1");
	struct addrinfo *list = NULL;
	unsigned number;
	int r;

	if (!host || parse_uint(port, "port", 0, 65535, &number, NULL) ||
	    getaddrinfo(host, port, &hints, &list))
		return error_set(err, -EINVAL, "give a path, a PORT or ADDRESS:PORT");
	r = listen_at(list, err);
	freeaddrinfo(list);
	return r;
}

static int listen_there(struct scrape *s, const char *where, struct error *err)
{
	int r;

	if (!strchr(where, '/')) {
		s->fd = listen_tcp(where, err);
		return s->fd < 0 ? s->fd : 0;
	}
	s->path = strdup(where);
	r = s->path ? io_unix_listen(where, err) : error_set(err, -ENOMEM, "out of memory");
	s->fd = r < 0 ? -1 : r;
	return r < 0 ? r : 0;
}

int scrape_create(struct loop *loop, const char *where, scrape_fn *fn, void *arg,
		  struct scrape **ret, struct error *err)
{
	struct scrape *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return error_set(err, -ENOMEM, "out of memory");
	*s = (struct scrape){.loop = loop, .fn = fn, .arg = arg, .fd = -1};
	r = listen_there(s, where, err);
	if (!r && (fcntl(s->fd, F_SETFL, O_NONBLOCK) ||
		   loop_add_fd(loop, s->fd, EPOLLIN, on_accept, s, &s->accepting)))
		r = error_set(err, -ENOMEM, "cannot watch the socket");
	if (r) {
		scrape_destroy(s);
		return error_prefix(err, r, "--metrics %s", where);
	}
	*ret = s;
	return 0;
}

void scrape_destroy(struct scrape *s)
{
	if (!s)
		return;
	while (s->readers)
		reader_end(s->readers);
	loop_remove(&s->accepting);
	if (s->fd >= 0 && s->path)
		unlink(s->path);
	cleanup_close_fd(&s->fd);
	free(s->path);
	free(s);
}

unsigned scrape_port(const struct scrape *s)
{
	struct sockaddr_storage at = {0};
	socklen_t n = sizeof(at);
	uint16_t port;

	if (getsockname(s->fd, (struct sockaddr *)&at, &n) ||
	    (at.ss_family != AF_INET && at.ss_family != AF_INET6))
		return 0;
	/* At the same place in both. */
	memcpy(&port, (const char *)&at + 2, sizeof(port));
	return ntohs(port);
}
