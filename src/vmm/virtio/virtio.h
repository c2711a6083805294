/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_VIRTIO_H
#define WISP_VMM_VIRTIO_H

/*
 * Virtio 1.x over PCI ("the specification" below is virtio 1.2, OASIS). A device kind is a
 * struct virtio_class; the transport (pci.c) owns status, feature negotiation, queue set-up,
 * notifications and interrupts, the rings are queue.c. Whatever the guest writes is checked
 * here: a bad index, loop, length or address ends in virtio_broken(), never in the process.
 * Lock: the VM's for everything.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "vmm/device.h"
#include "vmm/pci/pci.h"

struct virtio;
struct loop_source;

#define VIRTIO_QUEUES_MAX 8
#define VIRTQ_SIZE_MAX 1024
#define VIRTIO_VECTOR_NONE 0xffff

/* A split virtqueue (specification 2.7). Fields before the blank line are saved state. */
struct virtq {
	uint64_t desc, avail, used; /* guest physical addresses */
	uint16_t size;		    /* entries, power of two <= max */
	uint16_t vector;	    /* MSI-X, VIRTIO_VECTOR_NONE: no interrupt */
	uint8_t enabled;
	uint16_t next_avail; /* next entry of the available ring we take */
	uint16_t next_used;  /* next entry of the used ring we fill */
	uint16_t signalled;  /* used index at the last interrupt decision (EVENT_IDX) */

	uint16_t max; /* largest size we offer */
	uint16_t index;
	int kick_fd;  /* signalled by KVM when the guest notifies the queue */
	bool watched; /* the loop is to watch kick_fd while the device runs */
	struct loop_source *kick_source;
	struct virtio *dev;
	/* Checked host addresses of the rings, valid while the device is active. */
	void *desc_host, *avail_host, *used_host;
	uint64_t kicks, interrupts, requests; /* counters */
};

/* One request: a descriptor chain translated to host addresses. */
#define VIRTQ_IOV_MAX 256
struct virtq_chain {
	uint16_t head;
	uint16_t nread;	 /* iov[0..nread): the device reads */
	uint16_t nwrite; /* iov[nread..nread+nwrite): the device writes */
	uint32_t read_bytes, write_bytes;
	struct iovec iov[VIRTQ_IOV_MAX];
	uint64_t gpa[VIRTQ_IOV_MAX]; /* of each iov, for the dirty bitmap */
};

struct virtio_class {
	uint16_t id; /* virtio device id (specification 5) */
	const char *name;
	uint32_t pci_class;
	/* All functions but kick and destroy may be NULL (config_read without a config_size). */

	/* Device features beside VERSION_1, EVENT_IDX, INDIRECT_DESC, which the transport adds. */
	uint64_t (*features)(struct virtio *dev);
	/* Device configuration space; offset + len <= config_size. */
	void (*config_read)(struct virtio *dev, unsigned offset, void *data, unsigned len);
	void (*config_write)(struct virtio *dev, unsigned offset, const void *data, unsigned len);
	/*
	 * The driver set DRIVER_OK: features (dev->features) and queues are final; which queues it
	 * enabled is for the device to check. A failure makes the device broken (deactivate is not
	 * called then). Kicks that came before are delivered after this.
	 */
	int (*activate)(struct virtio *dev, struct error *err);
	/* After activate and before pause, when the device continues from saved state. */
	void (*restored)(struct virtio *dev);
	/* Back to before activate: stop using queues, drop or finish all requests in flight. */
	void (*deactivate)(struct virtio *dev);
	/* The guest notified the queue (not called for queues handed to vhost). */
	void (*kick)(struct virtio *dev, struct virtq *q);
	/* See device_ops; called while the device is active. */
	int (*pause)(struct virtio *dev);
	void (*resume)(struct virtio *dev);
	/* See device_ops; also while the device is not active. */
	int (*claim)(struct virtio *dev, bool claim, struct error *err);
	bool (*disk)(struct virtio *dev, struct device_disk *ret);
	void (*log_dirty)(struct virtio *dev);
	void (*describe)(struct virtio *dev, json_t *object);
	const char *(*stays)(const struct virtio *dev);
	void (*stats)(struct virtio *dev, json_t *object);
	void (*destroy)(struct virtio *dev); /* frees the object that embeds dev */
	/* Saved state of that object, offsets from the virtio's start. */
	const struct state_field *state;
};

