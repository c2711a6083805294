/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stage image: the nodes with VMs are asked whether they have the image, and those that do not are
 * told whom to fetch it from (image/plan.h).
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "image/plan.h"
#include "job/job.h"

#define IMAGE_MS (3600u * 1000)
#define AT_ONCE 64u
#define SOURCES 8u
#define MIB_SHIFT 20

/* A node with VMs. */
struct fetcher {
	uint32_t place;
	bool has;
	uint64_t done, total; /* bytes, as far as it has told */
};

struct images {
	struct fetcher *node;
	size_t n, next; /* next: of the plan, to be asked */
	struct image_plan plan;
};

static int create(struct job *j)
{
	struct images *m = j->images = calloc(1, sizeof(*m));

	if (m)
		m->node = calloc(j->nnodes, sizeof(*m->node));
	if (!m || !m->node)
		return -ENOMEM;
	for (size_t i = 0; i < j->nnodes; i++)
		if (j->node[i].vms)
			m->node[m->n++] = (struct fetcher){.place = (uint32_t)i, .has = true};
	return 0;
}

static void leave(struct job *j)
{
	struct images *m = j->images;

	j->images = NULL;
	if (!m)
		return;
	image_plan_done(&m->plan);
	free(m->node);
	free(m);
}

/* -------- progress -------- */

/* Who will fetch much has not said so at the beginning. */
static void tell_progress(struct job *j)
{
	const struct images *m = j->images;
	uint64_t done = 0, total = 0;

	for (size_t i = 0; i < m->n; i++) {
		done += m->node[i].done;
		total += m->node[i].total;
	}
	terminals_tell(j->terminals,
		       json_pack("{s:s, s:s, s:I, s:I, s:s}", "event", "progress", "stage", "image",
				 "done", (json_int_t)(done >> MIB_SHIFT), "of",
				 (json_int_t)(total >> MIB_SHIFT), "unit", "MiB"));
}

static struct fetcher *find(const struct images *m, const json_t *place)
{
	for (size_t i = 0; m && json_is_integer(place) && i < m->n; i++)
		if (m->node[i].place == json_integer_value(place))
			return &m->node[i];
	return NULL;
}

void image_hear(struct job *j, const json_t *event)
{
	json_int_t done = json_integer_value(json_object_get(event, "done"));
	json_int_t total = json_integer_value(json_object_get(event, "total"));
	struct fetcher *node = find(j->images, json_object_get(event, "node"));

	if (!node || done < 0 || total < done)
		return;
	node->done = (uint64_t)done;
	node->total = (uint64_t)total;
	tell_progress(j);
}

/* -------- fetching -------- */

static json_t *sources(const struct job *j, size_t node)
{
	const struct images *m = j->images;
	size_t found[SOURCES], n = image_plan_sources(&m->plan, node, found, SOURCES);
	json_t *list = json_array();

	for (size_t i = 0; i < n && i < SOURCES; i++)
		json_array_append(list, json_array_get(j->spec.nodes, m->node[found[i]].place));
	return list;
}

static void fetch_some(struct job *j);

static void on_fetched(void *arg, const struct gather *answer)
{
	struct job *j = arg;

	j->waits--;
	if (!job_failed(j, answer, "image"))
		fetch_some(j);
}

/* In the order of the plan: whom a node fetches from has been asked before it. */
static void fetch_some(struct job *j)
{
	struct images *m = j->images;

	for (; j->waits < AT_ONCE && m->next < m->n; m->next++) {
		size_t node = m->plan.node_at[m->next];
		char to[16];

		snprintf(to, sizeof(to), "%u", m->node[node].place);
		j->waits++;
		job_ask(j,
			json_pack("{s:s, s:o, s:o}", "op", "image", "image", job_image(j), "from",
				  sources(j, node)),
			to, IMAGE_MS, on_fetched);
	}
	if (!j->waits)
		job_next(j);
}

static int plan(struct images *m, struct error *err)
{
	bool *has = calloc(m->n + 1, sizeof(*has));
	int r;

	if (!has)
		return error_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; i < m->n; i++)
		has[i] = m->node[i].has;
	r = image_plan_make(has, m->n, IMAGE_FAN, &m->plan, err);
	m->next = m->plan.roots;
	free(has);
	return r;
}

static void fetch(struct job *j)
{
	const char *name = json_string_value(json_object_get(j->spec.image, "name"));
	struct error err;
	int r = plan(j->images, &err);

	if (r == -ENODATA)
		job_fail(j,
			 "image: none of the nodes that get VMs has %s: let one that has it take a "
			 "VM, or put it into a place of images that all see (WISP_STORE)",
			 name);
	else if (r)
		job_fail(j, "image: %s", err.text);
	else
		fetch_some(j);
}

/* -------- who has it -------- */

/* Of an error that says no more than that it is not there. */
static bool lacks(struct job *j, const json_t *error)
{
	struct fetcher *node = find(j->images, json_object_get(error, "node"));

	if (!node || json_integer_value(json_object_get(error, "errno")) != ENOENT)
		return false;
	node->has = false;
	return true;
}

static void on_known(void *arg, const struct gather *answer)
{
	struct job *j = arg;
	const json_t *one;
	bool fine = !answer->code;
	size_t i;

	json_array_foreach (answer->errors, i, one)
		fine &= lacks(j, one);
	if (!fine)
		job_failed(j, answer, "image");
	else if (json_array_size(answer->errors))
		fetch(j);
	else
		job_next(j);
}

static void image(struct job *j)
{
	if (create(j)) {
		job_fail(j, "out of memory");
		return;
	}
	job_ask(j, json_pack("{s:s, s:o}", "op", "image", "image", job_image(j)), NULL, 0,
		on_known);
}

const struct stage stage_image = {.name = "image", .begin = image, .leave = leave};
