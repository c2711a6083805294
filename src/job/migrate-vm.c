/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One VM moves: its new node listens, its old one sends, and what both say in the end tells where
 * it is. What is not settled is asked for again: exactly one of both has it, whoever died.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "job/migrate.h"
#include "lib/cleanup.h"
#include "lib/loop.h"

#define MOVE_MS (24u * 3600 * 1000)
#define AGAIN_MS 20000u
#define AGAIN_NS 1000000000ull
#define TRIES 60u

static void decide(struct move *v);
static void on_sent(void *arg, const struct gather *answer);

/* -------- what both say -------- */

static bool is_asked(const struct side *s)
{
	return s->state == SIDE_ASKED;
}

/*
 * An error that comes from nobody's failure: the node, its daemon, its part or what that had begun
 * went meanwhile; or (again) what was asked for first is still under way.
 */
static bool is_open(const struct move *v, int code)
{
	static const int open[] = {EINPROGRESS, EHOSTDOWN, ECONNRESET, ETIMEDOUT,
				   ESHUTDOWN,	EAGAIN,	   ECHILD};

	for (size_t i = 0; i < ARRAY_SIZE(open); i++)
		if (open[i] == code)
			return true;
	return v->tries && code == EBUSY;
}

static void take(struct move *v, struct side *s, const struct gather *answer, uint32_t place)
{
	const json_t *one = json_array_get(answer->errors, 0);
	const char *text = json_string_value(json_object_get(one, "error"));
	const char *word = json_string_value(json_object_get(one, "unsettled"));
	int code = answer->code ? -answer->code
				: (int)json_integer_value(json_object_get(one, "errno"));

	if (gather_is_good(answer)) {
		s->state = SIDE_DONE;
		json_decref(v->report);
		v->report = json_incref(json_object_get(gather_value(answer, place), v->vm->name));
	} else {
		s->state = is_open(v, code) ? SIDE_OPEN : SIDE_FAILED;
		s->here |= word && !strcmp(word, "here");
		s->away |= word && !strcmp(word, "away");
		snprintf(s->why.text, sizeof(s->why.text), "node %.60s: %.400s",
			 v->of->job->node[place].name,
			 answer->code ? answer->why.text
			 : text	      ? text
				      : "it did not say why");
		log_info(&v->of->job->log, "migrate", "VM %s: %s%s", v->vm->name, s->why.text,
			 s->state == SIDE_OPEN ? " (not settled)" : "");
	}
}

static void on_received(void *arg, const struct gather *answer)
{
	struct move *v = arg;
	json_t *report = json_incref(v->report);

	take(v, &v->target, answer, v->to);
	/* The source measured it. */
	if (v->source.state == SIDE_DONE && report) {
		json_decref(v->report);
		v->report = json_incref(report);
	}
	json_decref(report);
	decide(v);
}

/* -------- asking -------- */

/* Takes the request. */
static void ask(struct move *v, json_t *request, uint32_t place, unsigned ms, nodes_fn *fn)
{
	char to[16];

	snprintf(to, sizeof(to), "%u", place);
	json_object_set_new(request, "cluster", json_string(v->of->job->id));
	json_object_set_new(request, "vm", json_string(v->vm->name));
	nodes_ask(v->of->job->nodes, request, to, ms, fn, v);
}

static void ask_send(struct move *v, bool again)
{
	const struct migrate *m = v->of;
	unsigned at_once = m->parallel < m->n ? m->parallel : (unsigned)m->n;
	json_t *request = json_pack("{s:s, s:s}", "op", "send", "target", v->listening);

	if (again)
		json_object_set_new(request, "again", json_true());
	else
		json_object_set_new(request, "token", json_string(v->token));
	if (m->bandwidth)
		json_object_set_new(request, "bandwidth",
				    json_integer((json_int_t)(m->bandwidth / at_once) ?: 1));
	if (m->downtime)
		json_object_set_new(request, "max-downtime", json_integer(m->downtime));
	v->source.state = SIDE_ASKED;
	ask(v, request, v->from, again ? AGAIN_MS : MOVE_MS, on_sent);
}

