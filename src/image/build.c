/* SPDX-License-Identifier: Apache-2.0 */
/* Builds an image of an environment: kernel, root, initrd, manifest. */

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "build-config.h"
#include "env/result.h"
#include "image/base.h"
#include "image/chunks.h"
#include "image/image.h"
#include "image/initrd.h"
#include "image/kernel.h"
#include "image/manifest.h"
#include "image/modules.h"
#include "image/progress.h"
#include "image/reuse.h"
#include "image/root.h"
#include "image/spec.h"
#include "image/store.h"
#include "image/tree.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/paths.h"

#define RECIPE 3 /* part of the key; to be raised when the same input makes another image */

/* What every image can use: the devices of wisp-vmm and the root's file systems. */
static const char *const base_modules[] = {
	"?pvpanic_mmio", /* first: tells of panics */
	"virtio_pci",
	"virtio_blk",
	"virtio_net",
	"vmw_vsock_virtio_transport",
	"virtio_console",
	"virtio_rng",
	"squashfs",
	"overlay",
	"?button",
	"?evdev",	      /* the power button, for the agent */
	"virtiofs@1af4:105a", /* folders of the host, for VMs that have some */
};

struct builder {
	struct progress progress;
	struct spec spec;
	struct base base;
	json_t *environment; /* what of it the image is made of */
	struct kernel kernel;
	struct root root;
	const char **modules; /* of the initrd; the strings are others' */
	char *name, *agent, *rsh;
	char agent_digest[DIGEST_TEXT], rsh_digest[DIGEST_TEXT], environment_digest[DIGEST_TEXT];
	char key[DIGEST_TEXT]; /* the same key, the same image */
};

static int no_memory(struct error *err)
{
	return error_set(err, -ENOMEM, "out of memory");
}

static void builder_done(struct builder *b)
{
	progress_done(&b->progress);
	spec_done(&b->spec);
	base_done(&b->base);
	json_decref(b->environment);
	kernel_done(&b->kernel);
	root_done(&b->root);
	free(b->modules);
	free(b->name);
	free(b->agent);
	free(b->rsh);
}

/* "images/mpi.yaml" to "mpi". */
static char *stem(const char *path)
{
	const char *slash = strrchr(path, '/'), *file = slash ? slash + 1 : path;
	const char *dot = strrchr(file, '.');

	return dot && dot > file ? strndup(file, (size_t)(dot - file)) : strdup(file);
}

static int json_digest(const json_t *json, char ret[DIGEST_TEXT], struct error *err)
{
	CLEANUP_FREE char *text = json ? json_dumps(json, JSON_COMPACT | JSON_SORT_KEYS) : NULL;

	return text ? digest_bytes(text, strlen(text), ret, err) : no_memory(err);
}

static int get_base(struct builder *b, const struct image_build *build, struct error *err)
{
	int rc;

	if (b->spec.base != SPEC_DEBIAN) {
		progress_step(&b->progress, "base");
		progress_now(&b->progress, b->spec.from);
	}
	rc = base_get(&b->spec, b->name, build->refresh, build->keys, &b->base, err);
	if (rc == 0 && b->spec.base != SPEC_DEBIAN)
		progress_end(&b->progress, "%s sha256:%.12s", b->spec.from, b->base.digest);
	if (rc == 0 && b->base.note)
		progress_end(&b->progress, "%s", b->base.note);
	return rc;
}

static int take_spec(struct builder *b, const struct image_build *build, struct error *err)
{
	int rc = spec_from_meet(build->environment, &b->spec, err);

	if (rc < 0)
		return rc;
	b->name = build->name	 ? strdup(build->name)
		  : b->spec.name ? strdup(b->spec.name)
				 : stem(build->file);
	if (!b->name)
		return no_memory(err);
	rc = paths_check_name(b->name, "image", err);
	if (rc == 0)
		rc = get_base(b, build, err);
	if (rc < 0)
		return rc;
	b->environment = spec_environment(build->environment, b->base.text);
	return b->environment ? result_digest(b->environment, b->environment_digest, err)
			      : no_memory(err);
}

