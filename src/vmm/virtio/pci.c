/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtio transport over PCI (virtio 1.2, 4.1): modern only, MSI-X only. BAR 0 holds the
 * registers, each region at the offset of enum region; BAR 1 holds the MSI-X table.
 */

#include "vmm/virtio/virtio.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/loop.h"
#include "vmm/pci/msix.h"
#include "vmm/virtio/queue.h"
#include "vmm/vm.h"

#define VENDOR 0x1af4
#define DEVICE_BASE 0x1040 /* + virtio device id */
#define REVISION 1
#define REGISTER_BAR 0
#define MSIX_BAR 1
#define ISR_QUEUE 1
#define ISR_CONFIG VIRTIO_PCI_ISR_CONFIG
#define NOTIFY_MULTIPLIER 4

/* Offsets in BAR 0. Kicks have a page of their own. */
enum region {
	REGION_COMMON = 0x0000,
	REGION_ISR = 0x0100,
	REGION_DEVICE = 0x0200,
	REGION_NOTIFY = 0x1000,
	REGION_END = 0x2000,
};

static const char *name(const struct virtio *dev)
{
	return dev->device.id;
}

static uint64_t offered(struct virtio *dev)
{
	uint64_t own = dev->cls->features ? dev->cls->features(dev) : 0;

	return own | 1ULL << VIRTIO_F_VERSION_1 | 1ULL << VIRTIO_RING_F_EVENT_IDX |
	       1ULL << VIRTIO_RING_F_INDIRECT_DESC;
}

/* Interrupts */

static void interrupt(struct virtio *dev, uint16_t vector, uint8_t isr)
{
	if (isr == ISR_CONFIG || !msix_enabled(dev->fn.msix))
		dev->isr |= isr;
	msix_signal(dev->fn.msix, vector);
}

void virtio_interrupt(struct virtq *q)
{
	interrupt(q->dev, q->vector, ISR_QUEUE);
}

void virtio_config_changed(struct virtio *dev)
{
	dev->config_generation++;
	interrupt(dev, dev->config_vector, ISR_CONFIG);
}

int virtq_call_fd(struct virtq *q)
{
	return msix_eventfd(q->dev->fn.msix, q->vector);
}

/* Kicks. They are all eventfd signals, so that none is lost whoever watches, or nobody yet. */

void virtq_kick(struct virtq *q)
{
	/* Fails only when the counter is full, and then a kick is waiting already. */
	eventfd_write(q->kick_fd, 1);
}

static void on_kick(void *arg, uint32_t events)
{
	struct virtq *q = arg;
	eventfd_t count;

	if (eventfd_read(q->kick_fd, &count))
		return;
	q->kicks++;
	q->dev->cls->kick(q->dev, q);
}

/* Makes the loop watch a queue if it should. */
static void update_watch(struct virtq *q)
{
	struct virtio *dev = q->dev;
	bool on = q->watched && dev->active && !dev->paused && !dev->broken;
	int r;

	if (!on) {
		loop_remove(&q->kick_source);
		return;
	}
	if (q->kick_source)
		return;
	r = loop_add_fd(dev->device.vm->loop, q->kick_fd, EPOLLIN, on_kick, q, &q->kick_source);
	if (r)
		virtio_broken(dev, "queue %u: cannot watch for kicks: %s", q->index,
			      strerrordesc_np(-r));
}

static void update_watches(struct virtio *dev)
{
	for (unsigned i = 0; i < dev->nqueues; i++)
		update_watch(&dev->queue[i]);
}

void virtq_watch_kick(struct virtq *q, bool on)
{
	q->watched = on;
	update_watch(q);
}

int virtio_check_enabled(const struct virtio *dev, unsigned n, struct error *err)
{
	for (unsigned i = 0; i < n; i++) {
		if (!dev->queue[i].enabled)
			return error_set(err, -EINVAL, "the driver left queue %u off", i);
	}
	return 0;
}

