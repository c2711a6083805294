/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checkpoints of a VM that a VMM runs, stopped or live, full or incremental: the sequence, and all
 * but memory. It is the same whether somebody tells its steps or not.
 */

#include "mover/checkpoint-parts.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "mover/chain.h"
#include "mover/steps.h"

static int examine(struct checkpoint *c, json_t **status, struct error *err)
{
	const char *state;
	int rc = vmm_call(&c->vmm, "status", NULL, -1, status, err);

	if (rc < 0)
		return rc;
	state = json_string_value(json_object_get(*status, "state"));
	c->was_running = state && !strcmp(state, "running");
	if (!c->was_running && (!state || strcmp(state, "paused")))
		return error_set(err, -EBUSY, "this VM has nothing to save: it is %s",
				 state ? state : "in no state");
	c->vcpus = (unsigned)json_integer_value(json_object_get(*status, "vcpus"));
	return vmm_memory(&c->vmm, &c->memory, err);
}

static int begin(struct checkpoint *c, struct error *err)
{
	CLEANUP_FREE uint64_t *epochs = NULL;
	struct writer_options options = {.memory = c->memory.size,
					 .compression = c->request->compression,
					 .progress = c->request->progress};
	size_t n;
	int rc = store_open(c->request->dir, true, &c->store, err);

	if (rc == 0)
		rc = store_epochs(&c->store, &epochs, &n, err);
	if (rc < 0)
		return rc;
	if (c->request->incremental && n)
		options.parent = c->parent = epochs[n - 1];
	return writer_create(&c->store, &options, &c->writer, err);
}

/* Nobody may resume it meanwhile, also if it was paused before. */
static int pause_vm(struct checkpoint *c, struct error *err)
{
	struct timespec now;
	int rc;

	c->pause_start = io_now_ns();
	rc = vmm_call(&c->vmm, "pause", json_pack("{s:b}", "hold", 1), -1, NULL, err);
	c->paused = rc == 0;
	clock_gettime(CLOCK_REALTIME, &now);
	c->cut_at = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
	return rc;
}

/*
 * For a suspend the pause is not held any more: it outlives our connection. A VM that was paused
 * stays so; it was held all the same, for nobody may resume it while its memory is read.
 */
static int resume_vm(struct checkpoint *c, bool stay, struct error *err)
{
	int rc;

	if (!c->paused)
		return 0;
	rc = vmm_call(&c->vmm, stay || !c->was_running ? "pause" : "resume", NULL, -1, NULL, err);
	if (c->was_running)
		c->pause_ns = io_now_ns() - c->pause_start;
	c->paused = false;
	return rc;
}

/* The state into a new buffer. */
static int save(struct checkpoint *c, uint8_t **state, size_t *size, struct error *err)
{
	CLEANUP_CLOSE int fd = memfd_create("state", MFD_CLOEXEC);
	struct stat st;
	int rc;

	if (fd < 0)
		return error_errno(err, -errno, "cannot make a file for the state");
	rc = vmm_call(&c->vmm, "save", NULL, fd, &c->saved, err);
	if (rc < 0)
		return rc;
	if (fstat(fd, &st) < 0 || !st.st_size)
		return error_set(err, -EPROTO, "wisp-vmm saved no state");
	*size = (size_t)st.st_size;
	*state = malloc(*size);
	rc = *state ? io_pread_full(fd, *state, *size, 0) : -ENOMEM;
	return rc < 0 ? error_errno(err, rc, "cannot read the saved state") : 0;
}

/* What is kept of the VM's configuration: what it says of itself, and what the caller knows. */
static json_t *describe(const struct checkpoint *c, const json_t *status)
{
	static const char *const keys[] = {"name", "version", "vcpus", "memory", "page_size"};
	json_t *config = json_object();

	for (unsigned i = 0; i < ARRAY_SIZE(keys); i++)
		if (json_object_get(status, keys[i]))
			json_object_set(config, keys[i], json_object_get(status, keys[i]));
	if (json_object_get(c->saved, "devices"))
		json_object_set(config, "devices", json_object_get(c->saved, "devices"));
	if (c->request->config)
		json_object_set_new(config, "caller", json_deep_copy(c->request->config));
	return config;
}

