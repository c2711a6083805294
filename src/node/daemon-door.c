/* SPDX-License-Identifier: Apache-2.0 */
/* The sockets that a daemon is reached at: who comes in, and how many at once. */

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/acceptor.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/log.h"
#include "lib/paths.h"
#include "node/daemon-cluster.h"
#include "node/daemon.h"
#include "node/nodename.h"

#define BACKLOG 128

/* -------- who may come in -------- */

/* Of other nodes, its own user's daemons may be many. */
int door_admits(const struct door *door, uid_t uid, struct error *err)
{
	bool trusted = door->remote && uid == geteuid();

	if (!door->d->p.everybody && uid != geteuid() && uid != 0)
		return error_set(err, -EPERM, "user %u: this wispd is user %u's", uid, geteuid());
	if (!trusted && peers_of(door, uid) >= DAEMON_OF_ONE_USER)
		return error_set(err, -EUSERS, "user %u has too many connections", uid);
	return 0;
}

static int check(const struct door *door, const struct caller *caller, struct error *err)
{
	int r = caller->has_uid ? door_admits(door, caller->uid, err) : 0;

	if (!r && peers_greeted(door->d, caller) >= DAEMON_GREETINGS / 4)
		r = error_set(err, -EUSERS, "%s: too many connections are being greeted",
			      caller->name);
	return r;
}

/* -------- who comes -------- */

static int know_local(int fd, struct caller *ret, struct error *err)
{
	int r = io_peer_uid(fd, &ret->uid, NULL);

	if (r)
		return error_errno(err, r, "who connects is not known");
	ret->has_uid = true;
	snprintf(ret->name, sizeof(ret->name), "user %u", ret->uid);
	return 0;
}

/* Of IPv6 the half that a network has: the rest is its own to choose. */
static void take_address(const struct sockaddr_storage *from, uint8_t ret[16])
{
	if (from->ss_family == AF_INET)
		memcpy(ret, &((const struct sockaddr_in *)from)->sin_addr, 4);
	else if (from->ss_family == AF_INET6)
		memcpy(ret, &((const struct sockaddr_in6 *)from)->sin6_addr, 8);
	ret[15] = (uint8_t)from->ss_family;
}

static int know_remote(const struct sockaddr_storage *from, struct caller *ret, struct error *err)
{
	char host[INET6_ADDRSTRLEN], port[8];
	int r = getnameinfo((const struct sockaddr *)from, sizeof(*from), host, sizeof(host), port,
			    sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV);

	if (r)
		return error_set(err, -EINVAL, "who connects is not known: %s", gai_strerror(r));
	take_address(from, ret->address);
	snprintf(ret->name, sizeof(ret->name), "%s port %s", host, port);
	return 0;
}

/*
 * The folder of a user who comes to root's daemon is there before anything of the user's looks for
 * it: all that a user has, VMs and coordinators, is then in the same place from the first cluster
 * on.
 */
static int make_run_folder(const struct door *door, const struct caller *caller, struct error *err)
{
	CLEANUP_FREE char *run = NULL;

	if (door->remote || geteuid() || !caller->uid || !door->d->p.users)
		return 0;
	run = cluster_run_folder(door->d, caller->uid);
	return run ? paths_give_run(run, caller->uid, (gid_t)-1, err)
		   : error_set(err, -ENOMEM, "out of memory");
}

static void accept_more(struct door *door)
{
	acceptor_pause(door->acceptor, door->greetings >= DAEMON_GREETINGS);
}

void door_greeted(struct door *door)
{
	door->greetings--;
	if (door->acceptor)
		accept_more(door);
}

static void on_connection(void *arg, int fd, const struct sockaddr_storage *from)
{
	struct door *door = arg;
	struct caller caller = {0};
	const int on = 1;
	struct error err;
	int r = door->remote ? know_remote(from, &caller, &err) : know_local(fd, &caller, &err);

	if (!r)
		r = check(door, &caller, &err);
	if (!r && make_run_folder(door, &caller, &err) && log_due(&door->d->unheard))
		log_warn(door->d->p.log, "peer", "%s", err.text); /* its clusters will say so */
	if (!r && door->remote)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (r)
		close(fd);
	else
		r = peer_add(door, fd, &caller, &err);
	if (r && log_due(&door->d->unheard))
		log_warn(door->d->p.log, "peer", "%s", err.text);
	accept_more(door);
}

