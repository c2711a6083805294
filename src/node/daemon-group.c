/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control groups of clusters: what the kernel holds them to is what the store says they were
 * granted, whenever that changes. Where the machine has no groups, or not all controllers, that is
 * told once and the cluster runs without.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/log.h"
#include "lib/parse.h"
#include "lib/tree.h"
#include "node/alloc.h"
#include "node/cgroup.h"
#include "node/claim.h"
#include "node/cluster.h"
#include "node/daemon-cluster.h"
#include "node/isolate.h"
#include "node/store.h"
#include "node/topology.h"

#define CPUS_TEXT 4096

/* docs/design/clusters.md, Resources: beside the memory of guests. */
#define OF_CLUSTER (256ull << 20) /* part, keeper, movers, the files they read and write */
#define OF_VM (128ull << 20)	  /* wisp-vmm, virtiofsd */
#define OF_MEMORY 64		  /* the kernel's tables: one of so many bytes */
#define PIDS_OF_CLUSTER 256
#define PIDS_OF_VM 64 /* and its vCPUs */

/* What a cluster's group is to have. */
struct wanted {
	cpu_set_t cpus;
	cpu_set_t nodes; /* NUMA */
	bool shared;	 /* a VM of it shares its CPUs */
	bool nowhere;	 /* no CPU is left for it */
	uint64_t memory;
	unsigned pids;
};

static uint64_t memory_of(const json_t *vm, cpu_set_t *nodes)
{
	const json_t *node;
	uint64_t n = 0;
	size_t i;

	json_array_foreach (json_object_get(vm, "nodes"), i, node) {
		n += (uint64_t)json_integer_value(json_object_get(node, "memory"));
		CPU_SET((size_t)json_integer_value(json_object_get(node, "node")), nodes);
	}
	return n;
}

/* Huge pages are reserved beforehand, and no part of memory.max. */
static void add_vm(struct wanted *w, const json_t *vm)
{
	const char *cpus = json_string_value(json_object_get(vm, "cpus"));
	uint64_t memory = memory_of(vm, &w->nodes);
	cpu_set_t set;

	if (cpus && *cpus && !parse_cpulist(cpus, &set, NULL))
		CPU_OR(&w->cpus, &w->cpus, &set);
	w->shared = w->shared || !json_is_true(json_object_get(vm, "dedicated"));
	if (json_integer_value(json_object_get(vm, "page-size")) == CLAIM_BASE)
		w->memory += memory;
	w->memory += memory / OF_MEMORY + OF_VM;
	w->pids += (unsigned)json_integer_value(json_object_get(vm, "vcpus")) + PIDS_OF_VM;
}

/* -------- making -------- */

bool groups_usable(const struct daemon *d)
{
	CLEANUP_FREE char *path = d->p.cgroups ? io_format("%s/cgroup.procs", d->p.cgroups) : NULL;

	return path && !access(path, W_OK);
}

static void complain(struct daemon *d, const char *what, const char *text)
{
	if (log_due(&d->ungrouped))
		log_warn(d->p.log, "group", "%s: %s", what, text);
}

/* All CPUs but those of the host, which have to be some for a partition: whether it is one. */
static bool make_slice(struct daemon *d)
{
	const struct topology *t = d->p.topology;
	struct cgroup_set set = {.alone = CPU_COUNT(&d->p.host) > 0};
	char cpus[CPUS_TEXT];
	struct cgroup_got got;
	struct error err;
	cpu_set_t all;

	CPU_ZERO(&all);
	for (unsigned i = 0; i < t->ncores; i++)
		for (unsigned k = 0; k < t->cores[i].ncpus; k++)
			if (!CPU_ISSET(t->cores[i].cpus[k], &d->p.host))
				CPU_SET(t->cores[i].cpus[k], &all);
	set.cpus = format_cpulist(&all, cpus, sizeof(cpus));
	if (!cgroup_slice(d->p.cgroups, &set, &got, &err))
		return strcmp(got.partition, "member") != 0;
	complain(d, "wisp.slice", err.text);
	return false;
}

