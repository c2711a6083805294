/* SPDX-License-Identifier: Apache-2.0 */
/* What is here already. */

#include "image/reuse.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "image/arrival.h"
#include "image/image.h"
#include "image/manifest.h"
#include "image/tree.h"
#include "lib/cleanup.h"
#include "lib/io.h"

#define OLD_S (7 * 24 * 3600)

int reuse_copy(int in, int out)
{
	ssize_t n;

	if (ioctl(out, FICLONE, in) == 0)
		return 0;
	while ((n = sendfile(out, in, NULL, 1u << 30)) > 0)
		;
	return n < 0 ? -errno : 0;
}

static const json_t *part_of(const json_t *manifest, unsigned p)
{
	return json_object_get(json_object_get(manifest, "parts"), image_parts[p]);
}

static bool has_part(const struct image *image, const json_t *wanted, unsigned p)
{
	const json_t *part = part_of(image->manifest, p);

	return json_equal(json_object_get(part, "sha256"), json_object_get(wanted, "sha256")) &&
	       json_equal(json_object_get(part, "size"), json_object_get(wanted, "size"));
}

static bool copy_from(const struct image_entry *entry, const json_t *wanted, unsigned p, int out)
{
	CLEANUP_FREE char *path = io_format("%s/%s", entry->folder, image_parts[p]);
	CLEANUP_CLOSE int in = -1;
	struct image image;
	bool same;

	if (image_open_entry(entry, &image, NULL) < 0)
		return false;
	same = has_part(&image, wanted, p);
	image_close(&image);
	if (same && path)
		in = open(path, O_RDONLY | O_CLOEXEC);
	return in >= 0 && lseek(out, 0, SEEK_SET) == 0 && reuse_copy(in, out) == 0;
}

bool reuse_part(const struct chunks *chunks, unsigned p, int out)
{
	const json_t *wanted = part_of(chunks->manifest, p);
	struct image_entry *list;
	bool copied = false;
	size_t n;

	if (image_list(&list, &n, NULL) < 0)
		return false;
	for (size_t i = 0; !copied && i < n; i++)
		copied = copy_from(&list[i], wanted, p, out);
	image_list_done(list, n);
	return copied;
}

/* When it was last gone on with. */
static time_t time_of(const char *folder)
{
	CLEANUP_FREE char *have = io_format("%s/" ARRIVAL_HAVE, folder);
	struct stat st;

	if (have && (stat(have, &st) == 0 || stat(folder, &st) == 0))
		return st.st_mtime;
	return time(NULL);
}

/* Nobody has it, and while this has it nobody begins. */
static void sweep_one(const char *folder)
{
	CLEANUP_FREE char *path = io_format("%s/" ARRIVAL_LOCK, folder);
	CLEANUP_CLOSE int fd = -1;
	struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

	if (!path || time_of(folder) > time(NULL) - OLD_S)
		return;
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd >= 0 && fcntl(fd, F_OFD_SETLK, &whole) == 0)
		tree_remove(folder, NULL);
}

void reuse_sweep(const char *store, const char *but)
{
	CLEANUP_DIR DIR *dir = opendir(store);
	struct dirent *entry;

	while (dir && (entry = readdir(dir))) {
		CLEANUP_FREE char *folder = io_format("%s/%s", store, entry->d_name);

		if (folder && !strncmp(entry->d_name, ARRIVAL_PREFIX, strlen(ARRIVAL_PREFIX)) &&
		    strcmp(folder, but))
			sweep_one(folder);
	}
}
