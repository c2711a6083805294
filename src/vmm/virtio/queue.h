/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_VIRTIO_QUEUE_H
#define WISP_VMM_VIRTIO_QUEUE_H

/* What the rings (queue.c) and the transport (pci.c) need of each other. Lock: the VM's. */

struct error;
struct virtq;

/*
 * Checks and translates the ring addresses of an enabled queue. -EINVAL with the reason.
 * virtq_stop() forgets them; from then on the queue is empty and takes nothing.
 */
int virtq_start(struct virtq *q, struct error *err);
void virtq_stop(struct virtq *q);

/* Raises the queue's interrupt. */
void virtio_interrupt(struct virtq *q);

#endif
