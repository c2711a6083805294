/* SPDX-License-Identifier: Apache-2.0 */
/* Connections to agents, short requests and copies. */

#include "agent/client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "agent/client-task.h"
#include "agent/proto.h"
#include "agent/request.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/parse.h"

#define CONNECT_SECONDS 10
#define CALL_MS 10000 /* for requests that an agent answers at once */

int client_read_line(int fd, char *line, size_t size)
{
	for (size_t n = 0; n < size - 1; n++) {
		int r = io_read_full(fd, line + n, 1);

		if (r)
			return r == -EAGAIN ? -ETIMEDOUT : r;
		if (line[n] == '\n') {
			line[n] = 0;
			return 0;
		}
	}
	return -EMSGSIZE;
}

static void set_timeout(int fd, unsigned seconds)
{
	struct timeval limit = {.tv_sec = seconds};

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
}

int client_connect_vsock_unix(const char *path, unsigned port, struct error *err)
{
	CLEANUP_CLOSE int fd = io_unix_connect(path, err);
	char line[64];
	int r;

	if (fd < 0)
		return fd;
	snprintf(line, sizeof(line), "CONNECT %u\n", port);
	set_timeout(fd, CONNECT_SECONDS);
	r = io_write_full(fd, line, strlen(line));
	if (!r)
		r = client_read_line(fd, line, sizeof(line));
	/* The VMM closes the connection when the guest refuses it. */
	if (r == -EPIPE)
		r = -ECONNREFUSED;
	if (!r && strncmp(line, "OK ", 3))
		r = -EPROTO;
	if (r)
		return error_errno(err, r, "cannot reach vsock port %u behind %s", port, path);
	set_timeout(fd, 0);
	return take_fd(&fd);
}

static int connect_tcp(const char *address, const char *port_text, struct error *err)
{
	CLEANUP_CLOSE int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in addr = {.sin_family = AF_INET};
	unsigned port;
	int on = 1;

	if (inet_pton(AF_INET, address, &addr.sin_addr) != 1)
		return error_set(err, -EINVAL, "\"%s\" is not an IPv4 address", address);
	if (!port_text || parse_uint(port_text, "TCP port", 1, 65535, &port, NULL))
		return error_set(err, -EINVAL, "no TCP port in tcp:%s:PORT", address);
	addr.sin_port = htons((uint16_t)port);
	if (fd < 0)
		return error_errno(err, -errno, "cannot make a socket");
	set_timeout(fd, CONNECT_SECONDS);
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return error_errno(err, errno == EINPROGRESS ? -ETIMEDOUT : -errno,
				   "cannot connect to %s:%u", address, port);
	set_timeout(fd, 0);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return take_fd(&fd);
}

int client_connect(const char *address, struct error *err)
{
	CLEANUP_FREE char *copy = strdup(address);
	char *rest = copy ? strchr(copy, ':') : NULL;
	char *port_text = rest ? strrchr(rest + 1, ':') : NULL;
	unsigned port = PROTO_PORT;

	if (rest)
		*rest++ = 0;
	if (rest && !strcmp(copy, "unix"))
		return io_unix_connect(rest, err);
	if (rest && !strcmp(copy, "vsock")) {
		if (port_text && !parse_uint(port_text + 1, "port", 1, UINT32_MAX, &port, NULL))
			*port_text = 0;
		return client_connect_vsock_unix(rest, port, err);
	}
	if (rest && port_text && !strcmp(copy, "tcp")) {
		*port_text++ = 0;
		return connect_tcp(rest, port_text, err);
	}
	return error_set(err, -EINVAL,
			 "\"%s\" is not unix:PATH, tcp:ADDRESS:PORT or vsock:PATH[:PORT]", address);
}

int client_call(int fd, const json_t *request, unsigned timeout_ms, json_t **ret, struct error *err)
{
	struct json_collector collector = {0};
	struct channel ch;
	struct frame frame;
	int r;

	channel_init(&ch, fd);
	ch.deadline_ns = io_now_ns() + (uint64_t)timeout_ms * 1000000;
	r = channel_hello(&ch, err);
	if (!r)
		r = channel_send_json(&ch, FRAME_REQUEST, request, err);
	while (!r) {
		r = channel_expect(&ch, FRAME_RESULT, &frame, err);
		if (!r)
			r = json_collect(&collector, &frame, ret, err);
	}
	buffer_done(&collector.text);
	channel_done(&ch);
	return r < 0 ? r : 0;
}

static int call_op(int fd, json_t *request, unsigned timeout_ms, json_t **ret, struct error *err)
{
	json_t *result = NULL;
	int r = request ? client_call(fd, request, timeout_ms, &result, err)
			: error_errno(err, -ENOMEM, "request");

	json_decref(request);
	if (!r && ret)
		*ret = result;
	else
		json_decref(result);
	return r;
}

int client_facts(int fd, json_t **ret, struct error *err)
{
	return call_op(fd, json_pack("{s:s}", "op", "facts"), CALL_MS, ret, err);
}

int client_configure(int fd, const json_t *settings, struct error *err)
{
	json_t *request = json_copy((json_t *)settings);

	if (request && json_object_set_new(request, "op", json_string("configure"))) {
		json_decref(request);
		request = NULL;
	}
	return call_op(fd, request, CALL_MS, NULL, err);
}

