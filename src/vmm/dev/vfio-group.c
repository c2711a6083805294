/* SPDX-License-Identifier: Apache-2.0 */
/* The container and the IOMMU groups behind the VM's devices of the host. */

#include "vmm/dev/vfio-group.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <linux/vfio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "vmm/vm.h"

#define GROUPS_MAX 16
#define FIRST_SLOT 8 /* those before are RAM's (memory.h) */

struct group {
	int number, fd;
};

struct vfio {
	int container;
	int kvm; /* KVM's device that knows of the groups */
	struct group group[GROUPS_MAX];
	unsigned ngroups;
	unsigned devices; /* open */
	uint32_t slots;	  /* given */
};

/* -------- the IOMMU group of a device -------- */

static int find_number(const char *address, int *ret, struct error *err)
{
	CLEANUP_FREE char *link = io_format("/sys/bus/pci/devices/%s/iommu_group", address);
	char target[256], *name;
	ssize_t n;

	if (!link)
		return error_set(err, -ENOMEM, "out of memory");
	n = readlink(link, target, sizeof(target) - 1);
	if (n < 0 && errno == ENOENT)
		return error_set(err, -ENOENT,
				 "there is no PCI device %s here, or it is behind no IOMMU "
				 "(\"wisp doctor iommu\" tells more)",
				 address);
	if (n < 0)
		return error_errno(err, -errno, "%s", link);
	target[n] = 0;
	name = strrchr(target, '/');
	*ret = name ? atoi(name + 1) : -1;
	return *ret < 0 ? error_set(err, -EINVAL, "%s leads to \"%s\"", link, target) : 0;
}

static int open_file(const char *address, int number, struct error *err)
{
	CLEANUP_FREE char *path = io_format("/dev/vfio/%d", number);
	int fd;

	if (!path)
		return error_set(err, -ENOMEM, "out of memory");
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd >= 0)
		return fd;
	if (errno == ENOENT)
		return error_set(err, -ENOENT,
				 "device %s is not driven by vfio-pci: echo vfio-pci > "
				 "/sys/bus/pci/devices/%s/driver_override; unbind its driver; echo "
				 "%s > /sys/bus/pci/drivers_probe",
				 address, address, address);
	if (errno == EBUSY)
		return error_set(err, -EBUSY, "device %s: another program has its IOMMU group (%s)",
				 address, path);
	return error_errno(err, -errno, "device %s: cannot open %s", address, path);
}

/* All devices of a group are vfio's, or have no driver: else none can be given away. */
static int check_viable(const char *address, const struct group *group, struct error *err)
{
	struct vfio_group_status status = {.argsz = sizeof(status)};

	if (ioctl(group->fd, VFIO_GROUP_GET_STATUS, &status) < 0)
		return error_errno(err, -errno, "device %s: that is no IOMMU group", address);
	if (!(status.flags & VFIO_GROUP_FLAGS_VIABLE))
		return error_set(err, -EBUSY,
				 "device %s: others of its IOMMU group are used by this machine "
				 "(/sys/kernel/iommu_groups/%d/devices): bind them to vfio-pci too",
				 address, group->number);
	return 0;
}

/* -------- the container -------- */

static int map_memory(struct vfio *v, const struct vm *vm, struct error *err)
{
	for (unsigned i = 0; i < vm->mem.nregions; i++) {
		const struct memory_region *region = &vm->mem.region[i];
		struct vfio_iommu_type1_dma_map map = {
			.argsz = sizeof(map),
			.flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
			.vaddr = (uintptr_t)region->host,
			.iova = region->gpa,
			.size = region->size,
		};
		struct rlimit limit = {0};

		if (!ioctl(v->container, VFIO_IOMMU_MAP_DMA, &map))
			continue;
		if (errno != ENOMEM)
			return error_errno(err, -errno, "cannot show guest memory to devices");
		getrlimit(RLIMIT_MEMLOCK, &limit);
		return error_set(err, -ENOMEM,
				 "devices of the host need all %" PRIu64 " MiB of the VM's memory "
				 "locked, and %llu MiB are allowed (ulimit -l)",
				 vm->mem.size >> 20, (unsigned long long)limit.rlim_cur >> 20);
	}
	return 0;
}

static int open_container(struct vfio *v, struct error *err)
{
	v->container = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
	if (v->container < 0)
		return error_errno(err, -errno, "cannot open /dev/vfio/vfio (modprobe vfio-pci)");
	if (ioctl(v->container, VFIO_GET_API_VERSION) != VFIO_API_VERSION ||
	    ioctl(v->container, VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU) <= 0)
		return error_set(err, -ENOTSUP, "VFIO of this kernel has no IOMMU of type 1, v2");
	return 0;
}

