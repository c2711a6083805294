/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's end of the vsock device's connections: UNIX stream sockets. Data from the guest
 * goes straight from its memory to the socket; only what the socket does not take at once is
 * kept, at most VSOCK_BUFFER bytes for each connection.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/log.h"
#include "lib/loop.h"
#include "lib/parse.h"
#include "vmm/dev/iov.h"
#include "vmm/dev/vsock.h"
#include "vmm/vm.h"

/* Host ports of connections that the host starts: where Linux's ephemeral ports are not. */
#define FIRST_PORT (1u << 30)

/* The listener of a guest's request may be busy: tried again so often, so many times. */
#define RETRY_NS 5000000u
#define RETRIES 400
/* Connections accepted before other devices get their turn. */
#define BATCH 64

static const struct log *log_of(const struct vsock *vs)
{
	return &vs->virtio.device.vm->log;
}

static struct loop *loop_of(const struct vsock *vs)
{
	return vs->virtio.device.vm->loop;
}

uint32_t conn_credit(const struct conn *c)
{
	uint32_t unread = c->sent - c->guest_fwd;

	return unread < c->guest_alloc ? c->guest_alloc - unread : 0;
}

void conn_watch(struct conn *c, uint32_t events, bool on)
{
	uint32_t now = on ? c->events | events : c->events & ~events;

	if (c->source && now != c->events)
		loop_modify_fd(c->source, now);
	c->events = now;
}

void conn_detach(struct conn *c)
{
	loop_remove(&c->source);
}

static void close_host(struct conn *c)
{
	conn_detach(c);
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
}

static void drop_buffer(struct conn *c)
{
	free(c->buf);
	c->buf = NULL;
	c->buf_start = c->buf_len = 0;
}

void conn_free(struct conn *c)
{
	struct vsock *vs = c->vs;

	vsock_forget(c);
	if (c->working)
		TAILQ_REMOVE(&vs->work, c, work);
	TAILQ_REMOVE(&vs->all, c, all);
	close_host(c);
	drop_buffer(c);
	free(c);
	vs->nconns--;
	/* If accept() had no descriptor left, now there is one. */
	if (vs->listen_source)
		loop_modify_fd(vs->listen_source, EPOLLIN);
}

void conn_reset(struct conn *c)
{
	close_host(c);
	drop_buffer(c);
	c->state = CONN_DEAD;
	vsock_want_work(c);
}

void conn_leave(struct conn *c, bool owes_reset)
{
	if (!c->buf_len || c->fd < 0) {
		if (owes_reset)
			conn_reset(c);
		else
			conn_free(c);
		return;
	}
	c->state = CONN_LINGER;
	conn_watch(c, EPOLLIN, false);
	if (owes_reset) {
		c->send = SEND_RESET;
		vsock_want_work(c);
	} else {
		c->send = 0;
		vsock_forget(c);
	}
}

/* Ends a connection the host asked for, with the reason. */
static void fail(struct conn *c, const char *why)
{
	char line[64];
	int n = snprintf(line, sizeof(line), "ERR %s\n", why);

	c->vs->refused++;
	/* The socket is empty: this fits, or nobody is there to read it. */
	if (c->fd >= 0 && send(c->fd, line, (size_t)n, MSG_NOSIGNAL) < 0)
		log_debug(log_of(c->vs), "vsock", "a client left before its answer");
	conn_free(c);
}

void conn_reset_by_guest(struct conn *c)
{
	if (c->state == CONN_REQUESTED)
		fail(c, "the guest refused the connection");
	else
		conn_leave(c, false);
}

void conn_accepted(struct conn *c)
{
	char line[24];
	int n = snprintf(line, sizeof(line), "OK %u\n", c->host_port);

	c->state = CONN_OPEN;
	c->vs->opened++;
	if (send(c->fd, line, (size_t)n, MSG_NOSIGNAL) != n) {
		conn_reset(c);
		return;
	}
	c->want_read = true;
	vsock_want_work(c);
}

/* Tells the guest that it has room again, before it runs out. */
static void forwarded(struct conn *c, uint32_t n)
{
	c->forwarded += n;
	c->vs->to_host += n;
	if (c->state == CONN_OPEN && c->received - c->told_forwarded > VSOCK_BUFFER / 2) {
		c->send |= SEND_CREDIT_UPDATE;
		vsock_want_work(c);
	}
}

