/* SPDX-License-Identifier: Apache-2.0 */
/* The VM of a migration, as a VMM's control socket shows it. */

#include "mover/machine.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "mover/disk.h"
#include "mover/disk-sample.h"
#include "mover/disks.h"
#include "mover/vmm.h"

struct remote {
	struct machine machine;
	pthread_mutex_t mutex; /* one command at a time */
	struct vmm vmm;
	struct disks disks; /* since the first flush */
	char *path;
};

static struct remote *remote_of(struct machine *machine)
{
	return container_of(machine, struct remote, machine);
}

/* As vmm_call(), but a lost connection has a code of its own, and stays lost. */
static int call(struct machine *machine, const char *command, json_t *args, int pass, json_t **ret,
		struct error *err)
{
	struct remote *r = remote_of(machine);
	int rc;

	SCOPED_LOCK(&r->mutex);
	if (r->vmm.fd < 0) {
		json_decref(args);
		return error_set(err, -ENOTCONN, "no connection to wisp-vmm for \"%s\"", command);
	}
	rc = vmm_call(&r->vmm, command, args, pass, ret, err);
	if (rc < 0 && r->vmm.lost) {
		vmm_close(&r->vmm);
		return -ENOTCONN;
	}
	return rc;
}

static int remote_state(struct machine *machine, enum machine_state *ret, struct error *err)
{
	static const char *const names[] = {
		[MACHINE_RUNNING] = "running",
		[MACHINE_PAUSED] = "paused",
		[MACHINE_INCOMING] = "incoming",
		[MACHINE_FAILED] = "failed",
	};
	json_t *status = NULL;
	const char *text;
	unsigned i = 0;
	int rc = call(machine, "status", NULL, -1, &status, err);

	if (rc < 0)
		return rc;
	text = json_string_value(json_object_get(status, "state"));
	while (text && i < ARRAY_SIZE(names) && strcmp(text, names[i]))
		i++;
	if (!text || i == ARRAY_SIZE(names))
		rc = error_set(err, -EPROTO, "wisp-vmm is in state \"%s\"", text ? text : "");
	else
		*ret = (enum machine_state)i;
	json_decref(status);
	return rc;
}

static int remote_loaded(struct machine *machine, bool *ret, struct error *err)
{
	json_t *status = NULL;
	int rc = call(machine, "status", NULL, -1, &status, err);

	if (rc == 0)
		*ret = json_is_true(json_object_get(status, "loaded"));
	json_decref(status);
	return rc;
}

static int remote_name(struct machine *machine, char ret[MACHINE_NAME], struct error *err)
{
	json_t *status = NULL;
	const char *text;
	int rc = call(machine, "status", NULL, -1, &status, err);

	if (rc < 0)
		return rc;
	text = json_string_value(json_object_get(status, "instance"));
	if (text && *text && strlen(text) < MACHINE_NAME)
		strcpy(ret, text);
	else
		rc = error_set(err, -EPROTO, "wisp-vmm does not say which VM it runs");
	json_decref(status);
	return rc;
}

static int remote_memory(struct machine *machine, int *fd, struct error *err)
{
	struct remote *r = remote_of(machine);
	struct vmm_memory memory;
	int rc;

	SCOPED_LOCK(&r->mutex);
	if (r->vmm.fd < 0)
		return error_set(err, -ENOTCONN, "no connection to wisp-vmm");
	rc = vmm_memory(&r->vmm, &memory, err);
	if (rc == 0)
		*fd = memory.fd;
	return rc;
}

static int remote_describe(struct machine *machine, json_t **ret, struct error *err)
{
	struct remote *r = remote_of(machine);
	json_t *status = NULL, *memory = NULL, *vm = NULL;
	int rc = call(machine, "status", NULL, -1, &status, err);

	if (rc == 0)
		rc = call(machine, "describe", NULL, -1, &vm, err);
	if (rc == 0)
		rc = call(machine, "memory", NULL, -1, &memory, err);
	if (rc == 0) {
		CLEANUP_CLOSE int unwanted __attribute__((unused)) = jsonline_take_fd(&r->vmm.line);

		json_object_set(vm, "vcpus", json_object_get(status, "vcpus"));
		json_object_set(vm, "memory", memory);
		*ret = json_incref(vm);
	}
	json_decref(status);
	json_decref(memory);
	json_decref(vm);
	return rc;
}