void virtio_hand_over(struct virtio *dev, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		virtq_watch_kick(&dev->queue[i], false);
		eventfd_write(dev->queue[i].kick_fd, 1); /* what we took must not get lost */
	}
}

void virtq_take_back(struct virtq *q)
{
	/* Stopped queues have nothing in flight: the ring says how far they came. */
	q->next_used = ((const volatile struct vring_used *)q->used_host)->idx;
	q->signalled = q->next_used;
	virtq_watch_kick(q, true);
}

void virtio_broken(struct virtio *dev, const char *fmt, ...)
{
	char why[256];
	va_list ap;

	if (dev->broken)
		return;
	dev->broken = true;
	dev->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	if (log_due(&dev->breaks))
		log_warn(&dev->device.vm->log, name(dev), "needs a reset by its driver: %s", why);
	update_watches(dev);
	if (dev->status & VIRTIO_CONFIG_S_DRIVER_OK)
		interrupt(dev, dev->config_vector, ISR_CONFIG);
}

/* Life */

static void queue_reset(struct virtq *q)
{
	eventfd_t count;

	q->desc = q->avail = q->used = 0;
	q->size = q->max;
	q->vector = VIRTIO_VECTOR_NONE;
	q->enabled = 0;
	q->next_avail = q->next_used = q->signalled = 0;
	eventfd_read(q->kick_fd, &count);
}

static void stop(struct virtio *dev)
{
	if (!dev->active)
		return;
	dev->active = false;
	update_watches(dev);
	if (dev->cls->deactivate)
		dev->cls->deactivate(dev);
	for (unsigned i = 0; i < dev->nqueues; i++)
		virtq_stop(&dev->queue[i]);
}

/* What the driver's write of 0 to the status does. Returns with everything stopped. */
static void reset(struct virtio *dev)
{
	stop(dev);
	dev->broken = false;
	dev->status = dev->isr = 0;
	dev->features = 0;
	dev->feature_select = dev->driver_feature_select = 0;
	dev->queue_select = 0;
	dev->config_vector = VIRTIO_VECTOR_NONE;
	for (unsigned i = 0; i < dev->nqueues; i++)
		queue_reset(&dev->queue[i]);
}

static int start(struct virtio *dev, struct error *err)
{
	int r;

	for (unsigned i = 0; i < dev->nqueues; i++) {
		struct virtq *q = &dev->queue[i];

		q->watched = q->enabled;
		r = q->enabled ? virtq_start(q, err) : 0;
		if (r)
			goto unwind;
	}
	r = dev->cls->activate ? dev->cls->activate(dev, err) : 0;
	if (r)
		goto unwind;
	dev->active = true;
	update_watches(dev);
	return 0;
unwind:
	for (unsigned i = 0; i < dev->nqueues; i++)
		virtq_stop(&dev->queue[i]);
	return r;
}

/* Status bits in the order the driver must set them (3.1.1), each with those it needs. */
static const struct {
	uint8_t bit, needs;
} status_steps[] = {
	{VIRTIO_CONFIG_S_FAILED, 0},
	{VIRTIO_CONFIG_S_ACKNOWLEDGE, 0},
	{VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_ACKNOWLEDGE},
	{VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_DRIVER},
	{VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FEATURES_OK},
};

/* May the bit be set? The driver reads the status back to learn that it was not. */
static bool status_allowed(struct virtio *dev, uint8_t bit, uint8_t needs)
{
	if ((dev->status & needs) != needs || (dev->broken && bit != VIRTIO_CONFIG_S_FAILED))
		return false;
	if (bit == VIRTIO_CONFIG_S_FEATURES_OK)
		return virtio_has(dev, VIRTIO_F_VERSION_1) && !(dev->features & ~offered(dev));
	return true;
}

