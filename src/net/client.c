/* SPDX-License-Identifier: Apache-2.0 */
/* Clients of a private network's keeper. */

#include "net/client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/process.h"
#include "net/message.h"
#include "net/namespace.h"
#include "net/state.h"

#define STOP_PATIENCE_MS 10000

int net_connect(const char *dir, struct error *err)
{
	CLEANUP_FREE char *path = io_format("%s/control", dir);

	return path ? io_unix_connect(path, err) : -ENOMEM;
}

static int call(int control, json_t *request, int *fd, struct error *err)
{
	int r = request ? message_call(control, request, NULL, fd, err) : -ENOMEM;

	json_decref(request);
	if (!r && fd && *fd < 0)
		r = error_set(err, -EPROTO, "the answer carries no descriptor");
	return r;
}

int net_tap(int control, const char *name, int *ret, struct error *err)
{
	return call(control, json_pack("{ssss}", "op", "tap", "name", name), ret, err);
}

int net_give_tap(int control, const char *name, size_t n, int tap, struct error *err)
{
	json_t *request = json_pack("{s:s, s:s%}", "op", "take", "name", name, n);
	int r = request ? message_send(control, request, tap) : -ENOMEM;

	json_decref(request);
	if (r)
		return error_errno(err, r, "cannot give tap %.*s to the keeper", (int)n, name);
	return message_receive(control, NULL, NULL, err);
}

/* connect() with a time limit; the socket is left blocking. */
static int connect_within(int fd, const struct sockaddr_in *to, int timeout_ms)
{
	struct pollfd ready = {.fd = fd, .events = POLLOUT};
	int code = 0, flags = fcntl(fd, F_GETFL);
	socklen_t size = sizeof(code);

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)to, sizeof(*to)) < 0) {
		if (errno != EINPROGRESS)
			return -errno;
		if (poll(&ready, 1, timeout_ms) != 1)
			return -ETIMEDOUT;
		if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &size) < 0)
			return -errno;
		if (code)
			return -code;
	}
	return fcntl(fd, F_SETFL, flags) < 0 ? -errno : 0;
}

/* A peer that was switched off never says so: ask it when it is silent. */
static void watch_peer(int fd)
{
	int on = 1, idle_s = 15, interval_s = 5, count = 9, limit_ms = 60000;

	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &limit_ms, sizeof(limit_ms));
}

int net_connect_tcp(int control, const char *address, uint16_t port, int timeout_ms, int *ret,
		    struct error *err)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
	CLEANUP_CLOSE int fd = -1;
	int r;

	if (inet_pton(AF_INET, address, &to.sin_addr) != 1)
		return error_set(err, -EINVAL, "\"%s\" is not an IPv4 address", address);
	r = call(control, json_pack("{ss}", "op", "socket"), &fd, err);
	if (r)
		return r;
	r = connect_within(fd, &to, timeout_ms);
	if (r)
		return error_errno(err, r, "cannot connect to %s:%u", address, (unsigned)port);
	watch_peer(fd);
	*ret = take_fd(&fd);
	return 0;
}

static int wait_end(int pidfd, int timeout_ms)
{
	struct pollfd ended = {.fd = pidfd, .events = POLLIN};
	int n;

	do {
		n = poll(&ended, 1, timeout_ms);
	} while (n < 0 && errno == EINTR);
	return n == 1 ? 0 : -ETIMEDOUT;
}

/*
 * The keeper is a zombie only after the kernel has ended its whole PID namespace: waiting for it
 * waits for everything.
 */
static int stop_keeper(int control, struct error *err)
{
	CLEANUP_CLOSE int pidfd = -1;
	uid_t uid;
	pid_t pid;
	int r = io_peer_uid(control, &uid, &pid);

	if (!r) {
		pidfd = pidfd_open(pid, 0);
		r = pidfd < 0 ? -errno : 0;
	}
	if (r == -ESRCH)
		return 0;
	if (r)
		return error_errno(err, r, "cannot find the keeper");
	/* One that does not even answer is killed; either way nothing of it stays. */
	pidfd_send_signal(pidfd, SIGTERM, NULL, 0);
	if (wait_end(pidfd, STOP_PATIENCE_MS)) {
		pidfd_send_signal(pidfd, SIGKILL, NULL, 0);
		r = wait_end(pidfd, STOP_PATIENCE_MS);
	}
	return r ? error_set(err, r, "process %d does not end", pid) : 0;
}

int net_stop(const char *dir, struct error *err)
{
	CLEANUP_CLOSE int control = net_connect(dir, NULL);
	int r = control < 0 ? 0 : stop_keeper(control, err);

	if (r < 0)
		return r;
	r = state_sweep(dir, err);
	return r < 0 ? r : r || control >= 0;
}

int net_run(int control, char *const *argv, struct error *err)
{
	CLEANUP_CLOSE int pidfd = -1;
	struct process process = {.argv = (const char *const *)argv};
	uid_t uid;
	pid_t pid;
	int status, r = io_peer_uid(control, &uid, &pid);

	if (!r) {
		pidfd = pidfd_open(pid, 0);
		r = pidfd < 0 ? error_errno(err, -errno, "cannot find the keeper") : 0;
	}
	if (!r)
		r = namespace_join(pidfd, err);
	if (!r)
		r = process_start(&process, &pid, err);
	if (!r)
		r = process_wait(pid, &status);
	return r ? r : process_exit_code(status);
}
