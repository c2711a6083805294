/* SPDX-License-Identifier: Apache-2.0 */
/* CPUs and NUMA nodes by hwloc. */

#include "node/topology.h"

#include <errno.h>
#include <hwloc.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "node/topology-files.h"

static int load(const struct topology_source *source, hwloc_topology_t hw, struct error *err)
{
	if (source->xml && hwloc_topology_set_xml(hw, source->xml))
		return error_errno(err, -errno, "cannot read the topology %s", source->xml);
	if (source->synthetic && hwloc_topology_set_synthetic(hw, source->synthetic))
		return error_set(err, -EINVAL, "\"%s\" describes no machine", source->synthetic);
	if (hwloc_topology_load(hw))
		return error_set(err, -EIO, "hwloc cannot read the topology of %s",
				 source->xml ? source->xml : "this machine");
	return 0;
}

static int count(hwloc_topology_t hw, hwloc_obj_type_t type)
{
	int n = hwloc_get_nbobjs_by_type(hw, type);

	return n > 0 ? n : 0;
}

static int by_id(const void *a, const void *b)
{
	const struct topo_node *x = a, *y = b;

	return (x->id > y->id) - (x->id < y->id);
}

static int read_nodes(struct topology *t, hwloc_topology_t hw)
{
	t->nnodes = count(hw, HWLOC_OBJ_NUMANODE);
	t->nodes = calloc(t->nnodes + 1, sizeof(*t->nodes));
	if (!t->nodes)
		return -ENOMEM;
	for (unsigned i = 0; i < t->nnodes; i++) {
		hwloc_obj_t obj = hwloc_get_obj_by_type(hw, HWLOC_OBJ_NUMANODE, i);

		t->nodes[i].id = obj->os_index;
		t->nodes[i].memory = obj->attr->numanode.local_memory;
	}
	qsort(t->nodes, t->nnodes, sizeof(*t->nodes), by_id);
	return 0;
}

/* The node a CPU belongs to: of several (fast memory beside the ordinary) the first. */
static unsigned node_of(const struct topology *t, hwloc_topology_t hw, unsigned cpu)
{
	hwloc_obj_t obj = NULL;
	int found = -1;

	while ((obj = hwloc_get_next_obj_by_type(hw, HWLOC_OBJ_NUMANODE, obj)))
		if (found < 0 && hwloc_bitmap_isset(obj->cpuset, cpu))
			found = topology_node(t, obj->os_index);
	return found < 0 ? 0 : found;
}

/* The threads of a core (or a single one where there are no cores) that are left. */
static int read_core(struct topology *t, hwloc_topology_t hw, hwloc_obj_t obj,
		     const cpu_set_t *allowed)
{
	const struct hwloc_obj *socket = hwloc_get_ancestor_obj_by_type(hw, HWLOC_OBJ_PACKAGE, obj);
	struct topo_core *core = &t->cores[t->ncores];

	for (int cpu = hwloc_bitmap_first(obj->cpuset); cpu >= 0;
	     cpu = hwloc_bitmap_next(obj->cpuset, cpu)) {
		if (cpu >= CPU_SETSIZE || core->ncpus == TOPO_THREADS)
			return -E2BIG;
		if (!allowed || CPU_ISSET(cpu, allowed))
			core->cpus[core->ncpus++] = cpu;
	}
	if (!core->ncpus)
		return 0;
	core->socket = socket ? socket->os_index : 0;
	core->node = node_of(t, hw, core->cpus[0]);
	t->ncores++;
	return 0;
}

static int by_place(const void *a, const void *b)
{
	const struct topo_core *x = a, *y = b;

	if (x->node != y->node)
		return x->node < y->node ? -1 : 1;
	return (x->cpus[0] > y->cpus[0]) - (x->cpus[0] < y->cpus[0]);
}

static int read_cores(struct topology *t, hwloc_topology_t hw, const cpu_set_t *allowed,
		      struct error *err)
{
	hwloc_obj_type_t type = count(hw, HWLOC_OBJ_CORE) ? HWLOC_OBJ_CORE : HWLOC_OBJ_PU;
	unsigned n = count(hw, type);

