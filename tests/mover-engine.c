/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The checkpoint engine without a VM, for functional tests and measurements:
 *
 *     mover-engine write DIR MIB full|incremental COMPRESSION    writes the next epoch
 *     mover-engine check DIR                                     restores and compares all
 *     mover-engine bench DIR MIB                                 figures, a JSON object a line
 *     mover-engine memcpy DIR MIB                                the one figure: GB/s to a new file
 *
 * The memory of an epoch follows from its number: each epoch writes an eighth of the pages of
 * the one before again, and a sixteenth of those become zero.
 */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "mover/crc32c.h"
#include "lib/error.h"
#include "lib/io.h"
#include "mover/chain.h"
#include "mover/page.h"
#include "mover/write.h"

struct ram {
	int fd;
	uint64_t size, pages;
	uint8_t *at;
	uint64_t *dirty;
};

static int fail(int rc, const struct error *err)
{
	fprintf(stderr, "mover-engine: %s\n", err->text);
	return rc == -ENOSPC ? 3 : 1;
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void ram_init(struct ram *ram, uint64_t size)
{
	*ram = (struct ram){.fd = memfd_create("ram", MFD_CLOEXEC),
			    .size = size,
			    .pages = size / PAGE_BYTES,
			    .dirty = calloc(index_chunks(size), 8)};
	if (ram->fd < 0 || ftruncate(ram->fd, (off_t)size) < 0 || !ram->dirty)
		die("memfd");
	ram->at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, ram->fd, 0);
	if (ram->at == MAP_FAILED)
		die("mmap");
}

static void ram_done(struct ram *ram)
{
	munmap(ram->at, ram->size);
	close(ram->fd);
	free(ram->dirty);
}

/* splitmix64 */
static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return x ^ x >> 31;
}

/* Half of a page is random, so that compression has something to do. */
static void fill_page(struct ram *ram, uint64_t page, uint64_t seed)
{
	uint64_t *word = (uint64_t *)(ram->at + page * PAGE_BYTES);

	for (unsigned i = 0; i < PAGE_BYTES / 8; i++)
		word[i] = i % 2 ? seed : mix(seed + i);
	ram->dirty[page / 64] |= 1ull << page % 64;
}

/* From what epoch - 1 was to what epoch is. */
static void advance(struct ram *ram, uint64_t epoch)
{
	memset(ram->dirty, 0, index_chunks(ram->size) * 8);
	for (uint64_t p = 0; p < ram->pages; p++) {
		uint64_t seed = mix(epoch << 40 ^ p);

		if (epoch > 1 && seed % 8)
			continue;
		fill_page(ram, p, seed | 1);
		if (seed / 8 % 16 == 0)
			memset(ram->at + p * PAGE_BYTES, 0, PAGE_BYTES);
	}
}

static int save(const struct store *store, const struct ram *ram, uint64_t parent,
		enum compression compression, uint64_t *epoch, json_t **report, struct error *err)
{
	const struct writer_options options = {
		.memory = ram->size, .parent = parent, .compression = compression};
	const struct writer_vm vm = {.state = "the state", .state_size = 9};
	struct writer *w;
	int rc = writer_create(store, &options, &w, err);

	if (rc < 0)
		return rc;
	rc = writer_pages(w, ram->fd, parent ? ram->dirty : NULL, err);
	if (rc == 0)
		rc = writer_commit(w, &vm, epoch, report, err);
	writer_destroy(w);
	return rc;
}

static int run_write(const char *dir, uint64_t size, bool incremental, const char *compression)
{
	CLEANUP_FREE uint64_t *epochs = NULL;
	enum compression kind;
	struct store store;
	struct error err;
	struct ram ram;
	uint64_t last, epoch;
	size_t n;
	int rc = compression_parse(compression, &kind, &err);

	if (rc == 0)
		rc = store_open(dir, true, &store, &err);
	if (rc == 0)
		rc = store_epochs(&store, &epochs, &n, &err);
	if (rc < 0)
		return fail(rc, &err);
	last = n ? epochs[n - 1] : 0;
	ram_init(&ram, size);
	for (uint64_t e = 1; e <= last + 1; e++)
		advance(&ram, e);
	puts("writing");
	fflush(stdout);
	rc = save(&store, &ram, incremental ? last : 0, kind, &epoch, NULL, &err);
	ram_done(&ram);
	store_close(&store);
	if (rc < 0)
		return fail(rc, &err);
	printf("epoch %" PRIu64 "\n", epoch);
	return 0;
}