int client_poweroff(int fd, bool reboot, unsigned timeout_ms, struct error *err)
{
	return call_op(fd, json_pack("{s:s}", "op", reboot ? "reboot" : "poweroff"), timeout_ms,
		       NULL, err);
}

int client_task_start(int fd, const char *id, const struct client_exec *exec, json_t **ret,
		      struct error *err)
{
	json_t *request = NULL;
	int r = request_task_start(id, exec, &request, err);

	return r ? r : call_op(fd, request, CALL_MS, ret, err);
}

int client_task_list(int fd, json_t **ret, struct error *err)
{
	json_t *result;
	int r = call_op(fd, json_pack("{s:s}", "op", "task-list"), CALL_MS, &result, err);

	if (r)
		return r;
	if (json_is_array(json_object_get(result, "tasks")))
		*ret = json_incref(json_object_get(result, "tasks"));
	else
		r = error_set(err, -EPROTO, "the agent lists no tasks");
	json_decref(result);
	return r;
}

int client_task_signal(int fd, const char *id, int signo, struct error *err)
{
	return call_op(fd,
		       json_pack("{s:s,s:s,s:i}", "op", "task-signal", "id", id, "signal", signo),
		       CALL_MS, NULL, err);
}

int client_task_remove(int fd, const char *id, bool kill, struct error *err)
{
	return call_op(fd,
		       json_pack("{s:s,s:s,s:b}", "op", "task-remove", "id", id, "kill", (int)kill),
		       CALL_MS, NULL, err);
}

static int ping_once(const char *address, unsigned timeout_ms, struct error *err)
{
	CLEANUP_CLOSE int fd = client_connect(address, err);

	if (fd < 0)
		return fd;
	/* A guest that accepts and does not answer must not hold us beyond the limit. */
	return call_op(fd, json_pack("{s:s}", "op", "ping"), timeout_ms, NULL, err);
}

int client_wait_ready(const char *address, unsigned timeout_ms, int (*stop)(void *arg), void *arg,
		      struct error *err)
{
	uint64_t start = io_now_ns();
	uint64_t pause_ms = 10;

	for (;;) {
		uint64_t passed = (io_now_ns() - start) / 1000000;
		struct timespec nap;
		int r;

		if (passed >= timeout_ms)
			return error_prefix(err, -ETIMEDOUT, "no agent after %u ms", timeout_ms);
		r = ping_once(address, timeout_ms - (unsigned)passed, err);
		if (!r || r == -EINVAL || r == -EPROTONOSUPPORT)
			return r;
		r = stop ? stop(arg) : 0;
		if (r < 0)
			return r;
		nap = (struct timespec){.tv_nsec = (long)pause_ms * 1000000};
		nanosleep(&nap, NULL);
		pause_ms = pause_ms * 3 / 2 > 200 ? 200 : pause_ms * 3 / 2;
	}
}

/* Starts a copy: HELLO, request, STARTED. Takes request. */
static int copy_start(struct channel *ch, json_t *request, const char *user, struct error *err)
{
	struct frame frame;
	int r = request ? request_set_user(request, "user", user, err)
			: error_set(err, -EINVAL, "a path is not UTF-8");

	if (!r)
		r = channel_hello(ch, err);
	if (!r)
		r = channel_send_json(ch, FRAME_REQUEST, request, err);
	json_decref(request);
	return r ? r : channel_expect(ch, FRAME_STARTED, &frame, err);
}

/* What a source is called at its destination; "." is called as the directory it is. */
static char *source_name(const char *src)
{
	char *name = copy_base_name(src);
	CLEANUP_FREE char *real = name ? NULL : realpath(src, NULL);

	return name ? name : real ? copy_base_name(real) : NULL;
}

int client_copy_in(int fd, const char *src, const char *dest, const char *user, struct copy *copy,
		   struct error *err)
{
	CLEANUP_FREE char *name = source_name(src);
	struct copy own = {0};
	struct channel ch;
	struct frame frame;
	int r;

	copy = copy ? copy : &own;
	if (access(src, R_OK) < 0)
		return error_errno(err, -errno, "cannot read %s", src);
	copy->channel = &ch;
	channel_init(&ch, fd);
	r = copy_start(&ch,
		       json_pack("{s:s,s:s,s:s*}", "op", "copy-in", "path", dest, "name", name),
		       user, err);
	if (!r)
		r = copy_send(copy, src, err);
	if (!r)
		r = channel_expect(&ch, FRAME_RESULT, &frame, err);
	channel_done(&ch);
	copy->channel = NULL;
	return r;
}

int client_copy_out(int fd, const char *src, const char *dest, const char *user, struct copy *copy,
		    struct error *err)
{
	CLEANUP_FREE char *name = copy_base_name(src);
	struct copy own = {0};
	struct channel ch;
	int r;

	copy = copy ? copy : &own;
	copy->channel = &ch;
	channel_init(&ch, fd);
	r = copy_start(&ch, json_pack("{s:s,s:s}", "op", "copy-out", "path", src), user, err);
	if (!r)
		r = copy_receive(copy, dest, name, err);
	channel_done(&ch);
	copy->channel = NULL;
	return r;
}