static int get_kernel(struct builder *b, struct error *err)
{
	int rc;

	progress_step(&b->progress, "kernel");
	progress_now(&b->progress, b->spec.kernel);
	rc = kernel_get(b->spec.kernel, &b->kernel, err);
	if (rc < 0)
		return rc;
	progress_end(&b->progress, "%s %s", b->kernel.package, b->kernel.version);
	if (b->kernel.note)
		progress_end(&b->progress, "%s", b->kernel.note);
	return 0;
}

static int get_programs(struct builder *b, struct error *err)
{
	int rc = paths_program("wisp-agent", &b->agent, err);

	if (rc == 0)
		rc = digest_file(b->agent, b->agent_digest, NULL, err);
	if (rc == 0)
		rc = paths_program("wisp-rsh", &b->rsh, err);
	return rc < 0 ? rc : digest_file(b->rsh, b->rsh_digest, NULL, err);
}

/* Lists the modules and, before the long work, finds out whether the kernel has them. */
static int check_modules(struct builder *b, struct error *err)
{
	struct modules modules;
	size_t n = ARRAY_SIZE(base_modules), wanted = 0;
	int rc;

	while (b->spec.modules[wanted])
		wanted++;
	b->modules = calloc(n + wanted + 1, sizeof(*b->modules));
	if (!b->modules)
		return no_memory(err);
	memcpy(b->modules, base_modules, sizeof(base_modules));
	memcpy(b->modules + n, b->spec.modules, wanted * sizeof(*b->modules));
	rc = modules_load(b->kernel.modules, b->modules, &modules, err);
	if (rc == 0)
		modules_done(&modules);
	return rc;
}

static json_t *modules_json(const struct builder *b)
{
	json_t *array = json_array();

	for (const char **module = b->modules; *module; module++)
		json_array_append_new(array, json_string(*module));
	return array;
}

static int make_key(struct builder *b, struct error *err)
{
	json_t *json = json_pack("{s:i, s:s, s:s, s:s, s:s, s:s, s:o}", "recipe", RECIPE, "root",
				 b->root.sha256, "kernel", b->kernel.package, "version",
				 b->kernel.version, "agent", b->agent_digest, "rsh", b->rsh_digest,
				 "modules", modules_json(b));
	int rc = json_digest(json, b->key, err);

	json_decref(json);
	return rc;
}

/* Whether the image is there, made of the same things, and whole. */
static bool is_current(const struct builder *b)
{
	struct image image;
	bool same;

	if (image_open_own(b->name, &image, NULL) < 0)
		return false;
	same = !strcmp(json_string_value(json_object_get(image.manifest, "key")) ?: "", b->key) &&
	       !strcmp(json_string_value(json_object_get(image.manifest, "environment_sha256"))
			       ?: "",
		       b->environment_digest) &&
	       image_verify(&image, NULL) == 0;
	image_close(&image);
	return same;
}

static int copy_file(const char *from, const char *to, struct error *err)
{
	CLEANUP_CLOSE int in = open(from, O_RDONLY | O_CLOEXEC);
	CLEANUP_CLOSE int out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	int rc = in < 0 || out < 0 ? -errno : reuse_copy(in, out);

	return rc < 0 ? error_errno(err, rc, "cannot copy %s to %s", from, to) : 0;
}

static int make_initrd(struct builder *b, const char *output, struct error *err)
{
	/* Not compressed: it is read from memory faster than lz4 could be unpacked. */
	return initrd_build(&(struct initrd){.modules = b->kernel.modules,
					     .names = b->modules,
					     .agent = b->agent,
					     .rsh = b->rsh},
			    output, err);
}

/* Puts a part into the new folder and its row into parts. from NULL: the initrd. */
static int add_part(struct builder *b, const char *tmp, const char *part, const char *from,
		    json_t *parts, struct error *err)
{
	CLEANUP_FREE char *path = io_format("%s/%s", tmp, part);
	char digest[DIGEST_TEXT];
	json_t *chunks;
	uint64_t size;
	int rc = progress_check(&b->progress, err);

	if (rc == 0)
		rc = !path  ? no_memory(err)
		     : from ? copy_file(from, path, err)
			    : make_initrd(b, path, err);
	if (rc == 0)
		rc = digest_file(path, digest, &size, err);
	if (rc == 0)
		rc = chunks_of_file(path, &chunks, err);
	if (rc == 0 && json_object_set_new(parts, part,
					   json_pack("{s:I, s:s, s:o}", "size", (json_int_t)size,
						     "sha256", digest, "chunks", chunks)) < 0)
		rc = no_memory(err);
	return rc;
}

