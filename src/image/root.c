/* SPDX-License-Identifier: Apache-2.0 */
/* Makes the root file system of an image and keeps it in the cache. */

#include "image/root.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "image/base.h"
#include "image/grow.h"
#include "image/pipeline.h"
#include "image/progress.h"
#include "image/sources.h"
#include "image/spec.h"
#include "image/tree.h"
#include "lib/args.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/parse.h"
#include "lib/paths.h"
#include "lib/process.h"

#define RECIPE 2 /* part of the key; to be raised when the same input makes another root */
#define MAX_FILE (1u << 30)

static int no_memory(struct error *err)
{
	return error_set(err, -ENOMEM, "out of memory");
}

/* The mode a file gets. */
static int file_mode(const struct spec_file *file, unsigned *ret, struct error *err)
{
	struct stat st;

	if (stat(file->from, &st) < 0)
		return error_errno(err, -errno, "cannot read %s", file->from);
	if (!S_ISREG(st.st_mode))
		return error_set(err, -EINVAL, "%s is not a regular file", file->from);
	*ret = file->mode ? file->mode : st.st_mode & 0111 ? 0755 : 0644;
	return 0;
}

static int add_file_keys(json_t *array, const struct spec *spec, struct error *err)
{
	for (unsigned i = 0; i < spec->nfiles; i++) {
		const struct spec_file *f = &spec->files[i];
		char digest[DIGEST_TEXT];
		unsigned mode = 0;
		int rc = file_mode(f, &mode, err);

		if (rc == 0)
			rc = digest_file(f->from, digest, NULL, err);
		if (rc < 0)
			return rc;
		json_array_append_new(array, json_pack("[s, s, i]", f->to, digest, (int)mode));
	}
	return 0;
}

static json_t *list_json(char **list)
{
	json_t *array = json_array();

	for (; *list; list++)
		json_array_append_new(array, json_string(*list));
	return array;
}

/* The digest of all that goes into the root. */
static int make_key(const struct spec *spec, const struct base *base, char ret[DIGEST_TEXT],
		    struct error *err)
{
	json_t *files = json_array();
	CLEANUP_FREE char *text = NULL;
	int rc = files ? add_file_keys(files, spec, err) : no_memory(err);
	json_t *key =
		json_pack("{s:i, s:s*, s:s, s:b, s:o, s:o, s:o, s:s*}", "recipe", RECIPE, "release",
			  base->release, "compression", spec->compression, "trim", spec->trim,
			  "packages", list_json(spec->packages), "run", list_json(spec->run),
			  "files", files, "base", base->digest[0] ? base->digest : NULL);

	text = json_dumps(key, JSON_COMPACT | JSON_SORT_KEYS);
	json_decref(key);
	if (rc < 0)
		return rc;
	return text ? digest_bytes(text, strlen(text), ret, err) : no_memory(err);
}

static int archive_file(struct archive *a, const struct spec_file *f, struct error *err)
{
	CLEANUP_FREE char *data = NULL;
	ssize_t size = io_read_file(f->from, MAX_FILE, &data, err);
	struct archive_entry *entry = archive_entry_new();
	unsigned mode = 0;
	int rc = size < 0 ? (int)size : entry ? file_mode(f, &mode, err) : no_memory(err);

	if (rc == 0) {
		archive_entry_set_pathname(entry, f->to + 1);
		archive_entry_set_mode(entry, S_IFREG | mode);
		archive_entry_set_size(entry, size);
		if (archive_write_header(a, entry) != ARCHIVE_OK ||
		    (size && archive_write_data(a, data, (size_t)size) != size))
			rc = error_set(err, -EIO, "%s: %s", f->from, archive_error_string(a));
	}
	archive_entry_free(entry);
	return rc;
}

/* Writes the files of the specification as a tar, which mmdebstrap unpacks in the root. */
static int archive_files(const struct spec *spec, const char *output, struct error *err)
{
	struct archive *a = archive_write_new();
	int rc = a ? 0 : no_memory(err);

	if (rc == 0 && (archive_write_set_format_pax_restricted(a) != ARCHIVE_OK ||
			archive_write_open_filename(a, output) != ARCHIVE_OK))
		rc = error_set(err, -EIO, "%s: %s", output, archive_error_string(a));
	for (unsigned i = 0; rc == 0 && i < spec->nfiles; i++)
		rc = archive_file(a, &spec->files[i], err);
	if (rc == 0 && archive_write_close(a) != ARCHIVE_OK)
		rc = error_set(err, -EIO, "%s: %s", output, archive_error_string(a));
	archive_write_free(a);
	return rc;
}