static void ask_receive(struct move *v, bool again)
{
	const struct job *j = v->of->job;
	json_t *request = json_pack("{s:s, s:o, s:O, s:O, s:b}", "op", "receive", "image",
				    job_image(j), "hosts", j->hosts, "listen",
				    json_array_get(j->spec.addresses, v->to), "ready", 1);

	if (again)
		json_object_set_new(request, "again", json_true());
	else
		json_object_set_new(request, "token", json_string(v->token));
	v->target.state = SIDE_ASKED;
	ask(v, request, v->to, again ? AGAIN_MS : MOVE_MS, on_received);
}

/* Nothing of it is to wait there for the source any more. */
static void clear_target(struct move *v)
{
	ask(v, json_pack("{s:s, s:[s], s:b}", "op", "stop", "vms", v->vm->name, "kill", 1), v->to,
	    0, NULL);
}

/* One that has stayed leaves the target waiting for it. */
static void on_sent(void *arg, const struct gather *answer)
{
	struct move *v = arg;

	take(v, &v->source, answer, v->from);
	if (v->source.state == SIDE_FAILED && is_asked(&v->target)) {
		v->why = v->source.why;
		clear_target(v);
	}
	decide(v);
}

/* It has not begun to go when its target has not come to listen; else its source is told. */
void move_give_up(struct move *v)
{
	if (is_asked(&v->source)) {
		ask(v, json_pack("{s:s, s:b}", "op", "send", "abort", 1), v->from, AGAIN_MS, NULL);
	} else if (v->source.state == SIDE_NONE) {
		error_set(&v->why, -ECANCELED, MIGRATE_GIVEN_UP);
		v->source.state = SIDE_FAILED;
		clear_target(v);
	}
}

/* -------- where it is -------- */

/* While the daemon of this node is away nobody knows: all are asked when it is back. */
static bool is_gone(const struct job *j, uint32_t place)
{
	return j->joined && *j->node[place].gone.text;
}

static void settle(struct move *v, bool moved)
{
	struct job *j = v->of->job;
	json_t *ended = json_incref(v->ended[moved]);

	v->state = moved ? MOVE_MOVED : MOVE_STAYED;
	if (moved) {
		v->vm->place = v->to;
		j->node[v->from].vms--;
		j->node[v->to].vms++;
	} else {
		if (!*v->why.text)
			v->why = *v->target.why.text ? v->target.why : v->source.why;
		if (v->tries)
			clear_target(v);
	}
	migrate_tell(v);
	job_changed(j);
	/* What was held back: it has ended where it is, or its node was lost. */
	if (ended)
		job_hear(j, ended);
	else if (is_gone(j, v->vm->place))
		job_fail(j, "node %s is lost, with VM %s", j->node[v->vm->place].name, v->vm->name);
	json_decref(ended);
	if (!j->ending)
		migrate_next(v->of);
}

static void give_up(const struct move *v, const char *why)
{
	const struct job *j = v->of->job;

	job_fail(v->of->job, "VM %s, which was to go from node %s to node %s, %s: %s", v->vm->name,
		 j->node[v->from].name, j->node[v->to].name, why,
		 *v->source.why.text ? v->source.why.text : v->target.why.text);
}

static void try_again(struct move *v)
{
	if (++v->tries > TRIES)
		give_up(v, "cannot be found");
	else
		loop_set_timer(v->again, AGAIN_NS, 0);
}

static void on_again(void *arg)
{
	struct move *v = arg;
	bool goes = v->state == MOVE_GOES;

	/* Who is not settled meets the other only while that listens. */
	if (goes && v->target.state != SIDE_DONE && !is_asked(&v->target))
		ask_receive(v, true);
	if (goes && (v->source.state == SIDE_OPEN || v->source.state == SIDE_FAILED))
		ask_send(v, true);
	else if (goes)
		decide(v);
}

