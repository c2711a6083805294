/* SPDX-License-Identifier: Apache-2.0 */
/* wisp image: builds, lists, shows, verifies and removes guest images. */

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "cli/env-request.h"
#include "image/image.h"
#include "lib/cleanup.h"
#include "lib/error.h"

enum { OPT_OUTPUT = ENV_OPT_OWN, OPT_REFRESH, OPT_QUIET, OPT_JSON, OPT_NAMES, OPT_KEYS, OPT_KEY };

/* The value of a string in an object, or "?". */
static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "?";
}

static int build_of_documents(const struct command *cmd, const struct image_build *wanted,
			      struct env_request *r, char **files, int n)
{
	struct image_build build = *wanted;
	CLEANUP_FREE char *name = NULL;
	struct error err;
	struct meet meet;
	int rc, code = env_request_meet(cmd, r, files, n, &meet);

	if (!code && meet.conflicts)
		code = env_tell_conflicts(cmd, &meet);
	if (!code) {
		result_print_notes(stderr, &meet);
		build.environment = &meet;
		build.file = files[0];
		build.keys = r->keys ? r->keys : ENV_KEYS;
		rc = image_build(&build, &name, &err);
		code = rc < 0 ? cli_fail(cmd, rc == -EINTR ? 130 : EXIT_FAILURE, &err) : 0;
	}
	meet_done(&meet);
	return code;
}

static int run_build(const struct command *cmd, int argc, char **argv)
{
	struct option_parser options;
	struct image_build build = {0};
	struct env_request request = {0};
	struct error err;
	const char *value;
	int opt, code, rc = 0;

	option_start(&options, cmd, argc, argv);
	while (!rc && (opt = option_next(&options, &value, &err)) > 0 && opt != OPTION_HELP) {
		if (opt == OPT_OUTPUT)
			build.name = value;
		else if (opt == OPT_REFRESH)
			build.refresh = true;
		else if (opt == OPT_QUIET)
			build.quiet = true;
		else
			rc = env_request_option(&request, opt, value, &err);
	}
	if (!rc)
		rc = opt;
	if (!rc && !options.argc)
		rc = error_set(&err, -EINVAL, "give an environment");
	if (rc)
		code = rc > 0 ? 0 : cli_fail(cmd, EXIT_USAGE, &err);
	else
		code = build_of_documents(cmd, &build, &request, options.argv, options.argc);
	env_request_done(&request);
	return code;
}

const struct command cmd_image_build = {
	.name = "image build",
	.args = "FILE...",
	.summary = "Build a guest image of an environment",
	.details =
		"FILE is a YAML document (see wisp-environment(5)); of its fields those say what "
		"is built that are about the system: base, kernel, modules, packages, files, "
		"steps, compression and trim. The site's rules hold.\nWhat was built before is "
		"used again; a failed or interrupted build leaves no image.",
	.options =
		(const struct option_desc[]){
			{OPT_OUTPUT, "output", 'o', "NAME",
			 "Name of the image (default: the environment's name, or its file's)",
			 COMPLETE_IMAGE},
			{OPT_REFRESH, "refresh", 0, NULL,
			 "Make the root file system again, with the packages of today", 0},
			{OPT_QUIET, "quiet", 'q', NULL, "Show no progress", 0},
			ENV_REQUEST_OPTIONS,
			{0}},
	.complete = COMPLETE_FILE,
	.run = run_build,
};

/* Parses the flags of the commands below into a set of 1 << id; negative: exit with the code. */
static int parse_flags(const struct command *cmd, int argc, char **argv, struct option_parser *ret,
		       unsigned *flags)
{
	struct error err;
	const char *value;
	int opt;

	*flags = 0;
	option_start(ret, cmd, argc, argv);
	while ((opt = option_next(ret, &value, &err)) > 0) {
		if (opt == OPTION_HELP)
			return -1;
		*flags |= 1u << opt;
	}
	if (opt == 0 && !cmd->args[0] && ret->argc)
		opt = error_set(&err, -EINVAL, "takes no arguments");
	else if (opt == 0 && cmd->args[0] && !ret->argc)
		opt = error_set(&err, -EINVAL, "give the image's name");
	if (opt < 0)
		return -1 - cli_fail(cmd, EXIT_USAGE, &err);
	return 0;
}

/* One row of the list; what is wrong with an image is told in its place. */
static json_t *entry_json(const struct image_entry *entry)
{
	json_t *row = json_pack("{s:s, s:s, s:s}", "name", entry->name, "place",
				image_place_name(entry->place), "folder", entry->folder);
	char digest[DIGEST_TEXT];
	struct image image;
	struct error err;
	json_t *more;

	if (entry->hidden)
		json_object_set_new(row, "hidden", json_true());
	if (image_open_entry(entry, &image, &err) < 0) {
		json_object_set_new(row, "error", json_string(err.text));
		return row;
	}
	more = json_pack(
		"{s:I, s:O*, s:O*, s:O*}", "size", (json_int_t)image_size(&image), "kernel",
		json_object_get(json_object_get(image.manifest, "kernel"), "release"), "base",
		json_object_get(json_object_get(image.manifest, "environment"), "base"), "created",
		json_object_get(image.manifest, "created"));
	if (image_digest(image.manifest, digest, NULL) == 0)
		json_object_set_new(more, "digest", json_string(digest));
	json_object_update_new(row, more);
	image_close(&image);
	return row;
}