static int check_one(const struct store *store, uint64_t epoch, struct error *err)
{
	struct ram ram, copy;
	struct chain chain;
	int rc = chain_open(store, epoch, &chain, err);

	if (rc < 0)
		return rc;
	ram_init(&ram, chain.memory);
	ram_init(&copy, chain.memory);
	for (uint64_t e = 1; e <= epoch; e++)
		advance(&ram, e);
	rc = chain_restore(&chain, copy.fd, 0, NULL, NULL, err);
	if (rc == 0 && memcmp(ram.at, copy.at, ram.size))
		rc = error_set(err, -EBADMSG, "epoch %" PRIu64 " has other memory", epoch);
	chain_close(&chain);
	ram_done(&copy);
	ram_done(&ram);
	return rc;
}

static int run_check(const char *dir)
{
	CLEANUP_FREE uint64_t *epochs = NULL;
	struct store store = {.dir = -1, .lock = -1};
	struct error err;
	size_t n = 0;
	int rc = store_open(dir, false, &store, &err);

	if (rc == 0)
		rc = store_epochs(&store, &epochs, &n, &err);
	for (size_t i = 0; rc == 0 && i < n; i++) {
		rc = check_one(&store, epochs[i], &err);
		if (rc == 0)
			printf("epoch %" PRIu64 ": as it was\n", epochs[i]);
	}
	store_close(&store);
	return rc < 0 ? fail(rc, &err) : 0;
}

static void figure(const char *name, double value, const char *unit)
{
	printf("{\"name\": \"%s\", \"value\": %.6f, \"unit\": \"%s\"}\n", name, value, unit);
	fflush(stdout);
}

static double seconds(uint64_t since)
{
	return (double)(io_now_ns() - since) / 1e9;
}

/* Copies memory to fresh shared memory (or a file there) as several threads. */
struct copy {
	const uint8_t *from;
	uint8_t *to;
	uint64_t size;
};

static int run_copy(struct work *work, unsigned thread, struct error *err)
{
	const struct copy *c = work->arg;
	uint64_t at;

	while ((at = atomic_fetch_add(&work->next, 4u << 20)) < c->size)
		memcpy(c->to + at, c->from + at, 4u << 20);
	return 0;
}

