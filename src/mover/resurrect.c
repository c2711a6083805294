/* SPDX-License-Identifier: Apache-2.0 */
/* Restores of a checkpoint into a VMM that waits for one. */

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "mover/chain.h"
#include "mover/disks.h"
#include "mover/lazy.h"
#include "mover/operation.h"
#include "mover/restored.h"
#include "mover/verify.h"
#include "mover/vmm.h"

#define HOLD_MS 60000 /* for another mover to come when this one dies */

static int check_incoming(struct vmm *vmm, struct error *err)
{
	json_t *status = NULL;
	const char *state;
	int rc = vmm_call(vmm, "status", NULL, -1, &status, err);

	if (rc < 0)
		return rc;
	state = json_string_value(json_object_get(status, "state"));
	if (!state || strcmp(state, "incoming"))
		rc = error_set(err, -EBUSY,
			       "the VM is %s: a checkpoint is restored into one that was started "
			       "with --incoming",
			       state ? state : "in no state");
	json_decref(status);
	return rc;
}

static int load(struct vmm *vmm, const struct epoch *epoch, bool elapsed, struct error *err)
{
	CLEANUP_CLOSE int fd = memfd_create("state", MFD_CLOEXEC);
	int rc = fd < 0 ? -errno : 0;

	if (rc == 0)
		rc = io_write_full(fd, epoch->index.state, epoch->index.state_size);
	if (rc < 0)
		return error_errno(err, rc, "cannot hand the state over");
	return vmm_call(vmm, "load", json_pack("{s:s}", "clock", elapsed ? "elapsed" : "frozen"),
			fd, NULL, err);
}

/* The memory of the VM has to be of the same size. */
static int check_memory(const struct vmm_memory *memory, const struct chain *chain, bool lazy,
			struct error *err)
{
	if (memory->size != chain->memory)
		return error_set(err, -EINVAL,
				 "the VM has %" PRIu64 " bytes of memory, the checkpoint %" PRIu64
				 ": start it with the same",
				 memory->size, chain->memory);
	if (lazy && faults_check_page_size(memory->page_size, err) < 0)
		return error_prefix(err, -EOPNOTSUPP, "no restore with --lazy (leave it out)");
	return 0;
}

/* Loads the state and lets the VM run. */
static int start(struct vmm *vmm, const struct chain *chain, const struct restore_request *request,
		 struct error *err)
{
	int rc = load(vmm, &chain->epoch[0], request->elapsed, err);

	if (rc == 0 && !request->leave_paused)
		rc = vmm_call(vmm, "resume", NULL, -1, NULL, err);
	return rc;
}

/* Memory is read whole before a disk loses what it has. */
static int run_eager(struct vmm *vmm, const struct chain *chain,
		     const struct restore_request *request, struct disks_plan *plan,
		     const struct vmm_memory *memory, json_t **report, struct error *err)
{
	json_t *disks = NULL;
	struct restore_report restored;
	uint64_t begin = io_now_ns();
	int rc = chain_restore(chain, memory->fd, 0, request->progress, &restored, err);

	if (rc == 0)
		rc = disks_put(plan, request->progress, &disks, err);
	if (rc == 0)
		rc = start(vmm, chain, request, err);
	if (rc == 0)
		*report = json_pack(
			"{s:I, s:i, s:I, s:I, s:I, s:I, s:O}", "epoch",
			(json_int_t)chain->epoch[0].manifest.epoch, "threads",
			(int)restored.threads, "bytes", (json_int_t)restored.bytes, "memory_ns",
			(json_int_t)restored.ns, "ready_ns", (json_int_t)(io_now_ns() - begin),
			"rate",
			(json_int_t)((double)restored.bytes * 1e9 / (double)(restored.ns + 1)),
			"disks", disks);
	json_decref(disks);
	return rc;
}

/* Whatever was done before: the VM runs, if it is to. */
static int go_on(struct vmm *vmm, const struct chain *chain, const struct restore_request *request,
		 struct error *err)
{
	json_t *status = NULL;
	int rc = vmm_call(vmm, "status", NULL, -1, &status, err);
	const char *state = json_string_value(json_object_get(status, "state"));

	if (rc == 0 && (!state || !strcmp(state, "failed")))
		rc = error_set(err, -EIO, "the VM did not take its state");
	else if (rc == 0 && !strcmp(state, "incoming"))
		rc = start(vmm, chain, request, err);
	else if (rc == 0 && !request->leave_paused)
		rc = vmm_call(vmm, "resume", NULL, -1, NULL, err);
	json_decref(status);
	return rc;
}

/* Serves the VM's faults while it is loaded and runs, until all of its memory is there. */
static int bring(struct vmm *vmm, const struct chain *chain, const struct restore_request *request,
		 struct faults *faults, int memfd, json_t **report, struct error *err)
{
	uint64_t begin = io_now_ns(), ready;
	json_t *waited = NULL;
	struct lazy *lazy;
	int rc = lazy_start(chain, request->control, faults, memfd, &lazy, err);

	if (rc < 0)
		return rc;
	rc = go_on(vmm, chain, request, err);
	ready = io_now_ns() - begin;
	if (rc == 0)
		rc = lazy_finish(lazy, vmm, &waited, err);
	/* Without the rest of its memory it can only end. */
	if (rc < 0)
		faults_end(request->control, err->text, NULL);
	lazy_destroy(lazy);
	if (rc == 0)
		*report = json_pack("{s:I, s:I, s:I, s:o}", "epoch",
				    (json_int_t)chain->epoch[0].manifest.epoch, "ready_ns",
				    (json_int_t)ready, "memory_ns",
				    (json_int_t)(io_now_ns() - begin), "waited", waited);
	return rc;
}

