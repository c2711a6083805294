/* SPDX-License-Identifier: Apache-2.0 */
/* Watches the state directories of a cluster's VMs. */

#include "part/guests.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/loop.h"
#include "lib/paths.h"
#include "net/state.h"
#include "vms/record.h"

#define SOON_NS 20000000ull	/* a lock is let go of just behind its record */
#define ANYWAY_NS 1000000000ull /* nobody tells of a lock whose owner was killed */

struct guest {
	const struct setup_vm *vm;
	char *dir;
	enum guest_state state;
};

struct guests {
	struct loop *loop;
	const struct setup *setup;
	guest_fn *fn;
	void *arg;
	int inotify;
	struct loop_source *changes, *soon, *anyway;
	struct guest *guest; /* room for SETUP_VMS_MAX */
	size_t n;
	bool lingers; /* one has an end record and its lock */
};

/* -------- one VM -------- */

/* A user's names are unique on a node, but not in time. */
static bool is_of_cluster(const struct guests *g, const struct guest *guest)
{
	json_t *config = NULL;
	bool is;

	if (record_read(guest->dir, RECORD_CONFIG, &config, NULL))
		return false;
	is = !strcmp(record_text(config, "cluster"), g->setup->cluster);
	json_decref(config);
	return is;
}

static void tell(struct guests *g, struct guest *guest, enum guest_state state, const char *record)
{
	json_t *value = NULL;

	guest->state = state;
	if (record)
		record_read(guest->dir, record, &value, NULL);
	g->fn(g->arg, guest->vm, state, value);
	json_decref(value);
}

static void look_alive(struct guests *g, struct guest *guest)
{
	bool ready = true;

	if (guest->state == GUEST_NONE || guest->state == GUEST_ENDED) {
		if (!is_of_cluster(g, guest))
			return;
		guest->state = GUEST_STARTING;
	}
	if (guest->state == GUEST_STARTING) {
		inotify_add_watch(g->inotify, guest->dir, IN_MOVED_TO | IN_DELETE_SELF);
		ready = record_exists(guest->dir, RECORD_READY);
	}
	if (ready && guest->state == GUEST_STARTING)
		tell(g, guest, GUEST_READY, RECORD_READY);
	else if (!record_exists(guest->dir, RECORD_READY)) /* it reboots */
		guest->state = GUEST_STARTING;
	g->lingers |= record_exists(guest->dir, RECORD_END);
}

static void look(struct guests *g, struct guest *guest)
{
	if (state_alive(guest->dir))
		look_alive(g, guest);
	else if (guest->state == GUEST_STARTING || guest->state == GUEST_READY)
		tell(g, guest, GUEST_ENDED, RECORD_END);
}

/* It ended while nobody looked. */
static void look_at_dead(struct guests *g, struct guest *guest)
{
	if (guest->state == GUEST_NONE && record_exists(guest->dir, RECORD_END) &&
	    is_of_cluster(g, guest))
		tell(g, guest, GUEST_ENDED, RECORD_END);
}

/* -------- all of them -------- */

static void look_at_all(struct guests *g)
{
	g->lingers = false;
	for (size_t i = 0; i < g->n; i++)
		look(g, &g->guest[i]);
	if (g->lingers)
		loop_set_timer(g->soon, SOON_NS, 0);
}

static void on_time(void *arg)
{
	look_at_all(arg);
}

static void on_change(void *arg, uint32_t events)
{
	struct guests *g = arg;
	char changes[4096];

	while (read(g->inotify, changes, sizeof(changes)) > 0)
		continue;
	look_at_all(g);
}

void guests_look(struct guests *g)
{
	loop_set_timer(g->soon, 1, 0);
}

static int watch(struct guests *g)
{
	int r;

	g->inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (g->inotify < 0)
		return -errno;
	r = loop_add_fd(g->loop, g->inotify, EPOLLIN, on_change, g, &g->changes);
	if (!r)
		r = loop_add_timer(g->loop, on_time, g, &g->soon);
	if (!r)
		r = loop_add_timer(g->loop, on_time, g, &g->anyway);
	return r ? r : loop_set_timer(g->anyway, ANYWAY_NS, ANYWAY_NS);
}

int guests_more(struct guests *g, struct error *err)
{
	int r = 0;

	for (; !r && g->n < g->setup->nvms; g->n += !r) {
		struct guest *guest = &g->guest[g->n];

		guest->vm = &g->setup->vms[g->n];
		r = paths_run("vm", guest->vm->name, &guest->dir, err);
	}
	return r;
}

int guests_create(struct loop *loop, const struct setup *setup, guest_fn *fn, void *arg,
		  struct guests **ret, struct error *err)
{
	struct guests *g = calloc(1, sizeof(*g));
	int r = 0;

	if (!g)
		return error_set(err, -ENOMEM, "out of memory");
	*g = (struct guests){.loop = loop, .setup = setup, .fn = fn, .arg = arg, .inotify = -1};
	g->guest = calloc(SETUP_VMS_MAX, sizeof(*g->guest));
	r = g->guest ? watch(g) : -ENOMEM;
	if (r)
		error_errno(err, r, "cannot watch VMs");
	else
		r = guests_more(g, err);
	if (r) {
		guests_destroy(g);
		return r;
	}
	look_at_all(g);
	for (size_t i = 0; i < g->n; i++)
		look_at_dead(g, &g->guest[i]);
	*ret = g;
	return 0;
}

void guests_destroy(struct guests *g)
{
	if (!g)
		return;
	loop_remove(&g->changes);
	loop_remove(&g->soon);
	loop_remove(&g->anyway);
	cleanup_close_fd(&g->inotify);
	for (size_t i = 0; i < g->n; i++)
		free(g->guest[i].dir);
	free(g->guest);
	free(g);
}

enum guest_state guest_state(const struct guests *g, const struct setup_vm *vm)
{
	return g->guest[vm - g->setup->vms].state;
}

const char *guest_word(enum guest_state state)
{
	static const char *const words[] = {"none", "starting", "ready", "ended"};

	return words[state];
}
