/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of clusters: a process of the cluster's user on this node, by whose hands everything is
 * done to its VMs (docs/formats/node.md, "The part"). It may die at any moment, and VMs run on;
 * what was asked of it is answered then, and it is started anew where it is needed.
 */

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "channel/conn.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/log.h"
#include "lib/loop.h"
#include "lib/paths.h"
#include "node/cluster.h"
#include "node/daemon-cluster.h"
#include "node/daemon-splice.h"

#define SETUP 1
#define DEAD_MS 30000u /* its death is seen at once; this is of one that hangs */
#define DEATHS_MAX 5u  /* within a minute; then it stays dead for the rest of it */
#define MINUTE_NS 60000000000ull
#define AGAIN_NS 200000000ull

struct asked {
	struct asked *next;
	json_int_t id;
	part_fn *fn;
	void *arg;
	uint32_t stream; /* that it was asked to connect, or 0 */
};

struct part {
	struct cluster *c;
	struct helper_call *call; /* its process */
	struct conn *conn;	  /* NULL: it has none, or is about to end */
	struct loop_source *again;
	json_int_t last;
	struct asked *asked;
	unsigned deaths;
	uint64_t since; /* the first of them */
	bool unwanted;	/* it is being ended */
};

/* -------- what it was asked -------- */

static void answer_all(struct part *p, int code, const char *reason)
{
	struct asked *list = p->asked;

	p->asked = NULL;
	while (list) {
		struct asked *one = list;

		list = one->next;
		one->fn(one->arg, code, reason, NULL);
		free(one);
	}
}

static struct asked *take_asked(struct part *p, json_int_t id)
{
	for (struct asked **at = &p->asked; *at; at = &(*at)->next)
		if ((*at)->id == id) {
			struct asked *one = *at;

			*at = one->next;
			return one;
		}
	return NULL;
}

/* -------- its end -------- */

/* Whoever asks next starts it; where VMs run nobody has to. */
static void come_back(struct part *p)
{
	json_t *vms = NULL;
	bool wanted = !p->unwanted && !p->c->end && p->deaths < DEATHS_MAX &&
		      !cluster_vms(p->c->d->store, p->c->id, &vms, NULL) && json_array_size(vms);

	json_decref(vms);
	if (wanted)
		loop_set_timer(p->again, AGAIN_NS << p->deaths, 0);
}

static void note_death(struct part *p, const char *reason)
{
	uint64_t now = io_now_ns();

	if (!p->deaths || now - p->since > MINUTE_NS) {
		p->since = now;
		p->deaths = 0;
	}
	p->deaths++;
	if (!p->unwanted)
		log_warn(p->c->d->p.log, "part", "%s: %s", p->c->id, reason);
}

static void drop_conn(struct part *p)
{
	if (p->conn)
		streams_gone(p->c->d, p->conn);
	conn_destroy(take_ptr(p->conn));
}

static void part_gone(struct part *p, int code, const char *reason)
{
	helper_forget(&p->call);
	drop_conn(p);
	note_death(p, reason);
	come_back(p);
	answer_all(p, code, reason);
}

static void kill_it(struct part *p)
{
	if (p->call)
		kill(helper_pid(p->call), SIGKILL);
}

static void on_ended(void *arg, int status)
{
	struct part *p = arg;
	struct error err;

	p->call = NULL;
	if (WIFSIGNALED(status))
		error_set(&err, -ECONNRESET, "wisp-part of %s was ended by signal %d (%s)",
			  p->c->id, WTERMSIG(status), strsignal(WTERMSIG(status)));
	else
		error_set(&err, -ECONNRESET, "wisp-part of %s ended with %d", p->c->id,
			  WEXITSTATUS(status));
	part_gone(p, -ECONNRESET, err.text);
}

/* -------- what it says -------- */

static void on_answer(struct part *p, json_t *message)
{
	struct asked *one = take_asked(p, json_integer_value(json_object_get(message, "re")));
	int code = -(int)json_integer_value(json_object_get(message, "errno"));
	const char *reason = json_string_value(json_object_get(message, "error"));

	if (!one) {
		conn_fail(p->conn, -EPROTO, "an answer to nothing that was asked");
		return;
	}
	if (code && one->stream)
		conn_end(p->conn, one->stream);
	one->fn(one->arg, code < 0 ? code : code ? -EPROTO : 0, reason ? reason : "", message);
	free(one);
}

