/* SPDX-License-Identifier: Apache-2.0 */
/* Claims on made-up machines: by example, at random, and against a search of everything. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "lib/error.h"
#include "lib/parse.h"
#include "node/alloc-free.h"
#include "node/claim.h"
#include "node/cluster.h"
#include "node/store.h"
#include "node/test/made.h"

#define MIB (1ULL << 20)

struct machine {
	struct alloc a;
	char *root;
};

/* Nodes of 1 GiB, of which 256 MiB are in huge pages of 2 MiB; four functions of one card in node
 * 0. */
static void add_files(const char *root, unsigned nodes)
{
	for (unsigned n = 0; n < nodes; n++) {
		CLEANUP_FREE char *nr = io_format(
			"/sys/devices/system/node/node%u/hugepages/hugepages-2048kB/nr_hugepages",
			n);
		CLEANUP_FREE char *left = io_format(
			"/sys/devices/system/node/node%u/hugepages/hugepages-2048kB/free_hugepages",
			n);

		made_file(root, nr, "128\n");
		made_file(root, left, "128\n");
	}
	for (unsigned i = 0; i <= 4; i++) {
		CLEANUP_FREE char *dir = io_format("/sys/bus/pci/devices/0000:81:00.%u", i);
		CLEANUP_FREE char *vendor = io_format("%s/vendor", dir);
		CLEANUP_FREE char *device = io_format("%s/device", dir);
		CLEANUP_FREE char *node = io_format("%s/numa_node", dir);
		CLEANUP_FREE char *function = io_format("%s/physfn", dir);

		made_file(root, vendor, "0x15b3\n");
		made_file(root, device, i ? "0x1018\n" : "0x1017\n");
		made_file(root, node, "0\n");
		if (i)
			made_link(root, function, "../0000:81:00.0");
	}
}

static struct machine *machine_new(void **state, const char *words, const cpu_set_t *allowed)
{
	struct machine *m = calloc(1, sizeof(*m));
	CLEANUP_FREE char *path = io_format("%s/node.db", (char *)*state);
	struct topology_source source = {.synthetic = words, .root = *state, .allowed = allowed};
	struct error err = {0};

	m->root = *state;
	unlink(path);
	if (topology_read(&source, &m->a.topology, &err) || store_open(path, &m->a.store, &err))
		fail_msg("%s", err.text);
	return m;
}

static void machine_destroy(struct machine *m)
{
	store_close(m->a.store);
	topology_destroy(m->a.topology);
	free(m);
}

/* text: JSON with ' for " */
static struct claim *claim_of(const char *text)
{
	CLEANUP_FREE char *copy = strdup(text);
	struct claim *claim = NULL;
	struct error err = {0};
	json_t *json;

	for (char *c = copy; *c; c++)
		*c = *c == '\'' ? '"' : *c;
	json = json_loads(copy, 0, NULL);
	assert_non_null(json);
	if (claim_parse(json, 1000, &claim, &err))
		fail_msg("%s", err.text);
	json_decref(json);
	return claim;
}

/* The result of a claim; what is missing as text in err. */
static int try_claim(struct machine *m, const char *text, json_t **ret, struct error *err)
{
	struct claim *claim = claim_of(text);
	json_t *missing = NULL;
	int r;

	*ret = NULL;
	r = alloc_claim(&m->a, claim, 100, 130, ret, &missing, err);
	assert_int_equal(!!missing, r == -EBUSY || r == -E2BIG);
	json_decref(missing);
	claim_destroy(claim);
	return r;
}

static json_t *claim_ok(struct machine *m, const char *text)
{
	struct error err = {0};
	json_t *got;

	if (try_claim(m, text, &got, &err))
		fail_msg("%s", err.text);
	return got;
}

static const char *cpus_of(const json_t *got, unsigned vm)
{
	return json_string_value(
		json_object_get(json_array_get(json_object_get(got, "vms"), vm), "cpus"));
}

static void expect_cpus(struct machine *m, const char *claim, const char *first, const char *second)
{
	json_t *got = claim_ok(m, claim);

	assert_string_equal(cpus_of(got, 0), first);
	if (second)
		assert_string_equal(cpus_of(got, 1), second);
	json_decref(got);
}

static void expect_refused(struct machine *m, const char *claim, int code, const char *text)
{
	struct error err = {0};
	json_t *got;

	assert_int_equal(try_claim(m, claim, &got, &err), code);
	assert_null(got);
	if (!strstr(err.text, text))
		fail_msg("\"%s\" does not say \"%s\"", err.text, text);
}

#define TWO                                        \
	"pack:2 [numa(memory=1073741824)] core:4 " \
	"pu:2(indexes=0,8,1,9,2,10,3,11,4,12,5,13,6,14,7,15)"

