/* SPDX-License-Identifier: Apache-2.0 */
/* From environments and grants to descriptions of VMs. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "env/schema.h"
#include "lib/args.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/parse.h"
#include "part/resolvers.h"
#include "part/setup.h"
#include "part/spec.h"
#include "part/volume.h"

#define SETUP                                                                                  \
	"{\"cluster\": \"lu-3f2a\", \"name\": \"lu\", \"node\": \"n1\", \"environment\": %s, " \
	"\"network\": {\"name\": \"lu-3f2a\", \"id\": \"00000000000000aa\", "                  \
	"\"subnet\": \"10.78.0.0/24\"}, \"vms\": [{\"name\": \"lu-0\", \"address\": "          \
	"\"10.78.0.2\"}, {\"name\": \"lu-1\", \"address\": \"10.78.0.3\"}], \"grants\": "      \
	"{\"lu-0\": %s, \"lu-1\": %s}, \"cgroup\": %s}"

static struct image image = {.name = (char *)(uintptr_t) "mpi",
			     .vmlinux = (char *)(uintptr_t) "/i/vmlinux",
			     .initrd = (char *)(uintptr_t) "/i/initrd",
			     .root = (char *)(uintptr_t) "/i/root.squashfs"};

struct fixture {
	char dir[64];
	struct spec_host host;
};

/* Eight hardware threads, i and i + 4 of one core. */
static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	strcpy(f->dir, "/tmp/wisp-spec.XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	for (int cpu = 0; cpu < 8; cpu++) {
		CLEANUP_FREE char *folder =
			io_format("%s/devices/system/cpu/cpu%d/topology", f->dir, cpu);
		CLEANUP_FREE char *path = io_format("%s/thread_siblings_list", folder);
		CLEANUP_FREE char *text = io_format("%d,%d\n", cpu % 4, cpu % 4 + 4);

		assert_int_equal(io_make_dirs(folder, 0755, NULL), 0);
		assert_int_equal(io_write_file(path, text, strlen(text), NULL), 0);
	}
	f->host = (struct spec_host){.sys = f->dir, .volumes = "/cache/volumes/n1/lu-3f2a"};
	parse_cpulist("0-7", &f->host.cpus, NULL);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	CLEANUP_FREE char *command = io_format("rm -rf '%s'", f->dir);
	int r = system(command);

	free(f);
	return r;
}

static void parse(struct setup *s, const char *environment, const char *grant, const char *cgroup)
{
	CLEANUP_FREE char *text = io_format(SETUP, environment, grant, grant, cgroup);
	json_error_t reason;
	json_t *json = json_loads(text, 0, &reason);
	struct error err = {""};

	if (!json)
		fail_msg("%s in %s", reason.text, text);
	if (setup_parse(json, s, &err))
		fail_msg("%s", err.text);
	json_decref(json);
}

/* What becomes of a VM; 0: lu-0. */
static int derive(struct fixture *f, const char *environment, const char *grant, size_t vm,
		  json_t **ret, struct error *err)
{
	struct setup s;
	int r;

	parse(&s, environment, grant, "null");
	r = spec_derive(&s, &s.vms[vm], &image, &f->host, ret, err);
	setup_done(&s);
	return r;
}

/* The members that are in wanted are as there. */
static void expect(struct fixture *f, const char *environment, const char *grant, size_t vm,
		   const char *wanted)
{
	struct error err = {""};
	json_t *spec = NULL, *want = json_loads(wanted, 0, NULL), *value;
	const char *key;

	assert_non_null(want);
	if (derive(f, environment, grant, vm, &spec, &err))
		fail_msg("%s: %s", environment, err.text);
	json_object_foreach (want, key, value) {
		json_t *is = json_object_get(spec, key);

		if (!(json_is_null(value) ? !is : json_equal(is, value))) {
			CLEANUP_FREE char *text = json_dumps(spec, JSON_INDENT(1));

			fail_msg("%s: %s of %s", environment, key, text);
		}
	}
	json_decref(want);
	json_decref(spec);
}

