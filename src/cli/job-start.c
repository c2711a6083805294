/* SPDX-License-Identifier: Apache-2.0 */
/* Starting the user's daemon, and coordinators. */

#include "cli/job-start.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/paths.h"
#include "lib/process.h"
#include "node/ask.h"

#define ANSWER_MAX 65536u
#define LOG_MAX (16u << 20)
#define DAEMON_TRIES 100 /* of 100 ms */

/* -------- the user's daemon -------- */

static int ask_facts(const char *socket, json_t **ret, struct error *err)
{
	json_t *request = json_pack("{s:s}", "op", "facts");
	struct ask *daemon = NULL;
	int r = ask_open(socket, &daemon, err);

	if (!r) {
		r = ask(daemon, request, ret, err);
		if (r)
			json_decref(*ret);
	}
	ask_close(daemon);
	json_decref(request);
	return r;
}

static int open_log(struct error *err)
{
	CLEANUP_FREE char *path = NULL;
	CLEANUP_FREE char *folder = NULL;
	int fd, r = paths_run("node", NULL, &folder, err);

	if (!r)
		r = paths_run("node", "log", &path, err);
	if (r)
		return r;
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	return fd < 0 ? error_errno(err, -errno, "cannot open %s", path) : fd;
}

/* Two that are started at once: one has the state, and the other ends. */
static int start_daemon(pid_t *ret, struct error *err)
{
	CLEANUP_FREE char *program = NULL;
	CLEANUP_CLOSE int log = open_log(err);
	int fds[] = {-1, log, log}, r = log < 0 ? log : paths_program("wispd", &program, err);
	const char *argv[] = {program, NULL};
	struct process process = {.argv = argv, .fds = fds, .nfds = 3, .new_session = true};

	return r ? r : process_start(&process, ret, err);
}

/* The last line of its log says why it has ended. */
static int explain_end(struct error *err)
{
	CLEANUP_FREE char *path = NULL;
	CLEANUP_FREE char *text = NULL;
	char *line;
	size_t n;

	if (paths_run("node", "log", &path, err) || io_read_file(path, LOG_MAX, &text, err) < 0)
		return -ECHILD;
	n = strlen(text);
	if (n && text[n - 1] == '\n')
		text[n - 1] = 0;
	line = strrchr(text, '\n');
	return error_set(err, -ECHILD, "your wispd could not be started: %s",
			 line ? line + 1 : text);
}

/* It has ended, and another one, started at the same time, is not there either. */
static int wait_for_daemon(const char *socket, pid_t pid, json_t **facts, struct error *err)
{
	bool ended = false;
	int r = -ENOENT;

	for (unsigned i = 0; r == -ENOENT && i < DAEMON_TRIES && !(ended && i > 20); i++) {
		poll(NULL, 0, 100);
		ended = ended || waitpid(pid, NULL, WNOHANG) == pid;
		r = ask_facts(socket, facts, err);
	}
	if (r == -ENOENT && ended)
		return explain_end(err);
	return r ? error_prefix(err, r, "a wispd of yours was started") : 0;
}

int job_find_daemon(char **socket, bool alone, json_t **facts, struct error *err)
{
	bool given = *socket;
	pid_t pid = 0;
	int r = given ? 0 : ask_socket(socket, err);

	if (!r)
		r = ask_facts(*socket, facts, err);
	if (r != -ENOENT || given || !alone)
		return r;
	r = start_daemon(&pid, err);
	return r ? r : wait_for_daemon(*socket, pid, facts, err);
}

/* -------- coordinators -------- */

static int read_line(int fd, char **ret)
{
	size_t n = 0;
	char *text = calloc(1, ANSWER_MAX);

	if (!text)
		return -ENOMEM;
	while (n < ANSWER_MAX - 1) {
		ssize_t got = read(fd, text + n, ANSWER_MAX - 1 - n);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			break;
		n += (size_t)got;
	}
	*ret = text;
	return 0;
}

static int hear(int fd, struct error *err)
{
	CLEANUP_FREE char *text = NULL;
	json_t *answer = NULL;
	const char *reason;
	int r = read_line(fd, &text);

	if (!r)
		answer = json_loads(text, 0, NULL);
	if (json_is_true(json_object_get(answer, "ok"))) {
		json_decref(answer);
		return 0;
	}
	reason = json_string_value(json_object_get(answer, "error"));
	r = error_set(err, -ECHILD, "%s", reason ? reason : "the coordinator ended at once");
	json_decref(answer);
	return r;
}

/* The description goes by a file: it may be longer than a pipe holds. */
static int describe(const json_t *spec, struct error *err)
{
	CLEANUP_FREE char *text = json_dumps(spec, JSON_COMPACT);
	CLEANUP_CLOSE int fd = memfd_create("wisp-job", MFD_CLOEXEC);
	int r = !text ? -ENOMEM : fd < 0 ? -errno : io_write_full(fd, text, strlen(text));

	if (!r && lseek(fd, 0, SEEK_SET))
		r = -errno;
	return r ? error_errno(err, r, "cannot describe the cluster") : take_fd(&fd);
}

int job_start(const json_t *spec, struct error *err)
{
	CLEANUP_FREE char *program = NULL;
	CLEANUP_CLOSE int input = describe(spec, err);
	CLEANUP_CLOSE int ours = -1;
	CLEANUP_CLOSE int theirs = -1;
	int pair[2], r = input < 0 ? input : paths_program("wisp-job", &program, err);
	pid_t pid = 0;

	if (r)
		return r;
	if (pipe2(pair, O_CLOEXEC))
		return error_errno(err, -errno, "cannot start the coordinator");
	ours = pair[0];
	theirs = pair[1];
	const char *argv[] = {program, NULL};
	int fds[] = {input, theirs, STDERR_FILENO};
	struct process process = {.argv = argv, .fds = fds, .nfds = 3, .new_session = true};

	r = process_start(&process, &pid, err);
	close(take_fd(&theirs));
	if (!r)
		r = hear(ours, err);
	if (r && pid > 0)
		waitpid(pid, NULL, 0);
	return r;
}
