/* SPDX-License-Identifier: Apache-2.0 */
/* Made-up machines, and this one. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "lib/error.h"
#include "node/test/made.h"
#include "node/topology.h"

#define NODE "/sys/devices/system/node/"
#define PCI "/sys/bus/pci/devices/"

static struct topology *read_ok(const struct topology_source *source)
{
	struct topology *t = NULL;
	struct error err = {0};

	if (topology_read(source, &t, &err))
		fail_msg("%s", err.text);
	return t;
}

static void test_one_core(void **state)
{
	struct topology *t = read_ok(&(struct topology_source){.synthetic = "core:1 pu:1"});

	assert_int_equal(t->nnodes, 1);
	assert_int_equal(t->ncores, 1);
	assert_int_equal(t->cores[0].ncpus, 1);
	assert_int_equal(t->ndevices, 0);
	assert_int_equal(topology_core(t, 0), 0);
	assert_int_equal(topology_core(t, 1), -1);
	topology_destroy(t);
}

/* Threads of a core are numbered as Linux does: first all first ones. */
static void test_threads(void **state)
{
	struct topology *t = read_ok(&(struct topology_source){
		.synthetic =
			"pack:2 [numa(memory=1073741824)] core:2 pu:2(indexes=0,4,1,5,2,6,3,7)"});

	assert_int_equal(t->nnodes, 2);
	assert_int_equal(t->nodes[1].memory, 1 << 30);
	assert_int_equal(t->ncores, 4);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(t->cores[i].ncpus, 2);
		assert_int_equal(t->cores[i].cpus[0], i);
		assert_int_equal(t->cores[i].cpus[1], i + 4);
		assert_int_equal(t->cores[i].node, i / 2);
		assert_int_equal(t->cores[i].socket, i / 2);
		assert_int_equal(topology_core(t, i + 4), i);
	}
	assert_int_equal(topology_distance(t, 0, 0), 10);
	assert_true(topology_distance(t, 0, 1) > 10);
	topology_destroy(t);
}

static void test_four_nodes(void **state)
{
	struct topology *t =
		read_ok(&(struct topology_source){.synthetic = "pack:2 numa:2 core:3 pu:1"});

	assert_int_equal(t->nnodes, 4);
	assert_int_equal(t->ncores, 12);
	assert_int_equal(t->cores[11].node, 3);
	assert_int_equal(t->cores[11].socket, 1);
	assert_int_equal(topology_node(t, 3), 3);
	assert_int_equal(topology_node(t, 4), -1);
	topology_destroy(t);
}

/* What one may not use is not there: half a core, a whole one, everything. */
static void test_allowed(void **state)
{
	struct topology_source source = {.synthetic = "core:4 pu:2"};
	struct topology *t = NULL;
	struct error err;
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(1, &set);
	CPU_SET(6, &set);
	CPU_SET(7, &set);
	source.allowed = &set;
	t = read_ok(&source);
	assert_int_equal(t->ncores, 2);
	assert_int_equal(t->cores[0].ncpus, 1);
	assert_int_equal(t->cores[0].cpus[0], 1);
	assert_int_equal(t->cores[1].ncpus, 2);
	topology_destroy(t);
	CPU_ZERO(&set);
	CPU_SET(20, &set);
	assert_int_equal(topology_read(&source, &t, &err), -ENODEV);
	assert_non_null(strstr(err.text, "no CPU"));
}

