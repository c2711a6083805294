/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A PCI device of the host in the VM, by VFIO: its BARs and interrupts are the guest's without a
 * detour through us. Its configuration space is ours: ids and class of the device, MSI-X with a
 * table in a BAR of its own, and a PCI Express capability; what else a device offers there (power
 * states, resets, error reports) stays with the host. What it holds cannot be saved.
 */

#include <endian.h>
#include <errno.h>
#include <limits.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/parse.h"
#include "vmm/dev/vfio-bar.h"
#include "vmm/device.h"
#include "vmm/devices.h"
#include "vmm/pci/msix.h"
#include "vmm/pci/pci.h"
#include "vmm/dev/vfio-group.h"
#include "vmm/vm.h"

#define VECTORS_MAX 64u
#define EXPRESS_SIZE 0x3c /* of version 2 of the capability (PCI Express 5.0, 7.5.3) */
#define BARS 6

struct vfio_device {
	struct device device;
	struct pci_function fn;
	int fd;
	uint64_t config; /* offset of the configuration space in fd */
	char address[VFIO_ADDRESS_SIZE];
	char stays[160];
	struct vfio_bar bar[BARS];
	bool interrupts; /* the device signals the vectors' eventfds */
};

static struct vfio_device *of(struct device *dev)
{
	return (struct vfio_device *)dev;
}

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}

/* -------- interrupts -------- */

static int set_interrupts(struct vfio_device *v, bool on)
{
	struct {
		struct vfio_irq_set set;
		int32_t fd[VECTORS_MAX];
	} irqs = {.set = {.index = VFIO_PCI_MSIX_IRQ_INDEX}};
	unsigned n = on ? msix_count(v->fn.msix) : 0;

	irqs.set.argsz = (uint32_t)(sizeof(irqs.set) + n * sizeof(int32_t));
	irqs.set.flags = VFIO_IRQ_SET_ACTION_TRIGGER |
			 (on ? VFIO_IRQ_SET_DATA_EVENTFD : VFIO_IRQ_SET_DATA_NONE);
	irqs.set.count = n;
	for (unsigned i = 0; i < n; i++)
		irqs.fd[i] = msix_eventfd(v->fn.msix, (uint16_t)i);
	return ioctl(v->fd, VFIO_DEVICE_SET_IRQS, &irqs) < 0 ? -errno : 0;
}

static void follow_interrupts(struct vfio_device *v)
{
	bool on = msix_enabled(v->fn.msix);
	int r;

	if (on == v->interrupts)
		return;
	r = set_interrupts(v, on);
	if (!r)
		v->interrupts = on;
	else if (log_due(&v->fn.complaints))
		log_warn(&v->device.vm->log, "vfio", "%s (%s): no interrupts: %s", v->device.id,
			 v->address, strerrordesc_np(-r));
}

/* -------- configuration space -------- */

/* Memory stays decoded, which is the guest's matter by its BARs; it decides on DMA. */
static int set_command(const struct vfio_device *v, bool master)
{
	uint16_t command = htole16((uint16_t)(PCI_COMMAND_MEMORY | PCI_COMMAND_INTX_DISABLE |
					      (master ? PCI_COMMAND_MASTER : 0)));

	return pwrite(v->fd, &command, sizeof(command), (off_t)(v->config + PCI_COMMAND)) ==
			       sizeof(command)
		       ? 0
		       : -EIO;
}

static void config_written(struct pci_function *fn, unsigned offset, unsigned len)
{
	struct vfio_device *v =
		(struct vfio_device *)((uint8_t *)fn - offsetof(struct vfio_device, fn));

	if (offset < PCI_COMMAND + 2)
		set_command(v, get16(fn->config + PCI_COMMAND) & PCI_COMMAND_MASTER);
	follow_interrupts(v);
}

static unsigned find_capability(const uint8_t *config, uint8_t id)
{
	unsigned at = get16(config + PCI_STATUS) & PCI_STATUS_CAP_LIST
			      ? config[PCI_CAPABILITY_LIST] & ~3u
			      : 0;

	/* Each is at least a dword: a list that goes round ends here. */
	for (unsigned n = 0; n < PCI_CONFIG_SIZE / 4 && at >= PCI_STD_HEADER_SIZEOF; n++) {
		if (config[at + PCI_CAP_LIST_ID] == id)
			return at;
		at = config[at + PCI_CAP_LIST_NEXT] & ~3u;
	}
	return 0;
}

