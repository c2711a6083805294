/* SPDX-License-Identifier: Apache-2.0 */
/* Connects local programs with the agents of other VMs and pumps the bytes. */

#include "agent/relay.h"

#include <arpa/inet.h>
#include <errno.h>
#include <jansson.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/hosts.h"
#include "agent/proto.h"
#include "lib/acceptor.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/log.h"
#include "lib/loop.h"

#define NO_ANSWER "the agent of the VM does not answer"
#define LINE_MAX_BYTES 512
#define ROOM 65536		    /* bytes under way in each direction */
#define HANDSHAKE_NS 10000000000ULL /* for the request, and for the target's answer */

/* Ports below 1024 are root's (Linux: net.ipv4.ip_unprivileged_port_start); few are in use here. */
#define PORT_FIRST 600u
#define PORT_LAST 1023u

#define LINKS_PER_USER 8192 /* an mpirun has one for each VM */
#define FILES_PER_LINK 4    /* two, and as many are left to others */

enum link_state {
	LINK_REQUEST, /* the program's line */
	LINK_CONNECT, /* to the other agent */
	LINK_ANSWER,  /* its line */
	LINK_PUMP,
};

/* One end of a link; in holds what was read here and not yet written there. */
struct side {
	struct link *link;
	struct side *other;
	int fd;
	struct loop_source *source;
	uint32_t events;
	struct buffer in;
	bool ended; /* end of file was read */
	bool shut;  /* we have shut our direction down */
};

struct link {
	struct relay *relay;
	struct link *next;
	enum link_state state;
	uid_t uid; /* who asks */
	struct side program, target;
	struct loop_source *timer;
};

struct relay {
	struct loop *loop;
	const struct log *log;
	const char *path, *hosts;
	struct in_addr address;
	struct acceptor *acceptor;
	struct link *links;
	unsigned refused; /* for log_due() */
};

static void side_done(struct side *s)
{
	loop_remove(&s->source);
	if (s->fd >= 0)
		close(s->fd);
	buffer_done(&s->in);
}

static void link_destroy(struct link *l)
{
	struct link **at = &l->relay->links;

	while (*at && *at != l)
		at = &(*at)->next;
	if (*at)
		*at = l->next;
	side_done(&l->program);
	side_done(&l->target);
	loop_remove(&l->timer);
	free(l);
}

static void on_side(void *arg, uint32_t events);

/* A side that waits for nothing is not watched: its hang-up would wake us for ever. */
static int side_watch(struct side *s, uint32_t events)
{
	int r = 0;

	if (events == s->events)
		return 0;
	if (!events)
		loop_remove(&s->source);
	else if (s->source)
		r = loop_modify_fd(s->source, events);
	else
		r = loop_add_fd(s->link->relay->loop, s->fd, events, on_side, s, &s->source);
	if (!r)
		s->events = events;
	return r;
}

/* Returns 0 or -errno when the connection is broken. */
static int side_read(struct side *s)
{
	uint8_t *p = buffer_reserve(&s->in, ROOM - buffer_used(&s->in));
	ssize_t n = p ? recv(s->fd, p, ROOM - buffer_used(&s->in), 0) : -1;

	if (n < 0)
		return !p ? -ENOMEM : errno == EAGAIN || errno == EINTR ? 0 : -errno;
	if (!n)
		s->ended = true;
	buffer_commit(&s->in, (size_t)n);
	return 0;
}

/* Writes what the other side brought, and its end. */
static int side_write(struct side *s)
{
	struct buffer *b = &s->other->in;

	while (buffer_used(b)) {
		ssize_t n = send(s->fd, b->data + b->start, buffer_used(b), MSG_NOSIGNAL);

		if (n < 0)
			return errno == EAGAIN || errno == EINTR ? 0 : -errno;
		buffer_consume(b, (size_t)n);
	}
	if (s->other->ended && !s->shut) {
		s->shut = true;
		shutdown(s->fd, SHUT_WR);
	}
	return 0;
}

static int pump_watch(struct side *s)
{
	uint32_t events = 0;

	if (!s->ended && buffer_used(&s->in) < ROOM)
		events |= EPOLLIN;
	if (buffer_used(&s->other->in))
		events |= EPOLLOUT;
	return side_watch(s, events);
}

/* Returns 0, or -EPIPE when both directions have ended. */
static int pump(struct link *l)
{
	int r = side_write(&l->program);

	if (!r)
		r = side_write(&l->target);
	if (!r && l->program.shut && l->target.shut)
		return -EPIPE;
	if (!r)
		r = pump_watch(&l->program);
	return r ? r : pump_watch(&l->target);
}

/* Tells the program why not; the socket buffer of a new connection has room for a line. */
static void refuse(struct link *l, const char *text)
{
	char line[LINE_MAX_BYTES];
	int n = snprintf(line, sizeof(line), "ERROR %s\n", text);

	if (log_due(&l->relay->refused))
		log_info(l->relay->log, "relay", "user %u: %s (%u refusals)", l->uid, text,
			 l->relay->refused);
	if (n >= (int)sizeof(line)) {
		n = sizeof(line) - 1;
		line[n - 1] = '\n';
	}
	if (send(l->program.fd, line, (size_t)n, MSG_NOSIGNAL) < 0)
		log_debug(l->relay->log, "relay", "user %u: has gone", l->uid);
	link_destroy(l);
}

