/* SPDX-License-Identifier: Apache-2.0 */
/* Which pages are mapped: what a page table says, also of pages that the kernel moves. */

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "vmm/mapped.h"
#include "vmm/memory.h"

#define PAGES 70u
#define HUGE (2ull << 20)
#define BASE 0x40000000ull /* where memory would be that has a page table of ours */

static void assert_set(int table, const struct memory *mem, uint64_t first, uint64_t second)
{
	struct error err = {{0}};
	CLEANUP_CLOSE int fd = mapped_pages(table, mem, &err);
	uint64_t set[2] = {0};

	if (fd < 0)
		fail_msg("%s", err.text);
	assert_int_equal(lseek(fd, 0, SEEK_END), sizeof(set));
	assert_int_equal(io_pread_full(fd, set, sizeof(set), 0), 0);
	assert_int_equal(set[0], first);
	assert_int_equal(set[1], second);
}

/* The kernel's own table: what was touched, not what is in the file. */
static void test_kernel(void **state)
{
	CLEANUP_CLOSE int table = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	CLEANUP_CLOSE int fd = memfd_create("test-ram", MFD_CLOEXEC);
	struct memory mem = {.size = PAGES * 4096, .page_size = 4096, .nregions = 1};
	volatile uint8_t *ram;

	assert_int_equal(ftruncate(fd, PAGES * 4096), 0);
	assert_int_equal(pwrite(fd, "there", 5, 5 * 4096), 5);
	ram = mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(ram != MAP_FAILED);
	madvise((void *)ram, PAGES * 4096, MADV_NOHUGEPAGE | MADV_RANDOM);
	mem.region[0].host = (uint8_t *)ram;
	mem.region[0].size = mem.size;
	ram[0] = ram[63 * 4096] = ram[69 * 4096] = 1;
	assert_set(table, &mem, 1ull << 63 | 1, 1ull << 5);
	munmap((void *)ram, PAGES * 4096);
}

/* A page table of ours, of a memory of huge pages: an entry for each small one. */
static int make_table(struct memory *mem)
{
	int table = memfd_create("test-table", MFD_CLOEXEC);

	*mem = (struct memory){.size = PAGES * HUGE, .page_size = HUGE, .nregions = 1};
	mem->region[0].host = (uint8_t *)(uintptr_t)BASE;
	mem->region[0].size = mem->size;
	assert_int_equal(ftruncate(table, (off_t)((BASE + mem->size) / 4096 * 8)), 0);
	return table;
}

static void set_entry(int table, unsigned page, uint64_t entry)
{
	assert_int_equal(
		pwrite(table, &entry, sizeof(entry), (off_t)((BASE + page * HUGE) / 4096 * 8)), 8);
}

static void test_moving(void **state)
{
	struct memory mem;
	CLEANUP_CLOSE int table = make_table(&mem);

	set_entry(table, 1, 1ull << 63 | 0x1234);
	set_entry(table, 2, 1ull << 62 | 0x1f); /* a migration entry */
	set_entry(table, 3, 1ull << 61 | 1ull << 55);
	set_entry(table, 64, 1ull << 62);
	assert_set(table, &mem, 6, 1);
}

struct moved {
	int table;
	uint64_t at; /* when it came back */
};

static void *come_back(void *arg)
{
	struct moved *m = arg;

	usleep(15000);
	set_entry(m->table, 7, 1ull << 63);
	m->at = io_now_ns();
	return NULL;
}

/* A page comes back while others look. How long after they began, in ms, and whether it is seen. */
static uint64_t move_one(bool *seen)
{
	struct memory mem;
	CLEANUP_CLOSE int table = make_table(&mem), fd = -1;
	struct moved m = {.table = table};
	pthread_t thread;
	uint64_t start, set = 0;

	assert_int_equal(pthread_create(&thread, NULL, come_back, &m), 0);
	start = io_now_ns();
	fd = mapped_pages(table, &mem, NULL);
	pthread_join(thread, NULL);
	assert_int_equal(io_pread_full(fd, &set, sizeof(set), 0), 0);
	*seen = set == 1ull << 7;
	return m.at > start ? (m.at - start) / 1000000 : 0;
}

/*
 * Of a huge page that is being moved nothing is said for a moment. The last look is 40 ms after the
 * first at least; on a busy machine the page may come back before that, or too late.
 */
static void test_comes_back(void **state)
{
	uint64_t ms = 0;

	for (unsigned i = 0; (ms < 10 || ms >= 40) && i < 500; i++) {
		bool seen;

		ms = move_one(&seen);
		assert_true(seen || ms >= 40);
	}
	assert_in_range(ms, 10, 39);
}

static void test_refused(void **state)
{
	struct memory mem;
	CLEANUP_CLOSE int table = make_table(&mem);
	struct error err = {{0}};

	assert_int_equal(ftruncate(table, 4096), 0);
	assert_true(mapped_pages(table, &mem, &err) < 0);
	assert_non_null(strstr(err.text, "which memory is mapped"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kernel),
		cmocka_unit_test(test_moving),
		cmocka_unit_test(test_comes_back),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
