/* SPDX-License-Identifier: Apache-2.0 */
/* The event loop: epoll over fds, timerfds and signalfds, one batch of callbacks a wake-up. */

#include "lib/loop.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "lib/cleanup.h"

enum source_kind { SOURCE_FD, SOURCE_TIMER, SOURCE_SIGNAL };

struct loop_source {
	struct loop *loop;
	struct loop_source *next, *before; /* before: of those that are there */
	enum source_kind kind;
	int fd;
	bool removed; /* freed by the next run_once(): events it already has may name it */
	union {
		loop_fd_fn *on_fd;
		loop_timer_fn *on_timer;
		loop_signal_fn *on_signal;
	};
	void *arg;
};

struct loop {
	int epoll_fd;
	int stop_fd;
	pthread_mutex_t *lock;
	struct loop_source *sources;
	struct loop_source *removed;
	_Atomic uint64_t wakeups;
};

/* Timers and signals have an fd of ours. */
static void close_own_fd(struct loop_source *s)
{
	if (s->kind != SOURCE_FD)
		close(s->fd);
}

static void free_list(struct loop_source **list)
{
	while (*list) {
		struct loop_source *s = *list;

		*list = s->next;
		if (!s->removed)
			close_own_fd(s);
		free(s);
	}
}

int loop_create(struct loop **ret)
{
	struct loop *loop = calloc(1, sizeof(*loop));
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL};
	int r;

	if (!loop)
		return -ENOMEM;
	loop->stop_fd = -1;
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epoll_fd >= 0)
		loop->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (loop->stop_fd < 0 || epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->stop_fd, &ev) < 0) {
		r = -errno;
		loop_destroy(loop);
		return r;
	}
	*ret = loop;
	return 0;
}

void loop_destroy(struct loop *loop)
{
	if (!loop)
		return;
	free_list(&loop->sources);
	free_list(&loop->removed);
	if (loop->stop_fd >= 0)
		close(loop->stop_fd);
	if (loop->epoll_fd >= 0)
		close(loop->epoll_fd);
	free(loop);
}

void loop_set_lock(struct loop *loop, pthread_mutex_t *lock)
{
	loop->lock = lock;
}

static int source_add(struct loop *loop, const struct loop_source *model, uint32_t events,
		      struct loop_source **ret)
{
	struct loop_source *s = malloc(sizeof(*s));
	struct epoll_event ev = {.events = events, .data.ptr = s};

	if (!s)
		return -ENOMEM;
	*s = *model;
	s->loop = loop;
	if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, s->fd, &ev) < 0) {
		int r = -errno;

		free(s);
		return r;
	}
	s->next = loop->sources;
	s->before = NULL;
	if (s->next)
		s->next->before = s;
	loop->sources = s;
	*ret = s;
	return 0;
}

int loop_add_fd(struct loop *loop, int fd, uint32_t events, loop_fd_fn *fn, void *arg,
		struct loop_source **ret)
{
	struct loop_source model = {.kind = SOURCE_FD, .fd = fd, .on_fd = fn, .arg = arg};

	return source_add(loop, &model, events, ret);
}

int loop_modify_fd(struct loop_source *source, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = source};

	if (epoll_ctl(source->loop->epoll_fd, EPOLL_CTL_MOD, source->fd, &ev) < 0)
		return -errno;
	return 0;
}

int loop_add_timer(struct loop *loop, loop_timer_fn *fn, void *arg, struct loop_source **ret)
{
	struct loop_source model = {.kind = SOURCE_TIMER, .on_timer = fn, .arg = arg};
	CLEANUP_CLOSE int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	int r;

	if (fd < 0)
		return -errno;
	model.fd = fd;
	r = source_add(loop, &model, EPOLLIN, ret);
	if (!r)
		take_fd(&fd);
	return r;
}

static struct timespec from_ns(uint64_t ns)
{
	return (struct timespec){.tv_sec = (time_t)(ns / 1000000000),
				 .tv_nsec = (long)(ns % 1000000000)};
}

