/* SPDX-License-Identifier: Apache-2.0 */
/* Two programs joined by a pipe, their messages, and their end. */

#include "image/pipeline.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "image/progress.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/process.h"

struct pipeline {
	struct progress *progress;
	pid_t pids[2];
	int messages; /* what both write to standard error */
	FILE *log;
	char line[256]; /* the current one, cut */
	size_t used;
	char reason[256]; /* the first line that begins with "E:", else the first of all */
	bool reason_is_error;
};

static void end_line(struct pipeline *p)
{
	bool is_error;

	p->line[p->used] = '\0';
	p->used = 0;
	is_error = !strncmp(p->line, "E:", 2);
	if (!strncmp(p->line, "I:", 2))
		progress_now(p->progress, p->line + 2);
	else if (p->line[0] && strncmp(p->line, "W:", 2) &&
		 (is_error ? !p->reason_is_error : !p->reason[0])) {
		p->reason_is_error = is_error;
		memcpy(p->reason, p->line, sizeof(p->reason));
	}
}

static void take_messages(struct pipeline *p, const char *text, size_t n)
{
	fwrite(text, 1, n, p->log);
	for (; n; n--, text++) {
		if (*text == '\n' || *text == '\r')
			end_line(p);
		else if (p->used < sizeof(p->line) - 1)
			p->line[p->used++] = *text;
	}
}

/* Reads messages until both have ended. */
static int watch(struct pipeline *p, struct error *err)
{
	struct pollfd fds[] = {{.fd = p->messages, .events = POLLIN},
			       {.fd = p->progress->signals, .events = POLLIN}};
	char buf[4096];
	ssize_t n;

	for (;;) {
		if (poll(fds, ARRAY_SIZE(fds), 1000) < 0 && errno != EINTR)
			return error_errno(err, -errno, "poll");
		if (fds[1].revents)
			return error_set(err, -EINTR, "interrupted");
		if (!fds[0].revents)
			continue;
		n = read(p->messages, buf, sizeof(buf));
		if (n == 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return error_errno(err, -errno, "cannot read messages");
		if (n > 0)
			take_messages(p, buf, (size_t)n);
	}
}

static int start(struct pipeline *p, const char *const *from, const char *const *to,
		 struct error *err)
{
	int data[2] = {-1, -1}, messages[2] = {-1, -1}, rc;

	if (pipe2(data, O_CLOEXEC) < 0 || pipe2(messages, O_CLOEXEC) < 0) {
		rc = error_errno(err, -errno, "cannot make a pipe");
		goto out;
	}
	rc = process_start(&(struct process){.argv = from,
					     .fds = (int[]){-1, data[1], messages[1]},
					     .nfds = 3,
					     .die_with_parent = true},
			   &p->pids[0], err);
	if (rc == 0)
		rc = process_start(&(struct process){.argv = to,
						     .fds = (int[]){data[0], -1, messages[1]},
						     .nfds = 3,
						     .die_with_parent = true},
				   &p->pids[1], err);
	p->messages = take_fd(&messages[0]);
out:
	cleanup_close_fd(&data[0]);
	cleanup_close_fd(&data[1]);
	cleanup_close_fd(&messages[0]);
	cleanup_close_fd(&messages[1]);
	return rc;
}

/* Waits for both and says why one failed; kills them first when rc is an error already. */
static int finish(struct pipeline *p, const char *const *names, int rc, struct error *err)
{
	for (unsigned i = 0; i < 2; i++) {
		int status = 0;

		if (p->pids[i] <= 0)
			continue;
		if (rc < 0)
			kill(p->pids[i], SIGKILL);
		process_wait(p->pids[i], &status);
		if (rc == 0 && process_exit_code(status))
			rc = error_set(err, -ECHILD, "%s exited with %d%s%s", names[i],
				       process_exit_code(status), p->reason[0] ? ": " : "",
				       p->reason);
	}
	return rc;
}

int pipeline_run(const char *name, const char *const *from, const char *const *to, const char *log,
		 struct progress *progress, struct error *err)
{
	struct pipeline p = {.progress = progress, .messages = -1};
	const char *const names[] = {name, "sqfstar"};
	int rc;

	p.log = fopen(log, "we");
	if (!p.log)
		return error_errno(err, -errno, "cannot make %s", log);
	setlinebuf(p.log);
	rc = start(&p, from, to, err);
	if (rc == 0)
		rc = watch(&p, err);
	rc = finish(&p, names, rc, err);
	cleanup_close_fd(&p.messages);
	fclose(p.log);
	return rc;
}
