/* SPDX-License-Identifier: Apache-2.0 */
/* The places where images are: the user's folder, those of $WISP_STORE, the site's. */

#include "image/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "image/tree.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/paths.h"

#define NO_IMAGE "(\"wisp image list\" shows those there are"

static int no_memory(struct error *err)
{
	return error_set(err, -ENOMEM, "out of memory");
}

struct places {
	char *own, **others;
	size_t n; /* with the own one */
};

static void places_done(struct places *p)
{
	free(p->own);
	for (char **other = p->others; other && *other; other++)
		free(*other);
	free(p->others);
}

static int places_get(struct places *ret, struct error *err)
{
	struct places p = {0};
	int rc = paths_image(NULL, &p.own, err);

	if (rc == 0)
		rc = paths_stores(&p.others, err);
	if (rc < 0) {
		places_done(&p);
		return rc;
	}
	for (p.n = 1; p.others[p.n - 1];)
		p.n++;
	*ret = p;
	return 0;
}

static const char *place_folder(const struct places *p, size_t i)
{
	return i ? p->others[i - 1] : p->own;
}

static enum image_place place_kind(const struct places *p, size_t i)
{
	return !i ? IMAGE_OWN : i == p->n - 1 ? IMAGE_SITE : IMAGE_STORE;
}

struct reference {
	char *name;	    /* NULL: any */
	const char *digest; /* NULL: any */
};

static int parse_reference(const char *text, struct reference *ret, struct error *err)
{
	const char *at = strchr(text, '@');
	const char *digest = at ? at + strlen("@sha256:") : NULL;
	CLEANUP_FREE char *name = strndup(text, at ? (size_t)(at - text) : strlen(text));
	int rc;

	if (!name)
		return no_memory(err);
	if (at && (strncmp(at, "@sha256:", strlen("@sha256:")) ||
		   strlen(digest) != DIGEST_TEXT - 1 || digest[strspn(digest, "0123456789abcdef")]))
		return error_set(
			err, -EINVAL,
			"image %s: behind \"@\" has to be sha256: and 64 hexadecimal digits", text);
	rc = *name || !at ? paths_check_name(name, "image", err) : 0;
	if (rc == 0)
		*ret = (struct reference){*name ? take_ptr(name) : NULL, digest};
	return rc;
}

static int check_digest(const struct image *image, const char *digest, struct error *err)
{
	char own[DIGEST_TEXT];
	int rc = image_digest(image->manifest, own, err);

	if (rc < 0 || !strcmp(own, digest))
		return rc;
	return error_set(err, -EBADMSG, "image %s has the digest sha256:%s, not sha256:%s (in %s)",
			 image->name, own, digest, image->folder);
}

/* One that may be meant; -ENOENT: there is none. */
static int try_folder(const struct reference *r, const char *name, const char *folder,
		      enum image_place place, struct image *ret, struct error *err)
{
	struct image image;
	int rc;