/* Whole cores, in one node, the fuller one first; what is shared runs on the rest. */
static void test_placement(void **state)
{
	struct machine *m = machine_new(state, TWO, NULL);
	cpu_set_t shared;
	char text[256];

	expect_cpus(m,
		    "{'cluster':'a','vms':[{'name':'v','cpus':3,'memory':4096,'dedicated':true}]}",
		    "0-1,8-9", NULL);
	expect_cpus(m,
		    "{'cluster':'b','vms':[{'name':'v','cpus':4,'memory':4096,'dedicated':true}]}",
		    "2-3,10-11", NULL);
	expect_cpus(m,
		    "{'cluster':'c','vms':[{'name':'v','cpus':2,'memory':4096},"
		    "{'name':'w','cpus':2,'memory':4096,'dedicated':true}]}",
		    "5-7,13-15", "4,12");
	assert_int_equal(alloc_shared(&m->a, &shared, NULL), 0);
	assert_string_equal(format_cpulist(&shared, text, sizeof(text)), "5-7,13-15");
	/* Not the last that shared VMs have: two threads stay for the one of two vCPUs. */
	expect_refused(
		m, "{'cluster':'d','vms':[{'name':'v','cpus':6,'memory':4096,'dedicated':true}]}",
		-EBUSY, "8 CPUs wanted, 6 of 16 are free (held: ");
	expect_cpus(m,
		    "{'cluster':'d','vms':[{'name':'v','cpus':4,'memory':4096,'dedicated':true}]}",
		    "5-6,13-14", NULL);
	machine_destroy(m);
}

/* A core for each vCPU: nobody has its other threads. */
static void test_cores(void **state)
{
	struct machine *m = machine_new(state, TWO, NULL);

	expect_cpus(m,
		    "{'cluster':'a','vms':[{'name':'v','cpus':3,'memory':4096,'dedicated':true,"
		    "'cores':true}]}",
		    "0-2,8-10", NULL);
	/* Two of three cores of the other node and the last of this one stay for the shared. */
	expect_cpus(m,
		    "{'cluster':'b','vms':[{'name':'v','cpus':2,'memory':4096,'cores':true},"
		    "{'name':'w','cpus':2,'memory':4096,'dedicated':true,'cores':true,"
		    "'numa':'one'}]}",
		    "3,6-7,11,14-15", "4-5,12-13");
	expect_refused(m,
		       "{'cluster':'c','vms':[{'name':'v','cpus':2,'memory':4096,"
		       "'dedicated':true,'cores':true}]}",
		       -EBUSY, "4 cores wanted, 3 of 8 are free (held: ");
	expect_refused(m,
		       "{'cluster':'c','vms':[{'name':'v','cpus':4,'memory':4096,'cores':true}]}",
		       -EBUSY, "4 cores wanted, 3 of 8 are free (held: ");
	/* Two threads of one core would do for two vCPUs, but two cores have to be left. */
	expect_refused(
		m, "{'cluster':'c','vms':[{'name':'v','cpus':3,'memory':4096,'dedicated':true}]}",
		-EBUSY, "placement");
	expect_cpus(m,
		    "{'cluster':'c','vms':[{'name':'v','cpus':2,'memory':4096,'dedicated':true}]}",
		    "3,11", NULL);
	expect_refused(m,
		       "{'cluster':'d','vms':[{'name':'v','cpus':9,'memory':4096,"
		       "'dedicated':true,'cores':true}]}",
		       -E2BIG, "11 cores wanted, 2 of 8 are free");
	machine_destroy(m);
}

/* Cores of which one thread is offline do as well, and are taken first. */
static void test_uneven_cores(void **state)
{
	struct machine *m;
	cpu_set_t allowed;

	parse_cpulist("0-7,11,12", &allowed, NULL);
	m = machine_new(state, TWO, &allowed);
	expect_cpus(m,
		    "{'cluster':'a','vms':[{'name':'v','cpus':3,'memory':4096,'dedicated':true,"
		    "'cores':true,'numa':'one'}]}",
		    "0-2", NULL);
	expect_cpus(m,
		    "{'cluster':'b','vms':[{'name':'v','cpus':4,'memory':4096,'dedicated':true,"
		    "'cores':true,'numa':'mirror'}]}",
		    "4-7,12", NULL);
	machine_destroy(m);
}

static void test_host_cores(void **state)
{
	struct machine *m = machine_new(state, TWO, NULL);

	CPU_SET(8, &m->a.host);
	expect_cpus(m,
		    "{'cluster':'a','vms':[{'name':'v','cpus':8,'memory':4096,'dedicated':true,"
		    "'numa':'mirror'}]}",
		    "4-7,12-15", NULL);
	expect_refused(
		m, "{'cluster':'b','vms':[{'name':'v','cpus':8,'memory':4096,'dedicated':true}]}",
		-EBUSY, "8 CPUs wanted, 6 of 14");
	machine_destroy(m);
}

static void test_mirror(void **state)
{
	struct machine *m = machine_new(state, TWO, NULL);
	json_t *got = claim_ok(m, "{'cluster':'a','vms':[{'name':'v','cpus':12,'memory':8192,"
				  "'dedicated':true,'numa':'mirror'}]}");
	const json_t *nodes =
		json_object_get(json_array_get(json_object_get(got, "vms"), 0), "nodes");

	assert_string_equal(cpus_of(got, 0), "0-2,4-6,8-10,12-14");
	assert_int_equal(json_array_size(nodes), 2);
	assert_int_equal(json_integer_value(json_object_get(json_array_get(nodes, 1), "memory")),
			 4096);
	json_decref(got);
	machine_destroy(m);
}

