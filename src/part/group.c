/* SPDX-License-Identifier: Apache-2.0 */
/* Where the part is among control groups, and what the kernel grants there. */

#include "part/group.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/parse.h"

#define GROUPS "/sys/fs/cgroup"
#define TEXT_MAX 8192

/* The kernel names our group from the root of the file system (cgroups(7)): "0::/a/b". */
static bool is_inside(const char *group)
{
	CLEANUP_FREE char *text = NULL;
	char *own, *end;
	size_t n = strlen(group), root = strlen(GROUPS);

	if (strncmp(group, GROUPS "/", root + 1) ||
	    io_read_file("/proc/self/cgroup", TEXT_MAX, &text, NULL) <= 0)
		return false;
	own = strstr(text, "0::/");
	if (!own)
		return false;
	own += 3;
	end = strchr(own, '\n');
	if (end)
		*end = 0;
	n -= root;
	return !strncmp(own, group + root, n) && (!own[n] || own[n] == '/');
}

int group_join(const char *group, struct error *err)
{
	CLEANUP_FREE char *keeper = group ? io_format("%s/keeper", group) : NULL;
	CLEANUP_FREE char *procs = group ? io_format("%s/keeper/cgroup.procs", group) : NULL;
	CLEANUP_CLOSE int fd = -1;

	if (!group || is_inside(group))
		return 0;
	if (!keeper || !procs)
		return error_set(err, -ENOMEM, "out of memory");
	if (mkdir(keeper, 0755) < 0 && errno != EEXIST)
		return error_errno(err, -errno, "cannot make control group %s", keeper);
	fd = open(procs, O_WRONLY | O_CLOEXEC);
	return fd < 0 || write(fd, "0", 1) < 0
		       ? error_errno(err, -errno, "cannot join control group %s", keeper)
		       : 0;
}

int group_cpus(const char *group, cpu_set_t *ret, struct error *err)
{
	CLEANUP_FREE char *path = group ? io_format("%s/cpuset.cpus.effective", group) : NULL;
	CLEANUP_FREE char *text = NULL;

	if (path && io_read_file(path, TEXT_MAX, &text, NULL) > 1) {
		text[strcspn(text, "\n")] = 0;
		return parse_cpulist(text, ret, err);
	}
	/* No such controller: then what the scheduler says. */
	return sched_getaffinity(0, sizeof(*ret), ret) < 0
		       ? error_errno(err, -errno, "cannot know the CPUs")
		       : 0;
}