static int open_disks(struct remote *r, struct error *err)
{
	int rc;

	SCOPED_LOCK(&r->mutex);
	if (r->disks.disk)
		return 0;
	if (r->vmm.fd < 0)
		return error_set(err, -ENOTCONN, "no connection to wisp-vmm");
	rc = disks_open(&r->vmm, false, &r->disks, err);
	if (rc < 0)
		disks_close(&r->disks);
	if (rc < 0 && r->vmm.lost) {
		vmm_close(&r->vmm);
		return -ENOTCONN;
	}
	return rc;
}

static int remote_flush(struct machine *machine, const _Atomic bool *cancel, struct error *err)
{
	struct remote *r = remote_of(machine);
	int rc = open_disks(r, err);

	return rc < 0 ? rc : disks_flush(&r->disks, cancel, err);
}

/* Opened now: what this host knew of a file that others write is looked at again. */
static int sample_device(struct machine *machine, json_t *device, struct error *err)
{
	CLEANUP_CLOSE int fd = -1;
	CLEANUP_CLOSE int own = -1;
	uint64_t size = (uint64_t)json_integer_value(json_object_get(device, "size"));
	char text[DISK_SAMPLE_TEXT];
	int rc = call(machine, "disk", json_pack("{s:O}", "id", json_object_get(device, "id")), -1,
		      NULL, err);

	if (rc < 0)
		return rc;
	fd = jsonline_take_fd(&remote_of(machine)->vmm.line);
	own = fd < 0 ? -1 : disk_open_again(fd, false);
	json_object_del(device, "sample");
	if (own >= 0 && disk_sample(own, size, text))
		json_object_set_new(device, "sample", json_string(text));
	return 0;
}

static int remote_sample(struct machine *machine, json_t *vm, struct error *err)
{
	json_t *device;
	size_t i;

	json_array_foreach (json_object_get(vm, "devices"), i, device) {
		const char *kind = json_string_value(json_object_get(device, "kind"));
		int rc = kind && !strcmp(kind, "block") ? sample_device(machine, device, err) : 0;

		if (rc < 0)
			return rc;
	}
	return 0;
}

static int remote_pause(struct machine *machine, bool hold, struct error *err)
{
	return call(machine, "pause", json_pack("{s:b}", "hold", hold), -1, NULL, err);
}

static int remote_resume(struct machine *machine, struct error *err)
{
	return call(machine, "resume", NULL, -1, NULL, err);
}

static int remote_stop(struct machine *machine, struct error *err)
{
	return call(machine, "stop", NULL, -1, NULL, err);
}

static int remote_save(struct machine *machine, int fd, json_t **cpu, struct error *err)
{
	json_t *result = NULL;
	int rc = call(machine, "save", NULL, fd, &result, err);

	if (rc == 0)
		*cpu = json_incref(json_object_get(result, "cpu"));
	json_decref(result);
	return rc;
}

static int remote_load(struct machine *machine, int fd, const char *clock, struct error *err)
{
	return call(machine, "load", json_pack("{s:s}", "clock", clock), fd, NULL, err);
}

static int remote_dirty_start(struct machine *machine, int bitmap, struct error *err)
{
	return call(machine, "dirty-start", NULL, bitmap, NULL, err);
}

static int remote_dirty_collect(struct machine *machine, uint64_t first, uint64_t pages,
				struct error *err)
{
	return call(
		machine, "dirty-collect",
		json_pack("{s:I,s:I}", "first_page", (json_int_t)first, "pages", (json_int_t)pages),
		-1, NULL, err);
}

static int remote_dirty_stop(struct machine *machine, struct error *err)
{
	return call(machine, "dirty-stop", NULL, -1, NULL, err);
}

