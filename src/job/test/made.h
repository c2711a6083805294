/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_JOB_TEST_MADE_H
#define WISP_JOB_TEST_MADE_H

/* Checkpoints of a job of two VMs that never ran, for the tests of this folder. */

#include "mover/test/scratch.h"

#include "job/checkpoints.h"
#include "mover/epoch.h"

#define MADE_VMS 2
#define MADE_MEMORY (5ull * CHUNK_BYTES + 3 * PAGE_BYTES)

static const char *const made_names[MADE_VMS] = {"lu-0", "lu-1"};

/* The VMs of a job, with all that their checkpoints are compared with. */
struct made {
	const char *dir;
	struct guest g[MADE_VMS];
	uint64_t parent[MADE_VMS];
};

static inline void made_init(struct made *m, const char *dir)
{
	*m = (struct made){.dir = dir};
	for (unsigned i = 0; i < MADE_VMS; i++)
		guest_init(&m->g[i], MADE_MEMORY);
}

static inline void made_done(struct made *m)
{
	for (unsigned i = 0; i < MADE_VMS; i++)
		guest_done(&m->g[i]);
}

/* Not to be changed: the golden folder was made so. */
static inline void made_advance(struct made *m, unsigned number)
{
	for (unsigned i = 0; i < MADE_VMS; i++) {
		guest_fill(&m->g[i], number % (MADE_MEMORY / PAGE_BYTES), 100 * number + i);
		guest_fill(&m->g[i], 70, 1000 * number + i);
	}
}

static inline void made_name(const char *path, uint64_t epoch, char ret[80])
{
	struct manifest m;
	struct store store;

	ok(store_open(path, false, &store, &err));
	ok(epoch_manifest(&store, epoch, &m, &err));
	snprintf(ret, 80, MANIFEST_DIGEST "%s", m.digest);
	manifest_done(&m);
	store_close(&store);
}

/* An epoch of each VM, incremental or not; they are in vm, whose texts are for free_vms(). */
static inline void made_epochs(struct made *m, const struct checkpoints *c, bool incremental,
			       struct job_vm vm[MADE_VMS])
{
	for (unsigned i = 0; i < MADE_VMS; i++) {
		char *folder, *path, digest[80];
		uint64_t epoch;

		ok(checkpoints_vm(c, made_names[i], &folder, &path, &err));
		epoch = guest_save(&m->g[i], path, incremental ? m->parent[i] : 0,
				   COMPRESSION_NONE);
		m->parent[i] = epoch;
		made_name(path, epoch, digest);
		vm[i] = (struct job_vm){.name = made_names[i],
					.address = i ? "10.78.0.3" : "10.78.0.2",
					.mac = i ? "02:00:0a:4e:00:03" : NULL,
					.node = "node1",
					.folder = folder,
					.epoch = epoch,
					.digest = strdup(digest),
					.cut_at = 1700000000000000000 + 5000 * i,
					.pause_ns = 12345678};
		free(path);
	}
}

static inline void made_free(struct job_vm vm[MADE_VMS])
{
	for (unsigned i = 0; i < MADE_VMS; i++) {
		free((char *)vm[i].folder);
		free((char *)vm[i].digest);
	}
}

/* What a manifest of these VMs says; its JSON is for json_decref(). */
static inline struct job_manifest made_manifest(uint64_t sequence, const struct job_vm *vm)
{
	static const struct job_task task = {.vm = "lu-0", .id = "main", .out = 4711, .err = 0};
	struct job_manifest m = {
		.sequence = sequence,
		.job = "0123456789abcdef0123456789abcdef",
		.cluster = "lu",
		.subnet = "10.78.0.0/24",
		.environment = json_pack("{s:s, s:i}", "name", "lu", "vms", 2),
		.documents =
			json_pack("[{s:s, s:s}]", "name", "lu.yaml", "text", "name: lu\nvms: 2\n"),
		.vm = vm,
		.vms = MADE_VMS,
		.task = &task,
		.tasks = 1,
	};

	memset(m.environment_digest, 'a', DIGEST_TEXT - 1);
	if (sequence > 1) {
		m.parent = sequence - 1;
		memset(m.parent_digest, 'b', DIGEST_TEXT - 1);
	}
	return m;
}

static inline void made_manifest_free(struct job_manifest *m)
{
	json_decref((json_t *)m->environment);
	json_decref((json_t *)m->documents);
}

/* The next checkpoint of the job. */
static inline void made_checkpoint(struct made *m, const struct checkpoints *c, uint64_t sequence,
				   bool incremental)
{
	struct job_vm vm[MADE_VMS];
	struct job_manifest manifest;

	made_advance(m, (unsigned)sequence);
	made_epochs(m, c, incremental, vm);
	manifest = made_manifest(sequence, vm);
	ok(job_manifest_write(c->dir, &manifest, &err));
	made_manifest_free(&manifest);
	made_free(vm);
}

/* Each byte of each checkpoint; they are these. */
static inline void made_check(const struct checkpoints *c, const uint64_t *wanted, size_t n)
{
	CLEANUP_FREE uint64_t *found = NULL;
	struct checkpoints_verified verified = {0};
	size_t got;

	ok(checkpoints_list(c, &found, &got, &err));
	assert_int_equal(got, n);
	for (size_t i = 0; i < n; i++) {
		struct job_manifest m;
		uint64_t bytes;

		assert_int_equal(found[i], wanted[i]);
		ok(checkpoints_read(c, found[i], &m, &err));
		for (size_t k = 0; k < m.vms; k++)
			ok(checkpoints_verify_vm(c, &m.vm[k], &verified, NULL, &bytes, &err));
		job_manifest_done(&m);
	}
	free(verified.seen);
}

#endif
