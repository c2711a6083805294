/* SPDX-License-Identifier: Apache-2.0 */
/* Manifests of epochs. */

#include "mover/manifest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/error.h"
#include "lib/sealed.h"
#include "mover/index.h"

#define MANIFEST_MAX (16u << 20)

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

	if (json_object_get(m->json, "first") && !get_digest(m->json, "first", m->digest))
		return false;
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

/* Takes over m->json. */
static int take_fields(struct manifest *m, const char *name, struct manifest *ret,
		       struct error *err)
{
	if (!get_fields(m)) {
		manifest_done(m);
		return error_set(err, -EBADMSG, "%s lacks a field or has a wrong one", name);
	}
	*ret = *m;
	return 0;
}

int manifest_parse(const char *text, size_t size, const char *name, struct manifest *ret,
		   struct error *err)
{
	struct manifest m = {0};
	int rc = sealed_parse(text, size, name, MANIFEST_FORMAT, &m.json, m.digest, err);

	return rc < 0 ? rc : take_fields(&m, name, ret, err);
}

int manifest_read(int dir, const char *name, struct manifest *ret, struct error *err)
{
	struct manifest m = {0};
	int rc = sealed_read(dir, MANIFEST_NAME, MANIFEST_MAX, name, MANIFEST_FORMAT, &m.json,
			     m.digest, err);

	return rc < 0 ? rc : take_fields(&m, name, ret, err);
}

int manifest_write(int dir, json_t *json, char digest[DIGEST_TEXT], struct error *err)
{
	return sealed_write(dir, MANIFEST_NAME, json, true, digest, err);
}

json_t *manifest_digest_json(const char digest[DIGEST_TEXT])
{
	return json_sprintf(MANIFEST_DIGEST "%s", digest);
}

int manifest_check_digest(const struct manifest *m, const char *name, const char *wanted,
			  struct error *err)
{
	size_t n = strlen(MANIFEST_DIGEST);

	if (strncmp(wanted, MANIFEST_DIGEST, n) || strlen(wanted + n) != DIGEST_TEXT - 1)
		return error_set(err, -EINVAL,
				 "a digest is " MANIFEST_DIGEST " and 64 hexadecimal digits, not "
				 "\"%.80s\"",
				 wanted);
	if (strcmp(wanted + n, m->digest))
		return error_set(
			err, -ESTALE,
			"%s is not the epoch that was wanted: its digest is " MANIFEST_DIGEST
			"%s, not %s",
			name, m->digest, wanted);
	return 0;
}

void manifest_done(struct manifest *manifest)
{
	json_decref(manifest->json);
	free(manifest->file_size);
	*manifest = (struct manifest){0};
}
