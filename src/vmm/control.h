/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_CONTROL_H
#define WISP_VMM_CONTROL_H

/*
 * The control socket (docs/formats/control.md): one JSON request and one JSON answer a line.
 * The peer must be the VMM's own user or root, by the kernel's word.
 */

struct control;
struct error;
struct vm;

#define CONTROL_VERSION 1

int control_create(struct vm *vm, const char *path, struct control **ret, struct error *err);
void control_destroy(struct control *control);

#endif