static void test_memory(void **state)
{
	struct machine *m = machine_new(state, TWO, NULL);

	add_files(m->root, 2);
	m->a.host_memory = 256 * MIB;
	/* 512 MiB of base pages a node, 256 MiB in huge ones. */
	expect_refused(
		m, "{'cluster':'a','vms':[{'name':'v','cpus':1,'memory':805306368,'numa':'one'}]}",
		-E2BIG, "nothing fits into NUMA nodes");
	json_decref(
		claim_ok(m, "{'cluster':'a','vms':[{'name':'v','cpus':1,'memory':805306368}]}"));
	expect_refused(
		m, "{'cluster':'b','vms':[{'name':'v','cpus':1,'memory':805306368}]}", -EBUSY,
		"memory: 768 MiB wanted in pages of 4 KiB, 256 MiB of 1 GiB are free (held: ");
	expect_refused(m,
		       "{'cluster':'b','vms':[{'name':'v','cpus':1,'memory':1073741824,"
		       "'page-size':2097152}]}",
		       -E2BIG, "1 GiB wanted in pages of 2 MiB, 512 MiB of 512 MiB");
	json_decref(claim_ok(m, "{'cluster':'b','vms':[{'name':'v','cpus':1,'memory':268435456,"
				"'page-size':2097152,'numa':'one'}]}"));
	expect_refused(m,
		       "{'cluster':'c','vms':[{'name':'v','cpus':1,'memory':536870912,"
		       "'page-size':2097152}]}",
		       -EBUSY, "b/v since");
	/* Somebody else took some in node 1: what is not free cannot be granted. */
	made_file(m->root,
		  "/sys/devices/system/node/node1/hugepages/hugepages-2048kB/free_hugepages",
		  "1\n");
	expect_refused(m,
		       "{'cluster':'c','vms':[{'name':'v','cpus':1,'memory':4194304,"
		       "'page-size':2097152}]}",
		       -EBUSY, "2 MiB of 512 MiB are free");
	expect_refused(m,
		       "{'cluster':'c','vms':[{'name':'v','cpus':1,'memory':1073741824,"
		       "'page-size':1073741824}]}",
		       -E2BIG, "pages of 1 GiB, 0");
	machine_destroy(m);
}

static void test_devices(void **state)
{
	struct error err = {0};
	struct machine *m;
	json_t *got;

	add_files(*state, 2);
	m = machine_new(state, TWO, NULL);
	/* Any first of the list would take what the second names. */
	got = claim_ok(m,
		       "{'cluster':'a','vms':["
		       "{'name':'v','cpus':1,'memory':4096,'devices':['15b3:1018']},"
		       "{'name':'w','cpus':1,'memory':4096,'devices':['81:00.1','vf:81:00.0']}]}");
	assert_string_equal(
		json_string_value(json_array_get(
			json_object_get(json_array_get(json_object_get(got, "vms"), 1), "devices"),
			0)),
		"0000:81:00.1");
	json_decref(got);
	expect_refused(m,
		       "{'cluster':'b','vms':[{'name':'v','cpus':1,'memory':4096,"
		       "'devices':['0000:81:00.1']}]}",
		       -EBUSY, "device 0000:81:00.1 for v: none is free (held: ");
	/* The card itself was not set apart for VMs. */
	expect_refused(m,
		       "{'cluster':'b','vms':[{'name':'v','cpus':1,'memory':4096,"
		       "'devices':['0000:81:00.0']}]}",
		       -E2BIG, "none to give");
	json_decref(claim_ok(m, "{'cluster':'b','vms':[{'name':'v','cpus':1,'memory':4096,"
				"'devices':['vf:0000:81:00.0']}]}"));
	expect_refused(m,
		       "{'cluster':'c','vms':[{'name':'v','cpus':1,'memory':4096,"
		       "'devices':['15b3:1018']}]}",
		       -EBUSY, "b/v since");
	/* Until the cluster ends its user can open them. */
	assert_int_equal(alloc_vm_ended(&m->a, "b", "v", 1001, &err), 0);
	expect_refused(m,
		       "{'cluster':'c','vms':[{'name':'v','cpus':1,'memory':4096,"
		       "'devices':['15b3:1018']}]}",
		       -EBUSY, "b/v since");
	assert_int_equal(alloc_release(&m->a, "b", 1002, &err), 0);
	json_decref(claim_ok(m, "{'cluster':'c','vms':[{'name':'v','cpus':1,'memory':4096}]}"));
	assert_int_equal(alloc_vm_ended(&m->a, "c", "v", 1003, &err), 0);
	json_decref(claim_ok(m, "{'cluster':'d','vms':[{'name':'v','cpus':1,'memory':4096,"
				"'devices':['15b3:1018']}]}"));
	machine_destroy(m);
}

