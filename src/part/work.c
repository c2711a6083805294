/* SPDX-License-Identifier: Apache-2.0 */
/* Requests that take errands. */

#include "part/work.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "part/part.h"

#define CANCEL_MS 5000

struct work_errand {
	struct work_errand *next;
	struct work *work;
	const char *vm;
	struct errand *errand;
};

struct work *work_create(struct part *part, json_int_t id, const json_t *request)
{
	struct work *w = calloc(1, sizeof(*w));
	struct error err = {"out of memory"};
	int r = w ? part_vms(part, request, &w->vms, &w->nvms, &err) : -ENOMEM;

	if (r) {
		free(w);
		part_refuse(part, id, r, err.text, NULL);
		return NULL;
	}
	w->part = part;
	w->id = id;
	w->request = json_incref((json_t *)request);
	w->values = json_object();
	w->notes = json_object();
	w->next = part->works;
	part->works = w;
	return w;
}

static void note_failure(struct work *w, const char *vm, int code, const char *reason, json_t *more)
{
	if (w->code)
		return;
	w->code = code;
	w->more = json_incref(more);
	error_set(&w->reason, 0, "%s%s%s", vm, *vm ? ": " : "", reason);
}

static void phase_done(struct work *w)
{
	work_fn *then = w->then;

	if (w->errands || !then)
		return;
	w->then = NULL;
	then(w);
}

static void on_done(void *arg, const struct errand_end *end)
{
	struct work_errand *e = arg, **at = &e->work->errands;
	struct work *w = e->work;

	while (*at != e)
		at = &(*at)->next;
	*at = e->next;
	if (end->code && !w->code)
		w->status = end->status;
	if (end->code)
		note_failure(w, e->vm, end->code, end->reason, end->value);
	else
		json_object_set_new(w->values, e->vm,
				    end->value ? json_incref(end->value) : json_object());
	free(e);
	phase_done(w);
}

static void on_said(void *arg, const json_t *message, int fd)
{
	struct work_errand *e = arg;

	if (e->work->said)
		e->work->said(e->work, e->vm, message, fd);
	else
		cleanup_close_fd(&fd);
}

void work_add(struct work *w, const struct setup_vm *vm, errand_fn *fn, void *fn_arg)
{
	static const struct errand_ops ops = {on_said, on_done};
	struct work_errand *e = calloc(1, sizeof(*e));
	struct error err = {"out of memory"};
	int r = e ? 0 : -ENOMEM;

	if (e) {
		*e = (struct work_errand){.work = w, .vm = vm ? vm->name : "", .next = w->errands};
		r = errand_start(w->part->errands, &ops, e, fn, fn_arg, &e->errand, &err);
	}
	if (!r) {
		w->errands = e;
		return;
	}
	free(e);
	note_failure(w, vm ? vm->name : "", r, err.text, NULL);
}

int work_tell(struct work *w, const json_t *message)
{
	return w->errands ? errand_tell(w->errands->errand, message) : -ESRCH;
}

void work_go(struct work *w, work_fn *then)
{
	w->then = then;
	phase_done(w);
}

void work_fail(struct work *w, int code, const char *reason)
{
	note_failure(w, "", code, reason, NULL);
}

void work_cancel(struct work *w, const char *why)
{
	/* What has failed takes back what it has begun. */
	if (w->code)
		return;
	note_failure(w, "", -ECANCELED, why, NULL);
	for (struct work_errand *e = w->errands; e; e = e->next)
		errand_cancel(e->errand, CANCEL_MS);
}

void work_answer(struct work *w)
{
	if (!w->id)
		return;
	if (w->code)
		part_refuse(w->part, w->id, w->code, w->reason.text, json_incref(w->more));
	else
		part_answer(w->part, w->id, json_incref(w->values));
	w->id = 0;
}

static void work_free(struct work *w)
{
	struct work **at = &w->part->works;

	while (*at != w)
		at = &(*at)->next;
	*at = w->next;
	while (w->errands) {
		struct work_errand *e = w->errands;

		w->errands = e->next;
		free(e);
	}
	json_decref(w->request);
	json_decref(w->values);
	json_decref(w->notes);
	json_decref(w->more);
	free(w->vms);
	free(w);
}

void work_end(struct work *w)
{
	struct part *part = w->part;

	work_answer(w);
	work_free(w);
	guests_look(part->guests);
	part_go_on(part);
}

void works_destroy(struct part *part)
{
	while (part->works)
		work_free(part->works);
}
