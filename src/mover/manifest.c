/* SPDX-License-Identifier: Apache-2.0 */
/* Manifests of epochs. */

#include "mover/manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "mover/index.h"

#define TEMPORARY MANIFEST_NAME ".tmp"
#define MANIFEST_MAX (16u << 20)
#define DUMP_FLAGS (JSON_SORT_KEYS | JSON_INDENT(1))

/* The digest is of the text without the field "digest". json is left without it. */
static int digest_of(json_t *json, char ret[DIGEST_TEXT], struct error *err)
{
	CLEANUP_FREE char *text = NULL;

	json_object_del(json, "digest");
	text = json_dumps(json, DUMP_FLAGS);
	if (!text)
		return error_set(err, -ENOMEM, "out of memory for a manifest");
	return digest_bytes(text, strlen(text), ret, err);
}

static int check_digest(json_t *json, const char *text, size_t size, const char *name,
			struct error *err)
{
	CLEANUP_FREE char *again = NULL;
	char digest[DIGEST_TEXT];
	int rc = digest_of(json, digest, err);

	if (rc < 0)
		return rc;
	json_object_set_new(json, "digest", json_string(digest));
	again = json_dumps(json, DUMP_FLAGS);
	if (!again)
		return error_set(err, -ENOMEM, "out of memory for a manifest");
	if (strlen(again) != size || memcmp(again, text, size))
		return error_set(err, -EBADMSG, "%s is damaged or was edited (its digest is %s)",
				 name, digest);
	return 0;
}

static bool get_u64(const json_t *object, const char *key, uint64_t *ret)
{
	const json_t *value = json_object_get(object, key);

	*ret = (uint64_t)json_integer_value(value);
	return json_is_integer(value) && json_integer_value(value) >= 0;
}

static bool get_digest(const json_t *object, const char *key, char ret[DIGEST_TEXT])
{
	const char *text = json_string_value(json_object_get(object, key));

	if (!text || strlen(text) != DIGEST_TEXT - 1 ||
	    strspn(text, "0123456789abcdef") != DIGEST_TEXT - 1)
		return false;
	memcpy(ret, text, DIGEST_TEXT);
	return true;
}

/* Counts the disks: their names become names of files. */
static bool get_disks(const json_t *files, size_t *n)
{
	char digest[DIGEST_TEXT];
	const char *name;
	json_t *file;
	uint64_t size;

	json_object_foreach ((json_t *)files, name, file) {
		if (strncmp(name, MANIFEST_DISK, strlen(MANIFEST_DISK)))
			continue;
		if (strlen(name) > MANIFEST_DISK_MAX || strchr(name, '/') ||
		    !get_u64(file, "size", &size) || !get_digest(file, "sum", digest))
			return false;
		++*n;
	}
	return true;
}

static bool get_files(struct manifest *m)
{
	const json_t *files = json_object_get(m->json, "files");
	const json_t *index = json_object_get(files, "index");
	size_t disks = 0, n;

	if (!get_disks(files, &disks))
		return false;
	n = json_object_size(files) - disks;
	if (!get_u64(index, "size", &m->index_size) ||
	    !get_digest(index, "sha256", m->index_sha256) || n > INDEX_MAX_FILES + 1)
		return false;
	m->files = (uint32_t)n - 1;
	m->file_size = calloc(n, sizeof(*m->file_size));
	for (uint32_t i = 0; i < m->files; i++) {
		char name[32];

		snprintf(name, sizeof(name), "pages.%u", i);
		if (!m->file_size ||
		    !get_u64(json_object_get(files, name), "size", &m->file_size[i]))
			return false;
	}
	return m->file_size;
}

static bool get_fields(struct manifest *m)
{
	const json_t *parent = json_object_get(m->json, "parent");
	const char *kind = json_string_value(json_object_get(m->json, "kind"));

	if (!get_u64(m->json, "epoch", &m->epoch) || !m->epoch ||
	    !get_digest(m->json, "identity", m->identity) ||
	    !get_u64(m->json, "memory", &m->memory) || !get_u64(m->json, "state", &m->state) ||
	    !get_files(m) || !kind)
		return false;
	if (json_is_null(parent))
		return !strcmp(kind, "full");
	return !strcmp(kind, "incremental") && get_u64(parent, "epoch", &m->parent_epoch) &&
	       get_digest(parent, "identity", m->parent) && m->parent_epoch &&
	       m->parent_epoch < m->epoch;
}

int manifest_parse(const char *text, size_t size, const char *name, struct manifest *ret,
		   struct error *err)
{
	struct manifest m = {0};
	json_error_t reason;
	int rc = 0;

	m.json = json_loadb(text, size, JSON_REJECT_DUPLICATES, &reason);
	if (!json_is_object(m.json))
		rc = error_set(err, -EBADMSG, "%s is damaged: %s", name,
			       m.json ? "it is no object" : reason.text);
	else if (json_integer_value(json_object_get(m.json, "format")) != MANIFEST_FORMAT)
		rc = error_set(err, -EPROTONOSUPPORT,
			       "%s is not of format %d: use the version of Wisp that wrote it",
			       name, MANIFEST_FORMAT);
	else
		rc = check_digest(m.json, text, size, name, err);
	if (rc == 0 && !get_fields(&m))
		rc = error_set(err, -EBADMSG, "%s lacks a field or has a wrong one", name);
	if (rc < 0)
		manifest_done(&m);
	else
		*ret = m;
	return rc;
}

int manifest_read(int dir, const char *name, struct manifest *ret, struct error *err)
{
	CLEANUP_CLOSE int fd = openat(dir, MANIFEST_NAME, O_RDONLY | O_CLOEXEC);
	CLEANUP_FREE char *text = NULL;
	struct stat st;
	int rc;

	if (fd < 0 || fstat(fd, &st) < 0)
		return error_errno(err, -errno, "cannot open %s", name);
	if (!S_ISREG(st.st_mode) || st.st_size > MANIFEST_MAX)
		return error_set(err, -EBADMSG, "%s is no manifest", name);
	text = malloc((size_t)st.st_size + 1);
	if (!text)
		return error_set(err, -ENOMEM, "%s: out of memory", name);
	rc = io_read_full(fd, text, (size_t)st.st_size);
	if (rc < 0)
		return error_errno(err, rc, "cannot read %s", name);
	return manifest_parse(text, (size_t)st.st_size, name, ret, err);
}

int manifest_write(int dir, json_t *json, struct error *err)
{
	CLEANUP_FREE char *text = NULL;
	CLEANUP_CLOSE int fd = -1;
	char digest[DIGEST_TEXT];
	int rc = digest_of(json, digest, err);

	if (rc < 0)
		return rc;
	json_object_set_new(json, "digest", json_string(digest));
	text = json_dumps(json, DUMP_FLAGS);
	if (!text)
		return error_set(err, -ENOMEM, "out of memory for a manifest");
	fd = openat(dir, TEMPORARY, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return error_errno(err, -errno, "cannot make %s", TEMPORARY);
	rc = io_write_full(fd, text, strlen(text));
	if (rc == 0 && fsync(fd) < 0)
		rc = -errno;
	if (rc == 0 && renameat(dir, TEMPORARY, dir, MANIFEST_NAME) < 0)
		rc = -errno;
	return rc < 0 ? error_errno(err, rc, "cannot write %s", MANIFEST_NAME) : 0;
}

void manifest_done(struct manifest *manifest)
{
	json_decref(manifest->json);
	free(manifest->file_size);
	*manifest = (struct manifest){0};
}
