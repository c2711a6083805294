/* SPDX-License-Identifier: Apache-2.0 */
/* The process that keeps a private network and what runs on it. */

#include "net/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "lib/acceptor.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/jsonline.h"
#include "lib/log.h"
#include "lib/loop.h"
#include "net/fabric.h"
#include "net/held.h"
#include "net/link.h"
#include "net/message.h"
#include "net/namespace.h"
#include "net/netlink.h"
#include "net/state.h"
#include "net/vxlan.h"

#define BRIDGE "wisp0"

struct net_keeper {
	const struct net_config *config;
	struct log log;
	struct loop *loop;
	bool stops;
	int underlay; /* netlink socket of the namespace we come from */
	int leash;    /* -1 once released */
	struct loop_source *leash_source;
	struct acceptor *acceptor;
	struct held taps;   /* that root has opened for us */
	unsigned strangers; /* for log_due() */
};

/* One client of the control socket. */
struct peer {
	struct net_keeper *keeper;
	int fd;
	struct loop_source *source;
	struct jsonline line;
};

struct loop *net_keeper_loop(struct net_keeper *keeper)
{
	return keeper->loop;
}

const struct log *net_keeper_log(struct net_keeper *keeper)
{
	return &keeper->log;
}

const char *net_keeper_dir(struct net_keeper *keeper)
{
	return keeper->config->dir;
}

int net_keeper_tap(struct net_keeper *keeper, const char *name, int *ret, struct error *err)
{
	int r = held_open(&keeper->taps, name, ret);

	if (!r)
		return 0;
	if (r != -ENOENT)
		return error_errno(err, r, "cannot open tap %s", name);
	return keeper->config->entered ? fabric_open_tap(name, ret, err)
				       : link_add_tap(name, BRIDGE, ret, err);
}

void net_keeper_tap_rest(struct net_keeper *keeper, const char *name)
{
	held_rest(&keeper->taps, name);
}

int net_keeper_vxlan(struct net_keeper *keeper, const char *name, uint32_t vni, uint32_t local,
		     struct error *err)
{
	if (keeper->config->entered)
		return error_set(err, -EPERM, "the network is not the keeper's to link");
	return vxlan_add(keeper->underlay, name, BRIDGE, vni, local, err);
}

void net_keeper_stop(struct net_keeper *keeper)
{
	keeper->stops = true;
	loop_stop(keeper->loop);
}

/* {"op":"tap","name":"vm1"}: the descriptor of a new tap. */
static int op_tap(struct net_keeper *k, const json_t *request, int *fd, struct error *err)
{
	const char *name = json_string_value(json_object_get(request, "name"));

	if (!name)
		return error_set(err, -EINVAL, "tap: no \"name\"");
	return net_keeper_tap(k, name, fd, err);
}

/* {"op":"take","name":"vm2"} with the descriptor of a tap that is the machine's from now on. */
static int op_take(struct net_keeper *k, const json_t *request, int given, struct error *err)
{
	const char *name = json_string_value(json_object_get(request, "name"));

	if (given < 0)
		return error_set(err, -EINVAL, "take: no descriptor came along");
	if (name)
		return held_add(&k->taps, name, given, err);
	close(given);
	return error_set(err, -EINVAL, "take: no \"name\"");
}

/* {"op":"socket"}: a TCP socket that lives in the network; the client connects it. */
static int op_socket(int *fd, struct error *err)
{
	*fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	return *fd < 0 ? error_errno(err, -errno, "cannot make a socket") : 0;
}

static int dispatch(struct peer *peer, const json_t *request, json_t *answer, int *fd,
		    struct error *err)
{
	struct net_keeper *k = peer->keeper;
	const struct net_hooks *hooks = k->config->hooks;
	const char *op = json_string_value(json_object_get(request, "op"));
	int r = -ENOSYS;

	if (!op)
		return error_set(err, -EINVAL, "the request has no \"op\"");
	if (!strcmp(op, "tap"))
		return op_tap(k, request, fd, err);
	if (!strcmp(op, "take"))
		return op_take(k, request, jsonline_take_fd(&peer->line), err);
	if (!strcmp(op, "socket"))
		return op_socket(fd, err);
	if (hooks && hooks->request)
		r = hooks->request(k, k->config->arg, op, request, answer, fd, err);
	return r == -ENOSYS ? error_set(err, r, "unknown op \"%s\"", op) : r;
}

