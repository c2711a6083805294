/* SPDX-License-Identifier: Apache-2.0 */
/* Damage of a checkpoint's files: every flipped bit, every cut, files too many or too few. */

#include "mover/test/scratch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "mover/verify.h"

#define MEMORY (3ull * CHUNK_BYTES)

static const struct store *opened(const char *dir)
{
	static struct store store;

	store_close(&store);
	ok(store_open(dir, false, &store, &err));
	return &store;
}

static int verify(const struct store *store, uint64_t epoch)
{
	struct error err = {{0}};
	int rc = verify_epoch(store, epoch, NULL, NULL, &err);

	assert_true(rc == 0 || err.text[0]);
	return rc;
}

static void fill_random(struct guest *g, uint64_t page)
{
	for (unsigned i = 0; i < PAGE_BYTES; i++)
		g->ram[page * PAGE_BYTES + i] = (uint8_t)random();
	g->dirty[page / 64] |= 1ull << page % 64;
}

/*
 * A folder with epoch 1, full, and epoch 2, based on it. Both have compressed and uncompressed
 * data, zeros between them and at the end.
 */
static void make(struct guest *g, const char *dir)
{
	guest_init(g, MEMORY);
	guest_fill(g, 3, 1);
	fill_random(g, 70);
	guest_save(g, dir, 0, COMPRESSION_LZ4);
	guest_fill(g, 4, 2);
	guest_zero(g, 3);
	fill_random(g, 71);
	guest_fill(g, 130, 3);
	assert_int_equal(guest_save(g, dir, 1, COMPRESSION_ZSTD), 2);
	ok(verify_epoch(opened(dir), 1, NULL, NULL, &err));
	ok(verify_epoch(opened(dir), 2, NULL, NULL, &err));
}

typedef void (*visitor)(const struct store *store, const char *path, uint8_t *data, size_t size);

static void for_each_file(const char *dir, visitor fn)
{
	CLEANUP_FREE char *folder = io_format("%s/2", dir);
	CLEANUP_DIR DIR *d = opendir(folder);
	const struct store *store = opened(dir);
	unsigned n = 0;

	for (struct dirent *e; (e = readdir(d));) {
		CLEANUP_FREE char *path = io_format("%s/%s", folder, e->d_name);
		CLEANUP_CLOSE int fd = open(path, O_RDWR | O_CLOEXEC);
		struct stat st;
		uint8_t *map;

		if (fd < 0)
			continue;
		assert_int_equal(fstat(fd, &st), 0);
		map = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (map == MAP_FAILED) /* an empty file */
			continue;
		fn(store, path, map, (size_t)st.st_size);
		munmap(map, (size_t)st.st_size);
		n++;
	}
	assert_true(n >= 3);
	assert_int_equal(verify(store, 2), 0);
}

