/* SPDX-License-Identifier: Apache-2.0 */
/* Listening addresses of the agent, and who may connect to each. */

#include "agent/agent.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <linux/vm_sockets.h>

#include "lib/acceptor.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/parse.h"

#define RETRY_NS 1000000000ULL /* after a listener error */

struct listener {
	struct agent *agent;
	struct listener *next;
	char *address;
	char *unix_path;     /* unlinked at the end */
	struct in_addr from; /* 0: everybody */
	struct acceptor *acceptor;
	struct loop_source *timer; /* to open it again */
};

static int listen_vsock(const char *port_text, struct error *err)
{
	CLEANUP_CLOSE int fd = -1;
	struct sockaddr_vm addr = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY};
	unsigned port;
	int r = parse_uint(port_text, "vsock port", 1, UINT32_MAX - 1, &port, err);

	if (r)
		return r;
	addr.svm_port = port;
	fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, 64) < 0)
		return error_errno(err, -errno, "cannot listen on vsock port %u", port);
	return take_fd(&fd);
}

/* "ADDR:PORT[,from=ADDR]" */
static int parse_tcp(const char *text, struct sockaddr_in *addr, struct in_addr *from,
		     struct error *err)
{
	CLEANUP_FREE char *copy = strdup(text);
	char *option = copy ? strchr(copy, ',') : NULL;
	char *port_text = copy ? strchr(copy, ':') : NULL;
	unsigned port;

	if (!copy)
		return error_errno(err, -ENOMEM, "cannot listen");
	if (option)
		*option++ = 0;
	if (port_text)
		*port_text++ = 0;
	*addr = (struct sockaddr_in){.sin_family = AF_INET};
	if (!port_text || inet_pton(AF_INET, copy, &addr->sin_addr) != 1 ||
	    parse_uint(port_text, "TCP port", 1, 65535, &port, NULL))
		return error_set(err, -EINVAL, "\"tcp:%s\" is not tcp:ADDRESS:PORT[,from=ADDRESS]",
				 text);
	addr->sin_port = htons((uint16_t)port);
	if (option && (strncmp(option, "from=", 5) || inet_pton(AF_INET, option + 5, from) != 1))
		return error_set(err, -EINVAL, "\"%s\" is not from=ADDRESS", option);
	return 0;
}

static int listen_tcp(const char *text, struct in_addr *from, struct error *err)
{
	CLEANUP_CLOSE int fd = -1;
	struct sockaddr_in addr;
	int on = 1;
	int r = parse_tcp(text, &addr, from, err);

	if (r)
		return r;
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
	    bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, 64) < 0)
		return error_errno(err, -errno, "cannot listen on tcp:%s", text);
	return take_fd(&fd);
}

/* Whether the peer of the accepted connection is one we serve. */
static bool peer_allowed(const struct listener *l, int fd, const struct sockaddr_storage *peer)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)peer;
	const struct sockaddr_vm *vm = (const struct sockaddr_vm *)peer;
	uid_t uid;

	switch (peer->ss_family) {
	case AF_VSOCK:
		return vm->svm_cid == VMADDR_CID_HOST;
	case AF_INET:
		return !l->from.s_addr || in->sin_addr.s_addr == l->from.s_addr;
	default:
		return !io_peer_uid(fd, &uid, NULL) && (!uid || uid == geteuid());
	}
}

static void on_connection(void *arg, int fd, const struct sockaddr_storage *peer)
{
	struct listener *l = arg;
	int on = 1;

	if (!peer_allowed(l, fd, peer)) {
		log_warn(&l->agent->log, "listen", "%s: refused a peer that is not served",
			 l->address);
		close(fd);
		return;
	}
	if (peer->ss_family == AF_INET) {
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	}
	if (session_create(l->agent, fd, 0))
		log_warn(&l->agent->log, "listen", "%s: no memory for a session", l->address);
}

static void on_broken(void *arg, int code)
{
	struct listener *l = arg;

	log_warn(&l->agent->log, "listen", "%s: cannot accept: %s; opened again in 1 s", l->address,
		 strerror(-code));
	acceptor_destroy(take_ptr(l->acceptor));
	loop_set_timer(l->timer, RETRY_NS, 0);
}

static const struct acceptor_ops acceptor_ops = {on_connection, on_broken};

/* Opens the socket; also after an error, when the old one may be dead for good. */
static int listener_open(struct listener *l, struct error *err)
{
	int fd, r;

	if (!strncmp(l->address, "vsock:", 6))
		fd = listen_vsock(l->address + 6, err);
	else if (!strncmp(l->address, "tcp:", 4))
		fd = listen_tcp(l->address + 4, &l->from, err);
	else if (!strncmp(l->address, "unix:", 5))
		fd = io_unix_listen(l->unix_path = l->address + 5, err);
	else
		return error_set(err, -EINVAL,
				 "\"%s\" is not vsock:PORT, tcp:ADDRESS:PORT[,from=ADDRESS] or "
				 "unix:PATH",
				 l->address);
	if (fd < 0)
		return fd;
	r = acceptor_create(l->agent->loop, &l->agent->log, "listen", fd, SOCK_NONBLOCK,
			    &acceptor_ops, l, &l->acceptor, err);
	if (r)
		close(fd);
	return r;
}

static void on_retry(void *arg)
{
	struct listener *l = arg;
	struct error err;

	if (l->unix_path)
		unlink(l->unix_path);
	if (listener_open(l, &err)) {
		log_warn(&l->agent->log, "listen", "%s; again in 1 s", err.text);
		loop_set_timer(l->timer, RETRY_NS, 0);
	}
}

static void listener_destroy(struct listener *l)
{
	acceptor_destroy(l->acceptor);
	loop_remove(&l->timer);
	if (l->unix_path)
		unlink(l->unix_path);
	free(l->address);
	free(l);
}

int listener_add(struct agent *agent, const char *address, struct error *err)
{
	struct listener *l = calloc(1, sizeof(*l));
	int r;

	if (!l)
		return error_errno(err, -ENOMEM, "cannot listen on %s", address);
	l->agent = agent;
	l->address = strdup(address);
	r = l->address ? loop_add_timer(agent->loop, on_retry, l, &l->timer) : -ENOMEM;
	r = r ? error_errno(err, r, "cannot listen on %s", address) : listener_open(l, err);
	if (r) {
		l->unix_path = NULL; /* it may be another agent's */
		listener_destroy(l);
		return r;
	}
	l->next = agent->listeners;
	agent->listeners = l;
	return 0;
}

void listeners_done(struct agent *agent)
{
	while (agent->listeners) {
		struct listener *l = agent->listeners;

		agent->listeners = l->next;
		listener_destroy(l);
	}
}
