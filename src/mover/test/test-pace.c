/* SPDX-License-Identifier: Apache-2.0 */
/* A limit of bytes a second: exact over time, even in between. */

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <errno.h>
#include <stdlib.h>
#include <cmocka.h>

#include "lib/cleanup.h"
#include "lib/io.h"
#include "mover/pace.h"

#define MS 1000000ull

/* Somebody who always has more to send, with a clock of our own that now and then jumps. */
static void run(uint64_t rate, size_t want, uint64_t stall)
{
	uint64_t now = 1000 * MS, start = now, sent = 0, at, window = now, in_window = 0;
	struct pace p;
	double seconds;

	pace_init(&p, rate);
	for (unsigned i = 0; now < start + 2000 * MS; i++) {
		size_t n = pace_reserve(&p, want, now, &at);

		assert_in_range(n, 1, rate / 100);
		if (at > now)
			now = at;
		if (i % 50 == 7)
			now += stall;
		if (now > window + 10 * MS) {
			window = now;
			in_window = 0;
		}
		in_window += n;
		/* 10 ms, and at most as much that was not used before. */
		assert_in_range(in_window, 0, rate / 50 + rate / 100);
		sent += n;
	}
	seconds = (double)(now - start) / 1e9;
	assert_true((double)sent <= (double)rate * (seconds + 0.02));
	if (!stall)
		assert_true((double)sent >= (double)rate * (seconds - 0.02));
	pace_done(&p);
}

static void test_even(void **state)
{
	static const uint64_t rates[] = {PACE_MIN, 1 << 20, 100 << 20, 10ull << 30};

	for (unsigned i = 0; i < ARRAY_SIZE(rates); i++) {
		run(rates[i], 256 << 10, 0);
		run(rates[i], 8 << 10, 0);
		run(rates[i], 256 << 10, 3 * MS);
		run(rates[i], 256 << 10, 100 * MS);
	}
}

/* An hour without use gives no right to a burst. */
static void test_idle(void **state)
{
	uint64_t at, now = 3600000 * MS, sent = 0;
	struct pace p;

	pace_init(&p, 1 << 20);
	do
		sent += pace_reserve(&p, 1 << 20, now, &at);
	while (at <= now);
	assert_in_range(sent, 1, (1 << 20) / 50);
	pace_done(&p);
}

static void test_waits(void **state)
{
	static const _Atomic bool yes = true;
	const _Atomic bool *const never[2] = {NULL, NULL}, *const cancelled[2] = {NULL, &yes};
	uint64_t start = io_now_ns();
	size_t n, sent = 0;
	struct pace p;

	pace_init(&p, 1 << 20);
	while (sent < 200 << 10) {
		assert_int_equal(pace_wait(&p, 1 << 20, never, &n, NULL), 0);
		sent += n;
	}
	assert_in_range(io_now_ns() - start, 150 * MS, 20000 * MS);
	p.free_ns = (double)(io_now_ns() + 3600000 * MS);
	assert_int_equal(pace_wait(&p, 1, cancelled, &n, NULL), -ECANCELED);
	pace_done(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_even),
		cmocka_unit_test(test_idle),
		cmocka_unit_test(test_waits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
