/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes between the daemon's socket and standard input and output. */

#include "node/pipe.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/args.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/process.h"

#define TRIES 100u /* of 100 ms */
#define PIECE (64u << 10)

/* -------- the daemon -------- */

static int start_daemon(const struct args *start, const char *log, pid_t *ret, struct error *err)
{
	CLEANUP_CLOSE int to =
		open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	int fds[3] = {-1, -1, to};
	struct process process = {
		.argv = (const char *const *)start->v, .fds = fds, .nfds = 3, .new_session = true};

	if (to < 0)
		return error_errno(err, -errno, "cannot open %s", log);
	return process_start(&process, ret, err);
}

/* Somebody else may have started one at the same time: then ours ends, and theirs answers. */
static int wait_for(const char *socket, pid_t daemon, const char *log, struct error *err)
{
	int fd = -1, status = 0;
	pid_t ended = 0;

	for (unsigned i = 0; i < TRIES; i++) {
		fd = io_unix_connect(socket, err);
		if (fd >= 0)
			return fd;
		if (!ended)
			ended = waitpid(daemon, &status, WNOHANG);
		else if (i > TRIES / 5)
			break;
		usleep(100000);
	}
	if (ended)
		return error_set(err, -ENOENT,
				 "a wispd was started here and ended with code %d: see %s",
				 process_exit_code(status), log);
	return error_set(err, -ETIMEDOUT, "the wispd that was started here does not answer: see %s",
			 log);
}

static int reach(const char *socket, const struct args *start, const char *log, struct error *err)
{
	int fd = io_unix_connect(socket, err), r;
	pid_t daemon = 0;

	if (fd >= 0 || (fd != -ENOENT && fd != -ECONNREFUSED))
		return fd;
	if (!start)
		return error_set(
			err, fd,
			"no wispd runs here (nothing answers at %s): systemctl start wispd",
			socket);
	r = start_daemon(start, log, &daemon, err);
	return r ? r : wait_for(socket, daemon, log, err);
}

/* -------- the bytes -------- */

static int copy(int from, int to)
{
	char data[PIECE];

	for (;;) {
		ssize_t n = read(from, data, sizeof(data));
		int r;

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : 0;
		r = io_write_full(to, data, (size_t)n);
		if (r)
			return r;
	}
}

/* When the daemon has said its last nobody wants to hear what else there is. */
static void *from_daemon(void *arg)
{
	int fd = *(int *)arg;

	_exit(copy(fd, STDOUT_FILENO) ? 1 : 0);
}

int pipe_run(const char *socket, const struct args *start, const char *log, struct error *err)
{
	pthread_t thread;
	int fd = reach(socket, start, log, err), r;

	if (fd < 0)
		return fd;
	signal(SIGPIPE, SIG_IGN);
	r = pthread_create(&thread, NULL, from_daemon, &fd);
	if (r) {
		close(fd);
		return error_errno(err, -r, "cannot start a thread");
	}
	copy(STDIN_FILENO, fd);
	shutdown(fd, SHUT_WR);
	pthread_join(thread, NULL);
	return 0;
}
