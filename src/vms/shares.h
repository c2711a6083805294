/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMS_SHARES_H
#define WISP_VMS_SHARES_H

/*
 * The folders of this machine that a VM has ("shares" of its description): a virtiofsd each, which
 * ends with the VM's wisp-vmm. On the keeper's thread.
 */

#include <sys/types.h>

struct error;
struct vm;

#define SHARES_MAX 8

/* Starts them; fds get the connections for wisp-vmm, the caller's to close. Their number or -errno.
 */
int shares_start(struct vm *vm, int fds[SHARES_MAX], struct error *err);

/* Ends those that have not ended by themselves. */
void shares_stop(struct vm *vm);

/* A process has ended: forgets it when it was one of them. */
void shares_ended(struct vm *vm, pid_t pid);

#endif
