/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_THROTTLE_H
#define WISP_VMM_THROTTLE_H

/*
 * Slows vCPUs down: each is kept out of the guest for a share of its time, for a migration that
 * cannot keep up with what the guest writes. Lock: the VM's, event thread.
 */

#include <stdbool.h>
#include <stdint.h>

struct error;
struct vm;

#define THROTTLE_MAX 99

/* percent[i] of vCPU i's time, 0 to THROTTLE_MAX; all 0 ends it. 0 or -errno. */
int throttle_set(struct vm *vm, const uint8_t *percent, const void *owner, struct error *err);
void throttle_stop(struct vm *vm);
bool throttle_owned_by(const struct vm *vm, const void *owner);

#endif
