/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VMs of a cluster move: all that their new nodes need is got ready before the first of them goes,
 * so what cannot be had is told while nothing has happened; in the end every node gives back what
 * is not needed there any more.
 */

#include "job/migrate.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "job/save.h"
#include "lib/cleanup.h"
#include "lib/io.h"
#include "lib/loop.h"

#define PARALLEL 4u
#define PARALLEL_MAX 64
#define RELEASE_MS 60000u
#define NETWORK_MS 60000u
#define IMAGE_MS (3600u * 1000)
#define SOURCES 8
#define AGAIN_NS 500000000ull
#define TRIES 20u

static void give_back(struct migrate *m);

/* -------- its end -------- */

static void migrate_free(struct migrate *m)
{
	for (size_t i = 0; i < m->n; i++)
		move_done(&m->move[i]);
	nodes_forget(m->job->nodes, m);
	loop_remove(&m->again);
	json_decref(m->names);
	free(m->wanted);
	free(m->move);
	free(m);
}

/* Takes value. */
static void finish(struct migrate *m, int code, const char *reason, json_t *value)
{
	const struct migrate_ops *ops = m->ops;
	void *arg = m->arg;
	struct error why;

	snprintf(why.text, sizeof(why.text), "%s", reason);
	m->job->migrate = NULL;
	migrate_free(m);
	ops->over(arg, code, why.text, value);
	json_decref(value);
}

void migrate_cancel(struct job *j)
{
	if (j->migrate)
		finish(j->migrate, -ECANCELED, "the cluster ends", NULL);
}

static json_t *describe_move(const struct move *v)
{
	static const char *const words[] = {"waits", "goes", "moved", "stayed"};
	const struct job *j = v->of->job;

	return json_pack("{s:s, s:s, s:s, s:s, s:s*, s:O*}", "vm", v->vm->name, "from",
			 j->node[v->from].name, "to", j->node[v->to].name, "state", words[v->state],
			 "error", v->state == MOVE_STAYED ? v->why.text : NULL, "report",
			 v->report);
}

static json_t *describe(const struct migrate *m)
{
	json_t *list = json_array();

	for (size_t i = 0; i < m->n; i++)
		json_array_append_new(list, describe_move(&m->move[i]));
	return json_pack("{s:o, s:I}", "vms", list, "ms",
			 (json_int_t)((io_now_ns() - m->began) / 1000000));
}

void migrate_tell(const struct move *v)
{
	json_t *event = describe_move(v);

	log_info(&v->of->job->log, "migrate", "VM %s, from node %s to node %s: %s%s%s", v->vm->name,
		 v->of->job->node[v->from].name, v->of->job->node[v->to].name,
		 json_string_value(json_object_get(event, "state")), *v->why.text ? ": " : "",
		 v->why.text);
	json_object_set_new(event, "event", json_string("move"));
	v->of->ops->tell(v->of->arg, event);
	json_decref(event);
}

static void all_done(struct migrate *m)
{
	job_changed(m->job);
	if (*m->why.text)
		finish(m, -EIO, m->why.text, NULL);
	else
		finish(m, 0, "", describe(m));
}

/* -------- giving back -------- */

static bool leaves(const struct move *v, uint32_t place)
{
	return place == (v->state == MOVE_MOVED ? v->from : v->to);
}

/* The VMs that a node has nothing to do with any more. */
static json_t *left_at(const struct migrate *m, uint32_t place)
{
	json_t *list = json_array();

	for (size_t i = 0; i < m->n; i++)
		if (leaves(&m->move[i], place))
			json_array_append_new(list, json_string(m->move[i].vm->name));
	return list;
}

static void on_given_back(void *arg, const struct gather *answer)
{
	struct migrate *m = arg;
	const json_t *one = json_array_get(answer->errors, 0);

	for (size_t i = 0; i < m->job->nnodes; i++)
		if (nodeset_has(&answer->ok, (uint32_t)i) && !m->job->node[i].vms)
			m->job->node[i].holds = false;
	if (json_integer_value(json_object_get(one, "errno")) == EBUSY && m->tries < TRIES)
		m->busy = true;
	else if (one)
		job_note(m->job, "release: node %s: %s", job_name_of(m->job, one),
			 json_string_value(json_object_get(one, "error")));
	else if (answer->code)
		job_note(m->job, "release: %s", answer->why.text);
	if (--m->asked)
		return;
	if (m->busy)
		loop_set_timer(m->again, AGAIN_NS, 0);
	else
		all_done(m);
}

/* The last step; again while the VMM of one that has moved has not quite ended. */
static void give_back(struct migrate *m)
{
	struct job *j = m->job;

	m->tries++;
	m->busy = false;
	m->asked = 1; /* this */
	for (uint32_t i = 0; i < j->nnodes; i++) {
		json_t *left = left_at(m, i), *request;
		char to[16];

		if (json_array_size(left) && j->node[i].holds) {
			request = json_pack("{s:s}", "op", "release");
			if (j->node[i].vms)
				json_object_set(request, "vms", left);
			snprintf(to, sizeof(to), "%u", i);
			json_object_set_new(request, "cluster", json_string(j->id));
			m->asked++;
			nodes_ask(j->nodes, request, to, RELEASE_MS, on_given_back, m);
		}
		json_decref(left);
	}
	if (!--m->asked)
		all_done(m);
}

