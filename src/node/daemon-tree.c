/* SPDX-License-Identifier: Apache-2.0 */
/*
 * This node's parts in the trees of clusters, one for each session of a coordinator: what comes
 * down is asked of the daemon as the coordinator's user, and who is below is called.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "channel/conn.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/log.h"
#include "node/daemon.h"
#include "node/dial.h"
#include "node/nodename.h"
#include "tree/tree.h"

/* A call to a child that is not answered. */
struct branch {
	struct branch *next;
	struct tree_session *of;
	struct tree_call *call;
	struct dial *dial;
};

struct tree_session {
	struct tree_session *next;
	struct daemon *d;
	struct asker who;
	struct tree_member *member;
	struct branch *branches;
	uint64_t orphaned_ns; /* when; 0: somebody is above */
};

static bool is_of(const struct tree_session *t, const struct asker *who)
{
	return t->who.uid == who->uid && !strcmp(t->who.session, who->session);
}

bool trees_have(const struct daemon *d, const struct asker *who)
{
	for (const struct tree_session *t = d->trees; t; t = t->next)
		if (is_of(t, who) && !t->orphaned_ns)
			return true;
	return false;
}

void trees_tell(struct daemon *d, const struct asker *who, json_t *event)
{
	for (struct tree_session *t = d->trees; t; t = t->next) {
		json_t *copy = is_of(t, who) ? json_copy(event) : NULL;

		if (!copy)
			continue;
		json_object_set_new(copy, "node", json_integer(tree_place(t->member)));
		tree_event(t->member, copy);
		json_decref(copy);
	}
}

/* -------- children -------- */

static void remove_branch(struct branch *b)
{
	struct branch **at = &b->of->branches;

	while (*at != b)
		at = &(*at)->next;
	*at = b->next;
	free(b);
}

static void on_dialled(void *arg, int code, const char *reason, struct conn *conn)
{
	struct branch *b = arg;
	struct tree_call *call = b->call;
	struct daemon *d = b->of->d;

	remove_branch(b);
	if (!code) {
		tree_connected(call, conn);
		return;
	}
	if (log_due(&d->unheard))
		log_warn(d->p.log, "tree", "%s", reason);
	tree_refused(call, reason);
}

static void on_connect(void *arg, const char *node, struct tree_call *call)
{
	struct tree_session *t = arg;
	struct branch *b = calloc(1, sizeof(*b));
	struct error err;
	int r = -ENOMEM;

	error_set(&err, r, "out of memory");
	if (b) {
		*b = (struct branch){.next = t->branches, .of = t, .call = call};
		t->branches = b;
		r = daemon_dial(t->d, node, on_dialled, b, &b->dial, &err);
	}
	if (!r)
		return;
	if (b)
		remove_branch(b);
	tree_refused(call, err.text);
}

static void on_cancel(void *arg, struct tree_call *call)
{
	struct tree_session *t = arg;

	for (struct branch *b = t->branches; b; b = b->next)
		if (b->call == call) {
			dial_cancel(b->dial);
			remove_branch(b);
			return;
		}
}

/* -------- requests -------- */

static void on_reply(const struct reply *reply, int code, const char *reason, json_t *value)
{
	tree_answer(reply->to, code, reason, value);
}

static void on_request(void *arg, struct tree_request *request, const json_t *message)
{
	struct tree_session *t = arg;
	struct reply model = {
		.asker = &t->who, .place = tree_place(t->member), .fn = on_reply, .to = request};
	struct reply *reply;
	struct error err;
	int r = reply_create(t->d, &model, &reply, &err);

	if (r)
		tree_answer(request, r, err.text, NULL);
	else
		daemon_request(t->d, reply, message);
}

/* -------- its life -------- */

static void session_free(struct tree_session *t)
{
	struct tree_session **at = &t->d->trees;

	while (*at != t)
		at = &(*at)->next;
	*at = t->next;
	replies_forget(t->d, &t->who);
	tree_destroy(t->member);
	free(t);
}

static void on_orphaned(void *arg)
{
	struct tree_session *t = arg;

	t->orphaned_ns = io_now_ns();
	daemon_leave(t->d, &t->who);
}

static void on_adopted(void *arg)
{
	struct tree_session *t = arg;

	t->orphaned_ns = 0;
	daemon_keep(t->d, &t->who);
}

static void on_over(void *arg)
{
	session_free(arg);
}

static const struct tree_ops ops = {on_connect,	 on_cancel,  on_request,
				    on_orphaned, on_adopted, on_over};

