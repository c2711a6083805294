/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_TREE_TEST_SIM_H
#define WISP_TREE_TEST_SIM_H

/*
 * Many nodes in one process, and who is above them: each node is a member, and calls go by socket
 * pairs. A node does what requests say: "echo" (done), "place" (a value), "fail", "hang".
 */

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "channel/conn.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/loop.h"
#include "tree/tree.h"

struct sim;

struct sim_node {
	struct sim *sim;
	struct tree_member *member;
	bool gone;		    /* calls are refused */
	bool deaf;		    /* calls are never answered */
	struct tree_request *hangs; /* that it does not answer */
	unsigned asked, orphaned, adopted, over;
};

struct sim {
	struct loop *loop;
	struct sim_node *node;
	unsigned n, fan;
	unsigned grace_ms;
	struct conn *top; /* the coordinator's end */
	bool top_closed;
	char reason[256];
	json_t *answer; /* the last one with done */
	json_t *parts;	/* all before it */
	json_t *events;
	json_int_t id;
};

static void sim_die(const char *what)
{
	fprintf(stderr, "the simulation fails: %s\n", what);
	abort();
}

static struct conn *sim_conn(struct sim *sim, int fd, const struct conn_ops *ops, void *arg)
{
	struct conn_params p = {.loop = sim->loop, .in = fd, .out = fd, .ops = ops, .arg = arg};
	struct conn *conn;
	struct error err;

	if (conn_create(&p, &conn, &err) < 0)
		sim_die(err.text);
	return conn;
}

/* A connection whose first message has not come. */
struct sim_door {
	struct sim_node *node;
	struct conn *conn;
};

static void door_message(void *arg, json_t *message)
{
	struct sim_door *d = arg;

	if (d->node->member)
		tree_join(d->node->member, d->conn, message);
	else
		conn_destroy(d->conn);
	free(d);
}

static void door_closed(void *arg, int code, const char *reason)
{
	struct sim_door *d = arg;

	conn_destroy(d->conn);
	free(d);
}

static void sim_no_data(void *arg, uint32_t stream, const uint8_t *data, size_t n)
{
}

static const struct conn_ops door_ops = {door_message, sim_no_data, NULL, door_closed};

static int sim_call(struct sim *sim, struct sim_node *node)
{
	struct sim_door *d = calloc(1, sizeof(*d));
	int s[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s))
		sim_die("socketpair");
	d->node = node;
	d->conn = sim_conn(sim, s[1], &door_ops, d);
	return s[0];
}

static const struct conn_ops sim_no_ops = {NULL, sim_no_data, NULL, NULL};

static void node_connect(void *arg, const char *name, struct tree_call *call)
{
	struct sim_node *self = arg;
	struct sim_node *node = &self->sim->node[atoi(name + 1)];

	if (node->gone)
		tree_refused(call, "connection refused");
	else if (!node->deaf)
		tree_connected(call,
			       sim_conn(self->sim, sim_call(self->sim, node), &sim_no_ops, NULL));
}

static void node_cancel(void *arg, struct tree_call *call)
{
}

static void node_request(void *arg, struct tree_request *request, const json_t *message)
{
	struct sim_node *node = arg;
	const char *op = json_string_value(json_object_get(message, "op"));
	json_t *value;

	node->asked++;
	if (!strcmp(op, "hang")) {
		node->hangs = request;
	} else if (!strcmp(op, "fail")) {
		value = json_pack("{s:s, s:i}", "missing", "threads", "node", 7777);
		tree_answer(request, -EBUSY, "core 4 is held by another", value);
		json_decref(value);
	} else if (!strcmp(op, "place")) {
		value = json_integer(node - node->sim->node);
		tree_answer(request, 0, NULL, value);
		json_decref(value);
	} else if (!strcmp(op, "echo")) {
		tree_answer(request, 0, NULL, NULL);
	} else {
		tree_answer(request, -ENOSYS, "no such op", NULL);
	}
}

static void node_orphaned(void *arg)
{
	((struct sim_node *)arg)->orphaned++;
}