/*
 * Takes a line out of the buffer: its length (the newline is replaced by NUL), 0 when it
 * is not whole, -EMSGSIZE when it is too long. The text stays readable until the next read.
 */
static ssize_t take_line(struct buffer *b, char *line)
{
	size_t n = buffer_used(b) < LINE_MAX_BYTES ? buffer_used(b) : LINE_MAX_BYTES;
	const uint8_t *start = b->data + b->start;
	const uint8_t *end = n ? memchr(start, '\n', n) : NULL;

	if (!end)
		return n == LINE_MAX_BYTES ? -EMSGSIZE : 0;
	n = (size_t)(end - start);
	memcpy(line, start, n);
	line[n] = 0;
	buffer_consume(b, n + 1);
	return (ssize_t)n + 1;
}

/* {"version":1,"host":"NAME"} */
static int parse_request(const char *line, char **host, struct error *err)
{
	json_error_t jerr;
	json_t *request = json_loads(line, JSON_REJECT_DUPLICATES, &jerr);
	const char *name = json_string_value(json_object_get(request, "host"));
	int r = 0;

	if (json_integer_value(json_object_get(request, "version")) != 1 || !name)
		r = error_set(err, -EPROTO, "the request is not {\"version\":1,\"host\":NAME}");
	else if (!(*host = strdup(name)))
		r = error_errno(err, -ENOMEM, "cannot reach %s", name);
	json_decref(request);
	return r;
}

/* A socket with this local address and port, connecting; -EADDRNOTAVAIL when the port is in use for
 * that. */
static int connect_from(const struct sockaddr_in *from, const struct sockaddr_in *to)
{
	CLEANUP_CLOSE int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int on = 1;

	if (fd < 0)
		return -errno;
	/* One port may have a connection to each VM. */
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)) < 0 ||
	    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0)
		return -errno;
	if (bind(fd, (const struct sockaddr *)from, sizeof(*from)) < 0)
		return errno == EADDRINUSE ? -EADDRNOTAVAIL : -errno;
	if (connect(fd, (const struct sockaddr *)to, sizeof(*to)) < 0 && errno != EINPROGRESS)
		return -errno;
	return take_fd(&fd);
}

/* The port says that root asks, which knows on whose behalf. */
static int connect_reserved(const struct relay *relay, struct in_addr address)
{
	struct sockaddr_in to = {
		.sin_family = AF_INET, .sin_port = htons(PROTO_RELAY_PORT), .sin_addr = address};
	struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr = relay->address};
	unsigned count = PORT_LAST - PORT_FIRST + 1, start = 0;
	int fd = -EADDRNOTAVAIL;

	if (getrandom(&start, sizeof(start), GRND_NONBLOCK) < 0)
		start = 0; /* any place to begin will do */
	for (unsigned i = 0; i < count && fd == -EADDRNOTAVAIL; i++) {
		from.sin_port = htons((uint16_t)(PORT_FIRST + (start % count + i) % count));
		fd = connect_from(&from, &to);
	}
	return fd;
}

static int target_connect(struct link *l, const char *host, struct error *err)
{
	struct in_addr address;
	int r = hosts_find(l->relay->hosts, host, &address, err);

	if (r)
		return r;
	l->target.fd = connect_reserved(l->relay, address);
	if (l->target.fd < 0)
		return error_errno(err, l->target.fd, "cannot reach %s", host);
	r = side_watch(&l->target, EPOLLOUT);
	/* The program speaks again when it has our OK. */
	if (!r)
		r = side_watch(&l->program, 0);
	if (!r)
		r = loop_set_timer(l->timer, HANDSHAKE_NS, 0);
	return r ? error_errno(err, r, "cannot reach %s", host) : 0;
}

/* The connection is there, or will never be. Says who asks. */
static void on_connected(struct link *l)
{
	char line[64], text[128];
	int code = 0, n;
	socklen_t len = sizeof(code);

	getsockopt(l->target.fd, SOL_SOCKET, SO_ERROR, &code, &len);
	if (code) {
		snprintf(text, sizeof(text), "cannot connect to the agent of the VM: %s",
			 strerror(code));
		refuse(l, text);
		return;
	}
	n = snprintf(line, sizeof(line), "{\"version\":1,\"user\":%u}\n", l->uid);
	l->state = LINK_ANSWER;
	if (send(l->target.fd, line, (size_t)n, MSG_NOSIGNAL) != n ||
	    side_watch(&l->target, EPOLLIN))
		refuse(l, NO_ANSWER);
}

static void on_request(struct link *l)
{
	CLEANUP_FREE char *host = NULL;
	char line[LINE_MAX_BYTES];
	struct error err;
	ssize_t n = take_line(&l->program.in, line);
	int r;

	if (!n && !l->program.ended)
		return;
	if (n <= 0) {
		refuse(l, "no request line");
		return;
	}
	l->state = LINK_CONNECT;
	r = parse_request(line, &host, &err);
	if (!r)
		r = target_connect(l, host, &err);
	if (r)
		refuse(l, err.text);
}