/* That a disk loses what it has is not worth a memory that turns out to be damaged later. */
static int check_pages(const struct chain *chain, const struct progress *progress,
		       struct error *err)
{
	int rc = 0;

	for (unsigned i = 0; rc == 0 && i < chain->n; i++)
		rc = verify_pages(&chain->epoch[i], progress, err);
	return rc;
}

static int run_lazy(struct vmm *vmm, const struct chain *chain,
		    const struct restore_request *request, struct disks_plan *plan,
		    const struct vmm_memory *memory, json_t **report, struct error *err)
{
	struct faults faults;
	json_t *disks = NULL;
	int rc = plan->loses ? check_pages(chain, request->progress, err) : 0;

	if (rc == 0)
		rc = disks_put(plan, request->progress, &disks, err);
	if (rc == 0 && memory->page_size == PAGE_BYTES)
		rc = faults_discard(memory->fd, chain->memory, NULL, err);
	if (rc == 0)
		rc = faults_open(vmm, HOLD_MS, &faults, err);
	if (rc == 0)
		rc = bring(vmm, chain, request, &faults, memory->fd, report, err);
	if (rc == 0)
		json_object_set(*report, "disks", disks);
	json_decref(disks);
	return rc;
}

static int run(struct vmm *vmm, const struct chain *chain, const struct restore_request *request,
	       json_t **report, struct error *err)
{
	struct vmm_memory memory = {.fd = -1};
	struct disks_plan plan = {0};
	enum disks_how how = request->force   ? DISKS_FORCE
			     : request->again ? DISKS_AGAIN
					      : DISKS_KEEP;
	int rc = check_incoming(vmm, err);

	if (rc == 0)
		rc = vmm_memory(vmm, &memory, err);
	if (rc == 0)
		rc = check_memory(&memory, chain, request->lazy, err);
	if (rc == 0)
		rc = disks_plan(vmm, &chain->epoch[0], how, request->progress, &plan, err);
	if (rc == 0)
		rc = (request->lazy ? run_lazy : run_eager)(vmm, chain, request, &plan, &memory,
							    report, err);
	disks_plan_done(&plan);
	cleanup_close_fd(&memory.fd);
	return rc;
}

/* The VM has waited for us since its mover died. */
static int run_held(struct vmm *vmm, const struct chain *chain,
		    const struct restore_request *request, struct faults *faults,
		    const struct vmm_memory *memory, json_t **report, struct error *err)
{
	int rc = check_memory(memory, chain, true, err);

	return rc < 0 ? rc : bring(vmm, chain, request, faults, memory->fd, report, err);
}

/* It waits for nobody: the mover that died had not begun, or had brought everything. */
static int run_whole(struct vmm *vmm, const struct chain *chain,
		     const struct restore_request *request, json_t **report, struct error *err)
{
	int rc = check_incoming(vmm, NULL);

	if (rc == 0)
		return run(vmm, chain, request, report, err);
	rc = go_on(vmm, chain, request, err);
	if (rc == 0)
		*report = json_pack("{s:I}", "epoch", (json_int_t)chain->epoch[0].manifest.epoch);
	return rc;
}

/* Goes on where a mover was that died. */
static int run_again(const struct chain *chain, const struct restore_request *request,
		     json_t **report, struct error *err)
{
	struct vmm_memory memory = {.fd = -1};
	struct faults faults = {.fd = -1};
	struct vmm vmm = {.fd = -1};
	int held = faults_take(request->control, &faults, &memory, err), rc = held;

	/* Before anything is asked of the VMM somebody must serve its faults: bring() does. */
	if (held == 0 || held == -ENOENT)
		rc = vmm_connect(request->control, &vmm, err);
	if (rc == 0 && held == 0)
		rc = run_held(&vmm, chain, request, &faults, &memory, report, err);
	else if (rc == 0)
		rc = run_whole(&vmm, chain, request, report, err);
	if (vmm.fd >= 0)
		vmm_close(&vmm);
	faults_close(&faults);
	cleanup_close_fd(&memory.fd);
	return rc;
}

static int run_first(const struct chain *chain, const struct restore_request *request,
		     json_t **report, struct error *err)
{
	struct vmm vmm;
	int rc = vmm_connect(request->control, &vmm, err);

	if (rc < 0)
		return rc;
	rc = run(&vmm, chain, request, report, err);
	vmm_close(&vmm);
	return rc;
}

/* Whoever restores an epoch again shall know. */
static void note(const struct store *store, const struct manifest *epoch, json_t *report)
{
	char last[RESTORED_DATE];
	uint64_t times = restored_before(store, epoch, last);

	if (times)
		json_object_set_new(
			report, "restored_before",
			json_pack("{s:I, s:s}", "times", (json_int_t)times, "last", last));
	restored_note(store, epoch);
}

int operation_restore(const struct restore_request *request, json_t **report, struct error *err)
{
	struct store store;
	struct chain chain;
	int rc = store_open(request->dir, false, &store, err);

	if (rc < 0)
		return rc;
	rc = chain_open(&store, request->epoch, &chain, err);
	if (rc == 0) {
		if (request->digest)
			rc = manifest_check_digest(&chain.epoch[0].manifest, chain.epoch[0].name,
						   request->digest, err);
		if (rc == 0)
			rc = (request->again ? run_again : run_first)(&chain, request, report, err);
		if (rc == 0)
			note(&store, &chain.epoch[0].manifest, *report);
		chain_close(&chain);
	}
	store_close(&store);
	return rc;
}