static void on_message(void *arg, json_t *message)
{
	struct part *p = arg;
	const char *event = json_string_value(json_object_get(message, "event"));

	if (json_object_get(message, "re"))
		on_answer(p, message);
	else if (event && !strcmp(event, "reset"))
		splice_reset(p->c->d, p->conn,
			     (uint32_t)json_integer_value(json_object_get(message, "stream")));
	else if (event)
		life_event(p->c, message);
	else
		conn_fail(p->conn, -ENOSYS, "a part has nothing to ask for");
}

static void on_data(void *arg, uint32_t stream, const uint8_t *data, size_t n)
{
	struct part *p = arg;

	splice_data(p->c->d, p->conn, stream, data, n);
}

static void on_sent(void *arg, uint32_t stream, size_t n)
{
	struct part *p = arg;

	splice_sent(p->c->d, p->conn, stream, n);
}

/* What ends the connection is soon the end of the process: that tells more. */
static void on_closed(void *arg, int code, const char *reason)
{
	struct part *p = arg;

	drop_conn(p);
	if (code)
		log_warn(p->c->d->p.log, "part", "%s: %s", p->c->id, reason);
	kill_it(p);
	if (!p->call)
		part_gone(p, -ECONNRESET, reason);
}

static const struct conn_ops conn_ops = {on_message, on_data, on_sent, on_closed};

/* -------- its beginning -------- */

static int ask_of(struct part *p, json_t *request, uint32_t stream, part_fn *fn, void *arg,
		  struct error *err)
{
	struct asked *one = malloc(sizeof(*one));
	int r = one ? 0 : error_set(err, -ENOMEM, "out of memory");

	if (r)
		return r;
	*one = (struct asked){p->asked, ++p->last, fn, arg, stream};
	json_object_set_new(request, "id", json_integer(one->id));
	r = conn_send(p->conn, request, err);
	if (r) {
		free(one);
		return r;
	}
	p->asked = one;
	return 0;
}

static int ask(struct part *p, json_t *request, part_fn *fn, void *arg, struct error *err)
{
	return ask_of(p, request, 0, fn, arg, err);
}

/* One that does not take its setup is of no use. */
static void on_set_up(void *arg, int code, const char *reason, json_t *answer)
{
	struct part *p = arg;

	if (!code || !p->conn)
		return;
	log_error(p->c->d->p.log, "part", "%s: setup: %s", p->c->id, reason);
	answer_all(p, code, reason);
	kill_it(p);
}

static void on_started(void *arg, int code, const char *reason)
{
	struct part *p = arg;

	if (!code)
		return;
	p->call = NULL;
	part_gone(p, code, reason);
}

static const struct helper_ops helper_ops = {on_started, on_ended};

static int send_setup(struct part *p, struct error *err)
{
	const struct daemon *d = p->c->d;
	CLEANUP_FREE char *socket = realpath(d->p.socket, NULL);
	json_t *setup = NULL;
	int r = cluster_setup(&p->c->d->alloc, p->c->id, &setup, err);

	if (r)
		return r;
	json_object_set_new(setup, "op", json_string("setup"));
	json_object_set_new(setup, "node", json_string(d->p.name));
	json_object_set_new(json_object_get(setup, "network"), "made",
			    json_boolean(d->p.networks != NULL));
	json_object_set_new(setup, "cgroup",
			    p->c->grouped
				    ? json_sprintf("%s/wisp.slice/job-%s", d->p.cgroups, p->c->id)
				    : json_null());
	json_object_set_new(setup, "socket", socket ? json_string(socket) : json_null());
	r = ask(p, setup, on_set_up, p, err);
	json_decref(setup);
	return r;
}

static int start_process(struct part *p, int socket, struct error *err)
{
	CLEANUP_FREE char *program = NULL;
	json_t *job;
	int r = paths_program("wisp-part", &program, err);

	if (r)
		return r;
	job = cluster_become(p->c, "part", json_pack("[s]", program));
	json_object_set_new(job, "socket", json_true());
	r = helper_start(&p->c->d->helpers, job, socket, &helper_ops, p, &p->call, err);
	json_decref(job);
	return r;
}

static int connect_part(struct part *p, int fd, struct error *err)
{
	const struct conn_params params = {.loop = p->c->d->p.loop,
					   .in = fd,
					   .out = fd,
					   .ops = &conn_ops,
					   .arg = p,
					   .dead_ms = DEAD_MS};

	return conn_create(&params, &p->conn, err);
}

static int begin(struct part *p, struct error *err)
{
	CLEANUP_CLOSE int ours = -1;
	CLEANUP_CLOSE int theirs = -1;
	int pair[2], r;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return error_errno(err, -errno, "cannot start wisp-part");
	ours = pair[0];
	theirs = pair[1];
	/* Other faults of the group hinder VMs that start, not those that run. */
	r = group_make(p->c, err);
	if (r != -ENOSPC)
		r = connect_part(p, ours, err);
	if (r)
		return r;
	take_fd(&ours);
	r = send_setup(p, err);
	if (!r)
		r = start_process(p, theirs, err);
	if (r) {
		conn_destroy(take_ptr(p->conn));
		free(take_asked(p, p->last));
	}
	return r;
}

