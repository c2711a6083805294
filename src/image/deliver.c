/* SPDX-License-Identifier: Apache-2.0 */
/* An image that is brought here. */

#include "image/deliver.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image/image.h"
#include "image/progress.h"
#include "image/flow.h"
#include "image/store.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/paths.h"
#include "lib/wire.h"

#define NAME_KEPT 50 /* of a name that gets a part of the digest behind it */
#define DIGEST_KEPT 12

static int no_memory(struct error *err)
{
	return error_set(err, -ENOMEM, "out of memory");
}

static int find_store(const struct image_wish *wish, char **ret, struct error *err)
{
	struct stat st;

	if (!wish->into)
		return paths_image(NULL, ret, err);
	if (wish->into[0] != '/')
		return error_set(err, -EINVAL, "%s is no absolute path", wish->into);
	if (stat(wish->into, &st) < 0)
		return error_errno(err, -errno, "cannot find %s", wish->into);
	if (!S_ISDIR(st.st_mode))
		return error_errno(err, -ENOTDIR, "%s", wish->into);
	*ret = strdup(wish->into);
	return *ret ? 0 : no_memory(err);
}

/* 1: that image, 0: none, -EEXIST: another one. */
static int look_at_name(const struct delivery *d, const char *name)
{
	CLEANUP_FREE char *folder = io_format("%s/%s", d->store, name);
	char digest[DIGEST_TEXT];
	struct image image;
	int rc;

	if (!folder || access(folder, F_OK) < 0)
		return 0;
	if (image_open_folder(name, folder, IMAGE_OWN, &image, NULL) < 0)
		return -EEXIST;
	rc = image_digest(image.manifest, digest, NULL);
	image_close(&image);
	return rc == 0 && !strcmp(digest, d->result.digest) ? 1 : -EEXIST;
}

/* One of the user's own by any name, when no name is asked for. */
static bool is_own(struct delivery *d)
{
	CLEANUP_FREE char *reference = io_format("@sha256:%s", d->result.digest);
	struct image image;
	bool own;

	if (d->wish->name || d->wish->into || !reference || image_open(reference, &image, NULL) < 0)
		return false;
	own = image.place == IMAGE_OWN;
	if (own)
		snprintf(d->result.name, sizeof(d->result.name), "%s", image.name);
	image_close(&image);
	return own;
}

/* Chooses a name, or finds that it is there. wanted: the manifest's, or NULL before that has come.
 */
static int choose_name(struct delivery *d, const char *wanted, struct error *err)
{
	const char *name = d->wish->name ? d->wish->name : wanted;
	int found;

	if (is_own(d)) {
		d->result.was_there = true;
		return 0;
	}
	if (!name)
		return 0;
	snprintf(d->result.name, sizeof(d->result.name), "%s", name);
	found = look_at_name(d, d->result.name);
	if (found == -EEXIST && d->any_name && !d->wish->name && !d->wish->replace) {
		snprintf(d->result.name, sizeof(d->result.name), "%.*s-%.*s", NAME_KEPT, name,
			 DIGEST_KEPT, d->result.digest);
		found = look_at_name(d, d->result.name);
	}
	d->result.was_there = found == 1;
	if (found < 0 && !d->wish->replace)
		return error_set(err, -EEXIST,
				 "image %s is there already, with another content (--name gives "
				 "this one another name, --replace puts it in place of that one)",
				 d->result.name);
	return 0;
}

int deliver_begin(const struct image_wish *wish, bool any_name, const char *digest,
		  struct delivery *ret, struct error *err)
{
	struct delivery d = {.wish = wish, .any_name = any_name};
	int rc = wish->name ? paths_check_name(wish->name, "image", err) : 0;

	memcpy(d.result.digest, digest, DIGEST_TEXT);
	if (rc == 0)
		rc = find_store(wish, &d.store, err);
	if (rc == 0)
		rc = choose_name(&d, NULL, err);
	if (rc == 0 && !d.result.was_there)
		rc = arrival_begin(d.store, digest, wish->progress, &d.arrival, err);
	else
		d.arrival.lock = -1;
	/* Somebody may have brought it meanwhile. */
	if (rc == 0 && !d.result.was_there) {
		rc = choose_name(&d, NULL, err);
		if (rc < 0 || d.result.was_there)
			arrival_end(&d.arrival);
	}
	if (rc < 0)
		free(d.store);
	else
		*ret = d;
	return rc;
}

static void tell(const struct delivery *d)
{
	uint64_t total = d->arrival.chunks.bytes;
	/* All but the last chunks of parts have one size. */
	uint64_t done = total - (uint64_t)d->arrival.missing * CHUNK_SIZE;
	CLEANUP_FREE char *text = NULL;

	if (d->arrival.missing && done > total)
		done = 0;
	if (d->wish->tell)
		d->wish->tell(d->wish->arg, done, total);
	if (d->wish->progress)
		text = io_format("%s: %llu of %llu MiB", d->result.name,
				 (unsigned long long)(done >> 20),
				 (unsigned long long)(total >> 20));
	if (text)
		progress_now(d->wish->progress, text);
}

int deliver_take(struct delivery *d, const void *data, size_t size, struct error *err)
{
	struct wire_reader r = wire_reader(data, size);
	uint32_t n = wire_get_u32(&r);
	const void *manifest = wire_get_bytes(&r, n);
	const char *name;
	int rc;

	if (!wire_ok(&r))
		return error_set(err, -EPROTO, "an image without a manifest");
	rc = arrival_take(&d->arrival, manifest, n, r.data + r.pos, r.size - r.pos, err);
	if (rc < 0)
		return rc;
	name = json_string_value(json_object_get(d->arrival.chunks.manifest, "name"));
	if (!name || paths_check_name(name, "image", NULL) < 0)
		name = "image";
	d->result.bytes = d->arrival.chunks.bytes;
	rc = choose_name(d, name, err);
	if (d->result.was_there)
		arrival_drop(&d->arrival);
	if (rc < 0 || d->result.was_there)
		return rc;
	rc = arrival_fill(&d->arrival, err);
	if (rc == 0)
		tell(d);
	return rc;
}

int deliver_put(struct delivery *d, const struct flow_record *record, struct error *err)
{
	struct wire_reader r = wire_reader(record->data, record->size);
	uint32_t i = wire_get_u32(&r), missing = d->arrival.missing;
	int rc;

	if (!wire_ok(&r))
		return error_set(err, -EPROTO, "a chunk without a number");
	rc = arrival_put(&d->arrival, i, r.data + r.pos, r.size - r.pos, err);
	if (rc < 0 || d->arrival.missing == missing)
		return rc;
	d->result.brought += r.size - r.pos;
	tell(d);
	return 0;
}

int deliver_commit(struct delivery *d, struct error *err)
{
	/* A name that was free may have been taken since. */
	return arrival_commit(&d->arrival, d->result.name, d->wish->replace, err);
}

void deliver_end(struct delivery *d)
{
	if (d->arrival.folder)
		arrival_end(&d->arrival);
	free(d->store);
	d->store = NULL;
}
