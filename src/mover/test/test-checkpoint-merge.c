/* SPDX-License-Identifier: Apache-2.0 */
/* Merging and pruning: what is kept is the same before and after, at every step. */

#include "mover/test/scratch.h"

#include <errno.h>
#include <fcntl.h>

#include "mover/merge.h"
#include "mover/verify.h"

#define MEMORY (9ull * CHUNK_BYTES + 5 * PAGE_BYTES)
#define PAGES (MEMORY / PAGE_BYTES)
#define EPOCHS 8

/* Epochs 1 to EPOCHS; of each a copy of its memory. Parents as given, 0: full. */
struct history {
	char *dir;
	struct guest g[EPOCHS + 1];
};

static void change_some(struct guest *g)
{
	for (unsigned i = 0; i < 40; i++) {
		guest_fill(g, (uint64_t)random() % PAGES, (uint32_t)random());
		guest_zero(g, (uint64_t)random() % PAGES);
	}
}

static void make(struct history *h, const char *below, const unsigned parent[EPOCHS + 1])
{
	static unsigned number;

	h->dir = io_format("%s/%u", below, number++);
	for (unsigned e = 1; e <= EPOCHS; e++) {
		guest_init(&h->g[e], MEMORY);
		if (parent[e])
			memcpy(h->g[e].ram, h->g[parent[e]].ram, MEMORY);
		change_some(&h->g[e]);
		assert_int_equal(guest_save(&h->g[e], h->dir, parent[e],
					    (enum compression)(e % COMPRESSION_COUNT)),
				 e);
	}
}

static void done(struct history *h)
{
	for (unsigned e = 1; e <= EPOCHS; e++)
		guest_done(&h->g[e]);
	free(h->dir);
}

/* The epochs there are, as digits; each is whole and has its content. */
static void check(const struct history *h, const char *wanted)
{
	CLEANUP_FREE uint64_t *epochs = NULL;
	char got[EPOCHS + 2] = "";
	struct store store;
	size_t n;

	ok(store_open(h->dir, false, &store, &err));
	ok(store_epochs(&store, &epochs, &n, &err));
	for (size_t i = 0; i < n; i++) {
		got[i] = (char)('0' + epochs[i]);
		ok(verify_epoch(&store, epochs[i], NULL, NULL, &err));
		guest_compare(&h->g[epochs[i]], h->dir, epochs[i]);
	}
	assert_string_equal(got, wanted);
	store_close(&store);
}

static void merge(const struct history *h, uint64_t epoch)
{
	struct merge_report report;
	struct store store;

	ok(store_open(h->dir, true, &store, &err));
	ok(merge_epoch(&store, epoch, NULL, &report, &err));
	free(report.removed);
	store_close(&store);
}

static void prune(const struct history *h, unsigned keep, unsigned merged, size_t removed)
{
	struct merge_report report;
	struct store store;

	ok(store_open(h->dir, true, &store, &err));
	ok(merge_prune(&store, keep, NULL, &report, &err));
	assert_int_equal(report.merged, merged);
	assert_int_equal(report.nremoved, removed);
	free(report.removed);
	store_close(&store);
}

static const unsigned line[EPOCHS + 1] = {0, 0, 1, 2, 3, 4, 5, 6, 7};
/* 1 - 2 - 3    5 - 6 - 8
 *   \ 4         \ 7      */
static const unsigned forked[EPOCHS + 1] = {0, 0, 1, 2, 1, 0, 5, 5, 6};

static void test_merge(void **state)
{
	struct history h;

	make(&h, *state, line);
	check(&h, "12345678");
	merge(&h, 4);
	check(&h, "45678");
	merge(&h, 0);
	check(&h, "8");
	merge(&h, 8);
	check(&h, "8");
	assert_int_equal(guest_save(&h.g[8], h.dir, 8, COMPRESSION_NONE), 9);
	done(&h);
}

static void test_merge_forked(void **state)
{
	struct history h;

	make(&h, *state, forked);
	merge(&h, 3);
	check(&h, "1345678");
	merge(&h, 6);
	check(&h, "1345678");
	merge(&h, 7);
	check(&h, "134678");
	merge(&h, 4);
	check(&h, "34678");
	done(&h);
}

