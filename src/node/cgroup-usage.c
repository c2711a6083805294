/* SPDX-License-Identifier: Apache-2.0 */
/* What the processes of a control group used. */

#include <errno.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "node/cgroup-file.h"
#include "node/cgroup.h"

static uint64_t number(const char *dir, const char *file)
{
	CLEANUP_FREE char *text = cgroup_read(dir, file);

	return text ? strtoull(text, NULL, 10) : 0;
}

/* io.stat has a line for each device: "8:0 rbytes=1 wbytes=2 ..." */
static uint64_t sum(const char *text, const char *key)
{
	uint64_t n = 0;

	for (const char *at = text; (at = strstr(at, key)); at++)
		if (at > text && at[-1] == ' ')
			n += strtoull(at + strlen(key), NULL, 10);
	return n;
}

int cgroup_usage(const char *base, const char *job, const char *part, struct cgroup_usage *ret,
		 struct error *err)
{
	CLEANUP_FREE char *dir = NULL, *cpu = NULL, *io = NULL;
	int r = cgroup_path(base, job, part, &dir, err);

	if (r)
		return r;
	cpu = cgroup_read(dir, "cpu.stat");
	if (!cpu)
		return error_set(err, -ENOENT, "there is no control group %s", dir);
	io = cgroup_read(dir, "io.stat");
	*ret = (struct cgroup_usage){.cpu_us = cgroup_value(cpu, "usage_usec"),
				     .user_us = cgroup_value(cpu, "user_usec"),
				     .system_us = cgroup_value(cpu, "system_usec"),
				     .memory = number(dir, "memory.current"),
				     .memory_peak = number(dir, "memory.peak"),
				     .read_bytes = io ? sum(io, "rbytes=") : 0,
				     .written_bytes = io ? sum(io, "wbytes=") : 0};
	return 0;
}