/* KVM then flushes caches for devices that do not snoop. */
static int tell_kvm(struct vfio *v, const struct vm *vm, int group, struct error *err)
{
	struct kvm_create_device create = {.type = KVM_DEV_TYPE_VFIO};
	struct kvm_device_attr attr = {.group = KVM_DEV_VFIO_GROUP,
				       .attr = KVM_DEV_VFIO_GROUP_ADD,
				       .addr = (uintptr_t)&group};

	if (v->kvm < 0) {
		if (ioctl(vm->fd, KVM_CREATE_DEVICE, &create) < 0)
			return error_errno(err, -errno, "KVM cannot be told of VFIO");
		v->kvm = (int)create.fd;
	}
	if (ioctl(v->kvm, KVM_SET_DEVICE_ATTR, &attr) < 0)
		return error_errno(err, -errno, "KVM cannot be told of an IOMMU group");
	return 0;
}

/* The type of the IOMMU is set, and memory mapped, behind the first group. */
static int join(struct vfio *v, const struct vm *vm, const struct group *group, struct error *err)
{
	int r = 0;

	if (ioctl(group->fd, VFIO_GROUP_SET_CONTAINER, &v->container) < 0)
		return errno == EBUSY ? error_set(err, -EBUSY, "another program has IOMMU group %d",
						  group->number)
				      : error_errno(err, -errno, "IOMMU group %d", group->number);
	if (!v->ngroups) {
		if (ioctl(v->container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU) < 0)
			r = error_errno(err, -errno, "cannot use the IOMMU");
		else
			r = map_memory(v, vm, err);
	}
	if (!r)
		r = tell_kvm(v, vm, group->fd, err);
	if (r)
		ioctl(group->fd, VFIO_GROUP_UNSET_CONTAINER);
	return r;
}

/* The group's descriptor, which is v's. */
static int get_group(struct vfio *v, struct vm *vm, const char *address, int inherited,
		     struct error *err)
{
	CLEANUP_CLOSE int fd = -1;
	struct group group = {0};
	int r = find_number(address, &group.number, err);

	for (unsigned i = 0; !r && i < v->ngroups; i++)
		if (v->group[i].number == group.number)
			return v->group[i].fd;
	if (!r && v->ngroups == GROUPS_MAX)
		r = error_set(err, -ENOSPC, "a VM has devices of at most %d IOMMU groups",
			      GROUPS_MAX);
	if (r)
		return r;
	/* Of what was inherited a copy: the number stays open for the next start. */
	fd = inherited < 0 ? open_file(address, group.number, err)
			   : fcntl(inherited, F_DUPFD_CLOEXEC, 0);
	if (fd < 0)
		return inherited < 0 ? fd : error_errno(err, -errno, "group=%d", inherited);
	group.fd = fd;
	r = check_viable(address, &group, err);
	if (!r)
		r = join(v, vm, &group, err);
	if (r)
		return r;
	v->group[v->ngroups++] = group;
	return take_fd(&fd);
}

static void done(struct vm *vm)
{
	struct vfio *v = vm->vfio;

	if (!v || v->devices)
		return;
	if (v->kvm >= 0)
		close(v->kvm);
	for (unsigned i = 0; i < v->ngroups; i++) {
		ioctl(v->group[i].fd, VFIO_GROUP_UNSET_CONTAINER);
		close(v->group[i].fd);
	}
	if (v->container >= 0)
		close(v->container);
	free(v);
	vm->vfio = NULL;
}

static int begin(struct vm *vm, struct error *err)
{
	if (vm->vfio)
		return 0;
	vm->vfio = calloc(1, sizeof(*vm->vfio));
	if (!vm->vfio)
		return error_set(err, -ENOMEM, "out of memory");
	vm->vfio->container = vm->vfio->kvm = -1;
	return open_container(vm->vfio, err);
}

int vfio_open(struct vm *vm, const char *address, int group, struct error *err)
{
	int r = begin(vm, err), device = -1;

	if (!r)
		r = get_group(vm->vfio, vm, address, group, err);
	if (r >= 0) {
		device = ioctl(r, VFIO_GROUP_GET_DEVICE_FD, address);
		r = device < 0 ? error_errno(err, -errno, "cannot use device %s", address) : device;
	}
	if (device >= 0)
		vm->vfio->devices++;
	done(vm);
	return r;
}

void vfio_close(struct vm *vm, int device)
{
	close(device);
	vm->vfio->devices--;
	done(vm);
}

uint32_t vfio_slot(struct vm *vm)
{
	return FIRST_SLOT + vm->vfio->slots++;
}