static void test_prune(void **state)
{
	struct history h;

	make(&h, *state, line);
	prune(&h, 20, 0, 0);
	prune(&h, 8, 0, 0);
	check(&h, "12345678");
	prune(&h, 3, 1, 5);
	check(&h, "678");
	prune(&h, 1, 1, 2);
	check(&h, "8");
	done(&h);
	make(&h, *state, forked);
	prune(&h, 5, 1, 3);
	check(&h, "45678");
	prune(&h, 2, 2, 3);
	check(&h, "78");
	done(&h);
}

static void name_of(const struct history *h, uint64_t epoch, char ret[DIGEST_TEXT])
{
	struct manifest m;
	struct store store;

	ok(store_open(h->dir, false, &store, &err));
	ok(epoch_manifest(&store, epoch, &m, &err));
	memcpy(ret, m.digest, DIGEST_TEXT);
	manifest_done(&m);
	store_close(&store);
}

/* Some stay, whatever they are based on, under the digest they had. */
static void test_keep(void **state)
{
	static const uint64_t keep[] = {3, 4, 7};
	char before[DIGEST_TEXT], after[DIGEST_TEXT];
	struct store store;
	struct history h;

	make(&h, *state, line);
	name_of(&h, 7, before);
	for (unsigned i = 0; i < 2; i++) {
		ok(store_open(h.dir, true, &store, &err));
		ok(merge_keep(&store, keep, 3, NULL, NULL, &err));
		store_close(&store);
		check(&h, "347");
	}
	merge(&h, 4);
	name_of(&h, 7, after);
	assert_string_equal(before, after);
	ok(store_open(h.dir, true, &store, &err));
	ok(merge_keep(&store, NULL, 0, NULL, NULL, &err));
	store_close(&store);
	check(&h, "");
	done(&h);
}

static void test_refused(void **state)
{
	CLEANUP_FREE char *empty = io_format("%s/empty", (char *)*state);
	_Atomic bool cancel = true;
	const struct progress progress = {.cancel = &cancel};
	struct merge_report report;
	struct store store;
	struct history h;

	make(&h, *state, line);
	ok(store_open(h.dir, true, &store, &err));
	refused(-ECANCELED, "cancelled", merge_epoch(&store, 5, &progress, NULL, &err));
	refused(-ECANCELED, "cancelled", merge_prune(&store, 2, &progress, &report, &err));
	free(report.removed);
	refused(-EINVAL, "at least one", merge_prune(&store, 0, NULL, NULL, &err));
	refused(-ENOENT, "no epoch 77", merge_epoch(&store, 77, NULL, NULL, &err));
	store_close(&store);
	check(&h, "12345678");
	done(&h);
	ok(store_open(empty, true, &store, &err));
	refused(-ENOENT, "has no checkpoint", merge_epoch(&store, 0, NULL, NULL, &err));
	store_close(&store);
}

/* A chain that was open before it was merged away is read to its end. */
static void test_open_chain(void **state)
{
	struct store store;
	struct chain chain;
	struct history h;
	struct guest copy;

	make(&h, *state, line);
	ok(store_open(h.dir, false, &store, &err));
	ok(chain_open(&store, 7, &chain, &err));
	store_close(&store);
	prune(&h, 1, 1, 7);
	guest_init(&copy, MEMORY);
	ok(chain_restore(&chain, copy.fd, 3, NULL, NULL, &err));
	assert_memory_equal(copy.ram, h.g[7].ram, MEMORY);
	guest_done(&copy);
	chain_close(&chain);
	done(&h);
}

/* Where folders cannot be exchanged, a dead writer may have left the old one aside. */
static void test_aside(void **state)
{
	CLEANUP_FREE char *at = NULL, *old = NULL;
	struct store store;
	struct history h;

	make(&h, *state, line);
	at = io_format("%s/5", h.dir);
	old = io_format("%s/.old-5", h.dir);
	assert_int_equal(rename(at, old), 0);
	guest_compare(&h.g[8], h.dir, 8);
	ok(store_open(h.dir, true, &store, &err));
	store_close(&store);
	check(&h, "12345678");
	done(&h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_merge),	cmocka_unit_test(test_merge_forked),
		cmocka_unit_test(test_prune),	cmocka_unit_test(test_keep),
		cmocka_unit_test(test_refused), cmocka_unit_test(test_open_chain),
		cmocka_unit_test(test_aside),
	};

	return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
