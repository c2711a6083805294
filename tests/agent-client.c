/* SPDX-License-Identifier: Apache-2.0 */
/* agent-client ADDRESS COMMAND...: the client library for the tests, one call each. */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/client-task.h"
#include "agent/client.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

static int print_json(json_t *value)
{
	json_dumpf(value, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(value);
	return 0;
}

/* [-t] [-n] [-s] [-u USER] [-d DIR] [-e NAME=VALUE]... PROGRAM ARGUMENTS... */
static int do_exec(int fd, int argc, char **argv, struct error *err)
{
	const char *env[16] = {NULL};
	struct client_exec exec = {.env = env, .in_fd = 0, .out_fd = 1, .err_fd = 2};
	int c, code, r;
	unsigned n = 0;

	while ((c = getopt(argc, argv, "+tnsu:d:e:")) != -1) {
		switch (c) {
		case 't':
			exec.terminal = true;
			break;
		case 'n':
			exec.in_fd = -1;
			break;
		case 's':
			exec.shell = true;
			break;
		case 'u':
			exec.user = optarg;
			break;
		case 'd':
			exec.cwd = optarg;
			break;
		case 'e':
			if (n < ARRAY_SIZE(env) - 1)
				env[n++] = optarg;
			break;
		default:
			return 2;
		}
	}
	exec.argv = (const char *const *)argv + optind;
	r = client_exec(fd, &exec, &code, err);
	return r ? r : code;
}

/* -------- task -------- */

/* Output written down at its position, errors not at all. */
struct task_log {
	struct task_client *client;
	int file;
};

static void on_position(void *arg, enum stream_number stream, uint64_t position)
{
	struct task_log *log = arg;

	if (stream == STREAM_OUT && ftruncate(log->file, (off_t)position))
		abort();
}

static ssize_t on_output(void *arg, enum stream_number stream, uint64_t position, const void *data,
			 size_t n)
{
	struct task_log *log = arg;

	if (stream == STREAM_OUT && pwrite(log->file, data, n, (off_t)position) != (ssize_t)n)
		return -EIO;
	return task_client_ack(log->client, stream, position + n) ? -ENOMEM : (ssize_t)n;
}

/* ID FILE [afresh]: what it writes goes on in the file, until it ends or the connection does. */
static int do_task(int fd, int argc, char **argv, struct error *err)
{
	static const struct task_client_ops ops = {on_position, on_output, NULL};
	CLEANUP_CLOSE int file = open(argv[2], O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	struct task_log log = {.file = file};
	int r = file < 0 ? error_errno(err, -errno, "%s", argv[2])
			 : task_client_create(argv[1], &ops, &log, &log.client, err);

	if (r)
		return r;
	task_client_seek(log.client, STREAM_OUT, (uint64_t)lseek(file, 0, SEEK_END));
	r = task_client_attach(log.client, fd, argc > 3, err);
	while (!r) {
		struct pollfd p = {.fd = fd, .events = (short)task_client_events(log.client)};

		if (poll(&p, 1, -1) > 0)
			r = task_client_run(log.client, (uint32_t)p.revents, err);
	}
	r = r < 0 ? r : task_client_code(log.client);
	task_client_destroy(log.client);
	return r;
}

static int run(const char *address, const char *what, int argc, char **argv, struct error *err)
{
	CLEANUP_CLOSE int fd = -1;
	json_t *value = NULL;
	int r;

	if (!strcmp(what, "wait"))
		return client_wait_ready(address, (unsigned)atoi(argv[1]), NULL, NULL, err);
	fd = client_connect(address, err);
	if (fd < 0)
		return fd;
	if (!strcmp(what, "exec"))
		return do_exec(fd, argc, argv, err);
	if (!strcmp(what, "task") && argc >= 3)
		return do_task(fd, argc, argv, err);
	if (!strcmp(what, "cp-in") && argc >= 3)
		return client_copy_in(fd, argv[1], argv[2], argv[3], NULL, err);
	if (!strcmp(what, "cp-out") && argc >= 3)
		return client_copy_out(fd, argv[1], argv[2], argv[3], NULL, err);
	if (!strcmp(what, "call") && argc == 2) {
		json_t *request = json_loads(argv[1], 0, NULL);

		r = client_call(fd, request, 60000, &value, err);
		json_decref(request);
		return r ? r : print_json(value);
	}
	if (!strcmp(what, "facts")) {
		r = client_facts(fd, &value, err);
		return r ? r : print_json(value);
	}
	return error_set(err, -1,
			 "usage: agent-client ADDRESS exec|task|cp-in|cp-out|call|facts|wait");
}

int main(int argc, char **argv)
{
	struct error err = {"usage: agent-client ADDRESS COMMAND..."};
	int r = -1;

	io_open_standard_fds();
	if (argc >= 3)
		r = run(argv[1], argv[2], argc - 2, argv + 2, &err);
	if (r < 0)
		fprintf(stderr, "agent-client: %s\n", err.text);
	return r < 0 ? 255 : r;
}
