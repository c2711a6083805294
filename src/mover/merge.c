/* SPDX-License-Identifier: Apache-2.0 */
/* Merging and pruning of epochs. */

#include "mover/merge.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "mover/chain.h"
#include "mover/disks.h"
#include "mover/restored.h"
#include "mover/write.h"

struct lane { /* of one thread */
	struct epoch_reader reader;
	uint8_t *chunk;
};

struct merge {
	struct chain chain;
	unsigned threads;
	struct lane *lane;
	uint64_t *bitmap; /* the pages that are not zero */
};

/* A writer_source: the wanted pages of a chunk, of whatever epochs. */
static int read_merged(void *arg, unsigned thread, uint64_t chunk, uint64_t wanted, uint8_t *out,
		       struct error *err)
{
	struct merge *merge = arg;
	struct lane *lane = &merge->lane[thread];
	int rc = chain_read_chunk(&merge->chain, chunk, &lane->reader, lane->chunk, err);

	for (; rc == 0 && wanted; wanted &= wanted - 1, out += PAGE_BYTES)
		memcpy(out, lane->chunk + (size_t)__builtin_ctzll(wanted) * PAGE_BYTES, PAGE_BYTES);
	return rc;
}

static int merge_init(struct merge *merge, struct error *err)
{
	merge->threads = work_threads(merge->chain.memory);
	merge->lane = calloc(merge->threads, sizeof(*merge->lane));
	merge->bitmap = calloc(merge->chain.chunks, sizeof(*merge->bitmap));
	if (!merge->lane || !merge->bitmap)
		return error_set(err, -ENOMEM, "out of memory");
	for (uint64_t c = 0; c < merge->chain.chunks; c++)
		merge->bitmap[c] = chain_pages(&merge->chain, c);
	for (unsigned i = 0; i < merge->threads; i++) {
		int rc = epoch_reader_init(&merge->lane[i].reader, err);

		if (rc < 0)
			return rc;
		if (posix_memalign((void **)&merge->lane[i].chunk, PAGE_BYTES, CHUNK_BYTES))
			return error_set(err, -ENOMEM, "out of memory");
	}
	return 0;
}

static void merge_done(struct merge *merge)
{
	for (unsigned i = 0; merge->lane && i < merge->threads; i++) {
		epoch_reader_done(&merge->lane[i].reader);
		free(merge->lane[i].chunk);
	}
	free(merge->lane);
	free(merge->bitmap);
	chain_close(&merge->chain);
}

static int rewrite(struct merge *merge, const struct store *store, const struct progress *progress,
		   struct error *err)
{
	const struct epoch *epoch = &merge->chain.epoch[0];
	struct writer_options options = {
		.memory = merge->chain.memory, .threads = merge->threads, .progress = progress};
	const char *name = json_string_value(
		json_object_get(json_object_get(epoch->manifest.json, "report"), "compression"));
	struct writer *w;
	json_t *files;
	int rc;

	if (name)
		compression_parse(name, &options.compression, NULL);
	rc = writer_replace(store, &options, epoch->manifest.epoch, &w, err);
	if (rc < 0)
		return rc;
	files = json_object();
	rc = writer_pages_from(w, read_merged, merge, merge->bitmap, err);
	if (rc == 0)
		rc = disks_link(epoch, writer_dir(w), files, err);
	if (rc == 0)
		rc = writer_commit_merged(w, epoch->manifest.json, files, epoch->index.time,
					  epoch->index.state, epoch->index.state_size, err);
	json_decref(files);
	writer_destroy(w);
	return rc;
}

/* It is based on others, or has pages twice, as live epochs do. */
static bool can_shrink(const struct chain *chain)
{
	uint64_t stored = 0, used = 0;

	for (size_t i = 0; i < chain->epoch[0].index.nrows; i++)
		stored += row_pages(&chain->epoch[0].index.rows[i]);
	for (size_t i = 0; i < chain->nsources; i++)
		used += (unsigned)__builtin_popcountll(chain->source[i].pages);
	return chain->n > 1 || stored > used;
}

/* Makes an epoch full in its place, with each page once. 1 when it was so, 0 when it is now. */
static int make_full(const struct store *store, uint64_t epoch, const struct progress *progress,
		     struct error *err)
{
	struct merge merge = {0};
	int rc = chain_open(store, epoch, &merge.chain, err);

	if (rc < 0)
		return rc;
	rc = !can_shrink(&merge.chain);
	if (!rc)
		rc = merge_init(&merge, err);
	if (rc == 0)
		rc = rewrite(&merge, store, progress, err);
	merge_done(&merge);
	return rc;
}

/* The epochs of a store and their parents. */
struct tree {
	uint64_t *epoch, *parent; /* parent 0: full, or gone */
	size_t n;
};

static void tree_done(struct tree *tree)
{
	free(tree->epoch);
	free(tree->parent);
}