static void status_write(struct virtio *dev, uint8_t value)
{
	struct error err;

	if (!value) {
		reset(dev);
		return;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(status_steps); i++) {
		uint8_t bit = status_steps[i].bit;

		if (!(value & bit) || dev->status & bit ||
		    !status_allowed(dev, bit, status_steps[i].needs))
			continue;
		dev->status |= bit;
		if (bit == VIRTIO_CONFIG_S_DRIVER_OK && start(dev, &err))
			virtio_broken(dev, "%s", err.text);
	}
}

/*
 * Common configuration (4.1.4.3). Each register is accessed with its own width; other
 * accesses read as zero and write nothing.
 */

struct reg {
	uint16_t offset;
	uint8_t size;
	const char *label;
	uint32_t (*get)(struct virtio *dev, const struct reg *reg);
	void (*set)(struct virtio *dev, const struct reg *reg, uint32_t value);
	uint16_t field; /* of get_field and the queue's address registers */
};

/* The selected queue, NULL when there is no such one. */
static struct virtq *selected(struct virtio *dev)
{
	return dev->queue_select < dev->nqueues ? &dev->queue[dev->queue_select] : NULL;
}

/* The selected queue while the driver may set it up: before it enables it. */
static struct virtq *settable(struct virtio *dev)
{
	struct virtq *q = selected(dev);
	uint8_t state = dev->status & (VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK |
				       VIRTIO_CONFIG_S_NEEDS_RESET);

	return q && state == VIRTIO_CONFIG_S_FEATURES_OK && !q->enabled ? q : NULL;
}

static uint32_t get_field(struct virtio *dev, const struct reg *reg)
{
	uint32_t value = 0;

	memcpy(&value, (uint8_t *)dev + reg->field, reg->size);
	return value;
}

static void set_field(struct virtio *dev, const struct reg *reg, uint32_t value)
{
	memcpy((uint8_t *)dev + reg->field, &value, reg->size);
}

static uint32_t get_device_feature(struct virtio *dev, const struct reg *reg)
{
	return dev->feature_select < 2 ? (uint32_t)(offered(dev) >> 32 * dev->feature_select) : 0;
}

static uint32_t get_driver_feature(struct virtio *dev, const struct reg *reg)
{
	return dev->driver_feature_select < 2
		       ? (uint32_t)(dev->features >> 32 * dev->driver_feature_select)
		       : 0;
}

static void set_driver_feature(struct virtio *dev, const struct reg *reg, uint32_t value)
{
	unsigned shift = 32 * (dev->driver_feature_select & 1);

	if (dev->driver_feature_select > 1 || dev->status & VIRTIO_CONFIG_S_FEATURES_OK)
		return;
	dev->features = (dev->features & ~(0xffffffffULL << shift)) | (uint64_t)value << shift;
}

/* A vector that does not exist reads back as none (4.1.5.1.2). */
static uint16_t checked_vector(struct virtio *dev, uint32_t value)
{
	return value < msix_count(dev->fn.msix) ? (uint16_t)value : VIRTIO_VECTOR_NONE;
}

static void set_config_vector(struct virtio *dev, const struct reg *reg, uint32_t value)
{
	dev->config_vector = checked_vector(dev, value);
}

static uint32_t get_num_queues(struct virtio *dev, const struct reg *reg)
{
	return dev->nqueues;
}

static void set_status(struct virtio *dev, const struct reg *reg, uint32_t value)
{
	status_write(dev, (uint8_t)value);
}

static uint32_t get_queue_size(struct virtio *dev, const struct reg *reg)
{
	struct virtq *q = selected(dev);

	return q ? q->size : 0;
}

static bool valid_size(const struct virtq *q, uint32_t size)
{
	return size && size <= q->max && !(size & (size - 1));
}

static void set_queue_size(struct virtio *dev, const struct reg *reg, uint32_t value)
{
	struct virtq *q = settable(dev);

	if (q && valid_size(q, value))
		q->size = (uint16_t)value;
}

static uint32_t get_queue_vector(struct virtio *dev, const struct reg *reg)
{
	struct virtq *q = selected(dev);

	return q ? q->vector : VIRTIO_VECTOR_NONE;
}