/* What the same bytes cost by memcpy() into a new file there, mapped: seconds. */
static double copy_to(const char *dir, const struct ram *ram)
{
	CLEANUP_FREE char *path = io_format("%s/copy", dir);
	CLEANUP_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	struct copy copy = {.from = ram->at, .size = ram->size};
	struct work work = {.threads = work_threads(ram->size), .run = run_copy, .arg = &copy};
	uint64_t start = io_now_ns();
	double s;

	if (fd < 0 || ftruncate(fd, (off_t)ram->size) < 0)
		die(path);
	copy.to = mmap(NULL, ram->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (copy.to == MAP_FAILED)
		die("mmap");
	work_run(&work, NULL);
	munmap(copy.to, ram->size);
	s = seconds(start);
	unlink(path);
	return s;
}

static double restore(const struct store *store, uint64_t epoch, const struct ram *ram)
{
	struct error err;
	struct chain chain;
	struct ram copy;
	uint64_t start;
	double s;
	int rc;

	ram_init(&copy, ram->size);
	start = io_now_ns();
	rc = chain_open(store, epoch, &chain, &err);
	if (rc == 0)
		rc = chain_restore(&chain, copy.fd, 0, NULL, NULL, &err);
	s = seconds(start);
	if (rc < 0)
		exit(fail(rc, &err));
	if (memcmp(copy.at, ram->at, ram->size))
		die("the copy differs");
	chain_close(&chain);
	ram_done(&copy);
	return s;
}

static double save_timed(const struct store *store, const struct ram *ram, uint64_t parent,
			 enum compression compression, uint64_t *epoch, double *bytes)
{
	uint64_t start = io_now_ns();
	struct error err;
	json_t *report;
	int rc = save(store, ram, parent, compression, epoch, &report, &err);
	double s = seconds(start);

	if (rc < 0)
		exit(fail(rc, &err));
	*bytes = (double)json_integer_value(json_object_get(report, "bytes"));
	json_decref(report);
	return s;
}

/* One page in a hundred, anywhere. */
static uint64_t touch(struct ram *ram)
{
	uint64_t n = 0;

	memset(ram->dirty, 0, index_chunks(ram->size) * 8);
	for (uint64_t p = 0; p < ram->pages; p++) {
		if (mix(p) % 100)
			continue;
		*(uint64_t *)(ram->at + p * PAGE_BYTES) += 1;
		ram->dirty[p / 64] |= 1ull << p % 64;
		n++;
	}
	return n * PAGE_BYTES;
}

static void bench_memory(const struct ram *ram)
{
	CLEANUP_FREE uint8_t *zeros = aligned_alloc(PAGE_BYTES, 64u << 20);
	uint64_t start = io_now_ns();
	volatile uint32_t sum = crc32c(0, ram->at, ram->size);

	figure("crc32c, one thread", (double)ram->size / seconds(start) / 1e9, "GB/s");
	(void)sum;
	memset(zeros, 0, 64u << 20);
	start = io_now_ns();
	if (!page_is_zero(zeros, 64u << 20))
		die("zeros");
	figure("zero pages, one thread", (64u << 20) / seconds(start) / 1e9, "GB/s");
}

static void bench_compressed(const struct store *store, const struct ram *ram)
{
	for (enum compression c = COMPRESSION_LZ4; c < COMPRESSION_COUNT; c++) {
		char name[64];
		uint64_t epoch;
		double bytes, s = save_timed(store, ram, 0, c, &epoch, &bytes);

		snprintf(name, sizeof(name), "full write, %s", compression_name(c));
		figure(name, (double)ram->size / s / 1e9, "GB/s");
		snprintf(name, sizeof(name), "stored / memory, %s", compression_name(c));
		figure(name, bytes / (double)ram->size, "");
		snprintf(name, sizeof(name), "restore, %s", compression_name(c));
		figure(name, (double)ram->size / restore(store, epoch, ram) / 1e9, "GB/s");
		store_remove(store, epoch, NULL);
	}
}

/* A page after the other, anywhere, as a lazy restore wants them. */
static void bench_lazy(const struct store *store, uint64_t epoch, const char *name)
{
	struct epoch_reader reader;
	struct error err;
	struct chain chain;
	uint8_t page[PAGE_BYTES];
	uint64_t start = io_now_ns();
	int rc = chain_open(store, epoch, &chain, &err);

	if (rc < 0 || epoch_reader_init(&reader, &err) < 0)
		exit(fail(rc, &err));
	figure("lazy restore, open", seconds(start) * 1e3, "ms");
	start = io_now_ns();
	for (unsigned i = 0; i < 2000; i++)
		if (chain_read_page(&chain, mix(i) % (chain.memory / PAGE_BYTES), &reader, page,
				    &err) < 0)
			exit(fail(-1, &err));
	figure(name, seconds(start) / 2000 * 1e6, "us");
	epoch_reader_done(&reader);
	chain_close(&chain);
}

static void best(double *least, double s)
{
	if (!*least || s < *least)
		*least = s;
}

/*
 * Full writes and restores beside plain copies, three times in turn, the best of each: a machine
 * that gives memory back to its host has slow moments. Leaves one epoch; returns its seconds.
 */
static double bench_full(const struct store *store, const char *dir, const struct ram *ram,
			 uint64_t *epoch)
{
	double there = 0, here = 0, full = 0, back = 0, bytes;
	double gb = (double)ram->size / 1e9;

	for (unsigned i = 0; i < 3; i++) {
		best(&there, copy_to(dir, ram));
		best(&full, save_timed(store, ram, 0, COMPRESSION_NONE, epoch, &bytes));
		best(&here, copy_to("/dev/shm", ram));
		best(&back, restore(store, *epoch, ram));
		if (i < 2)
			store_remove(store, *epoch, NULL);
	}
	figure("memcpy to there", gb / there, "GB/s");
	figure("full write", gb / full, "GB/s");
	figure("full write / memcpy", there / full, "");
	figure("stored / memory, none", bytes / (double)ram->size, "");
	figure("memcpy to memory", gb / here, "GB/s");
	figure("restore from the page cache", gb / back, "GB/s");
	figure("restore / memcpy", here / back, "");
	return full;
}

static void bench_incremental(const struct store *store, struct ram *ram, uint64_t full,
			      double full_s)
{
	double dirty = (double)touch(ram), least = 0, bytes;
	uint64_t part;

	for (unsigned i = 0; i < 3; i++) {
		best(&least, save_timed(store, ram, full, COMPRESSION_NONE, &part, &bytes));
		if (i < 2)
			store_remove(store, part, NULL);
	}
	figure("incremental, 1% dirty: bytes / dirty bytes", bytes / dirty, "");
	figure("incremental, 1% dirty: time / full", least / full_s, "");
	figure("incremental, 1% dirty", least * 1e3, "ms");
	figure("restore, full and incremental", (double)ram->size / restore(store, part, ram) / 1e9,
	       "GB/s");
	bench_lazy(store, part, "lazy restore, a page of an uncompressed chunk");
	store_remove(store, part, NULL);
}

static int run_bench(const char *dir, uint64_t size)
{
	struct store store;
	struct error err;
	struct ram ram;
	uint64_t full;
	double full_s;
	int rc = store_open(dir, true, &store, &err);

	if (rc < 0)
		return fail(rc, &err);
	ram_init(&ram, size);
	for (uint64_t p = 0; p < ram.pages; p++)
		fill_page(&ram, p, mix(p) | 1);
	bench_memory(&ram);
	full_s = bench_full(&store, dir, &ram, &full);
	bench_incremental(&store, &ram, full, full_s);
	store_remove(&store, full, NULL);
	bench_compressed(&store, &ram);
	ram_done(&ram);
	store_close(&store);
	return 0;
}

static int run_memcpy(const char *dir, uint64_t size)
{
	struct ram ram;
	double least = 0;

	ram_init(&ram, size);
	for (uint64_t p = 0; p < ram.pages; p++)
		fill_page(&ram, p, mix(p) | 1);
	for (unsigned i = 0; i < 3; i++)
		best(&least, copy_to(dir, &ram));
	figure("memcpy", (double)size / 1e9 / least, "GB/s");
	ram_done(&ram);
	return 0;
}

int main(int argc, char **argv)
{
	uint64_t size = argc > 3 ? strtoull(argv[3], NULL, 10) << 20 : 0;

	if (argc == 6 && !strcmp(argv[1], "write") && size)
		return run_write(argv[2], size, !strcmp(argv[4], "incremental"), argv[5]);
	if (argc == 3 && !strcmp(argv[1], "check"))
		return run_check(argv[2]);
	if (argc == 4 && !strcmp(argv[1], "bench") && size)
		return run_bench(argv[2], size);
	if (argc == 4 && !strcmp(argv[1], "memcpy") && size)
		return run_memcpy(argv[2], size);
	fprintf(stderr, "usage: mover-engine write DIR MIB full|incremental COMPRESSION\n"
			"       mover-engine check DIR\n"
			"       mover-engine bench|memcpy DIR MIB\n");
	return 2;
}
