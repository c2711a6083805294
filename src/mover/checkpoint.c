/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints of a VM that a VMM runs: stopped or live, full or incremental. */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "mover/brake.h"
#include "mover/chain.h"
#include "mover/compare.h"
#include "mover/disks.h"
#include "mover/operation.h"
#include "mover/track.h"
#include "mover/vmm.h"

#define MAX_ROUNDS 30
#define RATE_PAGES 1000	   /* fewer tell nothing of the rate */
#define RATE_GUESS 0.00025 /* pages a nanosecond: 1 GB/s, until it is known */

struct checkpoint {
	const struct checkpoint_request *request;
	struct vmm vmm;
	struct vmm_memory memory;
	struct store store;
	struct writer *writer;
	struct disks disks;
	uint64_t parent;
	uint64_t *changed; /* bitmap: what differs from the parent, or NULL */
	struct track track;
	struct machine *machine; /* for the brake: when its connection ends so does that */
	struct brake brake;
	bool was_running, paused;
	uint64_t pause_start, pause_ns;
	double rate; /* of writing, pages a nanosecond */
	json_t *rounds;
	json_t *saved; /* answer of save */
};

static uint64_t words(const struct checkpoint *c)
{
	return index_chunks(c->memory.size);
}

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

/* Finds what changed since the parent. */
static int compare(struct checkpoint *c, struct error *err)
{
	struct chain chain;
	int rc;

	if (!c->parent)
		return 0;
	c->changed = calloc(words(c), sizeof(*c->changed));
	if (!c->changed)
		return error_set(err, -ENOMEM, "out of memory");
	rc = chain_open(&c->store, c->parent, &chain, err);
	if (rc < 0)
		return error_prefix(err, rc, "incremental on epoch %" PRIu64, c->parent);
	rc = compare_memory(&chain, c->memory.fd, c->request->progress, c->changed, err);
	chain_close(&chain);
	return rc;
}

