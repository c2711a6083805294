/* SPDX-License-Identifier: Apache-2.0 */
/* Epochs written and restored: full, incremental, compressed, written several times over. */

#include "mover/test/scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "mover/merge.h"
#include "mover/page.h"
#include "mover/verify.h"

#define MEMORY (21ull * CHUNK_BYTES + 3 * PAGE_BYTES) /* the last chunk is not whole */
#define PAGES (MEMORY / PAGE_BYTES)

static void fill_some(struct guest *g)
{
	for (uint64_t p = 0; p < PAGES; p++) {
		if (p % 7 == 0 || p / 64 == 5 || p == PAGES - 1)
			guest_fill(g, p, (uint32_t)p);
	}
}

static void test_full(void **state)
{
	struct guest g;

	guest_init(&g, MEMORY);
	for (enum compression c = COMPRESSION_NONE; c < COMPRESSION_COUNT; c++) {
		fill_some(&g);
		guest_compare(&g, *state, guest_save(&g, *state, 0, c));
		assert_int_equal(ftruncate(g.fd, 0), 0);
		assert_int_equal(ftruncate(g.fd, (off_t)MEMORY), 0);
		guest_compare(&g, *state, guest_save(&g, *state, 0, c));
	}
	guest_done(&g);
}

/* Nothing of guest memory that is not there comes to be by saving or restoring it. */
static void test_holes(void **state)
{
	struct restore_report report;
	struct guest g, copy;
	struct store store;
	struct chain chain;
	struct stat before, after;
	uint64_t epoch;

	guest_init(&g, 64 * CHUNK_BYTES);
	guest_init(&copy, 64 * CHUNK_BYTES);
	guest_fill(&g, 100, 1);
	assert_int_equal(fstat(g.fd, &before), 0);
	epoch = guest_save(&g, *state, 0, COMPRESSION_NONE);
	assert_int_equal(fstat(g.fd, &after), 0);
	assert_int_equal(after.st_blocks, before.st_blocks);
	ok(store_open(*state, false, &store, &err));
	ok(chain_open(&store, epoch, &chain, &err));
	ok(chain_restore(&chain, copy.fd, 0, NULL, &report, &err));
	assert_int_equal(report.bytes, PAGE_BYTES);
	assert_int_equal(fstat(copy.fd, &after), 0);
	assert_int_equal(after.st_blocks, PAGE_BYTES / 512);
	chain_close(&chain);
	store_close(&store);
	guest_done(&copy);
	guest_done(&g);
}

/* A chain of random changes against the memory itself, every epoch of it. */
static void test_chain(void **state)
{
	enum { EPOCHS = 12 };
	struct guest g, copy[EPOCHS];
	uint64_t epoch[EPOCHS];

	srandom(7);
	guest_init(&g, MEMORY);
	fill_some(&g);
	for (unsigned e = 0; e < EPOCHS; e++) {
		for (unsigned i = 0; e && i < 100; i++) {
			uint64_t p = (uint64_t)random() % PAGES;

			if (random() % 3)
				guest_fill(&g, p, (uint32_t)random());
			else
				guest_zero(&g, p);
		}
		epoch[e] = guest_save(&g, *state, e ? epoch[e - 1] : 0,
				      (enum compression)(e % COMPRESSION_COUNT));
		guest_init(&copy[e], MEMORY);
		memcpy(copy[e].ram, g.ram, MEMORY);
	}
	for (unsigned e = 0; e < EPOCHS; e++) {
		guest_compare(&copy[e], *state, epoch[e]);
		guest_done(&copy[e]);
	}
	/* A branch: another epoch on an early one. */
	guest_done(&g);
}

static uint64_t files_size(const struct store *store, uint64_t epoch)
{
	struct manifest m;
	uint64_t size = 0;

	ok(epoch_manifest(store, epoch, &m, &err));
	for (uint32_t i = 0; i < m.files; i++)
		size += m.file_size[i];
	manifest_done(&m);
	return size;
}

/* As a live checkpoint does it: pages that changed meanwhile are written again and again. */
static void test_rounds(void **state)
{
	const struct writer_vm vm = {.state = "state of the machine", .state_size = 20};
	struct writer_options options = {.memory = MEMORY, .threads = 2};
	struct store store;
	struct writer *w;
	struct merge_report report;
	struct guest g;
	uint64_t epoch, before;

	srandom(8);
	guest_init(&g, MEMORY);
	fill_some(&g);
	ok(store_open(*state, true, &store, &err));
	for (options.compression = 0; options.compression < COMPRESSION_COUNT;
	     options.compression++) {
		ok(writer_create(&store, &options, &w, &err));
		ok(writer_pages(w, g.fd, NULL, &err));
		for (unsigned round = 0; round < 10; round++) {
			guest_clean(&g);
			for (unsigned i = 0; i < 50; i++) {
				guest_fill(&g, (uint64_t)random() % PAGES, (uint32_t)random());
				guest_zero(&g, (uint64_t)random() % PAGES);
			}
			ok(writer_pages(w, g.fd, g.dirty, &err));
		}
		ok(writer_commit(w, &vm, &epoch, NULL, &err));
		writer_destroy(w);
		guest_compare(&g, *state, epoch);
		before = files_size(&store, epoch);
		ok(merge_epoch(&store, epoch, NULL, &report, &err));
		free(report.removed);
		assert_int_equal(report.merged, 1);
		assert_true(files_size(&store, epoch) < before);
		guest_compare(&g, *state, epoch);
		ok(merge_epoch(&store, epoch, NULL, &report, &err));
		free(report.removed);
		assert_int_equal(report.merged, 0);
	}
	store_close(&store);
	guest_done(&g);
}

