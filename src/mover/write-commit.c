/* SPDX-License-Identifier: Apache-2.0 */
/* Makes an epoch of what was written: the index, the manifest, and then it can be seen. */

#include "mover/write.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "mover/manifest.h"
#include "mover/page.h"
#include "mover/write-parts.h"

static int run_finish(struct work *work, unsigned thread, struct error *err)
{
	struct writer *w = work->arg;
	uint64_t i;

	while ((i = work->next++) < w->threads) {
		int rc = w->lane[i].file.buf ? pagefile_finish(&w->lane[i].file, err) : 0;

		if (rc < 0)
			return error_prefix(err, rc, "checkpoint %s", w->store->path);
	}
	return 0;
}

static int compare_rows(const void *a, const void *b)
{
	const struct numbered_row *x = a, *y = b;

	if (x->row.chunk != y->row.chunk)
		return x->row.chunk < y->row.chunk ? -1 : 1;
	return (x->round > y->round) - (x->round < y->round);
}

/* All rows, in order. */
static int collect_rows(const struct writer *w, struct index *index, struct error *err)
{
	CLEANUP_FREE struct numbered_row *all = NULL;
	size_t n = 0;

	for (unsigned i = 0; i < w->threads; i++)
		n += w->lane[i].nrows;
	all = malloc((n + 1) * sizeof(*all));
	index->rows = malloc((n + 1) * sizeof(*index->rows));
	if (!all || !index->rows)
		return writer_no_memory(err);
	n = 0;
	for (unsigned i = 0; i < w->threads; i++) {
		if (w->lane[i].nrows)
			memcpy(all + n, w->lane[i].rows, w->lane[i].nrows * sizeof(*all));
		n += w->lane[i].nrows;
	}
	qsort(all, n, sizeof(*all), compare_rows);
	for (size_t i = 0; i < n; i++)
		index->rows[i] = all[i].row;
	index->nrows = n;
	return 0;
}