/* Of the page files one bit of each byte: a sum sees all bits alike. */
static void flip(const struct store *store, const char *path, uint8_t *data, size_t size)
{
	size_t step = strstr(path, "/pages.") ? 9 : 1;

	for (size_t bit = 0; bit < size * 8; bit += step) {
		data[bit / 8] ^= (uint8_t)(1u << bit % 8);
		if (!verify(store, 2))
			fail_msg("%s: bit %zu of byte %zu is not missed", path, bit % 8, bit / 8);
		data[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
}

static void test_flip(void **state)
{
	struct guest g;

	make(&g, *state);
	for_each_file(*state, flip);
	guest_done(&g);
}

static void cut(const struct store *store, const char *path, uint8_t *data, size_t size)
{
	CLEANUP_FREE uint8_t *copy = malloc(size);
	CLEANUP_CLOSE int fd = open(path, O_RDWR | O_CLOEXEC);
	size_t step = size > 4096 ? 13 : 1;

	memcpy(copy, data, size);
	for (size_t n = size; n >= step; n -= step) {
		assert_int_equal(ftruncate(fd, (off_t)(n - step)), 0);
		assert_int_not_equal(verify(store, 2), 0);
	}
	assert_int_equal(pwrite(fd, copy, size, 0), size);
	assert_int_equal(pwrite(fd, "", 1, (off_t)size), 1);
	assert_int_not_equal(verify(store, 2), 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
}

static void test_cut(void **state)
{
	for_each_file(*state, cut);
}

static void test_files(void **state)
{
	CLEANUP_FREE char *extra = io_format("%s/2/pages.9", (char *)*state);
	CLEANUP_FREE char *index = io_format("%s/2/index", (char *)*state);
	CLEANUP_FREE char *away = io_format("%s/away", (char *)*state);
	const struct store *store = opened(*state);
	struct chain chain;

	ok(io_write_file(extra, "x", 1, &err));
	refused(-EBADMSG, "pages.9 does not belong there",
		verify_epoch(store, 2, NULL, NULL, &err));
	assert_int_equal(unlink(extra), 0);
	assert_int_equal(rename(index, away), 0);
	refused(-ENOENT, "cannot open", verify_epoch(store, 2, NULL, NULL, &err));
	refused(-ENOENT, "cannot open", chain_open(store, 2, &chain, &err));
	assert_int_equal(rename(away, index), 0);
	assert_int_equal(verify(store, 2), 0);
}

/* The parent is gone, or another one. */
static void test_parent(void **state)
{
	CLEANUP_FREE char *one = io_format("%s/1", (char *)*state);
	CLEANUP_FREE char *two = io_format("%s/2", (char *)*state);
	CLEANUP_FREE char *away = io_format("%s/away", (char *)*state);
	const struct store *store = opened(*state);
	struct chain chain;
	struct guest g;

	assert_int_equal(rename(one, away), 0);
	refused(-ENOENT, "epoch 2 needs epoch 1: no epoch 1", chain_open(store, 2, &chain, &err));
	assert_int_equal(rename(two, one), 0);
	refused(-EBADMSG, "is the manifest of epoch 2", verify_epoch(store, 1, NULL, NULL, &err));
	assert_int_equal(rename(one, two), 0);
	assert_int_equal(mkdir(one, 0700), 0);
	refused(-ENOENT, "manifest.json", chain_open(store, 2, &chain, &err));
	assert_int_equal(rmdir(one), 0);
	guest_init(&g, MEMORY);
	guest_fill(&g, 1, 1);
	guest_save(&g, *state, 0, COMPRESSION_NONE);
	guest_done(&g);
	{
		CLEANUP_FREE char *three = io_format("%s/3", (char *)*state);

		assert_int_equal(rename(three, one), 0);
	}
	refused(-EBADMSG, "is the manifest of epoch 3", chain_open(store, 2, &chain, &err));
	refused(-EBADMSG, "its parent", verify_epoch(store, 2, NULL, NULL, &err));
}

/* Another checkpoint with the number of the parent. */
static void test_other_parent(void **state)
{
	CLEANUP_FREE char *other = io_format("%s/other", (char *)*state);
	CLEANUP_FREE char *command = io_format("rm -rf '%s/1' && mv '%s/1' '%s/1'", (char *)*state,
					       other, (char *)*state);
	const struct store *store;
	struct chain chain;
	struct guest g;

	guest_init(&g, MEMORY);
	guest_fill(&g, 1, 1);
	assert_int_equal(guest_save(&g, other, 0, COMPRESSION_NONE), 1);
	guest_done(&g);
	assert_int_equal(system(command), 0);
	store = opened(*state);
	assert_int_equal(verify(store, 1), 0);
	refused(-EBADMSG, "was replaced by another checkpoint", chain_open(store, 2, &chain, &err));
	refused(-EBADMSG, "is not what it is based on", verify_epoch(store, 2, NULL, NULL, &err));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_flip),	     cmocka_unit_test(test_cut),
		cmocka_unit_test(test_files),	     cmocka_unit_test(test_parent),
		cmocka_unit_test(test_other_parent),
	};

	return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
