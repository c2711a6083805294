/* SPDX-License-Identifier: Apache-2.0 */
/* The vCPUs that write get slower, and no others. */

#include "mover/test/scratch.h"

#include "mover/brake.h"

#define CPUS 4

struct vcpus {
	struct machine machine;
	uint64_t faults[CPUS];
	uint8_t percent[CPUS];
	int faults_rc, throttle_rc;
};

static int get_faults(struct machine *m, unsigned n, uint64_t *ret, struct error *err)
{
	struct vcpus *v = (struct vcpus *)m;

	assert_int_equal(n, CPUS);
	memcpy(ret, v->faults, sizeof(v->faults));
	return v->faults_rc;
}

static int set_percent(struct machine *m, unsigned n, const uint8_t *percent, struct error *err)
{
	struct vcpus *v = (struct vcpus *)m;

	assert_int_equal(n, CPUS);
	memcpy(v->percent, percent, CPUS);
	return v->throttle_rc;
}

static const struct machine_ops ops = {.faults = get_faults, .throttle = set_percent};

static void begin(struct brake *b, struct vcpus *v)
{
	*v = (struct vcpus){.machine.ops = &ops, .faults = {7000000, 5, 0, 9}};
	ok(brake_init(b, &v->machine, CPUS, &err));
	brake_look(b);
}

/* A round in which the vCPUs had so many faults. */
static void after(struct brake *b, struct vcpus *v, uint64_t a, uint64_t c, uint64_t d, uint64_t e)
{
	const uint64_t more[CPUS] = {a, c, d, e};

	for (unsigned i = 0; i < CPUS; i++)
		v->faults[i] += more[i];
	brake_look(b);
}

static void expect(const struct vcpus *v, unsigned a, unsigned b, unsigned c, unsigned d)
{
	const uint8_t wanted[CPUS] = {(uint8_t)a, (uint8_t)b, (uint8_t)c, (uint8_t)d};

	assert_memory_equal(v->percent, wanted, CPUS);
}

static void test_writers(void **state)
{
	struct vcpus v;
	struct brake b;

	begin(&b, &v);
	after(&b, &v, 10, 5000, 3, 0);
	ok(brake_more(&b, 5000, &err));
	expect(&v, 0, 20, 0, 0);
	after(&b, &v, 10, 4000, 3, 0);
	ok(brake_more(&b, 4100, &err));
	expect(&v, 0, 30, 0, 0);
	/* Another begins. */
	after(&b, &v, 10, 3000, 3000, 300);
	ok(brake_more(&b, 6000, &err));
	expect(&v, 0, 40, 20, 0);
	assert_int_equal(brake_most(&b), 40);
	brake_release(&b);
	expect(&v, 0, 0, 0, 0);
	brake_done(&b);
}

/* To the end, and what is said there. */
static void test_most(void **state)
{
	struct vcpus v;
	struct brake b;
	unsigned times = 0;

	begin(&b, &v);
	after(&b, &v, 1000, 0, 0, 1000);
	while (brake_more(&b, 2000, NULL) == 0)
		times++;
	assert_int_equal(times, 8);
	expect(&v, 90, 0, 0, 90);
	refused(-EAGAIN, "cannot be slower", brake_more(&b, 2000, &err));
	brake_done(&b);
}

/* Nobody knows who writes: all get slower. */
static void test_unknown(void **state)
{
	struct vcpus v;
	struct brake b;

	begin(&b, &v);
	after(&b, &v, 30, 0, 0, 0);
	ok(brake_more(&b, 5000, &err));
	expect(&v, 20, 20, 20, 20);
	brake_done(&b);
	begin(&b, &v);
	v.faults_rc = -ENOTSUP;
	after(&b, &v, 5000, 0, 0, 0);
	ok(brake_more(&b, 5000, &err));
	expect(&v, 20, 20, 20, 20);
	v.throttle_rc = -EIO;
	assert_int_equal(brake_more(&b, 5000, NULL), -EIO);
	brake_done(&b);
	brake_done(&b);
	assert_int_equal(brake_most(&b), 0);
	brake_release(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_writers),
		cmocka_unit_test(test_most),
		cmocka_unit_test(test_unknown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