static int tree_read(const struct store *store, struct tree *tree, struct error *err)
{
	int rc = store_epochs(store, &tree->epoch, &tree->n, err);

	if (rc < 0)
		return rc;
	tree->parent = calloc(tree->n + 1, sizeof(*tree->parent));
	if (!tree->parent)
		return error_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; i < tree->n; i++) {
		struct manifest m;

		rc = epoch_manifest(store, tree->epoch[i], &m, err);
		if (rc < 0)
			return rc;
		tree->parent[i] = m.parent_epoch;
		manifest_done(&m);
	}
	return 0;
}

static bool tree_needs(const struct tree *tree, uint64_t epoch)
{
	for (size_t i = 0; i < tree->n; i++)
		if (tree->epoch[i] && tree->parent[i] == epoch)
			return true;
	return false;
}

static int remove_one(const struct store *store, struct tree *tree, size_t i,
		      struct merge_report *report, struct error *err)
{
	uint64_t epoch = tree->epoch[i];
	int rc = store_remove(store, epoch, err);

	if (rc < 0)
		return rc;
	restored_forget(store, epoch);
	if (report && report->removed)
		report->removed[report->nremoved++] = epoch;
	tree->epoch[i] = 0;
	return 0;
}

static int begin_report(const struct tree *tree, struct merge_report *report, struct error *err)
{
	if (!report)
		return 0;
	*report = (struct merge_report){.removed = calloc(tree->n + 1, sizeof(uint64_t))};
	return report->removed ? 0 : error_set(err, -ENOMEM, "out of memory");
}

int merge_epoch(const struct store *store, uint64_t epoch, const struct progress *progress,
		struct merge_report *ret, struct error *err)
{
	struct tree tree = {0};
	int rc = tree_read(store, &tree, err);
	uint64_t parent = 0;

	if (rc == 0)
		rc = begin_report(&tree, ret, err);
	if (rc == 0 && !tree.n)
		rc = error_set(err, -ENOENT, "%s has no checkpoint", store->path);
	if (rc == 0 && !epoch)
		epoch = tree.epoch[tree.n - 1];
	if (rc == 0) {
		rc = make_full(store, epoch, progress, err);
		if (rc == 0 && ret)
			ret->merged = 1;
	}
	/* Parents have smaller numbers, so one walk down sees the whole chain. */
	for (size_t i = tree.n; rc >= 0 && i--;) {
		if (tree.epoch[i] == epoch) {
			parent = tree.parent[i];
			tree.parent[i] = 0;
		} else if (tree.epoch[i] == parent && !tree_needs(&tree, parent)) {
			parent = tree.parent[i];
			rc = remove_one(store, &tree, i, ret, err);
		}
	}
	tree_done(&tree);
	return rc < 0 ? rc : 0;
}

static bool is_among(uint64_t epoch, const uint64_t *list, size_t n)
{
	while (n && list[n - 1] != epoch)
		n--;
	return n;
}

/* What stays is whole by itself first; then the rest goes, youngest first. */
static int keep_only(const struct store *store, struct tree *tree, const uint64_t *keep, size_t n,
		     const struct progress *progress, struct merge_report *ret, struct error *err)
{
	int rc = 0;

	for (size_t i = 0; rc >= 0 && i < tree->n; i++) {
		if (!is_among(tree->epoch[i], keep, n) || !tree->parent[i] ||
		    is_among(tree->parent[i], keep, n))
			continue;
		rc = make_full(store, tree->epoch[i], progress, err);
		if (rc == 0 && ret)
			ret->merged++;
	}
	for (size_t i = tree->n; rc >= 0 && i--;)
		if (!is_among(tree->epoch[i], keep, n))
			rc = remove_one(store, tree, i, ret, err);
	return rc < 0 ? rc : 0;
}

int merge_keep(const struct store *store, const uint64_t *keep, size_t n,
	       const struct progress *progress, struct merge_report *ret, struct error *err)
{
	struct tree tree = {0};
	int rc = tree_read(store, &tree, err);

	if (rc == 0)
		rc = begin_report(&tree, ret, err);
	if (rc == 0)
		rc = keep_only(store, &tree, keep, n, progress, ret, err);
	tree_done(&tree);
	return rc;
}

int merge_prune(const struct store *store, unsigned keep, const struct progress *progress,
		struct merge_report *ret, struct error *err)
{
	CLEANUP_FREE uint64_t *epochs = NULL;
	size_t n, gone;
	int rc = store_epochs(store, &epochs, &n, err);

	if (rc < 0)
		return rc;
	if (!keep)
		return error_set(err, -EINVAL,
				 "at least one epoch is kept: remove %s itself to "
				 "remove all",
				 store->path);
	gone = n > keep ? n - keep : 0;
	return merge_keep(store, epochs + gone, n - gone, progress, ret, err);
}