struct virtio {
	struct device device; /* first: the VM's view */
	const struct virtio_class *cls;
	struct pci_function fn;
	unsigned nqueues;
	unsigned config_size;
	struct virtq queue[VIRTIO_QUEUES_MAX];

	/* Saved state of the transport. */
	uint64_t features; /* accepted by the driver */
	uint32_t feature_select, driver_feature_select;
	uint16_t queue_select, config_vector;
	uint8_t status, config_generation, isr;

	bool active; /* between activate and deactivate */
	bool broken; /* DEVICE_NEEDS_RESET was set */
	bool paused;
	unsigned breaks; /* how often it was broken */
};

/*
 * Puts a device on the PCI bus: dev is embedded first in the caller's zeroed object, with cls,
 * nqueues, config_size and queue[].max set. Adds it to the VM (dev->device.id is set).
 */
int virtio_create(struct virtio *dev, struct vm *vm, const struct device_desc *desc,
		  struct error *err);

/*
 * The guest broke the contract: sets DEVICE_NEEDS_RESET and logs why. From here on kicks are
 * not delivered, virtq_pop() fails and what is pushed vanishes, until the driver resets the
 * device (deactivate is called then, not now: callers may be deep in the device's code).
 */
void virtio_broken(struct virtio *dev, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The device's configuration changed: raises the configuration interrupt. */
void virtio_config_changed(struct virtio *dev);

static inline bool virtio_has(const struct virtio *dev, unsigned feature_bit)
{
	return dev->features >> feature_bit & 1;
}

/*
 * For vhost: stops (restarts) the loop from watching the queue's kick_fd, and the eventfd to
 * hand to vhost as call fd (-1: the driver set no vector).
 */
void virtq_watch_kick(struct virtq *q, bool on);
int virtq_call_fd(struct virtq *q);

/*
 * For queues that others serve, the host's kernel or another program, the first n of the device:
 * whether the driver enabled them (-EINVAL); they are theirs from now on; and ours again, one by
 * one, after they have stopped, when next_avail says how far they came.
 */
int virtio_check_enabled(const struct virtio *dev, unsigned n, struct error *err);
void virtio_hand_over(struct virtio *dev, unsigned n);
void virtq_take_back(struct virtq *q);

/*
 * As if the guest notified the queue: kick() is called later, from the loop. For devices that
 * stop in the middle of a long queue to let others run. Any thread.
 */
void virtq_kick(struct virtq *q);

/*
 * Takes the next request. Returns 1 (chain filled), 0 (none; kicks are not re-enabled) or
 * -EPROTO (the guest broke the rules, the device is broken now). A chain must be given back
 * with virtq_push() or, if untouched and the last popped, virtq_unpop().
 */
int virtq_pop(struct virtq *q, struct virtq_chain *chain);
void virtq_unpop(struct virtq *q, uint16_t n);
bool virtq_has_work(struct virtq *q);

/*
 * Asks the guest to notify (or not). virtq_enable_kicks() returns true when requests arrived in
 * between: look again. The pattern:
 *     do { virtq_disable_kicks(q); while (virtq_pop(q, c) > 0) ...; } while
 * (virtq_enable_kicks(q));
 */
void virtq_disable_kicks(struct virtq *q);
bool virtq_enable_kicks(struct virtq *q);

/*
 * Gives a request back: written bytes of its writable part were filled (marks them dirty and
 * puts it in the used ring). virtq_push_id() is for requests whose chain is no longer held and
 * whose writes were marked by the caller. virtq_notify() interrupts if the guest wants it.
 */
void virtq_push(struct virtq *q, const struct virtq_chain *chain, uint32_t written);
void virtq_push_id(struct virtq *q, uint16_t head, uint32_t written);
void virtq_notify(struct virtq *q);

/*
 * For mergeable receive buffers: fills n used entries that become visible to the guest at once.
 */
struct virtq_used {
	uint16_t head;
	uint32_t written;
};
void virtq_push_many(struct virtq *q, const struct virtq_used *used, unsigned n);

/* Copies between a chain's readable (writable) bytes and a buffer, from byte offset; number copied.
 */
size_t virtq_chain_read(const struct virtq_chain *chain, size_t offset, void *buf, size_t len);
size_t virtq_chain_write(const struct virtq_chain *chain, size_t offset, const void *buf,
			 size_t len);

#endif
