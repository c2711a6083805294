/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_MSIX_H
#define WISP_VMM_MSIX_H

/*
 * MSI-X of one function. Each vector has an eventfd: who wants to interrupt signals it (we,
 * vhost, VFIO). While the vector can fire it is connected to a GSI as irqfd; while it is
 * masked it is not, and signals stay in the eventfd's counter, which is the pending bit.
 * Lock: the VM's, except msix_signal() and msix_eventfd().
 */

#include <stdint.h>

struct error;
struct pci_function;
struct msix;

/*
 * Adds the capability; table and pending bits share the BAR bar, at offset 0 and 2048.
 * 1 <= nvectors <= 64. The function owns the result.
 */
int msix_create(struct pci_function *fn, unsigned bar, unsigned nvectors, struct error *err);
void msix_destroy(struct msix *msix);

/* All masked, function disabled, nothing pending. */
void msix_reset(struct msix *msix);

/* Raises the vector (nothing for 0xffff, VIRTIO_MSI_NO_VECTOR, or one out of range). Any thread. */
void msix_signal(struct msix *msix, uint16_t vector);

/* The vector's eventfd, for vhost and VFIO; -1 for none. Owned by msix. */
int msix_eventfd(struct msix *msix, uint16_t vector);

unsigned msix_count(const struct msix *msix);

#endif
