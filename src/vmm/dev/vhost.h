/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_VHOST_H
#define WISP_VMM_VHOST_H

/*
 * Queues served by the host kernel (vhost-net, vhost-vsock): what both kinds share. The
 * device starts and stops its back end itself, between vhost_start() and vhost_stop().
 * Lock: the VM's.
 */

#include <stdbool.h>
#include <stdint.h>

struct error;
struct loop_source;
struct virtio;

struct vhost {
	int fd; /* -1: none */
	int error_fd;
	uint64_t features; /* what the kernel's side knows */
	struct virtio *dev;
	unsigned nqueues; /* queues 0 to nqueues - 1 of dev are the kernel's */
	struct loop_source *error_source;
	bool running;
	bool logging; /* vm->dirty, as of when the kernel was told last */
};

/* "auto", "on", "off": what the vhost key of a device says; NULL is auto. */
enum vhost_mode { VHOST_AUTO, VHOST_ON, VHOST_OFF };
int vhost_mode_parse(const char *text, enum vhost_mode *ret, struct error *err);

/*
 * Opens /dev/vhost-<kind>. -errno with the reason and the remedy in err. vhost_close()
 * accepts a vhost whose fd is -1.
 */
int vhost_open(struct vhost *vhost, const char *kind, struct error *err);
void vhost_close(struct vhost *vhost);

/* Hands the first nqueues queues of the (active) device over to the kernel. */
int vhost_start(struct vhost *vhost, struct virtio *dev, unsigned nqueues, struct error *err);

/*
 * Takes the queues back, with their indices, after the back end was stopped: the kernel does
 * not touch guest memory any more. Nothing happens when it was not started.
 */
void vhost_stop(struct vhost *vhost);

/*
 * Starts or stops to log what the kernel writes for a running device, as vm->dirty says;
 * vhost_start() does so by itself.
 */
void vhost_log_dirty(struct vhost *vhost);

/* An ioctl with a pointer, or with a pointer to an integer; 0 or -errno. */
int vhost_call(const struct vhost *vhost, unsigned long request, const void *arg);
int vhost_set(const struct vhost *vhost, unsigned long request, uint64_t value);

#endif
