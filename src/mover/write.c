/* SPDX-License-Identifier: Apache-2.0 */
/* The writer of epochs: what it begins with, and its end. */

#include "mover/write.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "mover/epoch.h"
#include "mover/page.h"
#include "mover/write-parts.h"

int writer_no_memory(struct error *err)
{
	return error_set(err, -ENOMEM, "out of memory");
}

/* Checks the parent and takes its identity. */
static int link_parent(struct writer *w, struct error *err)
{
	struct manifest parent;
	int rc;

	if (!w->options.parent)
		return 0;
	rc = epoch_manifest(w->store, w->options.parent, &parent, err);
	if (rc < 0)
		return rc;
	memcpy(w->parent, parent.identity, sizeof(w->parent));
	if (parent.memory != w->options.memory)
		rc = error_set(err, -EINVAL,
			       "epoch %" PRIu64 " has %" PRIu64 " bytes of memory, not %" PRIu64
			       ": write a full one",
			       parent.epoch, parent.memory, w->options.memory);
	manifest_done(&parent);
	return rc;
}

static int make_lanes(struct writer *w, struct error *err)
{
	w->threads = w->options.threads ? w->options.threads : work_threads(w->options.memory);
	if (w->threads > INDEX_MAX_FILES)
		w->threads = INDEX_MAX_FILES;
	w->lane = calloc(w->threads, sizeof(*w->lane));
	if (!w->lane)
		return writer_no_memory(err);
	for (unsigned i = 0; i < w->threads; i++)
		w->lane[i].file.fd = -1;
	for (unsigned i = 0; i < w->threads && w->options.compression; i++)
		if (posix_memalign((void **)&w->lane[i].scratch, PAGE_BYTES, CHUNK_BYTES) ||
		    compressor_create(w->options.compression, &w->lane[i].compressor) < 0)
			return writer_no_memory(err);
	return 0;
}

static int create(const struct store *store, const struct writer_options *options, uint64_t epoch,
		  bool replace, struct writer **ret, struct error *err)
{
	struct writer *w = calloc(1, sizeof(*w));
	int rc;

	if (!w)
		return writer_no_memory(err);
	w->store = store;
	w->options = *options;
	w->epoch = epoch;
	w->replace = replace;
	w->dir = -1;
	w->created = io_now_ns();
	rc = link_parent(w, err);
	if (rc == 0)
		rc = make_lanes(w, err);
	if (rc == 0) {
		w->dir = store_begin(store, epoch, err);
		rc = w->dir < 0 ? w->dir : 0;
	}
	if (rc < 0)
		writer_destroy(w);
	else
		*ret = w;
	return rc;
}

int writer_create(const struct store *store, const struct writer_options *options,
		  struct writer **ret, struct error *err)
{
	CLEANUP_FREE uint64_t *epochs = NULL;
	size_t n;
	int rc;

	if (!options->memory || options->memory % PAGE_BYTES || options->memory > INDEX_MAX_MEMORY)
		return error_set(err, -EINVAL, "memory of %" PRIu64 " bytes is not in pages",
				 options->memory);
	rc = store_epochs(store, &epochs, &n, err);
	return rc < 0 ? rc : create(store, options, n ? epochs[n - 1] + 1 : 1, false, ret, err);
}

int writer_replace(const struct store *store, const struct writer_options *options, uint64_t epoch,
		   struct writer **ret, struct error *err)
{
	return create(store, options, epoch, true, ret, err);
}

void writer_destroy(struct writer *w)
{
	if (!w)
		return;
	for (unsigned i = 0; w->lane && i < w->threads; i++) {
		pagefile_done(&w->lane[i].file);
		free(w->lane[i].scratch);
		compressor_destroy(w->lane[i].compressor);
		free(w->lane[i].rows);
	}
	free(w->lane);
	if (w->dir >= 0 && !w->committed)
		store_abort(w->store, w->epoch);
	cleanup_close_fd(&w->dir);
	free(w);
}

uint64_t writer_epoch(const struct writer *w)
{
	return w->epoch;
}

int writer_dir(const struct writer *w)
{
	return w->dir;
}

void writer_gentle(struct writer *w, bool gentle)
{
	w->gentle = gentle;
}