static void refuse(struct fixture *f, const char *environment, const char *grant, int code,
		   const char *text)
{
	struct error err = {""};
	json_t *spec = NULL;

	assert_int_equal(derive(f, environment, grant, 0, &spec, &err), code);
	assert_null(spec);
	if (!strstr(err.text, text))
		fail_msg("\"%s\" is not in: %s", text, err.text);
}

#define SHARED                                                                                     \
	"{\"vcpus\": 2, \"dedicated\": false, \"cpus\": \"0-7\", \"page-size\": 4096, \"nodes\": " \
	"[]}"
#define OWN                                                                                   \
	"{\"vcpus\": 4, \"dedicated\": true, \"cpus\": \"2-3,6-7\", \"page-size\": 2097152, " \
	"\"nodes\": [{\"node\": 1, \"memory\": 4096}]}"

/* All of it, once. */
static void test_golden(void **state)
{
	static const char environment[] =
		"{\"base\": \"debian\", \"checkpoint\": {\"keep\": 2}, \"cmdline\": [\"nohz=off\", "
		"\"quiet\"], \"cpus\": 2, \"dedicated\": false, \"memory\": 1073741824, \"name\": "
		"\"lu\", \"network\": {\"isolated\": true, \"kind\": \"private\", \"subnet\": "
		"\"10.78.0.0/24\"}, \"numa\": \"none\", \"page-size\": \"4K\", \"pinning\": "
		"\"none\", \"prefault\": false, \"shares\": {\"home\": {\"source\": \"/home\", "
		"\"readonly\": false}, \"data\": {\"source\": \"/srv/data\", \"target\": "
		"\"/data\", "
		"\"readonly\": true}}, \"signed\": false, \"vms\": 2, \"volumes\": {\"b\": "
		"{\"path\": \"/srv/b.img\", \"readonly\": true, \"filesystem\": \"none\"}, \"a\": "
		"{\"size\": 1048576, \"filesystem\": \"ext4\", \"readonly\": false, \"target\": "
		"\"/scratch\"}}}";
	static const char wanted[] =
		"{\"name\": \"lu-1\", \"cluster\": \"lu-3f2a\", \"address\": \"10.78.0.3\", "
		"\"vhost\": \"auto\", \"image\": \"mpi\", \"kernel\": \"/i/vmlinux\", \"initrd\": "
		"\"/i/initrd\", \"root\": \"/i/root.squashfs\", \"cgroup\": \"/g/job-x/vm-lu-1\", "
		"\"cpus\": \"2\", \"memory\": \"1048576K\", \"page-size\": \"4K\", \"prefault\": "
		"false, \"cmdline\": \"nohz=off quiet\", \"shares\": [{\"tag\": \"data\", "
		"\"source\": \"/srv/data\", \"target\": \"/data\", \"readonly\": true}, {\"tag\": "
		"\"home\", \"source\": \"/home\", \"target\": \"/home\", \"readonly\": false}], "
		"\"disks\": [{\"name\": \"a\", \"path\": "
		"\"/cache/volumes/n1/lu-3f2a/lu-1/a\", \"readonly\": false, \"own\": true, "
		"\"size\": 1048576, \"filesystem\": \"ext4\", \"target\": \"/scratch\"}, "
		"{\"name\": \"b\", \"path\": "
		"\"/srv/b.img\", \"readonly\": true, \"own\": false}]}";
	struct fixture *f = *state;
	struct error err = {""};
	json_t *spec = NULL, *want = json_loads(wanted, 0, NULL);
	struct setup s;

	parse(&s, environment, SHARED, "\"/g/job-x\"");
	if (spec_derive(&s, &s.vms[1], &image, &f->host, &spec, &err))
		fail_msg("%s", err.text);
	if (!json_equal(spec, want)) {
		CLEANUP_FREE char *text = json_dumps(spec, JSON_INDENT(1));

		fail_msg("%s", text);
	}
	json_decref(spec);
	json_decref(want);
	setup_done(&s);
}

#define MACHINE "\"cpus\": 2, \"memory\": 1073741824"

