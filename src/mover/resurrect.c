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
#include "mover/operation.h"
#include "mover/vmm.h"

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

static int fill(struct vmm *vmm, const struct chain *chain, const struct restore_request *request,
		struct restore_report *restored, struct error *err)
{
	struct vmm_memory memory;
	int rc = vmm_memory(vmm, &memory, err);

	if (rc < 0)
		return rc;
	if (memory.size != chain->memory)
		rc = error_set(err, -EINVAL,
			       "the VM has %" PRIu64 " bytes of memory, the checkpoint %" PRIu64
			       ": start it with the same",
			       memory.size, chain->memory);
	else
		rc = chain_restore(chain, memory.fd, 0, request->progress, restored, err);
	close(memory.fd);
	return rc;
}

static int run(struct vmm *vmm, const struct chain *chain, const struct restore_request *request,
	       json_t **report, struct error *err)
{
	struct restore_report restored = {0};
	uint64_t start = io_now_ns(), loaded;
	int rc = check_incoming(vmm, err);

	if (rc == 0)
		rc = fill(vmm, chain, request, &restored, err);
	loaded = io_now_ns();
	if (rc == 0)
		rc = load(vmm, &chain->epoch[0], request->elapsed, err);
	loaded = io_now_ns() - loaded;
	if (rc == 0 && !request->leave_paused)
		rc = vmm_call(vmm, "resume", NULL, -1, NULL, err);
	if (rc == 0)
		*report = json_pack(
			"{s:I, s:i, s:I, s:I, s:I, s:I, s:I}", "epoch",
			(json_int_t)chain->epoch[0].manifest.epoch, "threads",
			(int)restored.threads, "bytes", (json_int_t)restored.bytes, "memory_ns",
			(json_int_t)restored.ns, "load_ns", (json_int_t)loaded, "total_ns",
			(json_int_t)(io_now_ns() - start), "rate",
			(json_int_t)((double)restored.bytes * 1e9 / (double)(restored.ns + 1)));
	return rc;
}

int operation_restore(const struct restore_request *request, json_t **report, struct error *err)
{
	struct store store;
	struct chain chain;
	struct vmm vmm;
	int rc = store_open(request->dir, false, &store, err);

	if (rc < 0)
		return rc;
	rc = chain_open(&store, request->epoch, &chain, err);
	store_close(&store);
	if (rc < 0)
		return rc;
	rc = vmm_connect(request->control, &vmm, err);
	if (rc == 0) {
		rc = run(&vmm, &chain, request, report, err);
		vmm_close(&vmm);
	}
	chain_close(&chain);
	return rc;
}
