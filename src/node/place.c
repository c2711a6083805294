/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The search: VMs one after the other, those with the least choice first, each at its best place;
 * when a later one finds none, the one before takes its next best. A VM that may be anywhere and
 * fits into no node takes what is left of all, so what all of them need together decides at the
 * end.
 */

#include "node/place.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"

#define STEPS 100000
#define NODES_MASK 10 /* of more nodes no groups are tried */

struct search {
	const struct claim *claim;
	struct place_free now;
	struct placement *result;
	unsigned *order; /* VMs */
	unsigned *masks; /* groups of two nodes and more, the nearest first */
	unsigned nmasks, steps;
	bool apart; /* who may be anywhere is not even tried in one node */
};

static void *copy(const void *from, size_t n, size_t size)
{
	void *to = calloc(n + 1, size);

	return to && n ? memcpy(to, from, n * size) : to;
}

int place_free_init(struct place_free *f, const struct topology *t)
{
	*f = (struct place_free){.t = t,
				 .cores = calloc(t->ncores + 1, sizeof(*f->cores)),
				 .pages = calloc(t->nnodes + 1, sizeof(*f->pages)),
				 .devices = calloc(t->ndevices + 1, sizeof(*f->devices)),
				 .kept = calloc(t->nnodes + 1, sizeof(*f->kept))};
	if (f->cores && f->pages && f->devices && f->kept)
		return 0;
	place_free_done(f);
	return -ENOMEM;
}

void place_free_done(struct place_free *f)
{
	free(f->cores);
	free(f->pages);
	free(f->devices);
	free(f->kept);
	*f = (struct place_free){0};
}

static int free_copy(const struct place_free *from, struct place_free *to)
{
	const struct topology *t = from->t;

	*to = *from;
	to->cores = copy(from->cores, t->ncores, sizeof(*to->cores));
	to->pages = copy(from->pages, t->nnodes, sizeof(*to->pages));
	to->devices = copy(from->devices, t->ndevices, sizeof(*to->devices));
	to->kept = copy(from->kept, t->nnodes, sizeof(*to->kept));
	if (to->cores && to->pages && to->devices && to->kept)
		return 0;
	place_free_done(to);
	return -ENOMEM;
}

int place_pages(const struct topology *t, unsigned node, uint64_t size)
{
	if (size == CLAIM_BASE)
		return 0;
	for (unsigned i = 0; i < t->nodes[node].nsizes; i++)
		if (t->nodes[node].pages[i].size == size)
			return i + 1;
	return -1;
}

struct place_room place_room(const struct place_free *f, int node)
{
	struct place_room n = {0};

	for (unsigned i = 0; i < f->t->ncores; i++)
		if (f->cores[i] && (node < 0 || f->t->cores[i].node == (unsigned)node)) {
			n.threads += f->t->cores[i].ncpus;
			n.cores++;
		}
	return n;
}

void place_keep(struct place_room *kept, unsigned cpus, bool cores)
{
	if (kept->threads < cpus)
		kept->threads = cpus;
	if (cores && kept->cores < cpus)
		kept->cores = cpus;
}

bool place_has(struct place_room have, struct place_room need)
{
	return have.threads >= need.threads && have.cores >= need.cores;
}

static uint64_t pages_of(const struct place_free *f, unsigned node, uint64_t size)
{
	int i = place_pages(f->t, node, size);

	return i < 0 ? 0 : f->pages[node][i];
}

static bool take_memory(struct search *s, unsigned v, unsigned node, uint64_t pages)
{
	const struct claim_vm *vm = &s->claim->vms[v];
	struct place_vm *at = &s->result->vms[v];

	if (pages_of(&s->now, node, vm->page_size) < pages)
		return false;
	if (pages) {
		s->now.pages[node][place_pages(s->now.t, node, vm->page_size)] -= pages;
		at->bytes[node] += pages * vm->page_size;
		at->nnodes++;
	}
	return true;
}

/* How far a node is from the one with the most free threads, where a VM of many nodes begins. */
static unsigned far(const struct search *s, unsigned home, unsigned node)
{
	return topology_distance(s->now.t, home, node) * s->now.t->nnodes + node;
}

static unsigned home_of(const struct search *s)
{
	unsigned best = 0, most = 0;

	for (unsigned i = 0; i < s->now.t->nnodes; i++)
		if (place_room(&s->now, i).threads > most) {
			most = place_room(&s->now, i).threads;
			best = i;
		}
	return best;
}