static void set_queue_vector(struct virtio *dev, const struct reg *reg, uint32_t value)
{
	struct virtq *q = selected(dev);

	/* Whoever serves the queue (vhost) was told the vector's eventfd when the device started.
	 */
	if (q && !dev->active)
		q->vector = checked_vector(dev, value);
}

static uint32_t get_queue_enable(struct virtio *dev, const struct reg *reg)
{
	struct virtq *q = selected(dev);

	return q ? q->enabled : 0;
}

static void set_queue_enable(struct virtio *dev, const struct reg *reg, uint32_t value)
{
	struct virtq *q = settable(dev);

	if (q && value == 1)
		q->enabled = 1;
}

static uint32_t get_notify_off(struct virtio *dev, const struct reg *reg)
{
	return selected(dev) ? dev->queue_select : 0;
}

static uint32_t get_address(struct virtio *dev, const struct reg *reg)
{
	struct virtq *q = selected(dev);
	uint32_t value = 0;

	if (q)
		memcpy(&value, (uint8_t *)q + reg->field, sizeof(value));
	return value;
}

static void set_address(struct virtio *dev, const struct reg *reg, uint32_t value)
{
	struct virtq *q = settable(dev);

	if (q)
		memcpy((uint8_t *)q + reg->field, &value, sizeof(value));
}

#define FIELD(member) get_field, set_field, offsetof(struct virtio, member)
#define FIELD_RO(member) get_field, NULL, offsetof(struct virtio, member)
#define ADDRESS(member, half) get_address, set_address, offsetof(struct virtq, member) + 4 * (half)

static const struct reg common_regs[] = {
	{0x00, 4, "device_feature_select", FIELD(feature_select)},
	{0x04, 4, "device_feature", get_device_feature, NULL, 0},
	{0x08, 4, "driver_feature_select", FIELD(driver_feature_select)},
	{0x0c, 4, "driver_feature", get_driver_feature, set_driver_feature, 0},
	{0x10, 2, "config_msix_vector", get_field, set_config_vector,
	 offsetof(struct virtio, config_vector)},
	{0x12, 2, "num_queues", get_num_queues, NULL, 0},
	{0x14, 1, "device_status", get_field, set_status, offsetof(struct virtio, status)},
	{0x15, 1, "config_generation", FIELD_RO(config_generation)},
	{0x16, 2, "queue_select", FIELD(queue_select)},
	{0x18, 2, "queue_size", get_queue_size, set_queue_size, 0},
	{0x1a, 2, "queue_msix_vector", get_queue_vector, set_queue_vector, 0},
	{0x1c, 2, "queue_enable", get_queue_enable, set_queue_enable, 0},
	{0x1e, 2, "queue_notify_off", get_notify_off, NULL, 0},
	{0x20, 4, "queue_desc_lo", ADDRESS(desc, 0)},
	{0x24, 4, "queue_desc_hi", ADDRESS(desc, 1)},
	{0x28, 4, "queue_driver_lo", ADDRESS(avail, 0)},
	{0x2c, 4, "queue_driver_hi", ADDRESS(avail, 1)},
	{0x30, 4, "queue_device_lo", ADDRESS(used, 0)},
	{0x34, 4, "queue_device_hi", ADDRESS(used, 1)},
};
#define COMMON_SIZE 0x38

static const struct reg *find_reg(uint64_t offset, unsigned len)
{
	for (unsigned i = 0; i < ARRAY_SIZE(common_regs); i++)
		if (common_regs[i].offset == offset && common_regs[i].size == len)
			return &common_regs[i];
	return NULL;
}

static void common_read(struct virtio *dev, uint64_t offset, void *data, unsigned len)
{
	const struct reg *reg = find_reg(offset, len);
	uint32_t value = 0;

	if (!reg)
		return;
	value = reg->get(dev, reg);
	memcpy(data, &value, len);
}

