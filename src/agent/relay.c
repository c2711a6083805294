/* SPDX-License-Identifier: Apache-2.0 */
/* Connects guests with the agents of other VMs and pumps the bytes. */

#include "agent/relay.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/proto.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/log.h"
#include "lib/loop.h"

#define NO_ANSWER "the agent of the VM does not answer"
#define LINE_MAX_BYTES 512
#define ROOM 65536		      /* bytes under way in each direction */
#define HANDSHAKE_NS 10000000000ULL   /* for the request, and for the target's OK */
#define ACCEPT_RETRY_NS 1000000000ULL /* when descriptors have run out */

#define LINKS_PER_VM 256
#define FILES_PER_LINK 4 /* two, and as many are left to others */

struct vm {
	struct relay *relay;
	struct vm *next;
	char *name, *path;
	int fd;
	struct loop_source *source, *timer;
};

enum link_state {
	LINK_REQUEST, /* the guest's line */
	LINK_ANSWER,  /* the target VMM's OK */
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
	char *from;
	struct side guest, target;
	struct loop_source *timer;
};

struct relay {
	struct loop *loop;
	const struct log *log;
	relay_lookup_fn *lookup;
	void *arg;
	struct vm *vms;
	struct link *links;
	unsigned refused, strangers; /* for log_due() */
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
	side_done(&l->guest);
	side_done(&l->target);
	loop_remove(&l->timer);
	free(l->from);
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
	int r = side_write(&l->guest);

	if (!r)
		r = side_write(&l->target);
	if (!r && l->guest.shut && l->target.shut)
		return -EPIPE;
	if (!r)
		r = pump_watch(&l->guest);
	return r ? r : pump_watch(&l->target);
}