static void on_again(void *arg)
{
	give_back(arg);
}

/* -------- moving -------- */

void migrate_next(struct migrate *m)
{
	size_t going = 0;

	for (size_t i = 0; i < m->next; i++)
		going += m->move[i].state == MOVE_GOES;
	if (m->next < m->n)
		move_begin(&m->move[m->next++]);
	else if (!going)
		give_back(m);
}

/* Each that begins may be over at once, and begins the next. */
static void move_some(struct migrate *m)
{
	struct job *j = m->job;

	while (j->migrate == m && m->next < m->n && m->next < m->parallel)
		move_begin(&m->move[m->next++]);
}

/* Whatever its nodes get ready, they give back. */
static void stop_getting_ready(struct migrate *m)
{
	if (*m->why.text)
		return;
	error_set(&m->why, 0, MIGRATE_GIVEN_UP);
	nodes_forget(m->job->nodes, m);
	if (m->n)
		give_back(m);
	else
		finish(m, -ECANCELED, MIGRATE_GIVEN_UP, NULL);
}

/* Those that wait for others. */
static size_t leave_rest(struct migrate *m)
{
	size_t first = m->next;

	for (; m->next < m->n; m->next++) {
		struct move *v = &m->move[m->next];

		v->state = MOVE_STAYED;
		error_set(&v->why, 0, MIGRATE_GIVEN_UP);
		migrate_tell(v);
	}
	return m->n - first;
}

int migrate_give_up(struct job *j, struct error *err)
{
	struct migrate *m = j->migrate;
	size_t n;

	if (!m)
		return error_set(err, -ESRCH, "no VMs of cluster %s are being moved", j->spec.name);
	if (!m->next) {
		stop_getting_ready(m);
		return 0;
	}
	n = leave_rest(m);
	for (size_t i = 0; i < m->n; i++)
		if (m->move[i].state == MOVE_GOES) {
			move_give_up(&m->move[i]);
			n++;
		}
	return n ? 0 : error_set(err, -EALREADY, "the VMs of cluster %s have moved", j->spec.name);
}

/* -------- getting ready -------- */

static bool expects(const struct migrate *m, uint32_t place)
{
	for (size_t i = 0; i < m->n; i++)
		if (m->move[i].to == place)
			return true;
	return false;
}

/* What failed of an answer, as one text; false: nothing did. */
static bool has_failed(struct migrate *m, const struct gather *answer, const char *what)
{
	const json_t *one = json_array_get(answer->errors, 0);

	if (gather_is_good(answer))
		return false;
	if (!*m->why.text)
		error_set(&m->why, 0, "%s: %s%s%s%s", what, answer->code ? "" : "node ",
			  answer->code ? "" : job_name_of(m->job, one), answer->code ? "" : ": ",
			  answer->code ? answer->why.text
				       : json_string_value(json_object_get(one, "error")));
	return true;
}

/* Anything of getting ready: on_ready() when it was the last one, and none has failed. */
static void go_on(struct migrate *m, void (*on_ready)(struct migrate *m))
{
	if (--m->asked)
		return;
	if (*m->why.text)
		give_back(m);
	else
		on_ready(m);
}

static void on_image(void *arg, const struct gather *answer)
{
	has_failed(arg, answer, "image");
	go_on(arg, move_some);
}

/* Some of those that run VMs, and so have the image. */
static json_t *sources(const struct job *j)
{
	json_t *list = json_array();

	for (size_t i = 0; i < j->nnodes && json_array_size(list) < SOURCES; i++)
		if (j->node[i].vms)
			json_array_append(list, json_array_get(j->spec.nodes, i));
	return list;
}

/* New nodes get the image. */
static void image(struct migrate *m)
{
	struct job *j = m->job;

	m->asked = 1; /* this */
	for (uint32_t i = 0; i < j->nnodes; i++) {
		char to[16];

		if (!expects(m, i) || j->node[i].vms)
			continue;
		snprintf(to, sizeof(to), "%u", i);
		m->asked++;
		nodes_ask(j->nodes,
			  json_pack("{s:s, s:s, s:o, s:o}", "op", "image", "cluster", j->id,
				    "image", job_image(j), "from", sources(j)),
			  to, IMAGE_MS, on_image, m);
	}
	go_on(m, move_some);
}

static void on_network(void *arg, const struct gather *answer)
{
	has_failed(arg, answer, "network");
	go_on(arg, image);
}

/* Who has something of the cluster hears of all who do: links and taps that are new are made. */
static void network(struct migrate *m)
{
	struct job *j = m->job;
	CLEANUP_FREE char *places = job_holders(j);
	json_t *request = job_network(j, places ? places : "");

	m->asked = 1;
	json_object_set_new(request, "cluster", json_string(j->id));
	nodes_ask(j->nodes, request, places ? places : "", NETWORK_MS, on_network, m);
}