/* Whether VMs with cores of their own have them, and nobody else: as far as the kernel can do it.
 */
static int check_alone(struct cluster *c, const struct wanted *w, const char *cpus, bool partitions,
		       const struct cgroup_got *got, struct error *err)
{
	cpu_set_t others;

	CPU_XOR(&others, &got->cpus, &w->cpus);
	CPU_AND(&others, &others, &got->cpus);
	if (CPU_COUNT(&others))
		return error_set(err, -EBUSY, "the kernel keeps %s away from its CPUs %s", c->id,
				 cpus);
	if (partitions && !strcmp(got->partition, "member"))
		return error_set(err, -EBUSY, "the CPUs %s are not %s's alone: %s", cpus, c->id,
				 got->why);
	if (strcmp(got->partition, "isolated"))
		complain(c->d, c->id, got->why);
	return 0;
}

static int make_job(struct cluster *c, const struct wanted *w, bool partitions, struct error *err)
{
	char cpus[CPUS_TEXT], nodes[CPUS_TEXT];
	struct cgroup_set set = {.memory = w->memory, .pids = w->pids, .alone = !w->shared};
	CLEANUP_FREE char *procs =
		io_format("%s/wisp.slice/job-%s/cgroup.procs", c->d->p.cgroups, c->id);
	struct cgroup_got got;
	int r;

	set.cpus = format_cpulist(&w->cpus, cpus, sizeof(cpus));
	set.mems = CPU_COUNT(&w->nodes) ? format_cpulist(&w->nodes, nodes, sizeof(nodes)) : NULL;
	r = cgroup_job(c->d->p.cgroups, c->id, &set, c->user, (gid_t)-1, &got, err);
	/* Without a controller the group is there all the same, to be counted and killed by. */
	c->grouped = procs && !access(procs, F_OK);
	if (r == -EOPNOTSUPP || (r && !set.alone)) {
		complain(c->d, c->id, err->text);
		return 0;
	}
	return r || !set.alone ? r : check_alone(c, w, cpus, partitions, &got, err);
}

/*
 * Whose VMs here have all ended has no cores of its own any more: it runs where shared VMs do,
 * whatever of it still runs. Where all CPUs are others' it is to name none of them, and to end.
 */
static int want_rest(struct cluster *c, struct wanted *w, struct error *err)
{
	int r = alloc_shared(&c->d->alloc, &w->cpus, err);

	w->shared = true;
	w->nowhere = !r && !CPU_COUNT(&w->cpus);
	if (w->nowhere)
		w->cpus = c->d->p.host;
	return r;
}

static int want(struct cluster *c, struct wanted *ret, struct error *err)
{
	json_t *lease = NULL, *vm;
	size_t i;
	int r = alloc_describe(&c->d->alloc, c->id, &lease, err);

	*ret = (struct wanted){.memory = OF_CLUSTER, .pids = PIDS_OF_CLUSTER};
	json_array_foreach (json_object_get(lease, "vms"), i, vm)
		add_vm(ret, vm);
	if (!r && !i)
		r = want_rest(c, ret, err);
	json_decref(lease);
	return r;
}

int group_make(struct cluster *c, struct error *err)
{
	struct wanted w;
	int r;

	if (!groups_usable(c->d))
		return 0;
	r = want(c, &w, err);
	if (!r && CPU_COUNT(&w.cpus))
		r = make_job(c, &w, make_slice(c->d), err);
	if (r || !w.nowhere)
		return r;
	cgroup_kill(c->d->p.cgroups, c->id, NULL, NULL);
	return error_set(err, -ENOSPC,
			 "all CPUs of %s are other clusters', and %s has no VM there (any more)",
			 c->d->p.name, c->id);
}

/* -------- who owns what has changed -------- */

