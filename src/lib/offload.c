/* SPDX-License-Identifier: Apache-2.0 */
/* Work in threads: each belongs to the thread and to who waits, and goes with the last of both. */

#include "lib/offload.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"

struct offload {
	atomic_uint holders;
	int fd;
	void (*work)(void *arg);
	void (*release)(void *arg);
	void *arg;
};

static void put(struct offload *o)
{
	if (atomic_fetch_sub(&o->holders, 1) > 1)
		return;
	o->release(o->arg);
	close(o->fd);
	free(o);
}

static void *thread_main(void *arg)
{
	struct offload *o = arg;

	o->work(o->arg);
	eventfd_write(o->fd, 1);
	put(o);
	return NULL;
}

/* Signals are for the thread that has the loop. */
static int start_thread(struct offload *o)
{
	sigset_t all, before;
	pthread_t thread;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = pthread_create(&thread, NULL, thread_main, o);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (!r)
		pthread_detach(thread);
	return -r;
}

int offload_start(void (*work)(void *arg), void (*release)(void *arg), void *arg,
		  struct offload **ret, struct error *err)
{
	CLEANUP_FREE struct offload *o = malloc(sizeof(*o));
	CLEANUP_CLOSE int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int r;

	if (fd < 0)
		return error_errno(err, -errno, "cannot wait for a thread");
	if (!o)
		return error_set(err, -ENOMEM, "out of memory");
	*o = (struct offload){2, fd, work, release, arg};
	r = start_thread(o);
	if (r)
		return error_errno(err, r, "cannot start a thread");
	take_fd(&fd);
	*ret = take_ptr(o);
	return 0;
}

int offload_fd(const struct offload *o)
{
	return o->fd;
}

void offload_drop(struct offload **o)
{
	if (*o)
		put(take_ptr(*o));
}
