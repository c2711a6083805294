/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses, command lines, ends and footprints of VMs. */

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "lib/args.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/parse.h"
#include "lib/paths.h"
#include "lib/process.h"
#include "net/state.h"
#include "vms/end.h"
#include "vms/footprint.h"
#include "vms/handover.h"
#include "vms/heard.h"
#include "vms/hosts.h"
#include "vms/links.h"
#include "vms/network.h"
#include "vms/place.h"
#include "vms/record.h"
#include "vms/vmmargs.h"
#include "vms/vms.h"

static void test_subnet(void **state)
{
	static const char *const bad[] = {
		"",	      "10.78.0.0",  "10.78.0.0/",    "10.78.0.0/30", "10.78.0.1/24",
		"10.0.0.0/7", "8.8.8.0/24", "172.32.0.0/24", "10.78.0/24",   "10.78.0.0/24x",
	};
	struct subnet s;
	struct error err;
	char text[18];
	uint32_t a;

	assert_int_equal(subnet_parse(SUBNET_DEFAULT, &s, &err), 0);
	assert_int_equal(s.base, 0x0a4e0000);
	assert_string_equal(subnet_format(subnet_last(&s), text), "10.78.0.254");
	assert_int_equal(subnet_parse("172.31.255.248/29", &s, &err), 0);
	assert_string_equal(subnet_format(subnet_last(&s), text), "172.31.255.254");
	assert_int_equal(subnet_parse_address(&s, "172.31.255.250", &a, &err), 0);
	assert_string_equal(subnet_mac(a, text), "02:57:ac:1f:ff:fa");
	assert_int_equal(subnet_parse_address(&s, "172.31.255.249", &a, &err), -EINVAL);
	assert_int_equal(subnet_parse_address(&s, "172.31.255.255", &a, &err), -EINVAL);
	assert_int_equal(subnet_parse_address(&s, "x", &a, &err), -EINVAL);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(subnet_parse(bad[i], &s, &err), -EINVAL);
}

/* What comes of hosts, "name=address ..."; or the error. */
static int expand(const char *text, char *ret, size_t size)
{
	json_t *hosts = json_loads(text, JSON_DECODE_ANY, NULL), *all = NULL, *host;
	struct error err;
	size_t i, n = 0;
	int r = hosts_expand(hosts, &all, &err);

	*ret = 0;
	json_array_foreach (all, i, host)
		n += (size_t)snprintf(ret + n, n < size ? size - n : 0, "%s=%s ",
				      record_text(host, "name"), record_text(host, "address"));
	json_decref(hosts);
	json_decref(all);
	return r;
}

static void test_hosts(void **state)
{
	static const char *const bad[] = {
		"[{\"name\": \"lu\", \"address\": \"10.78.0.2\", \"count\": 2}]",
		"[{\"name\": \"lu-01\", \"address\": \"10.78.0.2\", \"count\": 2}]",
		"[{\"name\": \"lu-1234567890\", \"address\": \"10.78.0.2\", \"count\": 2}]",
		"[{\"name\": \"lu-0\", \"address\": \"255.255.255.254\", \"count\": 2}]",
		"[{\"name\": \"lu-0\", \"address\": \"x\", \"count\": 2}]",
		"[{\"name\": \"lu-0\", \"address\": \"10.78.0.2\", \"count\": 0}]",
		"[{\"name\": \"lu-0\", \"address\": \"10.78.0.2\", \"count\": \"2\"}]",
		"[{\"address\": \"10.78.0.2\", \"count\": 2}]",
	};
	char text[256];

	assert_int_equal(expand("[{\"name\": \"lu-9\", \"address\": \"10.78.0.255\", \"count\": 2},"
				"{\"name\": \"x\", \"address\": \"10.78.3.1\"}]",
				text, sizeof(text)),
			 0);
	assert_string_equal(text, "lu-9=10.78.0.255 lu-10=10.78.1.0 x=10.78.3.1 ");
	assert_int_equal(expand("null", text, sizeof(text)), 0);
	assert_string_equal(text, "");
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(expand(bad[i], text, sizeof(text)), -EINVAL);
	assert_int_equal(expand("[{\"name\": \"lu-0\", \"address\": \"10.0.0.2\", \"count\": 4096},"
				"{\"name\": \"x\", \"address\": \"10.78.3.1\"}]",
				text, sizeof(text)),
			 -E2BIG);
}