/* The source cannot be asked, or is not settled. */
static void decide_without_source(struct move *v, bool enough)
{
	bool runs = v->target.state == SIDE_DONE || v->target.here;

	if (runs && enough)
		settle(v, true);
	else if (v->source.away && enough)
		settle(v, false);
	else if (v->target.state == SIDE_FAILED && is_gone(v->of->job, v->from))
		give_up(v, "was lost");
	else
		try_again(v);
}

/*
 * Where it is, when both have answered. A source that is done has it no more, one that has failed
 * runs it or has seen it end, and never lets it go; a target that is done runs it, one that has
 * failed does not. What is open is asked again: by their records both come to one of these, as long
 * as they can be reached.
 */
static void decide(struct move *v)
{
	enum side_state source = v->source.state, target = v->target.state;
	bool enough = v->tries >= TRIES / 4;

	if (is_asked(&v->source))
		return;
	/* For a source that may have been killed, or whose VM may have ended, before it called. */
	if (is_asked(&v->target) && (source == SIDE_OPEN || (source == SIDE_DONE && v->tries)))
		try_again(v);
	else if (is_asked(&v->target))
		return;
	else if (source == SIDE_OPEN)
		decide_without_source(v, enough);
	else if (target == SIDE_OPEN && !enough)
		try_again(v);
	else if (source == SIDE_DONE && target == SIDE_FAILED && v->tries)
		give_up(v, "is at neither");
	else
		settle(v, source == SIDE_DONE || target == SIDE_DONE);
}

/* -------- its beginning and end -------- */

void migrate_hear(struct job *j, const json_t *event)
{
	const char *vm = json_string_value(json_object_get(event, "vm"));
	const char *where = json_string_value(json_object_get(event, "listening"));
	json_int_t node = json_integer_value(json_object_get(event, "node"));

	for (size_t i = 0; j->migrate && vm && where && i < j->migrate->n; i++) {
		struct move *v = &j->migrate->move[i];

		if (strcmp(v->vm->name, vm) || v->state != MOVE_GOES || node != v->to ||
		    v->source.state != SIDE_NONE || !is_asked(&v->target))
			continue;
		v->listening = strdup(where);
		if (v->listening)
			ask_send(v, false);
	}
}

bool migrate_keeps(struct job *j, const struct guest *vm, const json_t *event)
{
	bool there;

	for (size_t i = 0; j->migrate && i < j->migrate->n; i++) {
		struct move *v = &j->migrate->move[i];

		if (v->vm != vm || v->state != MOVE_GOES)
			continue;
		there = json_integer_value(json_object_get(event, "node")) == v->to;
		json_decref(v->ended[there]);
		v->ended[there] = json_incref((json_t *)event);
		return true;
	}
	return false;
}

bool migrate_moves(const struct job *j, const struct guest *vm)
{
	for (size_t i = 0; j->migrate && i < j->migrate->n; i++)
		if (j->migrate->move[i].vm == vm && j->migrate->move[i].state == MOVE_GOES)
			return true;
	return false;
}

void move_begin(struct move *v)
{
	uint8_t random[32];

	v->state = MOVE_GOES;
	migrate_tell(v);
	if (getrandom(random, sizeof(random), 0) != sizeof(random) ||
	    loop_add_timer(v->of->job->loop, on_again, v, &v->again)) {
		error_set(&v->target.why, -EIO, "no random numbers, or no timer");
		v->target.state = SIDE_FAILED;
		settle(v, false);
		return;
	}
	for (size_t i = 0; i < sizeof(random); i++)
		snprintf(v->token + 2 * i, 3, "%02x", random[i]);
	ask_receive(v, false);
}

void move_done(struct move *v)
{
	nodes_forget(v->of->job->nodes, v);
	loop_remove(&v->again);
	free(v->listening);
	json_decref(v->ended[false]);
	json_decref(v->ended[true]);
	json_decref(v->report);
}