/* Answers one request; 0 or -errno when the peer cannot be reached. */
static int answer_request(struct peer *peer, const json_t *request)
{
	json_t *answer = json_pack("{sb}", "ok", 1);
	CLEANUP_CLOSE int fd = -1;
	struct error err = {""};
	int r = answer ? dispatch(peer, request, answer, &fd, &err) : -ENOMEM;

	if (r < 0) {
		json_decref(answer);
		answer = message_failure(&err);
		if (answer && r == -EAGAIN)
			json_object_set_new(answer, "again", json_true());
		log_warn(&peer->keeper->log, "control", "%s", err.text);
	}
	r = answer ? message_send(peer->fd, answer, fd) : -ENOMEM;
	json_decref(answer);
	return r;
}

static void peer_close(struct peer *peer)
{
	loop_remove(&peer->source);
	close(peer->fd);
	jsonline_done(&peer->line);
	free(peer);
}

static void on_peer(void *arg, uint32_t events)
{
	struct peer *peer = arg;
	json_t *request;
	struct error err;
	int r = jsonline_receive(&peer->line, peer->fd, JSONLINE_MAX);

	/* What it began now would end at once. Who asks sees it as gone, and comes to the next one.
	 */
	while (r >= 0 && !peer->keeper->stops &&
	       (r = jsonline_take(&peer->line, &request, &err)) != -EAGAIN) {
		if (r == -EBADMSG) {
			json_t *answer = message_failure(&err);

			r = answer ? message_send(peer->fd, answer, -1) : -ENOMEM;
			json_decref(answer);
		} else if (!r) {
			r = answer_request(peer, request);
			json_decref(request);
		}
	}
	if (peer->keeper->stops || (r < 0 && r != -EAGAIN))
		peer_close(peer);
}

static int add_peer(struct net_keeper *k, int fd)
{
	struct timeval patience = {.tv_sec = 2}; /* with a peer that does not read */
	struct peer *peer = calloc(1, sizeof(*peer));
	int r;

	if (!peer)
		return -ENOMEM;
	peer->keeper = k;
	peer->fd = fd;
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	r = loop_add_fd(k->loop, fd, EPOLLIN, on_peer, peer, &peer->source);
	if (r < 0)
		free(peer);
	return r;
}

static void on_connection(void *arg, int accepted, const struct sockaddr_storage *peer)
{
	struct net_keeper *k = arg;
	CLEANUP_CLOSE int fd = accepted;
	uid_t uid = (uid_t)-1;

	/* In a user namespace the user is 0 here, and everybody else somebody else. */
	if (io_peer_uid(fd, &uid, NULL) < 0 || uid != geteuid()) {
		if (log_due(&k->strangers))
			log_warn(&k->log, "control", "refused a connection of uid %u",
				 (unsigned)uid);
		return;
	}
	if (!add_peer(k, fd))
		take_fd(&fd);
}

static const struct acceptor_ops acceptor_ops = {.connection = on_connection};

static void on_signal(void *arg, int signo)
{
	struct net_keeper *k = arg;
	const struct net_hooks *hooks = k->config->hooks;
	int status;
	pid_t pid;

	if (signo != SIGCHLD) {
		log_info(&k->log, "keeper", "stopping on signal %d", signo);
		net_keeper_stop(k);
		return;
	}
	/* As first process of the PID namespace we also inherit orphans. */
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		if (hooks && hooks->child)
			hooks->child(k, k->config->arg, pid, status);
}

/* The starter says "r" when it needs no leash any more. Its end without that is its death. */
static void on_leash(void *arg, uint32_t events)
{
	struct net_keeper *k = arg;
	char c;

	if (read(k->leash, &c, 1) != 1) {
		log_info(&k->log, "keeper", "stopping: whoever started this has ended");
		net_keeper_stop(k);
	}
	loop_remove(&k->leash_source);
	close(take_fd(&k->leash));
}

static int listen_control(struct net_keeper *k, struct error *err)
{
	CLEANUP_FREE char *path = io_format("%s/control", k->config->dir);
	CLEANUP_CLOSE int fd = path ? io_unix_listen(path, err) : -ENOMEM;
	int r;

	if (fd < 0)
		return fd;
	r = acceptor_create(k->loop, &k->log, "control", fd, 0, &acceptor_ops, k, &k->acceptor,
			    err);
	if (!r)
		take_fd(&fd);
	return r;
}

static int set_up(struct net_keeper *k, struct error *err)
{
	static const int signals[] = {SIGTERM, SIGINT, SIGCHLD};
	const struct net_hooks *hooks = k->config->hooks;
	struct loop_source *source;
	int r = loop_create(&k->loop);

	for (unsigned i = 0; !r && i < ARRAY_SIZE(signals); i++)
		r = loop_add_signal(k->loop, signals[i], on_signal, k, &source);
	if (!r)
		r = loop_add_fd(k->loop, k->leash, EPOLLIN, on_leash, k, &k->leash_source);
	if (r)
		return error_errno(err, r, "cannot set up the keeper");
	if (!k->config->entered)
		r = link_up("lo", err);
	if (!r && !k->config->entered)
		r = link_add_bridge(BRIDGE, k->config->address, err);
	if (!r && hooks && hooks->start)
		r = hooks->start(k, k->config->arg, err);
	/* Last: who can connect finds everything there. */
	return r ? r : listen_control(k, err);
}

