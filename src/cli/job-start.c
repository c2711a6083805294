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

#include "lib/args.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/paths.h"
#include "lib/process.h"
#include "node/ask.h"

#define ANSWER_MAX 65536u
#define LOG_MAX (16u << 20)
#define DAEMON_TRIES 100   /* of 100 ms */
#define LAUNCHER_IDLE "60" /* seconds */

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

/* One that is the user's: how it is started, and where it is. */
struct own {
	struct args options;
	char *socket, *log;
};

static void own_done(struct own *own)
{
	args_done(&own->options);
	free(own->socket);
	free(own->log);
}

/* FNV-1a: of each launcher the user has another daemon. */
static uint32_t hash(const char *text)
{
	uint32_t h = 0x811c9dc5;

	for (; *text; text++)
		h = (h ^ (uint8_t)*text) * 0x01000193;
	return h;
}

static int launching_of(const char *launcher, struct own *own, struct error *err)
{
	CLEANUP_FREE char *folder = NULL;
	char name[9];
	int r;

	if (!geteuid())
		return error_set(err, -EINVAL,
				 "--launcher is for ordinary users: root's wispd reaches other "
				 "nodes by its own options (see wispd --help)");
	snprintf(name, sizeof(name), "%08x", hash(launcher));
	r = paths_run("launcher", name, &folder, err);
	if (!r)
		r = io_make_dirs(folder, 0700, err);
	if (r)
		return r;
	own->socket = io_format("%s/socket", folder);
	own->log = io_format("%s/log", folder);
	args_add(&own->options, "--state=%s", folder);
	args_add(&own->options, "--launcher=%s", launcher);
	args_add(&own->options, "--idle=" LAUNCHER_IDLE);
	return 0;
}

static int usual_of(struct own *own, struct error *err)
{
	CLEANUP_FREE char *folder = NULL;
	int r = ask_socket(&own->socket, err);

	if (!r)
		r = paths_run("node", NULL, &folder, err);
	return r ? r : paths_run("node", "log", &own->log, err);
}

static int own_of(const struct job_daemon *wanted, struct own *ret, struct error *err)
{
	int r = wanted->launcher ? launching_of(wanted->launcher, ret, err) : usual_of(ret, err);

	if (!r && (!ret->socket || !ret->log || ret->options.failed))
		r = error_set(err, -ENOMEM, "out of memory");
	return r;
}

/* Two that are started at once: one has the state, and the other ends. */
static int start_daemon(const struct own *own, pid_t *ret, struct error *err)
{
	CLEANUP_CLOSE int log = open(own->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	CLEANUP_FREE char *program = NULL;
	struct args args = {0};
	int fds[] = {-1, log, log};
	struct process process = {.fds = fds, .nfds = 3, .new_session = true};
	int r = log < 0 ? error_errno(err, -errno, "cannot open %s", own->log)
			: paths_program("wispd", &program, err);

	if (r)
		return r;
	args_add(&args, "%s", program);
	for (char *const *option = own->options.v; option && *option; option++)
		args_add(&args, "%s", *option);
	process.argv = (const char *const *)args.v;
	r = args.failed ? error_set(err, -ENOMEM, "out of memory")
			: process_start(&process, ret, err);
	args_done(&args);
	return r;
}

/* The last line of its log says why it has ended. */
static int explain_end(const struct own *own, struct error *err)
{
	CLEANUP_FREE char *text = NULL;
	char *line;
	size_t n;

	if (io_read_file(own->log, LOG_MAX, &text, err) < 0)
		return -ECHILD;
	n = strlen(text);
	if (n && text[n - 1] == '\n')
		text[n - 1] = 0;
	line = strrchr(text, '\n');
	return error_set(err, -ECHILD, "your wispd could not be started: %s",
			 line ? line + 1 : text);
}

/* It has ended, and another one, started at the same time, is not there either. */
static int wait_for_daemon(const struct own *own, pid_t pid, json_t **facts, struct error *err)
{
	bool ended = false;
	int r = -ENOENT;

	for (unsigned i = 0; r == -ENOENT && i < DAEMON_TRIES && !(ended && i > 20); i++) {
		poll(NULL, 0, 100);
		ended = ended || waitpid(pid, NULL, WNOHANG) == pid;
		r = ask_facts(own->socket, facts, err);
	}
	if (r == -ENOENT && ended)
		return explain_end(own, err);
	return r ? error_prefix(err, r, "a wispd of yours was started") : 0;
}

static int find_own(const struct job_daemon *wanted, struct own *own, json_t **facts,
		    struct error *err)
{
	pid_t pid = 0;
	int r = ask_facts(own->socket, facts, err);

	if (r != -ENOENT || !(wanted->alone || wanted->launcher))
		return r;
	r = start_daemon(own, &pid, err);
	return r ? r : wait_for_daemon(own, pid, facts, err);
}

int job_find_daemon(const struct job_daemon *wanted, char **socket, json_t **facts,
		    struct error *err)
{
	struct own own = {0};
	int r;

	if (wanted->socket && wanted->launcher)
		return error_set(err, -EINVAL,
				 "--launcher and --socket: that daemon has its own way to others");
	if (wanted->launcher && wanted->alone)
		return error_set(err, -EINVAL, "--launcher: name nodes (--nodes or --hosts)");
	if (wanted->socket) {
		r = ask_facts(wanted->socket, facts, err);
		own.socket = strdup(wanted->socket);
	} else {
		r = own_of(wanted, &own, err);
		if (!r)
			r = find_own(wanted, &own, facts, err);
	}
	if (!r)
		*socket = take_ptr(own.socket);
	own_done(&own);
	return r;
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
