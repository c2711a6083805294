/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is left of the cluster that a checkpoint is of: it ends before another one has its VMs, as
 * both would write to the same volumes and say the same to the world.
 */

#include "job/former.h"

#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/io.h"

#define RELEASE_MS 60000u

static const char *former_id(const struct job *j)
{
	return json_string_value(json_object_get(j->spec.former, "id"));
}

static bool is_lost(const struct job *j, const char *name)
{
	const json_t *lost;
	size_t i;

	json_array_foreach (json_object_get(j->spec.former, "lost"), i, lost)
		if (!strcmp(json_string_value(lost), name))
			return true;
	return false;
}

static int find_place(const struct job *j, const char *name)
{
	for (size_t i = 0; i < j->nnodes; i++)
		if (!strcmp(j->node[i].name, name))
			return (int)i;
	return -1;
}

/* -------- who does not answer -------- */

struct silent {
	char *names;	 /* with commas; NULL: no memory for them */
	const char *why; /* of the first; NULL: there is nobody */
};

static void add_silent(struct silent *s, const char *name, const char *why)
{
	char *more = s->names ? io_format("%s,%s", s->names, name) : strdup(name);

	if (!s->why)
		s->why = why;
	free(s->names);
	s->names = more;
}

/* True: somebody is silent, and the job ends. */
static bool refuse(struct job *j, struct silent *s)
{
	const char *names = s->names ? s->names : "NODE";

	if (s->why)
		job_fail(j,
			 "%s had VMs of cluster %s, or got some later, and may have them yet: %s. "
			 "When nothing runs there any more, say so with --lost %s",
			 names, former_id(j), s->why, names);
	free(s->names);
	return s->why;
}

/* -------- the others -------- */

static void on_released(void *arg, const struct gather *answer)
{
	struct job *j = arg;
	struct silent silent = {0};
	const json_t *one;
	size_t i;

	if (answer->code) {
		job_failed(j, answer, "the end of what is left");
		return;
	}
	json_array_foreach (answer->errors, i, one)
		if (!is_lost(j, job_name_of(j, one)))
			add_silent(&silent, job_name_of(j, one),
				   json_string_value(json_object_get(one, "error")));
	if (!refuse(j, &silent))
		former_ended(j);
}

/*
 * Whoever is there is asked: who was said to be lost may be back. Who is not there must not have
 * had any of them, nor have got one since.
 */
static void choose(struct job *j, struct nodeset *ask, struct silent *silent)
{
	const json_t *name;
	size_t i;

	for (i = 0; i < j->nnodes; i++)
		if (!*j->node[i].gone.text)
			nodeset_add(ask, (uint32_t)i, (uint32_t)i);
	json_array_foreach (json_object_get(j->spec.former, "nodes"), i, name) {
		const char *text = json_string_value(name);
		int place = find_place(j, text);

		if ((place < 0 || *j->node[place].gone.text) && !is_lost(j, text))
			add_silent(silent, text,
				   place < 0 ? "it is not one of the nodes"
					     : j->node[place].gone.text);
	}
}

void former_end(struct job *j)
{
	struct silent silent = {0};
	struct nodeset ask = {0};
	CLEANUP_FREE char *to = NULL;

	choose(j, &ask, &silent);
	to = nodeset_format(&ask);
	nodeset_done(&ask);
	if (refuse(j, &silent))
		return;
	if (!to || !*to)
		former_ended(j);
	else
		nodes_ask(j->nodes,
			  json_pack("{s:s, s:s}", "op", "release", "cluster", former_id(j)), to,
			  RELEASE_MS, on_released, j);
}
