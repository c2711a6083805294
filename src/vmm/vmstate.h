/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_VMSTATE_H
#define WISP_VMM_VMSTATE_H

/*
 * The whole saved state of a VM but its memory, as one blob (docs/formats/vm-state.md): machine,
 * clock, vCPUs, interrupt controllers, devices. Lock: the VM's; the VM is paused.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;
struct vm;

#define VMSTATE_MAGIC "WISPVMST"
#define VMSTATE_VERSION 1

/* Bytes that a state of this VM can have at most. */
size_t vmstate_max(const struct vm *vm);

/*
 * The state as of this pause, made when first asked for: reading it from KVM again would give
 * another one, as timers run on. vm->saved and vm->saved_size, until vmstate_forget().
 */
int vmstate_save(struct vm *vm, struct error *err);
void vmstate_forget(struct vm *vm);

/*
 * Gives a saved state to a VM that has not run. Everything is checked that can be before anything
 * is changed: -EBADMSG for a damaged blob, -EINVAL for one of another machine, -EOPNOTSUPP when
 * this host lacks what the guest has. Whatever fails, the VM can only be ended then.
 */
int vmstate_load(struct vm *vm, const void *data, size_t size, bool elapsed, struct error *err);

#endif