/* What the CPUs are granted near to. */
static void test_device_near(void **state)
{
	struct machine *m;

	add_files(*state, 2);
	m = machine_new(state, TWO, NULL);
	expect_cpus(
		m,
		"{'cluster':'a','vms':[{'name':'v','cpus':2,'memory':4096,'dedicated':true},"
		"{'name':'w','cpus':8,'memory':4096,'dedicated':true,'devices':['15b3:1018']}]}",
		"4,12", "0-3,8-11");
	machine_destroy(m);
}

static size_t due(struct machine *m, int64_t now)
{
	json_t *list = NULL;
	struct error err;
	size_t n;

	assert_int_equal(cluster_due(m->a.store, now, 10, &list, &err), 0);
	n = json_object_size(list);
	json_decref(list);
	return n;
}

/* A cluster ends here when its walltime is over, whatever its coordinator does. */
static void test_walltime(void **state)
{
	static const char *const environments[] = {"NULL", "'{\"walltime\":\"off\"}'",
						   "'{\"walltime\":60000}'"};
	struct machine *m = machine_new(state, "pack:1 numa:1 core:1 pu:1", NULL);
	struct error err;

	for (unsigned i = 0; i < ARRAY_SIZE(environments); i++) {
		CLEANUP_FREE char *sql =
			io_format("INSERT INTO cluster (id, user, state, since, environment, made) "
				  "VALUES ('c%u', 1000, 'running', 1000, %s, 1)",
				  i, environments[i]);

		assert_int_equal(store_run(m->a.store, &err, sql, ""), 0);
	}
	assert_int_equal(due(m, 1000), 0);
	assert_int_equal(due(m, 1069), 0);
	assert_int_equal(due(m, 1070), 1);
	assert_int_equal(due(m, 1000000), 1);
	machine_destroy(m);
}

/* So does one that a rule wants to be saved, and that nobody saves while VMs of it run. */
static void test_unsaved(void **state)
{
	struct machine *m = machine_new(state, "pack:1 numa:1 core:1 pu:1", NULL);
	json_t *list = NULL;
	struct error err;

	assert_int_equal(
		store_run(m->a.store, &err,
			  "INSERT INTO cluster (id, user, state, since, made, save_every, saved) "
			  "VALUES ('free', 1000, 'running', 1000, 1, NULL, 1000), "
			  "('held', 1000, 'running', 1000, 1, 3600, NULL), "
			  "('idle', 1000, 'running', 1000, 1, 60, 1000)",
			  ""),
		0);
	assert_int_equal(store_run(m->a.store, &err,
				   "INSERT INTO vm (cluster, name, since, cpus, dedicated, dir) "
				   "SELECT id, 'a', 1000, 1, 0, '/a' FROM cluster "
				   "WHERE id <> 'idle'",
				   ""),
			 0);
	assert_int_equal(due(m, 1000000), 0);
	assert_int_equal(cluster_set_saved(m->a.store, "held", 5000, &err), 0);
	assert_int_equal(due(m, 5000 + 2 * 3600 + CLUSTER_SAVE_GRACE - 1), 0);
	assert_int_equal(
		cluster_due(m->a.store, 5000 + 2 * 3600 + CLUSTER_SAVE_GRACE, 10, &list, &err), 0);
	assert_int_equal(json_object_size(list), 1);
	assert_string_equal(json_string_value(json_object_get(list, "held")),
			    "a rule of this node wants a checkpoint every 3600 s "
			    "(checkpoint.interval), and for 8100 s there was none");
	json_decref(list);
	assert_int_equal(cluster_set_saved(m->a.store, "held", 9000, &err), 0);
	assert_int_equal(due(m, 5000 + 2 * 3600 + CLUSTER_SAVE_GRACE), 0);
	machine_destroy(m);
}

static void test_lease(void **state)
{
	struct machine *m = machine_new(state, "core:2 pu:1", NULL);
	static const char claim[] =
		"{'cluster':'a','vms':[{'name':'v','cpus':1,'memory':4096,'dedicated':true},"
		"{'name':'w','cpus':1,'memory':4096,'dedicated':true}]}";
	struct error err;
	json_t *got = NULL;

	json_decref(claim_ok(m, claim));
	expect_refused(m, claim, -EEXIST, "already");
	assert_int_equal(alloc_expire(&m->a, 129, &err), 0);
	assert_int_equal(alloc_expire(&m->a, 130, &err), 1);
	assert_int_equal(alloc_confirm(&m->a, "a", 131, &err), -ENOENT);
	json_decref(claim_ok(m, claim));
	assert_int_equal(alloc_confirm(&m->a, "a", 110, &err), 0);
	assert_int_equal(alloc_expire(&m->a, 1000, &err), 0);
	assert_int_equal(alloc_release_vm(&m->a, "a", "v", 1001, &err), 0);
	assert_int_equal(alloc_release_vm(&m->a, "a", "v", 1002, &err), 0);
	assert_int_equal(alloc_describe(&m->a, "a", &got, &err), 0);
	assert_int_equal(json_array_size(json_object_get(got, "vms")), 1);
	json_decref(got);
	assert_int_equal(alloc_release(&m->a, "a", 1003, &err), 0);
	assert_int_equal(alloc_release(&m->a, "a", 1004, &err), 0);
	assert_int_equal(alloc_describe(&m->a, "a", &got, &err), -ENOENT);
	machine_destroy(m);
}

