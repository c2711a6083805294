/* SPDX-License-Identifier: Apache-2.0 */
/* One JSON object per line over a stream. */

#include "lib/jsonline.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

void jsonline_done(struct jsonline *line)
{
	free(line->buf);
	while (line->nfds)
		close(line->fd[--line->nfds]);
	*line = (struct jsonline){0};
}

static bool whole(const struct jsonline *line)
{
	return line->used && memchr(line->buf, '\n', line->used);
}

/* What a message with descriptors carries beside its bytes. */
union control {
	struct cmsghdr align;
	char space[CMSG_SPACE(JSONLINE_FDS * sizeof(int))];
};

/* Keeps what fits; -EMFILE when something did not. */
static int keep_fds(struct jsonline *line, struct msghdr *msg)
{
	int r = msg->msg_flags & MSG_CTRUNC ? -EMFILE : 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (line->nfds < JSONLINE_FDS) {
				line->fd[line->nfds++] = fd;
			} else {
				close(fd);
				r = -EMFILE;
			}
		}
	}
	return r;
}

static ssize_t receive(struct jsonline *line, int fd, void *buf, size_t room)
{
	union control control;
	struct iovec iov = {buf, room};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = &control,
			     .msg_controllen = sizeof(control)};
	ssize_t n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);
	int r = n < 0 ? 0 : keep_fds(line, &msg);

	if (!r)
		return n;
	errno = -r;
	return -1;
}

static int read_more(struct jsonline *line, int fd, size_t max, bool with_fds)
{
	ssize_t n;

	if (whole(line))
		return 1;
	if (line->used >= max)
		return -EMSGSIZE;
	if (line->used == line->room) {
		size_t more = line->room ? line->room * 2 : 512;
		char *bigger = realloc(line->buf, more);

		if (!bigger)
			return -ENOMEM;
		line->buf = bigger;
		line->room = more;
	}
	if (with_fds)
		n = receive(line, fd, line->buf + line->used, line->room - line->used);
	else
		n = read(fd, line->buf + line->used, line->room - line->used);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	if (!n)
		return -EPIPE;
	line->used += (size_t)n;
	return whole(line);
}

int jsonline_read(struct jsonline *line, int fd, size_t max)
{
	return read_more(line, fd, max, false);
}

int jsonline_receive(struct jsonline *line, int fd, size_t max)
{
	return read_more(line, fd, max, true);
}

int jsonline_take_fd(struct jsonline *line)
{
	int fd;

	if (!line->nfds)
		return -1;
	fd = line->fd[0];
	line->nfds--;
	memmove(line->fd, line->fd + 1, line->nfds * sizeof(line->fd[0]));
	return fd;
}

int jsonline_take(struct jsonline *line, json_t **ret, struct error *err)
{
	char *end = line->used ? memchr(line->buf, '\n', line->used) : NULL;
	json_error_t jerr;
	json_t *value;
	size_t len;

	if (!end)
		return -EAGAIN;
	len = (size_t)(end - line->buf);
	value = json_loadb(line->buf, len, JSON_REJECT_DUPLICATES, &jerr);
	memmove(line->buf, end + 1, line->used - len - 1);
	line->used -= len + 1;
	if (!value)
		return error_set(err, -EBADMSG, "not JSON: %s (column %d)", jerr.text, jerr.column);
	if (!json_is_object(value)) {
		json_decref(value);
		return error_set(err, -EBADMSG, "not a JSON object");
	}
	*ret = value;
	return 0;
}

/* Sends the bytes with a descriptor; how many went, or -errno. */
static ssize_t send_fd(int fd, const char *data, size_t n, int pass)
{
	union control control = {.align = {.cmsg_len = CMSG_LEN(sizeof(int)),
					   .cmsg_level = SOL_SOCKET,
					   .cmsg_type = SCM_RIGHTS}};
	struct iovec iov = {(char *)data, n};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = &control,
			     .msg_controllen = CMSG_SPACE(sizeof(int))};
	ssize_t sent;

	memcpy(CMSG_DATA(&control.align), &pass, sizeof(pass));
	do {
		sent = sendmsg(fd, &msg, MSG_NOSIGNAL);
	} while (sent < 0 && errno == EINTR);
	return sent < 0 ? -errno : sent;
}

int jsonline_write_fd(int fd, const json_t *value, int pass)
{
	CLEANUP_FREE char *text = json_dumps(value, JSON_COMPACT);
	CLEANUP_FREE char *line = text ? io_format("%s\n", text) : NULL;
	ssize_t sent = 0;

	if (!line)
		return -ENOMEM;
	if (pass >= 0)
		sent = send_fd(fd, line, strlen(line), pass);
	return sent < 0 ? (int)sent : io_write_full(fd, line + sent, strlen(line + sent));
}

int jsonline_write(int fd, const json_t *value)
{
	return jsonline_write_fd(fd, value, -1);
}

int jsonline_call(int fd, const json_t *request, json_t **answer, struct error *err)
{
	struct jsonline line = {0};
	int r = jsonline_write(fd, request);

	if (r == -EPIPE) /* a server that refuses us has said why before it hung up */
		r = 0;
	while (!r)
		r = jsonline_read(&line, fd, 16 * 1024 * 1024);
	if (r > 0)
		r = jsonline_take(&line, answer, err);
	else
		error_errno(err, r, "no answer on the control socket");
	jsonline_done(&line);
	return r;
}
