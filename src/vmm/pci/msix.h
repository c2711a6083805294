/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_MSIX_H
#define WISP_VMM_MSIX_H

/*
 * MSI-X of one function. Each vector has an eventfd: who wants to interrupt signals it (we,
 * vhost, VFIO). While the vector can fire it is connected to a GSI as irqfd; while it is
 * masked it is not, and signals stay in the eventfd's counter, which is the pending bit.
 * Lock: the VM's, except msix_signal() and msix_eventfd().
 */

#include <stdbool.h>
#include <stdint.h>

#include "vmm/state.h"

struct error;
struct msix;
struct pci_function;

/*
 * Adds the capability; table and pending bits share the BAR bar, at offset 0 and 2048.
 * 1 <= nvectors <= 64. The function owns the result (fn->msix). Before pci_add().
 */
int msix_create(struct pci_function *fn, unsigned bar, unsigned nvectors, struct error *err);
void msix_destroy(struct msix *msix);

/* Raises the vector (nothing for 0xffff, VIRTIO_MSI_NO_VECTOR, or one out of range). Any thread. */
void msix_signal(struct msix *msix, uint16_t vector);

/* The vector's eventfd, for vhost and VFIO; -1 for none. Owned by msix. */
int msix_eventfd(struct msix *msix, uint16_t vector);

unsigned msix_count(const struct msix *msix);

/* The function's capability has MSI-X enabled (else there are no interrupts at all). */
bool msix_enabled(const struct msix *msix);

/* For host.c: offset of the message control register, and that the guest wrote it. */
unsigned msix_control_offset(const struct msix *msix);
void msix_control_written(struct msix *msix);

/* Saved state: table and pending bits. msix_pause() collects the latter from the eventfds. */
extern const struct state_field msix_state[];
void msix_pause(struct msix *msix);
int msix_restored(struct msix *msix, struct error *err);

#endif
