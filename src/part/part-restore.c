/* SPDX-License-Identifier: Apache-2.0 */
/* One VM from a checkpoint, in an errand of its own. */

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/args.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/paths.h"
#include "part/begin.h"
#include "part/volume.h"
#include "vms/record.h"
#include "vms/restore-disks.h"
#include "vms/saved.h"

/* What the coordinator's manifest has of it. */
struct source {
	const char *folder, *digest;
	uint64_t epoch;
	bool force;
};

static int parse(const struct begin *b, struct source *ret, struct error *err)
{
	const json_t *from = json_object_get(json_object_get(b->request, "from"), b->vm->name);
	json_int_t epoch = json_integer_value(json_object_get(from, "epoch"));

	*ret = (struct source){.folder = record_text(from, "folder"),
			       .digest = record_text(from, "digest"),
			       .epoch = (uint64_t)epoch,
			       .force = json_is_true(json_object_get(b->request, "force"))};
	return *ret->folder == '/' && epoch > 0
		       ? 0
		       : error_set(err, -EINVAL,
				   "\"from\" has no absolute \"folder\" and \"epoch\" of it");
}

/* Its environment says where its disks are; those that live as long as it are made anew. */
static int put_disks(const struct begin *b, const struct source *source, struct args *made,
		     struct error *err)
{
	uint64_t epoch = source->epoch;
	json_t *files = NULL, *disk;
	struct args paths = {0};
	size_t i;
	int r = saved_read(source->folder, &epoch, NULL, &files, err);

	json_array_foreach (json_object_get(b->spec, "disks"), i, disk) {
		const char *path = record_text(disk, "path");

		if (json_is_true(json_object_get(disk, "own")) && !r) {
			unlink(path);
			r = volume_make_folder_of(path, err);
		}
		if (!json_is_true(json_object_get(disk, "readonly")))
			args_add(&paths, "%s", path);
	}
	if (!r) {
		const struct restore_disks request = {.dir = source->folder,
						      .epoch = epoch,
						      .files = files,
						      .given = &paths,
						      .force = source->force};

		r = restore_disks(&request, b->spec, made, err);
	}
	args_done(&paths);
	json_decref(files);
	return r;
}

static int load(const struct source *source, const char *dir, json_t **ret, struct error *err)
{
	CLEANUP_FREE char *program = NULL;
	CLEANUP_FREE char *report = NULL;
	struct args args = {0};
	int r = paths_program("wisp-mover", &program, err);

	if (r)
		return r;
	args_add(&args, "%s", program);
	args_add(&args, "restore");
	args_add(&args, "--control=%s/" VM_CONTROL, dir);
	args_add(&args, "--dir=%s", source->folder);
	args_add(&args, "--at=%" PRIu64, source->epoch);
	if (*source->digest)
		args_add(&args, "--digest=%s", source->digest);
	if (source->force)
		args_add(&args, "--force");
	args_add(&args, "--paused");
	args_add(&args, "--json");
	args_add(&args, "--progress=none");
	r = args.failed ? error_set(err, -ENOMEM, "out of memory")
			: errand_run((const char *const *)args.v, &report, err);
	args_done(&args);
	if (r)
		return r > 0 ? -EIO : r;
	*ret = json_loads(report, 0, NULL);
	return 0;
}

int restore_one(int talk, void *arg, json_t **ret, struct error *err)
{
	const struct begin *b = arg;
	const struct vms_network network = part_network(b->part);
	CLEANUP_FREE char *dir = NULL;
	json_t *config = NULL;
	struct source source;
	struct args made = {0};
	int guard = -1, r = parse(b, &source, err);

	if (!r)
		r = put_disks(b, &source, &made, err);
	if (!r) {
		json_object_set_new(b->spec, "incoming", json_true());
		r = begin_vm(b, &config, err);
	}
	if (!r)
		r = vms_guard(network.name, b->vm->name, true, NULL, &guard, err);
	if (!r)
		r = vms_dir(b->vm->name, &dir, err);
	if (!r)
		r = load(&source, dir, ret, err);
	/* What has not come to its end the network's keeper ends, and so does the part. */
	if (r)
		restore_disks_undo(&made);
	else
		vms_release(&guard);
	json_decref(config);
	args_done(&made);
	return r;
}