/* Fills with the largest cores that are used whole; if there is none, the one that wastes the
 * least. */
static bool better(const struct search *s, unsigned home, unsigned a, unsigned b, unsigned need)
{
	const struct topo_core *x = &s->now.t->cores[a], *y = &s->now.t->cores[b];

	if (x->ncpus != y->ncpus) {
		if ((x->ncpus <= need) != (y->ncpus <= need))
			return x->ncpus <= need;
		return (x->ncpus > y->ncpus) == (x->ncpus <= need);
	}
	return far(s, home, x->node) < far(s, home, y->node);
}

/* Whether shared VMs have what they need at least when a core of so many threads goes. */
static bool leaves(struct place_room have, struct place_room kept, unsigned threads)
{
	kept.threads += threads;
	kept.cores++;
	return place_has(have, kept);
}

/* Of those that shared VMs can do without. */
static int best_core(const struct search *s, int node, unsigned home, unsigned need)
{
	const struct topo_core *cores = s->now.t->cores;
	struct place_room all = place_room(&s->now, -1), here = {0};
	int best = -1;

	for (unsigned i = 0; i < s->now.t->ncores; i++) {
		if (!i || cores[i].node != cores[i - 1].node)
			here = place_room(&s->now, cores[i].node);
		if (s->now.cores[i] && (node < 0 || cores[i].node == (unsigned)node) &&
		    leaves(here, s->now.kept[cores[i].node], cores[i].ncpus) &&
		    leaves(all, s->now.kept_all, cores[i].ncpus) &&
		    (best < 0 || better(s, home, i, best, need)))
			best = i;
	}
	return best;
}

/* What a core is worth to a VM: vCPUs that it does for. */
static unsigned worth(const struct search *s, unsigned v, unsigned core)
{
	return s->claim->vms[v].cores ? 1 : s->now.t->cores[core].ncpus;
}

/*
 * Whole cores of a node (-1: of any) for so many vCPUs. Who wants a core for each takes the
 * smallest: more threads are of no use.
 */
static bool take_cores(struct search *s, unsigned v, int node, unsigned need)
{
	const struct topology *t = s->now.t;
	bool each = s->claim->vms[v].cores;
	bool *own = s->result->vms[v].cores;
	unsigned home = node < 0 ? home_of(s) : (unsigned)node, had = 0;

	while (had < need) {
		int core = best_core(s, node, home, each ? 1 : need - had);

		if (core < 0)
			return false;
		own[core] = true;
		s->now.cores[core] = false;
		had += worth(s, v, core);
	}
	/* What the last one made superfluous goes back. */
	for (unsigned i = 0; i < t->ncores; i++)
		if (own[i] && (node < 0 || t->cores[i].node == (unsigned)node) &&
		    had - worth(s, v, i) >= need) {
			own[i] = false;
			s->now.cores[i] = true;
			had -= worth(s, v, i);
		}
	return true;
}

/* A shared VM owns nothing; as much as it needs has to be left. */
static bool keep_room(struct search *s, unsigned v, int node, unsigned need)
{
	struct place_room *kept = node < 0 ? &s->now.kept_all : &s->now.kept[node], room = {0};
	bool cores = s->claim->vms[v].cores;

	place_keep(&room, need, cores);
	place_keep(kept, need, cores);
	return place_has(place_room(&s->now, node), room);
}

/* A shared VM that may be anywhere has its memory in a node, and no threads there. */
static bool take_threads(struct search *s, unsigned v, int node, unsigned need)
{
	const struct claim_vm *vm = &s->claim->vms[v];

	if (vm->dedicated)
		return take_cores(s, v, node, need);
	return (vm->numa == CLAIM_NONE && node >= 0) || keep_room(s, v, node, need);
}

/* Equal parts of the nodes of a mask. */
static bool try_mask(struct search *s, unsigned v, unsigned mask)
{
	const struct claim_vm *vm = &s->claim->vms[v];
	unsigned k = __builtin_popcount(mask);
	uint64_t pages = vm->memory / vm->page_size;

	if (vm->cpus % k || pages % k)
		return false;
	for (unsigned n = 0; n < s->now.t->nnodes; n++)
		if (mask & (1u << n) &&
		    (!take_memory(s, v, n, pages / k) || !take_threads(s, v, n, vm->cpus / k)))
			return false;
	return vm->dedicated || keep_room(s, v, -1, vm->cpus);
}

