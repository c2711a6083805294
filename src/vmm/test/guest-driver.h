/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_TEST_GUEST_DRIVER_H
#define WISP_VMM_TEST_GUEST_DRIVER_H

/*
 * A guest for unit tests, without /dev/kvm: a struct vm with memory, buses, PCI host and event
 * loop, in which KVM's part (irqfds, ioeventfds) is played by fakes.c, and a virtio driver that
 * finds devices by PCI probing and works their queues through MMIO and guest memory, as Linux
 * does. What must hold for the test to make sense is checked with guest_require(), which
 * aborts.
 *
 *     struct guest g;
 *     guest_create(&g);
 *     ... create the device on &g.vm ...
 *     struct guest_device d;
 *     guest_probe(&g, VIRTIO_ID_RNG, 0, &d);
 *     guest_start(&d, all features offered or a mask, queue size);
 *     guest_add(&d.queue[0], bufs, n); guest_kick(&d.queue[0]);
 *     guest_wait(&d.queue[0], &used);
 *     guest_destroy(&g);     (destroys the devices first)
 */

#include <stdbool.h>
#include <stdint.h>

#include "vmm/virtio/virtio.h"
#include "vmm/vm.h"
#include "vmm/x86/cpustate.h"

#define GUEST_GSIS 64
#define GUEST_DEVICES 32
#define GUEST_CPUS 2
/* RAM is two regions, as in large guests: [0, 12 MiB) and [4 GiB, 4 GiB + 4 MiB). */
#define GUEST_RAM (16ULL << 20)
#define GUEST_LOW (12ULL << 20)

struct guest {
	struct vm vm;
	uint64_t next; /* guest_alloc() */
	/* What KVM would hold. */
	struct {
		bool used;
		uint64_t addr;
		uint32_t data;
		int fd; /* attached, else -1 */
		uint64_t fired;
	} gsi[GUEST_GSIS];
	unsigned gsis_max; /* to test running out; GUEST_GSIS at first */
	struct {
		uint64_t addr;
		int fd;
	} ioeventfd[GUEST_DEVICES * VIRTIO_QUEUES_MAX];
	unsigned nioeventfds;
	bool no_ioeventfd;	   /* vm_ioeventfd() fails, writes reach the device */
	unsigned pulses[IRQ_PINS]; /* of irq_pulse() */
	unsigned irq_updates;	   /* calls of irq_update() */
	bool paused;
	int pause_result; /* of vm_pause() */
	struct device *devices[GUEST_DEVICES];
	/* What vmstate.c moves, and how often. */
	struct cpu_state cpu[GUEST_CPUS];
	struct cpuid offered;
	bool cpu_refused; /* cpustate_set() fails */
	unsigned cpu_sets, clocks;
	uint32_t memory_flags; /* of vm_map_memory() */
	uint64_t held_ns;      /* of vcpu_hold() */
};

#define guest_require(cond) ((cond) ? (void)0 : guest_failed(__FILE__, __LINE__, #cond))
_Noreturn void guest_failed(const char *file, int line, const char *what);

void guest_create(struct guest *g);
void guest_destroy(struct guest *g);

/* Guest memory: never given back. Addresses stay below GUEST_LOW. */
uint64_t guest_alloc(struct guest *g, uint64_t size, uint64_t align);
void *guest_at(struct guest *g, uint64_t gpa, uint64_t size);

/* MMIO as the CPU does it. Writes that an ioeventfd takes do not reach the device. */
uint64_t guest_read(struct guest *g, uint64_t addr, unsigned len);
void guest_write(struct guest *g, uint64_t addr, uint64_t value, unsigned len);
uint32_t guest_config_read(struct guest *g, unsigned slot, unsigned reg, unsigned len);
void guest_config_write(struct guest *g, unsigned slot, unsigned reg, uint32_t value, unsigned len);

/* Dispatches events that are ready, until there are none. */
void guest_run(struct guest *g);

/* The driver's side of a split queue. */
struct guest_queue {
	struct guest_device *dev;
	unsigned index;
	uint16_t size;
	uint64_t desc, avail, used; /* guest physical addresses */
	uint64_t doorbell;
	uint16_t next_desc; /* round robin; the test does not overfill the queue */
	uint16_t avail_idx; /* next entry we fill */
	uint16_t last_kick; /* avail_idx at the last kick decision */
	uint16_t used_idx;  /* next entry we look at */
	bool indirect, event_idx;
};

struct guest_device {
	struct guest *guest;
	unsigned slot;
	uint64_t common, isr, config, notify; /* addresses of the register regions */
	uint32_t config_size, notify_multiplier;
	uint64_t msix_table, msix_pba;
	unsigned window; /* offset of the PCI_CFG capability */
	unsigned nvectors, nqueues;
	uint64_t features; /* accepted */
	struct guest_queue queue[VIRTIO_QUEUES_MAX];
};

/* Finds the nth (from 0) device of a virtio id, enables it and MSI-X, all vectors unmasked. */
bool guest_find(struct guest *g, unsigned virtio_id, unsigned nth, struct guest_device *ret);
void guest_probe(struct guest *g, unsigned virtio_id, unsigned nth, struct guest_device *ret);

uint8_t guest_status(struct guest_device *d);
void guest_set_status(struct guest_device *d, uint8_t status);
uint64_t guest_offered(struct guest_device *d);
/* Reset up to FEATURES_OK, with the offered features that are in wanted. False: refused. */
bool guest_negotiate(struct guest_device *d, uint64_t wanted);
/* Sets up a queue (vector index + 1) with new rings; size 0: the device's maximum. */
void guest_setup_queue(struct guest_device *d, unsigned index, uint16_t size);
/* All of it: negotiation, every queue, configuration vector 0, DRIVER_OK. */
void guest_start(struct guest_device *d, uint64_t wanted, uint16_t queue_size);

struct guest_buf {
	uint64_t gpa;
	uint32_t len;
	bool write; /* by the device */
};

/* Makes a chain available, in an indirect table if so negotiated and asked. Its head. */
uint16_t guest_add(struct guest_queue *q, const struct guest_buf *bufs, unsigned n);
uint16_t guest_add_indirect(struct guest_queue *q, const struct guest_buf *bufs, unsigned n);
/* Pieces of it, for tests of bad rings. */
void guest_set_desc(struct guest_queue *q, uint16_t i, uint64_t addr, uint32_t len, uint16_t flags,
		    uint16_t next);
void guest_publish(struct guest_queue *q, uint16_t head);

/* Notifies the device if it wants that; true when it did. guest_kick_always() does anyway. */
bool guest_kick(struct guest_queue *q);
void guest_kick_always(struct guest_queue *q);

/* The next used entry, if there is one; wait: dispatches events up to 10 s for it. */
bool guest_used(struct guest_queue *q, struct virtq_used *ret);
bool guest_wait(struct guest_queue *q, struct virtq_used *ret);
/* Interrupts only when the used index passes this many entries from now (EVENT_IDX). */
void guest_set_used_event(struct guest_queue *q, uint16_t ahead);

/* Adds buffers, kicks, waits; the length the device says it wrote. Aborts without an answer. */
uint32_t guest_request(struct guest_queue *q, const struct guest_buf *bufs, unsigned n);

/* How often the vector has interrupted since the last call. */
uint64_t guest_interrupts(struct guest_device *d, unsigned vector);
void guest_mask_vector(struct guest_device *d, unsigned vector, bool mask);

#endif
