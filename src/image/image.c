/* SPDX-License-Identifier: Apache-2.0 */
/* The store of guest images. */

#include "image/image.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "env/result.h"
#include "image/manifest.h"
#include "image/tree.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/paths.h"

const char *const image_parts[] = {"vmlinux", "vmlinuz", "initrd", "root.squashfs", NULL};

static int no_memory(struct error *err)
{
	return error_set(err, -ENOMEM, "out of memory");
}

static int check_part(const struct image *image, const char *part, struct error *err)
{
	const json_t *entry = json_object_get(json_object_get(image->manifest, "parts"), part);
	CLEANUP_FREE char *path = io_format("%s/%s", image->folder, part);
	struct stat st;

	if (!path)
		return no_memory(err);
	if (!json_string_value(json_object_get(entry, "sha256")))
		return error_set(err, -EBADMSG, "image %s: its manifest has no digest of %s",
				 image->name, part);
	if (stat(path, &st) < 0)
		return error_errno(err, -errno, "image %s: %s", image->name, path);
	if (st.st_size != json_integer_value(json_object_get(entry, "size")))
		return error_set(err, -EBADMSG,
				 "image %s: %s has %lld bytes, not the %lld of its manifest: build "
				 "it again",
				 image->name, part, (long long)st.st_size,
				 (long long)json_integer_value(json_object_get(entry, "size")));
	return 0;
}

static int load_manifest(struct image *image, struct error *err)
{
	CLEANUP_FREE char *path = io_format("%s/manifest.json", image->folder);
	json_error_t reason;

	if (!path)
		return no_memory(err);
	if (access(image->folder, F_OK) < 0)
		return error_set(err, -ENOENT,
				 "no image %s (\"wisp image list\" shows those there are, \"wisp "
				 "image build SPEC -o %s\" makes it)",
				 image->name, image->name);
	image->manifest = json_load_file(path, JSON_REJECT_DUPLICATES, &reason);
	if (!image->manifest)
		return error_set(err, -EBADMSG, "image %s: %s:%d: %s", image->name, path,
				 reason.line, reason.text);
	if (json_integer_value(json_object_get(image->manifest, "format")) != MANIFEST_FORMAT)
		return error_set(err, -EPROTONOSUPPORT,
				 "image %s was made by another version of wisp: build it again",
				 image->name);
	return 0;
}

int image_open(const char *name, struct image *ret, struct error *err)
{
	struct image image = {0};
	int rc = paths_check_name(name, "image", err);

	if (rc == 0)
		rc = paths_image(name, &image.folder, err);
	if (rc < 0)
		return rc;
	image.name = strdup(name);
	image.vmlinux = io_format("%s/vmlinux", image.folder);
	image.vmlinuz = io_format("%s/vmlinuz", image.folder);
	image.initrd = io_format("%s/initrd", image.folder);
	image.root = io_format("%s/root.squashfs", image.folder);
	if (!image.name || !image.vmlinux || !image.vmlinuz || !image.initrd || !image.root)
		rc = no_memory(err);
	if (rc == 0)
		rc = load_manifest(&image, err);
	for (const char *const *part = image_parts; rc == 0 && *part; part++)
		rc = check_part(&image, *part, err);
	if (rc < 0)
		image_close(&image);
	else
		*ret = image;
	return rc;
}

void image_close(struct image *image)
{
	free(image->name);
	free(image->folder);
	free(image->vmlinux);
	free(image->vmlinuz);
	free(image->initrd);
	free(image->root);
	json_decref(image->manifest);
	*image = (struct image){0};
}

static int verify_part(const struct image *image, const char *part, struct error *err)
{
	const json_t *entry = json_object_get(json_object_get(image->manifest, "parts"), part);
	CLEANUP_FREE char *path = io_format("%s/%s", image->folder, part);
	char digest[DIGEST_TEXT];
	int rc = path ? digest_file(path, digest, NULL, err) : no_memory(err);

	if (rc < 0)
		return rc;
	if (strcmp(digest, json_string_value(json_object_get(entry, "sha256"))))
		return error_set(err, -EBADMSG,
				 "image %s: %s is damaged (SHA-256 is %s): build it again",
				 image->name, part, digest);
	return 0;
}

int image_verify(const char *name, struct error *err)
{
	struct image image;
	int rc = image_open(name, &image, err);

	if (rc < 0)
		return rc;
	for (const char *const *part = image_parts; rc == 0 && *part; part++)
		rc = verify_part(&image, *part, err);
	image_close(&image);
	return rc;
}

static int is_image(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

int image_names(char ***ret, struct error *err)
{
	CLEANUP_FREE char *store = NULL;
	struct dirent **entries;
	char **names;
	int n, rc = paths_image(NULL, &store, err);

	if (rc < 0)
		return rc;
	n = scandir(store, &entries, is_image, alphasort);
	if (n < 0)
		return error_errno(err, -errno, "cannot read %s", store);
	names = calloc((size_t)n + 1, sizeof(*names));
	for (int i = 0; i < n; i++) {
		if (names)
			names[i] = strdup(entries[i]->d_name);
		free(entries[i]);
	}
	free(entries);
	*ret = names;
	return names ? 0 : no_memory(err);
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
		return error_set(err, -ENOENT, "no image %s", name);
	return tree_discard(store, name, err);
}

int image_digest(const json_t *manifest, char ret[DIGEST_TEXT], struct error *err)
{
	json_t *content = json_copy((json_t *)manifest);
	int rc;

	json_object_del(content, "name");
	json_object_del(content, "created");
	json_object_del(content, "builder");
	rc = content ? result_digest(content, ret, err) : no_memory(err);
	json_decref(content);
	return rc;
}

uint64_t image_size(const struct image *image)
{
	const json_t *parts = json_object_get(image->manifest, "parts");
	uint64_t size = 0;

	for (const char *const *part = image_parts; *part; part++)
		size += (uint64_t)json_integer_value(
			json_object_get(json_object_get(parts, *part), "size"));
	return size;
}
