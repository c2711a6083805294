/* SPDX-License-Identifier: Apache-2.0 */
/* Record streams and the index: every flipped bit and every cut is found, types come and go. */

#include "mover/test/scratch.h"

#include <errno.h>

#include "mover/record.h"

#define STREAM_MAX 4096

static int stream_of(const void *data, size_t n)
{
	int fd = memfd_create("stream", MFD_CLOEXEC);

	assert_int_equal(pwrite(fd, data, n, 0), n);
	return fd;
}

/* An index with a row of each kind, as bytes. */
static size_t sample(uint8_t out[STREAM_MAX])
{
	struct row rows[] = {
		{.chunk = 0, .stored = 5, .length = 8192, .sum = 1},
		{.chunk = 0, .zero = 4},
		{.chunk = 3,
		 .stored = 1,
		 .length = 100,
		 .offset = 8192,
		 .file = 1,
		 .compression = 2},
	};
	struct index index = {.memory = 4 * CHUNK_BYTES,
			      .epoch = 2,
			      .parent_epoch = 1,
			      .files = 2,
			      .state = (uint8_t *)"xyz",
			      .state_size = 3,
			      .rows = rows,
			      .nrows = 3};
	int fd = memfd_create("index", MFD_CLOEXEC);
	ssize_t n;

	memset(index.parent, 'a', DIGEST_TEXT - 1);
	ok(index_write(fd, &index, &err));
	n = pread(fd, out, STREAM_MAX, 0);
	close(fd);
	assert_true(n > 0 && n < STREAM_MAX);
	return (size_t)n;
}

static int read_bytes(const uint8_t *data, size_t n, struct error *err)
{
	int fd = stream_of(data, n);
	struct index index;
	int rc = index_read(fd, "index", n, &index, err);

	if (rc == 0)
		index_done(&index);
	close(fd);
	return rc;
}

static void test_index(void **state)
{
	const uint64_t sizes[] = {8192, 8292}, small[] = {8192, 8291};
	uint8_t data[STREAM_MAX];
	size_t n = sample(data);
	int fd = stream_of(data, n);
	struct index index;

	ok(index_read(fd, "index", n, &index, &err));
	close(fd);
	assert_int_equal(index.nrows, 3);
	assert_int_equal(index.rows[0].stored, 5);
	assert_int_equal(index.rows[1].zero, 4);
	assert_int_equal(index.rows[2].offset, 8192);
	assert_int_equal(index.rows[2].compression, COMPRESSION_ZSTD);
	assert_int_equal(index.epoch, 2);
	assert_int_equal(strlen(index.parent), 64);
	assert_memory_equal(index.state, "xyz", 3);
	ok(index_check(&index, sizes, "x", &err));
	refused(-EBADMSG, "behind the end of pages.1", index_check(&index, small, "x", &err));
	index_done(&index);
}

static void test_damage(void **state)
{
	uint8_t data[STREAM_MAX + 8] = {0};
	size_t n = sample(data);

	for (size_t bit = 0; bit < n * 8; bit++) {
		data[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_not_equal(read_bytes(data, n, NULL), 0);
		data[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	for (size_t cut = 0; cut < n; cut++)
		assert_int_not_equal(read_bytes(data, cut, NULL), 0);
	assert_int_not_equal(read_bytes(data, n + 8, NULL), 0);
	ok(read_bytes(data, n, &err));
}

/* Types of the future: optional ones are skipped, others refused. */
static void test_unknown(void **state)
{
	int fd = memfd_create("stream", MFD_CLOEXEC);
	struct record_writer w = {.fd = fd};
	struct record_reader r = {.fd = fd, .name = "stream", .left = STREAM_MAX};

	assert_int_equal(record_append(&w, 77, RECORD_OPTIONAL, "hello", 5), 0);
	assert_int_equal(record_append(&w, RECORD_STATE, 0, "12345678", 8), 0);
	assert_int_equal(record_append(&w, 78, 0, "", 0), 0);
	lseek(fd, 0, SEEK_SET);
	ok(record_next(&r, &err));
	assert_int_equal(r.type, RECORD_STATE);
	assert_int_equal(r.length, 8);
	refused(-EBADMSG, "has type 78, which this version of Wisp does not know",
		record_next(&r, &err));
	record_reader_done(&r);
	close(fd);
}

/* A record that says it is huge allocates nothing. */
static void test_huge(void **state)
{
	uint8_t data[STREAM_MAX];
	size_t n = sample(data);
	int fd = stream_of(data, n);
	struct record_reader r = {.fd = fd, .name = "stream", .left = 100};

	refused(-EBADMSG, "stream is cut off in record 0", record_next(&r, &err));
	record_reader_done(&r);
	close(fd);
}

/* Rows that cannot be, with right sums. */
static void test_rows(void **state)
{
	static const struct row bad[] = {
		{.chunk = 4, .stored = 1, .length = 4096},
		{.chunk = 0},
		{.chunk = 0, .stored = 1, .zero = 1, .length = 4096},
		{.chunk = 0, .stored = 1, .length = 4095},
		{.chunk = 0, .stored = 1, .length = 8192},
		{.chunk = 0, .stored = 1, .length = 4096, .offset = 64},
		{.chunk = 0, .stored = 1, .length = 4096, .file = 1},
		{.chunk = 0, .stored = 1, .length = 4096, .compression = 1},
		{.chunk = 0, .stored = 1, .length = 0, .compression = 1},
		{.chunk = 0, .stored = 1, .length = 9, .compression = 3},
		{.chunk = 0, .stored = 1, .length = 9, .compression = 1, .offset = 8},
		{.chunk = 0, .zero = 1, .offset = 4096},
		{.chunk = 0, .zero = 1, .sum = 1},
		{.chunk = 3, .zero = 2},
	};
	const uint64_t memory = 3 * CHUNK_BYTES + PAGE_BYTES;

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		uint8_t data[ROW_SIZE];
		struct wire_writer w = wire_writer(data, sizeof(data));
		struct wire_reader r = wire_reader(data, sizeof(data));
		struct row row;

		row_encode(&w, &bad[i]);
		assert_int_equal(w.pos, ROW_SIZE);
		assert_int_equal(row_decode(&r, memory, 1, &row, NULL), -EBADMSG);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_index),	cmocka_unit_test(test_damage),
		cmocka_unit_test(test_unknown), cmocka_unit_test(test_huge),
		cmocka_unit_test(test_rows),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
