/* SPDX-License-Identifier: Apache-2.0 */
/* Command lines of nodes, and whether a node must look at its files again. */

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "lab/fresh.h"
#include "lab/qemu.h"
#include "lib/args.h"
#include "lib/cleanup.h"
#include "lib/io.h"
#include "lib/process.h"

#define TEXT(s) ((char[]){s})

static struct lab_config config = {.name = TEXT("lab"),
				   .dir = TEXT("/run/a,b"),
				   .nodes = 2,
				   .cpus = 3,
				   .memory = 1ull << 30,
				   .kernel = TEXT("/vmlinuz"),
				   .agent = TEXT("/agent"),
				   .virtiofsd = TEXT("/fs")};

/* The argument behind the flag's index'th occurrence, or NULL. */
static const char *value_of(const struct args *args, const char *flag, unsigned index)
{
	for (size_t i = 0; i + 1 < args->n; i++)
		if (!strcmp(args->v[i], flag) && !index--)
			return args->v[i + 1];
	return NULL;
}

static bool has(const struct args *args, const char *text)
{
	for (size_t i = 0; i < args->n; i++)
		if (strstr(args->v[i], text))
			return true;
	return false;
}

static void test_qemu(void **state)
{
	__attribute__((cleanup(args_done))) struct args args = {0};

	qemu_args(&config, 1, &args);
	assert_false(args.failed);
	assert_string_equal(value_of(&args, "-name", 0), "node2");
	assert_string_equal(value_of(&args, "-accel", 0), "tcg,thread=multi");
	assert_string_equal(value_of(&args, "-smp", 0), "3");
	assert_string_equal(value_of(&args, "-m", 0), "1024");
	assert_string_equal(value_of(&args, "-initrd", 0), "/run/a,b/initrd");
	assert_true(has(&args, "mac=52:54:00:77:00:03"));
	assert_false(has(&args, "nvme"));
}

static void test_options(void **state)
{
	__attribute__((cleanup(args_done))) struct args args = {0};
	struct lab_config c = config;

	c.kvm = c.nvme = true;
	c.shares[c.nshares++] = TEXT("/share");
	c.disks[0] = (struct lab_disk){.node = 0, .path = TEXT("/x,y")};
	c.disks[1] = (struct lab_disk){.node = 1, .path = TEXT("/other")};
	c.ndisks = 2;
	qemu_args(&c, 0, &args);
	assert_string_equal(value_of(&args, "-accel", 0), "kvm");
	assert_string_equal(value_of(&args, "-cpu", 0), "host");
	assert_true(has(&args, "file=/x,,y"));
	assert_false(has(&args, "/other"));
	assert_true(has(&args, "file=/run/a,,b/node1.nvme"));
	assert_true(has(&args, "socket,id=fs1,fd=5"));
	assert_true(has(&args, "tag=share0"));
}

static void test_kernel(void **state)
{
	struct lab_config c = config;
	CLEANUP_FREE char *line = NULL;

	c.hugepages = 7;
	c.tsc_khz = 2500000;
	line = node_cmdline(&c, 0);
	assert_non_null(strstr(line, " wisp.name=node1 wisp.net=52:54:00:77:00:02,10.77.0.2/24 "));
	assert_non_null(strstr(line, " wisp.listen=tcp:10.77.0.2:1024,from=10.77.0.1 "));
	assert_non_null(strstr(line, " hugepages=7 "));
	assert_non_null(strstr(line, " tsc_early_khz=2500000 "));
	assert_non_null(strstr(line, " wisp.hosts=node1=10.77.0.2,node2=10.77.0.3"));
}

static void put(const char *path)
{
	assert_int_equal(io_write_file(path, "x", 1, NULL), 0);
	assert_int_equal(chmod(path, 0755), 0);
}

/* Marks, waits until the file system's clock has moved on. */
static void mark(const char *dir)
{
	usleep(20000);
	assert_int_equal(fresh_mark(dir, "node1", NULL), 0);
	usleep(20000);
}

static void test_fresh(void **state)
{
	char dir[] = "/tmp/wisp-lab-XXXXXX";
	const char *const rm[] = {"rm", "-r", dir, NULL};
	const char *const by_name[] = {"program", "argument", NULL};
	const char *const none[] = {NULL};
	CLEANUP_FREE char *program = NULL;
	CLEANUP_FREE char *argument = NULL;

	assert_non_null(mkdtemp(dir));
	program = io_format("%s/program", dir);
	argument = io_format("%s/argument", dir);
	setenv("WISP_HOME", dir, 1);
	setenv("WISP_LIBEXECDIR", dir, 1);
	setenv("PATH", dir, 1);
	put(program);
	assert_true(fresh_stale(dir, "node1", "/", none)); /* never marked */
	mark(dir);
	fresh_stale(dir, "node1", "/", none); /* makes the folder of images, which is a change */
	mark(dir);
	assert_false(fresh_stale(dir, "node1", "/", by_name));
	put(argument);
	assert_false(fresh_stale(dir, "node1", "/", by_name));
	assert_true(fresh_stale(dir, "node1", dir, by_name));
	mark(dir);
	assert_false(fresh_stale(dir, "node1", dir, by_name));
	put(program);
	assert_true(fresh_stale(dir, "node1", "/", by_name));
	setenv("PATH", "/bin:/usr/bin", 1);
	assert_int_equal(process_run(&(struct process){.argv = rm}, NULL, NULL, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_qemu),
		cmocka_unit_test(test_options),
		cmocka_unit_test(test_kernel),
		cmocka_unit_test(test_fresh),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
