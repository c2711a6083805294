/* SPDX-License-Identifier: Apache-2.0 */
/* Who is above, who is below, and who has gone. */

#include "tree/member.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "channel/conn.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/loop.h"

#define MS 1000000ull
#define CALL_MS 4000u
#define RETRY_MS 5000u
#define RETRY_MS_MAX 60000u
#define GRACE_MS 30000u
#define NODE_MAX 255u /* characters of a name */
#define FAN_MIN 16u

const char *member_node(const struct tree_member *m, uint32_t place)
{
	return json_string_value(json_array_get(m->nodes, place - m->first));
}

/* -------- what is said upwards -------- */

void tree_event(struct tree_member *m, json_t *event)
{
	if (m->above)
		conn_send(m->above, event, NULL);
}

static void tell_nodes(struct tree_member *m, const char *event, const struct nodeset *set)
{
	CLEANUP_FREE char *text = nodeset_format(set);
	json_t *message =
		text && set->n ? json_pack("{s:s, s:s}", "event", event, "nodes", text) : NULL;

	if (message)
		tree_event(m, message);
	json_decref(message);
}

/* Everybody who is reached at this moment. */
static int collect(const struct tree_member *m, struct nodeset *ret)
{
	int rc = nodeset_add(ret, m->first, m->first);

	for (const struct tree_call *c = m->children; c; c = c->next)
		for (size_t i = 0; rc == 0 && c->state == CHILD_UP && i < c->reached.n; i++)
			rc = nodeset_add(ret, c->reached.range[i].first, c->reached.range[i].last);
	return rc;
}

uint32_t tree_place(const struct tree_member *m)
{
	return m->first;
}

uint32_t tree_reached(const struct tree_member *m)
{
	struct nodeset now = {0};
	uint32_t count = m->nodes && collect(m, &now) == 0 ? nodeset_count(&now) : 0;

	nodeset_done(&now);
	return count;
}

static uint64_t messages_of(const struct conn *conn)
{
	struct conn_counts counts = conn ? conn_counts(conn) : (struct conn_counts){0};

	return counts.messages_in + counts.messages_out;
}

uint64_t tree_messages(const struct tree_member *m)
{
	uint64_t count = messages_of(m->above);

	for (const struct tree_call *c = m->children; c; c = c->next)
		count += messages_of(c->conn);
	return count;
}

/* Who was reached and is not, and the other way round. */
static void tell_changes(struct tree_member *m)
{
	struct nodeset now = {0}, lost = {0}, back = {0};

	if (m->join || !m->nodes)
		return;
	if (collect(m, &now) == 0 && nodeset_merge(&lost, &m->told) == 0 &&
	    nodeset_subtract(&lost, &now) == 0 && nodeset_merge(&back, &now) == 0 &&
	    nodeset_subtract(&back, &m->told) == 0) {
		tell_nodes(m, "node-lost", &lost);
		tell_nodes(m, "node-back", &back);
		nodeset_done(&m->told);
		m->told = now;
		now = (struct nodeset){0};
	}
	nodeset_done(&now);
	nodeset_done(&lost);
	nodeset_done(&back);
}

void child_error(const struct tree_call *c, struct error *ret)
{
	error_set(ret, 0, "%s is not reached%s%s", member_node(c->member, c->first),
		  c->why ? ": " : "", c->why ? c->why : "");
}

static void add_lost(json_t *errors, const struct tree_call *c, uint32_t place)
{
	struct error err;

	if (place == c->first)
		child_error(c, &err);
	else
		error_set(&err, 0, "%s is not reached", member_node(c->member, place));
	json_array_append_new(errors, request_error(place, -EHOSTDOWN, err.text));
}

/* Each place but our own is of one child's share. */
static json_t *errors_of_lost(const struct tree_member *m, const struct nodeset *reached)
{
	json_t *errors = json_array();

	for (const struct tree_call *c = m->children; c; c = c->next)
		for (uint32_t p = c->first; p <= c->last; p++)
			if (!nodeset_has(reached, p))
				add_lost(errors, c, p);
	return errors;
}

