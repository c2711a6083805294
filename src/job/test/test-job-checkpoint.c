/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A job's checkpoints that earlier versions wrote: tests/golden/job-checkpoint-1 is of version 1,
 * the first full, the second incremental. With a folder as argument this program writes such a one
 * instead.
 */

#include "job/test/made.h"

static void write_all(const char *dir)
{
	struct checkpoints c;
	struct made m;

	made_init(&m, dir);
	ok(checkpoints_open(dir, true, &c, &err));
	made_checkpoint(&m, &c, 1, false);
	made_checkpoint(&m, &c, 2, true);
	checkpoints_close(&c);
	made_done(&m);
}

static void test_golden(void **state)
{
	static const uint64_t both[] = {1, 2};
	struct checkpoints c;
	struct made made;

	(void)state;
	assert_true(checkpoints_are_there(GOLDEN "/job-checkpoint-1"));
	assert_false(checkpoints_are_there(GOLDEN "/checkpoint-1"));
	ok(checkpoints_open(GOLDEN "/job-checkpoint-1", false, &c, &err));
	made_check(&c, both, 2);
	made_init(&made, NULL);
	for (unsigned i = 1; i <= 2; i++) {
		struct job_manifest m;

		made_advance(&made, i);
		ok(checkpoints_read(&c, i, &m, &err));
		assert_int_equal(m.vms, MADE_VMS);
		assert_string_equal(m.cluster, "lu");
		assert_int_equal(m.skew_ns, 5000);
		for (unsigned k = 0; k < MADE_VMS; k++) {
			CLEANUP_FREE char *path = io_format("%s/%s", c.path, m.vm[k].folder);

			guest_compare(&made.g[k], path, m.vm[k].epoch);
		}
		job_manifest_done(&m);
	}
	made_done(&made);
	checkpoints_close(&c);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_golden)};

	if (argc == 2) {
		write_all(argv[1]);
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