/* text as one word of a shell. The caller frees it. */
static char *shell_quote(const char *text)
{
	char *quoted = malloc(4 * strlen(text) + 3), *p = quoted;

	if (!quoted)
		return NULL;
	*p++ = '\'';
	for (; *text; text++)
		p = *text == '\'' ? stpcpy(p, "'\\''") : (*p = *text, p + 1);
	strcpy(p, "'");
	return quoted;
}

/* A hook of mmdebstrap: a command around a quoted text. */
static void add_hook(struct args *args, const char *when, const char *before, const char *text,
		     const char *after)
{
	CLEANUP_FREE char *quoted = shell_quote(text);

	if (quoted)
		args_add(args, "--%s-hook=%s%s%s", when, before, quoted, after);
	else
		args->failed = true;
}

static void add_packages(struct args *args, const struct spec *spec)
{
	for (char **package = spec->packages; *package; package++)
		args_add(args, "--include=%s", *package);
}

static void add_trim(struct args *args)
{
	/* Licences stay: whoever hands an image on has to hand them on too. */
	static const char *const paths[] = {
		"path-exclude=/usr/share/doc/*",    "path-include=/usr/share/doc/*/copyright",
		"path-exclude=/usr/share/man/*",    "path-exclude=/usr/share/info/*",
		"path-exclude=/usr/share/locale/*", "path-exclude=/usr/share/lintian/*",
	};

	for (size_t i = 0; i < ARRAY_SIZE(paths); i++)
		args_add(args, "--dpkgopt=%s", paths[i]);
}

/* What a build works with. */
struct build {
	const struct spec *spec;
	const struct base *base;
	const char *tmp; /* becomes the entry of the cache */
	const char *scratch;
	char *list, *sources, *files;
};

static void build_done(struct build *b)
{
	free(b->list);
	free(b->sources);
	free(b->files);
}

static int prepare(struct build *b, struct error *err)
{
	CLEANUP_FREE char *release = NULL;
	int rc = sources_release(&release, err);

	/* Without a release of our own the sources are taken as they are. */
	if (rc < 0 && rc != -ENOENT)
		return rc;
	b->files = io_format("%s/files.tar", b->scratch);
	if (!b->files)
		return no_memory(err);
	rc = sources_write("", b->scratch, release ? release : b->base->release, b->base->release,
			   &b->list, &b->sources, err);
	return rc < 0 ? rc : archive_files(b->spec, b->files, err);
}

/*
 * The base's own tree, to which mmdebstrap adds packages; it looks for them only if there are some.
 * Devices, which in a user namespace nobody can make, mmdebstrap puts into the tar itself.
 */
static void add_base(const struct build *b, struct args *args)
{
	args_add(args, "--variant=custom");
	add_hook(args, "setup", "unsquashfs -quiet -no-progress -force -excludes -dest \"$1\" ",
		 b->base->tree, " 'dev/*' >&2");
	if (!b->spec->packages[0])
		args_add(args, "--skip=update");
}

/*
 * What follows is root of its own process and mount namespaces, so that all of it ends when we do
 * and no mount stays; for an ordinary user also of a user namespace.
 */
static void add_namespaces(const struct build *b, struct args *args)
{
	args_add(args, "unshare");
	if (geteuid() != 0) {
		args_add(args, "--map-root-user");
		args_add(args, "--map-auto");
	}
	args_add(args, "--pid");
	args_add(args, "--mount");
	args_add(args, "--fork");
	args_add(args, "--kill-child");
	args_add(args, "env");
	args_add(args, "LC_ALL=C.UTF-8");
	args_add(args, "TMPDIR=%s", b->scratch);
}

