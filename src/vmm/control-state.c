/* SPDX-License-Identifier: Apache-2.0 */
/* Commands of the control socket that take a VM out of this process, or put one into it. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/jsonline.h"
#include "lib/process.h"
#include "vmm/call.h"
#include "vmm/device.h"
#include "vmm/vcpu.h"
#include "vmm/vm.h"
#include "vmm/vmstate.h"

int call_take_fd(struct call *call, const char *what, struct error *err)
{
	int fd = jsonline_take_fd(call->line);

	return fd >= 0 ? fd
		       : error_set(err, -EINVAL,
				   "no descriptor came with the request (SCM_RIGHTS): %s", what);
}

/* {gpa, size, offset} of each region of RAM; with host, where it is in this process as well. */
static json_t *regions(const struct vm *vm, bool with_host)
{
	json_t *array = json_array();

	for (unsigned i = 0; i < vm->mem.nregions; i++) {
		const struct memory_region *r = &vm->mem.region[i];
		json_t *object = json_pack("{s:I,s:I,s:I}", "gpa", (json_int_t)r->gpa, "size",
					   (json_int_t)r->size, "offset", (json_int_t)r->offset);

		if (with_host)
			json_object_set_new(object, "host",
					    json_integer((json_int_t)(uintptr_t)r->host));
		json_array_append_new(array, object);
	}
	return array;
}

static json_t *threads(const struct vm *vm)
{
	json_t *array = json_array();

	for (unsigned i = 0; i < vm->nvcpus; i++)
		json_array_append_new(array, json_integer(vm->vcpus[i].tid));
	return array;
}

void call_memory(const struct vm *vm, json_t *result)
{
	json_object_set_new(result, "size", json_integer((json_int_t)vm->mem.size));
	json_object_set_new(result, "page_size", json_integer((json_int_t)vm->mem.page_size));
	json_object_set_new(result, "regions", regions(vm, false));
}

void call_faults(const struct vm *vm, json_t *result)
{
	char instance[PROCESS_INSTANCE];

	if (!process_instance(instance, NULL))
		json_object_set_new(result, "instance", json_string(instance));
	json_object_set_new(result, "page_size", json_integer((json_int_t)vm->mem.page_size));
	json_object_set_new(result, "regions", regions(vm, true));
	json_object_set_new(result, "threads", threads(vm));
}

int cmd_memory(struct call *call, struct error *err)
{
	call_memory(call->vm, call->result);
	call->pass = call->vm->mem.fd;
	return 0;
}

static void describe_devices(struct vm *vm, json_t *result)
{
	json_t *devices = json_array();

	for (unsigned i = 0; i < vm->ndevices; i++)
		json_array_append_new(devices, json_string(vm->devices[i]->id));
	json_object_set_new(result, "devices", devices);
}

int cmd_save(struct call *call, struct error *err)
{
	CLEANUP_CLOSE int fd = call_take_fd(call, "where the state is to be written", err);
	struct vm *vm = call->vm;
	int r;

	if (fd < 0)
		return fd;
	if (!vcpus_paused(vm))
		return error_set(err, -EBUSY, "the VM runs: pause it before it is saved");
	if (vm->phase != VM_BOOTED)
		return error_set(err, -EBUSY, "there is no state in this VM yet");
	if (vm->userfault)
		return error_set(err, -EBUSY, "the memory of this VM has not all come yet");
	r = call_check_stays(vm, err);
	if (!r)
		r = vmstate_save(vm, err);
	if (r)
		return r;
	r = io_write_full(fd, vm->saved, vm->saved_size);
	if (r)
		return error_errno(err, r, "cannot write the saved state");
	r = vm_claim(vm, false, err); /* it may go on elsewhere; resume takes back what it needs */
	if (r)
		return r;
	json_object_set_new(call->result, "cpu", call_cpu(vm));
	describe_devices(vm, call->result);
	json_object_set_new(call->result, "bytes", json_integer((json_int_t)vm->saved_size));
	return 0;
}

/* Reads a file from its start, or anything else to its end. Bytes read (room: more), -errno. */
static ssize_t read_all(int fd, uint8_t *buf, size_t room)
{
	size_t used = 0;
	bool seeks = lseek(fd, 0, SEEK_CUR) >= 0;

	while (used < room) {
		ssize_t n = seeks ? pread(fd, buf + used, room - used, (off_t)used)
				  : read(fd, buf + used, room - used);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			break;
		used += (size_t)n;
	}
	return (ssize_t)used;
}

static int load_from(struct vm *vm, int fd, bool elapsed, struct error *err)
{
	size_t max = vmstate_max(vm);
	void *map = mmap(NULL, max, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	ssize_t n;
	int r;

	if (map == MAP_FAILED)
		return error_errno(err, -errno, "saved state");
	n = read_all(fd, map, max);
	if (n < 0)
		r = error_errno(err, (int)n, "cannot read the saved state");
	else if ((size_t)n == max)
		r = error_set(err, -EBADMSG,
			      "this is no saved state of such a VM: it has %zu bytes "
			      "or more",
			      max);
	else
		r = vmstate_load(vm, map, (size_t)n, elapsed, err);
	munmap(map, max);
	return r;
}

static int parse_clock(const json_t *args, bool *elapsed, struct error *err)
{
	const char *text = json_string_value(json_object_get(args, "clock"));

	if (!text || (strcmp(text, "frozen") && strcmp(text, "elapsed")))
		return error_set(err, -EINVAL, "load needs \"clock\": \"frozen\" or \"elapsed\"");
	*elapsed = !strcmp(text, "elapsed");
	return 0;
}

int cmd_load(struct call *call, struct error *err)
{
	CLEANUP_CLOSE int fd = call_take_fd(call, "where the state is to be read", err);
	struct vm *vm = call->vm;
	bool elapsed = false;
	int r = fd < 0 ? fd : parse_clock(call->args, &elapsed, err);

	if (r)
		return r;
	if (vm->phase != VM_INCOMING)
		return error_set(err, -EBUSY,
				 vm->phase == VM_BOOTED
					 ? "this VM has a state already (--incoming starts one "
					   "without)"
					 : "a load failed before: this VM can only be stopped");
	r = load_from(vm, fd, elapsed, err);
	vm->phase = r ? VM_LOAD_FAILED : VM_BOOTED;
	if (r)
		vm->load_error = err ? strdup(err->text) : NULL;
	return r;
}
