/* SPDX-License-Identifier: Apache-2.0 */
/* Steps of long work, for people. */

#include "image/progress.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

static sigset_t interrupts(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	return set;
}

int progress_init(struct progress *p, bool quiet, struct error *err)
{
	sigset_t set = interrupts();

	*p = (struct progress){.quiet = quiet, .terminal = isatty(STDERR_FILENO)};
	p->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (p->signals < 0)
		return error_errno(err, -errno, "signalfd");
	sigprocmask(SIG_BLOCK, &set, NULL);
	return 0;
}

void progress_done(struct progress *p)
{
	struct signalfd_siginfo info;
	sigset_t set = interrupts();

	if (p->signals < 0)
		return;
	if (p->terminal && !p->quiet)
		fputs("\r\033[K", stderr);
	/* Those that were answered must not end us now. */
	while (read(p->signals, &info, sizeof(info)) > 0)
		;
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	close(p->signals);
	p->signals = -1;
}

void progress_step(struct progress *p, const char *step)
{
	p->step_started = io_now_ns();
	snprintf(p->step, sizeof(p->step), "%s", step);
	progress_now(p, "");
}

static double seconds(const struct progress *p)
{
	return (double)(io_now_ns() - p->step_started) / 1e9;
}

void progress_now(struct progress *p, const char *text)
{
	if (!p->quiet && p->terminal)
		fprintf(stderr, "\r\033[K  %-8s %6.1f s  %.80s", p->step, seconds(p), text);
}

void progress_end(struct progress *p, const char *fmt, ...)
{
	va_list args;

	if (p->quiet)
		return;
	fprintf(stderr, "%s  %-8s %6.1f s  ", p->terminal ? "\r\033[K" : "", p->step, seconds(p));
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
}

int progress_check(struct progress *p, struct error *err)
{
	struct pollfd fd = {.fd = p->signals, .events = POLLIN};

	return poll(&fd, 1, 0) > 0 ? error_set(err, -EINTR, "interrupted") : 0;
}