static void common_write(struct virtio *dev, uint64_t offset, const void *data, unsigned len)
{
	const struct reg *reg = find_reg(offset, len);
	uint32_t value = 0;

	if (!reg || !reg->set)
		return;
	memcpy(&value, data, len);
	log_debug(&dev->device.vm->log, name(dev), "%s = 0x%x", reg->label, value);
	reg->set(dev, reg, value);
}

/* BAR 0 */

static void bar_read(void *arg, uint64_t offset, void *data, unsigned len)
{
	struct virtio *dev = arg;

	memset(data, 0, len);
	if (offset < REGION_ISR) {
		common_read(dev, offset, data, len);
	} else if (offset < REGION_DEVICE) {
		if (offset == REGION_ISR) {
			memcpy(data, &dev->isr, 1);
			dev->isr = 0;
		}
	} else if (offset - REGION_DEVICE + len <= dev->config_size) {
		dev->cls->config_read(dev, (unsigned)(offset - REGION_DEVICE), data, len);
	}
}

static void bar_write(void *arg, uint64_t offset, const void *data, unsigned len)
{
	struct virtio *dev = arg;

	if (offset < REGION_ISR) {
		common_write(dev, offset, data, len);
	} else if (offset >= REGION_NOTIFY) {
		uint64_t index = (offset - REGION_NOTIFY) / NOTIFY_MULTIPLIER;

		/* KVM takes these as ioeventfds; the exit is for when it could not add one. */
		if (index < dev->nqueues)
			virtq_kick(&dev->queue[index]);
	} else if (offset >= REGION_DEVICE && offset - REGION_DEVICE + len <= dev->config_size &&
		   dev->cls->config_write) {
		dev->cls->config_write(dev, (unsigned)(offset - REGION_DEVICE), data, len);
	}
}

static const struct bus_ops bar_ops = {.read = bar_read, .write = bar_write};

/* BAR 0 was mapped or unmapped: the kick addresses go with it. */
static void bar_moved(void *arg, uint64_t addr, bool mapped)
{
	struct virtio *dev = arg;

	for (unsigned i = 0; i < dev->nqueues; i++) {
		uint64_t at = addr + REGION_NOTIFY + i * NOTIFY_MULTIPLIER;
		int r = vm_ioeventfd(dev->device.vm, at, 0, false, dev->queue[i].kick_fd, mapped);

		if (r && mapped && log_due(&dev->fn.complaints))
			log_warn(&dev->device.vm->log, name(dev),
				 "queue %u is kicked by exits, which is slow: no ioeventfd: %s", i,
				 strerrordesc_np(-r));
	}
}

/*
 * The window into the BARs in configuration space (4.1.4.9): the driver writes bar, offset and
 * length of the capability, then accesses its last dword.
 */

/* The BAR an access goes to, with offset and length; NULL when they make no sense. */
static const struct pci_bar *window_target(struct pci_function *fn, uint32_t *offset, uint32_t *len)
{
	const uint8_t *cap = fn->config + fn->hook_start - sizeof(struct virtio_pci_cap);
	uint8_t bar = cap[VIRTIO_PCI_CAP_BAR];

	memcpy(offset, cap + VIRTIO_PCI_CAP_OFFSET, sizeof(*offset));
	memcpy(len, cap + VIRTIO_PCI_CAP_LENGTH, sizeof(*len));
	if (bar >= ARRAY_SIZE(fn->bar) || (*len != 1 && *len != 2 && *len != 4) || *offset % *len ||
	    (uint64_t)*offset + *len > fn->bar[bar].size)
		return NULL;
	return &fn->bar[bar];
}

static void window_read(struct pci_function *fn, unsigned at, unsigned size)
{
	uint32_t offset, len;
	const struct pci_bar *bar = window_target(fn, &offset, &len);

	if (bar)
		bar->ops->read(bar->dev, offset, fn->config + fn->hook_start, len);
}

