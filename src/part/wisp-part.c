/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wisp-part: a cluster's user on one node, started by wispd with a socket to it as descriptor 0
 * (docs/formats/node.md, The part).
 */

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/error.h"
#include "lib/io.h"
#include "lib/log.h"
#include "lib/loop.h"
#include "part/part.h"

/* Descriptor 0 becomes another: errands have nothing to read. */
static int take_socket(struct error *err)
{
	int type, fd = -1, null;
	socklen_t size = sizeof(type);

	if (!getsockopt(0, SOL_SOCKET, SO_TYPE, &type, &size) && type == SOCK_STREAM)
		fd = fcntl(0, F_DUPFD_CLOEXEC, 3);
	null = fd < 0 ? -1 : open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null < 0 || dup2(null, 0) < 0)
		return error_set(err, -1,
				 "descriptor 0 is not a socket: wispd starts this program");
	close(null);
	return fd;
}

static void on_signal(void *arg, int signo)
{
	loop_stop(arg);
}

static int run(int fd, const struct log *log, struct error *err)
{
	struct loop_source *term = NULL;
	struct loop *loop = NULL;
	struct part *part = NULL;
	int r = loop_create(&loop);

	if (!r)
		r = loop_add_signal(loop, SIGTERM, on_signal, loop, &term);
	if (r)
		error_errno(err, r, "cannot begin");
	if (!r)
		r = part_create(loop, log, fd, &part, err);
	if (!r)
		r = loop_run(loop);
	part_destroy(part);
	loop_remove(&term);
	loop_destroy(loop);
	return r;
}

int main(int argc, char **argv)
{
	struct error err = {""};
	struct log log;
	int fd, r = -1;

	io_open_standard_fds();
	signal(SIGPIPE, SIG_IGN);
	log_init(&log, "wisp-part", STDERR_FILENO, LOG_INFO);
	fd = argc > 1 ? error_set(&err, -1, "wisp-part takes no arguments: wispd starts it")
		      : take_socket(&err);
	if (fd >= 0)
		r = run(fd, &log, &err);
	if (r)
		fprintf(stderr, "wisp-part: %s\n", err.text);
	return r ? EXIT_FAILURE : EXIT_SUCCESS;
}
