/* SPDX-License-Identifier: Apache-2.0 */
/* VMs that run: paused, let go on, described. */

#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "agent/client.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/log.h"
#include "part/part.h"
#include "part/work.h"
#include "vms/control.h"
#include "vms/record.h"
#include "vms/shares-agent.h"

#define AGENT_MS 60000 /* for the agent of a VM that goes on, to answer */

struct one {
	const char *name, *command;
};

static json_int_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (json_int_t)now.tv_sec * 1000000000 + (json_int_t)now.tv_nsec;
}

/* -------- in the children -------- */

static int command_one(int talk, void *arg, json_t **ret, struct error *err)
{
	const struct one *one = arg;
	CLEANUP_FREE char *dir = NULL;
	int r = vms_dir(one->name, &dir, err);

	if (!r)
		r = control_call(dir, one->command, NULL, NULL, err);
	if (!r)
		*ret = json_pack("{s:I}", "at", now_ns());
	return r;
}

/* The guest's own clock went on where it was saved. */
static int clock_one(int talk, void *arg, json_t **ret, struct error *err)
{
	const struct one *one = arg;
	CLEANUP_CLOSE int fd = -1;
	json_t *settings = NULL, *ready = NULL;
	int r = vms_wait(one->name, true, AGENT_MS, &ready, err);

	json_decref(ready);
	if (!r)
		r = fd = vms_agent(one->name, err);
	if (r < 0)
		return r;
	settings = json_pack("{s:I}", "clock", now_ns());
	r = settings ? client_configure(fd, settings, err) : -ENOMEM;
	json_decref(settings);
	return r;
}

static int describe_one(int talk, void *arg, json_t **ret, struct error *err)
{
	const struct one *one = arg;
	int r = vms_describe(one->name, ret, err);

	if (r != -ENOENT)
		return r;
	*ret = json_pack("{s:s, s:s}", "name", one->name, "state", "none");
	return 0;
}

/* One that does not run, or is just ending, has no counters. */
static int usage_one(int talk, void *arg, json_t **ret, struct error *err)
{
	const struct one *one = arg;
	CLEANUP_FREE char *dir = NULL;

	if (!vms_dir(one->name, &dir, NULL))
		control_call(dir, "stats", ret, NULL, NULL);
	return 0;
}

/* Who does not answer, or knows of none, has no counters. */
static int tcp_one(int talk, void *arg, json_t **ret, struct error *err)
{
	const struct one *one = arg;
	CLEANUP_CLOSE int fd = vms_agent(one->name, NULL);
	json_t *facts = NULL;

	if (fd >= 0 && !client_facts(fd, &facts, NULL))
		*ret = json_incref(json_object_get(facts, "tcp"));
	json_decref(facts);
	return 0;
}

static int attach_one(int talk, void *arg, json_t **ret, struct error *err)
{
	const struct one *one = arg;
	CLEANUP_FREE char *dir = NULL;
	json_t *config = NULL;
	int r = vms_dir(one->name, &dir, err);

	if (!r)
		r = record_read(dir, RECORD_CONFIG, &config, err);
	if (!r)
		r = shares_attach(dir, config, err);
	json_decref(config);
	return r;
}

/* -------- in the part -------- */

static void add_all(struct work *w, errand_fn *fn, const char *command)
{
	for (size_t i = 0; i < w->nvms; i++) {
		struct one one = {w->vms[i]->name, command};

		work_add(w, w->vms[i], fn, &one);
	}
}

static void run(struct part *p, json_int_t id, const json_t *request, errand_fn *fn,
		const char *command, work_fn *then)
{
	struct work *w = work_create(p, id, request);

	if (!w)
		return;
	add_all(w, fn, command);
	work_go(w, then);
}

/* Of what nobody asked for, or has been answered. */
static void end_quietly(struct work *w)
{
	if (w->code)
		log_warn(w->part->log, "part", "%s", w->reason.text);
	work_end(w);
}

/* That they run is told at once: others wait for it. */
static void have_resumed(struct work *w)
{
	bool clocks = json_is_true(json_object_get(w->request, "clock")) && !w->code;

	work_answer(w);
	if (clocks)
		add_all(w, clock_one, NULL);
	work_go(w, end_quietly);
}

void part_pause(struct part *p, json_int_t id, const json_t *request)
{
	run(p, id, request, command_one, "pause", work_end);
}

void part_resume(struct part *p, json_int_t id, const json_t *request)
{
	run(p, id, request, command_one, "resume", have_resumed);
}

void part_list(struct part *p, json_int_t id, const json_t *request)
{
	run(p, id, request, describe_one, NULL, work_end);
}

/* Of those that have some. */
static void have_counters(struct work *w)
{
	for (size_t i = 0; i < w->nvms; i++)
		if (!json_object_size(json_object_get(w->values, w->vms[i]->name)))
			json_object_del(w->values, w->vms[i]->name);
	work_end(w);
}

void part_usage(struct part *p, json_int_t id, const json_t *request)
{
	run(p, id, request, usage_one, NULL, have_counters);
}

void part_tcp(struct part *p, json_int_t id, const json_t *request)
{
	run(p, id, request, tcp_one, NULL, have_counters);
}

void part_attach(struct part *p)
{
	json_t *nobody = json_pack("{s:[]}", "vms");
	struct work *w;

	if (!json_object_size(json_object_get(p->setup.environment, "shares")) || !nobody) {
		json_decref(nobody);
		return;
	}
	w = work_create(p, 0, nobody);
	json_decref(nobody);
	if (!w)
		return;
	for (size_t i = 0; i < p->setup.nvms; i++) {
		struct one one = {.name = p->setup.vms[i].name};

		if (guest_state(p->guests, &p->setup.vms[i]) == GUEST_READY)
			work_add(w, &p->setup.vms[i], attach_one, &one);
	}
	work_go(w, end_quietly);
}
