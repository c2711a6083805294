/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Builds the virtual machine in the order KVM wants: VM, fixed addresses, interrupt
 * controllers, memory, devices, boot image, vCPUs. Ends it in reverse.
 */

#include "vmm/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/loop.h"
#include "vmm/config.h"
#include "vmm/dev/power.h"
#include "vmm/dev/serial.h"
#include "vmm/device.h"
#include "vmm/dirty.h"
#include "vmm/pci/pci.h"
#include "vmm/throttle.h"
#include "vmm/userfault.h"
#include "vmm/vcpu.h"
#include "vmm/vmstate.h"
#include "vmm/x86/acpi.h"
#include "vmm/x86/boot.h"
#include "vmm/x86/cpustate.h"

/* Three pages for Intel real mode emulation and one for its page table, below the BIOS area. */
#define IDENTITY_MAP_ADDR 0xfffbc000ULL
#define TSS_ADDR 0xfffbd000UL

void vm_end(struct vm *vm, enum vm_end why)
{
	int old = VM_RUNNING;

	/*
	 * The first reason counts: a vCPU may still fault while the others stop. But who stops a
	 * VM that is about to reboot does not want it back.
	 */
	if (atomic_compare_exchange_strong(&vm->end, &old, (int)why))
		loop_stop(vm->loop);
	else if (why == VM_STOPPED && old == VM_REBOOT)
		atomic_compare_exchange_strong(&vm->end, &old, (int)why);
}

int vm_add_device(struct vm *vm, struct device *dev, struct error *err)
{
	struct device **bigger;
	unsigned same = 0;

	for (unsigned i = 0; i < vm->ndevices; i++)
		same += vm->devices[i]->desc == dev->desc;
	bigger = realloc(vm->devices, (vm->ndevices + 1) * sizeof(*bigger));
	if (!bigger)
		return error_errno(err, -ENOMEM, "device %s", dev->desc->name);
	snprintf(dev->id, sizeof(dev->id), "%s%u", dev->desc->name, same);
	vm->devices = bigger;
	vm->devices[vm->ndevices++] = dev;
	return 0;
}

int vm_ioeventfd(struct vm *vm, uint64_t addr, unsigned len, bool pio, int eventfd, bool add)
{
	struct kvm_ioeventfd arg = {
		.addr = addr,
		.len = len,
		.fd = eventfd,
		.flags = (pio ? KVM_IOEVENTFD_FLAG_PIO : 0) |
			 (add ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN),
	};

	return ioctl(vm->fd, KVM_IOEVENTFD, &arg) < 0 ? -errno : 0;
}

static int open_kvm(struct vm *vm, struct error *err)
{
	int version;

	vm->kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (vm->kvm_fd < 0)
		return error_errno(
			err, -errno,
			"cannot open /dev/kvm (is the kvm module loaded, and may this user "
			"use it? wisp doctor tells)");
	version = ioctl(vm->kvm_fd, KVM_GET_API_VERSION, 0);
	if (version != KVM_API_VERSION)
		return error_set(err, -ENOTSUP, "/dev/kvm speaks API version %d, %d is needed",
				 version, KVM_API_VERSION);
	return 0;
}

/* 32-bit APIC ids, without the meaning of 255 as broadcast: needed above 254 ids. */
static int enable_x2apic_ids(struct vm *vm)
{
	struct kvm_enable_cap cap = {
		.cap = KVM_CAP_X2APIC_API,
		.args = {KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK},
	};

	return ioctl(vm->fd, KVM_ENABLE_CAP, &cap) < 0 ? -errno : 0;
}

static int check_vcpus(struct vm *vm, struct error *err)
{
	const struct topology *t = &vm->config->topology;
	unsigned n = topology_vcpus(t);
	int max = ioctl(vm->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);
	uint32_t top_id = topology_apic_id(t, n - 1);

	if (max > 0 && n > (unsigned)max)
		return error_set(err, -ERANGE, "%u vCPUs are more than KVM's %d on this machine", n,
				 max);
	if (top_id > 254 && vm->config->irqchip != IRQCHIP_SPLIT)
		return error_set(
			err, -ERANGE,
			"this topology has APIC ids up to %u: ids above 254 need --irqchip "
			"split",
			top_id);
	return 0;
}

static int create_vm(struct vm *vm, struct error *err)
{
	uint64_t identity = IDENTITY_MAP_ADDR;
	int r = check_vcpus(vm, err);

	if (r)
		return r;
	vm->fd = ioctl(vm->kvm_fd, KVM_CREATE_VM, 0);
	if (vm->fd < 0)
		return error_errno(err, -errno, "cannot create a virtual machine");
	if (ioctl(vm->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity) < 0 ||
	    ioctl(vm->fd, KVM_SET_TSS_ADDR, TSS_ADDR) < 0)
		return error_errno(err, -errno, "cannot set KVM's fixed addresses");
	r = enable_x2apic_ids(vm);
	if (r && vm->config->irqchip == IRQCHIP_SPLIT)
		return error_errno(err, r, "KVM of this machine has no 32-bit APIC ids");
	return irq_create(vm, vm->config->irqchip, err);
}

