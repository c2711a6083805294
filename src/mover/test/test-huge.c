/* SPDX-License-Identifier: Apache-2.0 */
/* Huge pages that come in parts: nobody sees a part, and what is zero is zero. */

#include "mover/test/scratch.h"

#include <errno.h>

#include "mover/huge.h"
#include "mover/page.h"
#include "mover/test/fake-vmm.h"

#define UNIT (2 * CHUNK_PAGES)
#define SIZE (4u * CHUNK_BYTES)

static const uint64_t missing[4] = {~0ull, ~0ull};

struct vm {
	struct world world;
	struct fake_vmm fake;
	struct faults faults;
	struct huge *huge;
};

/* A VM of two pages, of which the first is missing; all its memory was something else before. */
static void begin(struct vm *v)
{
	*v = (struct vm){0};
	fake_init(&v->fake, &v->world, SIZE, true);
	v->fake.unit = UNIT;
	memset(v->fake.ram, 0x5a, SIZE);
	ok(fake_faults_open(&v->fake.vmm, 0, &v->faults, &err));
	ok(huge_create(&v->faults, v->fake.fd, SIZE, &v->huge, &err));
	ok(huge_show_others(v->huge, missing, &err));
}

static void end(struct vm *v)
{
	huge_destroy(v->huge);
	faults_close(&v->faults);
	fake_done(&v->fake);
}

static void assert_bytes(const uint8_t *p, int byte, size_t n)
{
	for (size_t i = 0; i < n; i++)
		assert_int_equal(p[i], byte);
}

static void test_parts(void **state)
{
	static const uint64_t pages[4] = {~0xfull, ~0ull};
	static const _Atomic uint64_t zero[4] = {0xf};
	struct vm v;

	begin(&v);
	assert_true(huge_is_shown(v.huge, 2));
	assert_bytes(v.fake.ram + SIZE / 2, 0x5a, SIZE / 2);
	ok(huge_expect(v.huge, pages, zero, &err));
	assert_int_equal(huge_first(v.huge, 1), 0);
	memset(huge_at(v.huge, 1), 2, CHUNK_BYTES);
	assert_int_equal(huge_came(v.huge, 1, CHUNK_PAGES, NULL), 0);
	assert_int_equal(huge_show_if_whole(v.huge, 1, NULL), 0);
	assert_false(huge_is_shown(v.huge, 0));
	memset(huge_at(v.huge, 0) + 4 * PAGE_BYTES, 1, CHUNK_BYTES - 4 * PAGE_BYTES);
	assert_int_equal(huge_came(v.huge, 0, CHUNK_PAGES - 4, NULL), 1);
	assert_true(huge_is_shown(v.huge, 1));
	/* This would wait for ever if it had not been shown. */
	assert_bytes(v.fake.ram, 0, 4 * PAGE_BYTES);
	assert_bytes(v.fake.ram + 4 * PAGE_BYTES, 1, CHUNK_BYTES - 4 * PAGE_BYTES);
	assert_bytes(v.fake.ram + CHUNK_BYTES, 2, CHUNK_BYTES);
	assert_int_equal(huge_show_if_whole(v.huge, 1, NULL), 1);
	end(&v);
}

/* Nothing of it comes: it is zero, and shown when somebody wants it. */
static void test_zero(void **state)
{
	static const uint64_t none[4];
	static const _Atomic uint64_t zero[4] = {~0ull, ~0ull};
	struct vm v;

	begin(&v);
	ok(huge_expect(v.huge, none, zero, &err));
	assert_false(huge_is_shown(v.huge, 0));
	assert_int_equal(huge_show_if_whole(v.huge, 1, NULL), 1);
	assert_bytes(v.fake.ram, 0, SIZE / 2);
	end(&v);
}

/* What would be neither there nor to come must not be shown as it was before. */
static void test_refused(void **state)
{
	static const uint64_t some[4] = {~0ull, ~1ull};
	static const _Atomic uint64_t zero[4];
	struct vm v;

	begin(&v);
	refused(-EBADMSG, "in parts", huge_expect(v.huge, some, zero, &err));
	end(&v);
}

