/* SPDX-License-Identifier: Apache-2.0 */
/* KVM's own counters of a vCPU. */

#include "vmm/vcpustats.h"

#include "vmm/kvmstats.h"
#include "vmm/vcpu.h"

void vcpustats_open(struct vcpu *v)
{
	v->stats_fd = kvmstats_open(v->fd);
}

int vcpustats_faults(const struct vcpu *v, uint64_t *ret)
{
	static const char *const names[] = {"pf_taken", "pf_guest"};
	uint64_t count[2] = {0};
	int r = kvmstats_read(v->stats_fd, 2, names, count);

	if (r < 0)
		r = kvmstats_read(v->stats_fd, 1, names, count);
	if (r < 0)
		return r;
	/* Without nested paging some are the guest's own. */
	*ret = count[0] > count[1] ? count[0] - count[1] : 0;
	return 0;
}
