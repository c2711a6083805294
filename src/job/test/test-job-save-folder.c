/* SPDX-License-Identifier: Apache-2.0 */
/* Whose checkpoints a folder has. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "job/checkpoints.h"
#include "job/save-folder.h"
#include "lib/error.h"
#include "lib/loop.h"

#define ONE "00112233445566778899aabbccddeeff"
#define OTHER "ffeeddccbbaa99887766554433221100"
#define ZEROS "0000000000000000000000000000000000000000000000000000000000000000"

struct asked {
	struct loop *loop;
	int code;
	char reason[512];
};

static void on_done(void *arg, int code, const char *reason)
{
	struct asked *a = arg;

	a->code = code;
	snprintf(a->reason, sizeof(a->reason), "%s", code ? reason : "");
	loop_stop(a->loop);
}

static uint64_t count(const char *path)
{
	struct checkpoints c;
	uint64_t *found = NULL;
	size_t n = 0;

	assert_int_equal(checkpoints_open(path, false, &c, NULL), 0);
	assert_int_equal(checkpoints_list(&c, &found, &n, NULL), 0);
	checkpoints_close(&c);
	free(found);
	return n;
}

/*
 * Where it may be opened, *sequence is the number of the next checkpoint, which is made; then so
 * many are kept (0: all).
 */
static int save_keeping(uint64_t keep, const char *path, const char *cluster, const char *job,
			uint64_t *sequence, char reason[512])
{
	struct asked a = {0};
	struct save_folder *f = NULL;
	struct error err;

	assert_int_equal(loop_create(&a.loop), 0);
	assert_int_equal(save_folder_create(a.loop, path, cluster, job, &f, &err), 0);
	assert_int_equal(save_folder_open(f, on_done, &a, &err), 0);
	loop_run(a.loop);
	if (!a.code) {
		json_t *content = json_pack(
			"{s:s, s:s, s:s, s:{}, s:[], s:[{s:s, s:s, s:s, s:i, s:s, s:i, s:i}], "
			"s:[], s:{}}",
			"name", cluster, "subnet", "10.78.0.0/24", "digest", ZEROS, "environment",
			"documents", "vms", "name", "lu-0", "address", "10.78.0.2", "node", "n",
			"epoch", 1, "digest", "sha256:" ZEROS, "at", 5, "pause_ns", 7, "tasks",
			"report");

		*sequence = save_folder_sequence(f);
		assert_int_equal(save_folder_write(f, content, on_done, &a, &err), 0);
		loop_run(a.loop);
		if (!a.code && keep) {
			/* Whoever waits for the checkpoint has heard of it by now. */
			assert_int_equal(count(path), *sequence);
			assert_int_equal(save_folder_prune(f, keep, on_done, &a, &err), 0);
			loop_run(a.loop);
			assert_int_equal(count(path), keep);
		}
	}
	memcpy(reason, a.reason, sizeof(a.reason));
	save_folder_destroy(f);
	loop_destroy(a.loop);
	return a.code;
}

static int save_as(const char *path, const char *cluster, const char *job, uint64_t *sequence,
		   char reason[512])
{
	return save_keeping(0, path, cluster, job, sequence, reason);
}

/* A checkpoint is there before old ones go. */
static void test_keep(void **state)
{
	char dir[] = "/tmp/wisp-save-folder.XXXXXX", reason[512], command[96];
	uint64_t sequence = 0;

	assert_non_null(mkdtemp(dir));
	assert_int_equal(save_as(dir, "lu", ONE, &sequence, reason), 0);
	assert_int_equal(save_as(dir, "lu", ONE, &sequence, reason), 0);
	assert_int_equal(save_keeping(1, dir, "lu", ONE, &sequence, reason), 0);
	assert_int_equal(sequence, 3);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	assert_int_equal(system(command), 0);
}

/* The newest that can be read tells whose they are. */
static void test_damaged(void **state)
{
	char dir[] = "/tmp/wisp-save-folder.XXXXXX", path[64], reason[512], command[96];
	uint64_t sequence = 0;

	assert_non_null(mkdtemp(dir));
	assert_int_equal(save_as(dir, "lu", ONE, &sequence, reason), 0);
	snprintf(path, sizeof(path), "%s/checkpoint-1.json", dir);
	assert_int_equal(truncate(path, 100), 0);
	assert_int_equal(save_as(dir, "lu", ONE, &sequence, reason), -EBADMSG);
	assert_non_null(strstr(reason, "give another folder"));
	assert_int_equal(unlink(path), 0);
	assert_int_equal(save_as(dir, "lu", ONE, &sequence, reason), 0);
	assert_int_equal(save_as(dir, "lu", ONE, &sequence, reason), 0);
	snprintf(path, sizeof(path), "%s/checkpoint-2.json", dir);
	assert_int_equal(truncate(path, 100), 0);
	assert_int_equal(save_as(dir, "lu", OTHER, &sequence, reason), -EEXIST);
	assert_int_equal(save_as(dir, "lu", ONE, &sequence, reason), 0);
	assert_int_equal(sequence, 3);
	assert_int_equal(access(path, F_OK), 0);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	assert_int_equal(system(command), 0);
}

static void test_owner(void **state)
{
	char dir[] = "/tmp/wisp-save-folder.XXXXXX", path[64], stray[96], reason[512], command[96];
	uint64_t sequence = 0;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/saved", dir);
	assert_int_equal(save_as(path, "lu", ONE, &sequence, reason), 0);
	assert_int_equal(sequence, 1);
	/* What no manifest names is for the job's own next checkpoint to remove. */
	snprintf(stray, sizeof(stray), "%s/vm", path);
	mkdir(stray, 0700);
	snprintf(stray, sizeof(stray), "%s/vm/lu-9", path);
	assert_int_equal(mkdir(stray, 0700), 0);

	assert_int_equal(save_as(path, "lu", OTHER, &sequence, reason), -EEXIST);
	assert_non_null(strstr(reason, path));
	assert_non_null(strstr(reason, "an earlier job of cluster lu"));
	assert_non_null(strstr(reason, "wisp cluster restart"));
	assert_int_equal(save_as(path, "cg", ONE, &sequence, reason), -EEXIST);
	assert_non_null(strstr(reason, "checkpoints of cluster lu: give cluster cg another"));
	assert_int_equal(access(stray, F_OK), 0);

	assert_int_equal(save_as(path, "lu", ONE, &sequence, reason), 0);
	assert_int_equal(sequence, 2);
	assert_int_not_equal(access(stray, F_OK), 0);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	assert_int_equal(system(command), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_owner),
					   cmocka_unit_test(test_keep),
					   cmocka_unit_test(test_damaged)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