int vm_map_memory(struct vm *vm, uint32_t flags, struct error *err)
{
	for (unsigned i = 0; i < vm->mem.nregions; i++) {
		const struct memory_region *region = &vm->mem.region[i];
		struct kvm_userspace_memory_region slot = {
			.slot = i,
			.flags = flags,
			.guest_phys_addr = region->gpa,
			.memory_size = region->size,
			.userspace_addr = (uintptr_t)region->host,
		};

		if (ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &slot) < 0)
			return error_errno(err, -errno,
					   "cannot give KVM %" PRIu64 " MiB of guest memory",
					   region->size >> 20);
	}
	return 0;
}

static int create_devices(struct vm *vm, struct error *err)
{
	const struct vm_config *config = vm->config;
	int r = serial_create(vm, config->serial, err);

	if (!r)
		r = power_create(vm, err);
	if (!r)
		r = pci_host_create(vm, err);
	for (unsigned i = 0; !r && i < config->ndevices; i++) {
		const struct device_config *d = &config->device[i];
		struct device *dev;

		r = d->desc->create(vm, d, &dev, err);
		if (r)
			error_prefix(err, r, "device %s", d->desc->name);
	}
	return r;
}

int vm_create(struct vm *vm, const struct vm_config *config, const struct boot_files *files,
	      struct error *err)
{
	int r = open_kvm(vm, err);

	if (!r)
		r = create_vm(vm, err);
	if (!r)
		r = memory_create(&vm->mem, config->memory, config->page_size, config->prefault,
				  err);
	if (!r)
		r = vm_map_memory(vm, 0, err);
	if (!r)
		r = create_devices(vm, err);
	if (!r && files)
		r = boot_load(&vm->mem, files, err);
	if (!r && files)
		r = acpi_load(&vm->mem, &config->topology, err);
	if (!r)
		r = vcpus_create(vm, files ? files->kernel.entry : 0, err);
	vm->phase = files ? VM_BOOTED : VM_INCOMING;
	return r;
}

void vm_init(struct vm *vm, const struct vm_config *config, struct loop *loop)
{
	*vm = (struct vm){.config = config, .loop = loop, .kvm_fd = -1, .fd = -1, .mem.fd = -1};
	pthread_mutex_init(&vm->lock, NULL);
	loop_set_lock(loop, &vm->lock);
}

void vm_destroy(struct vm *vm)
{
	vcpus_destroy(vm);
	throttle_stop(vm);
	dirty_stop(vm);
	userfault_stop(vm);
	vmstate_forget(vm);
	free(vm->clock_plan);
	free(vm->cpuid);
	free(vm->load_error);
	while (vm->ndevices) {
		struct device *dev = vm->devices[--vm->ndevices];

		dev->ops->destroy(dev);
	}
	free(vm->devices);
	vm->devices = NULL;
	pci_host_destroy(vm);
	irq_destroy(vm);
	bus_done(&vm->pio);
	bus_done(&vm->mmio);
	memory_destroy(&vm->mem);
	if (vm->fd >= 0)
		close(vm->fd);
	if (vm->kvm_fd >= 0)
		close(vm->kvm_fd);
	pthread_mutex_destroy(&vm->lock);
}

/* What of a pause ends whether it succeeded or not. */
static void run_on(struct vm *vm)
{
	for (unsigned i = 0; i < vm->ndevices; i++)
		if (vm->devices[i]->ops->resume)
			vm->devices[i]->ops->resume(vm->devices[i]);
	for (unsigned i = 0; i < vm->nvcpus; i++)
		cpustate_tell_stopped(&vm->vcpus[i]);
	vcpus_resume(vm);
}

int vm_pause(struct vm *vm)
{
	int r;

	if (vcpus_paused(vm))
		return 0;
	vcpus_pause(vm);
	r = clock_read(vm, &vm->clock);
	for (unsigned i = 0; !r && i < vm->ndevices; i++)
		if (vm->devices[i]->ops->pause)
			r = vm->devices[i]->ops->pause(vm->devices[i]);
	if (r)
		run_on(vm);
	return r;
}

static int check_phase(const struct vm *vm, struct error *err)
{
	if (vm->phase == VM_INCOMING)
		return error_set(err, -EBUSY, "nothing to resume: no state was loaded yet");
	if (vm->phase == VM_LOAD_FAILED)
		return error_set(err, -EIO, "nothing to resume, the load failed: %s",
				 vm->load_error ? vm->load_error : "out of memory");
	return 0;
}

int vm_claim(struct vm *vm, bool claim, struct error *err)
{
	int r = 0;

	for (unsigned i = 0; !(r && claim) && i < vm->ndevices; i++) {
		const struct device_ops *ops = vm->devices[i]->ops;
		int one = ops->claim ? ops->claim(vm->devices[i], claim, r ? NULL : err) : 0;

		if (!r)
			r = one;
	}
	if (r && claim)
		vm_claim(vm, false, NULL);
	return r;
}

int vm_resume(struct vm *vm, struct error *err)
{
	int r;

	if (!vcpus_paused(vm))
		return 0;
	r = check_phase(vm, err);
	if (!r)
		r = vm_claim(vm, true, err);
	if (!r && vm->clock_plan)
		r = clock_apply(vm, vm->clock_plan, err);
	if (r)
		return r;
	if (vm->clock_plan) /* there may be more copies of this guest */
		power_new_generation(vm);
	free(vm->clock_plan);
	vm->clock_plan = NULL;
	vmstate_forget(vm);
	run_on(vm);
	return 0;
}