/* The host's program reads no more: what the guest sends from now on goes nowhere. */
static void host_reads_no_more(struct conn *c)
{
	c->host_shut |= VIRTIO_VSOCK_SHUTDOWN_RCV;
	forwarded(c, c->buf_len);
	drop_buffer(c);
	conn_watch(c, EPOLLOUT, false);
	vsock_want_work(c);
}

/* Everything the guest sent is with the host. */
static void flushed(struct conn *c)
{
	drop_buffer(c);
	conn_watch(c, EPOLLOUT, false);
	if (c->guest_shut & VIRTIO_VSOCK_SHUTDOWN_SEND)
		shutdown(c->fd, SHUT_WR);
}

/* Writes kept data. False: the connection is gone. */
static bool flush(struct conn *c)
{
	ssize_t n = send(c->fd, c->buf + c->buf_start, c->buf_len, MSG_NOSIGNAL);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return true;
	if (n < 0) {
		host_reads_no_more(c);
	} else {
		c->buf_start += (uint32_t)n;
		c->buf_len -= (uint32_t)n;
		forwarded(c, (uint32_t)n);
		if (!c->buf_len)
			flushed(c);
	}
	if (c->state != CONN_LINGER || c->buf_len)
		return true;
	conn_leave(c, c->send & SEND_RESET);
	return false;
}

/* Keeps what the socket did not take. The guest's credit says that it fits. */
static bool keep(struct conn *c, const struct iovec *iov, unsigned n, size_t skip, uint32_t len)
{
	if (!c->buf)
		c->buf = malloc(VSOCK_BUFFER);
	if (!c->buf)
		return false;
	if (c->buf_start + c->buf_len + len > VSOCK_BUFFER) {
		memmove(c->buf, c->buf + c->buf_start, c->buf_len);
		c->buf_start = 0;
	}
	iov_read(iov, n, skip, c->buf + c->buf_start + c->buf_len, len);
	c->buf_len += len;
	conn_watch(c, EPOLLOUT, true);
	return true;
}

void conn_receive(struct conn *c, const struct iovec *iov, unsigned n, uint32_t len)
{
	struct msghdr msg = {.msg_iov = (struct iovec *)iov, .msg_iovlen = n};
	ssize_t sent = 0;

	c->received += len;
	if (c->host_shut == VSOCK_BOTH) {
		conn_reset(c); /* the program is gone */
		return;
	}
	if (c->host_shut & VIRTIO_VSOCK_SHUTDOWN_RCV) {
		forwarded(c, len);
		return;
	}
	if (!c->buf_len)
		sent = sendmsg(c->fd, &msg, MSG_NOSIGNAL);
	if (sent < 0 && errno != EAGAIN && errno != EINTR) {
		forwarded(c, len);
		host_reads_no_more(c);
		return;
	}
	if (sent < 0)
		sent = 0;
	if (sent)
		forwarded(c, (uint32_t)sent);
	if ((uint32_t)sent < len && !keep(c, iov, n, (size_t)sent, len - (uint32_t)sent))
		conn_reset(c);
}

void conn_shut_by_guest(struct conn *c, uint8_t flags)
{
	c->guest_shut |= flags;
	if (c->guest_shut == VSOCK_BOTH) {
		conn_leave(c, true); /* a reset is the answer (specification 5.10.6.5) */
		return;
	}
	if (c->fd < 0)
		return;
	if (c->guest_shut & VIRTIO_VSOCK_SHUTDOWN_RCV) {
		conn_watch(c, EPOLLIN, false);
		shutdown(c->fd, SHUT_RD);
	}
	if (c->guest_shut & VIRTIO_VSOCK_SHUTDOWN_SEND && !c->buf_len)
		shutdown(c->fd, SHUT_WR);
}

/* The host closed its end. What it sent before may still be in the socket. */
static void hung_up(struct conn *c)
{
	conn_detach(c); /* the loop would report this for ever */
	c->events = 0;
	c->hung_up = true;
	host_reads_no_more(c);
	c->want_read = true;
}

void conn_host_ended(struct conn *c)
{
	c->host_shut |= VIRTIO_VSOCK_SHUTDOWN_SEND;
	c->want_read = false;
	conn_watch(c, EPOLLIN, false);
	if (c->hung_up)
		close_host(c);
}