/* Tells the guest why not; the socket buffer of a new connection has room for a line. */
static void refuse(struct link *l, const char *text)
{
	char line[LINE_MAX_BYTES];
	int n = snprintf(line, sizeof(line), "ERROR %s\n", text);

	if (log_due(&l->relay->refused))
		log_info(l->relay->log, "relay", "%s: %s (%u refusals)", l->from, text,
			 l->relay->refused);
	if (n >= (int)sizeof(line)) {
		n = sizeof(line) - 1;
		line[n - 1] = '\n';
	}
	if (send(l->guest.fd, line, (size_t)n, MSG_NOSIGNAL) < 0)
		log_debug(l->relay->log, "relay", "%s: has gone", l->from);
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

static int target_connect(struct link *l, const char *host, struct error *err)
{
	static const char request[] = "CONNECT 1024\n";
	CLEANUP_FREE char *path = NULL;
	int r = l->relay->lookup(l->relay->arg, l->from, host, &path, err);

	if (r)
		return r;
	l->target.fd = io_unix_connect_nonblock(path, err);
	if (l->target.fd < 0)
		return error_set(err, l->target.fd, "%s does not run", host);
	if (send(l->target.fd, request, strlen(request), MSG_NOSIGNAL) < 0)
		return error_set(err, -errno, NO_ANSWER);
	r = side_watch(&l->target, EPOLLIN);
	/* The guest speaks again when it has our OK. */
	if (!r)
		r = side_watch(&l->guest, 0);
	if (!r)
		r = loop_set_timer(l->timer, HANDSHAKE_NS, 0);
	return r ? error_errno(err, r, "cannot reach %s", host) : 0;
}

static void on_request(struct link *l)
{
	CLEANUP_FREE char *host = NULL;
	char line[LINE_MAX_BYTES];
	struct error err;
	ssize_t n = take_line(&l->guest.in, line);
	int r;

	if (!n && !l->guest.ended)
		return;
	if (n <= 0) {
		refuse(l, "no request line");
		return;
	}
	l->state = LINK_ANSWER;
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
	if (n <= 0 || strncmp(line, "OK ", 3)) {
		refuse(l, NO_ANSWER);
		return;
	}
	loop_set_timer(l->timer, 0, 0);
	l->state = LINK_PUMP;
	if (send(l->guest.fd, "OK\n", 3, MSG_NOSIGNAL) != 3 || pump(l))
		link_destroy(l);
}

static void on_side(void *arg, uint32_t events)
{
	struct side *s = arg;
	struct link *l = s->link;
	int r = 0;

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

/* One guest must not use up the descriptors of the process that keeps all. */
static bool has_room(const struct vm *vm)
{
	unsigned own = 0, all = 0;
	struct rlimit files;

	for (const struct link *l = vm->relay->links; l; l = l->next) {
		own += !strcmp(l->from, vm->name);
		all++;
	}
	return own <= LINKS_PER_VM &&
	       (getrlimit(RLIMIT_NOFILE, &files) || all <= files.rlim_cur / FILES_PER_LINK);
}

static bool is_ours(struct vm *vm, int fd)
{
	uid_t uid = (uid_t)-1;

	if (!io_peer_uid(fd, &uid, NULL) && uid == geteuid())
		return true;
	if (log_due(&vm->relay->strangers))
		log_warn(vm->relay->log, "relay", "%s: refused a connection of uid %u", vm->name,
			 (unsigned)uid);
	return false;
}

/* Takes the fd. */
static void link_create(struct vm *vm, int fd)
{
	struct link *l = calloc(1, sizeof(*l));
	int r;

	if (!l) {
		close(fd);
		return;
	}
	*l = (struct link){.relay = vm->relay,
			   .next = vm->relay->links,
			   .from = strdup(vm->name),
			   .guest = {.link = l, .other = &l->target, .fd = fd},
			   .target = {.link = l, .other = &l->guest, .fd = -1}};
	vm->relay->links = l;
	r = l->from ? loop_add_timer(vm->relay->loop, on_timeout, l, &l->timer) : -ENOMEM;
	if (!r)
		r = loop_set_timer(l->timer, HANDSHAKE_NS, 0);
	if (!r)
		r = side_watch(&l->guest, EPOLLIN);
	if (r)
		link_destroy(l);
	else if (!has_room(vm))
		refuse(l, "too many connections");
}

static void on_connection(void *arg, uint32_t events)
{
	struct vm *vm = arg;
	int fd = accept4(vm->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd >= 0 && !is_ours(vm, fd)) {
		close(fd);
	} else if (fd >= 0) {
		link_create(vm, fd);
	} else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
		log_warn(vm->relay->log, "relay", "%s: cannot accept: %s; again in 1 s", vm->name,
			 strerror(errno));
		loop_remove(&vm->source);
		loop_set_timer(vm->timer, ACCEPT_RETRY_NS, 0);
	}
}

static void on_retry(void *arg)
{
	struct vm *vm = arg;

	if (loop_add_fd(vm->relay->loop, vm->fd, EPOLLIN, on_connection, vm, &vm->source))
		loop_set_timer(vm->timer, ACCEPT_RETRY_NS, 0);
}

static void vm_destroy(struct vm *vm)
{
	loop_remove(&vm->source);
	loop_remove(&vm->timer);
	if (vm->fd >= 0) {
		close(vm->fd);
		unlink(vm->path);
	}
	free(vm->name);
	free(vm->path);
	free(vm);
}

int relay_create(struct loop *loop, const struct log *log, relay_lookup_fn *lookup, void *arg,
		 struct relay **ret)
{
	struct relay *relay = calloc(1, sizeof(*relay));

	if (!relay)
		return -ENOMEM;
	*relay = (struct relay){.loop = loop, .log = log, .lookup = lookup, .arg = arg};
	*ret = relay;
	return 0;
}

void relay_destroy(struct relay *relay)
{
	if (!relay)
		return;
	while (relay->links)
		link_destroy(relay->links);
	while (relay->vms)
		relay_remove(relay, relay->vms->name);
	free(relay);
}

int relay_add(struct relay *relay, const char *name, const char *vsock_path, struct error *err)
{
	struct vm *vm = calloc(1, sizeof(*vm));
	int r = 0;

	if (!vm)
		return error_errno(err, -ENOMEM, "relay for %s", name);
	*vm = (struct vm){.relay = relay, .fd = -1, .name = strdup(name)};
	vm->path = io_format("%s_%u", vsock_path, PROTO_RELAY_PORT);
	if (!vm->name || !vm->path) {
		r = error_errno(err, -ENOMEM, "relay for %s", name);
	} else {
		vm->fd = io_unix_listen(vm->path, err);
		r = vm->fd < 0 ? vm->fd : 0;
	}
	if (!r) {
		r = loop_add_timer(relay->loop, on_retry, vm, &vm->timer);
		if (!r)
			r = loop_add_fd(relay->loop, vm->fd, EPOLLIN, on_connection, vm,
					&vm->source);
		if (r)
			error_errno(err, r, "relay for %s", name);
	}
	if (r) {
		vm_destroy(vm);
		return r;
	}
	vm->next = relay->vms;
	relay->vms = vm;
	return 0;
}

void relay_remove(struct relay *relay, const char *name)
{
	for (struct vm **at = &relay->vms; *at; at = &(*at)->next) {
		struct vm *vm = *at;

		if (strcmp(vm->name, name))
			continue;
		*at = vm->next;
		vm_destroy(vm);
		return;
	}
}