/* The nodes from where the VM's cores are outwards. */
static bool try_anywhere(struct search *s, unsigned v)
{
	const struct claim_vm *vm = &s->claim->vms[v];
	unsigned home = home_of(s), n = s->now.t->nnodes;
	uint64_t left = vm->memory / vm->page_size;

	if (!take_threads(s, v, -1, vm->cpus))
		return false;
	for (unsigned last = 0; left; last++) {
		unsigned best = UINT32_MAX, node = 0;
		uint64_t pages;

		for (unsigned i = 0; i < n; i++)
			if (far(s, home, i) >= last && far(s, home, i) < best) {
				best = far(s, home, i);
				node = i;
			}
		if (best == UINT32_MAX)
			return false;
		pages = pages_of(&s->now, node, vm->page_size);
		pages = pages < left ? pages : left;
		take_memory(s, v, node, pages);
		left -= pages;
		last = best;
	}
	return true;
}

static int next_vm(struct search *s, unsigned depth);

/* Undoes what the attempt took when the rest does not fit. mask 0: anywhere. */
static int attempt(struct search *s, unsigned depth, unsigned mask)
{
	unsigned v = s->order[depth], n = s->now.t->nnodes;
	struct place_vm *at = &s->result->vms[v];
	struct place_free before;
	int r = -EBUSY;

	if (s->steps++ >= STEPS)
		return -ELOOP;
	if (free_copy(&s->now, &before))
		return -ENOMEM;
	if (mask ? try_mask(s, v, mask) : try_anywhere(s, v))
		r = next_vm(s, depth + 1);
	if (r) {
		place_free_done(&s->now);
		s->now = before;
		memset(at->cores, 0, s->now.t->ncores * sizeof(*at->cores));
		memset(at->bytes, 0, n * sizeof(*at->bytes));
		at->nnodes = 0;
	} else {
		place_free_done(&before);
	}
	return r;
}

static bool has_device_at(const struct search *s, unsigned v, unsigned node)
{
	for (unsigned i = 0; i < s->now.t->ndevices; i++)
		if (s->result->devices[i] == (int)v && s->now.t->devices[i].node == (int)node)
			return true;
	return false;
}

/* Nearest to its devices; else what is left stays large: full nodes first, empty ones for shared
 * VMs. */
static unsigned cost(const struct search *s, unsigned v, unsigned node)
{
	unsigned threads = place_room(&s->now, node).threads;

	if (!s->claim->vms[v].dedicated)
		threads = CPU_SETSIZE - threads;
	return (has_device_at(s, v, node) ? 0 : 2 * CPU_SETSIZE) + threads;
}

static int cheapest(const struct search *s, unsigned v, const bool *tried)
{
	int best = -1;

	for (unsigned i = 0; i < s->now.t->nnodes && i < 32; i++)
		if (!tried[i] && (best < 0 || cost(s, v, i) < cost(s, v, best)))
			best = i;
	return best;
}

static int try_single(struct search *s, unsigned depth)
{
	bool tried[32] = {false};
	int r = -EBUSY, node;

	while (r == -EBUSY && (node = cheapest(s, s->order[depth], tried)) >= 0) {
		tried[node] = true;
		r = attempt(s, depth, 1u << node);
	}
	return r;
}

/*
 * Those who may be anywhere are last. Each goes to its best place, and no other is tried when a
 * later one finds none (-EXFULL up to the first of them): then none of them cares, as it is the sum
 * that counts.
 */
static int place_anywhere(struct search *s, unsigned depth)
{
	bool first = !depth || s->claim->vms[s->order[depth - 1]].numa != CLAIM_NONE;
	int r;

	if (s->apart)
		return attempt(s, depth, 0);
	r = try_single(s, depth);
	if (r == -EBUSY)
		r = attempt(s, depth, 0);
	if (r == -EBUSY)
		r = -EXFULL;
	if (first && r == -EXFULL) {
		s->apart = true;
		r = attempt(s, depth, 0);
		s->apart = false;
	}
	return r;
}

static int next_vm(struct search *s, unsigned depth)
{
	const struct claim_vm *vm;
	int r;

	if (depth == s->claim->nvms)
		return 0;
	vm = &s->claim->vms[s->order[depth]];
	if (vm->numa == CLAIM_NONE)
		return place_anywhere(s, depth);
	r = try_single(s, depth);
	if (vm->numa == CLAIM_MIRROR)
		for (unsigned i = 0; r == -EBUSY && i < s->nmasks; i++)
			r = attempt(s, depth, s->masks[i]);
	return r;
}

