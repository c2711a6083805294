/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Removes checkpoints of a job: first what names epochs, then the epochs that nothing names. So
 * what is named is there, whenever it ends.
 */

#include "job/checkpoints.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/paths.h"
#include "mover/merge.h"

/* An epoch that a manifest names. */
struct named {
	char folder[80];
	uint64_t epoch;
};

struct prune {
	const struct checkpoints *c;
	const struct progress *progress;
	struct checkpoints_removed *report; /* or NULL */
	uint64_t *sequence;		    /* of all checkpoints */
	size_t n, gone;			    /* the first so many go */
	struct named *named;		    /* of those that stay */
	size_t nnamed;
};

static void prune_done(struct prune *p)
{
	free(p->sequence);
	free(p->named);
}

static int note_named(struct prune *p, const struct job_manifest *m, struct error *err)
{
	struct named *bigger = realloc(p->named, (p->nnamed + m->vms) * sizeof(*bigger));

	if (!bigger)
		return error_set(err, -ENOMEM, "out of memory");
	p->named = bigger;
	for (size_t i = 0; i < m->vms; i++) {
		struct named *named = &p->named[p->nnamed++];

		snprintf(named->folder, sizeof(named->folder), "%s", m->vm[i].folder);
		named->epoch = m->vm[i].epoch;
	}
	return 0;
}

/* All are read, also those that go: who cannot be read may be what somebody needs. */
static int read_all(struct prune *p, uint64_t keep, struct error *err)
{
	int rc = checkpoints_list(p->c, &p->sequence, &p->n, err);

	p->gone = rc == 0 && p->n > keep ? p->n - (size_t)keep : 0;
	for (size_t i = 0; rc == 0 && i < p->n; i++) {
		struct job_manifest m;

		rc = checkpoints_read(p->c, p->sequence[i], &m, err);
		if (rc < 0)
			return error_prefix(err, rc, "nothing was removed");
		if (i >= p->gone)
			rc = note_named(p, &m, err);
		job_manifest_done(&m);
	}
	return rc;
}

static int remove_manifests(struct prune *p, struct error *err)
{
	const struct checkpoints *c = p->c;

	if (p->report) {
		p->report->sequence = calloc(p->gone + 1, sizeof(uint64_t));
		if (!p->report->sequence)
			return error_set(err, -ENOMEM, "out of memory");
	}
	for (size_t i = 0; i < p->gone; i++) {
		CLEANUP_FREE char *name = io_format(CHECKPOINTS_FILE, p->sequence[i]);

		if (!name)
			return error_set(err, -ENOMEM, "out of memory");
		if (unlinkat(c->dir, name, 0) < 0)
			return error_errno(err, -errno, "cannot remove %s/%s", c->path, name);
		if (p->report)
			p->report->sequence[p->report->n++] = p->sequence[i];
	}
	if (p->gone && fsync(c->dir) < 0)
		return error_errno(err, -errno, "cannot sync %s", c->path);
	return 0;
}

/* The epochs of a folder that are named: a new list. */
static uint64_t *named_in(const struct prune *p, const char *folder, size_t *n)
{
	uint64_t *epochs = calloc(p->nnamed + 1, sizeof(*epochs));

	*n = 0;
	for (size_t i = 0; epochs && i < p->nnamed; i++)
		if (!strcmp(p->named[i].folder, folder))
			epochs[(*n)++] = p->named[i].epoch;
	return epochs;
}

static void add_to_report(struct prune *p, const struct merge_report *merged)
{
	if (!p->report)
		return;
	p->report->epochs += (unsigned)merged->nremoved;
	p->report->merged += merged->merged;
}

/* Nobody needs it any more; where something else is in it, it stays. */
static void remove_folder(const char *path)
{
	CLEANUP_FREE char *lock = io_format("%s/.lock", path);

	if (lock && unlink(lock) == 0)
		rmdir(path);
}

static int prune_vm(struct prune *p, const char *name, struct error *err)
{
	CLEANUP_FREE char *folder = io_format(CHECKPOINTS_VMS "/%s", name);
	CLEANUP_FREE char *path = io_format("%s/" CHECKPOINTS_VMS "/%s", p->c->path, name);
	CLEANUP_FREE uint64_t *keep = NULL;
	struct merge_report merged = {0};
	struct store store;
	size_t n = 0;
	int rc;

	if (folder && path)
		keep = named_in(p, folder, &n);
	if (!keep)
		return error_set(err, -ENOMEM, "out of memory");
	rc = store_open(path, true, &store, err);
	if (rc < 0)
		return rc;
	rc = merge_keep(&store, keep, n, p->progress, &merged, err);
	add_to_report(p, &merged);
	free(merged.removed);
	if (rc == 0 && !n)
		remove_folder(path);
	store_close(&store);
	return rc;
}

/* Each folder of a VM; a link is none. */
static int prune_vms(struct prune *p, struct error *err)
{
	int fd =
		openat(p->c->dir, CHECKPOINTS_VMS, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	CLEANUP_DIR DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	int rc = 0;

	if (!d)
		return fd < 0 && errno == ENOENT
			       ? 0
			       : error_errno(err, -errno, "cannot read %s/" CHECKPOINTS_VMS,
					     p->c->path);
	while (rc == 0 && (entry = readdir(d))) {
		struct stat st;

		if (paths_check_name(entry->d_name, "", NULL) == 0 &&
		    fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
		    S_ISDIR(st.st_mode))
			rc = prune_vm(p, entry->d_name, err);
	}
	return rc;
}

int checkpoints_prune(const struct checkpoints *c, uint64_t keep, const struct progress *progress,
		      struct checkpoints_removed *ret, struct error *err)
{
	struct prune p = {.c = c, .progress = progress, .report = ret};
	int rc = keep ? read_all(&p, keep, err)
		      : error_set(err, -EINVAL,
				  "at least one checkpoint is kept: remove %s itself to remove all",
				  c->path);

	if (ret)
		*ret = (struct checkpoints_removed){0};
	if (rc == 0)
		rc = remove_manifests(&p, err);
	if (rc == 0)
		rc = prune_vms(&p, err);
	prune_done(&p);
	return rc;
}

int checkpoints_clean(const struct checkpoints *c, const struct progress *progress,
		      struct error *err)
{
	return checkpoints_prune(c, UINT64_MAX, progress, NULL, err);
}