/* On the root bus, so an endpoint that is integrated there, without a link; resets are ours. */
static int add_express(struct pci_function *fn, const uint8_t *theirs)
{
	unsigned from = find_capability(theirs, PCI_CAP_ID_EXP);
	int at;

	if (!from || from + EXPRESS_SIZE > PCI_CONFIG_SIZE)
		return 0;
	at = pci_add_capability(fn, PCI_CAP_ID_EXP, EXPRESS_SIZE);
	if (at < 0)
		return at;
	fn->config[at + PCI_EXP_FLAGS] = PCI_EXP_TYPE_RC_END << 4 | 2;
	memcpy(fn->config + at + PCI_EXP_DEVCAP, theirs + from + PCI_EXP_DEVCAP, 4);
	fn->config[at + PCI_EXP_DEVCAP + 3] &= (uint8_t) ~(PCI_EXP_DEVCAP_FLR >> 24);
	memcpy(fn->config + at + PCI_EXP_DEVCTL, theirs + from + PCI_EXP_DEVCTL, 2);
	return 0;
}

static int add_msix(struct vfio_device *v, const uint8_t *theirs, struct error *err)
{
	unsigned at = find_capability(theirs, PCI_CAP_ID_MSIX), bar = 0, count;

	if (!at || at + PCI_CAP_MSIX_SIZEOF > PCI_CONFIG_SIZE)
		return error_set(err, -ENOTSUP, "device %s has no MSI-X", v->address);
	/* Half of a BAR of 64 bits is free as well. */
	while (bar < BARS && v->fn.bar[bar].size)
		bar++;
	if (bar == BARS)
		return error_set(err, -ENOSPC, "device %s has no BAR to spare", v->address);
	count = (get16(theirs + at + PCI_MSIX_FLAGS) & PCI_MSIX_FLAGS_QSIZE) + 1u;
	return msix_create(&v->fn, bar, count < VECTORS_MAX ? count : VECTORS_MAX, err);
}

static int add_bars(struct vfio_device *v, const uint8_t *theirs, struct error *err)
{
	for (unsigned i = 0; i < BARS; i++) {
		uint8_t type = theirs[PCI_BASE_ADDRESS_0 + 4 * i];
		int r = 0;

		if (!(type & PCI_BASE_ADDRESS_SPACE_IO))
			r = vfio_bar_create(&v->bar[i], &v->fn, v->fd, i, err);
		if (r)
			return error_prefix(err, r, "device %s", v->address);
		if ((type & (PCI_BASE_ADDRESS_SPACE_IO | PCI_BASE_ADDRESS_MEM_TYPE_MASK)) ==
		    PCI_BASE_ADDRESS_MEM_TYPE_64)
			i++;
	}
	return 0;
}

static int create_function(struct vfio_device *v, struct vm *vm, struct error *err)
{
	uint8_t theirs[PCI_CONFIG_SIZE] = {0};
	int r;

	if (pread(v->fd, theirs, sizeof(theirs), (off_t)v->config) < PCI_STD_HEADER_SIZEOF)
		return error_errno(err, -EIO, "device %s: configuration space", v->address);
	if ((theirs[PCI_HEADER_TYPE] & 0x7f) != PCI_HEADER_TYPE_NORMAL)
		return error_set(err, -ENOTSUP, "device %s is a bridge", v->address);
	pci_function_init(&v->fn, vm, v->address, get16(theirs + PCI_VENDOR_ID),
			  get16(theirs + PCI_DEVICE_ID), 0,
			  theirs[PCI_CLASS_REVISION + 1] |
				  (uint32_t)get16(theirs + PCI_CLASS_DEVICE) << 8,
			  theirs[PCI_REVISION_ID]);
	memcpy(v->fn.config + PCI_SUBSYSTEM_VENDOR_ID, theirs + PCI_SUBSYSTEM_VENDOR_ID, 4);
	v->fn.hook_start = PCI_COMMAND;
	v->fn.hook_end = PCI_CONFIG_SIZE;
	v->fn.config_write = config_written;
	r = add_bars(v, theirs, err);
	if (!r)
		r = add_msix(v, theirs, err);
	if (!r && add_express(&v->fn, theirs))
		r = error_set(err, -ENOSPC, "device %s: capabilities", v->address);
	return r ? r : pci_add(&v->fn, err);
}