/* Whether each child has been reached or given up once. Who was is not looked at again. */
static bool are_settled(struct tree_member *m)
{
	struct tree_call *c = m->unsettled;

	while (c && c->state != CHILD_JOINING && (c->state == CHILD_UP || c->tries))
		c = c->next;
	m->unsettled = c;
	return !c;
}

/* The join is answered when each child that there is has been reached or given up. */
static void settle_join(struct tree_member *m)
{
	struct nodeset now = {0};
	CLEANUP_FREE char *ok = NULL;
	json_t *answer;

	if (!m->join || !m->above || !are_settled(m))
		return;
	if (collect(m, &now) < 0) {
		nodeset_done(&now);
		return;
	}
	ok = nodeset_format(&now);
	answer = json_pack("{s:I, s:b, s:s, s:o}", "re", m->join, "done", 1, "ok", ok ? ok : "",
			   "errors", errors_of_lost(m, &now));
	m->join = 0;
	nodeset_done(&m->told);
	m->told = now;
	tree_event(m, answer);
	json_decref(answer);
}

/* -------- children -------- */

static void child_ended(struct tree_call *c, const char *reason);

static const char *text_of(const json_t *m, const char *key)
{
	const char *text = json_string_value(json_object_get(m, key));

	return text ? text : "";
}

/* Its share's places that are in a list of its own. */
static int get_places(const struct tree_call *c, const json_t *message, const char *key,
		      struct nodeset *ret, struct error *err)
{
	struct nodeset share = {0};
	int rc = nodeset_parse(text_of(message, key), ret, err);

	if (rc == 0)
		rc = nodeset_add(&share, c->first, c->last);
	if (rc == 0 && !nodeset_contains(&share, ret))
		rc = error_set(err, -EPROTO, "it tells of nodes that are not below it");
	nodeset_done(&share);
	return rc;
}

static void send_event(struct conn *conn, const char *event)
{
	json_t *m = json_pack("{s:s}", "event", event);

	if (m)
		conn_send(conn, m, NULL);
	json_decref(m);
}

static int hear_joined(struct tree_call *c, const json_t *message, struct error *err)
{
	struct nodeset reached = {0};
	int rc = get_places(c, message, "ok", &reached, err);

	if (rc == 0 && !nodeset_has(&reached, c->first))
		rc = error_set(err, -EPROTO, "it does not join: %s", text_of(message, "error"));
	if (rc < 0) {
		nodeset_done(&reached);
		return rc;
	}
	nodeset_done(&c->reached);
	c->reached = reached;
	c->state = CHILD_UP;
	c->tries = 0;
	if (c->member->orphaned)
		send_event(c->conn, "above-lost");
	settle_join(c->member);
	tell_changes(c->member);
	return 0;
}

static int hear_changes(struct tree_call *c, const json_t *message, bool back, struct error *err)
{
	struct nodeset set = {0};
	int rc = get_places(c, message, "nodes", &set, err);

	if (rc == 0)
		rc = back ? nodeset_merge(&c->reached, &set) : nodeset_subtract(&c->reached, &set);
	nodeset_done(&set);
	tell_changes(c->member);
	return rc;
}

static int hear_event(struct tree_call *c, json_t *message, struct error *err)
{
	const char *event = text_of(message, "event");

	if (!strcmp(event, "node-lost") || !strcmp(event, "node-back"))
		return hear_changes(c, message, !strcmp(event, "node-back"), err);
	tree_event(c->member, message);
	return 0;
}

static void child_message(void *arg, json_t *message)
{
	struct tree_call *c = arg;
	struct error err = {{0}};
	int rc;

	if (json_object_get(message, "event"))
		rc = hear_event(c, message, &err);
	else if (c->state == CHILD_JOINING &&
		 json_integer_value(json_object_get(message, "re")) == c->join)
		rc = hear_joined(c, message, &err);
	else
		rc = request_hear(c, message, &err);
	if (rc < 0)
		conn_fail(c->conn, rc, err.text[0] ? err.text : "out of memory");
}

