/* SPDX-License-Identifier: Apache-2.0 */
/* KVM's own counters of a vCPU. */

#include "vmm/vcpustats.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "vmm/vcpu.h"

#define DESCRIPTIONS_MAX 1024u
#define NAME_MAX_ 256u

void vcpustats_open(struct vcpu *v)
{
	v->stats_fd = ioctl(v->fd, KVM_GET_STATS_FD, NULL);
}

/* A counter by its name. 0 or -ENOTSUP. */
static int read_counter(int fd, const struct kvm_stats_header *head, const uint8_t *descriptions,
			const char *name, uint64_t *ret)
{
	size_t size = sizeof(struct kvm_stats_desc) + head->name_size;

	for (uint32_t i = 0; i < head->num_desc; i++) {
		struct kvm_stats_desc desc;
		const char *text = (const char *)descriptions + i * size + sizeof(desc);

		if (strncmp(text, name, head->name_size) != 0)
			continue;
		memcpy(&desc, descriptions + i * size, sizeof(desc));
		if (pread(fd, ret, sizeof(*ret), (off_t)head->data_offset + desc.offset) ==
		    sizeof(*ret))
			return 0;
	}
	return -ENOTSUP;
}

int vcpustats_faults(const struct vcpu *v, uint64_t *ret)
{
	CLEANUP_FREE uint8_t *descriptions = NULL;
	struct kvm_stats_header head;
	uint64_t taken = 0, passed_on = 0;
	size_t bytes;

	if (v->stats_fd < 0 || pread(v->stats_fd, &head, sizeof(head), 0) != sizeof(head) ||
	    head.num_desc > DESCRIPTIONS_MAX || head.name_size > NAME_MAX_)
		return -ENOTSUP;
	bytes = head.num_desc * (sizeof(struct kvm_stats_desc) + head.name_size);
	descriptions = malloc(bytes + 1);
	if (!descriptions ||
	    pread(v->stats_fd, descriptions, bytes, head.desc_offset) != (ssize_t)bytes ||
	    read_counter(v->stats_fd, &head, descriptions, "pf_taken", &taken) < 0)
		return -ENOTSUP;
	/* Without nested paging some are the guest's own. */
	read_counter(v->stats_fd, &head, descriptions, "pf_guest", &passed_on);
	*ret = taken > passed_on ? taken - passed_on : 0;
	return 0;
}