static void test_cpus(void **state)
{
	struct fixture *f = *state;
	static const char four[] = "{\"cpus\": 4, \"memory\": 1073741824, \"dedicated\": true, "
				   "\"pinning\": \"threads\", \"page-size\": \"2M\"}";

	expect(f, "{" MACHINE "}", SHARED, 0,
	       "{\"pin\": null, \"affinity\": null, \"mems\": null}");
	/* The second VM that shares goes on where the first ended. */
	expect(f, "{" MACHINE ", \"pinning\": \"threads\"}", SHARED, 0, "{\"pin\": \"0-1\"}");
	expect(f, "{" MACHINE ", \"pinning\": \"threads\"}", SHARED, 1, "{\"pin\": \"2-3\"}");
	expect(f, "{" MACHINE ", \"pinning\": \"cores\"}", SHARED, 1, "{\"pin\": \"2-3\"}");
	expect(f, "{\"cpus\": 3, \"memory\": 1048576, \"pinning\": \"cores\"}", SHARED, 1,
	       "{\"pin\": \"0-1,3\"}");
	/* Own cores: all its threads, for all its vCPUs, and its VMM stays there. */
	expect(f, four, OWN, 1,
	       "{\"pin\": \"2-3,6-7\", \"affinity\": \"2-3,6-7\", \"page-size\": \"2M\"}");
	expect(f, "{" MACHINE ", \"dedicated\": true, \"pinning\": \"cores\"}", OWN, 0,
	       "{\"pin\": \"2-3\", \"affinity\": \"2-3,6-7\"}");
	expect(f, "{" MACHINE ", \"numa\": \"one\"}", OWN, 0,
	       "{\"affinity\": \"2-3,6-7\", \"mems\": \"1\"}");
	refuse(f, "{\"cpus\": 4, \"memory\": 1048576, \"pinning\": \"cores\"}", OWN, -E2BIG,
	       "4 vCPUs are to be pinned to cores of their own, and there are 2 (CPUs 2-3,6-7)");
	refuse(f, "{" MACHINE ", \"dedicated\": true}", SHARED, -EINVAL, "shared CPUs");

	/* What the kernel grants counts. */
	parse_cpulist("2-3,6", &f->host.cpus, NULL);
	expect(f, "{" MACHINE ", \"dedicated\": true}", OWN, 0, "{\"affinity\": \"2-3,6\"}");
	refuse(f, four, OWN, -E2BIG, "there are 3 (CPUs 2-3,6)");
	parse_cpulist("0", &f->host.cpus, NULL);
	refuse(f, "{" MACHINE ", \"dedicated\": true}", OWN, -EBUSY,
	       "CPUs 2-3,6-7 were granted to lu-0, and the kernel lets the cluster have 0 alone");
}

/* What cannot be had is said, not left out. */
static void test_not_yet(void **state)
{
	static const char two[] = "{\"dedicated\": true, \"cpus\": \"0-7\", \"nodes\": "
				  "[{\"node\": 0}, {\"node\": 1}]}";
	static const char *const words[] = {
		"\"devices\": [\"pci:0000:3b:00.0\"], \"checkpoint\": {\"interval\": 60}",
		"checkpoint.interval",
		"\"colour\": \"blue\"",
		"does not know the field colour",
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(words); i += 2) {
		CLEANUP_FREE char *text = io_format("{" MACHINE ", %s}", words[i]);

		refuse(f, text, SHARED, -EOPNOTSUPP, words[i + 1]);
	}
	refuse(f, "{" MACHINE ", \"numa\": \"mirror\"}", two, -EOPNOTSUPP,
	       "more than one NUMA node");
}

