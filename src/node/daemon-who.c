/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who asks, and who is an operator: what the user database says, which may be a server that does
 * not answer. Requests of users of whom it is not known wait, in their order; what was found holds
 * for a while.
 */

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/log.h"
#include "lib/loop.h"
#include "lib/offload.h"
#include "node/daemon.h"

#define SECOND_NS 1000000000ull
#define HOLDS_NS (60 * SECOND_NS)
#define PATIENCE_NS (5 * SECOND_NS) /* then a user is none */
#define QUESTIONS_MAX 32u	    /* at once; those that nobody waits for any more count not */
#define GROUPS_MAX 1024
#define ENTRY_MAX (1u << 20) /* bytes of a user or group, with its members */

/* What a thread works on. */
struct question {
	uid_t uid;
	gid_t operators;
	bool is_operator;
	json_t *facts; /* as in struct asker */
};

struct deferred {
	struct deferred *next;
	struct reply *reply;
	json_t *request;
};

/* A user who is being looked for. */
struct who_search {
	struct who_search *next;
	struct daemon *d;
	uid_t uid;
	struct question *question; /* the offload's */
	struct offload *offload;
	struct loop_source *on_done, *timer;
	struct deferred *first, **end;
};

int user_may_be(struct asker *who, uid_t uid, struct error *err)
{
	if (uid == who->uid)
		return 0;
	if (who->uid)
		return error_set(err, -EPERM, "user %u may not ask for user %u", who->uid, uid);
	if (geteuid())
		return error_set(err, -EPERM,
				 "this wispd is user %u's, and does nothing for user %u", geteuid(),
				 uid);
	who->uid = uid;
	return 0;
}

/* -------- in the thread -------- */

static void release(void *arg)
{
	struct question *q = arg;

	json_decref(q->facts);
	free(q);
}

static void add_group(struct question *q, gid_t gid)
{
	struct group group, *found = NULL;
	CLEANUP_FREE char *text = malloc(ENTRY_MAX);

	q->is_operator |= gid == q->operators;
	if (text && !getgrgid_r(gid, &group, text, ENTRY_MAX, &found) && found)
		json_array_append_new(json_object_get(q->facts, "groups"),
				      json_string(found->gr_name));
}

static void work(void *arg)
{
	struct question *q = arg;
	struct passwd user, *found = NULL;
	CLEANUP_FREE char *text = malloc(ENTRY_MAX);
	gid_t gids[GROUPS_MAX];
	int n = GROUPS_MAX;

	if (!text || getpwuid_r(q->uid, &user, text, ENTRY_MAX, &found) || !found)
		return;
	q->facts = json_pack("{s:s, s:[]}", "user", found->pw_name, "groups");
	if (getgrouplist(found->pw_name, found->pw_gid, gids, &n) < 0)
		n = GROUPS_MAX;
	for (int i = 0; i < n; i++)
		add_group(q, gids[i]);
}

/* -------- what is known -------- */

/* The facts are the thread's no more. */
static void remember(struct daemon *d, uid_t uid, struct question *q)
{
	struct who_known *k = &d->known[d->next_known++ % WHO_KNOWN];

	json_decref(k->facts);
	*k = (struct who_known){.uid = uid, .until = io_now_ns() + HOLDS_NS};
	if (q) {
		k->is_operator = q->is_operator;
		k->facts = take_ptr(q->facts);
	}
}

static const struct who_known *find_known(const struct daemon *d, uid_t uid)
{
	uint64_t now = io_now_ns();

	for (unsigned i = 0; i < WHO_KNOWN; i++)
		if (d->known[i].uid == uid && d->known[i].until > now)
			return &d->known[i];
	return NULL;
}

/* 1, 0, or -1: nobody has told yet. */
static int is_operator(const struct daemon *d, uid_t uid, const struct who_known *known)
{
	if (uid == 0 || uid == geteuid())
		return 1;
	if (d->p.operators == (gid_t)-1)
		return 0;
	return known ? known->is_operator : -1;
}

/* -------- searching -------- */

static void search_free(struct who_search *s)
{
	struct who_search **at = &s->d->searches;

	while (*at != s)
		at = &(*at)->next;
	*at = s->next;
	loop_remove(&s->on_done);
	loop_remove(&s->timer);
	offload_drop(&s->offload);
	free(s);
}