static void add_to_report(const struct checkpoint *c, uint64_t epoch, bool log_kept, json_t *report)
{
	json_object_update_new(
		report,
		json_pack("{s:I, s:o, s:I, s:I, s:O, s:o, s:o, s:i, s:b, s:b}", "epoch",
			  (json_int_t)epoch, "digest", manifest_digest_json(c->digest), "cut_at",
			  (json_int_t)c->cut_at, "pause_ns", (json_int_t)c->pause_ns, "passes",
			  c->rounds, "disks", disks_report(&c->disks), "parent",
			  c->parent ? json_integer((json_int_t)c->parent) : json_null(), "throttle",
			  (int)brake_most(&c->brake), "log_used", *c->track.taken != 0, "log_kept",
			  log_kept));
}

/* Makes and sums the copies of the disks; those that are as in the parent are kept once. */
static int finish_disks(struct checkpoint *c, json_t **files, struct error *err)
{
	CLEANUP_CLOSE int dir = -1;
	struct manifest parent = {0};
	int rc = disks_copy(&c->disks, &c->vmm, c->was_running && !c->paused, c->request->progress,
			    err);

	if (rc == 0 && c->parent && c->disks.n) {
		dir = rc = store_epoch(&c->store, c->parent, err);
		if (rc >= 0)
			rc = epoch_manifest(&c->store, c->parent, &parent, err);
	}
	if (rc == 0)
		rc = disks_finish(&c->disks, writer_dir(c->writer), dir,
				  json_object_get(parent.json, "files"), c->request->progress,
				  files, err);
	manifest_done(&parent);
	return rc;
}

int checkpoint_flush(struct checkpoint *c, struct error *err)
{
	const struct progress *progress = c->request->progress;

	return disks_flush(&c->disks, progress ? progress->cancel : NULL, err);
}

/* All that comes before the pause: afterwards it takes as little as can be. */
static int prepare(struct checkpoint *c, struct error *err)
{
	int rc = checkpoint_take_log(c, err);

	if (rc == 0)
		rc = disks_open(&c->vmm, false, &c->disks, err);
	if (rc == 0)
		rc = checkpoint_flush(c, err);
	if (rc == 0 && c->request->live && c->was_running)
		rc = checkpoint_copy(c, err);
	return rc < 0 ? rc : checkpoint_hold(c, err);
}

/*
 * From the first vCPU that stops to the last byte of memory. That it has stopped is said first: to
 * others it is as if the rest was done in no time.
 */
static int cut(struct checkpoint *c, uint8_t **state, size_t *size, struct error *err)
{
	int rc = pause_vm(c, err);

	brake_release(&c->brake);
	if (rc == 0)
		rc = steps_ask(c->request->steps, "cut",
			       json_pack("{s:I}", "at", (json_int_t)c->cut_at), STEPS_RESUME, err);
	if (rc == 0)
		rc = disks_take(&c->disks, &c->vmm, writer_dir(c->writer), err);
	/* Saving may still write to memory, so it comes first. */
	if (rc == 0)
		rc = save(c, state, size, err);
	return rc < 0 ? rc : checkpoint_rest(c, err);
}

/*
 * A VM that is suspended stays as it is until its state is safe. One that cannot run again needs
 * its checkpoint all the more.
 */
static int let_run(struct checkpoint *c, struct error *err)
{
	json_t *members;
	int rc;

	if (c->request->leave_paused)
		return 0;
	rc = steps_await(c->request->steps, STEPS_RESUME, -1, err);
	if (rc < 0)
		return rc;
	c->resumed = resume_vm(c, false, &c->why_not);
	members = json_pack("{s:I}", "pause_ns", (json_int_t)c->pause_ns);
	if (c->resumed < 0)
		json_object_update_new(members, json_pack("{s:i, s:s}", "errno", -c->resumed,
							  "error", c->why_not.text));
	return steps_say(c->request->steps, "resumed", members, err);
}

