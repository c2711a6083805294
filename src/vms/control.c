/* SPDX-License-Identifier: Apache-2.0 */
/* A client of wisp-vmm's control socket. */

#include "vms/control.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "vms/record.h"

#define PATIENCE_S 5
#define ANSWER_MAX (1u << 20)

static void set_patience(int fd, time_t seconds)
{
	struct timeval limit = {.tv_sec = seconds};

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
}

/* A line, byte by byte: what is behind it may be the console's. */
static int read_line(int fd, char **ret)
{
	CLEANUP_FREE char *line = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&line, &size);
	int r = out ? 0 : -errno;
	char c = 0;

	for (size_t n = 0; !r && c != '\n'; n++) {
		r = n < ANSWER_MAX ? io_read_full(fd, &c, 1) : -EMSGSIZE;
		if (!r)
			fputc(c, out);
	}
	if (out)
		fclose(out);
	if (!r)
		*ret = take_ptr(line);
	return r == -EAGAIN ? -ETIMEDOUT : r;
}

static int check_answer(const json_t *answer, json_t **ret, struct error *err)
{
	const json_t *reason = json_object_get(answer, "error");

	if (!json_is_true(json_object_get(answer, "ok")))
		return error_set(err, -EREMOTEIO, "%s", record_text(reason, "text"));
	if (ret)
		*ret = json_incref(json_object_get(answer, "result"));
	return 0;
}

static int call(int fd, const char *command, json_t **ret, struct error *err)
{
	CLEANUP_FREE char *line = io_format("{\"command\":\"%s\"}\n", command);
	CLEANUP_FREE char *text = NULL;
	json_t *answer = NULL;
	int r = line ? io_write_full(fd, line, strlen(line)) : -ENOMEM;

	if (!r)
		r = read_line(fd, &text);
	if (r)
		return error_errno(err, r, "wisp-vmm does not answer \"%s\"", command);
	answer = json_loads(text, 0, NULL);
	r = check_answer(answer, ret, err);
	json_decref(answer);
	return r;
}

static int connect_to(const char *dir, struct error *err)
{
	CLEANUP_FREE char *path = io_format("%s/" VM_CONTROL, dir);
	int fd = path ? io_unix_connect(path, err) : -ENOMEM;

	if (fd >= 0)
		set_patience(fd, PATIENCE_S);
	return fd;
}

int control_call(const char *dir, const char *command, json_t **ret, pid_t *pid, struct error *err)
{
	CLEANUP_CLOSE int fd = connect_to(dir, err);
	uid_t uid;
	int r = fd < 0 ? fd : call(fd, command, ret, err);

	if (!r && pid)
		r = io_peer_uid(fd, &uid, pid);
	return r;
}

int control_console(const char *dir, struct error *err)
{
	CLEANUP_CLOSE int fd = connect_to(dir, err);
	int r = fd < 0 ? fd : call(fd, "console", NULL, err);

	if (r)
		return r;
	set_patience(fd, 0);
	return take_fd(&fd);
}