static void add_mmdebstrap(const struct build *b, struct args *args)
{
	args_add(args, "mmdebstrap");
	args_add(args, "--mode=root");
	args_add(args, "--format=tar");
	if (b->base->tree)
		add_base(b, args);
	else
		args_add(args, "--variant=essential");
	/* Nobody needs a half root after a power cut: the build starts anew. */
	args_add(args, "--dpkgopt=force-unsafe-io");
	if (b->spec->trim)
		add_trim(args);
	add_packages(args, b->spec);
	if (b->spec->nfiles)
		add_hook(args, "customize", "tar-in ", b->files, " /");
	for (char **step = b->spec->run; *step; step++)
		add_hook(args, "customize", "chroot \"$1\" /bin/sh -euc ", *step, "");
	args_add(args, "%s", b->base->release);
	args_add(args, "-");
	if (b->list)
		args_add(args, "%s", b->list);
	if (b->sources)
		args_add(args, "%s", b->sources);
}

/* A tree that Debian's programs here know nothing of grows by its own. */
static int add_grow(const struct build *b, struct args *args, struct error *err)
{
	grow_begin(args, b->base->tree, b->scratch, b->spec->trim, b->spec->packages,
		   b->spec->nfiles);
	for (unsigned i = 0; i < b->spec->nfiles; i++) {
		const struct spec_file *f = &b->spec->files[i];
		unsigned mode = 0;
		int rc = file_mode(f, &mode, err);

		if (rc < 0)
			return rc;
		grow_file(args, f->from, f->to, mode);
	}
	for (char **step = b->spec->run; *step; step++)
		args_add(args, "%s", *step);
	return 0;
}

static int make_command(struct build *b, struct args *args, struct error *err)
{
	int rc = b->base->release ? prepare(b, err) : 0;

	if (rc < 0)
		return rc;
	add_namespaces(b, args);
	if (b->base->release)
		add_mmdebstrap(b, args);
	else
		rc = add_grow(b, args, err);
	return rc == 0 && args->failed ? no_memory(err) : rc;
}

json_t *root_packages(const char *status)
{
	json_t *packages = json_array();
	char name[128], version[128], architecture[32];

	while (packages && *status) {
		size_t n = strcspn(status, "\n");
		bool installed = false;

		for (name[0] = version[0] = architecture[0] = '\0'; n;
		     status += n + (status[n] == '\n'), n = strcspn(status, "\n")) {
			char line[256];

			snprintf(line, sizeof(line), "%.*s", (int)(n < 255 ? n : 255), status);
			sscanf(line, "Package: %127s", name);
			sscanf(line, "Version: %127s", version);
			sscanf(line, "Architecture: %31s", architecture);
			installed |= !strcmp(line, "Status: install ok installed");
		}
		status += *status == '\n';
		if (installed && name[0])
			json_array_append_new(packages,
					      json_pack("{s:s, s:s, s:s}", "name", name, "version",
							version, "architecture", architecture));
	}
	return packages;
}

/*
 * The state of dpkg in a squashfs, "" when it has none. Read out of the finished file: no link in
 * it leads anywhere else.
 */
static int read_status(const char *squashfs, char **ret, struct error *err)
{
	const char *const argv[] = {"unsquashfs", "-cat", squashfs, "var/lib/dpkg/status", NULL};
	int rc = process_run(&(struct process){.argv = argv, .die_with_parent = true}, ret, NULL,
			     err);

	if (rc != -ECHILD)
		return rc;
	*ret = strdup("");
	return *ret ? 0 : no_memory(err);
}

/* Describes the finished squashfs in root.json, which makes the entry valid. */
static int describe(const struct build *b, const char *squashfs, struct error *err)
{
	CLEANUP_FREE char *status = NULL, *text = NULL;
	CLEANUP_FREE char *path = io_format("%s/root.json", b->tmp);
	char digest[DIGEST_TEXT];
	uint64_t size;
	int rc = read_status(squashfs, &status, err);
	json_t *json;

	if (rc == 0)
		rc = digest_file(squashfs, digest, &size, err);
	if (rc < 0)
		return rc;
	json = json_pack("{s:s, s:I, s:o}", "sha256", digest, "size", (json_int_t)size, "packages",
			 root_packages(status));
	text = json ? json_dumps(json, JSON_INDENT(1)) : NULL;
	json_decref(json);
	if (!text || !path)
		return no_memory(err);
	return io_write_file(path, text, strlen(text), err);
}