static void test_identity(void **state)
{
	char text[17];

	assert_string_equal(network_format_id(0x1234, text), "0000000000001234");
	assert_int_equal(links_vni(0xabcdef0123456789), 0x456789);
	assert_int_equal(links_vni(0xabcdef0123000000), 1);
}

/* Frames can be sent from any address: few are believed, and none that was unlinked. */
static void test_heard(void **state)
{
	static const uint32_t nobody[] = {0, 0xe0000001, 0xf0000001, UINT32_MAX};
	struct heard h = {0};
	unsigned believed = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(nobody); i++)
		assert_false(heard_believe(&h, nobody[i]));
	heard_unlink(&h, 7);
	assert_false(heard_believe(&h, 7));
	heard_unlink(&h, 7);
	heard_link(&h, 7);
	assert_true(heard_believe(&h, 7));
	heard_link(&h, 8);
	for (uint32_t node = 1000; node < 3000; node++)
		believed += heard_believe(&h, node);
	assert_int_equal(believed, HEARD_MAX - 1);
	h = (struct heard){0};
	for (uint32_t node = 1; node <= HEARD_GONE + 1; node++)
		heard_unlink(&h, node);
	assert_true(heard_believe(&h, 1)); /* too long ago */
	assert_false(heard_believe(&h, 2));
	assert_false(heard_believe(&h, HEARD_GONE + 1));
}

static json_t *sample(const char *disk)
{
	json_t *config = json_pack("{ss,ss,ss,ss,ss,ss,si,ss,ss,ss,sb}", "name", "a", "kernel",
				   "/k", "initrd", "/i", "root", "/r", "mac", "02:57:0a:4e:00:02",
				   "address", "10.78.0.2", "prefix", 24, "vhost", "off", "memory",
				   "1G", "cmdline", "debug", "prefault", 1);

	json_object_set_new(config, "disks", json_pack("[{sssb}]", "path", disk, "readonly", 1));
	return config;
}

static bool has(const struct args *args, const char *text)
{
	for (size_t i = 0; i < args->n; i++)
		if (!strcmp(args->v[i], text))
			return true;
	return false;
}

static void test_args(void **state)
{
	CLEANUP_FREE char *many = calloc(1, 4000);
	json_t *config = sample("/d");
	struct args args = {0};
	struct error err;

	assert_int_equal(vmm_args(config, "/vmm", "/run/a", "a=10.78.0.2", false, &args, &err), 0);
	assert_string_equal(args.v[0], "/vmm");
	assert_true(
		has(&args,
		    "console=ttyS0 quiet panic=-1 cryptomgr.notests wisp.root=/dev/vda wisp.name=a "
		    "wisp.net=02:57:0a:4e:00:02,10.78.0.2/24 wisp.hosts=a=10.78.0.2 "
		    "debug"));
	assert_true(has(&args, "--memory=1G"));
	assert_true(has(&args, "--prefault"));
	assert_true(has(&args, "block,path=/r,readonly"));
	assert_true(has(&args, "block,path=/d,readonly"));
	assert_true(has(&args, "--device=net,fd=3,mac=02:57:0a:4e:00:02,vhost=off"));
	assert_true(has(&args, "--serial=file=/run/a/console"));
	for (size_t i = 0; i < args.n; i++)
		assert_null(strstr(args.v[i], "--cpus"));
	args_done(&args);

	/* A way out of the network. */
	json_object_set_new(config, "gateway", json_string("10.78.0.1"));
	json_object_set_new(config, "dns", json_string("192.0.2.1,192.0.2.2"));
	assert_int_equal(vmm_args(config, "/vmm", "/run/a", "a=10.78.0.2", false, &args, &err), 0);
	assert_true(
		has(&args,
		    "console=ttyS0 quiet panic=-1 cryptomgr.notests wisp.root=/dev/vda wisp.name=a "
		    "wisp.net=02:57:0a:4e:00:02,10.78.0.2/24,10.78.0.1 "
		    "wisp.dns=192.0.2.1,192.0.2.2 wisp.hosts=a=10.78.0.2 debug"));
	args_done(&args);

	/* Names that do not fit are left for later; the command line stays whole. */
	memset(many, 'x', 3999);
	assert_int_equal(vmm_args(config, "/vmm", "/run/a", many, false, &args, &err), 0);
	for (size_t i = 0; i < args.n; i++)
		assert_null(strstr(args.v[i], "xxxx"));
	args_done(&args);

	/* A machine for a saved state is the same machine without a kernel. */
	assert_int_equal(vmm_args(config, "/vmm", "/run/a", "", true, &args, &err), 0);
	assert_true(has(&args, "--incoming"));
	assert_true(has(&args, "--memory=1G"));
	for (size_t i = 0; i < args.n; i++)
		assert_true(!strstr(args.v[i], "--kernel") && strcmp(args.v[i], "--cmdline"));
	args_done(&args);
	json_decref(config);

	config = sample("/with,comma");
	assert_int_equal(vmm_args(config, "/vmm", "/run/a", "", false, &args, &err), -EINVAL);
	assert_non_null(strstr(err.text, "/with,comma"));
	args_done(&args);
	json_decref(config);
}

