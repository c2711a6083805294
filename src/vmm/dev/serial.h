/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_SERIAL_H
#define WISP_VMM_SERIAL_H

/* The 16550A console at port 0x3f8, interrupt pin 4. */

struct chardev;
struct error;
struct vm;

#define SERIAL_PORT 0x3f8
#define SERIAL_IRQ 4

extern const struct device_desc serial_desc;

/* Creates it with the back end that spec names (see chardev.h); the VM owns it. */
int serial_create(struct vm *vm, const char *spec, struct error *err);

/* The back end, for the control socket's console command. */
struct chardev *serial_chardev(struct vm *vm);

#endif
