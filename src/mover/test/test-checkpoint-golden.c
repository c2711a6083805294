/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checkpoints that earlier versions wrote. tests/golden/checkpoint-1 is of version 1: epoch 1 full
 * and uncompressed, 2 on 1 with lz4, 3 on 2 with zstd. With a folder as argument this program
 * writes such a one instead.
 */

#include "mover/test/scratch.h"

#include "mover/verify.h"

#define MEMORY (5ull * CHUNK_BYTES + 3 * PAGE_BYTES)
#define PAGES (MEMORY / PAGE_BYTES)
#define EPOCHS 3

/* Not to be changed: what was written is what this says. */
static void advance(struct guest *g, unsigned epoch)
{
	guest_clean(g);
	switch (epoch) {
	case 1:
		guest_fill(g, 0, 100);
		guest_fill(g, 65, 101);
		guest_fill(g, PAGES - 1, 102);
		break;
	case 2:
		guest_fill(g, 1, 200);
		guest_fill(g, 65, 201);
		guest_fill(g, 130, 202);
		guest_zero(g, PAGES - 1);
		break;
	default:
		guest_zero(g, 65);
		guest_fill(g, 64, 300);
		guest_fill(g, 131, 301);
		break;
	}
}

static void write_all(const char *dir)
{
	static const enum compression kinds[] = {COMPRESSION_NONE, COMPRESSION_LZ4,
						 COMPRESSION_ZSTD};
	struct guest g;

	guest_init(&g, MEMORY);
	for (unsigned e = 1; e <= EPOCHS; e++) {
		advance(&g, e);
		assert_int_equal(guest_save(&g, dir, e - 1, kinds[e - 1]), e);
	}
	guest_done(&g);
}

static void test_golden(void **state)
{
	struct store store;
	struct guest g;

	guest_init(&g, MEMORY);
	ok(store_open(GOLDEN "/checkpoint-1", false, &store, &err));
	for (unsigned e = 1; e <= EPOCHS; e++) {
		advance(&g, e);
		ok(verify_epoch(&store, e, NULL, NULL, &err));
		guest_compare(&g, GOLDEN "/checkpoint-1", e);
	}
	store_close(&store);
	guest_done(&g);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_golden)};

	if (argc == 2) {
		write_all(argv[1]);
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
