/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Jobs of the helper: the end of a cluster. Its control group is killed; then, since there may be
 * no such group, whatever has the network's namespace, of which one is the first process of the PID
 * namespace in which all VMs are. When nothing runs any more both are removed.
 */

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <linux/magic.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "net/fabric.h"
#include "node/cgroup.h"
#include "node/helper-devices.h"
#include "node/helper.h"

#define PATIENCE_NS 10000000000ull
#define LOOK_MS 20

/* -------- the control group -------- */

static int end_group(const char *base, const char *job, struct error *err)
{
	uint64_t end = io_now_ns() + PATIENCE_NS;
	int r = cgroup_kill(base, job, NULL, err);

	while (!r && cgroup_busy(base, job, NULL) > 0 && io_now_ns() < end)
		poll(NULL, 0, LOOK_MS);
	return r ? r : cgroup_remove(base, job, NULL, err);
}

/* -------- what is in the network -------- */

static bool is_in(pid_t pid, const struct stat *network)
{
	char path[64];
	struct stat st;

	snprintf(path, sizeof(path), "/proc/%d/ns/net", pid);
	return !stat(path, &st) && st.st_ino == network->st_ino && st.st_dev == network->st_dev;
}

/* The number may be another process's by now: it is looked at again once it is held. */
static bool kill_if_in(pid_t pid, const struct stat *network)
{
	CLEANUP_CLOSE int pidfd = -1;

	if (pid == getpid() || !is_in(pid, network))
		return false;
	pidfd = pidfd_open(pid, 0);
	if (pidfd < 0 || !is_in(pid, network))
		return false;
	pidfd_send_signal(pidfd, SIGKILL, NULL, 0);
	return true;
}

/* How many were there. */
static unsigned kill_round(const struct stat *network)
{
	CLEANUP_DIR DIR *proc = opendir("/proc");
	const struct dirent *entry;
	unsigned n = 0;

	while (proc && (entry = readdir(proc)))
		if (strspn(entry->d_name, "0123456789") == strlen(entry->d_name))
			n += kill_if_in((pid_t)strtol(entry->d_name, NULL, 10), network);
	return n;
}

static int end_network(const char *path, struct error *err)
{
	uint64_t end = io_now_ns() + PATIENCE_NS;
	struct statfs fs;
	struct stat st;
	unsigned left = 0;

	/* Else its making was cut off, or it has gone. */
	if (!statfs(path, &fs) && fs.f_type == NSFS_MAGIC && !stat(path, &st))
		while ((left = kill_round(&st)) && io_now_ns() < end)
			poll(NULL, 0, LOOK_MS);
	if (left)
		return error_set(err, -EBUSY, "network %s: %u process(es) in it cannot be killed",
				 path, left);
	return fabric_destroy(path, err);
}

int helper_clean(const json_t *job, struct error *err)
{
	const char *base = helper_text(job, "cgroups"), *network = helper_text(job, "network");
	const char *cluster;
	int r = helper_need(job, "cluster", &cluster, err);

	if (!r && base)
		r = end_group(base, cluster, err);
	if (!r && network)
		r = end_network(network, err);
	return r || geteuid() ? r : devices_take("", json_object_get(job, "devices"), err);
}
