/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control groups in a folder of ordinary files: what is written where, and what is read. What the
 * kernel makes of it is the functional test node-cgroup's.
 */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "lib/error.h"
#include "lib/parse.h"
#include "node/cgroup.h"
#include "node/test/made.h"

#define JOB "/wisp.slice/job-lu"

static const char *const files[] = {
	"cgroup.procs", "cgroup.threads", "cgroup.subtree_control", "cpuset.cpus", "cpuset.mems",
	"memory.max",	"pids.max",	  "cpuset.cpus.partition",  "cgroup.kill"};

static void make_group(const char *root, const char *group)
{
	for (unsigned i = 0; i < ARRAY_SIZE(files); i++) {
		CLEANUP_FREE char *path = io_format("%s/%s", group, files[i]);

		made_file(root, path, "");
	}
}

static void expect_file(const char *root, const char *path, const char *text)
{
	CLEANUP_FREE char *full = io_format("%s%s", root, path);
	CLEANUP_FREE char *is = NULL;

	assert_true(io_read_file(full, 4096, &is, NULL) >= 0);
	assert_string_equal(is, text);
}

static void test_job(void **state)
{
	const struct cgroup_set set = {
		.cpus = "2-3", .mems = "0", .alone = true, .memory = 1 << 20, .pids = 64};
	struct cgroup_got got;
	struct error err = {0};

	make_group(*state, "");
	make_group(*state, "/wisp.slice");
	make_group(*state, JOB);
	make_group(*state, JOB "/vm-a");
	made_file(*state, JOB "/cpuset.cpus.effective", "2-3\n");
	assert_int_equal(cgroup_slice(*state, &(struct cgroup_set){.cpus = "1-3", .alone = true},
				      &got, &err),
			 0);
	assert_string_equal(got.partition, "root");
	expect_file(*state, "/wisp.slice/cpuset.cpus", "1-3");
	if (cgroup_job(*state, "lu", &set, getuid(), getgid(), &got, &err))
		fail_msg("%s", err.text);
	assert_string_equal(got.partition, "isolated");
	assert_string_equal(got.why, "");
	assert_int_equal(CPU_COUNT(&got.cpus), 2);
	assert_true(CPU_ISSET(3, &got.cpus));
	expect_file(*state, JOB "/cpuset.cpus", "2-3");
	expect_file(*state, JOB "/cpuset.mems", "0");
	expect_file(*state, JOB "/memory.max", "1048576");
	expect_file(*state, JOB "/pids.max", "64");
	expect_file(*state, JOB "/cpuset.cpus.partition", "isolated");
	assert_int_equal(cgroup_part(*state, "lu", "vm-a", getuid(), getgid(), &err), 0);
	assert_int_equal(cgroup_enter(*state, "lu", "vm-a", 1234, &err), 0);
	expect_file(*state, JOB "/vm-a/cgroup.procs", "1234");
	assert_int_equal(cgroup_kill(*state, "lu", NULL, &err), 0);
	expect_file(*state, JOB "/cgroup.kill", "1");
}

/* A kernel that takes the words and makes nothing of them. */
static void test_no_partition(void **state)
{
	CLEANUP_FREE char *file = io_format("%s" JOB "/cpuset.cpus.partition", (char *)*state);
	struct cgroup_got got;
	struct error err;

	make_group(*state, JOB);
	assert_int_equal(unlink(file), 0);
	made_link(*state, JOB "/cpuset.cpus.partition", "/dev/null");
	assert_int_equal(cgroup_job(*state, "lu", &(struct cgroup_set){.cpus = "1", .alone = true},
				    getuid(), getgid(), &got, &err),
			 0);
	assert_string_equal(got.partition, "member");
	assert_true(got.why[0]);
	assert_int_equal(CPU_COUNT(&got.cpus), 0);
}