static void node_adopted(void *arg)
{
	((struct sim_node *)arg)->adopted++;
}

static void node_over(void *arg)
{
	((struct sim_node *)arg)->over++;
}

static const struct tree_ops sim_node_ops = {node_connect,  node_cancel,  node_request,
					     node_orphaned, node_adopted, node_over};

static void top_message(void *arg, json_t *message)
{
	struct sim *sim = arg;

	if (json_object_get(message, "event")) {
		json_array_append(sim->events, message);
	} else if (!json_is_true(json_object_get(message, "done"))) {
		json_array_append(sim->parts, message);
	} else {
		json_decref(sim->answer);
		sim->answer = json_incref(message);
	}
}

static void top_closed(void *arg, int code, const char *reason)
{
	struct sim *sim = arg;

	sim->top_closed = true;
	snprintf(sim->reason, sizeof(sim->reason), "%s", reason);
	conn_destroy(take_ptr(sim->top));
}

static const struct conn_ops top_ops = {top_message, sim_no_data, NULL, top_closed};

static void sim_start(struct sim *sim, unsigned i)
{
	struct sim_node *node = &sim->node[i];
	struct tree_params p = {.loop = sim->loop,
				.ops = &sim_node_ops,
				.arg = node,
				.call_ms = 200,
				.retry_ms = 300,
				.grace_ms = sim->grace_ms};

	*node = (struct sim_node){.sim = sim};
	if (tree_create(&p, &node->member, NULL) < 0)
		sim_die("a member");
}

static inline void sim_kill(struct sim *sim, unsigned i)
{
	struct sim_node *node = &sim->node[i];

	node->gone = true;
	tree_destroy(take_ptr(node->member));
	if (node->hangs)
		tree_answer(take_ptr(node->hangs), 0, NULL, NULL);
}

static struct sim *sim_create(unsigned n, unsigned fan)
{
	struct sim *sim = calloc(1, sizeof(*sim));
	struct rlimit limit;

	signal(SIGPIPE, SIG_IGN);
	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	if (loop_create(&sim->loop) < 0)
		sim_die("the loop");
	sim->n = n;
	sim->fan = fan;
	sim->grace_ms = 400;
	sim->node = calloc(n, sizeof(*sim->node));
	sim->events = json_array();
	sim->parts = json_array();
	for (unsigned i = 0; i < n; i++)
		sim_start(sim, i);
	return sim;
}

static void sim_destroy(struct sim *sim)
{
	conn_destroy(sim->top);
	for (unsigned i = 0; i < sim->n; i++)
		if (sim->node[i].member)
			sim_kill(sim, i);
	/* Doors that are still open see the end. */
	for (unsigned i = 0; i < 10 || loop_run_once(sim->loop, 0) > 0; i++)
		loop_run_once(sim->loop, 0);
	loop_destroy(sim->loop);
	json_decref(sim->answer);
	json_decref(sim->events);
	json_decref(sim->parts);
	free(sim->node);
	free(sim);
}

static json_int_t sim_send(struct sim *sim, json_t *message)
{
	struct error err;

	json_decref(sim->answer);
	sim->answer = NULL;
	json_array_clear(sim->parts);
	json_object_set_new(message, "id", json_integer(++sim->id));
	if (conn_send(sim->top, message, &err) < 0)
		sim_die(err.text);
	json_decref(message);
	return sim->id;
}

/* The coordinator calls a node and makes it the tree's root, of all from it on. */
static void sim_join(struct sim *sim, unsigned place)
{
	json_t *names = json_array();
	char name[16];

	for (unsigned i = place; i < sim->n; i++) {
		snprintf(name, sizeof(name), "n%u", i);
		json_array_append_new(names, json_string(name));
	}
	conn_destroy(take_ptr(sim->top));
	sim->top_closed = false;
	sim->top = sim_conn(sim, sim_call(sim, &sim->node[place]), &top_ops, sim);
	sim_send(sim, json_pack("{s:s, s:s, s:i, s:o, s:i}", "op", "join", "session", "test",
				"place", (int)place, "nodes", names, "fan", (int)sim->fan));
}

#endif