	t->cores = calloc(n + 1, sizeof(*t->cores));
	if (!t->cores)
		return -ENOMEM;
	for (unsigned i = 0; i < n; i++)
		if (read_core(t, hw, hwloc_get_obj_by_type(hw, type, i), allowed))
			return error_set(
				err, -E2BIG,
				"more than %d CPUs, or %d threads in a core, are not known",
				CPU_SETSIZE, TOPO_THREADS);
	if (!t->ncores)
		return error_set(err, -ENODEV, "no CPU of this machine may be used");
	qsort(t->cores, t->ncores, sizeof(*t->cores), by_place);
	return 0;
}

/* Firmware's table of latencies; nodes without one are 20 from each other. */
static int read_distances(struct topology *t, hwloc_topology_t hw)
{
	struct hwloc_distances_s *found = NULL;
	unsigned nr = 1, n = t->nnodes;

	t->distance = calloc((size_t)n * n + 1, sizeof(*t->distance));
	if (!t->distance)
		return -ENOMEM;
	for (unsigned i = 0; i < n * n; i++)
		t->distance[i] = i / n == i % n ? 10 : 20;
	if (hwloc_distances_get_by_name(hw, "NUMALatency", &nr, &found, 0) || !nr)
		return 0;
	for (unsigned i = 0; i < found->nbobjs * found->nbobjs; i++) {
		int a = topology_node(t, found->objs[i / found->nbobjs]->os_index);
		int b = topology_node(t, found->objs[i % found->nbobjs]->os_index);

		if (a >= 0 && b >= 0)
			t->distance[a * n + b] = found->values[i];
	}
	hwloc_distances_release(hw, found);
	return 0;
}

static int fill(struct topology *t, const struct topology_source *source, hwloc_topology_t hw,
		struct error *err)
{
	bool here = !source->xml && !source->synthetic;
	const cpu_set_t *allowed = source->allowed;
	cpu_set_t own;
	int r = load(source, hw, err);

	if (!allowed && here && !sched_getaffinity(0, sizeof(own), &own))
		allowed = &own;
	if (here || source->root) {
		t->root = strdup(source->root ? source->root : "");
		r = t->root ? r : -ENOMEM;
	}
	if (!r)
		r = read_nodes(t, hw);
	if (!r)
		r = read_cores(t, hw, allowed, err);
	if (!r)
		r = read_distances(t, hw);
	return r ? r : topology_refresh(t, err);
}

int topology_read(const struct topology_source *source, struct topology **ret, struct error *err)
{
	struct topology *t = calloc(1, sizeof(*t));
	hwloc_topology_t hw;
	int r;

	if (!t || hwloc_topology_init(&hw)) {
		free(t);
		return error_set(err, -ENOMEM, "out of memory");
	}
	r = fill(t, source, hw, err);
	hwloc_topology_destroy(hw);
	if (r) {
		topology_destroy(t);
		return r == -ENOMEM ? error_set(err, r, "out of memory") : r;
	}
	*ret = t;
	return 0;
}

void topology_destroy(struct topology *t)
{
	if (!t)
		return;
	free(t->nodes);
	free(t->cores);
	free(t->devices);
	free(t->distance);
	free(t->root);
	free(t);
}

int topology_refresh(struct topology *t, struct error *err)
{
	if (!t->root)
		return 0;
	topology_files_pages(t);
	return topology_files_devices(t) ? error_set(err, -ENOMEM, "out of memory") : 0;
}

int topology_node(const struct topology *t, unsigned id)
{
	for (unsigned i = 0; i < t->nnodes; i++)
		if (t->nodes[i].id == id)
			return i;
	return -1;
}

int topology_core(const struct topology *t, unsigned cpu)
{
	for (unsigned i = 0; i < t->ncores; i++)
		for (unsigned k = 0; k < t->cores[i].ncpus; k++)
			if (t->cores[i].cpus[k] == cpu)
				return i;
	return -1;
}

int topology_device(const struct topology *t, const char *address)
{
	for (unsigned i = 0; i < t->ndevices; i++)
		if (!strcmp(t->devices[i].address, address))
			return i;
	return -1;
}

unsigned topology_distance(const struct topology *t, unsigned from, unsigned to)
{
	return t->distance[from * t->nnodes + to];
}
