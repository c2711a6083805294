/* SPDX-License-Identifier: Apache-2.0 */
/* One guest image in its folder. */

#include "image/image.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "env/result.h"
#include "image/manifest.h"
#include "image/store.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

const char *const image_parts[] = {"vmlinux", "vmlinuz", "initrd", "root.squashfs", NULL};

static int no_memory(struct error *err)
{
	return error_set(err, -ENOMEM, "out of memory");
}

const char *image_place_name(enum image_place place)
{
	static const char *const names[] = {"own", "store", "site"};

	return names[place];
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

int image_open_folder(const char *name, const char *folder, enum image_place place,
		      struct image *ret, struct error *err)
{
	struct image image = {.name = strdup(name), .folder = strdup(folder), .place = place};
	int rc = 0;

	image.vmlinux = io_format("%s/vmlinux", folder);
	image.vmlinuz = io_format("%s/vmlinuz", folder);
	image.initrd = io_format("%s/initrd", folder);
	image.root = io_format("%s/root.squashfs", folder);
	if (!image.name || !image.folder || !image.vmlinux || !image.vmlinuz || !image.initrd ||
	    !image.root)
		rc = no_memory(err);
	if (rc == 0)
		rc = image_check_safe(name, folder, place, err);
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

int image_verify(const struct image *image, struct error *err)
{
	int rc = 0;

	for (const char *const *part = image_parts; rc == 0 && *part; part++)
		rc = verify_part(image, *part, err);
	return rc;
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
