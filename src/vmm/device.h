/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_DEVICE_H
#define WISP_VMM_DEVICE_H

/*
 * One description per kind of device: its name and configuration keys (--device, its help
 * and the man page follow from them), its creation, its life and its saved state. The
 * table of all kinds is in devices.c, in boot order.
 */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/state.h"

struct error;
struct store;
struct vm;
struct device;

struct device_key {
	const char *name;
	const char *arg; /* placeholder of the value; NULL: a flag that may stand alone */
	const char *help;
	bool required;
};

#define DEVICE_KEYS_MAX 16

/* What --device KIND,key=value,... said. */
struct device_config {
	const struct device_desc *desc;
	const char *value[DEVICE_KEYS_MAX]; /* by index of desc->keys; NULL: not given */
	char *text; /* the copy they point into, the configuration's to free */
};

struct device_desc {
	const char *name;	       /* "block" */
	const char *summary;	       /* one line */
	const struct device_key *keys; /* ends with {0} */
	unsigned max;		       /* how many of the kind a VM may have */
	/*
	 * Makes the device and puts it on its bus. On success *ret is owned by the VM, which
	 * ends it with ops->destroy. On failure nothing is left and err says why.
	 */
	int (*create)(struct vm *vm, const struct device_config *cfg, struct device **ret,
		      struct error *err);
};

/* The disk behind a device. */
struct device_disk {
	int fd; /* the device's */
	const char *path;
	struct store *store;
	bool readonly;
};

struct device_ops {
	/*
	 * pause: after it returns the device touches neither guest memory nor its back end, and
	 * every request in flight is completed or is back in its queue; the fields of its state
	 * are up to date. resume undoes it. vCPUs are stopped. Either may be NULL.
	 */
	int (*pause)(struct device *dev);
	void (*resume)(struct device *dev);
	/*
	 * The fields of a paused device were replaced by saved ones: checks them (they come from
	 * a file) and rebuilds what follows from them. -EBADMSG with the reason; the device can
	 * then only be destroyed. May be NULL.
	 */
	int (*restored)(struct device *dev, struct error *err);
	/*
	 * The VM is about to run: takes what only one VM may have (a disk); or its state was saved
	 * and may go on elsewhere: lets go of it. -EBUSY when another has it. May be NULL.
	 */
	int (*claim)(struct device *dev, bool claim, struct error *err);
	/*
	 * The disk that the device has: unless it is only read it belongs to the VM beside its
	 * memory and state. False: it has none. May be NULL.
	 */
	bool (*disk)(struct device *dev, struct device_disk *ret);
	/*
	 * vm->dirty was set, or was NULL again: a back end that writes to guest memory by itself
	 * starts, or stops, to log what it writes. May be NULL.
	 */
	void (*log_dirty)(struct device *dev);
	/*
	 * Adds to the object what a device has to have, or to offer, that goes on in its place:
	 * "needs" is a set of bits that "offers" of the other has to have; all else has to be the
	 * same. May be NULL.
	 */
	void (*describe)(struct device *dev, json_t *object);
	/*
	 * NULL when its state can be saved; else why not, and how the VM gets rid of it, for
	 * people. NULL as a whole: it can.
	 */
	const char *(*stays)(const struct device *dev);
	/* Adds the device's counters to the object. May be NULL. */
	void (*stats)(struct device *dev, json_t *object);
	void (*destroy)(struct device *dev);
};

#define DEVICE_PARTS_MAX 16

struct device {
	const struct device_desc *desc;
	const struct device_ops *ops;
	struct vm *vm;
	char id[32]; /* "block0"; unique in the VM; set by the VM before create returns */
	struct state_part part[DEVICE_PARTS_MAX]; /* saved state */
	unsigned nparts;
};

/* Adds a part to the saved state, before create returns. */
static inline void device_add_state(struct device *dev, const char *name,
				    const struct state_field *fields, void *base)
{
	dev->part[dev->nparts++] = (struct state_part){name, fields, base};
}

/* Value of a key, NULL when it was not given. The key must be in the description. */
const char *device_config_get(const struct device_config *cfg, const char *key);

/* Parses "KIND,key=value,..." against the table; *ret keeps pointers into a copy of text. */
int device_config_parse(const char *text, struct device_config *ret, struct error *err);

/* The kinds, ended by NULL, and a description of all of them for --help and man pages. */
extern const struct device_desc *const device_table[];

#endif