static void report(int leash, int code, const struct error *err)
{
	json_t *answer = code ? message_failure(err) : json_pack("{sb}", "ok", 1);

	if (answer)
		message_send(leash, answer, -1);
	json_decref(answer);
}

/* Standard streams to the log, nothing else of the starter's but the leash and the lock. */
static int take_fds(const char *dir, int *leash, int *lock)
{
	CLEANUP_FREE char *path = io_format("%s/log", dir);
	CLEANUP_CLOSE int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	CLEANUP_CLOSE int log = -1;

	if (path)
		log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	*leash = fcntl(*leash, F_DUPFD_CLOEXEC, 10);
	*lock = fcntl(*lock, F_DUPFD_CLOEXEC, 10);
	if (null < 0 || log < 0 || *leash < 0 || *lock < 0 || dup2(null, 0) < 0 ||
	    dup2(log, 1) < 0 || dup2(log, 2) < 0 || dup2(*leash, 3) < 0 || dup2(*lock, 4) < 0)
		return -errno;
	*leash = 3;
	*lock = 4;
	fcntl(3, F_SETFD, FD_CLOEXEC);
	fcntl(4, F_SETFD, FD_CLOEXEC);
	/* What is above was the starter's (null and log were above 4 or are closed on return). */
	close_range(5, UINT_MAX, 0);
	null = log = -1;
	return chdir("/") < 0 ? -errno : 0;
}

/* The keeper's life, as first process of the PID namespace. Returns its exit code. */
static int keep(const struct net_config *config, int leash, int underlay)
{
	struct net_keeper k = {.config = config, .leash = leash, .underlay = underlay};
	struct error err = {""};
	int r;

	prctl(PR_SET_NAME, "wisp-keeper");
	log_init(&k.log, config->name, STDERR_FILENO, LOG_INFO);
	r = set_up(&k, &err);
	report(leash, r, &err);
	if (!r)
		r = loop_run(k.loop);
	if (config->hooks && config->hooks->stop)
		config->hooks->stop(&k, config->arg);
	held_done(&k.taps);
	log_info(&k.log, "keeper", "ends");
	state_remove(config->dir, NULL);
	return r ? EXIT_FAILURE : EXIT_SUCCESS;
}

/*
 * Between the starter and the keeper: unshare() gives the new PID namespace only to
 * children, so this process makes the namespaces, forks the keeper into them and leaves. Where
 * they were entered before it is the keeper.
 */
static void __attribute__((noreturn)) launch(const struct net_config *config, int leash, int lock)
{
	struct error err = {""};
	int r, underlay = -1;
	pid_t pid;

	setsid();
	r = take_fds(config->dir, &leash, &lock);
	if (!r && config->entered)
		_exit(keep(config, leash, -1));
	if (!r)
		r = underlay = netlink_open(0);
	if (r < 0)
		error_errno(&err, r, "cannot start the keeper in %s", config->dir);
	else
		r = namespace_enter_private(&err);
	if (!r) {
		pid = fork();
		if (!pid)
			_exit(keep(config, leash, underlay));
		if (pid < 0)
			r = error_errno(&err, -errno, "cannot start the keeper");
	}
	if (r)
		report(leash, r, &err);
	_exit(0);
}

int net_keeper_start(const struct net_config *config, int *leash, struct error *err)
{
	CLEANUP_CLOSE int lock = -1;
	CLEANUP_CLOSE int ours = -1;
	CLEANUP_CLOSE int theirs = -1;
	int pair[2], r = state_lock(config->dir, &lock, err);
	pid_t pid;

	if (r)
		return r;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return error_errno(err, -errno, "cannot start the keeper");
	ours = pair[0];
	theirs = pair[1];
	pid = fork();
	if (pid < 0)
		return error_errno(err, -errno, "cannot start the keeper");
	if (!pid)
		launch(config, theirs, lock);
	close(take_fd(&theirs));
	close(take_fd(&lock));
	if (!config->entered)
		waitpid(pid, NULL, 0);
	r = message_receive(ours, NULL, NULL, err);
	if (r) {
		state_sweep(config->dir, NULL); /* when the keeper could not */
		return r;
	}
	*leash = take_fd(&ours);
	return 0;
}

int net_keeper_release(int *leash)
{
	int r = io_write_full(*leash, "r", 1);

	close(take_fd(leash));
	return r;
}
