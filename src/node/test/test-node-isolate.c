/* SPDX-License-Identifier: Apache-2.0 */
/* Made-up interrupts that go and come back, and a real one's refusal. */

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "lib/error.h"
#include "lib/parse.h"
#include "node/isolate.h"
#include "node/test/made.h"

#define IRQ(n) "/proc/irq/" n "/smp_affinity_list"

static cpu_set_t set_of(const char *list)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	if (list[0])
		assert_int_equal(parse_cpulist(list, &set, NULL), 0);
	return set;
}

static struct isolate_interrupts isolate(void **state, const char *dedicated)
{
	CLEANUP_FREE char *file = io_format("%s/interrupts.json", (char *)*state);
	cpu_set_t all = set_of("0-3"), own = set_of(dedicated);
	struct isolate_interrupts told;
	struct error err = {0};

	if (isolate_interrupts(*state, file, &all, &own, &told, &err))
		fail_msg("%s", err.text);
	return told;
}

static void expect_irq(void **state, const char *path, const char *list)
{
	CLEANUP_FREE char *full = io_format("%s%s", (char *)*state, path);
	CLEANUP_FREE char *text = NULL;

	assert_true(io_read_file(full, 100, &text, NULL) >= 0);
	text[strcspn(text, "\n")] = 0;
	assert_string_equal(text, list);
}

static bool remembers(void **state)
{
	CLEANUP_FREE char *file = io_format("%s/interrupts.json", (char *)*state);

	return !access(file, F_OK);
}

static int set_up(void **state)
{
	int r = made_set_up(state);

	made_file(*state, IRQ("1"), "0-3\n");
	made_file(*state, IRQ("24"), "2\n");
	made_file(*state, IRQ("25"), "0\n");
	made_file(*state, "/proc/irq/default_smp_affinity", "f\n");
	return r;
}

static void test_there_and_back(void **state)
{
	struct isolate_interrupts told = isolate(state, "2-3");

	assert_int_equal(told.moved, 2);
	assert_int_equal(told.refused, 0);
	expect_irq(state, IRQ("1"), "0-1");
	expect_irq(state, IRQ("24"), "0-1"); /* nothing of its own is left: any other */
	expect_irq(state, IRQ("25"), "0");
	/* A second cluster, then the first one's end: of where they were, what is free. */
	isolate(state, "1-3");
	expect_irq(state, IRQ("1"), "0");
	expect_irq(state, IRQ("24"), "0");
	told = isolate(state, "1");
	assert_int_equal(told.back, 1);
	expect_irq(state, IRQ("1"), "0,2-3");
	expect_irq(state, IRQ("24"), "2");
	assert_true(remembers(state));
	assert_int_equal(isolate(state, "1").moved, 0);
	told = isolate(state, "");
	assert_int_equal(told.back, 1);
	expect_irq(state, IRQ("1"), "0-3");
	assert_false(remembers(state));
}

/* A daemon that died after it wrote down what it would do, and before it had done it. */
static void test_killed_between(void **state)
{
	made_file(*state, "/interrupts.json", "{\"1\": \"0-3\", \"24\": \"2\", \"99\": \"0\"}");
	made_file(*state, IRQ("1"), "0-1\n");
	isolate(state, "2-3");
	expect_irq(state, IRQ("24"), "0-1");
	isolate(state, "");
	expect_irq(state, IRQ("1"), "0-3");
	expect_irq(state, IRQ("24"), "2");
	assert_false(remembers(state)); /* of 99 neither, which is gone */
}

static void test_all_dedicated(void **state)
{
	assert_int_equal(isolate(state, "0-3").moved, 0);
	expect_irq(state, IRQ("1"), "0-3");
	assert_false(remembers(state));
}

/* A file of the kernel that can be read as a list and takes no write, also of root. */
static void test_refused(void **state)
{
	static const char online[] = "/sys/devices/system/cpu/online";
	struct isolate_interrupts told;

	made_file(*state, "/proc/irq/30/name", "");
	made_link(*state, IRQ("30"), online);
	told = isolate(state, "0");
	assert_int_equal(told.refused, 1);
	assert_int_equal(told.first, 30);
	expect_irq(state, IRQ("1"), "1-3");
	isolate(state, "");
	expect_irq(state, IRQ("1"), "0-3");
	assert_false(remembers(state));
}

static void test_bad_state(void **state)
{
	CLEANUP_FREE char *file = io_format("%s/interrupts.json", (char *)*state);
	cpu_set_t all = set_of("0-3"), own = set_of("1");
	struct isolate_interrupts told;
	struct error err;

	made_file(*state, "/interrupts.json", "[1, 2");
	assert_int_equal(isolate_interrupts(*state, file, &all, &own, &told, &err), -EBADMSG);
	assert_non_null(strstr(err.text, "remove it"));
	expect_irq(state, IRQ("1"), "0-3");
}

/* On whatever kernel this is: it works, or the reason is told. */
static void test_cookie(void **state)
{
	pid_t pid = fork();
	struct error err = {0};
	int r, status;

	if (!pid)
		for (;;)
			pause();
	r = isolate_cookie(pid, &err);
	assert_true(!r || ((r == -EOPNOTSUPP || r == -ENODEV) && err.text[0]));
	kill(pid, SIGKILL);
	assert_int_equal(process_wait(pid, &status), 0);
	if (!r)
		assert_int_equal(isolate_cookie(pid, &err), -ESRCH);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, made_tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_there_and_back), TEST(test_killed_between), TEST(test_all_dedicated),
		TEST(test_refused),	   TEST(test_bad_state),      TEST(test_cookie),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
