/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The functions of node/cgroup.h as commands, for the functional test node-cgroup:
 *     node-cgroup BASE slice CPUS            CPUS with +: alone
 *     node-cgroup BASE job JOB CPUS MEMS MEMORY PIDS UID
 *     node-cgroup BASE part JOB PART UID
 *     node-cgroup BASE enter JOB PART PID
 *     node-cgroup BASE usage|kill|busy|remove JOB [PART]
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/error.h"
#include "lib/parse.h"
#include "node/cgroup.h"

static int show(int r, const struct cgroup_got *got)
{
	char cpus[256] = "";

	if (r)
		return r;
	if (CPU_COUNT(&got->cpus))
		format_cpulist(&got->cpus, cpus, sizeof(cpus));
	printf("%s %s %s\n", got->partition, cpus, got->why);
	return 0;
}

static int usage(const char *base, char **arg, struct error *err)
{
	struct cgroup_usage use;
	int r = cgroup_usage(base, arg[0], arg[1], &use, err);

	if (!r)
		printf("%llu %llu %llu\n", (unsigned long long)use.cpu_us,
		       (unsigned long long)use.memory, (unsigned long long)use.memory_peak);
	return r;
}

static int run(const char *base, const char *what, char **arg, struct error *err)
{
	struct cgroup_got got;
	struct cgroup_set set = {0};

	if (!strcmp(what, "slice")) {
		set.alone = arg[0][0] == '+';
		set.cpus = arg[0] + set.alone;
		return show(cgroup_slice(base, &set, &got, err), &got);
	}
	if (!strcmp(what, "job")) {
		set.alone = arg[1][0] == '+';
		set.cpus = arg[1] + set.alone;
		set.mems = arg[2];
		set.memory = strtoull(arg[3], NULL, 10);
		set.pids = atoi(arg[4]);
		return show(cgroup_job(base, arg[0], &set, atoi(arg[5]), atoi(arg[5]), &got, err),
			    &got);
	}
	if (!strcmp(what, "part"))
		return cgroup_part(base, arg[0], arg[1], atoi(arg[2]), atoi(arg[2]), err);
	if (!strcmp(what, "enter"))
		return cgroup_enter(base, arg[0], arg[1], atoi(arg[2]), err);
	if (!strcmp(what, "usage"))
		return usage(base, arg, err);
	if (!strcmp(what, "kill"))
		return cgroup_kill(base, arg[0], arg[1], err);
	if (!strcmp(what, "busy"))
		return printf("%d\n", cgroup_busy(base, arg[0], arg[1])) < 0;
	if (!strcmp(what, "remove"))
		return cgroup_remove(base, strcmp(arg[0], "-") ? arg[0] : NULL, arg[1], err);
	return error_set(err, -22, "what is %s?", what);
}

int main(int argc, char **argv)
{
	char *arg[7] = {NULL};
	struct error err = {{0}};

	for (int i = 3; i < argc && i < 10; i++)
		arg[i - 3] = argv[i];
	if (argc < 4)
		return 2;
	if (!run(argv[1], argv[2], arg, &err))
		return 0;
	fprintf(stderr, "node-cgroup: %s\n", err.text);
	return 1;
}
