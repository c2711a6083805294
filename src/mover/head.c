/* SPDX-License-Identifier: Apache-2.0 */
/* The head of each command of wisp-mover. */

#include "mover/head.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"

/* 0, or -errno; 1: it is the command's own. */
static int common_option(struct head *h, int opt, const char *value, enum show_how *how,
			 struct error *err)
{
	switch (opt) {
	case HEAD_CONTROL:
		h->control = value;
		return 0;
	case HEAD_PROGRESS:
		return show_parse(value, how, err);
	case HEAD_JSON:
		h->json = true;
		return 0;
	default:
		return 1;
	}
}

int head_parse(struct head *h, int argc, char **argv, head_option_fn *fn, void *arg,
	       struct error *err)
{
	enum show_how how = SHOW_AUTO;
	struct option_parser options;
	const char *value;
	int opt, rc;

	option_start(&options, h->cmd, argc, argv);
	while ((opt = option_next(&options, &value, err)) > 0) {
		if (opt == OPTION_HELP)
			return 1;
		rc = common_option(h, opt, value, &how, err);
		if (rc > 0)
			rc = fn(arg, opt, value, err);
		if (rc < 0)
			return rc;
	}
	show_begin(&h->show, h->cmd->name, how);
	if (opt == 0 && options.argc)
		return error_set(err, -EINVAL, "takes no arguments but options");
	return opt;
}

static void *watch_signals(void *arg)
{
	struct head *h = arg;
	int signal;

	while (sigwait(&h->signals, &signal) == 0) {
		if (signal == SIGUSR1)
			h->switch_now = true;
		else
			h->cancel = true;
	}
	return NULL;
}

static int start_watch(struct head *h, struct error *err)
{
	static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1};
	pthread_t thread;
	int rc;

	sigemptyset(&h->signals);
	for (unsigned i = 0; i < ARRAY_SIZE(signals); i++)
		sigaddset(&h->signals, signals[i]);
	pthread_sigmask(SIG_BLOCK, &h->signals, NULL);
	rc = pthread_create(&thread, NULL, watch_signals, h);
	if (rc)
		return error_errno(err, -rc, "cannot start a thread");
	pthread_detach(thread);
	return 0;
}

int head_begin(struct head *h, struct error *err)
{
	int rc = busy_begin(&h->busy, h->control, h->cmd->name, err);

	return rc < 0 ? rc : start_watch(h, err);
}

void head_end(struct head *h, int rc)
{
	show_end(&h->show);
	busy_end(&h->busy, rc == 0 ? "done" : rc == -ECANCELED ? "cancelled" : "failed");
}

int head_fail(const struct head *h, int code, const struct error *err)
{
	fprintf(stderr, "wisp-mover %s: %s\n", h->cmd->name, err->text);
	return code;
}

int head_failed(const struct head *h, int rc, const struct error *err)
{
	return head_fail(h, rc == -ECANCELED ? EXIT_CANCELLED : EXIT_FAILED, err);
}

int head_clock(const char *value, bool *elapsed, struct error *err)
{
	*elapsed = !strcmp(value, "elapsed");
	if (*elapsed || !strcmp(value, "frozen"))
		return 0;
	return error_set(err, -EINVAL, "--clock is frozen or elapsed, not \"%s\"", value);
}
