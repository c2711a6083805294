/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMS_LAUNCH_H
#define WISP_VMS_LAUNCH_H

struct error;
struct vm;

/*
 * Starts the wisp-vmm of a VM whose description is complete and whose tap is open, and its greeter:
 * vm->vmm and vm->greeter. On failure vm->vmm may run already. 0 or -errno.
 */
int launch_vm(struct vm *vm, struct error *err);

#endif
