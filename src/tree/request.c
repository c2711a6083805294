/* SPDX-License-Identifier: Apache-2.0 */
/* A request: it goes to this node and to children, and their answers become one. */

#include "tree/member.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "channel/conn.h"
#include "lib/cleanup.h"
#include "lib/error.h"

#define REQUESTS_MAX 256u /* at once */
#define ENTRIES 128u	  /* of values or errors in one message: at most 8 MiB */

/* What one child has been asked. */
struct leg {
	struct leg *next;
	struct tree_call *child;
	json_int_t id;
	struct nodeset waits;
};

struct tree_request {
	struct tree_request *next;
	struct tree_member *member; /* NULL: it has gone, and only this node's answer is due */
	json_int_t id;		    /* 0: nobody waits for it */
	bool here;		    /* this node has not answered */
	bool begun;		    /* all were asked */
	struct leg *legs;
	struct nodeset ok;
	json_t *errors, *values;
};

static void leg_free(struct leg *leg)
{
	nodeset_done(&leg->waits);
	free(leg);
}

static void request_free(struct tree_request *r)
{
	while (r->legs) {
		struct leg *leg = r->legs;

		r->legs = leg->next;
		leg_free(leg);
	}
	nodeset_done(&r->ok);
	json_decref(r->errors);
	json_decref(r->values);
	free(r);
}

json_t *request_error(uint32_t place, int code, const char *reason)
{
	return json_pack("{s:I, s:i, s:s}", "node", (json_int_t)place, "errno", -code, "error",
			 reason);
}

static void fail_place(struct tree_request *r, uint32_t place, int code, const char *reason)
{
	json_array_append_new(r->errors, request_error(place, code, reason));
}

static void fail_set(struct tree_request *r, const struct nodeset *set, int code,
		     const char *reason)
{
	for (size_t i = 0; i < set->n; i++)
		for (uint32_t p = set->range[i].first; p <= set->range[i].last; p++)
			fail_place(r, p, code, reason);
}

/* -------- the answer -------- */

static void send_new(struct tree_request *r, json_t *message)
{
	struct error err;

	/* Who does not take it has ended, and hears that there. */
	if (message && r->member->above)
		conn_send(r->member->above, message, &err);
	json_decref(message);
}

/* Entries that do not all go into one message go ahead of the last. */
static json_t *send_errors_ahead(struct tree_request *r)
{
	json_t *part = json_array(), *entry;
	size_t i;

	json_array_foreach (r->errors, i, entry) {
		if (json_array_size(part) == ENTRIES) {
			send_new(r, json_pack("{s:I, s:b, s:o}", "re", r->id, "done", 0, "errors",
					      part));
			part = json_array();
		}
		json_array_append(part, entry);
	}
	return part;
}

static json_t *send_values_ahead(struct tree_request *r)
{
	json_t *part = json_object(), *value;
	const char *key;

	json_object_foreach (r->values, key, value) {
		if (json_object_size(part) == ENTRIES) {
			send_new(r, json_pack("{s:I, s:b, s:o}", "re", r->id, "done", 0, "values",
					      part));
			part = json_object();
		}
		json_object_set(part, key, value);
	}
	return part;
}

static void send_answer(struct tree_request *r)
{
	json_t *errors = send_errors_ahead(r), *values = send_values_ahead(r);
	CLEANUP_FREE char *ok = nodeset_format(&r->ok);
	json_t *m = json_pack("{s:I, s:b, s:s}", "re", r->id, "done", 1, "ok", ok ? ok : "");

	if (json_array_size(errors))
		json_object_set(m, "errors", errors);
	if (json_object_size(values))
		json_object_set(m, "values", values);
	json_decref(errors);
	json_decref(values);
	send_new(r, m);
}

/* Sends the answer when all have given theirs. True: the request is gone. */
static bool settle(struct tree_request *r)
{
	struct tree_request **link;

	if (!r->begun || r->here || r->legs)
		return false;
	if (r->member) {
		for (link = &r->member->requests; *link != r; link = &(*link)->next)
			;
		*link = r->next;
		if (r->id)
			send_answer(r);
	}
	request_free(r);
	return true;
}

static bool is_too_long(const json_t *value)
{
	return value && json_dumpb(value, NULL, 0, JSON_COMPACT | JSON_ENCODE_ANY) > TREE_VALUE_MAX;
}

static void fail_here(struct tree_request *r, int code, const char *reason, const json_t *more)
{
	json_t *entry = request_error(r->member->first, code, reason);

	if (entry && json_is_object(more) && !is_too_long(more))
		json_object_update_missing(entry, (json_t *)more);
	json_array_append_new(r->errors, entry);
}

void tree_answer(struct tree_request *r, int code, const char *reason, const json_t *value)
{
	char key[16];

	r->here = false;
	if (r->member && !code && is_too_long(value)) {
		code = -EMSGSIZE;
		reason = "the answer is too long";
	}
	if (r->member && code) {
		fail_here(r, code, reason, value);
	} else if (r->member && value) {
		snprintf(key, sizeof(key), "%u", r->member->first);
		json_object_set_new(r->values, key, json_deep_copy(value));
	} else if (r->member) {
		nodeset_add(&r->ok, r->member->first, r->member->first);
	}
	settle(r);
}