static void expect_end(int status, const char *reason, const char *key, int value, const char *said)
{
	json_t *end = end_describe(status, "wisp-vmm: a: why");

	assert_string_equal(record_text(end, "reason"), reason);
	assert_int_equal(json_integer_value(json_object_get(end, key)), value);
	assert_string_equal(record_text(end, "said"), said);
	json_decref(end);
}

static void test_ends(void **state)
{
	expect_end(0, "powered off", "code", 0, "");
	expect_end(1 << 8, "failed", "code", 1, "wisp-vmm: a: why");
	expect_end(11 << 8, "guest kernel panic", "code", 11, "wisp-vmm: a: why");
	expect_end(77 << 8, "wisp-vmm exited with 77", "code", 77, "wisp-vmm: a: why");
	expect_end(SIGKILL, "killed by signal 9 (Killed)", "signal", 9, "");
}

static void test_footprint(void **state)
{
	char smaps[] = "5581d0a00000-5581d0a10000 r-xp 00000000 00:1f 123 /usr/bin/wisp-vmm\n"
		       "Size:                 64 kB\n"
		       "Rss:                  60 kB\n"
		       "Anonymous:             4 kB\n"
		       "VmFlags: rd ex mr mw me\n"
		       "5581d2000000-5581d2021000 rw-p 00000000 00:00 0 [heap]\n"
		       "Rss:                 100 kB\n"
		       "Anonymous:           100 kB\n"
		       "7f0000000000-7f0040000000 rw-s 00000000 00:01 77 /guest-ram "
		       "(deleted)\n"
		       "Rss:               50000 kB\n"
		       "Anonymous:             0 kB\n"
		       "Private_Hugetlb:    2048 kB\n"
		       "7f0050000000-7f0050003000 rw-s 00000000 00:0e 9 anon_inode:kvm-vcpu:0\n"
		       "Rss:                   0 kB\n"
		       "Anonymous:             0 kB\n";
	struct footprint f;

	footprint_parse(smaps, &f);
	assert_int_equal(f.guest, 52048ull << 10);
	assert_int_equal(f.anonymous, 104 << 10);
	assert_int_equal(f.file, 56 << 10);
}

