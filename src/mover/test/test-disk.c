/* SPDX-License-Identifier: Apache-2.0 */
/* The content of a disk: samples, writing it out, copies, parts of another. */

#include "mover/test/scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "mover/disk.h"
#include "mover/disk-sample.h"

#define SIZE (4u << 20)

/* A new file full of bytes that differ everywhere. */
static int make_disk(const char *dir, const char *name)
{
	CLEANUP_FREE char *path = io_format("%s/%s", dir, name);
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	for (uint64_t i = 0; i < SIZE; i += DISK_BLOCK) {
		uint64_t block[DISK_BLOCK / 8];

		for (unsigned k = 0; k < DISK_BLOCK / 8; k++)
			block[k] = (i + k) * 0x9e3779b97f4a7c15;
		ok(disk_write(fd, i, (uint8_t *)block, DISK_BLOCK, &err));
	}
	return fd;
}

static unsigned differ(const char *a, const char *b)
{
	unsigned n = 0;

	for (unsigned i = 0; i < DISK_SAMPLES; i++)
		n += !!memcmp(a + i * DISK_SAMPLE_DIGITS, b + i * DISK_SAMPLE_DIGITS,
			      DISK_SAMPLE_DIGITS);
	return n;
}

static void test_sample(void **state)
{
	CLEANUP_CLOSE int a = make_disk(*state, "a"), b = make_disk(*state, "b");
	CLEANUP_CLOSE int short_one = make_disk(*state, "c"), write_only = -1;
	CLEANUP_FREE char *path = io_format("%s/a", (char *)*state);
	char left[DISK_SAMPLE_TEXT], right[DISK_SAMPLE_TEXT];
	const uint8_t zeros[4096] = {0};

	assert_true(disk_sample(a, SIZE, left) && disk_sample(b, SIZE, right));
	assert_int_equal(strlen(left), DISK_SAMPLE_TEXT - 1);
	assert_string_equal(left, right);
	assert_null(strstr(left, "00000000"));
	ok(disk_write(b, 2 * DISK_BLOCK, zeros, sizeof(zeros), &err));
	assert_true(disk_sample(b, SIZE, right));
	assert_int_equal(differ(left, right), 2); /* of each half */
	assert_memory_equal(right + 2 * DISK_SAMPLE_DIGITS, "00000000", DISK_SAMPLE_DIGITS);
	/* 16 places of the first half are on it. */
	assert_int_equal(ftruncate(short_one, 1 << 20), 0);
	assert_true(disk_sample(short_one, 1 << 20, right));
	assert_memory_not_equal(right + 15 * DISK_SAMPLE_DIGITS, "00000000", DISK_SAMPLE_DIGITS);
	assert_memory_equal(right + 16 * DISK_SAMPLE_DIGITS, "00000000", DISK_SAMPLE_DIGITS);
	write_only = open(path, O_WRONLY | O_CLOEXEC);
	assert_false(disk_sample(write_only, SIZE, right));
}

static void test_flush(void **state)
{
	const _Atomic bool cancel = true, go_on = false;
	CLEANUP_CLOSE int disk = make_disk(*state, "a");
	CLEANUP_CLOSE int reading = disk_open_again(disk, false);
	int pipes[2];

	ok(disk_flush(reading, SIZE, NULL, &err));
	ok(disk_flush(reading, SIZE, &go_on, &err));
	refused(-ECANCELED, "cancelled", disk_flush(reading, SIZE, &cancel, &err));
	assert_int_equal(pipe(pipes), 0);
	refused(-EINVAL, "cannot sync it", disk_flush(pipes[1], SIZE, NULL, &err));
	close(pipes[0]);
	close(pipes[1]);
}

static uint64_t room(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

static void assert_same(int a, int b)
{
	static uint8_t left[SIZE], right[SIZE];

	ok(io_pread_full(a, left, SIZE, 0));
	ok(io_pread_full(b, right, SIZE, 0));
	assert_memory_equal(left, right, SIZE);
}

/* Only what differs is written, and zeros become holes. */
static void test_copy(void **state)
{
	CLEANUP_CLOSE int from = make_disk(*state, "a"), to = make_disk(*state, "b");
	CLEANUP_CLOSE int fresh = memfd_create("new", MFD_CLOEXEC);
	static const uint8_t zeros[DISK_BLOCK];
	const _Atomic bool cancel = true;
	const struct progress progress = {.cancel = &cancel};
	uint64_t written = 1, before = room(to);

	/* Another file system than that of a file: no clone. */
	ok(disk_copy(from, fresh, SIZE, NULL, &written, &err));
	assert_int_equal(written, SIZE);
	assert_same(from, fresh);
	ok(disk_copy(from, fresh, SIZE, NULL, &written, &err));
	assert_int_equal(written, 0);
	ok(disk_write(fresh, 5 * DISK_BLOCK + 100, zeros, 1, &err));
	ok(disk_write(fresh, 9 * DISK_BLOCK, zeros, DISK_BLOCK, &err));
	ok(disk_write(from, 7 * DISK_BLOCK, zeros, DISK_BLOCK, &err));
	refused(-ECANCELED, "cancelled", disk_copy(from, fresh, SIZE, &progress, NULL, &err));
	ok(disk_copy(from, fresh, SIZE, NULL, &written, &err));
	assert_int_equal(written, 3 * DISK_BLOCK);
	assert_same(from, fresh);
	assert_int_equal(room(fresh), SIZE - DISK_BLOCK);
	/* And the other way round. */
	ok(disk_copy(fresh, to, SIZE, NULL, &written, &err));
	assert_int_equal(written, DISK_BLOCK);
	assert_same(fresh, to);
	assert_int_equal(room(to), before - DISK_BLOCK);
}

static void test_part(void **state)
{
	CLEANUP_CLOSE int whole = make_disk(*state, "a"), part = make_disk(*state, "b");
	static const uint8_t zeros[SIZE];
	uint64_t place = 0;

	assert_int_equal(disk_is_part(part, whole, SIZE, NULL, &place, NULL), 1);
	ok(disk_write(part, 0, zeros, SIZE / 2 + 4096, &err)); /* inside of a block */
	ok(disk_write(part, SIZE - 512, zeros, 512, &err));
	assert_int_equal(disk_is_part(part, whole, SIZE, NULL, &place, NULL), 1);
	assert_int_equal(disk_is_part(whole, part, SIZE, NULL, &place, NULL), 0);
	assert_int_equal(place, 0);
	ok(disk_write(part, 3 * DISK_BLOCK + 1024, (const uint8_t *)"x", 1, &err));
	assert_int_equal(disk_is_part(part, whole, SIZE, NULL, &place, NULL), 0);
	assert_int_equal(place, 3 * DISK_BLOCK + 1024);
	ok(disk_write(part, 0, zeros, SIZE, &err));
	assert_int_equal(disk_is_part(part, whole, SIZE, NULL, &place, NULL), 1);
	assert_int_equal(ftruncate(part, 0), 0);
	refused(-EIO, "it has no byte", disk_is_part(whole, part, SIZE, NULL, &place, &err));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sample),
		cmocka_unit_test(test_flush),
		cmocka_unit_test(test_copy),
		cmocka_unit_test(test_part),
	};

	return cmocka_run_group_tests_name("disk", tests, scratch_setup, scratch_teardown);
}
