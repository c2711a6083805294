/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_PCI_H
#define WISP_VMM_PCI_H

/*
 * PCI Express with one root bus: functions on bus 0, configuration space by ECAM, and by the
 * ports of old (0xcf8, 0xcfc) for kernels that have not read the ACPI tables yet.
 * Addresses of BARs are given when a function is added (there is no firmware), and follow
 * the guest when it moves them. Lock: the VM's.
 */

#include <stdbool.h>
#include <stdint.h>

#include "vmm/bus.h"

struct device;
struct error;
struct msix;
struct vm;

#define PCI_ECAM_BASE 0xe0000000ULL /* 256 MiB are reserved, bus 0 (1 MiB) is decoded */
#define PCI_ECAM_SIZE 0x10000000ULL
#define PCI_MMIO_BASE 0xc0000000ULL /* window of 32-bit BARs, as DSDT's _CRS says */
#define PCI_MMIO_SIZE 0x20000000ULL
#define PCI_CONFIG_SIZE 256 /* what functions have; the extended space reads as zero */
#define PCI_SLOTS 32	    /* functions 0 of bus 0; the host bridge is in slot 0 */

struct pci_bar {
	uint64_t size; /* power of two, 0: none */
	uint64_t addr; /* where it is mapped now; meaningful while mapped */
	const struct bus_ops *ops;
	void *dev;
	bool mapped;
	/* Told after the BAR was mapped or unmapped (ioeventfds move with it). May be NULL. */
	void (*moved)(void *dev, uint64_t addr, bool mapped);
};

struct pci_function {
	struct vm *vm;
	const char *name; /* for logs, lives as long as the function */
	uint8_t slot;	  /* device number on bus 0; set by pci_add() */
	uint8_t config[PCI_CONFIG_SIZE];
	uint8_t writable[PCI_CONFIG_SIZE]; /* bits the guest may change */
	uint8_t power_on[PCI_CONFIG_SIZE]; /* copy of config, taken by pci_add() */
	struct pci_bar bar[6];		   /* memory BARs, 32 bits */
	uint16_t cap_end;		   /* where the next capability goes */
	uint8_t cap_last;		   /* offset of the last capability's header, 0: none */
	unsigned complaints;		   /* log lines the guest caused */
	struct msix *msix;		   /* or NULL */
	/*
	 * Called for accesses that touch [hook_start, hook_end) of the configuration space:
	 * before a read, to bring config up to date, and after a write was stored there.
	 */
	uint16_t hook_start, hook_end;
	void (*config_read)(struct pci_function *fn, unsigned offset, unsigned len);
	void (*config_write)(struct pci_function *fn, unsigned offset, unsigned len);
};

int pci_host_create(struct vm *vm, struct error *err);
void pci_host_destroy(struct vm *vm);

/*
 * Saved state of the host and its bridge: fills PCI_HOST_PARTS parts; checks and applies what
 * came back (-EBADMSG).
 */
#define PCI_HOST_PARTS 2
struct state_part;
void pci_host_parts(struct vm *vm, struct state_part *ret);
int pci_host_restored(struct vm *vm, struct error *err);

/* Prepares the header: ids, class code (24 bits), revision; type 0, capabilities list empty. */
void pci_function_init(struct pci_function *fn, struct vm *vm, const char *name, uint16_t vendor,
		       uint16_t device, uint16_t subsystem, uint32_t class_code, uint8_t revision);

/* Reserves size bytes in the capability list; returns the offset of the header, -ENOSPC. */
int pci_add_capability(struct pci_function *fn, uint8_t id, uint8_t size);

/*
 * Puts the function in the next free slot, with an address for each BAR whose size, ops and
 * dev are set. They are mapped when the guest enables memory decoding. -ENOSPC when the bus or
 * the window is full. pci_remove() undoes it and frees the MSI-X; nothing for one not added.
 */
int pci_add(struct pci_function *fn, struct error *err);
void pci_remove(struct pci_function *fn);

/* Saved state: the parts of a function, what to do before they are saved, and after they came
 * back (see device_ops.pause and .restored). */
void pci_add_state(struct pci_function *fn, struct device *dev);
void pci_pause(struct pci_function *fn);
int pci_restored(struct pci_function *fn, struct error *err);

#endif