/* Past the page cache, where the file system of /tmp can; pieces of odd lengths, several buffers.
 */
static void test_direct(void **state)
{
	const struct writer_vm vm = {.state = "state of the machine", .state_size = 20};
	struct writer_options options = {.memory = 48u << 20, .direct = DIRECT_ON};
	struct store store;
	struct writer *w;
	struct guest g;
	uint64_t epoch;

	guest_init(&g, options.memory);
	for (uint64_t p = 0; p < g.size / PAGE_BYTES; p++)
		if (p % 11)
			guest_fill(&g, p, (uint32_t)p);
	ok(store_open(*state, true, &store, &err));
	for (options.compression = 0; options.compression < COMPRESSION_COUNT;
	     options.compression++) {
		options.threads = 1 + options.compression % 2;
		ok(writer_create(&store, &options, &w, &err));
		ok(writer_pages(w, g.fd, NULL, &err));
		ok(writer_commit(w, &vm, &epoch, NULL, &err));
		writer_destroy(w);
		ok(verify_epoch(&store, epoch, NULL, NULL, &err));
		guest_compare(&g, *state, epoch);
	}
	store_close(&store);
	guest_done(&g);
}

static void cancel_soon(void *arg, const struct progress_now *now)
{
	*(_Atomic bool *)arg = true;
}

/* What fails or is cancelled leaves no trace, and the next epoch gets the number. */
static void test_abort(void **state)
{
	_Atomic bool cancel = true;
	const struct progress progress = {.report = cancel_soon, .arg = &cancel, .cancel = &cancel};
	struct writer_options options = {.memory = MEMORY, .progress = &progress};
	struct store store, other;
	struct writer *w;
	uint64_t *epochs, before;
	struct guest g;
	size_t n;

	guest_init(&g, MEMORY);
	guest_fill(&g, 1, 1);
	before = guest_save(&g, *state, 0, COMPRESSION_NONE);
	ok(store_open(*state, true, &store, &err));
	refused(-EBUSY, "another process writes to", store_open(*state, true, &other, &err));
	ok(writer_create(&store, &options, &w, &err));
	refused(-ECANCELED, "cancelled", writer_pages(w, g.fd, NULL, &err));
	writer_destroy(w);
	options.memory = MEMORY - PAGE_BYTES;
	options.parent = before;
	refused(-EINVAL, "write a full one", writer_create(&store, &options, &w, &err));
	options.memory = MEMORY + PAGE_BYTES;
	options.parent = 0;
	ok(writer_create(&store, &options, &w, &err));
	refused(-EINVAL, "guest memory has", writer_pages(w, g.fd, NULL, &err));
	writer_destroy(w);
	options.parent = before + 100;
	refused(-ENOENT, "no epoch", writer_create(&store, &options, &w, &err));
	ok(store_epochs(&store, &epochs, &n, &err));
	assert_int_equal(epochs[n - 1], before);
	free(epochs);
	/* As a writer that was killed: the next one removes it. */
	options.parent = 0;
	close(store_begin(&store, before + 1, NULL));
	store_close(&store);
	assert_int_equal(guest_save(&g, *state, 0, COMPRESSION_LZ4), before + 1);
	guest_done(&g);
}

static void test_zero(void **state)
{
	CLEANUP_FREE uint8_t *p = aligned_alloc(PAGE_BYTES, 4 * PAGE_BYTES);

	memset(p, 0, 4 * PAGE_BYTES);
	assert_true(page_is_zero(p, PAGE_BYTES));
	for (unsigned i = 0; i < PAGE_BYTES; i++) {
		p[i] = 1;
		assert_false(page_is_zero(p, PAGE_BYTES));
		p[i] = 0;
	}
	p[PAGE_BYTES] = 1;
	p[3 * PAGE_BYTES] = 2;
	assert_int_equal(page_squeeze(p, 0x8000000000000111), 0x101);
	assert_int_equal(p[0], 1);
	assert_int_equal(p[PAGE_BYTES], 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_full),   cmocka_unit_test(test_holes),
		cmocka_unit_test(test_chain),  cmocka_unit_test(test_rounds),
		cmocka_unit_test(test_direct), cmocka_unit_test(test_abort),
		cmocka_unit_test(test_zero),
	};

	return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