static int make_root(struct build *b, const char *log, struct progress *progress, struct error *err)
{
	CLEANUP_FREE char *squashfs = io_format("%s/root.squashfs", b->tmp);
	const char *name = b->base->release ? "mmdebstrap" : "the script";
	struct args from = {0};
	/*
	 * sqfstar does not take the archive's "/", but makes one that belongs to whoever runs
	 * it (its -root-uid does nothing): that has to be root, of a user namespace at least.
	 */
	const char *const to[] = {"unshare",
				  "--map-root-user",
				  "sqfstar",
				  "-quiet",
				  "-no-progress",
				  "-root-mode",
				  "755",
				  "-comp",
				  b->spec->compression,
				  squashfs,
				  NULL};
	const char *const *packer = to + (geteuid() == 0 ? 2 : 0);
	int rc = make_command(b, &from, err);

	if (rc == 0)
		rc = squashfs ? pipeline_run(name, (const char *const *)from.v, packer, log,
					     progress, err)
			      : no_memory(err);
	args_done(&from);
	if (rc == -EINTR)
		return rc;
	if (rc < 0)
		return error_prefix(err, rc, "cannot make the root (log: %s)", log);
	return describe(b, squashfs, err);
}

static int fill_entry(const struct spec *spec, const struct base *base, const char *store,
		      const char *key, struct progress *progress, struct error *err)
{
	CLEANUP_FREE char *tmp = NULL, *scratch = NULL;
	CLEANUP_FREE char *log = io_format("%s/last.log", store);
	struct build build = {.spec = spec, .base = base};
	int rc = log ? tree_begin(store, key, &tmp, err) : no_memory(err);

	if (rc == 0)
		rc = tree_scratch(tmp, &scratch, err);
	if (rc == 0) {
		build.tmp = tmp;
		build.scratch = scratch;
		rc = make_root(&build, log, progress, err);
	}
	build_done(&build);
	if (rc == 0)
		rc = tree_scratch_done(tmp, err);
	if (rc == 0)
		rc = tree_commit(store, key, tmp, err);
	if (rc < 0 && tmp)
		tree_remove(tmp, NULL);
	return rc;
}

/* Opens an entry of the cache; -ENOENT when there is none, -EIO when it is damaged. */
static int open_entry(const char *store, const char *key, struct root *ret, struct error *err)
{
	CLEANUP_FREE char *path = io_format("%s/%s/root.squashfs", store, key);
	CLEANUP_FREE char *text = io_format("%s/%s/root.json", store, key);
	json_t *json = text ? json_load_file(text, 0, NULL) : NULL;
	const json_t *packages = json_object_get(json, "packages");
	struct root root = {0};
	int rc = 0;

	if (!json || !path || access(path, R_OK) < 0)
		rc = error_set(err, -ENOENT, "%s/%s is not there", store, key);
	else if (digest_file(path, root.sha256, &root.size, err) < 0 || !json_is_array(packages) ||
		 strcmp(root.sha256, json_string_value(json_object_get(json, "sha256")) ?: ""))
		rc = error_set(err, -EIO, "%s is damaged", path);
	if (rc == 0) {
		root.path = take_ptr(path);
		root.packages = json_deep_copy(packages);
		*ret = root;
	}
	json_decref(json);
	return rc;
}

static void report(struct progress *progress, const struct root *root, const char *how)
{
	progress_end(progress, "%zu packages, %.1f MiB%s", json_array_size(root->packages),
		     (double)root->size / (1 << 20), how);
}

int root_get(const struct spec *spec, const struct base *base, bool refresh,
	     struct progress *progress, struct root *ret, struct error *err)
{
	CLEANUP_FREE char *store = NULL;
	CLEANUP_CLOSE int lock = -1;
	char key[DIGEST_TEXT];
	int rc = make_key(spec, base, key, err);

	if (rc == 0)
		rc = paths_cache("root", NULL, &store, err);
	if (rc < 0)
		return rc;
	progress_step(progress, "root");
	lock = tree_lock(store, err);
	if (lock < 0)
		return lock;
	if (!refresh && open_entry(store, key, ret, err) == 0) {
		report(progress, ret, " (cached)");
		return 0;
	}
	rc = fill_entry(spec, base, store, key, progress, err);
	if (rc == 0)
		rc = open_entry(store, key, ret, err);
	if (rc == 0)
		report(progress, ret, "");
	return rc;
}

void root_done(struct root *root)
{
	free(root->path);
	json_decref(root->packages);
	*root = (struct root){0};
}
