/* SPDX-License-Identifier: Apache-2.0 */
/* JSON lines with a descriptor on top. */

#include "net/message.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

#define ANSWER_MAX (16 * 1024 * 1024)

union control {
	struct cmsghdr align;
	char buf[CMSG_SPACE(sizeof(int))];
};

int message_send(int socket, const json_t *value, int fd)
{
	CLEANUP_FREE char *text = json_dumps(value, JSON_COMPACT);
	CLEANUP_FREE char *line = text ? io_format("%s\n", text) : NULL;
	union control control = {.align = {.cmsg_len = CMSG_LEN(sizeof(int)),
					   .cmsg_level = SOL_SOCKET,
					   .cmsg_type = SCM_RIGHTS}};
	struct iovec iov = {.iov_base = line, .iov_len = line ? strlen(line) : 0};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	if (!line)
		return -ENOMEM;
	if (fd >= 0) {
		msg.msg_control = control.buf;
		msg.msg_controllen = sizeof(control.buf);
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&msg)), &fd, sizeof(fd));
	}
	do {
		n = sendmsg(socket, &msg, MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return io_write_full(socket, line + n, iov.iov_len - (size_t)n);
}

/* One recvmsg; a descriptor that comes along replaces *fd. */
static ssize_t receive_some(int socket, char *buf, size_t room, int *fd)
{
	union control control;
	struct iovec iov = {.iov_base = buf, .iov_len = room};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control.buf,
			     .msg_controllen = sizeof(control.buf)};
	struct cmsghdr *c;
	ssize_t n;

	do {
		n = recvmsg(socket, &msg, MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	c = CMSG_FIRSTHDR(&msg);
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
	    c->cmsg_len == CMSG_LEN(sizeof(int))) {
		cleanup_close_fd(fd);
		memcpy(fd, CMSG_DATA(c), sizeof(*fd));
	}
	return n ? n : -EPIPE;
}

static int receive_line(int socket, char **ret, int *fd)
{
	CLEANUP_FREE char *buf = NULL;
	size_t used = 0, room = 0;

	while (!used || buf[used - 1] != '\n') {
		ssize_t n;

		if (used == room) {
			char *bigger = realloc(buf, room + 4096 + room / 2 + 1);

			if (!bigger || room > ANSWER_MAX) {
				buf = bigger ? bigger : buf;
				return bigger ? -EMSGSIZE : -ENOMEM;
			}
			buf = bigger;
			room += 4096 + room / 2;
		}
		n = receive_some(socket, buf + used, room - used, fd);
		if (n < 0)
			return (int)n;
		used += (size_t)n;
	}
	buf[used] = 0;
	*ret = take_ptr(buf);
	return 0;
}

int message_receive(int socket, json_t **ret, int *fd, struct error *err)
{
	CLEANUP_FREE char *line = NULL;
	CLEANUP_CLOSE int passed = -1;
	int r = receive_line(socket, &line, &passed);
	json_t *answer;

	if (r)
		return error_errno(err, r, "no answer on the control socket");
	answer = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
	if (!answer)
		return error_set(err, -EBADMSG, "the answer on the control socket is not JSON");
	if (!json_is_true(json_object_get(answer, "ok"))) {
		const char *text = json_string_value(json_object_get(answer, "error"));

		r = json_is_true(json_object_get(answer, "again")) ? -EAGAIN : -EREMOTEIO;
		error_set(err, r, "%s", text ? text : "refused without a reason");
		json_decref(answer);
		return r;
	}
	if (ret)
		*ret = answer;
	else
		json_decref(answer);
	if (fd)
		*fd = take_fd(&passed);
	return 0;
}

int message_call(int socket, const json_t *request, json_t **ret, int *fd, struct error *err)
{
	int r = message_send(socket, request, -1);

	if (r < 0)
		return error_errno(err, r, "cannot send a request to the control socket");
	return message_receive(socket, ret, fd, err);
}

json_t *message_failure(const struct error *err)
{
	json_t *value = json_pack("{sbss}", "ok", 0, "error", err->text);

	/* The text may hold bytes of a file name that are not UTF-8. */
	return value ? value
		     : json_pack("{sbss}", "ok", 0, "error", "failed (the reason is not text)");
}