static void no_data(void *arg, uint32_t stream, const uint8_t *data, size_t n)
{
}

static void child_closed(void *arg, int code, const char *reason)
{
	child_ended(arg, reason);
}

static const struct conn_ops child_ops = {child_message, no_data, NULL, child_closed};

static void drop_child(struct tree_call *c)
{
	if (c->state == CHILD_CALLED)
		c->member->params.ops->cancel(c->member->params.arg, c);
	conn_destroy(take_ptr(c->conn));
	loop_remove(&c->timer);
	nodeset_done(&c->reached);
	free(c->why);
}

static void drop_children(struct tree_member *m)
{
	while (m->children) {
		struct tree_call *c = m->children;

		request_child_lost(c, "the tree is made anew");
		m->children = c->next;
		drop_child(c);
		free(c);
	}
	m->end = &m->children;
	m->unsettled = NULL;
}

static void call(struct tree_call *c);

static void on_child_timer(void *arg)
{
	struct tree_call *c = arg;

	if (c->state == CHILD_LOST) {
		call(c);
		return;
	}
	c->member->params.ops->cancel(c->member->params.arg, c);
	child_ended(c, "no connection in time");
}

static void set_timer(struct tree_call *c, uint64_t ms)
{
	loop_remove(&c->timer);
	/* Without a timer a call has no end and a lost child is not called again. */
	if (loop_add_timer(c->member->params.loop, on_child_timer, c, &c->timer) == 0)
		loop_set_timer(c->timer, ms * MS, 0);
}

static void call(struct tree_call *c)
{
	struct tree_member *m = c->member;

	c->state = CHILD_CALLED;
	set_timer(c, m->params.call_ms);
	m->params.ops->connect(m->params.arg, member_node(m, c->first), c);
}

/* Children for these places, in as equal shares as can be. They are not called yet. */
static void add_children(struct tree_member *m, uint32_t first, uint32_t last)
{
	uint64_t n = (uint64_t)last - first + 1, parts = n < m->fan ? n : m->fan;

	for (uint64_t i = 0; i < parts; i++) {
		struct tree_call *c = calloc(1, sizeof(*c));

		if (!c)
			return;
		c->member = m;
		c->state = CHILD_LOST;
		c->first = first + (uint32_t)(n * i / parts);
		c->last = first + (uint32_t)(n * (i + 1) / parts) - 1;
		*m->end = c;
		m->end = &c->next;
		if (!m->unsettled)
			m->unsettled = c;
	}
}

/* Those of n from this one on that never were. A child that is refused at once adds to the list. */
static void call_new(struct tree_call *c, uint32_t n)
{
	for (; c && n; c = c->next, n--)
		if (c->state == CHILD_LOST && !c->timer && !c->tries)
			call(c);
}

/* What was behind a child that is lost becomes our own children: the first of them, or NULL. */
static struct tree_call *take_over(struct tree_call *c)
{
	uint32_t first = c->first + 1, last = c->last;
	struct tree_call **at = c->member->end;

	c->last = c->first;
	if (first <= last)
		add_children(c->member, first, last);
	return *at;
}

static void child_ended(struct tree_call *c, const char *reason)
{
	struct tree_member *m = c->member;
	struct tree_call *added;
	bool was_up = c->state == CHILD_UP;
	uint64_t wait = (uint64_t)m->params.retry_ms << (c->tries < 8 ? c->tries : 8);
	struct error err;

	error_set(&err, -EHOSTDOWN, "%s is lost: %s", member_node(m, c->first), reason);
	free(c->why);
	c->why = strdup(reason); /* before the connection goes, whose it may be */
	conn_destroy(take_ptr(c->conn));
	nodeset_done(&c->reached);
	c->state = CHILD_LOST;
	c->tries++;
	set_timer(c, wait < RETRY_MS_MAX ? wait : RETRY_MS_MAX);
	request_child_lost(c, err.text);
	added = take_over(c);
	if (was_up)
		tell_changes(m);
	call_new(added, m->fan);
	settle_join(m);
}