static void on_answer(struct link *l)
{
	char line[LINE_MAX_BYTES];
	ssize_t n = take_line(&l->target.in, line);

	if (!n && !l->target.ended)
		return;
	if (n > 6 && !strncmp(line, "ERROR ", 6)) {
		char text[LINE_MAX_BYTES];

		text_printable(line + 6, strlen(line + 6), text);
		refuse(l, text);
		return;
	}
	if (n <= 0 || strcmp(line, "OK")) {
		refuse(l, NO_ANSWER);
		return;
	}
	loop_set_timer(l->timer, 0, 0);
	l->state = LINK_PUMP;
	if (send(l->program.fd, "OK\n", 3, MSG_NOSIGNAL) != 3 || pump(l))
		link_destroy(l);
}

static void on_side(void *arg, uint32_t events)
{
	struct side *s = arg;
	struct link *l = s->link;
	int r = 0;

	if (l->state == LINK_CONNECT && s == &l->target) {
		on_connected(l);
		return;
	}
	if (s->events & EPOLLIN && events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		r = side_read(s);
	else if (events & EPOLLERR)
		r = -EPIPE;
	if (r && l->state == LINK_ANSWER) {
		refuse(l, NO_ANSWER);
		return;
	}
	if (r) {
		link_destroy(l);
		return;
	}
	switch (l->state) {
	case LINK_REQUEST:
		on_request(l);
		break;
	case LINK_CONNECT:
		break;
	case LINK_ANSWER:
		on_answer(l);
		break;
	case LINK_PUMP:
		if (pump(l))
			link_destroy(l);
		break;
	}
}

static void on_timeout(void *arg)
{
	struct link *l = arg;

	refuse(l, l->state == LINK_REQUEST ? "no request line in time" : NO_ANSWER);
}

/* One user must not use up the descriptors of the process that serves all. */
static bool has_room(const struct link *mine)
{
	unsigned own = 0, all = 0;
	struct rlimit files;

	for (const struct link *l = mine->relay->links; l; l = l->next) {
		own += l->uid == mine->uid;
		all++;
	}
	return own <= LINKS_PER_USER &&
	       (getrlimit(RLIMIT_NOFILE, &files) || all <= files.rlim_cur / FILES_PER_LINK);
}

/* Takes the fd. */
static void link_create(struct relay *relay, int fd, uid_t uid)
{
	struct link *l = calloc(1, sizeof(*l));
	int r;

	if (!l) {
		close(fd);
		return;
	}
	*l = (struct link){.relay = relay,
			   .next = relay->links,
			   .uid = uid,
			   .program = {.link = l, .other = &l->target, .fd = fd},
			   .target = {.link = l, .other = &l->program, .fd = -1}};
	relay->links = l;
	r = loop_add_timer(relay->loop, on_timeout, l, &l->timer);
	if (!r)
		r = loop_set_timer(l->timer, HANDSHAKE_NS, 0);
	if (!r)
		r = side_watch(&l->program, EPOLLIN);
	if (r)
		link_destroy(l);
	else if (!has_room(l))
		refuse(l, "too many connections");
}

static void on_connection(void *arg, int fd, const struct sockaddr_storage *peer)
{
	uid_t uid;

	if (io_peer_uid(fd, &uid, NULL))
		close(fd);
	else
		link_create(arg, fd, uid);
}

static const struct acceptor_ops acceptor_ops = {.connection = on_connection};

static int relay_listen(struct relay *relay, struct error *err)
{
	CLEANUP_CLOSE int fd = io_unix_listen(relay->path, err);
	int r;

	if (fd < 0)
		return fd;
	r = chmod(relay->path, 0666) < 0
		    ? error_errno(err, -errno, "cannot open %s to all users", relay->path)
		    : acceptor_create(relay->loop, relay->log, "relay", fd, SOCK_NONBLOCK,
				      &acceptor_ops, relay, &relay->acceptor, err);
	if (r)
		unlink(relay->path);
	else
		take_fd(&fd);
	return r;
}

int relay_create(struct loop *loop, const struct log *log, const char *path, const char *hosts,
		 struct relay **ret, struct error *err)
{
	struct relay *relay = calloc(1, sizeof(*relay));
	int r;

	if (!relay)
		return error_errno(err, -ENOMEM, "relay");
	*relay = (struct relay){.loop = loop, .log = log, .path = path, .hosts = hosts};
	r = relay_listen(relay, err);
	if (r)
		relay_destroy(relay);
	else
		*ret = relay;
	return r;
}

void relay_set_address(struct relay *relay, struct in_addr address)
{
	relay->address = address;
}

void relay_destroy(struct relay *relay)
{
	if (!relay)
		return;
	while (relay->links)
		link_destroy(relay->links);
	if (relay->acceptor) {
		acceptor_destroy(relay->acceptor);
		unlink(relay->path);
	}
	free(relay);
}