/* -------- life -------- */

static int start(struct vfio_device *v, struct error *err)
{
	struct vfio_device_info info = {.argsz = sizeof(info)};
	struct vfio_region_info config = {.argsz = sizeof(config),
					  .index = VFIO_PCI_CONFIG_REGION_INDEX};

	if (ioctl(v->fd, VFIO_DEVICE_GET_INFO, &info) < 0 ||
	    !(info.flags & VFIO_DEVICE_FLAGS_PCI) ||
	    ioctl(v->fd, VFIO_DEVICE_GET_REGION_INFO, &config) < 0)
		return error_set(err, -ENODEV, "device %s is no PCI device of vfio-pci",
				 v->address);
	v->config = config.offset;
	if (info.flags & VFIO_DEVICE_FLAGS_RESET && ioctl(v->fd, VFIO_DEVICE_RESET) < 0)
		return error_errno(err, -errno, "device %s does not reset", v->address);
	return set_command(v, false)
		       ? error_set(err, -EIO, "device %s does not take commands", v->address)
		       : 0;
}

static const char *vfio_stays(const struct device *dev)
{
	return ((const struct vfio_device *)dev)->stays;
}

static void vfio_stats(struct device *dev, json_t *object)
{
	json_object_set_new(object, "host", json_string(of(dev)->address));
}

static void vfio_destroy(struct device *dev)
{
	struct vfio_device *v = of(dev);

	if (v->fd >= 0) {
		set_command(v, false); /* no DMA from here on */
		if (v->interrupts)
			set_interrupts(v, false);
	}
	pci_remove(&v->fn);
	for (unsigned i = 0; i < BARS; i++)
		vfio_bar_destroy(&v->bar[i]);
	if (v->fd >= 0)
		vfio_close(dev->vm, v->fd);
	free(v);
}

static const struct device_ops vfio_ops = {
	.stays = vfio_stays,
	.stats = vfio_stats,
	.destroy = vfio_destroy,
};

static int read_config(struct vfio_device *v, const struct device_config *cfg, int *group,
		       struct error *err)
{
	const char *host = device_config_get(cfg, "host"), *text = device_config_get(cfg, "group");
	unsigned a, b, c, d;
	int end = 0;

	if (sscanf(host, "%4x:%2x:%2x.%1x%n", &a, &b, &c, &d, &end) != 4 || host[end] ||
	    end != VFIO_ADDRESS_SIZE - 1)
		return error_set(err, -EINVAL,
				 "host=%s is not a PCI address as 0000:81:00.1 (lspci -D)", host);
	memcpy(v->address, host, VFIO_ADDRESS_SIZE);
	snprintf(v->stays, sizeof(v->stays),
		 "it has device %s of its host, whose state only the device knows: stop the VM",
		 v->address);
	*group = -1;
	return text ? parse_uint(text, "group", 0, INT_MAX, (unsigned *)group, err) : 0;
}

static int vfio_create(struct vm *vm, const struct device_config *cfg, struct device **ret,
		       struct error *err)
{
	struct vfio_device *v = calloc(1, sizeof(*v));
	int r, group;

	if (!v)
		return error_errno(err, -ENOMEM, "vfio");
	v->fd = -1;
	v->device = (struct device){.desc = &vfio_desc, .ops = &vfio_ops, .vm = vm};
	r = read_config(v, cfg, &group, err);
	if (!r) {
		v->fd = vfio_open(vm, v->address, group, err);
		r = v->fd < 0 ? v->fd : start(v, err);
	}
	if (!r)
		r = create_function(v, vm, err);
	if (!r)
		r = vm_add_device(vm, &v->device, err);
	if (r)
		vfio_destroy(&v->device);
	else
		*ret = &v->device;
	return r;
}

static const struct device_key vfio_keys[] = {
	{"host", "ADDRESS", "PCI address of the device, which vfio-pci drives (0000:81:00.1)",
	 true},
	{"group", "NUMBER", "inherited descriptor of its /dev/vfio/GROUP (default: that is opened)",
	 false},
	{0}};

const struct device_desc vfio_desc = {
	.name = "vfio",
	.summary = "a PCI device of the host, or a virtual function of one",
	.keys = vfio_keys,
	.max = 8,
	.create = vfio_create,
};
