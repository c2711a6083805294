/* SPDX-License-Identifier: Apache-2.0 */
/* The host end of a console: stdio, a socket, a file or nothing. */

#include "vmm/chardev.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/loop.h"

#define HISTORY_SIZE 8192    /* a screen or two; counts against the VMM's memory budget */
#define FILE_SIZE (4u << 20) /* then it becomes PATH.old: no guest fills the host's disk */

struct chardev {
	struct loop *loop;
	const struct chardev_ops *ops;
	void *arg;
	int in_fd, out_fd; /* the same for a client; -1: none */
	bool owned;	   /* the fds are ours to close */
	bool raw;	   /* the terminal on standard input was made raw */
	bool waiting;	   /* room() said 0, the source sleeps */
	struct termios saved;
	struct loop_source *input;
	int listen_fd;
	struct loop_source *listener;
	char *path; /* of the listening socket, or of the file */
	int file_fd;
	off_t file_used;
	uint8_t history[HISTORY_SIZE];
	size_t written; /* bytes of output so far */
};

static void drop_client(struct chardev *c)
{
	loop_remove(&c->input);
	if (c->owned && c->out_fd >= 0)
		close(c->out_fd);
	c->in_fd = c->out_fd = -1;
	c->owned = false;
	c->waiting = false;
}

static void on_input(void *arg, uint32_t events)
{
	struct chardev *c = arg;
	size_t room = c->ops->room(c->arg);
	uint8_t buf[256];
	ssize_t n;

	(void)events;
	if (!room) {
		/* A closed peer would wake us for ever: without room the source is taken away. */
		loop_remove(&c->input);
		c->waiting = true;
		return;
	}
	n = read(c->in_fd, buf, room < sizeof(buf) ? room : sizeof(buf));
	if (n > 0)
		c->ops->input(c->arg, buf, (size_t)n);
	else if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	else if (c->owned)
		drop_client(c);
	else
		loop_remove(&c->input); /* the end of standard input, not of our output */
}

void chardev_input_ready(struct chardev *c)
{
	if (!c->waiting)
		return;
	c->waiting = false;
	if (loop_add_fd(c->loop, c->in_fd, EPOLLIN, on_input, c, &c->input))
		drop_client(c);
}

/*
 * Pipes and terminals: they are shared with others and so cannot be made non-blocking, but one
 * that poll() calls writable takes PIPE_BUF bytes at once.
 */
