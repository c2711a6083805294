/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMS_VMMARGS_H
#define WISP_VMS_VMMARGS_H

/*
 * From the description of a VM (vm.json) to the command line of its wisp-vmm. What the
 * values mean is wisp-vmm's business, and so is refusing bad ones.
 */

#include <jansson.h>
#include <stdbool.h>

struct args;
struct error;

#define VMM_FD_TAP 3
#define VMM_FD_SHARE 4 /* connection to the virtiofsd of the first share, and so on */

/*
 * dir is the VM's state directory, hosts "name=address,...". incoming: without a kernel, for a
 * saved state to be loaded. Returns 0; -EINVAL when a value cannot be passed on; running out of
 * memory is left in args.
 */
int vmm_args(const json_t *config, const char *program, const char *dir, const char *hosts,
	     bool incoming, struct args *args, struct error *err);

#endif