static void print_row(const json_t *row)
{
	const char *name = text_of(row, "name"),
		   *error = json_string_value(json_object_get(row, "error"));

	if (error)
		printf("%-20s %s\n", name, error);
	else
		printf("%-20s %7.1f MiB  %-24s %-15s %-20s %s%s\n", name,
		       (double)json_integer_value(json_object_get(row, "size")) / (1 << 20),
		       text_of(row, "kernel"), text_of(row, "base"), text_of(row, "created"),
		       text_of(row, "folder"),
		       json_is_true(json_object_get(row, "hidden")) ? " (hidden)" : "");
}

static void list_images(const struct image_entry *entries, size_t n)
{
	if (n)
		printf("%-20s %11s  %-24s %-15s %-20s %s\n", "NAME", "SIZE", "KERNEL", "BASE",
		       "CREATED", "FOLDER");
	for (size_t i = 0; i < n; i++) {
		json_t *row = entry_json(&entries[i]);

		print_row(row);
		json_decref(row);
	}
}

static int run_list(const struct command *cmd, int argc, char **argv)
{
	struct option_parser options;
	struct image_entry *entries;
	json_t *array = NULL;
	struct error err;
	unsigned flags;
	size_t n;
	int rc = parse_flags(cmd, argc, argv, &options, &flags);

	if (rc < 0)
		return -1 - rc;
	if (image_list(&entries, &n, &err) < 0)
		return cli_fail(cmd, 1, &err);
	if (flags & 1u << OPT_JSON)
		array = json_array();
	else if (!(flags & 1u << OPT_NAMES))
		list_images(entries, n);
	for (size_t i = 0; i < n; i++) {
		if (array)
			json_array_append_new(array, entry_json(&entries[i]));
		else if (flags & 1u << OPT_NAMES && !entries[i].hidden)
			puts(entries[i].name);
	}
	image_list_done(entries, n);
	if (array)
		cli_print_json(array);
	return 0;
}

static const struct option_desc json_option[] = {{OPT_JSON, "json", 0, NULL, "Print JSON", 0}, {0}};

const struct command cmd_image_list = {
	.name = "image list",
	.args = "",
	.summary = "List the guest images",
	.details =
		"Yours, those in the folders of $WISP_STORE and those of the site, in this order: "
		"a "
		"name means the first that has it, the others are hidden. NAME@sha256:DIGEST and "
		"@sha256:DIGEST mean the first of that content.",
	.options = (const struct option_desc[]){{OPT_JSON, "json", 0, NULL, "Print JSON", 0},
						{OPT_NAMES, "names", 0, NULL,
						 "Print only the names", 0},
						{0}},
	.run = run_list,
};

static void show_text(const struct image *image, const char *digest)
{
	const json_t *m = image->manifest, *kernel = json_object_get(m, "kernel"), *part;
	const json_t *packages = json_object_get(m, "packages"), *package;
	const char *name;
	size_t i;

	printf("%-12s %s\n", "name", image->name);
	printf("%-12s sha256:%s\n", "digest", digest);
	printf("%-12s %s (%s)\n", "folder", image->folder, image_place_name(image->place));
	printf("%-12s %s by %s\n", "created", text_of(m, "created"), text_of(m, "builder"));
	printf("%-12s %s\n", "base", text_of(json_object_get(m, "environment"), "base"));
	printf("%-12s %s %s\n", "kernel", text_of(kernel, "package"), text_of(kernel, "version"));
	printf("%-12s sha256:%s\n", "environment", text_of(m, "environment_sha256"));
	printf("\n%-14s %12s  %s\n", "PART", "BYTES", "SHA-256");
	json_object_foreach (json_object_get(m, "parts"), name, part)
		printf("%-14s %12lld  %s\n", name,
		       (long long)json_integer_value(json_object_get(part, "size")),
		       text_of(part, "sha256"));
	printf("\n%zu packages:\n", json_array_size(packages));
	json_array_foreach (packages, i, package)
		printf("  %-32s %s\n", text_of(package, "name"), text_of(package, "version"));
}

static int run_show(const struct command *cmd, int argc, char **argv)
{
	struct option_parser options;
	char digest[DIGEST_TEXT];
	struct image image;
	struct error err;
	unsigned flags;
	int rc = parse_flags(cmd, argc, argv, &options, &flags);

	if (rc < 0)
		return -1 - rc;
	if (image_open(options.argv[0], &image, &err) < 0)
		return cli_fail(cmd, 1, &err);
	rc = image_digest(image.manifest, digest, &err);
	if (rc < 0) {
		rc = cli_fail(cmd, 1, &err);
	} else if (flags & 1u << OPT_JSON) {
		json_object_set_new(image.manifest, "folder", json_string(image.folder));
		json_object_set_new(image.manifest, "place",
				    json_string(image_place_name(image.place)));
		json_object_set_new(image.manifest, "digest", json_string(digest));
		cli_print_json(json_incref(image.manifest));
	} else {
		show_text(&image, digest);
	}
	image_close(&image);
	return rc;
}