static ssize_t write_ready(int fd, const uint8_t *data, size_t len)
{
	size_t done = 0;

	while (done < len) {
		struct pollfd p = {.fd = fd, .events = POLLOUT};
		size_t some = len - done < PIPE_BUF ? len - done : PIPE_BUF;
		ssize_t n;

		if (poll(&p, 1, 0) != 1)
			break;
		n = write(fd, data + done, some);
		if (n < 0)
			return n;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

/* A reader that does not read must not stop the guest: what does not fit is lost to it. */
static void write_some(struct chardev *c, const uint8_t *data, size_t len)
{
	ssize_t n;

	if (c->out_fd < 0 || !len)
		return;
	n = send(c->out_fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0 && errno == ENOTSOCK)
		n = write_ready(c->out_fd, data, len);
	if (n < 0 && errno != EAGAIN && errno != EINTR && c->owned)
		drop_client(c);
}

static void replay(struct chardev *c)
{
	size_t at = c->written % HISTORY_SIZE;

	if (c->written >= HISTORY_SIZE)
		write_some(c, c->history + at, HISTORY_SIZE - at);
	write_some(c, c->history, at);
}

int chardev_adopt(struct chardev *c, int fd)
{
	int r = fcntl(fd, F_SETFL, O_NONBLOCK) < 0 ? -errno : 0;

	drop_client(c);
	if (!r)
		r = loop_add_fd(c->loop, fd, EPOLLIN, on_input, c, &c->input);
	if (r) {
		close(fd);
		return r;
	}
	c->in_fd = c->out_fd = fd;
	c->owned = true;
	replay(c);
	return 0;
}

static void on_connect(void *arg, uint32_t events)
{
	struct chardev *c = arg;
	int fd = accept4(c->listen_fd, NULL, NULL, SOCK_CLOEXEC);
	uid_t uid;

	(void)events;
	if (fd < 0)
		return;
	if (io_peer_uid(fd, &uid, NULL) || (uid != geteuid() && uid))
		close(fd);
	else
		chardev_adopt(c, fd);
}

static int open_file(struct chardev *c)
{
	c->file_fd = open(c->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	c->file_used = c->file_fd < 0 ? 0 : lseek(c->file_fd, 0, SEEK_END);
	return c->file_fd < 0 ? -errno : 0;
}

/* The file gets everything, whoever else reads along. What cannot be written is lost. */
static void write_file(struct chardev *c, const uint8_t *data, size_t len)
{
	ssize_t n;

	if (c->file_used >= FILE_SIZE) {
		CLEANUP_FREE char *old = io_format("%s.old", c->path);

		close(c->file_fd);
		if (!old || rename(c->path, old) < 0 || open_file(c) < 0) {
			c->file_fd = -1;
			return;
		}
	}
	n = write(c->file_fd, data, len);
	c->file_used += n > 0 ? n : 0;
}

void chardev_output(struct chardev *c, const uint8_t *data, size_t len)
{
	if (c->file_fd >= 0)
		write_file(c, data, len);
	for (size_t i = 0; i < len; i++)
		c->history[c->written++ % HISTORY_SIZE] = data[i];
	write_some(c, data, len);
}

static int open_stdio(struct chardev *c, struct error *err)
{
	struct termios raw;
	int r;

	c->in_fd = STDIN_FILENO;
	c->out_fd = STDOUT_FILENO;
	if (!tcgetattr(STDIN_FILENO, &c->saved)) {
		raw = c->saved;
		cfmakeraw(&raw);
		raw.c_lflag |= ISIG; /* Ctrl-C ends the VM, as the man page says */
		raw.c_oflag |= OPOST;
		c->raw = !tcsetattr(STDIN_FILENO, TCSANOW, &raw);
	}
	r = loop_add_fd(c->loop, STDIN_FILENO, EPOLLIN, on_input, c, &c->input);
	/* Regular files and /dev/null cannot be polled: then there is output alone. */
	return r && r != -EPERM ? error_errno(err, r, "console on standard input") : 0;
}

static int open_socket(struct chardev *c, const char *path, struct error *err)
{
	int r;

	c->path = strdup(path);
	if (!c->path)
		return error_errno(err, -ENOMEM, "console");
	c->listen_fd = io_unix_listen(path, err);
	if (c->listen_fd < 0)
		return c->listen_fd;
	r = loop_add_fd(c->loop, c->listen_fd, EPOLLIN, on_connect, c, &c->listener);
	return r ? error_errno(err, r, "console socket %s", path) : 0;
}

static int use_file(struct chardev *c, const char *path, struct error *err)
{
	int r;

	c->path = strdup(path);
	r = c->path ? open_file(c) : -ENOMEM;
	return r ? error_errno(err, r, "cannot open console file %s", path) : 0;
}

static int open_spec(struct chardev *c, const char *spec, struct error *err)
{
	if (!strcmp(spec, "none"))
		return 0;
	if (!strcmp(spec, "stdio"))
		return open_stdio(c, err);
	if (!strncmp(spec, "socket=", 7) && spec[7])
		return open_socket(c, spec + 7, err);
	if (!strncmp(spec, "file=", 5) && spec[5])
		return use_file(c, spec + 5, err);
	return error_set(err, -EINVAL, "console \"%s\" is not one of " CHARDEV_HELP, spec);
}

int chardev_create(const char *spec, struct loop *loop, const struct chardev_ops *ops, void *arg,
		   struct chardev **ret, struct error *err)
{
	struct chardev *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return error_errno(err, -ENOMEM, "console");
	c->loop = loop;
	c->ops = ops;
	c->arg = arg;
	c->in_fd = c->out_fd = c->listen_fd = c->file_fd = -1;
	r = open_spec(c, spec, err);
	if (r) {
		chardev_destroy(c);
		return r;
	}
	*ret = c;
	return 0;
}

void chardev_destroy(struct chardev *c)
{
	if (!c)
		return;
	if (c->raw)
		tcsetattr(STDIN_FILENO, TCSANOW, &c->saved);
	drop_client(c);
	loop_remove(&c->listener);
	if (c->file_fd >= 0)
		close(c->file_fd);
	if (c->listen_fd >= 0) {
		close(c->listen_fd);
		unlink(c->path);
	}
	free(c->path);
	free(c);
}