/* The way out is root's wispd's to make. */
static void test_way_out(void **state)
{
	static const char out[] = "{" MACHINE ", \"network\": {\"isolated\": false}}";
	struct fixture *f = *state;
	struct error err = {""};
	json_t *spec = NULL;
	struct setup s;

	refuse(f, out, SHARED, -EPERM, "root's wispd");
	parse(&s, out, SHARED, "null");
	s.made = true;
	f->host.names = "192.0.2.1,192.0.2.2";
	assert_int_equal(spec_derive(&s, &s.vms[1], &image, &f->host, &spec, &err), 0);
	assert_string_equal(json_string_value(json_object_get(spec, "gateway")), "10.78.0.1");
	assert_string_equal(json_string_value(json_object_get(spec, "dns")), "192.0.2.1,192.0.2.2");
	json_decref(spec);
	setup_done(&s);
	/* An isolated network has neither. */
	expect(f, "{" MACHINE ", \"network\": {\"isolated\": true}}", SHARED, 0,
	       "{\"gateway\": null, \"dns\": null}");
}

static void test_resolvers(void **state)
{
	static const struct {
		const char *text, *servers;
	} rows[] = {
		{"", NULL},
		{"nameserver 127.0.0.53\noptions edns0\n", NULL},
		{"# nameserver 192.0.2.9\nsearch x\nnameserver ::1\nnameserver\n", NULL},
		{"nameserver 127.0.0.1\n nameserver\t192.0.2.1 # first\nnameserver 192.0.2.2",
		 "192.0.2.1,192.0.2.2"},
		{"nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n"
		 "nameserver 192.0.2.4\n",
		 "192.0.2.1,192.0.2.2,192.0.2.3"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		CLEANUP_FREE char *servers = resolvers_parse(rows[i].text);

		if (rows[i].servers)
			assert_string_equal(servers, rows[i].servers);
		else
			assert_null(servers);
	}
}

static void test_bad(void **state)
{
	static const char *const bad[] = {
		"{}",
		"does not say cpus",
		"{\"cpus\": 1}",
		"does not say memory",
		"{\"cpus\": 0, \"memory\": 1048576}",
		"cpus",
		"{\"cpus\": 1, \"memory\": 1048577}",
		"whole pages",
		"{" MACHINE ", \"cmdline\": [\"a b\"]}",
		"cmdline",
		"{" MACHINE ", \"pinning\": \"often\"}",
		"pinning",
		"{" MACHINE ", \"numa\": 3}",
		"numa",
		"{" MACHINE ", \"shares\": {\"a\": {}}}",
		"shares[a].source",
		"{" MACHINE ", \"shares\": []}",
		"shares",
		"{" MACHINE ", \"volumes\": {\"a\": {}}}",
		"volumes[a]",
		"{" MACHINE ", \"volumes\": {\"a\": {\"path\": \"x\"}}}",
		"volumes[a]",
		"{" MACHINE ", \"volumes\": {\"a\": {\"size\": 4097}}}",
		"volumes[a].size",
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i += 2)
		refuse(f, bad[i], SHARED, -EINVAL, bad[i + 1]);
	refuse(f, "{" MACHINE ", \"dedicated\": true}", "{\"dedicated\": true, \"cpus\": \"x\"}",
	       -EINVAL, "grant of lu-0");
}

/* A field that is new in the schema is somebody's: here, or named as another's. */
static void test_all_fields(void **state)
{
	for (size_t i = 0; i < env_nfields; i++) {
		CLEANUP_FREE char *name =
			strndup(env_fields[i].path, strcspn(env_fields[i].path, "."));

		if (!spec_knows(name))
			fail_msg("%s is in no row of part/spec.c", name);
	}
}

static void test_setup(void **state)
{
	static const char *const bad[] = {
		"{}",
		"cluster",
		"{\"cluster\": \"../x\"}",
		"cluster",
		"{\"cluster\": \"a\", \"name\": \"a\", \"node\": \"n\"}",
		"environment",
		"{\"cluster\": \"a\", \"name\": \"a\", \"node\": \"n\", \"environment\": {}}",
		"network",
		"{\"cluster\": \"a\", \"name\": \"a\", \"node\": \"n\", \"environment\": {}, "
		"\"network\": {\"name\": \"a\", \"id\": \"00000000000000aa\", \"subnet\": "
		"\"10.78.0.0/24\"}, \"vms\": [{\"name\": \"v\", \"address\": \"10.79.0.2\"}]}",
		"VM v",
		"{\"cluster\": \"a\", \"name\": \"a\", \"node\": \"n\", \"environment\": {}, "
		"\"network\": {\"name\": \"a\", \"id\": \"00000000000000aa\", \"subnet\": "
		"\"10.78.0.0/24\"}, \"vms\": [{\"name\": \"v\", \"address\": \"10.78.0.2\"}]}",
		"no grant",
		"{\"cluster\": \"a\", \"name\": \"a\", \"node\": \"n\", \"environment\": {}, "
		"\"network\": {\"name\": \"a\", \"id\": \"00000000000000aa\", \"subnet\": "
		"\"10.78.0.0/24\"}, \"vms\": [], \"cgroup\": \"x\"}",
		"cgroup",
	};
	struct error err;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i += 2) {
		json_t *json = json_loads(bad[i], 0, NULL);
		struct setup s;

		assert_non_null(json);
		assert_int_equal(setup_parse(json, &s, &err), -EINVAL);
		if (!strstr(err.text, bad[i + 1]))
			fail_msg("\"%s\" is not in: %s", bad[i + 1], err.text);
		json_decref(json);
	}
}

