/* SPDX-License-Identifier: Apache-2.0 */
/* Making, setting and removing the control groups of clusters. */

#include "node/cgroup.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/parse.h"
#include "node/cgroup-file.h"

/* What is there is enabled for the groups below; what lacks is told by who needs it. */
static void enable(const char *dir)
{
	static const char *const wanted[] = {"+cpuset", "+cpu", "+io", "+memory", "+pids"};

	for (unsigned i = 0; i < ARRAY_SIZE(wanted); i++)
		cgroup_write(dir, "cgroup.subtree_control", wanted[i], NULL);
}

static int make(const char *dir, struct error *err)
{
	if (mkdir(dir, 0755) && errno != EEXIST)
		return error_errno(err, -errno, "cannot make control group %s", dir);
	return 0;
}

void cgroup_read_partition(const char *text, struct cgroup_got *ret)
{
	const char *reason = strstr(text, "invalid");
	size_t n = strcspn(text, " \n");

	snprintf(ret->partition, sizeof(ret->partition), "%.*s", (int)n, text);
	if (!reason && n)
		return;
	snprintf(ret->partition, sizeof(ret->partition), "member");
	reason = reason ? strchr(reason, '(') : NULL;
	if (reason)
		snprintf(ret->why, sizeof(ret->why), "%.*s", (int)strcspn(reason + 1, ")\n"),
			 reason + 1);
	else
		snprintf(ret->why, sizeof(ret->why), "the kernel does not say why");
}

/* Whether the kernel made it one of that kind; why not is in ret. */
static bool try_partition(const char *dir, const char *kind, struct cgroup_got *ret)
{
	CLEANUP_FREE char *said = NULL;
	struct error err;

	if (cgroup_write(dir, "cpuset.cpus.partition", kind, &err)) {
		snprintf(ret->partition, sizeof(ret->partition), "member");
		snprintf(ret->why, sizeof(ret->why), "%.*s", (int)sizeof(ret->why) - 1, err.text);
		return false;
	}
	said = cgroup_read(dir, "cpuset.cpus.partition");
	cgroup_read_partition(said ? said : "", ret);
	return !strcmp(ret->partition, kind);
}

/* The best of what was asked for. why keeps the reason of the first that was refused. */
static void partition(const char *dir, bool isolated, struct cgroup_got *ret)
{
	struct cgroup_got second = {0};

	if (try_partition(dir, isolated ? "isolated" : "root", ret))
		return;
	if (isolated && try_partition(dir, "root", &second)) {
		snprintf(ret->partition, sizeof(ret->partition), "root");
		return;
	}
	cgroup_write(dir, "cpuset.cpus.partition", "member", NULL);
}

static int set_number(const char *dir, const char *file, uint64_t n, struct error *err)
{
	char text[32] = "max";

	if (n)
		snprintf(text, sizeof(text), "%llu", (unsigned long long)n);
	return cgroup_write(dir, file, text, n ? err : NULL);
}

/* The limits first: who is refused the CPUs is held to those all the same. */
static int set_all(const char *dir, const struct cgroup_set *set, bool isolated,
		   struct cgroup_got *ret, struct error *err)
{
	CLEANUP_FREE char *cpus = NULL;
	int r = set->memory ? set_number(dir, "memory.max", set->memory, err) : 0;

	*ret = (struct cgroup_got){.partition = "member"};
	if (!r && set->pids)
		r = set_number(dir, "pids.max", set->pids, err);
	/* Before the CPUs, which may be others' partition: two that overlap are none. */
	if (!set->alone)
		cgroup_write(dir, "cpuset.cpus.partition", "member", NULL);
	if (!r && set->cpus)
		r = cgroup_write(dir, "cpuset.cpus", set->cpus, err);
	if (!r && set->mems)
		r = cgroup_write(dir, "cpuset.mems", set->mems, err);
	if (r)
		return r;
	if (set->alone)
		partition(dir, isolated, ret);
	cpus = cgroup_read(dir, "cpuset.cpus.effective");
	if (cpus)
		cpus[strcspn(cpus, "\n")] = 0;
	if (cpus && cpus[0])
		r = parse_cpulist(cpus, &ret->cpus, err);
	return r;
}