static int take_cpu(const struct store_row *row, void *arg)
{
	CPU_SET((size_t)store_int(row, 0), (cpu_set_t *)arg);
	return 0;
}

static void move_interrupts(struct daemon *d)
{
	struct isolate_interrupts told = {0};
	cpu_set_t online, dedicated;
	struct error err;
	int r;

	if (!d->p.interrupts)
		return;
	CPU_ZERO(&dedicated);
	CPU_ZERO(&online);
	for (unsigned i = 0; i < d->p.topology->ncores; i++)
		for (unsigned k = 0; k < d->p.topology->cores[i].ncpus; k++)
			CPU_SET(d->p.topology->cores[i].cpus[k], &online);
	r = store_each(d->store, take_cpu, &dedicated, &err, "SELECT cpu FROM cpu", "");
	if (!r)
		r = isolate_interrupts(d->p.root, d->p.interrupts, &online, &dedicated, &told,
				       &err);
	if (r)
		log_error(d->p.log, "group", "interrupts: %s", err.text);
	else if (told.refused && log_due(&d->unmoved))
		log_info(d->p.log, "group", "%u interrupt(s) stay where they are (number %u first)",
			 told.refused, told.first);
}

/* How many have not got what they are to have. */
static unsigned make_all(struct daemon *d, bool tell)
{
	unsigned n = 0;
	struct error err;

	for (struct cluster *c = d->clusters; c; c = c->next) {
		if (!c->grouped || c->end || !group_make(c, &err))
			continue;
		n++;
		if (tell)
			complain(d, c->id, err.text);
	}
	return n;
}

void groups_refresh(struct daemon *d)
{
	/* One can have CPUs once another has them no more. */
	if (make_all(d, false))
		make_all(d, true);
	move_interrupts(d);
}

int groups_recover(struct daemon *d, struct error *err)
{
	json_t *all = NULL, *id;
	struct cluster *c;
	size_t i;
	int r = groups_usable(d) ? cluster_all_made(d->store, &all, err) : 0;

	json_array_foreach (all, i, id) {
		if (!r)
			r = cluster_get(d, json_string_value(id), &c, err);
		if (!r) {
			CLEANUP_FREE char *path =
				io_format("%s/wisp.slice/job-%s", d->p.cgroups, c->id);

			c->grouped = path && !access(path, F_OK);
		}
	}
	json_decref(all);
	if (!r)
		groups_refresh(d);
	return r;
}

/* -------- VMs -------- */

void group_vm_started(struct cluster *c, const char *vm)
{
	CLEANUP_FREE char *path =
		io_format("%s/wisp.slice/job-%s/vm-%s/cgroup.procs", c->d->p.cgroups, c->id, vm);
	CLEANUP_FREE char *text = NULL;
	struct error err;

	if (!c->grouped || !path || io_read_file(path, 1 << 16, &text, NULL) < 0)
		return;
	for (char *line = text, *end; *line; line = *end ? end + 1 : end) {
		int r = isolate_cookie((pid_t)strtol(line, &end, 10), &err);

		if (r == -EOPNOTSUPP && log_due(&c->d->uncooked))
			log_info(c->d->p.log, "group", "%s", err.text);
		if (r == -EOPNOTSUPP || r == -ENODEV || end == line)
			return;
	}
}

void group_vm_ended(struct cluster *c, const char *vm)
{
	CLEANUP_FREE char *part = io_format("vm-%s", vm);

	if (!c->grouped || !part)
		return;
	cgroup_kill(c->d->p.cgroups, c->id, part, NULL);
	cgroup_remove(c->d->p.cgroups, c->id, part, NULL);
}

/* The slice goes with the last job. */
void groups_gone(struct daemon *d)
{
	CLEANUP_FREE char *slice = d->p.cgroups ? io_format("%s/wisp.slice", d->p.cgroups) : NULL;

	if (slice)
		rmdir(slice);
	groups_refresh(d);
}
