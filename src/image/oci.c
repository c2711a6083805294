/* SPDX-License-Identifier: Apache-2.0 */
/* Copies container images into the cache. */

#include "image/oci.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "image/tree.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/paths.h"
#include "lib/process.h"

#define REGISTRY "docker://"

static int no_memory(struct error *err)
{
	return error_set(err, -ENOMEM, "out of memory");
}

static int run(const char *const *argv, char **out, size_t *size, struct error *err)
{
	const int no_input[] = {-1};

	return process_run(
		&(struct process){
			.argv = argv, .fds = no_input, .nfds = 1, .die_with_parent = true},
		out, size, err);
}

static int check_programs(struct error *err)
{
	static const char *const programs[] = {"skopeo", "umoci"};

	for (size_t i = 0; i < ARRAY_SIZE(programs); i++) {
		CLEANUP_FREE char *version = NULL;
		int rc = run((const char *const[]){programs[i], "--version", NULL}, &version, NULL,
			     err);

		if (rc == -ENOENT)
			return error_set(err, rc,
					 "base: oci: needs %s: apt-get install skopeo umoci",
					 programs[i]);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* The reference as skopeo reads it: a new string in *ret. */
static int complete(const char *reference, char **ret, struct error *err)
{
	static const char *const of_paths[] = {"oci:", "oci-archive:", "docker-archive:", "dir:"};
	static const char *const others[] = {REGISTRY, "docker-daemon:", "containers-storage:"};
	bool known = false;

	for (size_t i = 0; i < ARRAY_SIZE(of_paths); i++) {
		size_t n = strlen(of_paths[i]);

		if (strncmp(reference, of_paths[i], n))
			continue;
		if (reference[n] != '/')
			return error_set(err, -EINVAL, "base: oci:%s: the path has to be absolute",
					 reference);
		known = true;
	}
	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		known |= !strncmp(reference, others[i], strlen(others[i]));
	*ret = io_format("%s%s", known ? "" : REGISTRY, reference);
	return *ret ? 0 : no_memory(err);
}

/* Asks for the manifest; its digest is its name in a registry. */
static int ask_digest(const char *from, char ret[DIGEST_TEXT], struct error *err)
{
	CLEANUP_FREE char *manifest = NULL;
	size_t size = 0;
	int rc = run((const char *const[]){"skopeo", "inspect", "--raw", from, NULL}, &manifest,
		     &size, err);

	return rc < 0 ? rc : digest_bytes(manifest, size, ret, err);
}

/* CACHE/oci/ref-SHA256.json: what a reference was last. */
static char *path_of_reference(const char *store, const char *from)
{
	char name[DIGEST_TEXT];

	return digest_bytes(from, strlen(from), name, NULL) < 0
		       ? NULL
		       : io_format("%s/ref-%s.json", store, name);
}

static int remember(const char *store, const char *from, const char *digest, struct error *err)
{
	CLEANUP_FREE char *path = path_of_reference(store, from), *text = NULL;
	json_t *json = json_pack("{s:s, s:s}", "reference", from, "digest", digest);

	text = json ? json_dumps(json, JSON_INDENT(1)) : NULL;
	json_decref(json);
	return path && text ? io_write_file(path, text, strlen(text), err) : no_memory(err);
}

/* The digest that a reference had last, when that image is in the cache. */
static bool recall(const char *store, const char *from, char ret[DIGEST_TEXT])
{
	CLEANUP_FREE char *path = path_of_reference(store, from), *entry = NULL;
	json_t *json = path ? json_load_file(path, 0, NULL) : NULL;
	const char *digest = json_string_value(json_object_get(json, "digest"));
	bool known = digest && strlen(digest) == DIGEST_TEXT - 1 &&
		     !digest[strspn(digest, "0123456789abcdef")];

	if (known)
		strcpy(ret, digest);
	json_decref(json);
	entry = known ? io_format("%s/%s", store, ret) : NULL;
	return entry && !access(entry, F_OK);
}

/* A tag may move meanwhile: of a registry exactly the one is fetched that was asked about. */
static char *pinned(const char *from, const char *digest)
{
	const char *name = from + strlen(REGISTRY), *slash, *colon;
	size_t n;

	if (strncmp(from, REGISTRY, strlen(REGISTRY)))
		return strdup(from);
	n = strcspn(name, "@");
	slash = memrchr(name, '/', n);
	colon = memrchr(name, ':', n);
	if (colon && (!slash || colon > slash))
		n = (size_t)(colon - name);
	return io_format(REGISTRY "%.*s@sha256:%s", (int)n, name, digest);
}

static int copy(const char *store, const char *from, const char *digest, struct error *err)
{
	CLEANUP_FREE char *tmp = NULL, *source = pinned(from, digest), *to = NULL;
	int rc = source ? tree_begin(store, digest, &tmp, err) : no_memory(err);

	if (rc < 0)
		return rc;
	to = io_format("oci:%s/layout:image", tmp);
	rc = to ? run((const char *const[]){"skopeo", "copy", "--quiet", source, to, NULL}, NULL,
		      NULL, err)
		: no_memory(err);
	if (rc == 0)
		rc = tree_commit(store, digest, tmp, err);
	else
		tree_remove(tmp, NULL);
	return rc;
}

/* Copies it unless it is there. */
static int provide(const char *store, const char *from, const char *digest, bool refresh,
		   struct error *err)
{
	CLEANUP_FREE char *entry = io_format("%s/%s", store, digest);
	CLEANUP_CLOSE int lock = tree_lock(store, err);
	int rc = 0;

	if (lock < 0)
		return lock;
	if (!entry)
		return no_memory(err);
	if (refresh || access(entry, F_OK) < 0)
		rc = copy(store, from, digest, err);
	return rc < 0 ? rc : remember(store, from, digest, err);
}

static int get(const char *store, const char *from, bool refresh, struct oci *oci,
	       struct error *err)
{
	struct error reason;
	int rc = ask_digest(from, oci->digest, &reason);

	if (rc == 0)
		rc = provide(store, from, oci->digest, refresh, &reason);
	if (rc < 0 && !recall(store, from, oci->digest))
		return error_set(err, rc, "base: oci: %s: %s", from, reason.text);
	if (rc < 0) {
		oci->note = io_format("%s is the cached one: %s", from, reason.text);
		if (!oci->note)
			return no_memory(err);
	}
	oci->layout = io_format("%s/%s/layout", store, oci->digest);
	return oci->layout ? 0 : no_memory(err);
}

int oci_get(const char *reference, bool refresh, struct oci *ret, struct error *err)
{
	CLEANUP_FREE char *from = NULL, *store = NULL;
	struct oci oci = {0};
	int rc = complete(reference, &from, err);

	if (rc == 0)
		rc = check_programs(err);
	if (rc == 0)
		rc = paths_cache("oci", NULL, &store, err);
	if (rc == 0)
		rc = get(store, from, refresh, &oci, err);
	if (rc < 0)
		oci_done(&oci);
	else
		*ret = oci;
	return rc;
}

void oci_done(struct oci *oci)
{
	free(oci->layout);
	free(oci->note);
	*oci = (struct oci){0};
}
