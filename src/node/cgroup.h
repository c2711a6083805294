/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_NODE_CGROUP_H
#define WISP_NODE_CGROUP_H

/*
 * Control groups (version 2) of clusters: BASE/wisp.slice/job-ID/{keeper,vm-NAME}. base is
 * /sys/fs/cgroup, or a folder that was delegated to this user. Nothing waits. Any thread, one at a
 * time for a job.
 */

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct error;

struct cgroup_set {
	const char *cpus, *mems; /* lists; NULL: as the group above has them */
	bool alone; /* the CPUs are a partition of the scheduler, isolated if that can be had */
	uint64_t memory; /* bytes at most; 0: any */
	unsigned pids;	 /* processes at most; 0: any */
};

/* What the kernel granted, read back from it. */
struct cgroup_got {
	char partition[16]; /* "isolated", "root" or "member" */
	char why[160];	    /* the kernel's reason when it is less than was asked for, else empty */
	cpu_set_t cpus;	    /* effective; none when the kernel does not say */
};

/*
 * The slice, with the controllers that there are (cpuset, cpu, io, memory, pids). cpus: those that
 * are for clusters, a partition (root) of them when alone; it has to leave CPUs to the rest of the
 * machine, and before Linux 6.7 no job can be a partition without it.
 */
int cgroup_slice(const char *base, const struct cgroup_set *set, struct cgroup_got *ret,
		 struct error *err);

/*
 * Makes a job's group, or changes it. It is delegated to the user, who makes groups in it but
 * cannot change what is set here. -EOPNOTSUPP: a controller is missing, which is named; what was
 * made then stays.
 */
int cgroup_job(const char *base, const char *job, const struct cgroup_set *set, uid_t user,
	       gid_t group, struct cgroup_got *ret, struct error *err);

/* A group in it ("keeper", "vm-NAME"), the user's. 0 also when it is there. */
int cgroup_part(const char *base, const char *job, const char *part, uid_t user, gid_t group,
		struct error *err);

/* Moves a process there. */
int cgroup_enter(const char *base, const char *job, const char *part, pid_t pid, struct error *err);

struct cgroup_usage {
	uint64_t cpu_us, user_us, system_us;
	uint64_t memory, memory_peak;	    /* bytes; 0: the kernel does not say */
	uint64_t read_bytes, written_bytes; /* of block devices */
};

/* What a job (part NULL) or a part of it used. -ENOENT: there is none. */
int cgroup_usage(const char *base, const char *job, const char *part, struct cgroup_usage *ret,
		 struct error *err);

/* Kills everything in it. Whether something is still there: cgroup_busy(), 1, 0 (also: no such
 * group) or -errno. */
int cgroup_kill(const char *base, const char *job, const char *part, struct error *err);
int cgroup_busy(const char *base, const char *job, const char *part);

/* Removes it with its parts; 0 also when it was not there. -EBUSY: something runs in it. */
int cgroup_remove(const char *base, const char *job, const char *part, struct error *err);

/* Reads what the kernel says of a partition: "root invalid (reason)". For cgroup.c and its test. */
void cgroup_read_partition(const char *text, struct cgroup_got *ret);

#endif