void trees_done(struct daemon *d)
{
	while (d->trees) {
		struct tree_session *t = d->trees;
		struct asker who = t->who;

		session_free(t);
		daemon_leave(d, &who);
	}
}

static struct tree_session *find(struct daemon *d, const struct asker *who)
{
	for (struct tree_session *t = d->trees; t; t = t->next)
		if (is_of(t, who))
			return t;
	return NULL;
}

/* One of too many of a user makes room, when nobody has it. */
static int make_room(struct daemon *d, uid_t uid, struct error *err)
{
	struct tree_session *oldest = NULL;
	unsigned n = 0;

	for (struct tree_session *t = d->trees; t; t = t->next) {
		if (t->who.uid != uid)
			continue;
		n++;
		if (t->orphaned_ns && (!oldest || t->orphaned_ns < oldest->orphaned_ns))
			oldest = t;
	}
	if (n < DAEMON_TREES)
		return 0;
	if (!oldest)
		return error_set(err, -EUSERS, "user %u is in %u trees of clusters here", uid, n);
	session_free(oldest);
	return 0;
}

static int session_new(struct daemon *d, const struct asker *who, struct tree_session **ret,
		       struct error *err)
{
	struct tree_params params = {.loop = d->p.loop, .ops = &ops, .grace_ms = d->p.grace * 1000};
	struct tree_session *t;
	int r = make_room(d, who->uid, err);

	if (r)
		return r;
	t = calloc(1, sizeof(*t));
	if (!t)
		return error_set(err, -ENOMEM, "out of memory");
	params.arg = t;
	*t = (struct tree_session){.next = d->trees, .d = d, .who = *who};
	r = tree_create(&params, &t->member, err);
	if (r) {
		free(t);
		return r;
	}
	d->trees = t;
	*ret = t;
	return 0;
}

/* -------- joins -------- */

/*
 * Whose a tree is goes down with the session: {"secret", "user"} between daemons, the secret alone
 * of a coordinator.
 */
static int take_session(const json_t *session, const struct asker *asker, struct asker *ret,
			struct error *err)
{
	const json_t *user = json_object_get(session, "user");
	const char *secret = json_string_value(
		json_is_object(session) ? json_object_get(session, "secret") : session);
	struct asker who = *asker;
	int r = session_check(secret, err);

	if (!r && user &&
	    (!json_is_integer(user) || json_integer_value(user) < 0 ||
	     json_integer_value(user) >= UINT32_MAX))
		r = error_set(err, -EINVAL, "the \"user\" of a session has to be a number");
	if (!r && user)
		r = user_may_be(&who, (uid_t)json_integer_value(user), err);
	if (r)
		return r;
	snprintf(who.session, sizeof(who.session), "%s", secret);
	*ret = who;
	return 0;
}

static int check_first(const struct daemon *d, const json_t *join, struct error *err)
{
	const char *first = json_string_value(json_array_get(json_object_get(join, "nodes"), 0));
	struct nodename node;
	int r;

	if (!first)
		return error_set(err, -EINVAL, "a join without nodes");
	r = nodename_parse(first, &node, err);
	if (!r && strcmp(node.name, d->p.name))
		r = error_set(err, -EINVAL, "the list of nodes begins with %s, and this is %s",
			      node.name, d->p.name);
	return r;
}

static json_t *with_session(const json_t *join, const struct asker *who)
{
	json_t *copy = json_copy((json_t *)join);
	json_t *session =
		json_pack("{s:s, s:I}", "secret", who->session, "user", (json_int_t)who->uid);

	if (!copy || json_object_set_new(copy, "session", session)) {
		json_decref(copy);
		return NULL;
	}
	return copy;
}

/* One that is refused, and never was in, is none. */
static void join_session(struct tree_session *t, bool is_new, struct conn *conn,
			 const json_t *message)
{
	tree_join(t->member, conn, message);
	if (!tree_reached(t->member))
		session_free(t);
	else if (is_new)
		daemon_keep(t->d, &t->who);
}

int trees_join(struct daemon *d, const struct asker *asker, struct conn *conn, const json_t *join,
	       struct error *err)
{
	struct tree_session *t = NULL;
	struct asker who;
	json_t *message;
	bool is_new;
	int r = take_session(json_object_get(join, "session"), asker, &who, err);

	if (!r)
		r = check_first(d, join, err);
	if (r)
		return r;
	message = with_session(join, &who);
	if (!message)
		return error_set(err, -ENOMEM, "out of memory");
	t = find(d, &who);
	is_new = !t;
	if (is_new)
		r = session_new(d, &who, &t, err);
	if (!r)
		join_session(t, is_new, conn, message);
	json_decref(message);
	return r;
}
