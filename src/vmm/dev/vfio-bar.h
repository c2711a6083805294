/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_VFIO_BAR_H
#define WISP_VMM_VFIO_BAR_H

/*
 * A memory BAR of a host's device as a BAR of the guest's: what the kernel lets us map is the
 * guest's own memory, without exits; the rest is read and written for it. Lock: the VM's.
 */

#include <stdint.h>

struct error;
struct pci_function;

#define VFIO_BAR_AREAS 8

struct vfio_area {
	uint64_t at, size; /* in the BAR, bytes */
	void *host;	   /* where it is mapped here */
	uint32_t slot;	   /* of KVM */
};

struct vfio_bar {
	struct pci_function *fn;
	int device;	       /* descriptor, the device's */
	uint64_t offset, size; /* in that file, bytes */
	struct vfio_area area[VFIO_BAR_AREAS];
	unsigned nareas;
};

/*
 * Makes fn's BAR index of the device's, before pci_add(). Nothing when the device has no such
 * memory BAR. A BAR of 64 bits becomes one of 32. -E2BIG when there is no room for it.
 */
int vfio_bar_create(struct vfio_bar *bar, struct pci_function *fn, int device, unsigned index,
		    struct error *err);

/* Behind pci_remove(). */
void vfio_bar_destroy(struct vfio_bar *bar);

#endif
