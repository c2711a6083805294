/* SPDX-License-Identifier: Apache-2.0 */
/* What of a node is free: the topology less what the store's tables have. */

#include "node/alloc-free.h"

#include <errno.h>

#include "lib/error.h"
#include "node/store.h"

static bool is_hosts(const struct alloc *a, const struct topo_core *core)
{
	for (unsigned k = 0; k < core->ncpus; k++)
		if (CPU_ISSET(core->cpus[k], &a->host))
			return true;
	return false;
}

/* Base pages are what is neither in huge pages nor the host's. */
static void whole_machine(const struct alloc *a, struct place_free *f)
{
	const struct topology *t = a->topology;

	for (unsigned i = 0; i < t->ncores; i++)
		f->cores[i] = !is_hosts(a, &t->cores[i]);
	for (unsigned i = 0; i < t->ndevices; i++)
		f->devices[i] = PLACE_FREE;
	for (unsigned n = 0; n < t->nnodes; n++) {
		uint64_t away = a->host_memory;

		for (unsigned k = 0; k < t->nodes[n].nsizes; k++) {
			f->pages[n][k + 1] = t->nodes[n].pages[k].total;
			away += t->nodes[n].pages[k].total * t->nodes[n].pages[k].size;
		}
		f->pages[n][0] =
			t->nodes[n].memory > away ? (t->nodes[n].memory - away) / CLAIM_BASE : 0;
	}
}

static int take_cpu(const struct store_row *row, void *arg)
{
	struct place_free *f = arg;
	int core = topology_core(f->t, store_int(row, 0));

	if (core >= 0)
		f->cores[core] = false;
	return 0;
}

static int take_device(const struct store_row *row, void *arg)
{
	struct place_free *f = arg;
	int device = topology_device(f->t, store_text(row, 0));

	if (device >= 0)
		f->devices[device] = PLACE_TAKEN;
	return 0;
}

/* More may be granted than there is, when an administrator took huge pages away: then none is free.
 */
static int take_memory(const struct store_row *row, void *arg)
{
	struct place_free *f = arg;
	int node = topology_node(f->t, store_int(row, 0));
	uint64_t size = store_int(row, 1), pages = store_int(row, 2) / size;
	int k = node < 0 ? -1 : place_pages(f->t, node, size);

	if (k >= 0)
		f->pages[node][k] -= pages < f->pages[node][k] ? pages : f->pages[node][k];
	return 0;
}

/* Shared VMs: vCPUs, memory's node or null, whether it is bound there, number of nodes, a core for
 * each vCPU */
static int keep_room(const struct store_row *row, void *arg)
{
	struct place_free *f = arg;
	unsigned cpus = store_int(row, 0), n = store_int(row, 3);
	int node = topology_node(f->t, store_int(row, 1));
	bool cores = store_int(row, 4);

	place_keep(&f->kept_all, cpus, cores);
	if (store_int(row, 2) && node >= 0)
		place_keep(&f->kept[node], cpus / n, cores);
	return 0;
}

/* What somebody uses who did not ask us. */
static void leave_strangers(struct place_free *f)
{
	for (unsigned n = 0; n < f->t->nnodes; n++)
		for (unsigned k = 0; k < f->t->nodes[n].nsizes; k++)
			if (f->pages[n][k + 1] > f->t->nodes[n].pages[k].free)
				f->pages[n][k + 1] = f->t->nodes[n].pages[k].free;
}

int alloc_free(struct alloc *a, bool whole, struct place_free *f, struct error *err)
{
	int r = place_free_init(f, a->topology);

	if (r)
		return error_set(err, r, "out of memory");
	whole_machine(a, f);
	if (whole)
		return 0;
	r = store_each(a->store, take_cpu, f, err, "SELECT cpu FROM cpu", "");
	if (!r)
		r = store_each(a->store, take_device, f, err, "SELECT address FROM device", "");
	if (!r)
		r = store_each(a->store, take_memory, f, err,
			       "SELECT node, page_size, sum(bytes) FROM memory "
			       "GROUP BY node, page_size",
			       "");
	if (!r)
		r = store_each(a->store, keep_room, f, err,
			       "SELECT v.cpus, m.node, v.bound, (SELECT count(*) FROM memory "
			       "WHERE vm = v.id), v.cores FROM vm v JOIN memory m ON m.vm = v.id "
			       "WHERE NOT v.dedicated",
			       "");
	leave_strangers(f);
	if (r)
		place_free_done(f);
	return r;
}