static void window_write(struct pci_function *fn, unsigned at, unsigned size)
{
	uint32_t offset, len;
	const struct pci_bar *bar = window_target(fn, &offset, &len);

	if (bar)
		bar->ops->write(bar->dev, offset, fn->config + fn->hook_start, len);
}

/* Set-up */

/* A virtio capability (4.1.4) with extra bytes behind it; its offset or -ENOSPC. */
static int add_cap(struct virtio *dev, uint8_t type, uint32_t offset, uint32_t length,
		   uint8_t extra)
{
	struct virtio_pci_cap cap = {.cap_len = (uint8_t)(sizeof(cap) + extra),
				     .cfg_type = type,
				     .bar = REGISTER_BAR,
				     .offset = offset,
				     .length = length};
	int at = pci_add_capability(&dev->fn, PCI_CAP_ID_VNDR, cap.cap_len);

	/* The first two bytes are the list's. */
	if (at >= 0)
		memcpy(dev->fn.config + at + VIRTIO_PCI_CAP_LEN, &cap.cap_len,
		       sizeof(cap) - VIRTIO_PCI_CAP_LEN);
	return at;
}

static int add_caps(struct virtio *dev)
{
	uint32_t multiplier = NOTIFY_MULTIPLIER;
	int common = add_cap(dev, VIRTIO_PCI_CAP_COMMON_CFG, REGION_COMMON, COMMON_SIZE, 0);
	int isr = add_cap(dev, VIRTIO_PCI_CAP_ISR_CFG, REGION_ISR, 1, 0);
	int notify = add_cap(dev, VIRTIO_PCI_CAP_NOTIFY_CFG, REGION_NOTIFY,
			     NOTIFY_MULTIPLIER * dev->nqueues, sizeof(multiplier));
	int device = dev->config_size ? add_cap(dev, VIRTIO_PCI_CAP_DEVICE_CFG, REGION_DEVICE,
						dev->config_size, 0)
				      : 0;
	int window = add_cap(dev, VIRTIO_PCI_CAP_PCI_CFG, 0, 0, 4);

	if (common < 0 || isr < 0 || notify < 0 || device < 0 || window < 0)
		return -ENOSPC;
	memcpy(dev->fn.config + notify + VIRTIO_PCI_NOTIFY_CAP_MULT, &multiplier,
	       sizeof(multiplier));
	dev->fn.writable[window + VIRTIO_PCI_CAP_BAR] = 0xff;
	memset(dev->fn.writable + window + VIRTIO_PCI_CAP_OFFSET, 0xff, 12);
	dev->fn.hook_start = (uint16_t)((unsigned)window + sizeof(struct virtio_pci_cap));
	dev->fn.hook_end = dev->fn.hook_start + 4;
	dev->fn.config_read = window_read;
	dev->fn.config_write = window_write;
	return 0;
}

static int create_function(struct virtio *dev, struct vm *vm, struct error *err)
{
	uint16_t id = DEVICE_BASE + dev->cls->id;
	int r;

	pci_function_init(&dev->fn, vm, dev->device.id, VENDOR, id, id, dev->cls->pci_class,
			  REVISION);
	r = msix_create(&dev->fn, MSIX_BAR, dev->nqueues + 1, err);
	if (r)
		return r;
	r = add_caps(dev);
	if (r)
		return error_errno(err, r, "virtio capabilities");
	dev->fn.bar[REGISTER_BAR] = (struct pci_bar){
		.size = REGION_END, .ops = &bar_ops, .dev = dev, .moved = bar_moved};
	return pci_add(&dev->fn, err);
}

static int create_queues(struct virtio *dev, struct error *err)
{
	for (unsigned i = 0; i < dev->nqueues; i++)
		dev->queue[i].kick_fd = -1;
	for (unsigned i = 0; i < dev->nqueues; i++) {
		struct virtq *q = &dev->queue[i];

		q->index = (uint16_t)i;
		q->dev = dev;
		q->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (q->kick_fd < 0)
			return error_errno(err, -errno, "eventfd of a queue");
		queue_reset(q);
	}
	return 0;
}