void tree_refused(struct tree_call *c, const char *reason)
{
	child_ended(c, reason);
}

static json_t *names_of(const struct tree_call *c)
{
	json_t *names = json_array();

	for (uint32_t p = c->first; p <= c->last; p++)
		json_array_append(names, json_array_get(c->member->nodes, p - c->member->first));
	return names;
}

void tree_connected(struct tree_call *c, struct conn *conn)
{
	struct tree_member *m = c->member;
	json_t *join;

	loop_remove(&c->timer);
	c->conn = conn;
	c->state = CHILD_JOINING;
	c->join = ++m->next_id;
	conn_set_ops(conn, &child_ops, c);
	join = json_pack("{s:s, s:I, s:O, s:I, s:o, s:I}", "op", "join", "id", c->join, "session",
			 m->session, "place", (json_int_t)c->first, "nodes", names_of(c), "fan",
			 (json_int_t)m->fan);
	/* What cannot be sent ends the connection, or says nothing, which ends it as well. */
	if (!join || conn_send(conn, join, NULL) < 0)
		conn_fail(conn, -EPROTO, "the tree cannot be told");
	json_decref(join);
}

/* -------- above -------- */

static void tell_children(struct tree_member *m, const char *event)
{
	for (struct tree_call *c = m->children; c; c = c->next)
		if (c->state == CHILD_UP)
			send_event(c->conn, event);
}

static void orphan(struct tree_member *m)
{
	if (m->orphaned)
		return;
	m->orphaned = true;
	loop_set_timer(m->grace, m->params.grace_ms * MS, 0);
	tell_children(m, "above-lost");
	m->params.ops->orphaned(m->params.arg);
}

static void adopt(struct tree_member *m)
{
	if (!m->orphaned)
		return;
	m->orphaned = false;
	loop_set_timer(m->grace, 0, 0);
	tell_children(m, "above-back");
	m->params.ops->adopted(m->params.arg);
}

static void on_grace(void *arg)
{
	struct tree_member *m = arg;

	m->params.ops->over(m->params.arg);
}

static void above_message(void *arg, json_t *message)
{
	struct tree_member *m = arg;
	const char *event = text_of(message, "event");

	if (json_object_get(message, "op"))
		request_begin(m, message);
	else if (!strcmp(event, "above-lost"))
		orphan(m);
	else if (!strcmp(event, "above-back"))
		adopt(m);
	else if (!*event)
		conn_fail(m->above, -EPROTO, "an answer to nothing that was asked");
}

static void above_closed(void *arg, int code, const char *reason)
{
	struct tree_member *m = arg;

	conn_destroy(take_ptr(m->above));
	m->join = 0;
	request_forget(m);
	orphan(m);
}

static const struct conn_ops above_ops = {above_message, no_data, NULL, above_closed};

/* Of a connection that is refused: nobody hears it. */
static void refused_message(void *arg, json_t *message)
{
}

static void refused_closed(void *arg, int code, const char *reason)
{
	conn_destroy(arg);
}

static const struct conn_ops refused_ops = {refused_message, no_data, NULL, refused_closed};

static int check_names(const json_t *nodes, struct error *err)
{
	json_t *name;
	size_t i;

	json_array_foreach (nodes, i, name) {
		size_t n = json_string_length(name);

		if (!n || n > NODE_MAX || strlen(json_string_value(name)) != n)
			return error_set(err, -EINVAL, "a join with a node that has no name");
	}
	return 0;
}

struct join {
	json_int_t id, first, fan;
	json_t *nodes, *session;
};

