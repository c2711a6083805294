/* SPDX-License-Identifier: Apache-2.0 */
/* A guest without KVM: probing, negotiation and the driver's side of virtqueues. */

#include "vmm/test/guest-driver.h"

#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/loop.h"

void guest_failed(const char *file, int line, const char *what)
{
	fprintf(stderr, "%s:%d: the test guest needs: %s\n", file, line, what);
	abort();
}

void guest_create(struct guest *g)
{
	struct error err = {0};

	memset(g, 0, sizeof(*g));
	log_init(&g->vm.log, "test", STDERR_FILENO, LOG_ERROR);
	pthread_mutex_init(&g->vm.lock, NULL);
	guest_require(!loop_create(&g->vm.loop));
	loop_set_lock(g->vm.loop, &g->vm.lock);
	guest_require(!memory_create(&g->vm.mem, GUEST_RAM, 4096, false, &err));
	/* A border that nothing may cross, and addresses above 4 GiB. */
	g->vm.mem.nregions = 2;
	g->vm.mem.region[0].size = GUEST_LOW;
	g->vm.mem.region[1] = (struct memory_region){.gpa = MEMORY_HIGH_START,
						     .size = GUEST_RAM - GUEST_LOW,
						     .offset = GUEST_LOW,
						     .host = g->vm.mem.region[0].host + GUEST_LOW};
	g->vm.devices = g->devices;
	g->gsis_max = GUEST_GSIS;
	g->next = 4096;
	guest_require(!pci_host_create(&g->vm, &err));
}

void guest_destroy(struct guest *g)
{
	while (g->vm.ndevices) {
		struct device *dev = g->devices[--g->vm.ndevices];

		dev->ops->destroy(dev);
	}
	pci_host_destroy(&g->vm);
	guest_require(!g->nioeventfds && !g->vm.mmio.count);
	for (unsigned i = 0; i < GUEST_GSIS; i++)
		guest_require(!g->gsi[i].used);
	bus_done(&g->vm.mmio);
	bus_done(&g->vm.pio);
	memory_destroy(&g->vm.mem);
	loop_destroy(g->vm.loop);
	pthread_mutex_destroy(&g->vm.lock);
}

uint64_t guest_alloc(struct guest *g, uint64_t size, uint64_t align)
{
	uint64_t gpa = (g->next + align - 1) & ~(align - 1);

	guest_require(size <= GUEST_LOW && gpa <= GUEST_LOW - size);
	g->next = gpa + size;
	return gpa;
}

void *guest_at(struct guest *g, uint64_t gpa, uint64_t size)
{
	void *p = memory_at(&g->vm.mem, gpa, size);

	guest_require(p);
	return p;
}

uint64_t guest_read(struct guest *g, uint64_t addr, unsigned len)
{
	uint64_t value = 0;
	SCOPED_LOCK(&g->vm.lock);

	bus_read(&g->vm.mmio, addr, &value, len);
	return value;
}

void guest_write(struct guest *g, uint64_t addr, uint64_t value, unsigned len)
{
	SCOPED_LOCK(&g->vm.lock);

	for (unsigned i = 0; i < g->nioeventfds; i++) {
		if (g->ioeventfd[i].addr == addr) {
			eventfd_write(g->ioeventfd[i].fd, 1);
			return;
		}
	}
	bus_write(&g->vm.mmio, addr, &value, len);
}

static uint64_t ecam(unsigned slot, unsigned reg)
{
	return PCI_ECAM_BASE + ((uint64_t)slot << 15) + reg;
}

uint32_t guest_config_read(struct guest *g, unsigned slot, unsigned reg, unsigned len)
{
	return (uint32_t)guest_read(g, ecam(slot, reg), len);
}

void guest_config_write(struct guest *g, unsigned slot, unsigned reg, uint32_t value, unsigned len)
{
	guest_write(g, ecam(slot, reg), value, len);
}

void guest_run(struct guest *g)
{
	while (loop_run_once(g->vm.loop, 0) > 0)
		;
}

/* Probing */

static uint64_t bar_base(struct guest *g, unsigned slot, unsigned bar)
{
	return guest_config_read(g, slot, PCI_BASE_ADDRESS_0 + 4 * bar, 4) & ~0xfU;
}