static void test_partition_words(void **state)
{
	struct cgroup_got got = {0};

	cgroup_read_partition("isolated\n", &got);
	assert_string_equal(got.partition, "isolated");
	assert_string_equal(got.why, "");
	cgroup_read_partition("root invalid (Parent is not a partition root)\n", &got);
	assert_string_equal(got.partition, "member");
	assert_string_equal(got.why, "Parent is not a partition root");
	cgroup_read_partition("isolated invalid\n", &got);
	assert_string_equal(got.partition, "member");
	cgroup_read_partition("", &got);
	assert_string_equal(got.partition, "member");
}

/* A controller that is not there is told when it is needed. */
static void test_missing(void **state)
{
	struct cgroup_got got;
	struct error err;

	made_file(*state, JOB "/cgroup.procs", "");
	assert_int_equal(cgroup_job(*state, "lu", &(struct cgroup_set){.cpus = "1"}, getuid(),
				    getgid(), &got, &err),
			 -EOPNOTSUPP);
	assert_non_null(strstr(err.text, "cpuset.cpus"));
	/* The other limits hold all the same. */
	made_file(*state, JOB "/memory.max", "");
	assert_int_equal(cgroup_job(*state, "lu",
				    &(struct cgroup_set){.cpus = "1", .memory = 1 << 20}, getuid(),
				    getgid(), &got, &err),
			 -EOPNOTSUPP);
	expect_file(*state, JOB "/memory.max", "1048576");
	assert_int_equal(
		cgroup_job(*state, "lu", &(struct cgroup_set){0}, getuid(), getgid(), &got, &err),
		0);
	assert_int_equal(cgroup_job(*state, "../up", &(struct cgroup_set){0}, getuid(), getgid(),
				    &got, &err),
			 -EINVAL);
	assert_int_equal(cgroup_part(*state, "lu", "a/b", getuid(), getgid(), &err), -EINVAL);
	assert_int_equal(cgroup_kill(*state, "none", NULL, &err), 0);
	assert_int_equal(cgroup_remove(*state, "none", NULL, &err), 0);
}

static void test_usage(void **state)
{
	struct cgroup_usage use;
	struct error err;

	assert_int_equal(cgroup_usage(*state, "lu", "vm-a", &use, &err), -ENOENT);
	made_file(*state, JOB "/vm-a/cpu.stat",
		  "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\nnr_periods 0\n");
	made_file(*state, JOB "/vm-a/memory.current", "4096\n");
	made_file(*state, JOB "/vm-a/memory.peak", "8192\n");
	made_file(*state, JOB "/vm-a/io.stat",
		  "8:0 rbytes=100 wbytes=20 rios=1 wios=1 dbytes=0 dios=0\n"
		  "259:0 rbytes=1000 wbytes=3 rios=1 wios=1 dbytes=7 dios=0\n");
	assert_int_equal(cgroup_usage(*state, "lu", "vm-a", &use, &err), 0);
	assert_int_equal(use.cpu_us, 1500);
	assert_int_equal(use.user_us, 1000);
	assert_int_equal(use.system_us, 500);
	assert_int_equal(use.memory, 4096);
	assert_int_equal(use.memory_peak, 8192);
	assert_int_equal(use.read_bytes, 1100);
	assert_int_equal(use.written_bytes, 23);
	assert_int_equal(cgroup_busy(*state, "lu", "vm-a"), 0);
	made_file(*state, JOB "/vm-a/cgroup.events", "populated 1\nfrozen 0\n");
	assert_int_equal(cgroup_busy(*state, "lu", "vm-a"), 1);
}

static void test_remove(void **state)
{
	CLEANUP_FREE char *deep = io_format("%s" JOB "/vm-a/inner", (char *)*state);
	CLEANUP_FREE char *job = io_format("%s" JOB, (char *)*state);
	struct error err;

	assert_int_equal(io_make_dirs(deep, 0755, &err), 0);
	assert_int_equal(cgroup_remove(*state, "lu", NULL, &err), 0);
	assert_int_equal(access(job, F_OK), -1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, made_set_up, made_tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_job),	    TEST(test_no_partition), TEST(test_partition_words),
		TEST(test_missing), TEST(test_usage),	     TEST(test_remove),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
