/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_VHOST_USER_H
#define WISP_VMM_VHOST_USER_H

/*
 * Queues served by another program that maps guest memory (QEMU's docs/interop/vhost-user.rst is
 * the protocol's specification): this is the front end. As vhost.h is to the host's kernel. The
 * other program is trusted with the guest's memory, and with nothing else: it may be slow, die or
 * say nonsense, and each call ends within VHOST_USER_PATIENCE_S then. Lock: the VM's.
 */

#include <stdbool.h>
#include <stdint.h>

struct error;
struct loop_source;
struct virtio;

#define VHOST_USER_PATIENCE_S 10

struct vhost_user {
	int fd; /* connection; -1: none, or it has ended */
	int error_fd;
	uint64_t features; /* what the other side knows, of virtio */
	struct virtio *dev;
	unsigned nqueues; /* queues 0 to nqueues - 1 of dev are the other side's */
	struct loop_source *source, *error_source;
	bool running;
};

/*
 * Takes the connected socket, also when it fails, and learns what the other side can do.
 * vhost_user_close() accepts one whose fd is -1.
 */
int vhost_user_open(struct vhost_user *v, int fd, struct error *err);
void vhost_user_close(struct vhost_user *v);

/* Hands the first nqueues queues of the (active) device over. */
int vhost_user_start(struct vhost_user *v, struct virtio *dev, unsigned nqueues, struct error *err);

/*
 * Takes them back: the other side has finished its requests and does not touch guest memory any
 * more. -errno when it did not say so: then it is disconnected, and the device is broken. Nothing
 * happens when it was not started.
 */
int vhost_user_stop(struct vhost_user *v);

#endif
