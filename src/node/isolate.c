/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Interrupts off dedicated CPUs. Where each was is written to a file before it is moved, so whoever
 * dies in between has lost nothing: the next call starts from there, not from what it finds.
 */

#include "node/isolate.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/parse.h"
#include "lib/tree.h"

/* include/uapi/linux/prctl.h, since Linux 5.14; PIDTYPE_TGID of the kernel's enum pid_type */
#ifndef PR_SCHED_CORE
#define PR_SCHED_CORE 62
#define PR_SCHED_CORE_CREATE 1
#endif
#define WHOLE_PROCESS 1

#define LIST_MAX 4096

struct mover {
	const char *root;
	const cpu_set_t *online, *dedicated;
	json_t *first; /* where interrupts were at first: number -> list */
	bool write;    /* else only first is filled */
	struct isolate_interrupts *told;
};

static bool read_list(const struct mover *m, const char *path, char *text, cpu_set_t *ret)
{
	return tree_line(m->root, path, text, LIST_MAX) && !parse_cpulist(text, ret, NULL);
}

/* Of where it was at first what is not dedicated, else of all CPUs. False: nothing is left. */
static bool wanted(const struct mover *m, const cpu_set_t *first, cpu_set_t *ret)
{
	cpu_set_t gone;

	CPU_AND(&gone, first, m->dedicated);
	CPU_XOR(ret, first, &gone);
	if (CPU_COUNT(ret))
		return true;
	CPU_AND(&gone, m->online, m->dedicated);
	CPU_XOR(ret, m->online, &gone);
	return CPU_COUNT(ret) > 0;
}

static bool put(const struct mover *m, const char *path, const cpu_set_t *cpus)
{
	CLEANUP_FREE char *full = io_format("%s%s", m->root, path);
	CLEANUP_CLOSE int fd = full ? open(full, O_WRONLY | O_TRUNC | O_CLOEXEC) : -1;
	char text[LIST_MAX];

	format_cpulist(cpus, text, sizeof(text));
	return fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
}

/* An interrupt that is at now, was at first, and is to be at want. */
static void move(struct mover *m, const char *path, const char *key, const cpu_set_t *now,
		 const cpu_set_t *first, const cpu_set_t *want)
{
	bool home = CPU_EQUAL(want, first);

	if (!CPU_EQUAL(want, now) && !put(m, path, want)) {
		if (!m->told->refused++)
			m->told->first = strtoul(key, NULL, 10);
		home = CPU_EQUAL(now, first); /* it stays */
	} else if (!CPU_EQUAL(want, now)) {
		m->told->back += home;
		m->told->moved += !home;
	}
	if (home)
		json_object_del(m->first, key);
}

/* path: /proc/irq/24/smp_affinity_list */
static void one(const char *path, void *arg)
{
	struct mover *m = arg;
	char text[LIST_MAX], key[16];
	cpu_set_t now, first, want;
	const char *known;

	snprintf(key, sizeof(key), "%lu", strtoul(path + strlen("/proc/irq/"), NULL, 10));
	known = json_string_value(json_object_get(m->first, key));
	if (!read_list(m, path, text, &now))
		return;
	first = now;
	if ((known && parse_cpulist(known, &first, NULL)) || !wanted(m, &first, &want))
		return;
	if (m->write)
		move(m, path, key, &now, &first, &want);
	else if (!known && !CPU_EQUAL(&want, &first))
		json_object_set_new(m->first, key, json_string(text));
}

/* Another device may get the number of an interrupt that is gone. */
static void forget_gone(struct mover *m)
{
	const char *key;
	json_t *list;
	void *next;

	json_object_foreach_safe(m->first, next, key, list)
	{
		CLEANUP_FREE char *path = io_format("/proc/irq/%s", key);

		if (path && !tree_access(m->root, path, F_OK))
			json_object_del(m->first, key);
	}
}

static int save(const char *state, const json_t *first, struct error *err)
{
	CLEANUP_FREE char *text = NULL;

	if (!json_object_size(first))
		return unlink(state) && errno != ENOENT
			       ? error_errno(err, -errno, "cannot remove %s", state)
			       : 0;
	text = json_dumps(first, JSON_SORT_KEYS | JSON_INDENT(1));
	return text ? io_write_file(state, text, strlen(text), err)
		    : error_set(err, -ENOMEM, "out of memory");
}

static int load(const char *state, json_t **ret, struct error *err)
{
	CLEANUP_FREE char *text = NULL;
	int r = access(state, F_OK) ? 0 : io_read_file(state, 1 << 20, &text, err);

	if (r < 0)
		return r;
	*ret = text ? json_loads(text, 0, NULL) : json_object();
	if (json_is_object(*ret))
		return 0;
	json_decref(*ret);
	*ret = NULL;
	return error_set(err, -EBADMSG,
			 "%s does not tell where interrupts were: remove it, those "
			 "that were moved stay where they are",
			 state);
}

int isolate_interrupts(const char *root, const char *state, const cpu_set_t *online,
		       const cpu_set_t *dedicated, struct isolate_interrupts *ret,
		       struct error *err)
{
	static const char pattern[] = "/proc/irq/[0-9]*/smp_affinity_list";
	struct isolate_interrupts told = {0};
	struct mover m = {.root = root, .online = online, .dedicated = dedicated, .told = &told};
	int r = load(state, &m.first, err);

	if (r)
		return r;
	forget_gone(&m);
	tree_each(root, pattern, one, &m);
	r = save(state, m.first, err);
	if (!r) {
		m.write = true;
		tree_each(root, pattern, one, &m);
		r = save(state, m.first, err);
		*ret = told;
	}
	json_decref(m.first);
	return r;
}

int isolate_cookie(pid_t pid, struct error *err)
{
	if (!prctl(PR_SCHED_CORE, PR_SCHED_CORE_CREATE, pid, WHOLE_PROCESS, 0))
		return 0;
	if (errno == EINVAL)
		return error_set(
			err, -EOPNOTSUPP,
			"the kernel has no core scheduling (CONFIG_SCHED_CORE): other VMs' threads "
			"are kept off a core by its owner alone");
	if (errno == ENODEV)
		return error_set(err, -ENODEV,
				 "cores have one thread: no core scheduling is needed");
	return error_errno(err, -errno, "core scheduling of process %d", pid);
}