/* The client's first line: "CONNECT <port>\n". */
static void ask_guest(struct conn *c)
{
	static const char word[] = "CONNECT ";
	struct vsock *vs = c->vs;
	unsigned port;

	if (strncmp(c->line, word, strlen(word)) ||
	    parse_uint(c->line + strlen(word), "port", 0, UINT32_MAX, &port, NULL)) {
		fail(c, "the request is CONNECT and a port number");
		return;
	}
	if (!vs->running) {
		fail(c, "the guest has no vsock driver running");
		return;
	}
	do {
		if (vs->next_port < FIRST_PORT)
			vs->next_port = FIRST_PORT;
		c->host_port = vs->next_port++;
	} while (vsock_find(vs, port, c->host_port));
	c->guest_port = port;
	c->state = CONN_REQUESTED;
	c->send = SEND_REQUEST;
	conn_watch(c, EPOLLIN, false); /* data waits for the guest's answer */
	vsock_add(c);
	vsock_want_work(c);
}

/* Reads the first line and not a byte more: what follows is the guest's. */
static void read_line(struct conn *c)
{
	size_t room = sizeof(c->line) - 1 - c->line_len;
	char *at = c->line + c->line_len, *end;
	ssize_t n = recv(c->fd, at, room, MSG_PEEK);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		conn_free(c);
		return;
	}
	end = memchr(at, '\n', (size_t)n);
	n = recv(c->fd, at, end ? (size_t)(end - at) + 1 : (size_t)n, 0);
	c->line_len += n > 0 ? (unsigned)n : 0;
	if (end) {
		*end = 0;
		ask_guest(c);
	} else if (c->line_len == sizeof(c->line) - 1) {
		fail(c, "the request is too long");
	}
}

static void on_open(struct conn *c, uint32_t events)
{
	if (events & EPOLLOUT && c->buf_len && !flush(c))
		return;
	if (events & (EPOLLHUP | EPOLLERR)) {
		hung_up(c);
	} else if (events & EPOLLIN) {
		c->want_read = true;
		/* Not again before this was served. */
		if (c->vs->starved || !c->vs->running)
			conn_watch(c, EPOLLIN, false);
		vsock_want_work(c);
	}
}

static void on_socket(void *arg, uint32_t events)
{
	struct conn *c = arg;
	struct vsock *vs = c->vs;

	switch (c->state) {
	case CONN_HELLO:
		read_line(c);
		break;
	case CONN_REQUESTED:
		if (events & (EPOLLHUP | EPOLLERR))
			conn_reset(c); /* the client gave up */
		break;
	case CONN_OPEN:
		on_open(c, events);
		break;
	case CONN_LINGER:
		if (events & (EPOLLHUP | EPOLLERR)) {
			drop_buffer(c);
			conn_leave(c, c->send & SEND_RESET);
		} else {
			flush(c);
		}
		break;
	case CONN_CONNECTING:
	case CONN_DEAD:
		break; /* they have no socket */
	}
	vsock_work(vs);
}

int conn_attach(struct conn *c)
{
	if (c->fd < 0 || c->hung_up || c->source)
		return 0;
	return loop_add_fd(loop_of(c->vs), c->fd, c->events, on_socket, c, &c->source);
}

/* A connection with the socket fd, which it owns then (-1: it comes later). */
static struct conn *conn_new(struct vsock *vs, enum conn_state state, int fd)
{
	struct conn *c = vs->nconns < vs->max_conns ? calloc(1, sizeof(*c)) : NULL;

	if (!c)
		return NULL;
	c->vs = vs;
	c->state = state;
	c->fd = fd;
	c->events = fd >= 0 ? EPOLLIN : 0;
	if (conn_attach(c)) {
		free(c);
		return NULL;
	}
	TAILQ_INSERT_TAIL(&vs->all, c, all);
	vs->nconns++;
	return c;
}

/* The peer runs as our user or as root: files' modes may have been changed. */
static bool trusted(const struct vsock *vs, int fd)
{
	uid_t uid;

	if (!io_peer_uid(fd, &uid, NULL) && (uid == geteuid() || !uid))
		return true;
	log_warn(log_of(vs), "vsock", "refused a peer of another user at %s", vs->path);
	return false;
}

