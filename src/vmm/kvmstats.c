/* SPDX-License-Identifier: Apache-2.0 */
/* KVM's own counters. */

#include "vmm/kvmstats.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "lib/cleanup.h"

#define DESCRIPTIONS_MAX 1024u
#define NAME_MAX_ 256u
#define COUNTERS_MAX 8u

int kvmstats_open(int fd)
{
	return ioctl(fd, KVM_GET_STATS_FD, NULL);
}

static bool read_counter(int fd, const struct kvm_stats_header *head, const uint8_t *descriptions,
			 const char *name, uint64_t *ret)
{
	size_t size = sizeof(struct kvm_stats_desc) + head->name_size;

	for (uint32_t i = 0; i < head->num_desc; i++) {
		struct kvm_stats_desc desc;
		const char *text = (const char *)descriptions + i * size + sizeof(desc);

		if (strncmp(text, name, head->name_size) != 0)
			continue;
		memcpy(&desc, descriptions + i * size, sizeof(desc));
		return pread(fd, ret, sizeof(*ret), (off_t)head->data_offset + desc.offset) ==
		       sizeof(*ret);
	}
	return false;
}

int kvmstats_read(int fd, unsigned n, const char *const names[], uint64_t *ret)
{
	CLEANUP_FREE uint8_t *descriptions = NULL;
	struct kvm_stats_header head;
	uint64_t value[COUNTERS_MAX];
	size_t bytes;

	if (fd < 0 || n > COUNTERS_MAX || pread(fd, &head, sizeof(head), 0) != sizeof(head) ||
	    head.num_desc > DESCRIPTIONS_MAX || head.name_size > NAME_MAX_)
		return -ENOTSUP;
	bytes = head.num_desc * (sizeof(struct kvm_stats_desc) + head.name_size);
	descriptions = malloc(bytes + 1);
	if (!descriptions || pread(fd, descriptions, bytes, head.desc_offset) != (ssize_t)bytes)
		return -ENOTSUP;
	for (unsigned i = 0; i < n; i++)
		if (!read_counter(fd, &head, descriptions, names[i], &value[i]))
			return -ENOTSUP;
	memcpy(ret, value, n * sizeof(*ret));
	return 0;
}