static void test_bad_claims(void **state)
{
	static const struct {
		const char *json, *text;
	} bad[] = {
		{"{}", "no \"cluster\""},
		{"{\"cluster\":\"../x\"}", "cluster"},
		{"{\"cluster\":\"a\",\"vms\":[]}", "\"vms\""},
		{"{\"cluster\":\"a\",\"vms\":[7]}", "no \"name\""},
		{"{\"cluster\":\"a\",\"vms\":[{\"name\":\"v\"}]}", "\"cpus\""},
		{"{\"cluster\":\"a\",\"vms\":[{\"name\":\"v\",\"cpus\":255}]}", "1 to 254"},
		{"{\"cluster\":\"a\",\"vms\":[{\"name\":\"v\",\"cpus\":1,\"memory\":-1}]}",
		 "\"memory\""},
		{"{\"cluster\":\"a\",\"vms\":[{\"name\":\"v\",\"cpus\":1,\"memory\":4097}]}",
		 "whole pages"},
		{"{\"cluster\":\"a\",\"vms\":[{\"name\":\"v\",\"cpus\":1,\"memory\":8192,\"page-"
		 "size\":8192}]}",
		 "page-size"},
		{"{\"cluster\":\"a\",\"vms\":[{\"name\":\"v\",\"cpus\":1,\"memory\":4096,\"numa\":"
		 "\"two\"}]}",
		 "none, one or mirror"},
		{"{\"cluster\":\"a\",\"vms\":[{\"name\":\"v\",\"cpus\":1,\"memory\":4096,"
		 "\"dedicated\":1}]}",
		 "\"dedicated\" has to be true or false"},
		{"{\"cluster\":\"a\",\"vms\":[{\"name\":\"v\",\"cpus\":1,\"memory\":4096,"
		 "\"cores\":\"yes\"}]}",
		 "\"cores\" has to be true or false"},
		{"{\"cluster\":\"a\",\"vms\":[{\"name\":\"v\",\"cpus\":1,\"memory\":4096,"
		 "\"devices\":[\"x\"]}]}",
		 "no PCI address"},
		{"{\"cluster\":\"a\",\"vms\":[{\"name\":\"v\",\"cpus\":1,\"memory\":4096},"
		 "{\"name\":\"v\",\"cpus\":1,\"memory\":4096}]}",
		 "two VMs"},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		json_t *json = json_loads(bad[i].json, 0, NULL);
		struct claim *claim = NULL;
		struct error err = {0};

		assert_int_equal(claim_parse(json, 1, &claim, &err), -EINVAL);
		if (!strstr(err.text, bad[i].text))
			fail_msg("\"%s\" does not say \"%s\"", err.text, bad[i].text);
		json_decref(json);
	}
}

/* All tables but the event log, as one text. */
static int add_row(const struct store_row *row, void *arg)
{
	fprintf(arg, "%s\n", store_text(row, 0));
	return 0;
}

static char *dump(struct machine *m)
{
	static const char *const selects[] = {
		"SELECT id || user || state || since || coalesce(until, '') FROM cluster ORDER BY "
		"1",
		"SELECT id || cluster || name || cpus || dedicated || cores || bound FROM vm ORDER "
		"BY 1",
		"SELECT cpu || ' ' || vm FROM cpu ORDER BY 1",
		"SELECT address || ' ' || vm FROM device ORDER BY 1",
		"SELECT vm || ' ' || node || ' ' || page_size || ' ' || bytes FROM memory ORDER BY "
		"1"};
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	for (unsigned i = 0; i < ARRAY_SIZE(selects); i++)
		assert_int_equal(store_each(m->a.store, add_row, out, NULL, selects[i], ""), 0);
	fclose(out);
	return text;
}

/* VMs of random wishes. */
static char *random_claim(unsigned n, unsigned most_vms, unsigned most_cpus, unsigned memory_unit)
{
	static const char *const numa[] = {"none", "one", "mirror"};
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	fprintf(out, "{'cluster':'c%u','vms':[", n);
	for (unsigned i = 0, vms = 1 + rand() % most_vms; i < vms; i++)
		fprintf(out,
			"%s{'name':'v%u','cpus':%u,'memory':%llu,'dedicated':%s,'cores':%s,"
			"'numa':'%s',"
			"'page-size':%llu,'devices':[%s]}",
			i ? "," : "", i, 1 + rand() % most_cpus,
			(1 + rand() % 8) * (unsigned long long)memory_unit * MIB,
			rand() % 3 ? "true" : "false", rand() % 4 ? "false" : "true",
			numa[rand() % 3], rand() % 4 ? 4096ULL : 2 * MIB,
			rand() % 6 ? "" : "'15b3:1018'");
	fputs("]}", out);
	fclose(out);
	return text;
}

