/* SPDX-License-Identifier: Apache-2.0 */
/* accept(2) in an event loop, also when there are no descriptors left. */

#include "lib/acceptor.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/error.h"
#include "lib/log.h"
#include "lib/loop.h"

#define RETRY_NS 1000000000ULL

struct acceptor {
	struct loop *loop;
	const struct log *log;
	const char *subsystem;
	int fd, flags;
	const struct acceptor_ops *ops;
	void *arg;
	struct loop_source *source, *timer;
	bool paused;
	unsigned waits; /* for log_due() */
};

/* What accept(2) says about one connection, or about nothing at all. */
static bool passes(int e)
{
	return e == EAGAIN || e == EINTR || e == ECONNABORTED || e == EPROTO || e == ECONNRESET ||
	       e == EPERM;
}

static bool is_shortage(int e)
{
	return e == EMFILE || e == ENFILE || e == ENOMEM || e == ENOBUFS;
}

static void wait_for_room(struct acceptor *a)
{
	if (log_due(&a->waits))
		log_warn(a->log, a->subsystem, "cannot accept: %s; again in 1 s (%u times)",
			 strerror(errno), a->waits);
	loop_remove(&a->source);
	loop_set_timer(a->timer, RETRY_NS, 0);
}

static void on_connection(void *arg, uint32_t events)
{
	struct acceptor *a = arg;
	struct sockaddr_storage peer = {0};
	socklen_t len = sizeof(peer);
	int fd = accept4(a->fd, (struct sockaddr *)&peer, &len, SOCK_CLOEXEC | a->flags);

	if (fd >= 0)
		a->ops->connection(a->arg, fd, &peer);
	else if (is_shortage(errno))
		wait_for_room(a);
	else if (!passes(errno) && a->ops->broken)
		a->ops->broken(a->arg, -errno);
}

static void on_retry(void *arg)
{
	struct acceptor *a = arg;

	if (!a->paused && !a->source &&
	    loop_add_fd(a->loop, a->fd, EPOLLIN, on_connection, a, &a->source))
		loop_set_timer(a->timer, RETRY_NS, 0);
}

void acceptor_pause(struct acceptor *a, bool pause)
{
	if (a->paused == pause)
		return;
	a->paused = pause;
	if (pause)
		loop_remove(&a->source);
	else
		on_retry(a);
}

int acceptor_create(struct loop *loop, const struct log *log, const char *subsystem, int fd,
		    int flags, const struct acceptor_ops *ops, void *arg, struct acceptor **ret,
		    struct error *err)
{
	struct acceptor *a = calloc(1, sizeof(*a));
	int r = a ? 0 : -ENOMEM;

	if (a) {
		*a = (struct acceptor){.loop = loop,
				       .log = log,
				       .subsystem = subsystem,
				       .fd = -1,
				       .flags = flags,
				       .ops = ops,
				       .arg = arg};
		r = loop_add_timer(loop, on_retry, a, &a->timer);
	}
	if (!r)
		r = loop_add_fd(loop, fd, EPOLLIN, on_connection, a, &a->source);
	if (r) {
		acceptor_destroy(a);
		return error_errno(err, r, "cannot watch a listening socket");
	}
	a->fd = fd;
	*ret = a;
	return 0;
}

void acceptor_destroy(struct acceptor *a)
{
	if (!a)
		return;
	loop_remove(&a->source);
	loop_remove(&a->timer);
	if (a->fd >= 0)
		close(a->fd);
	free(a);
}