/* CPU 3 is offline, CPU 5 not allowed: the file's sets say so. */
static const char offline[] =
	"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE topology SYSTEM \"hwloc2.dtd\">\n"
	"<topology version=\"2.0\">\n"
	"<object type=\"Machine\" os_index=\"0\" cpuset=\"0x37\" complete_cpuset=\"0x3f\" "
	"allowed_cpuset=\"0x17\" nodeset=\"0x1\" complete_nodeset=\"0x1\" "
	"allowed_nodeset=\"0x1\">\n"
	"<object type=\"NUMANode\" os_index=\"0\" cpuset=\"0x37\" complete_cpuset=\"0x3f\" "
	"nodeset=\"0x1\" complete_nodeset=\"0x1\" local_memory=\"4294967296\"/>\n"
	"<object type=\"Core\" os_index=\"0\" cpuset=\"0x3\" complete_cpuset=\"0x3\" "
	"nodeset=\"0x1\" "
	"complete_nodeset=\"0x1\"><object type=\"PU\" os_index=\"0\" cpuset=\"0x1\" "
	"complete_cpuset=\"0x1\" nodeset=\"0x1\" complete_nodeset=\"0x1\"/><object type=\"PU\" "
	"os_index=\"1\" cpuset=\"0x2\" complete_cpuset=\"0x2\" nodeset=\"0x1\" "
	"complete_nodeset=\"0x1\"/></object>\n"
	"<object type=\"Core\" os_index=\"1\" cpuset=\"0x4\" complete_cpuset=\"0xc\" "
	"nodeset=\"0x1\" "
	"complete_nodeset=\"0x1\"><object type=\"PU\" os_index=\"2\" cpuset=\"0x4\" "
	"complete_cpuset=\"0x4\" nodeset=\"0x1\" complete_nodeset=\"0x1\"/></object>\n"
	"<object type=\"Core\" os_index=\"2\" cpuset=\"0x30\" complete_cpuset=\"0x30\" "
	"nodeset=\"0x1\" complete_nodeset=\"0x1\"><object type=\"PU\" os_index=\"4\" "
	"cpuset=\"0x10\" "
	"complete_cpuset=\"0x10\" nodeset=\"0x1\" complete_nodeset=\"0x1\"/><object type=\"PU\" "
	"os_index=\"5\" cpuset=\"0x20\" complete_cpuset=\"0x20\" nodeset=\"0x1\" "
	"complete_nodeset=\"0x1\"/></object>\n"
	"</object>\n</topology>\n";

static void test_offline(void **state)
{
	CLEANUP_FREE char *path = io_format("%s/machine.xml", (char *)*state);
	struct topology *t;

	made_file(*state, "/machine.xml", offline);
	t = read_ok(&(struct topology_source){.xml = path});
	assert_int_equal(t->ncores, 3);
	assert_int_equal(t->cores[0].ncpus, 2);
	assert_int_equal(t->cores[1].ncpus, 1);
	assert_int_equal(t->cores[2].ncpus, 1);
	assert_int_equal(t->cores[2].cpus[0], 4);
	assert_int_equal(t->nodes[0].memory, 4ULL << 30);
	topology_destroy(t);
}

static void test_bad_source(void **state)
{
	CLEANUP_FREE char *path = io_format("%s/bad.xml", (char *)*state);
	struct topology *t = NULL;
	struct error err;

	made_file(*state, "/bad.xml", "<topology version=\"2.0\"><object type=\"Mach");
	assert_true(topology_read(&(struct topology_source){.xml = path}, &t, &err) < 0);
	assert_non_null(strstr(err.text, "bad.xml"));
	assert_true(topology_read(&(struct topology_source){.synthetic = "what"}, &t, &err) < 0);
	assert_null(t);
}

static void test_huge_pages(void **state)
{
	struct topology_source source = {.synthetic = "numa:2 core:1 pu:1", .root = *state};
	struct topology *t;

	made_file(*state, NODE "node1/hugepages/hugepages-1048576kB/nr_hugepages", "2\n");
	made_file(*state, NODE "node1/hugepages/hugepages-1048576kB/free_hugepages", "1\n");
	made_file(*state, NODE "node1/hugepages/hugepages-2048kB/nr_hugepages", "512\n");
	made_file(*state, NODE "node1/hugepages/hugepages-2048kB/free_hugepages", "500\n");
	t = read_ok(&source);
	assert_int_equal(t->nodes[0].nsizes, 0);
	assert_int_equal(t->nodes[1].nsizes, 2);
	assert_int_equal(t->nodes[1].pages[0].size, 2 << 20);
	assert_int_equal(t->nodes[1].pages[0].free, 500);
	assert_int_equal(t->nodes[1].pages[1].size, 1 << 30);
	assert_int_equal(t->nodes[1].pages[1].total, 2);
	made_file(*state, NODE "node1/hugepages/hugepages-2048kB/free_hugepages", "12\n");
	assert_int_equal(topology_refresh(t, NULL), 0);
	assert_int_equal(t->nodes[1].pages[0].free, 12);
	topology_destroy(t);
}

