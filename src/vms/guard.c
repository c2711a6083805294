/* SPDX-License-Identifier: Apache-2.0 */
/* Commands that die in the middle. */

#include "vms/guard.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/loop.h"
#include "vms/record.h"

/* What the command had started dies with it, but not before it, and may still write its record. */
#define DYING_NS 1000000000

struct guard {
	struct guard *next;
	struct guards *guards;
	json_t *request;
	int fd; /* -1: the command has died */
	struct loop_source *source, *timer;
};

struct guards {
	struct loop *loop;
	guard_fn *fn;
	guard_keep_fn *keep;
	void *arg;
	struct guard *list;
};

int guards_create(struct loop *loop, guard_fn *fn, guard_keep_fn *keep, void *arg,
		  struct guards **ret)
{
	struct guards *guards = calloc(1, sizeof(*guards));

	if (!guards)
		return -ENOMEM;
	*guards = (struct guards){.loop = loop, .fn = fn, .keep = keep, .arg = arg};
	*ret = guards;
	return 0;
}

static void remove_guard(struct guard *g)
{
	struct guard **at = &g->guards->list;

	while (*at && *at != g)
		at = &(*at)->next;
	if (*at)
		*at = g->next;
	loop_remove(&g->source);
	loop_remove(&g->timer);
	cleanup_close_fd(&g->fd);
	json_decref(g->request);
	free(g);
}

void guards_destroy(struct guards *guards)
{
	while (guards && guards->list)
		remove_guard(guards->list);
	free(guards);
}

static void on_time(void *arg)
{
	struct guard *g = arg;

	if (!g->guards->keep(g->guards->arg, g->request))
		g->guards->fn(g->guards->arg, g->request);
	remove_guard(g);
}

static void on_word(void *arg, uint32_t events)
{
	struct guard *g = arg;
	char word[1];

	/* Later what is recorded now may be settled, by a command with --again, and gone. */
	if (read(g->fd, word, sizeof(word)) > 0 || g->guards->keep(g->guards->arg, g->request)) {
		remove_guard(g);
		return;
	}
	loop_remove(&g->source);
	cleanup_close_fd(&g->fd);
	g->fd = -1;
	loop_set_timer(g->timer, DYING_NS, 0);
}

/* Also when nobody has come to look at its descriptor yet. */
static bool has_died(const struct guard *g)
{
	char word[1];

	return g->fd < 0 || recv(g->fd, word, sizeof(word), MSG_PEEK | MSG_DONTWAIT) == 0;
}

void guards_settle(struct guards *guards, const char *name)
{
	for (struct guard *g = guards->list, *next; g; g = next) {
		next = g->next;
		if (!strcmp(record_text(g->request, "name"), name) && has_died(g))
			on_time(g);
	}
}

int guards_add(struct guards *guards, const json_t *request, int *ret, struct error *err)
{
	struct guard *g;
	int pair[2], r;

	guards_settle(guards, record_text(request, "name"));
	g = calloc(1, sizeof(*g));
	if (!g || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
		free(g);
		return error_errno(err, -EMFILE, "cannot watch over a command");
	}
	*g = (struct guard){.guards = guards,
			    .request = json_deep_copy(request),
			    .fd = pair[0],
			    .next = guards->list};
	guards->list = g;
	r = g->request ? loop_add_fd(guards->loop, g->fd, EPOLLIN, on_word, g, &g->source)
		       : -ENOMEM;
	if (!r)
		r = loop_add_timer(guards->loop, on_time, g, &g->timer);
	if (r) {
		close(pair[1]);
		remove_guard(g);
		return error_errno(err, r, "cannot watch over a command");
	}
	*ret = pair[1];
	return 0;
}
