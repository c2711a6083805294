/* SPDX-License-Identifier: Apache-2.0 */
/* Has a VM's process begin in its control group, on its CPUs and with its memory. */

#include "vms/place.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mempolicy.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/parse.h"
#include "vms/record.h"

#define HIGH_FD 100 /* no descriptor of the program is placed on it */
#define BITS (8 * sizeof(unsigned long))

static int open_group(const char *group, int *ret, struct error *err)
{
	CLEANUP_FREE char *path = io_format("%s/cgroup.procs", group);
	CLEANUP_CLOSE int fd = -1;

	if (mkdir(group, 0755) < 0 && errno != EEXIST)
		return error_errno(err, -errno, "cannot make control group %s", group);
	if (path)
		fd = open(path, O_WRONLY | O_CLOEXEC);
	*ret = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, HIGH_FD);
	return *ret < 0 ? error_errno(err, -errno, "cannot use control group %s", group) : 0;
}

/* A list as of CPUs: "0,2-3". */
static int parse_mems(const char *list, struct place *ret, struct error *err)
{
	cpu_set_t nodes;
	int r = parse_cpulist(list, &nodes, err);

	if (r)
		return error_prefix(err, r, "mems");
	for (unsigned i = 0; i < PLACE_NODES && i < CPU_SETSIZE; i++)
		if (CPU_ISSET(i, &nodes))
			ret->mems[i / BITS] |= 1ul << i % BITS;
	ret->has_mems = true;
	return 0;
}

int place_open(const json_t *config, struct place *ret, struct error *err)
{
	const char *group = record_text(config, "cgroup"), *cpus = record_text(config, "affinity");
	const char *mems = record_text(config, "mems");
	int r = 0;

	*ret = (struct place){.procs = -1, .has_cpus = *cpus};
	if (*cpus)
		r = parse_cpulist(cpus, &ret->cpus, err);
	if (r)
		return error_prefix(err, r, "affinity");
	if (*mems)
		r = parse_mems(mems, ret, err);
	if (!r && *group)
		r = open_group(group, &ret->procs, err);
	return r;
}

void place_close(struct place *place)
{
	cleanup_close_fd(&place->procs);
	place->procs = -1;
}

int place_enter(void *arg)
{
	const struct place *p = arg;

	if (p->procs >= 0 && write(p->procs, "0", 1) < 0)
		return -errno;
	if (p->has_cpus && sched_setaffinity(0, sizeof(p->cpus), &p->cpus) < 0)
		return -errno;
	/* The maximum counts one bit that is not there (set_mempolicy(2)). */
	if (p->has_mems && syscall(SYS_set_mempolicy, MPOL_BIND, p->mems, PLACE_NODES + 1) < 0)
		return -errno;
	return 0;
}
