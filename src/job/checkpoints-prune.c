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
	uint64_t sequence; /* of the manifest */
};

struct prune {
	const struct checkpoints *c;
	const struct progress *progress;
	struct checkpoints_removed *report; /* or NULL */
	json_t *unread;			    /* why some cannot be read; NULL: that ends it */
	bool beside;			    /* one that cannot be read */
	uint64_t *sequence;		    /* of all checkpoints that can be read */
	size_t n, gone;			    /* the first so many go */
	struct named *named;		    /* by these */
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
		named->sequence = m->sequence;
	}
	return 0;
}

/* 1: it is one that can be read; 0: it is left alone. */
static int read_one(struct prune *p, uint64_t sequence, struct error *err)
{
	struct job_manifest m;
	struct error why = {""};
	int rc = checkpoints_read(p->c, sequence, &m, &why);

	if (rc < 0 && (!p->unread || rc == -ENOMEM)) {
		error_set(err, rc, "%s", why.text);
		return error_prefix(err, rc, "nothing was removed");
	}
	if (rc < 0) {
		json_array_append_new(p->unread, json_string(why.text));
		p->beside = true;
		return 0;
	}
	rc = note_named(p, &m, err);
	job_manifest_done(&m);
	return rc < 0 ? rc : 1;
}

/* All are read, also those that go: who cannot be read may be what somebody needs. */
static int read_all(struct prune *p, uint64_t keep, struct error *err)
{
	size_t all, used = 0;
	int rc = checkpoints_list(p->c, &p->sequence, &all, err);

	for (size_t i = 0; rc >= 0 && i < all; i++) {
		rc = read_one(p, p->sequence[i], err);
		if (rc > 0)
			p->sequence[used++] = p->sequence[i];
	}
	p->n = used;
	p->gone = used > keep ? used - (size_t)keep : 0;
	return rc < 0 ? rc : 0;
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

static bool goes(const struct prune *p, const struct named *named)
{
	return p->gone && named->sequence <= p->sequence[p->gone - 1];
}

/* The epochs of a folder that are named by what stays: a new list. */
static uint64_t *named_in(const struct prune *p, const char *folder, size_t *n)
{
	uint64_t *epochs = calloc(p->nnamed + 1, sizeof(*epochs));

	*n = 0;
	for (size_t i = 0; epochs && i < p->nnamed; i++)
		if (!goes(p, &p->named[i]) && !strcmp(p->named[i].folder, folder))
			epochs[(*n)++] = p->named[i].epoch;
	return epochs;
}

/* Who cannot be read may name any epoch of a folder but those of what goes: all of them stay. */
static int add_unknown(const struct prune *p, const struct store *store, const char *folder,
		       uint64_t **epochs, size_t *n, struct error *err)
{
	uint64_t *all;
	size_t nall, used = 0;
	int rc = store_epochs(store, &all, &nall, err);

	if (rc < 0)
		return rc;
	for (size_t i = 0; i < nall; i++) {
		bool known = false;

		for (size_t k = 0; k < p->nnamed && !known; k++)
			known = goes(p, &p->named[k]) && p->named[k].epoch == all[i] &&
				!strcmp(p->named[k].folder, folder);
		if (!known)
			all[used++] = all[i];
	}
	free(*epochs);
	*epochs = all;
	*n = used;
	return 0;
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
	if (p->beside)
		rc = add_unknown(p, &store, folder, &keep, &n, err);
	if (rc == 0)
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

static int run(struct prune *p, uint64_t keep, struct error *err)
{
	int rc = read_all(p, keep, err);

	if (rc == 0)
		rc = remove_manifests(p, err);
	if (rc == 0)
		rc = prune_vms(p, err);
	prune_done(p);
	return rc;
}

int checkpoints_prune(const struct checkpoints *c, uint64_t keep, const struct progress *progress,
		      struct checkpoints_removed *ret, struct error *err)
{
	struct prune p = {.c = c, .progress = progress, .report = ret};

	if (ret)
		*ret = (struct checkpoints_removed){0};
	if (!keep)
		return error_set(err, -EINVAL,
				 "at least one checkpoint is kept: remove %s itself to remove all",
				 c->path);
	return run(&p, keep, err);
}

int checkpoints_tidy(const struct checkpoints *c, uint64_t keep, const struct progress *progress,
		     json_t *unread, struct error *err)
{
	struct prune p = {.c = c, .progress = progress, .unread = unread};

	return run(&p, keep ? keep : UINT64_MAX, err);
}