static void on_again(void *arg)
{
	struct part *p = arg;
	struct error err;

	if (part_start(p->c, &err))
		log_error(p->c->d->p.log, "part", "%s: %s", p->c->id, err.text);
}

static int part_create(struct cluster *c, struct error *err)
{
	struct part *p = calloc(1, sizeof(*p));
	int r = p ? loop_add_timer(c->d->p.loop, on_again, p, &p->again) : -ENOMEM;

	if (r) {
		free(p);
		return error_errno(err, r, "cannot start wisp-part");
	}
	p->c = c;
	c->part = p;
	return 0;
}

int part_start(struct cluster *c, struct error *err)
{
	struct part *p;
	int r = c->part ? 0 : part_create(c, err);

	if (r)
		return r;
	p = c->part;
	if (p->conn)
		return 0;
	if (p->call)
		return error_set(err, -EAGAIN, "wisp-part of %s is ending: ask again", c->id);
	if (p->deaths >= DEATHS_MAX && io_now_ns() - p->since < MINUTE_NS)
		return error_set(err, -EAGAIN,
				 "wisp-part of %s has ended %u times within a minute: see its log",
				 c->id, p->deaths);
	loop_set_timer(p->again, 0, 0);
	return begin(p, err);
}

int part_ask(struct cluster *c, const json_t *request, part_fn *fn, void *arg, struct error *err)
{
	json_t *copy;
	int r = part_start(c, err);

	if (r)
		return r;
	copy = json_copy((json_t *)request);
	if (!copy)
		return error_set(err, -ENOMEM, "out of memory");
	json_object_del(copy, "to");
	r = ask(c->part, copy, fn, arg, err);
	json_decref(copy);
	return r;
}

/* It does without: what is asked of a VM that it does not know fails. */
static void on_told(void *arg, int code, const char *reason, json_t *answer)
{
	const struct cluster *c = arg;

	if (code && c->part && !c->part->unwanted)
		log_warn(c->d->p.log, "part", "%s: %s", c->id, reason);
}

void part_tell_vms(struct cluster *c)
{
	json_t *setup = NULL, *request = NULL;
	struct error err = {"out of memory"};
	int r;

	if (!c || c->end || !part_is_there(c))
		return;
	r = cluster_setup(&c->d->alloc, c->id, &setup, &err);
	if (!r)
		request = json_pack("{s:s, s:O, s:O}", "op", "vms", "vms",
				    json_object_get(setup, "vms"), "grants",
				    json_object_get(setup, "grants"));
	if (!r)
		r = request ? ask(c->part, request, on_told, c, &err) : -ENOMEM;
	if (r)
		log_error(c->d->p.log, "part", "%s: %s", c->id, err.text);
	json_decref(setup);
	json_decref(request);
}

bool part_is_there(const struct cluster *c)
{
	return c->part && c->part->conn;
}

void part_end(struct cluster *c)
{
	struct part *p = c->part;

	if (!p)
		return;
	p->unwanted = true;
	loop_set_timer(p->again, 0, 0);
	kill_it(p);
}

void part_destroy(struct cluster *c)
{
	struct part *p = c->part;

	if (!p)
		return;
	c->part = NULL;
	helper_forget(&p->call);
	drop_conn(p);
	loop_remove(&p->again);
	answer_all(p, -ESHUTDOWN, "wispd ends");
	free(p);
}

int part_connect(struct daemon *d, const struct asker *who, const json_t *request, part_fn *fn,
		 void *arg, struct conn **conn, uint32_t *stream, struct error *err)
{
	struct cluster *c = NULL;
	json_t *copy = NULL;
	uint32_t number = 0;
	int r = cluster_of_request(d, who, request, &c, err);

	if (!r)
		r = part_start(c, err);
	if (!r) {
		number = conn_next_stream(c->part->conn, 0);
		r = conn_open(c->part->conn, number, err);
	}
	if (r)
		return r;
	copy = json_copy((json_t *)request);
	if (copy)
		json_object_set_new(copy, "stream", json_integer(number));
	r = copy ? ask_of(c->part, copy, number, fn, arg, err)
		 : error_set(err, -ENOMEM, "out of memory");
	json_decref(copy);
	if (r) {
		conn_end(c->part->conn, number);
		return r;
	}
	*conn = c->part->conn;
	*stream = number;
	return 0;
}
