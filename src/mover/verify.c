/* SPDX-License-Identifier: Apache-2.0 */
/* Verification of epochs. */

#include "mover/verify.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "mover/disks.h"
#include "mover/epoch.h"
#include "mover/page.h"

#define BLOCK 16u /* rows that a thread takes at once */

struct verify {
	const struct epoch *epoch;
	const struct row **row; /* those with data, by place */
	uint64_t nrows;
};

static int by_place(const void *a, const void *b)
{
	const struct row *x = *(const struct row *const *)a, *y = *(const struct row *const *)b;

	if (x->file != y->file)
		return x->file < y->file ? -1 : 1;
	return (x->offset > y->offset) - (x->offset < y->offset);
}

/* Bytes from where the data before end up to the next data, or the end of the file: zeros. */
static int check_gap(const struct epoch *epoch, unsigned file, uint64_t from, uint64_t to,
		     struct error *err)
{
	uint8_t gap[PAGE_BYTES];
	int rc;

	if (to < from || to - from >= PAGE_BYTES)
		return error_set(err, -EBADMSG,
				 "%s/pages.%u: data at byte %" PRIu64 " where byte %" PRIu64
				 " is next",
				 epoch->name, file, to, from);
	rc = io_pread_full(epoch->file[file], gap, to - from, (off_t)from);
	if (rc < 0)
		return error_errno(err, rc, "cannot read %s/pages.%u", epoch->name, file);
	for (uint64_t i = 0; i < to - from; i++)
		if (gap[i])
			return error_set(err, -EBADMSG,
					 "%s/pages.%u is damaged at byte %" PRIu64
					 ", between the data",
					 epoch->name, file, from + i);
	return 0;
}

/* A row, and the gaps around it that are its business: before it, and behind the file's last. */
static int check_row(const struct verify *v, uint64_t i, struct epoch_reader *reader,
		     struct error *err)
{
	const struct row *row = v->row[i];
	const struct row *before = i && v->row[i - 1]->file == row->file ? v->row[i - 1] : NULL;
	bool last = i + 1 == v->nrows || v->row[i + 1]->file != row->file;
	const uint8_t *data;
	int rc = check_gap(v->epoch, row->file, before ? before->offset + before->length : 0,
			   row->offset, err);

	if (rc == 0)
		rc = epoch_read(v->epoch, row, reader, &data, err);
	if (rc == 0 && last)
		rc = check_gap(v->epoch, row->file, row->offset + row->length,
			       v->epoch->manifest.file_size[row->file], err);
	return rc;
}

static int run(struct work *work, unsigned thread, struct error *err)
{
	const struct verify *v = work->arg;
	struct epoch_reader reader;
	int rc = epoch_reader_init(&reader, err);
	uint64_t first;

	while (rc == 0 && (first = atomic_fetch_add(&work->next, BLOCK)) < v->nrows) {
		for (uint64_t i = first; rc == 0 && i < first + BLOCK && i < v->nrows; i++) {
			rc = work_check(work, err);
			if (rc == 0)
				rc = check_row(v, i, &reader, err);
			work->done += v->row[i]->length;
		}
	}
	epoch_reader_done(&reader);
	return rc;
}

/* Files of pages that no row is in are empty. */
static int check_unused(const struct verify *v, struct error *err)
{
	uint32_t n = v->epoch->manifest.files;
	CLEANUP_FREE bool *used = calloc(n + 1, sizeof(*used));

	if (!used)
		return error_set(err, -ENOMEM, "out of memory");
	for (uint64_t i = 0; i < v->nrows; i++)
		used[v->row[i]->file] = true;
	for (uint32_t i = 0; i < n; i++)
		if (!used[i] && v->epoch->manifest.file_size[i])
			return error_set(err, -EBADMSG, "%s/pages.%u: no row is about its data",
					 v->epoch->name, i);
	return 0;
}

int verify_pages(const struct epoch *epoch, const struct progress *progress, struct error *err)
{
	CLEANUP_FREE const struct row **row = malloc((epoch->index.nrows + 1) * sizeof(*row));
	struct verify v = {.epoch = epoch, .row = row};
	struct work work = {.run = run, .arg = &v, .progress = progress, .what = "verifying"};
	int rc;

	if (!row)
		return error_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; i < epoch->index.nrows; i++) {
		if (!epoch->index.rows[i].stored)
			continue;
		row[v.nrows++] = &epoch->index.rows[i];
		work.total += epoch->index.rows[i].length;
	}
	qsort(row, v.nrows, sizeof(*row), by_place);
	work.threads = work_threads(work.total);
	rc = check_unused(&v, err);
	return rc < 0 ? rc : work_run(&work, err);
}

static int check_names(const struct epoch *epoch, struct error *err)
{
	int fd = openat(epoch->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CLEANUP_DIR DIR *d = fd < 0 ? NULL : fdopendir(fd);
	const json_t *files = json_object_get(epoch->manifest.json, "files");
	struct dirent *entry;

	if (!d)
		return error_errno(err, -errno, "cannot read %s", epoch->name);
	while ((entry = readdir(d))) {
		const char *name = entry->d_name;

		if (strcmp(name, ".") && strcmp(name, "..") && strcmp(name, MANIFEST_NAME) &&
		    !json_object_get(files, name))
			return error_set(err, -EBADMSG,
					 "%s/%s does not belong there: its manifest does not "
					 "name it",
					 epoch->name, name);
	}
	return 0;
}

static int check_parent(const struct store *store, const struct epoch *epoch, struct error *err)
{
	const struct manifest *m = &epoch->manifest;
	struct manifest parent;
	int rc;

	if (!m->parent_epoch)
		return 0;
	rc = epoch_manifest(store, m->parent_epoch, &parent, err);
	if (rc < 0)
		return error_prefix(err, rc, "%s: its parent", epoch->name);
	if (strcmp(m->parent, parent.identity) || m->memory != parent.memory)
		rc = error_set(err, -EBADMSG, "%s: epoch %" PRIu64 " is not what it is based on",
			       epoch->name, m->parent_epoch);
	manifest_done(&parent);
	return rc;
}

int verify_epoch(const struct store *store, uint64_t number, const struct progress *progress,
		 uint64_t *bytes, struct error *err)
{
	struct epoch epoch;
	uint64_t disks = 0;
	int rc = epoch_open(store, number, &epoch, err);

	if (rc < 0)
		return rc;
	rc = check_names(&epoch, err);
	if (rc == 0)
		rc = check_parent(store, &epoch, err);
	if (rc == 0)
		rc = verify_pages(&epoch, progress, err);
	if (rc == 0)
		rc = disks_verify(&epoch, progress, &disks, err);
	if (bytes) {
		*bytes = epoch.manifest.index_size + disks;
		for (uint32_t i = 0; i < epoch.manifest.files; i++)
			*bytes += epoch.manifest.file_size[i];
	}
	epoch_close(&epoch);
	return rc;
}