static void test_record(void **state)
{
	char dir[] = "/tmp/wisp-vms-XXXXXX", path[64];
	json_t *value = json_pack("{ss}", "name", "a"), *back;
	struct error err;

	assert_non_null(mkdtemp(dir));
	assert_int_equal(record_read(dir, RECORD_END, &back, &err), -ENOENT);
	assert_false(record_exists(dir, RECORD_END));
	assert_int_equal(record_write(dir, RECORD_END, value, &err), 0);
	assert_true(record_exists(dir, RECORD_END));
	assert_int_equal(record_read(dir, RECORD_END, &back, &err), 0);
	assert_true(json_equal(value, back));
	assert_string_equal(record_text(back, "none"), "");
	json_decref(back);
	json_decref(value);
	snprintf(path, sizeof(path), "%s/" RECORD_END, dir);
	assert_int_equal(truncate(path, 3), 0);
	assert_int_equal(record_read(dir, RECORD_END, &back, &err), -EBADMSG);
	unlink(path);
	rmdir(dir);
}

static void expect_open(const char *dir, const char *file, const char *text, enum hand_over is,
			const char *words)
{
	CLEANUP_FREE char *path = io_format("%s/%s", dir, file);
	struct error err = {""};

	assert_int_equal(io_write_file(path, text, strlen(text), &err), 0);
	assert_int_equal(hand_over_look(dir), is);
	assert_int_equal(hand_over_check("a", dir, HAND_OVER_STAYED, "go", &err), is ? -EBUSY : 0);
	if (!strstr(err.text, words))
		fail_msg("not \"%s\": %s", words, err.text);
	assert_int_equal(hand_over_check("a", dir, HAND_OVER_UNTOLD, "go", &err),
			 is >= HAND_OVER_CAME ? -EBUSY : 0);
	assert_int_equal(hand_over_check("a", dir, HAND_OVER_UNDECIDED, "go", &err),
			 is >= HAND_OVER_GIVEN_UP ? -EBUSY : 0);
	unlink(path);
}

/* What each state of a record leaves open; more than it says is never believed. */
static void test_hand_over(void **state)
{
	static const struct {
		const char *file, *text;
		enum hand_over is;
		const char *words;
	} cases[] = {
		{RECORD_SEND, "{\"state\":\"giving\"}", HAND_OVER_SENDING, "may run there"},
		{RECORD_SEND, "{\"state\":\"given\"}", HAND_OVER_SENDING, "migrate a ADDRESS"},
		{RECORD_SEND, "{\"state\":\"gone\"}", HAND_OVER_SENDING, "may run there"},
		{RECORD_SEND, "{\"state\":\"back\"}", HAND_OVER_STAYED, "has stayed here"},
		{RECORD_SEND, "{\"state\":\"aborted\",\"told\":true}", HAND_OVER_SENDING,
		 ", or go"},
		{RECORD_SEND, "{\"st", HAND_OVER_SENDING, "may run there"},
		{RECORD_RECEIVE, "{\"state\":\"prepared\"}", HAND_OVER_RECEIVING,
		 "may run where it comes from"},
		{RECORD_RECEIVE, "{\"state\":\"running\"}", HAND_OVER_CAME, "has come here"},
		{RECORD_RECEIVE, "{\"state\":\"aborted\"}", HAND_OVER_GIVEN_UP,
		 "will not run here"},
		{RECORD_RECEIVE, "{\"state\":\"aborted\",\"told\":false}", HAND_OVER_GIVEN_UP,
		 "wisp vm receive --again a --listen ADDRESS, or go"},
		{RECORD_RECEIVE, "{\"state\":\"aborted\",\"told\":true}", HAND_OVER_NONE, ""},
		{RECORD_RECEIVE, "{\"state\":\"back\"}", HAND_OVER_RECEIVING, ", or go"},
		{RECORD_RECEIVE, "", HAND_OVER_RECEIVING, "may run where it comes from"},
	};
	char dir[] = "/tmp/wisp-vms-XXXXXX";
	CLEANUP_FREE char *back = NULL;

	assert_non_null(mkdtemp(dir));
	assert_int_equal(hand_over_look(dir), HAND_OVER_NONE);
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++)
		expect_open(dir, cases[i].file, cases[i].text, cases[i].is, cases[i].words);
	/* Both: the one that leaves more open. */
	back = io_format("%s/" RECORD_SEND, dir);
	assert_int_equal(io_write_file(back, "{\"state\":\"back\"}", 16, NULL), 0);
	expect_open(dir, RECORD_RECEIVE, "{\"state\":\"running\"}", HAND_OVER_CAME,
		    "has come here");
	unlink(back);
	rmdir(dir);
}