/* Undoes what virtio_create() did. */
static void done(struct virtio *dev)
{
	stop(dev);
	pci_remove(&dev->fn);
	for (unsigned i = 0; i < dev->nqueues; i++)
		if (dev->queue[i].kick_fd >= 0)
			close(dev->queue[i].kick_fd);
}

/* The VM's view */

static int device_pause(struct device *device)
{
	struct virtio *dev = container_of(device, struct virtio, device);
	int r = 0;

	dev->paused = true;
	update_watches(dev);
	if (dev->active && dev->cls->pause)
		r = dev->cls->pause(dev);
	if (r) {
		dev->paused = false;
		update_watches(dev);
		return r;
	}
	pci_pause(&dev->fn);
	return 0;
}

static void device_resume(struct device *device)
{
	struct virtio *dev = container_of(device, struct virtio, device);

	if (!dev->paused)
		return;
	dev->paused = false;
	if (dev->active && !dev->broken && dev->cls->resume)
		dev->cls->resume(dev);
	update_watches(dev);
}

static int check_queue(const struct virtq *q, struct error *err)
{
	if (!valid_size(q, q->size) || q->enabled > 1 ||
	    checked_vector(q->dev, q->vector) != q->vector)
		return error_set(err, -EBADMSG, "saved queue %u is not valid (size %u, vector %u)",
				 q->index, q->size, q->vector);
	return 0;
}

static int check_restored(struct virtio *dev, struct error *err)
{
	const uint8_t running = VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_FEATURES_OK;
	int r = 0;

	if (dev->features & ~offered(dev) && dev->status & VIRTIO_CONFIG_S_FEATURES_OK)
		return error_set(
			err, -EBADMSG, "saved features 0x%llx are not offered here (0x%llx)",
			(unsigned long long)dev->features, (unsigned long long)offered(dev));
	if (dev->status & VIRTIO_CONFIG_S_DRIVER_OK && (dev->status & running) != running)
		return error_set(err, -EBADMSG, "saved status 0x%02x is not valid", dev->status);
	for (unsigned i = 0; i < dev->nqueues && !r; i++)
		r = check_queue(&dev->queue[i], err);
	return r;
}

static int device_restored(struct device *device, struct error *err)
{
	struct virtio *dev = container_of(device, struct virtio, device);
	int r = pci_restored(&dev->fn, err);

	if (!r)
		r = check_restored(dev, err);
	if (r)
		return r;
	dev->config_vector = checked_vector(dev, dev->config_vector);
	dev->broken = dev->status & VIRTIO_CONFIG_S_NEEDS_RESET;
	if (dev->broken || !(dev->status & VIRTIO_CONFIG_S_DRIVER_OK))
		return 0;
	r = start(dev, err);
	if (r)
		return error_prefix(err, -EBADMSG, "saved state");
	if (dev->cls->restored)
		dev->cls->restored(dev);
	/* Kicks and interrupts that were on their way are not part of the state. */
	for (unsigned i = 0; i < dev->nqueues; i++) {
		if (!dev->queue[i].enabled)
			continue;
		virtq_kick(&dev->queue[i]);
		virtio_interrupt(&dev->queue[i]);
	}
	return dev->cls->pause ? dev->cls->pause(dev) : 0;
}

static int device_claim(struct device *device, bool claim, struct error *err)
{
	struct virtio *dev = container_of(device, struct virtio, device);

	return dev->cls->claim ? dev->cls->claim(dev, claim, err) : 0;
}

static bool device_disk(struct device *device, struct device_disk *ret)
{
	struct virtio *dev = container_of(device, struct virtio, device);

	return dev->cls->disk && dev->cls->disk(dev, ret);
}

static void device_log_dirty(struct device *device)
{
	struct virtio *dev = container_of(device, struct virtio, device);

	if (dev->cls->log_dirty)
		dev->cls->log_dirty(dev);
}