static int remote_faults(struct machine *machine, unsigned n, uint64_t *ret, struct error *err)
{
	json_t *stats = NULL;
	const json_t *list;
	int rc = call(machine, "stats", NULL, -1, &stats, err);

	if (rc < 0)
		return rc;
	list = json_object_get(stats, "vcpu_exits");
	for (unsigned i = 0; rc == 0 && i < n; i++) {
		const json_t *faults = json_object_get(json_array_get(list, i), "faults");

		if (!faults)
			rc = error_set(err, -ENOTSUP, "KVM does not count faults of vCPUs");
		else
			ret[i] = (uint64_t)json_integer_value(faults);
	}
	json_decref(stats);
	return rc;
}

static int remote_throttle(struct machine *machine, unsigned n, const uint8_t *percent,
			   struct error *err)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < n; i++)
		json_array_append_new(list, json_integer(percent[i]));
	return call(machine, "throttle", json_pack("{s:o}", "vcpus", list), -1, NULL, err);
}

static int remote_faults_open(struct machine *machine, unsigned hold_ms, struct faults *ret,
			      struct error *err)
{
	struct remote *r = remote_of(machine);
	int rc;

	SCOPED_LOCK(&r->mutex);
	if (r->vmm.fd < 0)
		return error_set(err, -ENOTCONN, "no connection to wisp-vmm");
	rc = faults_open(&r->vmm, hold_ms, ret, err);
	if (rc < 0 && r->vmm.lost) {
		vmm_close(&r->vmm);
		return -ENOTCONN;
	}
	return rc;
}

static int remote_faults_take(struct machine *machine, struct faults *ret,
			      struct vmm_memory *memory, struct error *err)
{
	return faults_take(remote_of(machine)->path, ret, memory, err);
}

static int remote_faults_end(struct machine *machine, const char *reason, struct error *err)
{
	return faults_end(remote_of(machine)->path, reason, err);
}

static int remote_faults_stop(struct machine *machine, struct error *err)
{
	return call(machine, "userfault-stop", NULL, -1, NULL, err);
}

static void remote_hang_up(struct machine *machine)
{
	shutdown(remote_of(machine)->vmm.fd, SHUT_RDWR);
}

static void remote_close(struct machine *machine)
{
	struct remote *r = remote_of(machine);

	disks_close(&r->disks);
	vmm_close(&r->vmm);
	free(r->path);
	pthread_mutex_destroy(&r->mutex);
	free(r);
}

static const struct machine_ops remote_ops = {
	.state = remote_state,
	.loaded = remote_loaded,
	.name = remote_name,
	.memory = remote_memory,
	.describe = remote_describe,
	.flush = remote_flush,
	.sample = remote_sample,
	.pause = remote_pause,
	.resume = remote_resume,
	.stop = remote_stop,
	.save = remote_save,
	.load = remote_load,
	.dirty_start = remote_dirty_start,
	.dirty_collect = remote_dirty_collect,
	.dirty_stop = remote_dirty_stop,
	.faults = remote_faults,
	.throttle = remote_throttle,
	.faults_open = remote_faults_open,
	.faults_take = remote_faults_take,
	.faults_end = remote_faults_end,
	.faults_stop = remote_faults_stop,
	.hang_up = remote_hang_up,
	.close = remote_close,
};

int machine_connect(const char *path, bool may_be_dead, struct machine **ret, struct error *err)
{
	struct remote *r = calloc(1, sizeof(*r));
	int rc;

	if (!r)
		return error_set(err, -ENOMEM, "out of memory");
	r->machine.ops = &remote_ops;
	r->vmm.fd = -1;
	r->path = strdup(path);
	rc = r->path ? vmm_connect(path, &r->vmm, err) : error_set(err, -ENOMEM, "out of memory");
	/* Only what says for sure that there is no process: all else may be a VMM that is busy. */
	if (rc < 0 && !(may_be_dead && (rc == -ENOENT || rc == -ECONNREFUSED))) {
		free(r->path);
		free(r);
		return rc;
	}
	pthread_mutex_init(&r->mutex, NULL);
	*ret = &r->machine;
	return 0;
}
