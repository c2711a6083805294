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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parts),
		cmocka_unit_test(test_zero),
		cmocka_unit_test(test_refused),
	};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd < 0) {
		printf("1..0 # SKIP this user may not use userfaultfd\n");
		return 0;
	}
	close(fd);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