/* Who has the least choice comes first, then who wants most. */
static unsigned freedom(const struct claim_vm *vm)
{
	return (vm->numa == CLAIM_NONE) * 2 + vm->dedicated;
}

static int by_freedom(const void *a, const void *b, void *arg)
{
	const struct claim *claim = arg;
	unsigned i = *(const unsigned *)a, k = *(const unsigned *)b;
	const struct claim_vm *x = &claim->vms[i], *y = &claim->vms[k];

	if (freedom(x) != freedom(y))
		return freedom(x) < freedom(y) ? -1 : 1;
	if (x->cpus != y->cpus)
		return x->cpus > y->cpus ? -1 : 1;
	if (x->memory != y->memory)
		return x->memory > y->memory ? -1 : 1;
	return i < k ? -1 : i > k;
}

static unsigned width(const struct topology *t, unsigned mask)
{
	unsigned sum = 0;

	for (unsigned i = 0; i < t->nnodes; i++)
		for (unsigned k = 0; k < t->nnodes; k++)
			if (mask & 1u << i && mask & 1u << k)
				sum += topology_distance(t, i, k);
	return sum;
}

static int by_width(const void *a, const void *b, void *arg)
{
	unsigned x = *(const unsigned *)a, y = *(const unsigned *)b;
	unsigned n = __builtin_popcount(x), m = __builtin_popcount(y);

	if (n != m)
		return n < m ? -1 : 1;
	if (width(arg, x) != width(arg, y))
		return width(arg, x) < width(arg, y) ? -1 : 1;
	return x < y ? -1 : x > y;
}

static int search_init(struct search *s, const struct place_free *have)
{
	const struct topology *t = have->t;
	unsigned all = t->nnodes <= NODES_MASK ? 1u << t->nnodes : 0;

	s->order = calloc(s->claim->nvms, sizeof(*s->order));
	s->masks = calloc(all + 1, sizeof(*s->masks));
	if (!s->order || !s->masks)
		return -ENOMEM;
	for (unsigned i = 0; i < s->claim->nvms; i++)
		s->order[i] = i;
	qsort_r(s->order, s->claim->nvms, sizeof(*s->order), by_freedom, (void *)s->claim);
	for (unsigned mask = 1; mask < all; mask++)
		if (__builtin_popcount(mask) > 1)
			s->masks[s->nmasks++] = mask;
	qsort_r(s->masks, s->nmasks, sizeof(*s->masks), by_width, (void *)t);
	return free_copy(have, &s->now);
}

static struct placement *placement_new(const struct place_free *have, const struct claim *claim)
{
	struct placement *p = calloc(1, sizeof(*p));
	bool ok = p;

	if (!p)
		return NULL;
	p->nvms = claim->nvms;
	p->vms = calloc(claim->nvms, sizeof(*p->vms));
	p->devices = copy(have->devices, have->t->ndevices, sizeof(*p->devices));
	ok = p->vms && p->devices;
	for (unsigned i = 0; ok && i < claim->nvms; i++) {
		p->vms[i].cores = calloc(have->t->ncores + 1, sizeof(*p->vms[i].cores));
		p->vms[i].bytes = calloc(have->t->nnodes + 1, sizeof(*p->vms[i].bytes));
		ok = p->vms[i].cores && p->vms[i].bytes;
	}
	if (ok)
		return p;
	placement_destroy(p);
	return NULL;
}

void placement_destroy(struct placement *p)
{
	if (!p)
		return;
	for (unsigned i = 0; p->vms && i < p->nvms; i++) {
		free(p->vms[i].cores);
		free(p->vms[i].bytes);
	}
	free(p->vms);
	free(p->devices);
	free(p);
}

int place(const struct place_free *have, const struct claim *claim, struct placement **ret)
{
	struct search s = {.claim = claim, .result = placement_new(have, claim)};
	unsigned vm, wanted;
	int r = s.result ? search_init(&s, have) : -ENOMEM;

	if (!r)
		r = place_devices(have->t, claim, s.result->devices, &vm, &wanted);
	if (!r)
		r = next_vm(&s, 0);
	place_free_done(&s.now);
	free(s.order);
	free(s.masks);
	if (r)
		placement_destroy(s.result);
	else
		*ret = s.result;
	return r;
}
