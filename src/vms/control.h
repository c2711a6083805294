/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMS_CONTROL_H
#define WISP_VMS_CONTROL_H

/* The control socket of a VM's wisp-vmm. dir is the VM's state directory. */

#include <jansson.h>
#include <sys/types.h>

struct error;

/*
 * Sends a command without arguments and waits some seconds for its result, a new reference in
 * *ret. *pid is the VMM's process id. ret and pid may be NULL. 0 or -errno.
 */
int control_call(const char *dir, const char *command, json_t **ret, pid_t *pid, struct error *err);

/* The serial console: a connected descriptor (CLOEXEC) that the caller owns, or -errno. */
int control_console(const char *dir, struct error *err);

#endif