static int parse_join(const json_t *message, struct join *ret, struct error *err)
{
	struct join j = {.id = json_integer_value(json_object_get(message, "id")),
			 .first = json_integer_value(json_object_get(message, "place")),
			 .nodes = json_object_get(message, "nodes"),
			 .session = json_object_get(message, "session")};
	const json_t *fan = json_object_get(message, "fan");
	size_t n = json_array_size(j.nodes);

	if (j.id <= 0 || !j.session)
		return error_set(err, -EINVAL, "a join without id or session");
	j.fan = fan ? json_integer_value(fan) : tree_fan((uint32_t)n);
	if (j.fan < 2 || j.fan > TREE_FAN_MAX)
		return error_set(err, -EINVAL, "a join with a fan that is not 2 to %u",
				 TREE_FAN_MAX);
	if (!n || n > NODESET_PLACES || j.first < 0 || j.first > (json_int_t)(NODESET_PLACES - n))
		return error_set(err, -EINVAL,
				 "a join without nodes, or with places that cannot be");
	*ret = j;
	return check_names(j.nodes, err);
}

static bool is_same(const struct tree_member *m, const struct join *j)
{
	return m->nodes && m->first == (uint32_t)j->first && m->fan == (uint32_t)j->fan &&
	       json_equal(m->nodes, j->nodes);
}

/* Another share: nothing of the earlier one is kept, and who is below has gone elsewhere. */
static void take_share(struct tree_member *m, const struct join *j)
{
	drop_children(m);
	json_decref(m->nodes);
	m->nodes = json_incref(j->nodes);
	m->first = (uint32_t)j->first;
	m->last = m->first + (uint32_t)json_array_size(j->nodes) - 1;
	m->fan = (uint32_t)j->fan;
	if (m->last > m->first)
		add_children(m, m->first + 1, m->last);
}

static void refuse_join(struct conn *above, json_int_t id, int code, const char *reason)
{
	json_t *answer = json_pack("{s:I, s:b, s:i, s:s}", "re", id, "done", 1, "errno", -code,
				   "error", reason);

	conn_set_ops(above, &refused_ops, above);
	if (answer)
		conn_send(above, answer, NULL);
	json_decref(answer);
	conn_finish(above);
}

void tree_join(struct tree_member *m, struct conn *above, const json_t *message)
{
	struct error err = {{0}};
	struct join j = {0};
	int rc = parse_join(message, &j, &err);

	if (rc < 0) {
		refuse_join(above, json_integer_value(json_object_get(message, "id")), rc,
			    err.text);
		return;
	}
	if (above != m->above) {
		conn_destroy(take_ptr(m->above));
		request_forget(m);
	}
	m->above = above;
	conn_set_ops(above, &above_ops, m);
	json_decref(m->session);
	m->session = json_incref(j.session);
	if (!is_same(m, &j))
		take_share(m, &j);
	m->join = j.id;
	m->unsettled = m->children;
	adopt(m);
	call_new(m->children, UINT32_MAX);
	settle_join(m);
}

uint32_t tree_fan(uint32_t nodes)
{
	uint32_t fan = FAN_MIN;

	/* Two levels have room for fan + fan^2. */
	while (fan < TREE_FAN_MAX && fan + fan * fan < nodes - 1)
		fan++;
	return fan;
}

int tree_create(const struct tree_params *params, struct tree_member **ret, struct error *err)
{
	struct tree_member *m = calloc(1, sizeof(*m));
	int rc;

	if (!m)
		return error_set(err, -ENOMEM, "out of memory");
	m->params = *params;
	m->end = &m->children;
	m->params.call_ms = params->call_ms ? params->call_ms : CALL_MS;
	m->params.retry_ms = params->retry_ms ? params->retry_ms : RETRY_MS;
	m->params.grace_ms = params->grace_ms ? params->grace_ms : GRACE_MS;
	rc = loop_add_timer(params->loop, on_grace, m, &m->grace);
	if (rc < 0) {
		free(m);
		return error_errno(err, rc, "a member of the tree on the event loop");
	}
	*ret = m;
	return 0;
}

void tree_destroy(struct tree_member *m)
{
	if (!m)
		return;
	conn_destroy(take_ptr(m->above));
	request_orphan(m);
	drop_children(m);
	loop_remove(&m->grace);
	nodeset_done(&m->told);
	json_decref(m->session);
	json_decref(m->nodes);
	free(m);
}
