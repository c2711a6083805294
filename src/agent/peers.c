/* SPDX-License-Identifier: Apache-2.0 */
/* Takes connections from agents of other VMs, hears for which user they ask, hands them over. */

#include "agent/peers.h"

#include <arpa/inet.h>
#include <errno.h>
#include <jansson.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/hosts.h"
#include "agent/proto.h"
#include "lib/acceptor.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/log.h"
#include "lib/loop.h"

#define LINE_MAX_BYTES 128
#define LINE_NS 10000000000ULL	     /* for the line that says who asks */
#define GREETING_MAX 1024	     /* connections that have not said it yet */
#define RESERVED_END IPPORT_RESERVED /* ports below are root's */

/* One that has not yet said who asks. */
struct greeting {
	struct peers *peers;
	struct greeting *next;
	int fd;
	struct loop_source *source, *timer;
	char line[LINE_MAX_BYTES];
	size_t used;
};

struct peers {
	struct loop *loop;
	const struct log *log;
	const char *hosts;
	peers_fn *fn;
	void *arg;
	struct in_addr address;
	struct acceptor *acceptor;
	struct greeting *greetings;
	unsigned count, refused; /* refused: for log_due() */
};

/* Forgets it; the descriptor is the caller's. */
static int greeting_free(struct greeting *g)
{
	struct greeting **at = &g->peers->greetings;
	int fd = g->fd;

	while (*at != g)
		at = &(*at)->next;
	*at = g->next;
	g->peers->count--;
	loop_remove(&g->source);
	loop_remove(&g->timer);
	free(g);
	return fd;
}

static void say_no(const struct peers *peers, int fd, const char *text)
{
	char line[600];
	int n = snprintf(line, sizeof(line), "ERROR %s\n", text);

	if (send(fd, line, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		log_debug(peers->log, "peers", "a peer that was refused has gone");
}

static void refuse(struct greeting *g, const char *text)
{
	struct peers *peers = g->peers;
	int fd = greeting_free(g);

	if (log_due(&peers->refused))
		log_info(peers->log, "peers", "%s (%u refusals)", text, peers->refused);
	say_no(peers, fd, text);
	close(fd);
}

/* {"version":1,"user":UID} */
static int parse(const char *line, uid_t *ret)
{
	json_t *value = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
	const json_t *user = json_object_get(value, "user");
	json_int_t uid = json_integer_value(user);
	int r = 0;

	if (json_integer_value(json_object_get(value, "version")) != 1 || !json_is_integer(user) ||
	    uid < 0 || uid >= UINT32_MAX)
		r = -EPROTO;
	else
		*ret = (uid_t)uid;
	json_decref(value);
	return r;
}

static void on_line(struct greeting *g)
{
	struct peers *peers = g->peers;
	uid_t uid;
	int fd;

	if (parse(g->line, &uid)) {
		refuse(g, "the first line is not {\"version\":1,\"user\":NUMBER}");
		return;
	}
	fd = greeting_free(g);
	if (send(fd, "OK\n", 3, MSG_NOSIGNAL) == 3)
		peers->fn(peers->arg, fd, uid);
	else
		close(fd);
}

static void on_greeting(void *arg, uint32_t events)
{
	struct greeting *g = arg;
	ssize_t n = recv(g->fd, g->line + g->used, sizeof(g->line) - 1 - g->used, 0);
	char *end;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		close(greeting_free(g));
		return;
	}
	end = memchr(g->line + g->used, '\n', (size_t)n);
	g->used += (size_t)n;
	/* The peer waits for our answer before it says more. */
	if (end && end == g->line + g->used - 1) {
		*end = 0;
		on_line(g);
	} else if (end || g->used == sizeof(g->line) - 1) {
		refuse(g, "the first line is none");
	}
}

static void on_silence(void *arg)
{
	refuse(arg, "no first line in time");
}

/* Takes the fd. */
static int greeting_create(struct peers *peers, int fd)
{
	struct greeting *g = calloc(1, sizeof(*g));
	int on = 1, r;

	if (!g) {
		close(fd);
		return -ENOMEM;
	}
	*g = (struct greeting){.peers = peers, .next = peers->greetings, .fd = fd};
	peers->greetings = g;
	peers->count++;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	r = loop_add_fd(peers->loop, fd, EPOLLIN, on_greeting, g, &g->source);
	if (!r)
		r = loop_add_timer(peers->loop, on_silence, g, &g->timer);
	if (!r)
		r = loop_set_timer(g->timer, LINE_NS, 0);
	if (r)
		close(greeting_free(g));
	return r;
}

static int check_peer(const struct peers *peers, const struct sockaddr_in *from, struct error *err)
{
	if (ntohs(from->sin_port) >= RESERVED_END)
		return error_set(err, -EACCES, "port %u is not one of root's",
				 ntohs(from->sin_port));
	if (peers->count == GREETING_MAX)
		return error_set(err, -EBUSY, "too many connections at once");
	/* To itself it speaks from the address that it is reached at. */
	if (from->sin_addr.s_addr == peers->address.s_addr)
		return 0;
	return hosts_has(peers->hosts, from->sin_addr, err);
}

static void on_connection(void *arg, int fd, const struct sockaddr_storage *from)
{
	struct peers *peers = arg;
	struct error err;

	if (check_peer(peers, (const struct sockaddr_in *)from, &err)) {
		if (log_due(&peers->refused))
			log_warn(peers->log, "peers", "%s (%u refusals)", err.text, peers->refused);
		say_no(peers, fd, err.text);
		close(fd);
	} else if (greeting_create(peers, fd)) {
		log_warn(peers->log, "peers", "no memory for a connection");
	}
}

static const struct acceptor_ops acceptor_ops = {.connection = on_connection};

static int peers_listen(struct peers *peers, struct error *err)
{
	struct sockaddr_in at = {.sin_family = AF_INET,
				 .sin_port = htons(PROTO_RELAY_PORT),
				 .sin_addr = peers->address};
	char text[INET_ADDRSTRLEN];
	CLEANUP_CLOSE int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int on = 1, r;

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
	    bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0 || listen(fd, 1024) < 0)
		return error_errno(err, -errno, "cannot listen for other VMs at %s:%u",
				   inet_ntop(AF_INET, &at.sin_addr, text, sizeof(text)),
				   PROTO_RELAY_PORT);
	r = acceptor_create(peers->loop, peers->log, "peers", fd, SOCK_NONBLOCK, &acceptor_ops,
			    peers, &peers->acceptor, err);
	if (!r)
		take_fd(&fd);
	return r;
}

int peers_create(struct loop *loop, const struct log *log, struct in_addr address,
		 const char *hosts, peers_fn *fn, void *arg, struct peers **ret, struct error *err)
{
	struct peers *peers = calloc(1, sizeof(*peers));
	int r;

	if (!peers)
		return error_errno(err, -ENOMEM, "cannot listen for other VMs");
	*peers = (struct peers){
		.loop = loop, .log = log, .hosts = hosts, .fn = fn, .arg = arg, .address = address};
	r = peers_listen(peers, err);
	if (r)
		peers_destroy(peers);
	else
		*ret = peers;
	return r;
}

void peers_destroy(struct peers *peers)
{
	if (!peers)
		return;
	while (peers->greetings)
		close(greeting_free(peers->greetings));
	acceptor_destroy(peers->acceptor);
	free(peers);
}

bool peers_at(const struct peers *peers, struct in_addr address)
{
	return peers && peers->address.s_addr == address.s_addr;
}