int loop_set_timer(struct loop_source *timer, uint64_t first_ns, uint64_t interval_ns)
{
	struct itimerspec its = {.it_value = from_ns(first_ns),
				 .it_interval = from_ns(interval_ns)};

	return timerfd_settime(timer->fd, 0, &its, NULL) < 0 ? -errno : 0;
}

int loop_add_signal(struct loop *loop, int signo, loop_signal_fn *fn, void *arg,
		    struct loop_source **ret)
{
	struct loop_source model = {.kind = SOURCE_SIGNAL, .on_signal = fn, .arg = arg};
	CLEANUP_CLOSE int fd = -1;
	sigset_t set;
	int r;

	sigemptyset(&set);
	if (sigaddset(&set, signo) < 0)
		return -errno;
	r = pthread_sigmask(SIG_BLOCK, &set, NULL);
	if (r)
		return -r;
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		return -errno;
	model.fd = fd;
	r = source_add(loop, &model, EPOLLIN, ret);
	if (!r)
		take_fd(&fd);
	return r;
}

static void unlink_source(struct loop_source *s)
{
	if (s->next)
		s->next->before = s->before;
	if (s->before)
		s->before->next = s->next;
	else
		s->loop->sources = s->next;
}

void loop_remove(struct loop_source **source)
{
	struct loop_source *s = *source;

	if (!s)
		return;
	*source = NULL;
	epoll_ctl(s->loop->epoll_fd, EPOLL_CTL_DEL, s->fd, NULL);
	unlink_source(s);
	close_own_fd(s);
	/* Another thread may be between epoll_wait() and the lock, with an event of this. */
	s->removed = true;
	s->next = s->loop->removed;
	s->loop->removed = s;
}

static void dispatch(struct loop_source *s, uint32_t events)
{
	struct signalfd_siginfo info;
	uint64_t expirations;

	switch (s->kind) {
	case SOURCE_FD:
		s->on_fd(s->arg, events);
		break;
	case SOURCE_TIMER:
		if (read(s->fd, &expirations, sizeof(expirations)) == sizeof(expirations))
			s->on_timer(s->arg);
		break;
	case SOURCE_SIGNAL:
		if (read(s->fd, &info, sizeof(info)) == sizeof(info))
			s->on_signal(s->arg, (int)info.ssi_signo);
		break;
	}
}

/* Returns the number of callbacks; sets *stop when loop_stop() was called. */
static int run_once(struct loop *loop, int timeout_ms, bool *stop)
{
	struct epoll_event events[32];
	int n = epoll_wait(loop->epoll_fd, events, ARRAY_SIZE(events), timeout_ms);
	int done = 0;

	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	loop->wakeups++;
	if (loop->lock)
		pthread_mutex_lock(loop->lock);
	for (int i = 0; i < n; i++) {
		struct loop_source *s = events[i].data.ptr;
		uint64_t count;

		if (!s)
			*stop = read(loop->stop_fd, &count, sizeof(count)) == sizeof(count);
		else if (!s->removed && ++done)
			dispatch(s, events[i].events);
	}
	free_list(&loop->removed);
	if (loop->lock)
		pthread_mutex_unlock(loop->lock);
	return done;
}

int loop_run_once(struct loop *loop, int timeout_ms)
{
	bool stop = false;

	return run_once(loop, timeout_ms, &stop);
}

int loop_run(struct loop *loop)
{
	bool stop = false;

	while (!stop) {
		int r = run_once(loop, -1, &stop);

		if (r < 0)
			return r;
	}
	return 0;
}

void loop_stop(struct loop *loop)
{
	uint64_t one = 1;
	int saved = errno;

	/* Fails only when the counter is full, and then the loop is woken already. */
	if (write(loop->stop_fd, &one, sizeof(one)) < 0)
		errno = saved;
}

uint64_t loop_wakeups(const struct loop *loop)
{
	return loop->wakeups;
}