static void on_listener(void *arg, uint32_t events)
{
	static const char too_many[] = "ERR too many connections\n";
	struct vsock *vs = arg;

	for (unsigned i = 0; i < BATCH; i++) {
		CLEANUP_CLOSE int fd =
			accept4(vs->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM)) {
			log_warn(log_of(vs), "vsock",
				 "no descriptor for another connection (%u are open): %s",
				 vs->nconns, strerror(errno));
			loop_modify_fd(vs->listen_source, 0); /* until conn_free() */
		}
		if (fd < 0)
			return;
		if (!trusted(vs, fd))
			continue;
		if (conn_new(vs, CONN_HELLO, fd))
			take_fd(&fd);
		else if (send(fd, too_many, strlen(too_many), MSG_NOSIGNAL) < 0)
			log_debug(log_of(vs), "vsock", "a client left before its answer");
	}
}

/* Connects to the listener of the guest's request. 0, -EAGAIN (it is busy) or -errno. */
static int connect_host(struct conn *c)
{
	CLEANUP_FREE char *path = io_format("%s_%u", c->vs->path, c->host_port);
	CLEANUP_CLOSE int fd = path ? io_unix_connect_nonblock(path, NULL) : -ENOMEM;

	if (fd < 0)
		return fd;
	if (!trusted(c->vs, fd))
		return -EACCES;
	c->fd = take_fd(&fd);
	c->state = CONN_OPEN;
	c->send = SEND_RESPONSE;
	c->want_read = true;
	c->events = EPOLLIN;
	c->vs->opened++;
	vsock_want_work(c);
	return conn_attach(c);
}

struct conn *conn_connect(struct vsock *vs, uint32_t guest_port, uint32_t host_port)
{
	struct conn *c = conn_new(vs, CONN_CONNECTING, -1);
	int r;

	if (!c)
		return NULL;
	c->guest_port = guest_port;
	c->host_port = host_port;
	vsock_add(c);
	r = connect_host(c);
	if (r == -EAGAIN) {
		loop_set_timer(vs->retry, RETRY_NS, 0);
		r = 0;
	}
	if (!r)
		return c;
	log_debug(log_of(vs), "vsock", "guest port %u to %s_%u: %s", guest_port, vs->path,
		  host_port, strerror(-r));
	vs->refused++;
	conn_free(c);
	return NULL;
}

static void on_retry(void *arg)
{
	struct vsock *vs = arg;
	bool again = false;
	struct conn *c;

	TAILQ_FOREACH(c, &vs->all, all)
	{
		int r;

		if (c->state != CONN_CONNECTING)
			continue;
		r = connect_host(c);
		if (r == -EAGAIN && ++c->tries < RETRIES)
			again = true;
		else if (r)
			conn_reset(c);
	}
	if (again)
		loop_set_timer(vs->retry, RETRY_NS, 0);
	vsock_work(vs);
}

int conn_listen(struct vsock *vs, struct error *err)
{
	struct rlimit files = {0};
	int r = loop_add_timer(loop_of(vs), on_retry, vs, &vs->retry);

	/* The guest's connections must not take the descriptors the VMM needs. */
	getrlimit(RLIMIT_NOFILE, &files);
	vs->max_conns = files.rlim_cur / 2 < VSOCK_CONNS_MAX ? (unsigned)files.rlim_cur / 2
							     : VSOCK_CONNS_MAX;

	if (!r) {
		vs->listen_fd = r = io_unix_listen(vs->path, err);
		if (r < 0)
			return r;
		r = fcntl(vs->listen_fd, F_SETFL, O_NONBLOCK) < 0 ? -errno : 0;
	}
	if (!r)
		r = loop_add_fd(loop_of(vs), vs->listen_fd, EPOLLIN, on_listener, vs,
				&vs->listen_source);
	return r ? error_errno(err, r, "vsock: cannot listen on %s", vs->path) : 0;
}

void conn_listen_stop(struct vsock *vs)
{
	loop_remove(&vs->listen_source);
	loop_remove(&vs->retry);
	if (vs->listen_fd < 0)
		return;
	close(vs->listen_fd);
	unlink(vs->path);
	vs->listen_fd = -1;
}
