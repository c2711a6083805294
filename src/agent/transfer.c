/* SPDX-License-Identifier: Apache-2.0 */
/* copy-in and copy-out: a process each, with the user's rights, so that slow files stop nobody. */

#include "agent/agent.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "agent/copy.h"
#include "agent/spawn.h"
#include "agent/user.h"
#include "lib/cleanup.h"
#include "lib/error.h"

#define CLOSE_SECONDS 5 /* for the client to read our last frame */

struct transfer {
	bool in;
	const char *path, *name;
	struct user user;
};

static int parse(const json_t *request, struct transfer *ret, struct error *err)
{
	const char *op = json_string_value(json_object_get(request, "op"));
	struct transfer t = {
		.in = !strcmp(op, "copy-in"),
		.path = json_string_value(json_object_get(request, "path")),
		.name = json_string_value(json_object_get(request, "name")),
	};
	int r;

	if (!t.path || !*t.path)
		return error_set(err, -EINVAL, "%s without a \"path\"", op);
	r = user_find(json_object_get(request, "user"), json_object_get(request, "group"), &t.user,
		      err);
	if (!r)
		*ret = t;
	return r;
}

static int send_result(struct channel *ch, const struct copy *copy, struct error *err)
{
	json_t *result = json_pack("{s:I,s:I}", "files", (json_int_t)copy->files, "bytes",
				   (json_int_t)copy->bytes);
	int r = result ? channel_send_json(ch, FRAME_RESULT, result, err) : -ENOMEM;

	json_decref(result);
	return r;
}

static int run(const struct transfer *t, struct channel *ch, struct error *err)
{
	struct copy copy = {.channel = ch};
	uint32_t pid = htole32((uint32_t)getpid());
	int r = user_become(&t->user);

	if (r)
		return error_errno(err, r, "cannot become user %s", t->user.name);
	/* Relative paths begin at home; where there is none, at the root. */
	if (chdir(t->user.home) < 0 && chdir("/") < 0)
		return error_errno(err, -errno, "cannot enter /");
	r = channel_send(ch, FRAME_STARTED, &pid, sizeof(pid), err);
	if (r)
		return r;
	if (!t->in)
		return copy_send(&copy, t->path, err);
	r = copy_receive(&copy, t->path, t->name, err);
	return r ? r : send_result(ch, &copy, err);
}

/* What is not read when a socket is closed turns into a reset that may overtake the last frame. */
static void wait_for_close(int fd)
{
	struct timeval limit = {.tv_sec = CLOSE_SECONDS};
	char buf[4096];

	shutdown(fd, SHUT_WR);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	while (read(fd, buf, sizeof(buf)) > 0)
		continue;
}

static void send_error(struct channel *ch, int code, const char *text)
{
	struct buffer b = {0};

	/* The client may have gone: then nobody is there to be told. */
	if (!frame_append_error(&b, code, text))
		channel_send_buffer(ch, &b, NULL);
	buffer_done(&b);
}

static _Noreturn void child_main(const struct agent *agent, const struct transfer *t, int fd)
{
	struct channel ch;
	struct error err = {0};
	int r;

	/* The descriptors of other sessions must not be kept open by this one. */
	if (fd > 3)
		close_range(3, (unsigned)fd - 1, 0);
	close_range((unsigned)fd + 1, ~0u, 0);
	child_reset(agent);
	channel_init(&ch, fd);
	r = fcntl(fd, F_SETFL, 0) < 0 ? -errno : run(t, &ch, &err);
	if (r)
		send_error(&ch, r, err.text);
	wait_for_close(fd);
	_exit(r ? 1 : 0);
}

int transfer_start(struct agent *agent, int fd, const json_t *request, struct error *err)
{
	struct transfer t;
	int r = parse(request, &t, err);
	pid_t pid;

	if (r)
		return r;
	pid = fork();
	if (!pid)
		child_main(agent, &t, fd);
	return pid < 0 ? error_errno(err, -errno, "cannot start the copy") : 0;
}
