/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wisp-job: the coordinator of one cluster. It reads what the cluster is to be from standard input
 * (docs/formats/job.md), says on standard output whether it has begun, and then has no terminal.
 */

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "build-config.h"
#include "job/job.h"
#include "lib/cleanup.h"
#include "lib/io.h"
#include "lib/loop.h"

#define UNHELD_NS (30ull * 1000000000)

struct coordinator {
	struct loop *loop;
	struct job *job;
	struct loop_source *patience;
};

static void on_signal(void *arg, int signo)
{
	struct coordinator *c = arg;

	job_end(c->job, 128 + signo, "its coordinator was ended by a signal");
}

/* Whoever started it was killed before it could attach. */
static void on_unheld(void *arg)
{
	struct coordinator *c = arg;

	if (!c->job->detached && !terminals_hold(c->job->terminals))
		job_end(c->job, 129, "no terminal has come");
}

static int read_spec(struct spec *ret, struct error *err)
{
	json_error_t where;
	json_t *json = json_loadf(stdin, JSON_REJECT_DUPLICATES | JSON_DISABLE_EOF_CHECK, &where);

	if (!json)
		return error_set(err, -EINVAL, "what the cluster is to be is no JSON: %s",
				 where.text);
	return spec_read(json, ret, err);
}

/* From here on it speaks through its folder alone. */
static int leave_terminal(const struct job *j, struct error *err)
{
	CLEANUP_CLOSE int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	printf("{\"ok\": true, \"id\": \"%s\"}\n", j->id);
	if (fflush(stdout) || null < 0 || dup2(null, STDIN_FILENO) < 0 ||
	    dup2(null, STDOUT_FILENO) < 0 || dup2(j->log_fd, STDERR_FILENO) < 0)
		return error_errno(err, -errno, "cannot leave the terminal");
	return 0;
}

static int watch(struct coordinator *c, struct error *err)
{
	static const int ends[] = {SIGTERM, SIGINT};
	struct loop_source *source;
	int r = loop_add_timer(c->loop, on_unheld, c, &c->patience);

	if (!r)
		r = loop_set_timer(c->patience, UNHELD_NS, 0);
	for (size_t i = 0; !r && i < ARRAY_SIZE(ends); i++)
		r = loop_add_signal(c->loop, ends[i], on_signal, c, &source);
	return r ? error_errno(err, r, "cannot set up the event loop") : 0;
}

static int begin(struct coordinator *c, struct error *err)
{
	struct spec spec;
	int r = read_spec(&spec, err);

	if (!r)
		r = loop_create(&c->loop);
	if (!r)
		r = job_create(c->loop, &spec, &c->job, err);
	if (!r)
		r = leave_terminal(c->job, err);
	return r ? r : watch(c, err);
}

static void refuse(const struct error *err)
{
	json_t *answer = json_pack("{s:b, s:s}", "ok", 0, "error", err->text);

	json_dumpf(answer, stdout, JSON_COMPACT);
	putchar('\n');
	json_decref(answer);
}

int main(int argc, char **argv)
{
	struct coordinator c = {0};
	struct error err;
	int r;

	io_open_standard_fds();
	if (argc > 1) {
		if (!strcmp(argv[1], "--version"))
			printf("wisp-job %s\n", WISP_VERSION);
		else
			fprintf(stderr, "wisp-job is started by wisp run; it has no options\n");
		return strcmp(argv[1], "--version") ? 2 : 0;
	}
	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	r = begin(&c, &err);
	if (r)
		refuse(&err);
	else
		r = loop_run(c.loop);
	job_destroy(c.job);
	loop_destroy(c.loop);
	return r ? EXIT_FAILURE : 0;
}
