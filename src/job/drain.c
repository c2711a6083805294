/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VMs leave nodes that drain: at once when such a node says so, and again while any of them is
 * kept there. What keeps them is noted when it is something new.
 */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "job/migrate.h"
#include "lib/loop.h"

#define SOON_NS 1000000ull
#define BUSY_NS 1000000000ull /* others move, or a checkpoint is made */
#define AGAIN_NS 30000000000ull

static void stay(struct job *j, const char *why)
{
	if (strcmp(j->drain.kept.text, why)) {
		snprintf(j->drain.kept.text, sizeof(j->drain.kept.text), "%s", why);
		job_note(j, "VMs stay at nodes that drain: %s", why);
	}
	loop_set_timer(j->drain.timer, AGAIN_NS, 0);
}

/* migrate_tell() has written it down. */
static void on_move(void *arg, const json_t *event)
{
}

/* Why the first one that has stayed did; NULL: all have gone. */
static const char *why_stayed(const json_t *value)
{
	const json_t *vm, *error;
	size_t i;

	json_array_foreach (json_object_get(value, "vms"), i, vm) {
		error = json_object_get(vm, "error");
		if (error)
			return json_string_value(error);
	}
	return NULL;
}

static void on_over(void *arg, int code, const char *reason, const json_t *value)
{
	struct job *j = arg;
	const char *why = code ? reason : why_stayed(value);

	j->drain.moves = false;
	if (!j->drain.timer)
		return;
	/* None drains any more: -ENOENT. */
	if (why && code != -ENOENT)
		stay(j, why);
	else
		j->drain.kept.text[0] = 0;
	if (j->drain.wanted)
		drain_look(j);
}

static void on_time(void *arg)
{
	static const struct migrate_ops ops = {on_move, on_over};
	struct job *j = arg;
	json_t *request = json_object();
	struct error err;
	int r = migrate_begin(j, request, &ops, j, &err);

	json_decref(request);
	j->drain.wanted = false;
	j->drain.moves = !r;
	if (r == -EBUSY)
		loop_set_timer(j->drain.timer, BUSY_NS, 0);
	else if (r)
		stay(j, err.text);
}

void drain_look(struct job *j)
{
	j->drain.wanted = true;
	if (j->drain.timer && !j->drain.moves)
		loop_set_timer(j->drain.timer, SOON_NS, 0);
}

void drain_start(struct job *j)
{
	if (loop_add_timer(j->loop, on_time, j, &j->drain.timer))
		job_note(j, "no timer: VMs stay at nodes that drain");
	else if (j->drain.wanted)
		drain_look(j);
}

void drain_stop(struct job *j)
{
	loop_remove(&j->drain.timer);
}