/* Has the state of a VM that nobody answers for, and removes it a moment later. */
static void hold(const char *dir, int ready)
{
	int lock;

	if (state_lock(dir, &lock, NULL) || write(ready, "", 1) != 1)
		_exit(1);
	poll(NULL, 0, 300);
	_exit(state_remove(dir, NULL) ? 1 : 0);
}

/* A VM that is about to be gone by itself cannot be asked to end, and is waited for. */
static void test_ends_itself(void **state)
{
	char root[] = "/tmp/wisp-vms-XXXXXX";
	CLEANUP_FREE char *dir = NULL;
	struct vms_stop stop = {.kill = true};
	struct error err = {""};
	int ready[2], status;
	pid_t child;
	char c;

	assert_non_null(mkdtemp(root));
	assert_int_equal(setenv("WISP_RUN", root, 1), 0);
	assert_int_equal(paths_run("vm", "a", &dir, &err), 0);
	assert_int_equal(pipe(ready), 0);
	child = fork();
	if (!child)
		hold(dir, ready[1]);
	assert_int_equal(read(ready[0], &c, 1), 1);
	if (vms_stop("a", &stop, &err))
		fail_msg("%s", err.text);
	assert_string_equal(stop.how, "ended by itself");
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_int_equal(vms_stop("a", &stop, &err), -ENOENT);
	close(ready[0]);
	close(ready[1]);
	unsetenv("WISP_RUN");
	*strrchr(dir, '/') = 0;
	assert_int_equal(rmdir(dir), 0);
	assert_int_equal(rmdir(root), 0);
}

/* A process that begins where it belongs says so. */
static void test_place(void **state)
{
	static const char *const argv[] = {"grep", "^Cpus_allowed_list:", "/proc/self/status",
					   NULL};
	CLEANUP_FREE char *out = NULL;
	cpu_set_t cpus;
	char list[64];
	json_t *config;
	struct place place;
	struct process process = {.argv = argv, .in_child = place_enter, .in_child_arg = &place};
	struct error err = {""};
	int last = -1;

	assert_int_equal(sched_getaffinity(0, sizeof(cpus), &cpus), 0);
	for (int i = 0; i < CPU_SETSIZE; i++)
		last = CPU_ISSET(i, &cpus) ? i : last;
	CPU_ZERO(&cpus);
	CPU_SET(last, &cpus);
	config = json_pack("{s:s, s:s}", "affinity", format_cpulist(&cpus, list, sizeof(list)),
			   "mems", "0");
	assert_int_equal(place_open(config, &place, &err), 0);
	if (process_run(&process, &out, NULL, &err))
		fail_msg("%s", err.text);
	assert_non_null(strstr(out, "Cpus_allowed_list:"));
	assert_int_equal(atoi(strchr(out, ':') + 1), last);
	place_close(&place);

	json_object_set_new(config, "affinity", json_string("x"));
	assert_int_equal(place_open(config, &place, &err), -EINVAL);
	json_object_del(config, "affinity");
	json_object_set_new(config, "cgroup", json_string("/nowhere/vm-a"));
	assert_int_equal(place_open(config, &place, &err), -ENOENT);
	assert_non_null(strstr(err.text, "/nowhere/vm-a"));
	json_decref(config);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_subnet),	    cmocka_unit_test(test_hosts),
		cmocka_unit_test(test_identity),    cmocka_unit_test(test_heard),
		cmocka_unit_test(test_args),	    cmocka_unit_test(test_ends),
		cmocka_unit_test(test_footprint),   cmocka_unit_test(test_record),
		cmocka_unit_test(test_hand_over),   cmocka_unit_test(test_place),
		cmocka_unit_test(test_ends_itself),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
