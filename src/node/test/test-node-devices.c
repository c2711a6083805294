/* SPDX-License-Identifier: Apache-2.0 */
/* Devices in a user's hands and back, in a made-up /sys and /dev. Needs root, who may give files
 * away. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "lib/error.h"
#include "node/helper-devices.h"
#include "node/test/made.h"

#define PCI "/sys/bus/pci/"
#define ONE "0000:81:00.1"
#define NOBODY 65534

/* The folders of a device in group 42, which nobody drives, and what is written to the kernel. */
static void make_device(const char *root)
{
	made_file(root, PCI "devices/" ONE "/driver_override", "");
	made_link(root, PCI "devices/" ONE "/iommu_group", "../../../kernel/iommu_groups/42");
	made_file(root, PCI "drivers/mlx5_core/unbind", "");
	made_file(root, PCI "drivers/vfio-pci/unbind", "");
	made_file(root, PCI "drivers_probe", "");
	made_file(root, "/dev/vfio/42", "");
}

static void expect_text(const char *root, const char *path, const char *wanted)
{
	CLEANUP_FREE char *full = io_format("%s%s", root, path);
	CLEANUP_FREE char *text = NULL;

	assert_true(io_read_file(full, 4096, &text, NULL) >= 0);
	assert_string_equal(text, wanted);
}

static struct stat owner(const char *root)
{
	CLEANUP_FREE char *path = io_format("%s/dev/vfio/42", root);
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return st;
}

static int give(const char *root, struct error *err)
{
	json_t *list = json_pack("[s]", ONE);
	int r = devices_give(root, list, NOBODY, NOBODY, err);

	json_decref(list);
	return r;
}

static void test_taken_from_its_driver(void **state)
{
	struct error err = {""};

	make_device(*state);
	made_link(*state, PCI "devices/" ONE "/driver", "../../drivers/mlx5_core");
	/* This kernel binds nothing, as one does whose module is not loaded. */
	assert_int_equal(give(*state, &err), -ENODEV);
	assert_non_null(strstr(err.text, ONE ": vfio-pci does not take it"));
	/* Written without O_TRUNC, as to the kernel: what came last is in front. */
	expect_text(*state, PCI "devices/" ONE "/driver_override", "\nfio-pci");
	expect_text(*state, PCI "drivers/mlx5_core/unbind", ONE);
	expect_text(*state, PCI "drivers_probe", ONE);
	assert_int_equal(owner(*state).st_uid, geteuid());
}

static void test_there_and_back(void **state)
{
	json_t *list = json_pack("[s]", ONE);
	struct error err = {""};

	make_device(*state);
	made_link(*state, PCI "devices/" ONE "/driver", "../../drivers/vfio-pci");
	if (geteuid())
		skip();
	assert_int_equal(give(*state, &err), 0);
	expect_text(*state, PCI "drivers_probe", "");
	assert_int_equal(owner(*state).st_uid, NOBODY);
	assert_int_equal(owner(*state).st_mode & 07777, 0600);
	assert_int_equal(devices_take(*state, list, &err), 0);
	assert_int_equal(owner(*state).st_uid, 0);
	json_decref(list);
}

static void test_none(void **state)
{
	json_t *list = json_pack("[s]", ONE);
	struct error err = {""};

	/* A device that has gone meanwhile is nobody's. */
	assert_int_equal(devices_take(*state, list, &err), 0);
	assert_int_equal(devices_take(*state, NULL, &err), 0);
	assert_int_equal(devices_give(*state, NULL, NOBODY, NOBODY, &err), 0);
	assert_true(give(*state, &err) < 0);
	assert_non_null(strstr(err.text, ONE));
	json_decref(list);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_taken_from_its_driver, made_set_up,
						made_tear_down),
		cmocka_unit_test_setup_teardown(test_there_and_back, made_set_up, made_tear_down),
		cmocka_unit_test_setup_teardown(test_none, made_set_up, made_tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