static json_t *disks(const char *dir, bool with_size)
{
	json_t *size = with_size ? json_integer(1 << 20) : NULL;

	return json_pack("{s:[{s:s, s:o, s:b, s:I}, {s:s, s:o, s:b, s:o*}]}", "disks", "name",
			 "own", "path", json_sprintf("%s/v/lu-0/own", dir), "own", 1, "size",
			 (json_int_t)8192, "name", "kept", "path", json_sprintf("%s/kept", dir),
			 "own", 0, "size", size);
}

static void test_volumes(void **state)
{
	struct fixture *f = *state;
	CLEANUP_FREE char *own = io_format("%s/v/lu-0/own", f->dir);
	CLEANUP_FREE char *kept = io_format("%s/kept", f->dir);
	CLEANUP_FREE char *folder = io_format("%s/v", f->dir);
	struct args made = {0};
	struct error err = {""};
	struct stat st;
	json_t *spec = disks(f->dir, false);

	/* One that cannot be had takes the other along. */
	assert_int_equal(volumes_make(spec, &made, &err), -ENOENT);
	assert_non_null(strstr(err.text, "volume kept"));
	assert_int_equal(access(own, F_OK), -1);
	args_done(&made);
	json_decref(spec);

	spec = disks(f->dir, true);
	assert_int_equal(volumes_make(spec, &made, &err), 0);
	assert_int_equal(made.n, 2);
	assert_int_equal(stat(kept, &st), 0);
	assert_int_equal(st.st_size, 1 << 20);
	args_done(&made);
	/* The one is empty for each life of its VM, the other stays. */
	assert_int_equal(io_write_file(own, "used", 4, NULL), 0);
	assert_int_equal(io_write_file(kept, "used", 4, NULL), 0);
	assert_int_equal(volumes_make(spec, &made, &err), 0);
	assert_int_equal(made.n, 1);
	assert_int_equal(stat(own, &st), 0);
	assert_int_equal(st.st_size, 8192);
	assert_int_equal(stat(kept, &st), 0);
	assert_int_equal(st.st_size, 4);
	args_done(&made);
	volumes_remove(folder, "lu-0");
	assert_int_equal(access(folder, F_OK), -1);
	assert_int_equal(access(kept, F_OK), 0);
	json_decref(spec);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_golden, setup, teardown),
		cmocka_unit_test_setup_teardown(test_cpus, setup, teardown),
		cmocka_unit_test_setup_teardown(test_not_yet, setup, teardown),
		cmocka_unit_test_setup_teardown(test_way_out, setup, teardown),
		cmocka_unit_test(test_resolvers),
		cmocka_unit_test_setup_teardown(test_bad, setup, teardown),
		cmocka_unit_test(test_all_fields),
		cmocka_unit_test(test_setup),
		cmocka_unit_test_setup_teardown(test_volumes, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
