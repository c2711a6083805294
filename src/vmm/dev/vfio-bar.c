/* SPDX-License-Identifier: Apache-2.0 */
/* BARs of a host's device: mapped into the guest, or read and written for it. */

#include "vmm/dev/vfio-bar.h"

#include <errno.h>
#include <linux/kvm.h>
#include <linux/vfio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "vmm/pci/pci.h"
#include "vmm/dev/vfio-group.h"
#include "vmm/vm.h"

#define PAGE 4096ULL

static void bar_read(void *dev, uint64_t offset, void *data, unsigned len)
{
	const struct vfio_bar *bar = dev;

	if (pread(bar->device, data, len, (off_t)(bar->offset + offset)) != (ssize_t)len)
		memset(data, 0xff, len);
}

static void bar_write(void *dev, uint64_t offset, const void *data, unsigned len)
{
	const struct vfio_bar *bar = dev;

	if (pwrite(bar->device, data, len, (off_t)(bar->offset + offset)) != (ssize_t)len &&
	    log_due(&bar->fn->complaints))
		log_warn(&bar->fn->vm->log, "vfio", "%s: cannot write to a BAR: %s", bar->fn->name,
			 strerrordesc_np(errno));
}

/* The areas follow the BAR. */
static void bar_moved(void *dev, uint64_t addr, bool mapped)
{
	struct vfio_bar *bar = dev;

	for (unsigned i = 0; i < bar->nareas; i++) {
		const struct vfio_area *area = &bar->area[i];
		struct kvm_userspace_memory_region slot = {
			.slot = area->slot,
			.guest_phys_addr = addr + area->at,
			.memory_size = mapped ? area->size : 0,
			.userspace_addr = (uintptr_t)area->host,
		};

		/* What KVM refuses is an exit each time, and right all the same. */
		if (ioctl(bar->fn->vm->fd, KVM_SET_USER_MEMORY_REGION, &slot) < 0 &&
		    log_due(&bar->fn->complaints))
			log_warn(&bar->fn->vm->log, "vfio", "%s: a BAR is not mapped: %s",
				 bar->fn->name, strerrordesc_np(errno));
	}
}

static const struct bus_ops bar_ops = {.read = bar_read, .write = bar_write};

/* What the kernel says of the region, with its capabilities; the caller frees it. */
static struct vfio_region_info *get_info(int device, unsigned index)
{
	struct vfio_region_info *info = calloc(1, sizeof(*info)), *more;

	if (!info)
		return NULL;
	info->argsz = sizeof(*info);
	info->index = index;
	if (!ioctl(device, VFIO_DEVICE_GET_REGION_INFO, info) && info->argsz > sizeof(*info)) {
		uint32_t size = info->argsz;

		more = realloc(info, size);
		if (!more)
			goto fail;
		info = more;
		memset(info, 0, size);
		info->argsz = size;
		info->index = index;
		if (!ioctl(device, VFIO_DEVICE_GET_REGION_INFO, info))
			return info;
	} else if (info->argsz == sizeof(*info)) {
		return info;
	}
fail:
	free(info);
	return NULL;
}

static void *find_cap(struct vfio_region_info *info, uint16_t id)
{
	uint32_t at = info->flags & VFIO_REGION_INFO_FLAG_CAPS ? info->cap_offset : 0;

	while (at && at + sizeof(struct vfio_info_cap_header) <= info->argsz) {
		struct vfio_info_cap_header *cap = (void *)((uint8_t *)info + at);

		if (cap->id == id)
			return cap;
		at = cap->next;
	}
	return NULL;
}

static int map_area(struct vfio_bar *bar, uint64_t at, uint64_t size, struct error *err)
{
	struct vfio_area *area = &bar->area[bar->nareas];

	/* KVM maps pages; what is less stays an exit. */
	if (at % PAGE || size % PAGE || !size || at > bar->size || size > bar->size - at ||
	    bar->nareas == VFIO_BAR_AREAS)
		return 0;
	area->host = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, bar->device,
			  (off_t)(bar->offset + at));
	if (area->host == MAP_FAILED)
		return error_errno(err, -errno, "cannot map %llu bytes of a BAR",
				   (unsigned long long)size);
	area->at = at;
	area->size = size;
	area->slot = vfio_slot(bar->fn->vm);
	bar->nareas++;
	return 0;
}

static int map_areas(struct vfio_bar *bar, struct vfio_region_info *info, struct error *err)
{
	const struct vfio_region_info_cap_sparse_mmap *sparse;
	int r = 0;

	if (!(info->flags & VFIO_REGION_INFO_FLAG_MMAP))
		return 0;
	sparse = find_cap(info, VFIO_REGION_INFO_CAP_SPARSE_MMAP);
	if (!sparse)
		return map_area(bar, 0, bar->size, err);
	for (uint32_t i = 0; !r && i < sparse->nr_areas; i++)
		r = map_area(bar, sparse->areas[i].offset, sparse->areas[i].size, err);
	return r;
}

int vfio_bar_create(struct vfio_bar *bar, struct pci_function *fn, int device, unsigned index,
		    struct error *err)
{
	CLEANUP_FREE struct vfio_region_info *info =
		get_info(device, VFIO_PCI_BAR0_REGION_INDEX + index);
	int r;

	if (!info)
		return error_errno(err, -errno, "BAR %u", index);
	if (!info->size)
		return 0;
	if (info->size > PCI_MMIO_SIZE / 2 || info->size & (info->size - 1))
		return error_set(err, -E2BIG, "BAR %u has %llu MiB, room is for %llu", index,
				 (unsigned long long)info->size >> 20,
				 (unsigned long long)PCI_MMIO_SIZE >> 21);
	bar->fn = fn;
	bar->device = device;
	bar->offset = info->offset;
	bar->size = info->size;
	r = map_areas(bar, info, err);
	if (!r)
		fn->bar[index] = (struct pci_bar){
			.size = bar->size, .ops = &bar_ops, .dev = bar, .moved = bar_moved};
	return r;
}

void vfio_bar_destroy(struct vfio_bar *bar)
{
	while (bar->nareas) {
		const struct vfio_area *area = &bar->area[--bar->nareas];

		munmap(area->host, area->size);
	}
}
