/* SPDX-License-Identifier: Apache-2.0 */
/* The end of a cluster whose coordinator is not there any more, or could not reach all nodes. */

#include "cli/cluster-lost.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/random.h>

#include "job/folder.h"
#include "job/nodelist.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "node/ask.h"
#include "tree/tree.h"

#define RANDOM 16u
#define PATIENCE_S 120u

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

bool cluster_is_held(const char *folder)
{
	json_t *state = folder_state(folder), *node;
	bool held = false;
	size_t i;

	json_array_foreach (json_object_get(state, "nodes"), i, node)
		held = held || json_is_true(json_object_get(node, "holds"));
	json_decref(state);
	return held;
}

/* This node, to begin with, and those that had VMs. */
static json_t *nodes_of(const json_t *state)
{
	const json_t *first = json_array_get(json_object_get(state, "nodes"), 0), *vm;
	json_t *list = json_pack("[s]", text_of(first, "name"));
	char name[64];
	size_t i;

	json_array_foreach (json_object_get(state, "vms"), i, vm) {
		json_t *entry = json_object_get(vm, "entry");

		if (json_is_string(entry) &&
		    nodelist_find(list,
				  nodelist_name(json_string_value(entry), name, sizeof(name))) < 0)
			json_array_append(list, entry);
	}
	return list;
}

static int make_session(char session[2 * RANDOM + 1], struct error *err)
{
	uint8_t random[RANDOM];

	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		return error_errno(err, -errno, "no random numbers");
	for (size_t i = 0; i < sizeof(random); i++)
		snprintf(session + 2 * i, 3, "%02x", random[i]);
	return 0;
}

/* Through the tree; whoever fails is named. Takes the request. */
static int ask_all(struct ask *daemon, const json_t *nodes, json_t *request, struct error *err)
{
	json_t *answer = NULL, *one;
	char name[64];
	int r = ask(daemon, request, &answer, err);

	one = r ? NULL : json_array_get(json_object_get(answer, "errors"), 0);
	if (one) {
		size_t place = (size_t)json_integer_value(json_object_get(one, "node"));
		const char *entry = json_string_value(json_array_get(nodes, place));

		r = error_set(err, -EHOSTDOWN, "node %s: %s",
			      entry ? nodelist_name(entry, name, sizeof(name)) : "?",
			      text_of(one, "error"));
	}
	json_decref(answer);
	json_decref(request);
	return r;
}

static int end_at(struct ask *daemon, const char *id, const json_t *nodes, struct error *err)
{
	char session[2 * RANDOM + 1];
	int r = make_session(session, err);

	if (r)
		return r;
	ask_set_patience(daemon, PATIENCE_S);
	r = ask_all(daemon, nodes,
		    json_pack("{s:s, s:s, s:i, s:O}", "op", "join", "session", session, "place", 0,
			      "nodes", nodes),
		    err);
	/* Of those that are not there the others need not wait. */
	if (r && r != -EHOSTDOWN)
		return r;
	return ask_all(daemon, nodes, json_pack("{s:s, s:s}", "op", "release", "cluster", id), err);
}

int cluster_end_lost(const char *folder, struct error *err)
{
	json_t *state = folder_state(folder), *nodes = nodes_of(state);
	struct ask *daemon = NULL;
	int r = ask_open(text_of(state, "socket"), &daemon, err);

	if (!r)
		r = end_at(daemon, text_of(state, "id"), nodes, err);
	ask_close(daemon);
	json_decref(nodes);
	json_decref(state);
	return r;
}
