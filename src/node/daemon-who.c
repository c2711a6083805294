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

/* What a thread works on. */
struct question {
	uid_t uid;
	gid_t operators;
	bool found;
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

static bool is_member(const struct passwd *user, gid_t group)
{
	gid_t gids[GROUPS_MAX];
	int n = GROUPS_MAX;

	if (getgrouplist(user->pw_name, user->pw_gid, gids, &n) < 0)
		n = GROUPS_MAX;
	for (int i = 0; i < n; i++)
		if (gids[i] == group)
			return true;
	return false;
}

static void work(void *arg)
{
	struct question *q = arg;
	struct passwd user, *found = NULL;
	char text[16384];

	if (!getpwuid_r(q->uid, &user, text, sizeof(text), &found) && found)
		q->found = is_member(found, q->operators);
}

/* -------- what is known -------- */

static void remember(struct daemon *d, uid_t uid, bool yes)
{
	d->known[d->next_known++ % WHO_KNOWN] =
		(struct who_known){uid, yes, io_now_ns() + HOLDS_NS};
}

/* 1, 0, or -1: it is not known. */
static int is_operator(const struct daemon *d, uid_t uid)
{
	uint64_t now = io_now_ns();

	if (uid == 0 || uid == geteuid())
		return 1;
	if (d->p.operators == (gid_t)-1)
		return 0;
	for (unsigned i = 0; i < WHO_KNOWN; i++)
		if (d->known[i].uid == uid && d->known[i].until > now)
			return d->known[i].yes;
	return -1;
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

static void go_on(struct daemon *d, struct reply *reply, const json_t *request, bool yes)
{
	reply->who.operator= yes;
	if (reply->asker)
		request_do(d, reply, request);
	else
		drop(reply, -EPIPE, "who asked has gone");
}

static void finish(struct who_search *s, bool yes)
{
	struct deferred *list = s->first;
	struct daemon *d = s->d;

	remember(d, s->uid, yes);
	search_free(s);
	while (list) {
		struct deferred *one = list;

		list = one->next;
		go_on(d, one->reply, one->request, yes);
		json_decref(one->request);
		free(one);
	}
}

static void on_done(void *arg, uint32_t events)
{
	struct who_search *s = arg;

	finish(s, s->question->found);
}

static void on_timer(void *arg)
{
	struct who_search *s = arg;

	log_warn(s->d->p.log, "user", "the user database does not tell the groups of user %u",
		 s->uid);
	finish(s, false);
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
	r = offload_start(work, free, q, &s->offload, err);
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

	s = find(d, uid, &n);
	if (s || n >= QUESTIONS_MAX)
		return s;
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

void who_then_do(struct daemon *d, struct reply *reply, const json_t *request)
{
	int known = is_operator(d, reply->who.uid);
	struct who_search *s = known < 0 ? start(d, reply->who.uid) : NULL;

	if (!s || !defer(s, reply, request))
		go_on(d, reply, request, known > 0);
}

void who_done(struct daemon *d)
{
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