struct sums {
	struct machine *m;
	cpu_set_t own;
	unsigned shared;
	uint64_t pages[8][2];
};

static int add_vm(const struct store_row *row, void *arg)
{
	struct sums *s = arg;
	const struct topology *t = s->m->a.topology;
	json_t *all = NULL, *vm, *node;
	struct error err = {0};
	size_t i, k;

	assert_int_equal(alloc_describe(&s->m->a, store_text(row, 0), &all, &err), 0);
	json_array_foreach (json_object_get(all, "vms"), i, vm) {
		unsigned cpus = json_integer_value(json_object_get(vm, "vcpus"));
		bool huge = json_integer_value(json_object_get(vm, "page-size")) > 4096;
		cpu_set_t set, both;

		assert_int_equal(
			parse_cpulist(json_string_value(json_object_get(vm, "cpus")), &set, &err),
			0);
		assert_true((unsigned)CPU_COUNT(&set) >= cpus);
		CPU_AND(&both, &set, &s->m->a.host);
		assert_int_equal(CPU_COUNT(&both), 0);
		if (json_is_true(json_object_get(vm, "dedicated"))) {
			CPU_AND(&both, &set, &s->own);
			assert_int_equal(CPU_COUNT(&both), 0);
			CPU_OR(&s->own, &s->own, &set);
		} else if (cpus > s->shared) {
			s->shared = cpus;
		}
		json_array_foreach (json_object_get(vm, "nodes"), k, node)
			s->pages[topology_node(
				t, json_integer_value(json_object_get(node, "node")))][huge] +=
				json_integer_value(json_object_get(node, "memory"));
	}
	json_decref(all);
	return 0;
}

static void check_all(struct machine *m)
{
	struct sums s = {.m = m};
	const struct topology *t = m->a.topology;
	struct error err = {0};
	cpu_set_t shared, both;

	if (store_each(m->a.store, add_vm, &s, &err, "SELECT id FROM cluster", ""))
		fail_msg("%s", err.text);
	assert_int_equal(alloc_shared(&m->a, &shared, &err), 0);
	assert_true((unsigned)CPU_COUNT(&shared) >= s.shared);
	CPU_AND(&both, &shared, &s.own);
	assert_int_equal(CPU_COUNT(&both), 0);
	/* Nobody has half a core. */
	for (unsigned i = 0; i < t->ncores; i++)
		for (unsigned k = 1; k < t->cores[i].ncpus; k++)
			assert_int_equal(!!CPU_ISSET(t->cores[i].cpus[k], &s.own),
					 !!CPU_ISSET(t->cores[i].cpus[0], &s.own));
	for (unsigned n = 0; n < t->nnodes; n++) {
		uint64_t huge = t->nodes[n].nsizes ? t->nodes[n].pages[0].total * 2 * MIB : 0;

		assert_true(s.pages[n][1] <= huge);
		assert_true(s.pages[n][0] <= t->nodes[n].memory - huge - m->a.host_memory);
	}
}

static void release(struct machine *m, unsigned cluster)
{
	CLEANUP_FREE char *name = io_format("c%u", cluster);

	assert_int_equal(alloc_release(&m->a, name, 100, NULL), 0);
}

/* Whether it was met; refused, nothing has changed. */
static bool claim_at_random(struct machine *m, unsigned n, unsigned most_cpus)
{
	CLEANUP_FREE char *claim = random_claim(n, 4, most_cpus, 16);
	CLEANUP_FREE char *before = dump(m), *after = NULL;
	CLEANUP_FREE char *name = io_format("c%u", n);
	struct error err = {0};
	json_t *got;
	int r = try_claim(m, claim, &got, &err);

	json_decref(got);
	after = dump(m);
	check_all(m);
	if (!r) {
		assert_string_not_equal(before, after);
		assert_int_equal(alloc_confirm(&m->a, name, 100, &err), 0);
		return true;
	}
	assert_true(r == -EBUSY || r == -E2BIG);
	assert_string_equal(before, after);
	return false;
}

static void at_random(struct machine *m, unsigned most_cpus, unsigned least_met)
{
	unsigned live[150], n = 0, met = 0;
	char *end;

	for (unsigned i = 0; i < 150; i++) {
		if (claim_at_random(m, i, most_cpus)) {
			live[n++] = i;
			met++;
		}
		if (n && rand() % 2) {
			unsigned gone = rand() % n;

			release(m, live[gone]);
			live[gone] = live[--n];
			check_all(m);
		}
	}
	if (met < least_met || met > 150 - 20)
		fail_msg("%u of 150 were met", met);
	while (n)
		release(m, live[--n]);
	end = dump(m);
	assert_string_equal(end, "");
	free(end);
}