/* All files are there and synced, under a name that is not the epoch's. */
static int finish(struct checkpoint *c, const json_t *status, const uint8_t *state, size_t size,
		  json_t **report, struct error *err)
{
	struct writer_vm vm = {.state = state,
			       .state_size = size,
			       .config = describe(c, status),
			       .cpu = json_object_get(c->saved, "cpu"),
			       .image = c->request->image};
	int rc = finish_disks(c, &vm.files, err);

	if (rc == 0)
		rc = writer_finish(c->writer, &vm, c->digest, report, err);
	json_decref(vm.files);
	json_decref((json_t *)vm.config);
	return rc;
}

/* Visible, when that is said. */
static int commit(struct checkpoint *c, json_t *report, struct error *err)
{
	uint64_t epoch = writer_epoch(c->writer);
	int rc = steps_ask(c->request->steps, "written",
			   json_pack("{s:I, s:o, s:O}", "epoch", (json_int_t)epoch, "digest",
				     manifest_digest_json(c->digest), "bytes",
				     json_object_get(report, "bytes")),
			   STEPS_COMMIT, err);

	if (rc == 0)
		rc = steps_await(c->request->steps, STEPS_COMMIT, -1, err);
	if (rc > 0)
		rc = writer_publish(c->writer, err);
	if (rc < 0)
		return rc;
	if (c->resumed == 0)
		c->resumed = resume_vm(c, true, &c->why_not);
	if (c->resumed < 0)
		return error_set(err, c->resumed, "epoch %" PRIu64 " is written, but: %s", epoch,
				 c->why_not.text);
	add_to_report(c, epoch, checkpoint_keep_log(c, epoch), report);
	return 0;
}

static int run(struct checkpoint *c, const json_t *status, json_t **report, struct error *err)
{
	CLEANUP_FREE uint8_t *state = NULL;
	size_t size = 0;
	int rc = prepare(c, err);

	if (rc == 0)
		rc = cut(c, &state, &size, err);
	if (rc == 0)
		rc = let_run(c, err);
	if (rc == 0)
		rc = finish(c, status, state, size, report, err);
	return rc < 0 ? rc : commit(c, *report, err);
}

int operation_checkpoint(const struct checkpoint_request *request, json_t **report,
			 struct error *err)
{
	struct checkpoint c = {.request = request,
			       .vmm = {.fd = -1},
			       .memory = {.fd = -1},
			       .store = {.dir = -1, .lock = -1},
			       .track = {.fd = -1},
			       .rate = CHECKPOINT_RATE_GUESS,
			       .rounds = json_array()};
	json_t *status = NULL;
	int rc = vmm_connect(request->control, &c.vmm, err);

	*report = NULL;
	if (rc == 0)
		rc = examine(&c, &status, err);
	if (rc == 0)
		rc = begin(&c, err);
	if (rc == 0)
		rc = run(&c, status, report, err);
	if (rc < 0)
		track_give_back(&c.track);
	if (c.paused)
		resume_vm(&c, false, NULL);
	/* What the VMM still does for us ends with the connection. */
	vmm_close(&c.vmm);
	brake_done(&c.brake);
	if (c.machine)
		c.machine->ops->close(c.machine);
	writer_destroy(c.writer);
	store_close(&c.store);
	disks_close(&c.disks);
	cleanup_close_fd(&c.memory.fd);
	track_done(&c.track);
	free(c.changed);
	json_decref(c.rounds);
	json_decref(c.saved);
	json_decref(status);
	if (rc < 0) {
		json_decref(*report);
		*report = NULL;
	}
	return rc;
}