/* Writes the index file and tells its digest. */
static int write_index(struct writer *w, struct index *index, char sha256[DIGEST_TEXT],
		       uint64_t *size, struct error *err)
{
	CLEANUP_CLOSE int fd = openat(w->dir, "index", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	char path[64];
	int rc;

	if (fd < 0)
		return error_errno(err, -errno, "cannot make an index in %s", w->store->path);
	rc = index_write(fd, index, err);
	if (rc == 0 && fsync(fd) < 0)
		rc = error_errno(err, -errno, "cannot sync the index");
	if (rc < 0)
		return error_prefix(err, rc, "checkpoint %s", w->store->path);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return digest_file(path, sha256, size, err);
}

static json_t *files_json(const struct writer *w, const char *sha256, uint64_t index_size)
{
	json_t *files = json_pack("{s:{s:I, s:s}}", "index", "size", (json_int_t)index_size,
				  "sha256", sha256);

	for (unsigned i = 0; i < w->threads; i++)
		if (w->lane[i].file.buf)
			json_object_set_new(
				files, w->lane[i].file.name,
				json_pack("{s:I}", "size", (json_int_t)w->lane[i].file.written));
	return files;
}

static json_t *report_json(const struct writer *w, uint64_t index_size)
{
	uint64_t pages = 0, zero = 0, bytes = index_size, total = io_now_ns() - w->created;
	bool direct = false;

	for (unsigned i = 0; i < w->threads; i++) {
		pages += w->lane[i].pages;
		zero += w->lane[i].zero;
		bytes += w->lane[i].file.written;
		direct |= w->lane[i].file.buf && w->lane[i].file.direct;
	}
	return json_pack("{s:I, s:I, s:I, s:I, s:b, s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "threads",
			 (json_int_t)w->threads, "pages", (json_int_t)pages, "zero_pages",
			 (json_int_t)zero, "bytes", (json_int_t)bytes, "direct", direct,
			 "compression", compression_name(w->options.compression), "rounds",
			 (json_int_t)w->round, "scan_ns", (json_int_t)w->scan_ns, "pages_ns",
			 (json_int_t)w->pages_ns, "sync_ns", (json_int_t)w->sync_ns, "total_ns",
			 (json_int_t)total, "rate",
			 (json_int_t)((double)pages * PAGE_BYTES * 1e9 / (double)total));
}

static json_t *date_json(uint64_t ns)
{
	time_t t = (time_t)(ns / 1000000000);
	char text[32];
	struct tm tm;

	gmtime_r(&t, &tm);
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
	return json_string(text);
}

/* Syncs the page files and writes the index; fills what the manifest says of the files. */
static int finish_files(struct writer *w, struct index *index, json_t *manifest, json_t **report,
			char sha256[DIGEST_TEXT], struct error *err)
{
	struct work work = {.threads = w->threads,
			    .run = run_finish,
			    .arg = w,
			    .progress = w->options.progress,
			    .what = "syncing"};
	uint64_t start = io_now_ns(), size;
	int rc = work_run(&work, err);

	w->sync_ns = io_now_ns() - start;
	index->memory = w->options.memory;
	index->epoch = w->epoch;
	index->parent_epoch = w->options.parent;
	memcpy(index->parent, w->parent, sizeof(index->parent));
	index->files = w->files;
	if (rc == 0)
		rc = collect_rows(w, index, err);
	if (rc == 0)
		rc = write_index(w, index, sha256, &size, err);
	if (rc < 0)
		return rc;
	*report = report_json(w, size);
	json_object_set_new(manifest, "files", files_json(w, sha256, size));
	json_object_set(manifest, "report", *report);
	return 0;
}

static void add_files(json_t *manifest, json_t *files)
{
	if (files)
		json_object_update(json_object_get(manifest, "files"), files);
}

/* The last file of the folder. */
static int write_manifest(struct writer *w, json_t *manifest, char digest[DIGEST_TEXT],
			  struct error *err)
{
	int rc = manifest_write(w->dir, manifest, digest, err);

	if (rc == 0 && fsync(w->dir) < 0)
		rc = error_errno(err, -errno, "cannot sync the folder of an epoch in %s",
				 w->store->path);
	return rc;
}

int writer_publish(struct writer *w, struct error *err)
{
	int rc = store_commit(w->store, w->epoch, w->replace, err);

	if (rc == 0)
		w->committed = true;
	return rc;
}

static json_t *opaque(const json_t *value)
{
	return value ? json_deep_copy(value) : json_null();
}

int writer_finish(struct writer *w, const struct writer_vm *vm, char digest[DIGEST_TEXT],
		  json_t **ret, struct error *err)
{
	struct index index = {.state = (uint8_t *)vm->state, .state_size = vm->state_size};
	json_t *manifest = json_object(), *report = NULL;
	char identity[DIGEST_TEXT];
	struct timespec now;
	int rc;

	clock_gettime(CLOCK_REALTIME, &now);
	index.time = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
	rc = finish_files(w, &index, manifest, &report, identity, err);
	free(index.rows);
	if (rc == 0) {
		add_files(manifest, vm->files);
		json_object_update_new(
			manifest,
			json_pack("{s:i, s:I, s:s, s:s, s:o, s:o, s:s?, s:o, s:o, s:I, s:I}",
				  "format", MANIFEST_FORMAT, "epoch", (json_int_t)w->epoch, "kind",
				  w->options.parent ? "incremental" : "full", "identity", identity,
				  "parent",
				  w->options.parent ? json_pack("{s:I, s:s}", "epoch",
								(json_int_t)w->options.parent,
								"identity", w->parent)
						    : json_null(),
				  "created", date_json(index.time), "image", vm->image, "config",
				  opaque(vm->config), "cpu", opaque(vm->cpu), "memory",
				  (json_int_t)w->options.memory, "state",
				  (json_int_t)vm->state_size));
		rc = write_manifest(w, manifest, digest, err);
	}
	json_decref(manifest);
	if (rc == 0 && ret)
		*ret = json_incref(report);
	json_decref(report);
	return rc;
}

int writer_commit(struct writer *w, const struct writer_vm *vm, uint64_t *epoch, json_t **report,
		  struct error *err)
{
	char digest[DIGEST_TEXT];
	json_t *what = NULL;
	int rc = writer_finish(w, vm, digest, &what, err);

	if (rc == 0)
		rc = writer_publish(w, err);
	if (rc == 0 && epoch)
		*epoch = w->epoch;
	if (rc == 0 && report)
		*report = json_incref(what);
	json_decref(what);
	return rc;
}

int writer_commit_merged(struct writer *w, const json_t *old, json_t *files, uint64_t time,
			 const void *state, uint64_t state_size, struct error *err)
{
	struct index index = {.state = (uint8_t *)state, .state_size = state_size, .time = time};
	json_t *manifest = json_deep_copy(old), *report = NULL;
	char sha256[DIGEST_TEXT], digest[DIGEST_TEXT];
	int rc = manifest ? finish_files(w, &index, manifest, &report, sha256, err)
			  : writer_no_memory(err);

	free(index.rows);
	if (rc == 0) {
		add_files(manifest, files);
		/* The report stays that of the VM's checkpoint: it says what that cost. */
		json_object_set(manifest, "report", json_object_get(old, "report"));
		if (!json_object_get(old, "first"))
			json_object_set(manifest, "first", json_object_get(old, "digest"));
		json_object_set_new(manifest, "kind", json_string("full"));
		json_object_set_new(manifest, "parent", json_null());
		json_object_set_new(manifest, "merged", json_true());
		rc = write_manifest(w, manifest, digest, err);
	}
	if (rc == 0)
		rc = writer_publish(w, err);
	json_decref(manifest);
	json_decref(report);
	return rc;
}
