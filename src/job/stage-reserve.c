/* SPDX-License-Identifier: Apache-2.0 */
/* Stages reserve and network: what every node keeps and makes for its VMs before they can start. */

#include <errno.h>
#include <sys/random.h>

#include "job/job.h"

/* -------- reserve -------- */

static json_t *vms_at(const struct job *j, uint32_t place)
{
	json_t *list = json_array();

	for (size_t i = 0; i < j->nvms; i++)
		if (j->vm[i].place == place)
			json_array_append_new(list, json_pack("{s:s, s:s}", "name", j->vm[i].name,
							      "address", j->vm[i].address));
	return list;
}

static json_t *reservation(const struct job *j, uint32_t place)
{
	return json_pack("{s:s, s:O, s:O*, s:O*, s:s, s:O, s:O, s:O*, s:o}", "op", "reserve",
			 "documents", j->spec.documents, "waivers", j->spec.waivers, "facts",
			 j->spec.facts, "digest", j->spec.digest, "environment",
			 j->spec.environment, "image", j->spec.image, "proof", j->spec.proof, "vms",
			 vms_at(j, place));
}

static void reserve(struct job *j)
{
	job_ask_each(j, reservation);
}

const struct stage stage_reserve = {.name = "reserve", .begin = reserve};

/* -------- network -------- */

static size_t holders(const struct job *j)
{
	size_t n = 0;

	for (size_t i = 0; i < j->nnodes; i++)
		n += j->node[i].vms > 0;
	return n;
}

/* The addresses of all nodes with VMs, this one's first; none where there is no other. */
static json_t *addresses(const struct job *j, uint32_t place)
{
	json_t *list = json_array();

	if (holders(j) < 2)
		return list;
	json_array_append(list, json_array_get(j->spec.addresses, place));
	for (size_t i = 0; i < j->nnodes; i++)
		if (i != place && j->node[i].vms)
			json_array_append(list, json_array_get(j->spec.addresses, i));
	return list;
}

static json_t *network_of(const struct job *j, uint32_t place)
{
	return json_pack("{s:s, s:I, s:s, s:o}", "op", "network", "vni", (json_int_t)j->vni,
			 "subnet", j->spec.subnet, "nodes", addresses(j, place));
}

static void network(struct job *j)
{
	for (size_t i = 0; i < j->nvms; i++)
		j->vm[i].state = VM_RESERVED;
	do {
		if (getrandom(&j->vni, sizeof(j->vni), 0) != sizeof(j->vni)) {
			job_fail(j, "no random numbers");
			return;
		}
		j->vni &= 0xffffff;
	} while (!j->vni);
	job_ask_each(j, network_of);
}

const struct stage stage_network = {.name = "network", .begin = network};