/* -------- asking -------- */

static void refuse(struct tree_member *m, json_int_t id, int code, const char *reason)
{
	json_t *answer = json_pack("{s:I, s:b, s:i, s:s}", "re", id, "done", 1, "errno", -code,
				   "error", reason);

	if (answer && m->above)
		conn_send(m->above, answer, NULL);
	json_decref(answer);
}

/* rest: what all children are sent alike. NULL: out of memory. */
static void add_leg(struct tree_request *r, struct tree_call *child, struct nodeset *waits,
		    const char *rest)
{
	CLEANUP_FREE char *to = nodeset_format(waits);
	struct leg *leg = calloc(1, sizeof(*leg));
	struct error err = {{0}};
	json_t *own = NULL;
	int rc = -ENOMEM;

	if (leg && rest && to) {
		*leg = (struct leg){r->legs, child, ++r->member->next_id, *waits};
		own = json_pack("{s:I, s:s}", "id", leg->id, "to", to);
		rc = own ? conn_send_with(child->conn, own, rest, &err) : -ENOMEM;
	}
	json_decref(own);
	if (rc == 0) {
		r->legs = leg;
		return;
	}
	fail_set(r, waits, rc, err.text[0] ? err.text : "out of memory");
	nodeset_done(waits);
	free(leg);
}

/* A new string, of the message without what each child has of its own. */
static char *write_rest(const json_t *message)
{
	json_t *rest = json_copy((json_t *)message);
	char *text;

	json_object_del(rest, "id");
	json_object_del(rest, "to");
	text = rest ? json_dumps(rest, JSON_COMPACT) : NULL;
	json_decref(rest);
	return text;
}

static void ask_child(struct tree_request *r, struct tree_call *child, const struct nodeset *to,
		      const json_t *message, char **rest)
{
	struct nodeset waits;
	struct error err;

	if (nodeset_slice(to, child->first, child->last, &waits) < 0 || !waits.n)
		return;
	if (child->state == CHILD_UP) {
		if (!*rest)
			*rest = write_rest(message);
		add_leg(r, child, &waits, *rest);
		return;
	}
	child_error(child, &err);
	fail_set(r, &waits, -EHOSTDOWN, err.text);
	nodeset_done(&waits);
}

/* Places that it is for, all of them of the share. */
static int get_to(const struct tree_member *m, const json_t *message, struct nodeset *ret,
		  struct error *err)
{
	const json_t *to = json_object_get(message, "to");
	struct nodeset share = {0};
	int rc = nodeset_add(&share, m->first, m->last);

	if (!to) {
		*ret = share;
		return rc;
	}
	if (rc == 0 && !json_is_string(to))
		rc = error_set(err, -EINVAL, "\"to\" is no list of nodes");
	if (rc == 0)
		rc = nodeset_parse(json_string_value(to), ret, err);
	if (rc == 0 && !nodeset_contains(&share, ret)) {
		nodeset_done(ret);
		rc = error_set(err, -EINVAL, "\"to\" names nodes that are not below: %u to %u are",
			       m->first, m->last);
	}
	nodeset_done(&share);
	return rc;
}

static void spread(struct tree_request *r, const struct nodeset *to, const json_t *message)
{
	struct tree_member *m = r->member;
	CLEANUP_FREE char *rest = NULL;

	for (struct tree_call *c = m->children; c; c = c->next)
		ask_child(r, c, to, message, &rest);
	r->begun = true;
	if (nodeset_has(to, m->first)) {
		r->here = true;
		m->params.ops->request(m->params.arg, r, message);
	} else {
		settle(r);
	}
}

static bool is_known(const struct tree_member *m, json_int_t id, unsigned *count)
{
	bool known = false;

	*count = 0;
	for (const struct tree_request *r = m->requests; r; r = r->next, (*count)++)
		known |= r->id == id;
	return known;
}

static void begin(struct tree_member *m, json_int_t id, const json_t *message)
{
	struct tree_request *r = calloc(1, sizeof(*r));
	struct nodeset to = {0};
	struct error err = {{0}};
	int rc = r ? get_to(m, message, &to, &err) : -ENOMEM;

	if (rc < 0) {
		refuse(m, id, rc, err.text[0] ? err.text : "out of memory");
		free(r);
		return;
	}
	*r = (struct tree_request){.next = m->requests,
				   .member = m,
				   .id = id,
				   .errors = json_array(),
				   .values = json_object()};
	m->requests = r;
	spread(r, &to, message);
	nodeset_done(&to);
}

void request_begin(struct tree_member *m, const json_t *message)
{
	json_int_t id = json_integer_value(json_object_get(message, "id"));
	unsigned count;

	if (id <= 0)
		conn_fail(m->above, -EPROTO, "a request without an id");
	else if (is_known(m, id, &count))
		conn_fail(m->above, -EPROTO, "a request with the id of another");
	else if (!json_is_string(json_object_get(message, "op")))
		conn_fail(m->above, -EPROTO, "a request without an op");
	else if (count >= REQUESTS_MAX)
		refuse(m, id, -EBUSY, "too many requests at once");
	else
		begin(m, id, message);
}

