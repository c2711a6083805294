/* SPDX-License-Identifier: Apache-2.0 */
/* Stages reserve and network: what every node keeps and makes for its VMs before they can start. */

#include <errno.h>
#include <sys/random.h>

#include "job/job.h"
#include "lib/cleanup.h"
#include "vms/subnet.h"

#define NETWORK_MS 120000u

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

json_t *job_reservation(const struct job *j, json_t *vms)
{
	return json_pack("{s:s, s:O, s:O*, s:O*, s:s, s:O, s:O, s:O*, s:o}", "op", "reserve",
			 "documents", j->spec.documents, "waivers", j->spec.waivers, "facts",
			 j->spec.facts, "digest", j->spec.digest, "environment",
			 j->spec.environment, "image", j->spec.image, "proof", j->spec.proof, "vms",
			 vms);
}

static json_t *reservation(const struct job *j, uint32_t place)
{
	return job_reservation(j, vms_at(j, place));
}

static void reserve(struct job *j)
{
	job_ask_each(j, reservation);
}

const struct stage stage_reserve = {.name = "reserve", .begin = reserve};

/* -------- network -------- */

static void add_range(json_t *list, uint32_t first, uint32_t last)
{
	char from[16], to[16];

	if (first == last)
		json_array_append_new(list, json_string(subnet_format(first, from)));
	else
		json_array_append_new(list, json_sprintf("%s-%s", subnet_format(first, from),
							 subnet_format(last, to)));
}

/* Neighbours in the list mostly have addresses that are, too: ranges of them, in its order. */
static json_t *addresses(const struct job *j)
{
	json_t *list = json_array();
	uint32_t first = 0, last = 0, address; /* 0.0.0.0 is nobody's */

	for (size_t i = 0; i < j->nnodes; i++) {
		const char *text = json_string_value(json_array_get(j->spec.addresses, i));

		if (!j->node[i].holds || !text || subnet_parse_ipv4(text, &address))
			continue;
		if (first && address != last + 1)
			add_range(list, first, last);
		if (!first || address != last + 1)
			first = address;
		last = address;
	}
	add_range(list, first, last);
	return list;
}

/* The same for all, and a network of this node alone where VMs could never come to another. */
json_t *job_network(const struct job *j, const char *places)
{
	json_t *request = json_pack("{s:s, s:I, s:s}", "op", "network", "vni", (json_int_t)j->vni,
				    "subnet", j->spec.subnet);

	if (j->nnodes - j->spec.others < 2) {
		json_object_set_new(request, "nodes", json_array());
	} else {
		json_object_set_new(request, "nodes", addresses(j));
		json_object_set_new(request, "places", json_string(places));
	}
	return request;
}

static void on_network(void *arg, const struct gather *answer)
{
	if (!job_failed(arg, answer, "network"))
		job_next(arg);
}

static void network(struct job *j)
{
	CLEANUP_FREE char *places = job_holders(j);

	for (size_t i = 0; i < j->nvms; i++)
		j->vm[i].state = VM_RESERVED;
	do {
		if (getrandom(&j->vni, sizeof(j->vni), 0) != sizeof(j->vni)) {
			job_fail(j, "no random numbers");
			return;
		}
		j->vni &= 0xffffff;
	} while (!j->vni);
	job_ask(j, job_network(j, places), NULL, NETWORK_MS, on_network);
}

const struct stage stage_network = {.name = "network", .begin = network};