	if (faccessat(AT_FDCWD, folder, F_OK, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT)
		return -ENOENT;
	rc = image_open_folder(name, folder, place, &image, err);
	if (rc == 0 && r->digest) {
		image.pinned = true;
		rc = check_digest(&image, r->digest, err);
		if (rc < 0)
			image_close(&image);
	}
	if (rc == 0)
		*ret = image;
	/* It is there, whatever is missing in it. */
	return rc == -ENOENT ? -EBADMSG : rc;
}

static int is_image(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

/* The names in a place, sorted; none when there is no such folder. */
static int names_in(const char *folder, struct dirent ***ret, struct error *err)
{
	int n = scandir(folder, ret, is_image, alphasort);

	if (n < 0 && (errno == ENOENT || errno == ENOTDIR)) {
		*ret = NULL;
		return 0;
	}
	return n < 0 ? error_errno(err, -errno, "cannot read %s", folder) : n;
}

/* Any of a place that has the digest; what is wrong with others does not matter. */
static int find_digest(const struct reference *r, const char *place, enum image_place kind,
		       struct image *ret, struct error *err)
{
	struct dirent **entries;
	int rc = -ENOENT, n = names_in(place, &entries, err);

	if (n < 0)
		return n;
	for (int i = 0; i < n; i++) {
		CLEANUP_FREE char *folder = io_format("%s/%s", place, entries[i]->d_name);

		if (rc && folder && try_folder(r, entries[i]->d_name, folder, kind, ret, NULL) == 0)
			rc = 0;
		free(entries[i]);
	}
	free(entries);
	return rc;
}

static int find_name(const struct reference *r, const char *place, enum image_place kind,
		     struct image *ret, struct error *err)
{
	CLEANUP_FREE char *folder = io_format("%s/%s", place, r->name);

	return folder ? try_folder(r, r->name, folder, kind, ret, err) : no_memory(err);
}

static int nothing(const struct reference *r, const char *text, struct error *err)
{
	if (!r->name)
		return error_set(err, -ENOENT, "no image %s " NO_IMAGE ")", text);
	return error_set(err, -ENOENT,
			 "no image %s " NO_IMAGE ", \"wisp image build SPEC -o %s\" makes it)",
			 text, r->name);
}

static int find(const struct places *places, const char *text, const struct reference *r,
		struct image *ret, struct error *err)
{
	int found = -ENOENT;

	for (size_t i = 0; i < places->n; i++) {
		struct error reason = {{0}};
		int rc = (r->name ? find_name : find_digest)(r, place_folder(places, i),
							     place_kind(places, i), ret, &reason);

		if (rc == 0)
			return 0;
		if (rc == -ENOENT)
			continue;
		/* Behind one of the name there may be one that has the digest as well. */
		if (found == -ENOENT)
			found = error_set(err, rc, "%s", reason.text);
		if (!r->digest)
			break;
	}
	return found == -ENOENT ? nothing(r, text, err) : found;
}

int image_open(const char *text, struct image *ret, struct error *err)
{
	struct reference r;
	struct places places;
	int rc = parse_reference(text, &r, err);

	if (rc < 0)
		return rc;
	rc = places_get(&places, err);
	if (rc == 0) {
		rc = find(&places, text, &r, ret, err);
		places_done(&places);
	}
	free(r.name);
	return rc;
}

int image_open_own(const char *name, struct image *ret, struct error *err)
{
	CLEANUP_FREE char *folder = NULL;
	int rc = paths_check_name(name, "image", err);

	if (rc == 0)
		rc = paths_image(name, &folder, err);
	return rc < 0 ? rc : image_open_folder(name, folder, IMAGE_OWN, ret, err);
}

int image_open_entry(const struct image_entry *entry, struct image *ret, struct error *err)
{
	return image_open_folder(entry->name, entry->folder, entry->place, ret, err);
}

static bool is_known(const struct image_entry *entries, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(entries[i].name, name))
			return true;
	return false;
}

/* Adds what a place has. */
static int list_place(const char *place, enum image_place kind, struct image_entry **list,
		      size_t *n, struct error *err)
{
	struct dirent **entries;
	struct image_entry *all;
	int rc = 0, found = names_in(place, &entries, err);

	if (found < 0)
		return found;
	all = realloc(*list, (*n + (size_t)found + 1) * sizeof(*all));
	if (all)
		*list = all;
	for (int i = 0; i < found; i++) {
		const char *name = entries[i]->d_name;

		if (all && !paths_check_name(name, "image", NULL)) {
			all[*n] =
				(struct image_entry){strdup(name), io_format("%s/%s", place, name),
						     kind, is_known(all, *n, name)};
			if (!all[*n].name || !all[*n].folder)
				rc = no_memory(err);
			(*n)++;
		}
		free(entries[i]);
	}
	free(entries);
	return all ? rc : no_memory(err);
}

int image_list(struct image_entry **ret, size_t *n, struct error *err)
{
	struct image_entry *list = NULL;
	struct places places;
	size_t count = 0;
	int rc = places_get(&places, err);

	if (rc < 0)
		return rc;
	for (size_t i = 0; rc == 0 && i < places.n; i++)
		rc = list_place(place_folder(&places, i), place_kind(&places, i), &list, &count,
				err);
	places_done(&places);
	if (rc < 0) {
		image_list_done(list, count);
		return rc;
	}
	*ret = list;
	*n = count;
	return 0;
}

void image_list_done(struct image_entry *entries, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(entries[i].name);
		free(entries[i].folder);
	}
	free(entries);
}

/* Why there is none of the user's own. */
static int refuse_remove(const char *name, struct error *err)
{
	struct image image;
	int rc;

	if (image_open(name, &image, NULL) < 0)
		return error_set(err, -ENOENT, "no image %s", name);
	rc = error_set(err, -EPERM, "image %s is in %s, which is not yours: it is not removed",
		       name, image.folder);
	image_close(&image);
	return rc;
}

int image_remove(const char *name, struct error *err)
{
	CLEANUP_FREE char *store = NULL, *folder = NULL;
	CLEANUP_CLOSE int lock = -1;
	int rc = paths_check_name(name, "image", err);

	if (rc == 0)
		rc = paths_image(NULL, &store, err);
	if (rc == 0)
		rc = paths_image(name, &folder, err);
	if (rc < 0)
		return rc;
	lock = tree_lock(store, err);
	if (lock < 0)
		return lock;
	if (access(folder, F_OK) < 0)
		return refuse_remove(name, err);
	return tree_discard(store, name, err);
}