static int pause_vm(struct checkpoint *c, struct error *err)
{
	int rc;

	if (c->paused)
		return 0;
	c->pause_start = io_now_ns();
	rc = vmm_call(&c->vmm, "pause", json_pack("{s:b}", "hold", 1), -1, NULL, err);
	c->paused = rc == 0;
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

static void note_round(struct checkpoint *c, uint64_t pages, uint64_t ns)
{
	json_array_append_new(c->rounds, json_pack("{s:I, s:I}", "pages", (json_int_t)pages, "ns",
						   (json_int_t)ns));
}

static uint64_t count(const struct checkpoint *c, const uint64_t *bitmap)
{
	uint64_t n = 0;

	for (uint64_t i = 0; i < words(c); i++)
		n += (unsigned)__builtin_popcountll(bitmap[i]);
	return n;
}

/* Writes all of memory, or what is in the bitmap. A round that is long enough tells the rate. */
static int write_round(struct checkpoint *c, const uint64_t *bitmap, struct error *err)
{
	uint64_t pages = bitmap ? count(c, bitmap) : c->memory.size / PAGE_BYTES;
	uint64_t start = io_now_ns(), ns;
	int rc;

	writer_gentle(c->writer, c->was_running && !c->paused);
	rc = writer_pages(c->writer, c->memory.fd, bitmap, err);

	ns = io_now_ns() - start;
	note_round(c, pages, ns);
	if (rc == 0 && pages >= RATE_PAGES)
		c->rate = (double)pages / (double)(ns + 1);
	return rc;
}

/* Everything that is not as in the parent, while the VM runs. */
static int first_round(struct checkpoint *c, uint64_t *pages, struct error *err)
{
	bool known = c->track.on;
	int rc = known ? 0 : track_start(&c->track, err);

	/* Of a new log every page counts as written: that is the round that comes now. */
	if (rc == 0)
		rc = track_collect(&c->track, pages, err);
	if (rc == 0 && !known)
		rc = compare(c, err);
	return rc < 0 ? rc : write_round(c, known ? c->track.dirty : c->changed, err);
}

static int take_brake(struct checkpoint *c, const json_t *status, struct error *err)
{
	int rc;

	if (!c->request->throttle)
		return 0;
	rc = machine_connect(c->request->control, false, &c->machine, err);
	if (rc == 0)
		rc = brake_init(&c->brake, c->machine,
				(unsigned)json_integer_value(json_object_get(status, "vcpus")),
				err);
	if (rc == 0)
		brake_look(&c->brake);
	return rc;
}

static double pause_of(const struct checkpoint *c, uint64_t pages)
{
	return (double)pages / c->rate;
}

/*
 * What was written in the last round would not fit into the pause. Whether another round is of use:
 * what is written becomes less, by itself or because the vCPUs that write are made slower.
 */
static bool goes_on(struct checkpoint *c, unsigned round, uint64_t pages, uint64_t before)
{
	bool slow = pages / 7 > before / 10;

	if (!c->request->throttle)
		return round < 3 || pages <= before / 10 * 9;
	if (round < 2 || !slow)
		return true;
	return brake_more(&c->brake, pages, NULL) == 0 || pages <= before / 10 * 9;
}

static int check_pause(const struct checkpoint *c, uint64_t pages, struct error *err)
{
	double ms = pause_of(c, pages) / 1e6;

	if (!c->request->max_pause_ms || ms <= c->request->max_pause_ms)
		return 0;
	return error_set(err, -EAGAIN,
			 "the VM writes faster than its memory can be written here: it would pause "
			 "for %.0f ms, and %u are allowed (--max-pause)%s",
			 ms, c->request->max_pause_ms,
			 c->request->throttle ? "" : "; --throttle slows it down meanwhile");
}

/*
 * While the VM runs: everything, then again and again what was written meanwhile, until the rest
 * fits into the pause or does not become less.
 */
static int write_live(struct checkpoint *c, struct error *err)
{
	uint64_t pages, before;
	int rc = first_round(c, &pages, err);

	for (unsigned round = 1; rc == 0 && round < MAX_ROUNDS; round++) {
		before = pages;
		rc = track_collect(&c->track, &pages, err);
		if (rc < 0)
			return rc;
		if (c->machine)
			brake_look(&c->brake);
		if (pause_of(c, pages) < c->request->downtime_ms * 1e6 ||
		    !goes_on(c, round, pages, before)) {
			/* The last round is written in the pause, with what comes until then. */
			track_put_back(&c->track);
			break;
		}
		rc = write_round(c, c->track.dirty, err);
	}
	return rc < 0 ? rc : check_pause(c, pages, err);
}

/* In the pause: what is left of memory. */
static int write_rest(struct checkpoint *c, struct error *err)
{
	bool known = c->track.on;
	uint64_t pages;
	int rc = known ? 0 : compare(c, err);

	/* From now on for the next one: what was written before is in this epoch. */
	if (rc == 0 && !known && c->request->track)
		rc = track_start(&c->track, err);
	if (rc == 0 && c->track.on)
		rc = track_collect(&c->track, &pages, err);
	return rc < 0 ? rc : write_round(c, known ? c->track.dirty : c->changed, err);
}

/* Where the VMM has kept a log since the parent, nothing need be compared. */
static int take_log(struct checkpoint *c, struct error *err)
{
	struct manifest parent;
	int rc;

	track_init(&c->track, &c->vmm, words(c));
	/* A full one ends the log that was kept: it is of no use any more. */
	if (!c->parent)
		return track_take(&c->track, "none", err);
	rc = epoch_manifest(&c->store, c->parent, &parent, err);
	if (rc < 0)
		return rc;
	rc = track_take(&c->track, parent.identity, err);
	manifest_done(&parent);
	return rc < 0 ? rc : 0;
}

/* Without a log the next one compares: that it cannot be kept is no failure. */
static bool keep_log(struct checkpoint *c, uint64_t epoch)
{
	struct manifest written;
	int rc;

	if (!c->request->track || epoch_manifest(&c->store, epoch, &written, NULL) < 0)
		return false;
	rc = track_keep(&c->track, written.identity, NULL);
	manifest_done(&written);
	return rc == 0;
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

static void add_to_report(const struct checkpoint *c, uint64_t epoch, json_t *report)
{
	json_object_update_new(
		report, json_pack("{s:I, s:I, s:O, s:o, s:o}", "epoch", (json_int_t)epoch,
				  "pause_ns", (json_int_t)c->pause_ns, "passes", c->rounds, "disks",
				  disks_report(&c->disks), "parent",
				  c->parent ? json_integer((json_int_t)c->parent) : json_null()));
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

/* What the host still has in memory of them would be waited for in the pause. */
static int flush_disks(struct checkpoint *c, struct error *err)
{
	const struct progress *progress = c->request->progress;

	return disks_flush(&c->disks, progress ? progress->cancel : NULL, err);
}

static int run(struct checkpoint *c, const json_t *status, json_t **report, struct error *err)
{
	int resumed;
	struct error reason;
	CLEANUP_FREE uint8_t *state = NULL;
	struct writer_vm vm = {.image = c->request->image};
	json_t *config;
	uint64_t epoch;
	size_t size = 0;
	int rc = take_log(c, err);

	if (rc == 0)
		rc = disks_open(&c->vmm, false, &c->disks, err);
	if (rc == 0)
		rc = flush_disks(c, err);
	if (rc == 0 && c->request->live && c->was_running)
		rc = take_brake(c, status, err);
	if (rc == 0 && c->request->live && c->was_running)
		rc = write_live(c, err);
	if (rc == 0)
		rc = flush_disks(c, err);
	if (rc == 0) {
		rc = pause_vm(c, err);
		brake_release(&c->brake);
	}
	if (rc == 0)
		rc = disks_take(&c->disks, &c->vmm, writer_dir(c->writer), err);
	/* Saving may still write to memory, so it comes first. */
	if (rc == 0)
		rc = save(c, &state, &size, err);
	if (rc == 0)
		rc = write_rest(c, err);
	if (rc < 0)
		return rc;
	/* A VM that is suspended stays as it is until its state is safe. */
	resumed = c->request->leave_paused ? 0 : resume_vm(c, false, &reason);
	config = describe(c, status);
	vm.state = state;
	vm.state_size = size;
	vm.config = config;
	vm.cpu = json_object_get(c->saved, "cpu");
	rc = finish_disks(c, &vm.files, err);
	if (rc == 0)
		rc = writer_commit(c->writer, &vm, &epoch, report, err);
	json_decref(vm.files);
	json_decref(config);
	if (rc < 0)
		return rc;
	if (resumed == 0)
		resumed = resume_vm(c, true, &reason);
	if (resumed < 0)
		return error_set(err, resumed, "epoch %" PRIu64 " is written, but: %s", epoch,
				 reason.text);
	add_to_report(c, epoch, *report);
	json_object_set_new(*report, "throttle", json_integer(brake_most(&c->brake)));
	json_object_set_new(*report, "log_used", json_boolean(*c->track.taken));
	json_object_set_new(*report, "log_kept", json_boolean(keep_log(c, epoch)));
	return 0;
}

int operation_checkpoint(const struct checkpoint_request *request, json_t **report,
			 struct error *err)
{
	struct checkpoint c = {.request = request,
			       .vmm = {.fd = -1},
			       .memory = {.fd = -1},
			       .store = {.dir = -1, .lock = -1},
			       .track = {.fd = -1},
			       .rate = RATE_GUESS,
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