static void test_random(void **state)
{
	static const char *const machines[] = {
		"core:1 pu:2", TWO, "pack:2 [numa(memory=1073741824)] core:3 pu:1",
		"pack:2 group:2 [numa(memory=1073741824)] core:4 pu:2"};

	add_files(*state, 4);
	for (unsigned i = 0; i < ARRAY_SIZE(machines); i++) {
		struct machine *m = machine_new(state, machines[i], NULL);

		srand(i + 1);
		m->a.host_memory = 64 * MIB;
		if (i == 3)
			CPU_SET(0, &m->a.host);
		at_random(m, i ? 8 : 2, i ? 20 : 5);
		machine_destroy(m);
	}
}

/* The same claims in the same order are placed the same way. */
static void test_same_again(void **state)
{
	char *first = NULL;

	for (unsigned round = 0; round < 2; round++) {
		struct machine *m = machine_new(state, TWO, NULL);
		char *text;

		srand(42);
		for (unsigned i = 0; i < 20; i++) {
			CLEANUP_FREE char *claim = random_claim(i, 3, 4, 2);
			struct error err;
			json_t *got;

			try_claim(m, claim, &got, &err);
			json_decref(got);
		}
		text = dump(m);
		if (first)
			assert_string_equal(first, text);
		free(first);
		first = text;
		machine_destroy(m);
	}
	assert_true(strlen(first) > 100);
	free(first);
}

/*
 * Whether a claim fits, by trying everything: each VM's cores are any set of them, its nodes any
 * that its policy allows. Memory of those who may be anywhere only has to be there in all.
 */
struct oracle {
	const struct claim *claim;
	struct place_free f;
	unsigned nodes;
};

static bool fits(struct oracle *o, unsigned v, uint64_t loose[2]);

static bool loose_fits(const struct oracle *o, const uint64_t loose[2])
{
	for (unsigned k = 0; k < 2; k++) {
		uint64_t pages = 0;

		for (unsigned n = 0; n < o->nodes; n++)
			pages += o->f.pages[n][k];
		if (pages < loose[k])
			return false;
	}
	for (unsigned n = 0; n < o->nodes; n++)
		if (!place_has(place_room(&o->f, n), o->f.kept[n]))
			return false;
	return place_has(place_room(&o->f, -1), o->f.kept_all);
}

/* Takes the cores of a set if they do for the VM on these nodes, and goes on. */
static bool with_cores(struct oracle *o, unsigned v, unsigned mask, unsigned set, uint64_t loose[2])
{
	const struct claim_vm *vm = &o->claim->vms[v];
	const struct topology *t = o->f.t;
	unsigned got[8] = {0}, all = 0, k = __builtin_popcount(mask);
	bool ok = true;

	for (unsigned i = 0; i < t->ncores; i++)
		if (set & 1u << i) {
			ok = ok && o->f.cores[i];
			got[t->cores[i].node] += vm->cores ? 1 : t->cores[i].ncpus;
			all += vm->cores ? 1 : t->cores[i].ncpus;
		}
	ok = ok && all >= vm->cpus;
	for (unsigned n = 0; n < o->nodes && mask; n++)
		ok = ok && (mask & 1u << n ? got[n] >= vm->cpus / k : !got[n]);
	if (!ok)
		return false;
	for (unsigned i = 0; i < t->ncores; i++)
		if (set & 1u << i)
			o->f.cores[i] = false;
	ok = fits(o, v + 1, loose);
	for (unsigned i = 0; i < t->ncores; i++)
		if (set & 1u << i)
			o->f.cores[i] = true;
	return ok;
}

static bool with_threads(struct oracle *o, unsigned v, unsigned mask, uint64_t loose[2])
{
	const struct claim_vm *vm = &o->claim->vms[v];
	struct place_room kept[8], kept_all = o->f.kept_all;
	unsigned k = __builtin_popcount(mask);
	bool ok = false;

	if (vm->dedicated) {
		for (unsigned set = 1; !ok && set < 1u << o->f.t->ncores; set++)
			ok = with_cores(o, v, mask, set, loose);
		return ok;
	}
	memcpy(kept, o->f.kept, o->nodes * sizeof(*kept));
	place_keep(&o->f.kept_all, vm->cpus, vm->cores);
	for (unsigned n = 0; n < o->nodes; n++)
		if (mask & 1u << n)
			place_keep(&o->f.kept[n], vm->cpus / k, vm->cores);
	ok = fits(o, v + 1, loose);
	memcpy(o->f.kept, kept, o->nodes * sizeof(*kept));
	o->f.kept_all = kept_all;
	return ok;
}

static bool on_nodes(struct oracle *o, unsigned v, unsigned mask, uint64_t loose[2])
{
	const struct claim_vm *vm = &o->claim->vms[v];
	unsigned k = __builtin_popcount(mask), size = vm->page_size > 4096;
	uint64_t pages = vm->memory / vm->page_size;
	bool ok;

	if (vm->cpus % k || pages % k)
		return false;
	for (unsigned n = 0; n < o->nodes; n++)
		if (mask & 1u << n && o->f.pages[n][size] < pages / k)
			return false;
	for (unsigned n = 0; n < o->nodes; n++)
		o->f.pages[n][size] -= mask & 1u << n ? pages / k : 0;
	ok = with_threads(o, v, mask, loose);
	for (unsigned n = 0; n < o->nodes; n++)
		o->f.pages[n][size] += mask & 1u << n ? pages / k : 0;
	return ok;
}

