/* SPDX-License-Identifier: Apache-2.0 */
/* Commands of the control socket for who copies the disks that the VM writes, or fills them. */

#include <errno.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "vmm/block/store.h"
#include "vmm/call.h"
#include "vmm/device.h"
#include "vmm/vcpu.h"
#include "vmm/vm.h"

/* The device's disk. False: none. */
static bool get_disk(struct device *dev, struct device_disk *ret)
{
	return dev->ops->disk && dev->ops->disk(dev, ret);
}

int cmd_disks(struct call *call, struct error *err)
{
	json_t *array = json_array();

	for (unsigned i = 0; i < call->vm->ndevices; i++) {
		struct device *dev = call->vm->devices[i];
		struct device_disk disk;
		json_t *path;

		if (!get_disk(dev, &disk) || disk.readonly)
			continue;
		path = json_string(disk.path);
		json_array_append_new(array, json_pack("{s:s, s:o, s:I}", "id", dev->id, "path",
						       path ? path : json_string("?"), "size",
						       (json_int_t)disk.store->size));
	}
	json_object_set_new(call->result, "disks", array);
	return 0;
}

/* The disk that the request names. */
static int find_disk(const struct call *call, struct device_disk *ret, struct error *err)
{
	const char *id = json_string_value(json_object_get(call->args, "id"));

	for (unsigned i = 0; id && i < call->vm->ndevices; i++)
		if (!strcmp(call->vm->devices[i]->id, id) && get_disk(call->vm->devices[i], ret))
			return 0;
	return error_set(err, -ENOENT, "there is no disk \"%s\" here (disks tells)", id ? id : "");
}

int cmd_disk(struct call *call, struct error *err)
{
	struct device_disk disk;
	int r = find_disk(call, &disk, err);

	if (!r)
		call->pass = disk.fd;
	return r;
}

int cmd_disk_copy_start(struct call *call, struct error *err)
{
	CLEANUP_CLOSE int fd = call_take_fd(call, "the file that the disk is copied to", err);
	struct device_disk disk;
	int r = fd < 0 ? fd : find_disk(call, &disk, err);

	if (!r && disk.readonly)
		r = error_set(err, -EROFS, "disk %s is only read here: copy it as it is",
			      disk.path);
	if (!r && !vcpus_paused(call->vm))
		r = error_set(err, -EBUSY, "the VM runs: pause it before its disks are copied");
	if (!r)
		r = store_copy_start(disk.store, fd, call->owner, err);
	if (r < 0)
		return r;
	call->pass = r;
	return 0;
}

int cmd_disk_copy_stop(struct call *call, struct error *err)
{
	struct device_disk disk;
	uint64_t bytes;
	int r = find_disk(call, &disk, err);

	if (!r)
		r = store_copy_stop(disk.store, call->owner, &bytes, err);
	if (!r)
		json_object_set_new(call->result, "bytes", json_integer((json_int_t)bytes));
	return r;
}

void control_disk_gone(struct vm *vm, const void *owner)
{
	struct device_disk disk;

	for (unsigned i = 0; i < vm->ndevices; i++)
		if (get_disk(vm->devices[i], &disk))
			store_copy_gone(disk.store, owner);
}
