/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_CHARDEV_H
#define WISP_VMM_CHARDEV_H

/*
 * The host end of a console: standard input and output, a UNIX socket that one client at a
 * time may use, or a file (output alone; a client can still be adopted beside it). The last bytes
 * of output are kept and replayed to who connects. Output never blocks the guest: what a slow or
 * absent reader cannot take is dropped. Input is given on only while the guest side takes it. Lock:
 * the VM's.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct chardev;
struct error;
struct loop;

#define CHARDEV_HELP "stdio, socket=PATH, file=PATH or none"

struct chardev_ops {
	/* How many bytes of input can be taken now. */
	size_t (*room)(void *arg);
	/* Input, at most what room said. */
	void (*input)(void *arg, const uint8_t *data, size_t len);
};

/* Makes the back end that spec (CHARDEV_HELP) names. *ret is the caller's. */
int chardev_create(const char *spec, struct loop *loop, const struct chardev_ops *ops, void *arg,
		   struct chardev **ret, struct error *err);
void chardev_destroy(struct chardev *chardev);

void chardev_output(struct chardev *chardev, const uint8_t *data, size_t len);

/* The guest side has room again after room() said 0. */
void chardev_input_ready(struct chardev *chardev);

/* Hands a connected stream socket over as the new client; the old one is closed. Takes fd. */
int chardev_adopt(struct chardev *chardev, int fd);

#endif