static void probe_virtio_cap(struct guest_device *d, unsigned cap)
{
	struct guest *g = d->guest;
	unsigned bar = guest_config_read(g, d->slot, cap + VIRTIO_PCI_CAP_BAR, 1);
	uint64_t at = bar_base(g, d->slot, bar) +
		      guest_config_read(g, d->slot, cap + VIRTIO_PCI_CAP_OFFSET, 4);

	switch (guest_config_read(g, d->slot, cap + VIRTIO_PCI_CAP_CFG_TYPE, 1)) {
	case VIRTIO_PCI_CAP_COMMON_CFG:
		d->common = at;
		break;
	case VIRTIO_PCI_CAP_NOTIFY_CFG:
		d->notify = at;
		d->notify_multiplier =
			guest_config_read(g, d->slot, cap + VIRTIO_PCI_NOTIFY_CAP_MULT, 4);
		break;
	case VIRTIO_PCI_CAP_ISR_CFG:
		d->isr = at;
		break;
	case VIRTIO_PCI_CAP_DEVICE_CFG:
		d->config = at;
		d->config_size = guest_config_read(g, d->slot, cap + VIRTIO_PCI_CAP_LENGTH, 4);
		break;
	case VIRTIO_PCI_CAP_PCI_CFG:
		d->window = cap;
		break;
	}
}

static void probe_msix(struct guest_device *d, unsigned cap)
{
	struct guest *g = d->guest;
	uint32_t table = guest_config_read(g, d->slot, cap + PCI_MSIX_TABLE, 4);
	uint32_t pba = guest_config_read(g, d->slot, cap + PCI_MSIX_PBA, 4);

	d->nvectors =
		(guest_config_read(g, d->slot, cap + PCI_MSIX_FLAGS, 2) & PCI_MSIX_FLAGS_QSIZE) + 1;
	d->msix_table =
		bar_base(g, d->slot, table & PCI_MSIX_TABLE_BIR) + (table & PCI_MSIX_TABLE_OFFSET);
	d->msix_pba = bar_base(g, d->slot, pba & PCI_MSIX_PBA_BIR) + (pba & PCI_MSIX_PBA_OFFSET);
	guest_config_write(g, d->slot, cap + PCI_MSIX_FLAGS, PCI_MSIX_FLAGS_ENABLE, 2);
}

static uint32_t message_data(const struct guest_device *d, unsigned vector)
{
	return d->slot << 8 | vector;
}