static const struct acceptor_ops ops = {on_connection, NULL};

/* -------- doors -------- */

static int door_open(struct door *door, const char *name, struct error *err)
{
	if (fcntl(door->fd, F_SETFL, O_NONBLOCK))
		return error_errno(err, -errno, "%s", name);
	return acceptor_create(door->d->p.loop, door->d->p.log, "peer", door->fd, SOCK_NONBLOCK,
			       &ops, door, &door->acceptor, err);
}

static int open_local(struct daemon *d, struct error *err)
{
	d->local.fd = io_unix_listen(d->p.socket, err);
	if (d->local.fd < 0)
		return d->local.fd;
	if (d->p.everybody && chmod(d->p.socket, 0666))
		return error_errno(err, -errno, "cannot open %s to all users", d->p.socket);
	return door_open(&d->local, d->p.socket, err);
}

static int listen_at(const struct addrinfo *at, struct error *err)
{
	CLEANUP_CLOSE int fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	const int on = 1;

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
	    bind(fd, at->ai_addr, at->ai_addrlen) || listen(fd, BACKLOG))
		return error_errno(err, -errno, "cannot listen");
	return take_fd(&fd);
}

/* Names are looked up before anybody is served: it may wait. */
static int listen_on(const struct nodename *where, struct error *err)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
	struct addrinfo *list = NULL;
	int r = getaddrinfo(where->host, where->port, &hints, &list);

	if (r)
		return error_set(err, -EINVAL, "%s", gai_strerror(r));
	r = listen_at(list, err);
	freeaddrinfo(list);
	return r;
}

static int can_greet(const struct daemon *d, struct error *err)
{
	if (d->p.nkey || d->p.credentials)
		return 0;
	return error_set(err, -ENOKEY,
			 "other nodes have nothing to prove themselves by: give the cluster's key "
			 "by --key (32 random bytes, the same file on all nodes), as this wispd "
			 "was built without MUNGE");
}

static int open_remote(struct daemon *d, struct error *err)
{
	struct nodename where;
	int r = nodename_parse_address(d->p.listen, &where, err);

	if (!r)
		r = can_greet(d, err);
	if (!r) {
		r = listen_on(&where, err);
		d->remote.fd = r < 0 ? -1 : r;
		r = r < 0 ? r : door_open(&d->remote, d->p.listen, err);
	}
	return r ? error_prefix(err, r, "--listen %s", d->p.listen) : 0;
}

static void tell_address(const struct daemon *d)
{
	struct sockaddr_storage at = {0};
	socklen_t n = sizeof(at);
	struct caller here;

	if (!getsockname(d->remote.fd, (struct sockaddr *)&at, &n) &&
	    !know_remote(&at, &here, NULL))
		log_info(d->p.log, "wispd", "other nodes reach it at %s by %s", here.name,
			 d->p.nkey && d->p.credentials ? "the cluster's key or MUNGE"
			 : d->p.nkey		       ? "the cluster's key"
						       : "MUNGE");
}

int doors_open(struct daemon *d, struct error *err)
{
	int r;

	d->local = (struct door){.d = d, .fd = -1};
	d->remote = (struct door){.d = d, .fd = -1, .remote = true};
	r = open_local(d, err);
	if (!r && d->p.listen) {
		r = open_remote(d, err);
		if (!r)
			tell_address(d);
	}
	return r;
}

static void door_close(struct door *door)
{
	if (door->d && door->fd >= 0 && !door->acceptor)
		close(door->fd);
	acceptor_destroy(take_ptr(door->acceptor));
}

void doors_done(struct daemon *d)
{
	if (d->local.d && d->local.fd >= 0)
		unlink(d->p.socket);
	door_close(&d->local);
	door_close(&d->remote);
}