static bool fits(struct oracle *o, unsigned v, uint64_t loose[2])
{
	const struct claim_vm *vm = &o->claim->vms[v];
	bool ok = false;

	if (v == o->claim->nvms)
		return loose_fits(o, loose);
	if (vm->numa == CLAIM_NONE) {
		uint64_t more[2] = {loose[0], loose[1]};

		more[vm->page_size > 4096] += vm->memory / vm->page_size;
		return with_threads(o, v, 0, more);
	}
	for (unsigned mask = 1; !ok && mask < 1u << o->nodes; mask++)
		if (vm->numa == CLAIM_MIRROR || __builtin_popcount(mask) == 1)
			ok = on_nodes(o, v, mask, loose);
	return ok;
}

/* Whether it fits, and so has to be met. */
static bool fits_somehow(struct machine *m, const char *text)
{
	struct claim *claim = claim_of(text);
	struct oracle o = {.claim = claim, .nodes = m->a.topology->nnodes};
	uint64_t loose[2] = {0};
	bool ok;

	assert_int_equal(alloc_free(&m->a, false, &o.f, NULL), 0);
	ok = fits(&o, 0, loose);
	place_free_done(&o.f);
	claim_destroy(claim);
	return ok;
}

static void against_all(struct machine *m, unsigned most_cpus)
{
	unsigned met = 0, refused = 0;

	for (unsigned i = 0; i < 250; i++) {
		CLEANUP_FREE char *claim = random_claim(i, 3, most_cpus, 48);
		CLEANUP_FREE char *gone = io_format("c%u", rand() % (i + 1));
		CLEANUP_FREE char *plain = strdup(claim);
		struct error err = {0};
		json_t *got;
		bool fit;
		int r;

		/* Without devices: they are no matter of nodes. */
		for (char *d; (d = strstr(plain, "'15b3:1018'"));)
			memset(d, ' ', strlen("'15b3:1018'"));
		fit = fits_somehow(m, plain);
		r = try_claim(m, plain, &got, &err);
		json_decref(got);
		if (fit != !r)
			fail_msg("%s: fits %d, but: %s", plain, fit, r ? err.text : "met");
		met += fit;
		refused += !fit;
		if (rand() % 2)
			alloc_release(&m->a, gone, 100, &err);
		assert_int_equal(alloc_expire(&m->a, rand() % 4 ? 0 : 1000, NULL) < 0, false);
	}
	assert_true(met > 30 && refused > 30);
}

static void test_exhaustive(void **state)
{
	static const char *const machines[] = {"numa:1(memory=1073741824) core:5 pu:2",
					       "pack:2 [numa(memory=1073741824)] core:3 pu:2",
					       "pack:3 [numa(memory=1073741824)] core:2 pu:1",
					       "pack:2 [numa(memory=1073741824)] core:3 pu:2"};
	cpu_set_t allowed;

	/* Some cores with a thread that is offline. */
	CPU_ZERO(&allowed);
	for (unsigned i = 0; i < 12; i++)
		if (i != 1 && i != 7 && i != 9)
			CPU_SET(i, &allowed);
	add_files(*state, 3);
	for (unsigned i = 0; i < ARRAY_SIZE(machines); i++) {
		struct machine *m = machine_new(state, machines[i], i == 3 ? &allowed : NULL);

		srand(100 + i);
		m->a.host_memory = 256 * MIB;
		against_all(m, i == 2 ? 4 : 6);
		machine_destroy(m);
	}
}

/* A search that cannot succeed ends soon. */
static void test_hopeless(void **state)
{
	struct machine *m =
		machine_new(state, "pack:8 [numa(memory=1073741824)] core:16 pu:2", NULL);
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	uint64_t start;

	fputs("{'cluster':'a','vms':[", out);
	for (unsigned i = 0; i < 42; i++)
		fprintf(out,
			"%s{'name':'v%u','cpus':6,'memory':4096,'dedicated':true,'numa':'one'}",
			i ? "," : "", i);
	fputs("]}", out);
	fclose(out);
	start = io_now_ns();
	expect_refused(m, text, -EBUSY, "none was found");
	assert_true(io_now_ns() - start < 60ULL * 1000000000);
	free(text);
	machine_destroy(m);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, made_set_up, made_tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_placement),  TEST(test_cores),       TEST(test_uneven_cores),
		TEST(test_host_cores), TEST(test_mirror),      TEST(test_memory),
		TEST(test_devices),    TEST(test_device_near), TEST(test_lease),
		TEST(test_walltime),   TEST(test_unsaved),     TEST(test_bad_claims),
		TEST(test_random),     TEST(test_same_again),  TEST(test_exhaustive),
		TEST(test_hopeless),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
