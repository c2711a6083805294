/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_VFIO_GROUP_H
#define WISP_VMM_VFIO_GROUP_H

/*
 * What the kernel's VFIO needs once for a VM, whatever devices of the host it has: a container,
 * in which the devices see guest memory at the guest's addresses, and the devices' IOMMU groups.
 * All of guest memory is pinned from the first device to the last. Lock: the VM's, or before it
 * runs. Interface: Documentation/driver-api/vfio.rst and linux/vfio.h of Linux 6.1.
 */

#include <stdint.h>

struct error;
struct vm;

#define VFIO_ADDRESS_SIZE 13 /* "0000:81:00.1" */

/*
 * Opens the device at a PCI address (with its domain). group: an inherited descriptor of its
 * /dev/vfio/GROUP, which stays the caller's; -1: that file is opened. Returns the device's
 * descriptor, for vfio_close(); -errno with what is missing and how to get it.
 */
int vfio_open(struct vm *vm, const char *address, int group, struct error *err);

/* Closes it; with the last device guest memory is no longer pinned. */
void vfio_close(struct vm *vm, int device);

/* A slot of KVM's memory table for a part of a BAR; there is one for each there can be. */
uint32_t vfio_slot(struct vm *vm);

#endif
