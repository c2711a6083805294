/* SPDX-License-Identifier: Apache-2.0 */
/* Huge pages that come in parts. */

#include "mover/huge.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "lib/error.h"
#include "mover/faults.h"
#include "mover/index.h"
#include "mover/page.h"

enum huge_state {
	HUGE_HIDDEN,
	HUGE_COMING, /* a thread is about to show it */
	HUGE_SHOWN,
};

struct huge {
	const struct faults *faults;
	uint64_t memory, count; /* bytes; huge pages */
	unsigned chunks;	/* of one */
	uint8_t *map;
	_Atomic uint8_t *state; /* enum huge_state of each */
	_Atomic unsigned *left; /* pages of each that are to come */
	const _Atomic uint64_t *zero;
};

int huge_create(const struct faults *faults, int memfd, uint64_t memory, struct huge **ret,
		struct error *err)
{
	struct huge *h = calloc(1, sizeof(*h));
	void *map;

	if (!h)
		return error_set(err, -ENOMEM, "out of memory");
	*h = (struct huge){.faults = faults,
			   .memory = memory,
			   .count = memory / PAGE_BYTES / faults->unit,
			   .chunks = faults->unit / CHUNK_PAGES};
	h->state = calloc(h->count, sizeof(*h->state));
	h->left = calloc(h->count, sizeof(*h->left));
	map = mmap(NULL, memory, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
	h->map = map == MAP_FAILED ? NULL : map;
	if (!h->state || !h->left || !h->map) {
		huge_destroy(h);
		return error_set(err, -ENOMEM, "no memory to put huge pages together");
	}
	for (uint64_t i = 0; i < h->count; i++)
		h->state[i] = faults_was_shown(faults, i) ? HUGE_SHOWN : HUGE_HIDDEN;
	*ret = h;
	return 0;
}

void huge_destroy(struct huge *h)
{
	if (!h)
		return;
	if (h->map)
		munmap(h->map, h->memory);
	free(h->state);
	free(h->left);
	free(h);
}

uint64_t huge_first(const struct huge *h, uint64_t chunk)
{
	return chunk - chunk % h->chunks;
}

unsigned huge_chunks(const struct huge *h)
{
	return h->chunks;
}

uint8_t *huge_at(const struct huge *h, uint64_t chunk)
{
	return h->map + chunk * CHUNK_BYTES;
}

bool huge_is_shown(const struct huge *h, uint64_t chunk)
{
	return h->state[chunk / h->chunks] == HUGE_SHOWN;
}

int huge_expect(struct huge *h, const uint64_t *pages, const _Atomic uint64_t *zero,
		struct error *err)
{
	h->zero = zero;
	for (uint64_t i = 0; i < h->count; i++) {
		unsigned left = 0;

		for (uint64_t c = i * h->chunks; c < (i + 1) * h->chunks; c++) {
			if (~(pages[c] | zero[c]) && h->state[i] != HUGE_SHOWN)
				return error_set(err, -EBADMSG,
						 "a huge page is to come in parts only");
			left += (unsigned)__builtin_popcountll(pages[c]);
		}
		h->left[i] = left;
	}
	return 0;
}

static int show_run(struct huge *h, uint64_t first, uint64_t end, struct error *err)
{
	uint64_t unit = h->faults->unit;
	int rc = first < end ? faults_show(h->faults, first * unit, (end - first) * unit, err) : 0;

	for (uint64_t i = first; rc == 0 && i < end; i++)
		h->state[i] = HUGE_SHOWN;
	return rc;
}

static bool is_missing(const struct huge *h, const uint64_t *missing, uint64_t number)
{
	for (uint64_t c = number * h->chunks; c < (number + 1) * h->chunks; c++)
		if (missing[c])
			return true;
	return false;
}

int huge_show_others(struct huge *h, const uint64_t *missing, struct error *err)
{
	uint64_t first = 0;
	int rc = 0;

	for (uint64_t i = 0; rc == 0 && i < h->count; i++) {
		if (!is_missing(h, missing, i))
			continue;
		rc = show_run(h, first, i, err);
		first = i + 1;
	}
	return rc < 0 ? rc : show_run(h, first, h->count, err);
}

/*
 * By one thread. Who comes second has nothing to do, and hears whether it is there already: who
 * waits for it is woken when it is.
 */
static int show(struct huge *h, uint64_t number, struct error *err)
{
	uint8_t before = HUGE_HIDDEN;
	int rc;

	if (!atomic_compare_exchange_strong(&h->state[number], &before, HUGE_COMING))
		return before == HUGE_SHOWN;
	for (uint64_t c = number * h->chunks; c < (number + 1) * h->chunks; c++)
		page_clear(huge_at(h, c), h->zero[c]);
	rc = faults_show(h->faults, number * h->faults->unit, h->faults->unit, err);
	h->state[number] = rc < 0 ? HUGE_HIDDEN : HUGE_SHOWN;
	return rc < 0 ? rc : 1;
}

int huge_came(struct huge *h, uint64_t chunk, unsigned n, struct error *err)
{
	uint64_t number = chunk / h->chunks;

	return n && atomic_fetch_sub(&h->left[number], n) == n ? show(h, number, err) : 0;
}

int huge_show_if_whole(struct huge *h, uint64_t chunk, struct error *err)
{
	uint64_t number = chunk / h->chunks;

	return h->left[number] ? 0 : show(h, number, err);
}