/* What the page table says of the page at p, without touching it. */
static bool is_mapped(const void *p)
{
	CLEANUP_CLOSE int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry = 0;

	assert_int_equal(pread(fd, &entry, 8, (off_t)((uintptr_t)p / PAGE_BYTES * 8)), 8);
	return entry >> 63;
}

#define LARGE_UNIT (32 * CHUNK_PAGES)
#define LARGE ((uint64_t)LARGE_UNIT * PAGE_BYTES)

static void *show_large(void *arg)
{
	struct vm *v = arg;

	assert_int_equal(huge_show_if_whole(v->huge, 0, NULL), 1);
	return NULL;
}

/* While one thread makes it zero, which takes some time, it is not shown to anybody. */
static void show_at_once(void)
{
	static const uint64_t none[32];
	static _Atomic uint64_t zero[32];
	pthread_t thread;
	struct vm v = {0};

	for (unsigned i = 0; i < 32; i++)
		zero[i] = ~0ull;
	fake_init(&v.fake, &v.world, LARGE, true);
	v.fake.unit = LARGE_UNIT;
	memset(v.fake.ram, 0x5a, LARGE);
	ok(fake_faults_open(&v.fake.vmm, 0, &v.faults, &err));
	ok(huge_create(&v.faults, v.fake.fd, LARGE, &v.huge, &err));
	ok(huge_expect(v.huge, none, zero, &err));
	assert_int_equal(pthread_create(&thread, NULL, show_large, &v), 0);
	while (*(volatile uint8_t *)huge_at(v.huge, 0))
		sched_yield();
	assert_true(!huge_show_if_whole(v.huge, 1, NULL) || is_mapped(v.fake.ram));
	assert_true(!huge_is_shown(v.huge, 0) || is_mapped(v.fake.ram));
	/* Who comes meanwhile waits until it is there. */
	assert_bytes(v.fake.ram + LARGE - PAGE_BYTES, 0, PAGE_BYTES);
	pthread_join(thread, NULL);
	assert_true(huge_is_shown(v.huge, 0));
	assert_int_equal(huge_show_if_whole(v.huge, 1, NULL), 1);
	end(&v);
}

/* Often enough that both threads have run at the same time. */
static void test_at_once(void **state)
{
	for (unsigned i = 0; i < 20; i++)
		show_at_once();
}

/* One that could not be shown is as it was before. */
static void test_failed(void **state)
{
	static const uint64_t none[4];
	static const _Atomic uint64_t zero[4] = {~0ull, ~0ull};
	struct vm v;

	begin(&v);
	ok(huge_expect(v.huge, none, zero, &err));
	v.faults.nregions = 0;
	refused(-EPROTO, "outside", huge_show_if_whole(v.huge, 0, &err));
	assert_false(huge_is_shown(v.huge, 0));
	v.faults.nregions = 1;
	assert_int_equal(huge_show_if_whole(v.huge, 0, NULL), 1);
	assert_bytes(v.fake.ram, 0, SIZE / 2);
	end(&v);
}

/* The VM waits for all of a page: one of 1 GiB takes too long. */
static void test_too_large(void **state)
{
	ok(faults_check_page_size(PAGE_BYTES, &err));
	ok(faults_check_page_size(2 << 20, &err));
	refused(-EOPNOTSUPP, "pages of 1024 MiB", faults_check_page_size(1 << 30, &err));
	refused(-EOPNOTSUPP, "--page-size 2M or 4K", faults_check_page_size(1 << 30, &err));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parts),	cmocka_unit_test(test_zero),
		cmocka_unit_test(test_refused), cmocka_unit_test(test_at_once),
		cmocka_unit_test(test_failed),	cmocka_unit_test(test_too_large),
	};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd < 0) {
		printf("1..0 # SKIP this user may not use userfaultfd\n");
		return 0;
	}
	close(fd);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