const struct command cmd_image_show = {
	.name = "image show",
	.args = "NAME",
	.summary = "Show what a guest image was made of",
	.options = json_option,
	.complete = COMPLETE_IMAGE,
	.run = run_show,
};

/* Does something with each named image; goes on after a failure. */
static int for_each(const struct command *cmd, int argc, char **argv,
		    int (*fn)(const char *name, struct error *err), const char *done)
{
	struct option_parser options;
	struct error err;
	unsigned flags;
	int code = 0, rc = parse_flags(cmd, argc, argv, &options, &flags);

	if (rc < 0)
		return -1 - rc;
	for (int i = 0; i < options.argc; i++) {
		if (fn(options.argv[i], &err) < 0)
			code = cli_fail(cmd, 1, &err);
		else
			printf("%s: %s\n", options.argv[i], done);
	}
	return code;
}

/* One that is signed has to be signed well. */
static int verify_open(const struct image *image, const char *keys, struct error *err)
{
	CLEANUP_FREE char *who = NULL;
	int rc = image_verify(image, err);

	if (rc == 0)
		rc = image_check_signature(image, keys, &who, err);
	if (rc == -ENODATA)
		rc = 0;
	if (rc == 0 && who)
		printf("%s: ok, signed by %s\n", image->name, who);
	else if (rc == 0)
		printf("%s: ok, not signed\n", image->name);
	return rc;
}

static int verify_one(const char *reference, const char *keys, struct error *err)
{
	struct image image;
	int rc = image_open(reference, &image, err);

	if (rc == 0) {
		rc = verify_open(&image, keys, err);
		image_close(&image);
	}
	return rc;
}

static int run_verify(const struct command *cmd, int argc, char **argv)
{
	const char *keys = ENV_KEYS, *value;
	struct option_parser options;
	struct error err;
	int opt, code = 0;

	option_start(&options, cmd, argc, argv);
	while ((opt = option_next(&options, &value, &err)) > 0 && opt != OPTION_HELP)
		keys = value;
	if (opt == 0 && !options.argc)
		opt = error_set(&err, -EINVAL, "give the image's name");
	if (opt)
		return opt > 0 ? 0 : cli_fail(cmd, EXIT_USAGE, &err);
	for (int i = 0; i < options.argc; i++)
		if (verify_one(options.argv[i], keys, &err) < 0)
			code = cli_fail(cmd, 1, &err);
	return code;
}

const struct command cmd_image_verify = {
	.name = "image verify",
	.args = "NAME...",
	.summary = "Check every byte of guest images against their manifests",
	.details = "Those that are signed must be so by a key of the folder; its name is told.",
	.options = (const struct option_desc[]){{OPT_KEYS, "keys", 0, "DIR",
						 "Folder of the keys that images are signed by "
						 "(default " ENV_KEYS ")",
						 COMPLETE_DIR},
						{0}},
	.complete = COMPLETE_IMAGE,
	.run = run_verify,
};

static int run_sign(const struct command *cmd, int argc, char **argv)
{
	const char *key = NULL, *value;
	struct option_parser options;
	struct error err;
	int opt;

	option_start(&options, cmd, argc, argv);
	while ((opt = option_next(&options, &value, &err)) > 0 && opt != OPTION_HELP)
		key = value;
	if (opt == 0 && options.argc != 1)
		opt = error_set(&err, -EINVAL, "give one image's name");
	if (opt == 0 && !key)
		opt = error_set(&err, -EINVAL, "--key is needed");
	if (opt)
		return opt > 0 ? 0 : cli_fail(cmd, EXIT_USAGE, &err);
	if (image_sign(options.argv[0], key, &err) < 0)
		return cli_fail(cmd, 1, &err);
	printf("%s: signed\n", options.argv[0]);
	return 0;
}

const struct command cmd_image_sign = {
	.name = "image sign",
	.args = "NAME",
	.summary = "Sign a guest image",
	.details =
		"Every byte is checked before. The signature goes when the image is built anew.\n"
		"The public key has to be in the folder of keys of whoever asks for signed "
		"images:\n"
		"openssl pkey -in me.key -pubout -out " ENV_KEYS "/me.pub",
	.options = (const struct option_desc[]){{OPT_KEY, "key", 0, "FILE",
						 "Private Ed25519 key, PEM; needed", COMPLETE_FILE},
						{0}},
	.complete = COMPLETE_IMAGE,
	.run = run_sign,
};

static int run_remove(const struct command *cmd, int argc, char **argv)
{
	return for_each(cmd, argc, argv, image_remove, "removed");
}

const struct command cmd_image_remove = {
	.name = "image remove",
	.args = "NAME...",
	.summary = "Remove guest images",
	.details = "Those of yours. Virtual machines that use an image keep running. The cache "
		   "stays.",
	.complete = COMPLETE_IMAGE,
	.run = run_remove,
};