static void device_describe(struct device *device, json_t *object)
{
	struct virtio *dev = container_of(device, struct virtio, device);

	json_object_set_new(object, "queues", json_integer(dev->nqueues));
	json_object_set_new(object, "needs", json_integer((json_int_t)dev->features));
	json_object_set_new(object, "offers", json_integer((json_int_t)offered(dev)));
	if (dev->cls->describe)
		dev->cls->describe(dev, object);
}

static const char *device_stays(const struct device *device)
{
	const struct virtio *dev = (const struct virtio *)device;

	return dev->cls->stays ? dev->cls->stays(dev) : NULL;
}

static void device_stats(struct device *device, json_t *object)
{
	struct virtio *dev = container_of(device, struct virtio, device);
	json_t *queues = json_array();

	for (unsigned i = 0; i < dev->nqueues; i++) {
		const struct virtq *q = &dev->queue[i];

		json_array_append_new(queues,
				      json_pack("{s:I,s:I,s:I}", "kicks", (json_int_t)q->kicks,
						"requests", (json_int_t)q->requests, "interrupts",
						(json_int_t)q->interrupts));
	}
	json_object_set_new(object, "queues", queues);
	json_object_set_new(object, "needs_reset", json_boolean(dev->broken));
	if (dev->cls->stats)
		dev->cls->stats(dev, object);
}

static void device_destroy(struct device *device)
{
	struct virtio *dev = container_of(device, struct virtio, device);

	done(dev);
	dev->cls->destroy(dev);
}

static const struct device_ops device_ops = {
	.pause = device_pause,
	.resume = device_resume,
	.restored = device_restored,
	.claim = device_claim,
	.disk = device_disk,
	.log_dirty = device_log_dirty,
	.describe = device_describe,
	.stays = device_stays,
	.stats = device_stats,
	.destroy = device_destroy,
};

static const struct state_field transport_state[] = {
	STATE_FIELD(struct virtio, features),
	STATE_FIELD(struct virtio, feature_select),
	STATE_FIELD(struct virtio, driver_feature_select),
	STATE_FIELD(struct virtio, queue_select),
	STATE_FIELD(struct virtio, config_vector),
	STATE_FIELD(struct virtio, status),
	STATE_FIELD(struct virtio, config_generation),
	STATE_FIELD(struct virtio, isr),
	STATE_END,
};

static const struct state_field queue_state[] = {
	STATE_FIELD(struct virtq, desc),       STATE_FIELD(struct virtq, avail),
	STATE_FIELD(struct virtq, used),       STATE_FIELD(struct virtq, size),
	STATE_FIELD(struct virtq, vector),     STATE_FIELD(struct virtq, enabled),
	STATE_FIELD(struct virtq, next_avail), STATE_FIELD(struct virtq, next_used),
	STATE_FIELD(struct virtq, signalled),  STATE_END,
};

static void add_state(struct virtio *dev)
{
	static const char *const names[VIRTIO_QUEUES_MAX] = {
		"queue0", "queue1", "queue2", "queue3", "queue4", "queue5", "queue6", "queue7"};

	pci_add_state(&dev->fn, &dev->device);
	device_add_state(&dev->device, "virtio", transport_state, dev);
	for (unsigned i = 0; i < dev->nqueues; i++)
		device_add_state(&dev->device, names[i], queue_state, &dev->queue[i]);
	if (dev->cls->state)
		device_add_state(&dev->device, dev->cls->name, dev->cls->state, dev);
}

int virtio_create(struct virtio *dev, struct vm *vm, const struct device_desc *desc,
		  struct error *err)
{
	int r;

	dev->device.desc = desc;
	dev->device.ops = &device_ops;
	dev->device.vm = vm;
	dev->config_vector = VIRTIO_VECTOR_NONE;
	r = create_queues(dev, err);
	if (!r)
		r = create_function(dev, vm, err);
	if (!r) {
		add_state(dev);
		r = vm_add_device(vm, &dev->device, err);
	}
	if (r)
		done(dev);
	return r;
}