static void test_huge_pages_without_numa(void **state)
{
	struct topology *t;

	made_file(*state, "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "7\n");
	t = read_ok(&(struct topology_source){.synthetic = "core:1 pu:1", .root = *state});
	assert_int_equal(t->nodes[0].pages[0].total, 7);
	topology_destroy(t);
}

static void test_devices(void **state)
{
	struct topology *t;
	const struct topo_device *d;

	made_file(*state, PCI "0000:81:00.0/vendor", "0x15b3\n");
	made_file(*state, PCI "0000:81:00.0/device", "0x1017\n");
	made_file(*state, PCI "0000:81:00.0/class", "0x020700\n");
	made_file(*state, PCI "0000:81:00.0/numa_node", "1\n");
	made_file(*state, PCI "0000:81:00.0/sriov_totalvfs", "8\n");
	made_file(*state, PCI "0000:81:00.0/sriov_numvfs", "1\n");
	made_file(*state, PCI "0000:81:00.1/vendor", "0x15b3\n");
	made_file(*state, PCI "0000:81:00.1/numa_node", "1\n");
	made_link(*state, PCI "0000:81:00.1/physfn", "../0000:81:00.0");
	made_link(*state, PCI "0000:81:00.1/driver", "../../../bus/pci/drivers/vfio-pci");
	made_link(*state, PCI "0000:81:00.1/iommu_group", "../../../kernel/iommu_groups/42");
	made_file(*state, PCI "0000:00:1f.0/numa_node", "-1\n");
	t = read_ok(&(struct topology_source){.synthetic = "numa:2 core:1 pu:1", .root = *state});
	assert_int_equal(t->ndevices, 3);
	d = &t->devices[topology_device(t, "0000:81:00.0")];
	assert_int_equal(d->vendor, 0x15b3);
	assert_int_equal(d->device, 0x1017);
	assert_int_equal(d->class, 0x20700);
	assert_int_equal(d->max_functions, 8);
	assert_int_equal(d->functions, 1);
	assert_int_equal(d->node, 1);
	assert_int_equal(d->group, -1);
	d = &t->devices[topology_device(t, "0000:81:00.1")];
	assert_string_equal(d->function_of, "0000:81:00.0");
	assert_string_equal(d->driver, "vfio-pci");
	assert_int_equal(d->group, 42);
	assert_int_equal(t->devices[0].node, -1);
	assert_int_equal(topology_device(t, "0000:99:00.0"), -1);
	topology_destroy(t);
}

/* Of this machine: what this process may run on, no more. */
static void test_here(void **state)
{
	struct topology *t = read_ok(&(struct topology_source){0});
	unsigned n = 0;
	cpu_set_t own;

	assert_int_equal(sched_getaffinity(0, sizeof(own), &own), 0);
	for (unsigned i = 0; i < t->ncores; i++)
		for (unsigned k = 0; k < t->cores[i].ncpus; k++, n++)
			assert_true(CPU_ISSET(t->cores[i].cpus[k], &own));
	assert_int_equal(n, CPU_COUNT(&own));
	assert_true(t->nodes[0].memory > 0);
	topology_destroy(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_core),
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_four_nodes),
		cmocka_unit_test(test_allowed),
		cmocka_unit_test_setup_teardown(test_offline, made_set_up, made_tear_down),
		cmocka_unit_test_setup_teardown(test_bad_source, made_set_up, made_tear_down),
		cmocka_unit_test_setup_teardown(test_huge_pages, made_set_up, made_tear_down),
		cmocka_unit_test_setup_teardown(test_huge_pages_without_numa, made_set_up,
						made_tear_down),
		cmocka_unit_test_setup_teardown(test_devices, made_set_up, made_tear_down),
		cmocka_unit_test(test_here),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
