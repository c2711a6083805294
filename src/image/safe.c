/* SPDX-License-Identifier: Apache-2.0 */
/* Who could change an image besides root and the user. */

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "image/manifest.h"
#include "image/store.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

#define HELP                                                                              \
	"an image that others than you and root can change is not used: change owner or " \
	"mode, or copy it into a folder of yours (cp -r %s)"

/* Of a folder with the sticky bit only an entry's owner can take it away. */
static int check(const char *name, const char *folder, const char *path, bool sticky_is_good,
		 struct error *err)
{
	struct stat st;

	if (lstat(path, &st) < 0)
		return error_errno(err, -errno, "image %s: %s", name, path);
	if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode))
		return error_set(err, -EPERM, "image %s: %s is neither a file nor a folder", name,
				 path);
	if (st.st_uid != 0 && st.st_uid != geteuid())
		return error_set(err, -EPERM, "image %s: %s belongs to user %u: " HELP, name, path,
				 (unsigned)st.st_uid, folder);
	if ((st.st_mode & (S_IWGRP | S_IWOTH)) &&
	    !(sticky_is_good && S_ISDIR(st.st_mode) && (st.st_mode & S_ISVTX)))
		return error_set(err, -EPERM, "image %s: others can write to %s (mode %04o): " HELP,
				 name, path, st.st_mode & 07777, folder);
	return 0;
}

static int check_files(const char *name, const char *folder, struct error *err)
{
	CLEANUP_FREE char *manifest = io_format("%s/manifest.json", folder);
	int rc = manifest ? check(name, folder, manifest, false, err) : -ENOMEM;

	for (const char *const *part = image_parts; rc == 0 && *part; part++) {
		CLEANUP_FREE char *path = io_format("%s/%s", folder, *part);

		rc = path ? check(name, folder, path, false, err) : -ENOMEM;
	}
	return rc;
}

int image_check_safe(const char *name, const char *folder, enum image_place place,
		     struct error *err)
{
	CLEANUP_FREE char *path = NULL;
	unsigned left = PATH_MAX; /* folders above it to look at */
	struct stat st;
	int rc;

	if (lstat(folder, &st) < 0)
		return error_errno(err, -errno, "image %s: %s", name, folder);
	/* A link of the user's own leads elsewhere. */
	if (place == IMAGE_OWN && !S_ISLNK(st.st_mode))
		left = 1;
	path = place == IMAGE_OWN || !S_ISLNK(st.st_mode) ? realpath(folder, NULL) : strdup(folder);
	if (!path)
		return error_errno(err, -errno, "image %s: %s", name, folder);
	rc = check(name, folder, path, false, err);
	if (rc == 0)
		rc = check_files(name, path, err);
	while (rc == 0 && left-- && *path) {
		*strrchr(path, '/') = '\0';
		rc = check(name, folder, *path ? path : "/", true, err);
	}
	return rc;
}