/* What it grew out of: a new reference, or NULL. */
static json_t *base_json(const struct base *base)
{
	return base->digest[0]
		       ? json_pack("{s:s, s:s*}", "digest", base->digest, "release", base->release)
		       : NULL;
}

static json_t *manifest_json(const struct builder *b, json_t *parts)
{
	time_t now = time(NULL);
	struct tm tm;
	char created[32];

	strftime(created, sizeof(created), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &tm));
	return json_pack("{s:i, s:s, s:s, s:s, s:s, s:O, s:s, s:{s:s, s:s, s:s}, s:s, s:o, s:O, "
			 "s:O, s:o*}",
			 "format", MANIFEST_FORMAT, "name", b->name, "created", created, "builder",
			 "wisp " WISP_VERSION, "key", b->key, "environment", b->environment,
			 "environment_sha256", b->environment_digest, "kernel", "package",
			 b->kernel.package, "version", b->kernel.version, "release",
			 b->kernel.release, "agent_sha256", b->agent_digest, "modules",
			 modules_json(b), "parts", parts, "packages", b->root.packages, "base",
			 base_json(&b->base));
}

static int write_manifest(const struct builder *b, const char *tmp, json_t *parts,
			  struct error *err)
{
	CLEANUP_FREE char *path = io_format("%s/manifest.json", tmp), *text = NULL;
	json_t *json = manifest_json(b, parts);

	text = json ? json_dumps(json, JSON_INDENT(1)) : NULL;
	json_decref(json);
	return text && path ? io_write_file(path, text, strlen(text), err) : no_memory(err);
}

static int fill(struct builder *b, const char *tmp, struct error *err)
{
	const char *const from[] = {b->kernel.vmlinux, b->kernel.vmlinuz, NULL, b->root.path};
	json_t *parts = json_object();
	int rc = parts ? 0 : no_memory(err);

	for (unsigned i = 0; rc == 0 && image_parts[i]; i++)
		rc = add_part(b, tmp, image_parts[i], from[i], parts, err);
	if (rc == 0)
		rc = write_manifest(b, tmp, parts, err);
	json_decref(parts);
	return rc;
}

/* Makes the image's folder beside its place and puts it there. */
static int assemble(struct builder *b, struct error *err)
{
	CLEANUP_FREE char *store = NULL, *tmp = NULL;
	CLEANUP_CLOSE int lock = -1;
	int rc = paths_image(NULL, &store, err);

	if (rc < 0)
		return rc;
	progress_step(&b->progress, "image");
	lock = tree_lock(store, err);
	if (lock < 0)
		return lock;
	if (is_current(b)) {
		progress_end(&b->progress, "%s/%s is up to date", store, b->name);
		return 0;
	}
	rc = tree_begin(store, b->name, &tmp, err);
	if (rc == 0)
		rc = fill(b, tmp, err);
	if (rc == 0)
		rc = tree_commit(store, b->name, tmp, err);
	if (rc == 0)
		progress_end(&b->progress, "%s/%s", store, b->name);
	else if (tmp)
		tree_remove(tmp, NULL);
	return rc;
}

int image_build(const struct image_build *build, char **ret_name, struct error *err)
{
	struct builder b = {0};
	int rc = progress_init(&b.progress, build->quiet, err);

	if (rc < 0)
		return rc;
	rc = take_spec(&b, build, err);
	if (rc == 0)
		rc = get_programs(&b, err);
	if (rc == 0)
		rc = get_kernel(&b, err);
	if (rc == 0)
		rc = check_modules(&b, err);
	if (rc == 0)
		rc = progress_check(&b.progress, err);
	if (rc == 0)
		rc = root_get(&b.spec, &b.base, build->refresh, &b.progress, &b.root, err);
	if (rc == 0)
		rc = make_key(&b, err);
	if (rc == 0)
		rc = assemble(&b, err);
	/* Whatever failed because of it, an interrupt is an interrupt. */
	if (rc < 0 && progress_check(&b.progress, NULL))
		rc = error_set(err, -EINTR, "interrupted");
	if (rc == 0)
		*ret_name = take_ptr(b.name);
	builder_done(&b);
	return rc;
}