static void enable_device(struct guest_device *d)
{
	struct guest *g = d->guest;
	unsigned cap = guest_config_read(g, d->slot, PCI_CAPABILITY_LIST, 1);

	guest_config_write(g, d->slot, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
	for (unsigned n = 0; cap; n++) {
		guest_require(n < 48);
		switch (guest_config_read(g, d->slot, cap, 1)) {
		case PCI_CAP_ID_VNDR:
			probe_virtio_cap(d, cap);
			break;
		case PCI_CAP_ID_MSIX:
			probe_msix(d, cap);
			break;
		}
		cap = guest_config_read(g, d->slot, cap + PCI_CAP_LIST_NEXT, 1);
	}
	for (unsigned i = 0; i < d->nvectors; i++) {
		guest_write(g, d->msix_table + 16 * i, 0xfee00000, 4);
		guest_write(g, d->msix_table + 16 * i + 8, message_data(d, i), 4);
		guest_mask_vector(d, i, false);
	}
}

bool guest_find(struct guest *g, unsigned virtio_id, unsigned nth, struct guest_device *ret)
{
	for (unsigned slot = 0; slot < PCI_SLOTS; slot++) {
		uint32_t id = guest_config_read(g, slot, PCI_VENDOR_ID, 4);

		if (id != (0x1af4 | (0x1040 + virtio_id) << 16) || nth-- > 0)
			continue;
		*ret = (struct guest_device){.guest = g, .slot = slot};
		enable_device(ret);
		guest_require(ret->common && ret->isr && ret->notify && ret->msix_table);
		ret->nqueues = (unsigned)guest_read(g, ret->common + VIRTIO_PCI_COMMON_NUMQ, 2);
		guest_require(ret->nqueues <= VIRTIO_QUEUES_MAX);
		return true;
	}
	return false;
}

void guest_probe(struct guest *g, unsigned virtio_id, unsigned nth, struct guest_device *ret)
{
	guest_require(guest_find(g, virtio_id, nth, ret));
}

/* Set-up */

static void put(struct guest_device *d, unsigned reg, uint64_t value, unsigned len)
{
	guest_write(d->guest, d->common + reg, value, len);
}

static uint32_t get(struct guest_device *d, unsigned reg, unsigned len)
{
	return (uint32_t)guest_read(d->guest, d->common + reg, len);
}

uint8_t guest_status(struct guest_device *d)
{
	return (uint8_t)get(d, VIRTIO_PCI_COMMON_STATUS, 1);
}

void guest_set_status(struct guest_device *d, uint8_t status)
{
	put(d, VIRTIO_PCI_COMMON_STATUS, status, 1);
}

uint64_t guest_offered(struct guest_device *d)
{
	uint64_t low;

	put(d, VIRTIO_PCI_COMMON_DFSELECT, 0, 4);
	low = get(d, VIRTIO_PCI_COMMON_DF, 4);
	put(d, VIRTIO_PCI_COMMON_DFSELECT, 1, 4);
	return low | (uint64_t)get(d, VIRTIO_PCI_COMMON_DF, 4) << 32;
}

bool guest_negotiate(struct guest_device *d, uint64_t wanted)
{
	uint8_t status = VIRTIO_CONFIG_S_ACKNOWLEDGE;

	guest_set_status(d, 0);
	guest_require(guest_status(d) == 0);
	guest_set_status(d, status);
	guest_set_status(d, status |= VIRTIO_CONFIG_S_DRIVER);
	d->features = guest_offered(d) & (wanted | 1ULL << VIRTIO_F_VERSION_1);
	for (unsigned i = 0; i < 2; i++) {
		put(d, VIRTIO_PCI_COMMON_GFSELECT, i, 4);
		put(d, VIRTIO_PCI_COMMON_GF, (uint32_t)(d->features >> 32 * i), 4);
	}
	guest_set_status(d, status |= VIRTIO_CONFIG_S_FEATURES_OK);
	return guest_status(d) == status;
}

static void put_address(struct guest_device *d, unsigned reg, uint64_t gpa)
{
	put(d, reg, (uint32_t)gpa, 4);
	put(d, reg + 4, gpa >> 32, 4);
}

void guest_setup_queue(struct guest_device *d, unsigned index, uint16_t size)
{
	struct guest *g = d->guest;
	struct guest_queue *q = &d->queue[index];

	put(d, VIRTIO_PCI_COMMON_Q_SELECT, index, 2);
	if (size)
		put(d, VIRTIO_PCI_COMMON_Q_SIZE, size, 2);
	*q = (struct guest_queue){.dev = d, .index = index};
	q->size = (uint16_t)get(d, VIRTIO_PCI_COMMON_Q_SIZE, 2);
	guest_require(q->size && (!size || q->size == size));
	q->indirect = d->features >> VIRTIO_RING_F_INDIRECT_DESC & 1;
	q->event_idx = d->features >> VIRTIO_RING_F_EVENT_IDX & 1;
	q->desc = guest_alloc(g, 16ULL * q->size, 16);
	q->avail = guest_alloc(g, 6 + 2ULL * q->size, 2);
	q->used = guest_alloc(g, 6 + 8ULL * q->size, 4);
	memset(guest_at(g, q->avail, 6 + 2ULL * q->size), 0, 6 + 2ULL * q->size);
	memset(guest_at(g, q->used, 6 + 8ULL * q->size), 0, 6 + 8ULL * q->size);
	put_address(d, VIRTIO_PCI_COMMON_Q_DESCLO, q->desc);
	put_address(d, VIRTIO_PCI_COMMON_Q_AVAILLO, q->avail);
	put_address(d, VIRTIO_PCI_COMMON_Q_USEDLO, q->used);
	put(d, VIRTIO_PCI_COMMON_Q_MSIX, index + 1, 2);
	q->doorbell = d->notify + get(d, VIRTIO_PCI_COMMON_Q_NOFF, 2) * d->notify_multiplier;
	put(d, VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
}

void guest_start(struct guest_device *d, uint64_t wanted, uint16_t queue_size)
{
	guest_require(guest_negotiate(d, wanted));
	put(d, VIRTIO_PCI_COMMON_MSIX, 0, 2);
	for (unsigned i = 0; i < d->nqueues; i++)
		guest_setup_queue(d, i, queue_size);
	guest_set_status(d, guest_status(d) | VIRTIO_CONFIG_S_DRIVER_OK);
}

/* Queues */

static uint16_t *ring16(struct guest_queue *q, uint64_t ring, uint64_t offset)
{
	return guest_at(q->dev->guest, ring + offset, 2);
}

void guest_set_desc(struct guest_queue *q, uint16_t i, uint64_t addr, uint32_t len, uint16_t flags,
		    uint16_t next)
{
	struct vring_desc *table = guest_at(q->dev->guest, q->desc, 16ULL * q->size);

	table[i] = (struct vring_desc){.addr = addr, .len = len, .flags = flags, .next = next};
}

void guest_publish(struct guest_queue *q, uint16_t head)
{
	*ring16(q, q->avail, 4 + 2ULL * (q->avail_idx & (q->size - 1u))) = head;
	q->avail_idx++;
	__atomic_store_n(ring16(q, q->avail, 2), q->avail_idx, __ATOMIC_SEQ_CST);
}

static uint16_t take_desc(struct guest_queue *q)
{
	uint16_t i = q->next_desc;

	q->next_desc = (uint16_t)((i + 1) % q->size);
	return i;
}

static uint16_t buf_flags(const struct guest_buf *bufs, unsigned i, unsigned n)
{
	return (uint16_t)((bufs[i].write ? VRING_DESC_F_WRITE : 0) |
			  (i + 1 < n ? VRING_DESC_F_NEXT : 0));
}

uint16_t guest_add(struct guest_queue *q, const struct guest_buf *bufs, unsigned n)
{
	uint16_t head = q->next_desc;

	guest_require(n && n <= q->size);
	for (unsigned i = 0; i < n; i++) {
		uint16_t at = take_desc(q);

		guest_set_desc(q, at, bufs[i].gpa, bufs[i].len, buf_flags(bufs, i, n),
			       q->next_desc);
	}
	guest_publish(q, head);
	return head;
}

uint16_t guest_add_indirect(struct guest_queue *q, const struct guest_buf *bufs, unsigned n)
{
	struct guest *g = q->dev->guest;
	uint64_t gpa = guest_alloc(g, 16ULL * n, 16);
	struct vring_desc *table = guest_at(g, gpa, 16ULL * n);
	uint16_t head = take_desc(q);

	guest_require(q->indirect);
	for (unsigned i = 0; i < n; i++)
		table[i] = (struct vring_desc){.addr = bufs[i].gpa,
					       .len = bufs[i].len,
					       .flags = buf_flags(bufs, i, n),
					       .next = (uint16_t)(i + 1)};
	guest_set_desc(q, head, gpa, 16 * n, VRING_DESC_F_INDIRECT, 0);
	guest_publish(q, head);
	return head;
}

void guest_kick_always(struct guest_queue *q)
{
	q->last_kick = q->avail_idx;
	guest_write(q->dev->guest, q->doorbell, q->index, 2);
}

bool guest_kick(struct guest_queue *q)
{
	uint16_t event = *ring16(q, q->used, 4 + 8ULL * q->size);
	bool wanted = q->event_idx ? vring_need_event(event, q->avail_idx, q->last_kick)
				   : !(*ring16(q, q->used, 0) & VRING_USED_F_NO_NOTIFY);

	q->last_kick = q->avail_idx;
	if (wanted)
		guest_kick_always(q);
	return wanted;
}

void guest_set_used_event(struct guest_queue *q, uint16_t ahead)
{
	*ring16(q, q->avail, 4 + 2ULL * q->size) = (uint16_t)(q->used_idx + ahead);
}

bool guest_used(struct guest_queue *q, struct virtq_used *ret)
{
	struct vring_used_elem *elem;

	if (__atomic_load_n(ring16(q, q->used, 2), __ATOMIC_SEQ_CST) == q->used_idx)
		return false;
	elem = guest_at(q->dev->guest, q->used + 4 + 8ULL * (q->used_idx & (q->size - 1u)), 8);
	*ret = (struct virtq_used){.head = (uint16_t)elem->id, .written = elem->len};
	q->used_idx++;
	/* Interrupt for the next one, as Linux asks by default. */
	guest_set_used_event(q, 0);
	return true;
}

bool guest_wait(struct guest_queue *q, struct virtq_used *ret)
{
	uint64_t end = io_now_ns() + 10000000000ULL;

	while (!guest_used(q, ret)) {
		if (io_now_ns() > end)
			return false;
		loop_run_once(q->dev->guest->vm.loop, 100);
	}
	return true;
}

uint32_t guest_request(struct guest_queue *q, const struct guest_buf *bufs, unsigned n)
{
	struct virtq_used used;
	uint16_t head = guest_add(q, bufs, n);

	guest_kick(q);
	guest_require(guest_wait(q, &used) && used.head == head);
	return used.written;
}

/* Interrupts */

uint64_t guest_interrupts(struct guest_device *d, unsigned vector)
{
	struct guest *g = d->guest;
	uint64_t fired = 0;
	eventfd_t count;

	for (unsigned i = 0; i < GUEST_GSIS; i++) {
		if (!g->gsi[i].used || g->gsi[i].data != message_data(d, vector))
			continue;
		if (g->gsi[i].fd >= 0 && !eventfd_read(g->gsi[i].fd, &count))
			fired += count;
		fired += g->gsi[i].fired;
		g->gsi[i].fired = 0;
	}
	return fired;
}

void guest_mask_vector(struct guest_device *d, unsigned vector, bool mask)
{
	guest_write(d->guest, d->msix_table + 16 * vector + 12,
		    mask ? PCI_MSIX_ENTRY_CTRL_MASKBIT : 0, 4);
}