int cgroup_slice(const char *base, const struct cgroup_set *set, struct cgroup_got *ret,
		 struct error *err)
{
	CLEANUP_FREE char *dir = NULL;
	int r = cgroup_path(base, NULL, NULL, &dir, err);

	if (r)
		return r;
	enable(base);
	r = make(dir, err);
	if (r)
		return r;
	enable(dir);
	return set_all(dir, set, false, ret, err);
}

/* What lets the user make groups below, and move processes among them; the limits stay ours. */
static int delegate(const char *dir, uid_t user, gid_t group, struct error *err)
{
	static const char *const files[] = {"", "/cgroup.procs", "/cgroup.threads",
					    "/cgroup.subtree_control"};

	for (unsigned i = 0; i < ARRAY_SIZE(files); i++) {
		CLEANUP_FREE char *path = io_format("%s%s", dir, files[i]);

		if (!path || chown(path, user, group))
			return error_errno(err, path ? -errno : -ENOMEM,
					   "cannot give control group %s%s to user %u", dir,
					   files[i], user);
	}
	return 0;
}

static int make_for(const char *dir, uid_t user, gid_t group, struct error *err)
{
	int r = make(dir, err);

	return r || user == geteuid() ? r : delegate(dir, user, group, err);
}

int cgroup_job(const char *base, const char *job, const struct cgroup_set *set, uid_t user,
	       gid_t group, struct cgroup_got *ret, struct error *err)
{
	CLEANUP_FREE char *dir = NULL;
	struct cgroup_got got;
	int r = cgroup_path(base, job, NULL, &dir, err);

	if (!r)
		r = make_for(dir, user, group, err);
	if (!r)
		r = set_all(dir, set, true, &got, err);
	if (r)
		return r;
	enable(dir);
	*ret = got;
	return 0;
}

int cgroup_part(const char *base, const char *job, const char *part, uid_t user, gid_t group,
		struct error *err)
{
	CLEANUP_FREE char *dir = NULL;
	int r = cgroup_path(base, job, part, &dir, err);

	return r ? r : make_for(dir, user, group, err);
}

int cgroup_enter(const char *base, const char *job, const char *part, pid_t pid, struct error *err)
{
	CLEANUP_FREE char *dir = NULL;
	char text[16];
	int r = cgroup_path(base, job, part, &dir, err);

	snprintf(text, sizeof(text), "%d", pid);
	return r ? r : cgroup_write(dir, "cgroup.procs", text, err);
}

int cgroup_kill(const char *base, const char *job, const char *part, struct error *err)
{
	CLEANUP_FREE char *dir = NULL;
	int r = cgroup_path(base, job, part, &dir, err);

	if (!r && access(dir, F_OK))
		return 0;
	return r ? r : cgroup_write(dir, "cgroup.kill", "1", err);
}

int cgroup_busy(const char *base, const char *job, const char *part)
{
	CLEANUP_FREE char *dir = NULL, *text = NULL;
	int r = cgroup_path(base, job, part, &dir, NULL);

	if (r)
		return r;
	text = cgroup_read(dir, "cgroup.events");
	return text ? cgroup_value(text, "populated") != 0 : 0;
}

/* Groups are folders with files that nobody can remove: only the folders, from below. */
static int remove_tree(const char *dir)
{
	CLEANUP_DIR DIR *d = opendir(dir);
	struct dirent *entry;
	int r = 0;

	if (!d)
		return errno == ENOENT ? 0 : -errno;
	while (!r && (entry = readdir(d))) {
		CLEANUP_FREE char *path = NULL;

		if (entry->d_type != DT_DIR || entry->d_name[0] == '.')
			continue;
		path = io_format("%s/%s", dir, entry->d_name);
		r = path ? remove_tree(path) : -ENOMEM;
	}
	if (!r && rmdir(dir) && errno != ENOENT)
		r = -errno;
	return r;
}

int cgroup_remove(const char *base, const char *job, const char *part, struct error *err)
{
	CLEANUP_FREE char *dir = NULL;
	int r = cgroup_path(base, job, part, &dir, err);

	if (r)
		return r;
	r = remove_tree(dir);
	if (r == -EBUSY)
		return error_set(err, r, "control group %s cannot be removed: something runs in it",
				 dir);
	return r ? error_errno(err, r, "cannot remove control group %s", dir) : 0;
}