/* -------- answers of children -------- */

/* Places that were waited for are no longer; another is nobody's to answer for. */
static int take_places(struct leg *leg, const struct nodeset *set, struct error *err)
{
	if (!nodeset_contains(&leg->waits, set))
		return error_set(err, -EPROTO, "an answer of nodes that were not asked");
	return nodeset_subtract(&leg->waits, set);
}

static int take_place(struct leg *leg, json_int_t place, struct error *err)
{
	if (place < 0 || place >= NODESET_PLACES || !nodeset_has(&leg->waits, (uint32_t)place))
		return error_set(err, -EPROTO, "an answer of a node that was not asked");
	return nodeset_remove(&leg->waits, (uint32_t)place, (uint32_t)place);
}

static int take_ok(struct tree_request *r, struct leg *leg, const json_t *message,
		   struct error *err)
{
	const json_t *text = json_object_get(message, "ok");
	struct nodeset ok = {0};
	int rc;

	if (!text)
		return 0;
	if (!json_is_string(text))
		return error_set(err, -EPROTO, "\"ok\" is no list of nodes");
	rc = nodeset_parse(json_string_value(text), &ok, err);
	if (rc == 0)
		rc = take_places(leg, &ok, err);
	if (rc == 0)
		rc = nodeset_merge(&r->ok, &ok);
	nodeset_done(&ok);
	return rc;
}

static int take_errors(struct tree_request *r, struct leg *leg, const json_t *message,
		       struct error *err)
{
	json_t *entry;
	size_t i;
	int rc = 0;

	json_array_foreach (json_object_get(message, "errors"), i, entry) {
		json_t *place = json_object_get(entry, "node");

		rc = take_place(leg, json_is_integer(place) ? json_integer_value(place) : -1, err);
		if (rc < 0)
			break;
		json_array_append(r->errors, entry);
	}
	return rc;
}

static int take_values(struct tree_request *r, struct leg *leg, const json_t *message,
		       struct error *err)
{
	json_t *value;
	const char *key;
	struct nodeset place = {0};
	int rc = 0;

	json_object_foreach (json_object_get(message, "values"), key, value) {
		rc = nodeset_parse(key, &place, err);
		if (rc == 0 && nodeset_count(&place) != 1)
			rc = error_set(err, -EPROTO, "a value of no node");
		if (rc == 0)
			rc = take_places(leg, &place, err);
		nodeset_done(&place);
		if (rc < 0)
			break;
		json_object_set(r->values, key, value);
	}
	return rc;
}

static struct leg **find_leg(struct tree_call *child, json_int_t id, struct tree_request **ret)
{
	for (struct tree_request *r = child->member->requests; r; r = r->next)
		for (struct leg **l = &r->legs; *l; l = &(*l)->next)
			if ((*l)->child == child && (*l)->id == id) {
				*ret = r;
				return l;
			}
	return NULL;
}

static void end_leg(struct tree_request *r, struct leg **link, int code, const char *reason)
{
	struct leg *leg = *link;

	*link = leg->next;
	fail_set(r, &leg->waits, code, reason);
	leg_free(leg);
}

int request_hear(struct tree_call *child, const json_t *message, struct error *err)
{
	struct tree_request *r;
	struct leg **leg = find_leg(child, json_integer_value(json_object_get(message, "re")), &r);
	json_int_t code = json_integer_value(json_object_get(message, "errno"));
	const char *why = json_string_value(json_object_get(message, "error"));
	int rc;

	if (!leg)
		return error_set(err, -EPROTO, "an answer to nothing that was asked");
	rc = take_ok(r, *leg, message, err);
	if (rc == 0)
		rc = take_errors(r, *leg, message, err);
	if (rc == 0)
		rc = take_values(r, *leg, message, err);
	if (rc < 0 || !json_is_true(json_object_get(message, "done")))
		return rc;
	if (code > 0 && code < 4096)
		end_leg(r, leg, -(int)code, why ? why : "refused");
	else
		end_leg(r, leg, -EPROTO, "no answer");
	settle(r);
	return 0;
}

void request_child_lost(struct tree_call *child, const char *reason)
{
	for (struct tree_request *r = child->member->requests, *next; r; r = next) {
		struct leg **l = &r->legs;
		bool was = false;

		next = r->next;
		while (*l) {
			if ((*l)->child != child) {
				l = &(*l)->next;
				continue;
			}
			end_leg(r, l, -EHOSTDOWN, reason);
			was = true;
		}
		if (was)
			settle(r);
	}
}

void request_forget(struct tree_member *m)
{
	for (struct tree_request *r = m->requests; r; r = r->next)
		r->id = 0;
}

void request_orphan(struct tree_member *m)
{
	while (m->requests) {
		struct tree_request *r = m->requests;

		m->requests = r->next;
		r->member = NULL;
		while (r->legs) {
			struct leg *leg = r->legs;

			r->legs = leg->next;
			leg_free(leg);
		}
		if (!r->here)
			request_free(r);
	}
}