static void on_reserved(void *arg, const struct gather *answer)
{
	has_failed(arg, answer, "reserve");
	go_on(arg, network);
}

static json_t *coming_to(const struct migrate *m, uint32_t place)
{
	json_t *list = json_array();

	for (size_t i = 0; i < m->n; i++)
		if (m->move[i].to == place)
			json_array_append_new(list,
					      json_pack("{s:s, s:s}", "name", m->move[i].vm->name,
							"address", m->move[i].vm->address));
	return list;
}

static void reserve(struct migrate *m)
{
	struct job *j = m->job;

	for (uint32_t i = 0; i < j->nnodes; i++) {
		json_t *vms = coming_to(m, i), *request;
		char to[16];

		if (!json_array_size(vms)) {
			json_decref(vms);
			continue;
		}
		j->node[i].holds = true;
		request = job_reservation(j, vms);
		snprintf(to, sizeof(to), "%u", i);
		json_object_set_new(request, "cluster", json_string(j->id));
		m->asked++;
		nodes_ask(j->nodes, request, to, 0, on_reserved, m);
	}
}

static void on_facts(void *arg, const struct gather *answer)
{
	struct migrate *m = arg;
	struct job *j = m->job;
	struct error err;
	int r;

	if (answer->code) {
		finish(m, answer->code, answer->why.text, NULL);
		return;
	}
	for (uint32_t i = 0; i < j->nnodes; i++) {
		json_decref(j->node[i].facts);
		j->node[i].facts = json_incref((json_t *)gather_value(answer, i));
	}
	r = migrate_plan(m, &err);
	if (r)
		finish(m, r, err.text, NULL);
	else
		reserve(m);
}

/* -------- its beginning -------- */

static int check(const struct job *j, struct error *err)
{
	if (j->migrate)
		return error_set(err, -EBUSY, "VMs of cluster %s are being moved", j->spec.name);
	if (save_is_under_way(j))
		return error_set(err, -EBUSY, "a checkpoint of cluster %s is under way",
				 j->spec.name);
	if (j->ending || j->stage != &stage_run)
		return error_set(err, -EAGAIN, "cluster %s does not run (stage %s)", j->spec.name,
				 j->stage ? j->stage->name : "end");
	if (j->nnodes < 2)
		return error_set(err, -EINVAL, "cluster %s has no other node", j->spec.name);
	return 0;
}

static int number(const json_t *request, const char *key, json_int_t most, json_int_t *ret,
		  struct error *err)
{
	const json_t *value = json_object_get(request, key);

	*ret = json_integer_value(value);
	if (value && (!json_is_integer(value) || *ret < 1 || *ret > most))
		return error_set(err, -EINVAL, "\"%s\" has to be a number from 1 to %lld", key,
				 (long long)most);
	return 0;
}

static int read_names(struct migrate *m, const json_t *request, struct error *err)
{
	json_t *names = json_object_get(request, "vms"), *name;
	size_t i;

	json_array_foreach (names, i, name)
		if (!json_is_string(name))
			return error_set(err, -EINVAL, "a name in \"vms\" is no text");
	if (names && (!json_is_array(names) || !json_array_size(names)))
		return error_set(err, -EINVAL, "\"vms\" has to be a list of names");
	m->names = json_incref(names);
	return 0;
}

static int read_request(struct migrate *m, const json_t *request, struct error *err)
{
	const char *to = json_string_value(json_object_get(request, "to"));
	json_int_t parallel = 0, bandwidth = 0;
	int r = read_names(m, request, err);

	if (!r)
		r = number(request, "parallel", PARALLEL_MAX, &parallel, err);
	if (!r)
		r = number(request, "bandwidth", INT64_MAX, &bandwidth, err);
	if (!r)
		r = number(request, "max-downtime", 3600000, &m->downtime, err);
	m->parallel = parallel ? (unsigned)parallel : PARALLEL;
	m->bandwidth = (uint64_t)bandwidth;
	m->wanted = to ? strdup(to) : NULL;
	return r ? r : to && !m->wanted ? error_set(err, -ENOMEM, "out of memory") : 0;
}

int migrate_begin(struct job *j, const json_t *request, const struct migrate_ops *ops, void *arg,
		  struct error *err)
{
	struct migrate *m;
	int r = check(j, err);

	if (r)
		return r;
	m = calloc(1, sizeof(*m));
	if (!m)
		return error_set(err, -ENOMEM, "out of memory");
	*m = (struct migrate){.job = j, .ops = ops, .arg = arg, .began = io_now_ns()};
	r = read_request(m, request, err);
	if (!r && loop_add_timer(j->loop, on_again, m, &m->again))
		r = error_set(err, -ENOMEM, "out of memory");
	if (r) {
		migrate_free(m);
		return r;
	}
	j->migrate = m;
	nodes_ask(j->nodes, json_pack("{s:s}", "op", "facts"), NULL, 0, on_facts, m);
	return 0;
}