/* Nobody is there any more for whom it could be done. */
static void drop(struct reply *reply, int code, const char *reason)
{
	struct error err;

	error_set(&err, code, "%s", reason);
	reply_send(reply, code, NULL, &err);
}

static void go_on(struct daemon *d, struct reply *reply, const json_t *request)
{
	const struct who_known *known = find_known(d, reply->who.uid);

	reply->who.operator= is_operator(d, reply->who.uid, known) > 0;
	reply->who.facts = known ? json_incref(known->facts) : NULL;
	if (reply->asker)
		request_do(d, reply, request);
	else
		drop(reply, -EPIPE, "who asked has gone");
}

static void finish(struct who_search *s, struct question *q)
{
	struct deferred *list = s->first;
	struct daemon *d = s->d;

	remember(d, s->uid, q);
	search_free(s);
	while (list) {
		struct deferred *one = list;

		list = one->next;
		go_on(d, one->reply, one->request);
		json_decref(one->request);
		free(one);
	}
}

static void on_done(void *arg, uint32_t events)
{
	struct who_search *s = arg;

	finish(s, s->question);
}

static void on_timer(void *arg)
{
	struct who_search *s = arg;

	log_warn(s->d->p.log, "user", "the user database does not tell who user %u is", s->uid);
	finish(s, NULL);
}

static struct who_search *find(const struct daemon *d, uid_t uid, unsigned *n)
{
	struct who_search *s = d->searches;

	for (*n = 0; s && s->uid != uid; s = s->next)
		++*n;
	return s;
}

static int ask(struct who_search *s, struct error *err)
{
	struct loop *loop = s->d->p.loop;
	struct question *q = calloc(1, sizeof(*q));
	int r;

	if (!q)
		return -ENOMEM;
	*q = (struct question){.uid = s->uid, .operators = s->d->p.operators};
	r = offload_start(work, release, q, &s->offload, err);
	if (r) {
		free(q);
		return r;
	}
	s->question = q;
	r = loop_add_fd(loop, offload_fd(s->offload), EPOLLIN, on_done, s, &s->on_done);
	if (!r)
		r = loop_add_timer(loop, on_timer, s, &s->timer);
	return r ? r : loop_set_timer(s->timer, PATIENCE_NS, 0);
}

/* NULL: it cannot be. */
static struct who_search *start(struct daemon *d, uid_t uid)
{
	struct who_search *s;
	struct error err;
	unsigned n;

	find(d, uid, &n);
	if (n >= QUESTIONS_MAX)
		return NULL;
	s = calloc(1, sizeof(*s));
	if (!s)
		return NULL;
	*s = (struct who_search){.next = d->searches, .d = d, .uid = uid, .end = &s->first};
	d->searches = s;
	if (!ask(s, &err))
		return s;
	search_free(s);
	return NULL;
}

static bool defer(struct who_search *s, struct reply *reply, const json_t *request)
{
	struct deferred *one = malloc(sizeof(*one));

	if (!one)
		return false;
	*one = (struct deferred){NULL, reply, json_incref((json_t *)request)};
	*s->end = one;
	s->end = &one->next;
	return true;
}

/* Behind those of the same user that wait. */
void who_then_do(struct daemon *d, struct reply *reply, const json_t *request, bool facts)
{
	uid_t uid = reply->who.uid;
	const struct who_known *known = find_known(d, uid);
	unsigned n;
	struct who_search *s = find(d, uid, &n);

	if (!s && ((facts && !known) || is_operator(d, uid, known) < 0))
		s = start(d, uid);
	if (!s || !defer(s, reply, request))
		go_on(d, reply, request);
}

void who_done(struct daemon *d)
{
	for (unsigned i = 0; i < WHO_KNOWN; i++)
		json_decref(d->known[i].facts);
	while (d->searches) {
		struct deferred *list = d->searches->first;

		search_free(d->searches);
		while (list) {
			struct deferred *one = list;

			list = one->next;
			drop(one->reply, -ESHUTDOWN, "wispd ends");
			json_decref(one->request);
			free(one);
		}
	}
}
