/* SPDX-License-Identifier: Apache-2.0 */
/* Marks of images whose every byte was checked: CACHE/verified/SHA256-OF-THE-FOLDER.json. */

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "image/image.h"
#include "image/manifest.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/paths.h"

/* A file may have changed twice in one tick of its clock. */
#define YOUNG_NS 2000000000LL

static long long nanoseconds(const struct timespec *t)
{
	return t->tv_sec * 1000000000LL + t->tv_nsec;
}

/* What the file is now; *young: it has been changed a moment ago. */
static json_t *look(const struct image *image, const char *part, bool *young)
{
	CLEANUP_FREE char *path = io_format("%s/%s", image->folder, part);
	struct timespec now;
	struct stat st;

	if (!path || stat(path, &st) < 0)
		return NULL;
	clock_gettime(CLOCK_REALTIME, &now);
	*young |= nanoseconds(&st.st_ctim) > nanoseconds(&now) - YOUNG_NS;
	return json_pack("{s:I, s:I, s:I, s:I}", "size", (json_int_t)st.st_size, "mtime",
			 (json_int_t)nanoseconds(&st.st_mtim), "ctime",
			 (json_int_t)nanoseconds(&st.st_ctim), "inode", (json_int_t)st.st_ino);
}

/* The mark that it would get now, a new reference; NULL: none. */
static json_t *state_of(const struct image *image, bool *young)
{
	char digest[DIGEST_TEXT];
	json_t *state, *parts;

	if (image_digest(image->manifest, digest, NULL) < 0)
		return NULL;
	state = json_pack("{s:s, s:s, s:{}}", "folder", image->folder, "digest", digest, "parts");
	parts = json_object_get(state, "parts");
	for (const char *const *part = image_parts; *part; part++)
		if (json_object_set_new(parts, *part, look(image, *part, young)) < 0) {
			json_decref(state);
			return NULL;
		}
	return state;
}

static char *mark_path(const struct image *image)
{
	CLEANUP_FREE char *folder = NULL;
	char name[DIGEST_TEXT];

	if (digest_bytes(image->folder, strlen(image->folder), name, NULL) < 0 ||
	    paths_cache("verified", NULL, &folder, NULL) < 0)
		return NULL;
	return io_format("%s/%s.json", folder, name);
}

static bool has_mark(const char *path, const json_t *state)
{
	json_t *mark = path && state ? json_load_file(path, JSON_REJECT_DUPLICATES, NULL) : NULL;
	bool same = mark && json_equal(mark, state);

	json_decref(mark);
	return same;
}

/* Without one the next check is not cheap, and nothing worse. */
static void write_mark(const char *path, const json_t *state)
{
	CLEANUP_FREE char *text = json_dumps(state, JSON_INDENT(1));

	if (path && text)
		io_write_file(path, text, strlen(text), NULL);
}

int image_verify_once(const struct image *image, struct error *err)
{
	CLEANUP_FREE char *path = mark_path(image);
	bool young = false;
	json_t *before = state_of(image, &young), *after = NULL;
	int rc = 0;

	if (!has_mark(path, before)) {
		rc = image_verify(image, err);
		if (rc == 0)
			after = state_of(image, &young);
		if (after && before && !young && json_equal(before, after))
			write_mark(path, after);
	}
	json_decref(before);
	json_decref(after);
	return rc;
}
