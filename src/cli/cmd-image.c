/* SPDX-License-Identifier: Apache-2.0 */
/* wisp image: builds, lists, shows, verifies and removes guest images. */

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "cli/commands.h"
#include "image/image.h"
#include "lib/cleanup.h"
#include "lib/error.h"

enum { OPT_OUTPUT = 1, OPT_REFRESH, OPT_QUIET, OPT_JSON, OPT_NAMES };

/* The value of a string in an object, or "?". */
static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "?";
}

static int run_build(const struct command *cmd, int argc, char **argv)
{
	CLEANUP_FREE char *name = NULL;
	struct option_parser options;
	struct image_build build = {0};
	struct error err;
	const char *value;
	int opt, rc;

	option_start(&options, cmd, argc, argv);
	while ((opt = option_next(&options, &value, &err)) > 0) {
		if (opt == OPTION_HELP)
			return 0;
		if (opt == OPT_OUTPUT)
			build.name = value;
		build.refresh |= opt == OPT_REFRESH;
		build.quiet |= opt == OPT_QUIET;
	}
	if (opt == 0 && options.argc != 1)
		opt = error_set(&err, -EINVAL, "give one specification");
	if (opt < 0)
		return cli_fail(cmd, EXIT_USAGE, &err);
	build.spec = options.argv[0];
	rc = image_build(&build, &name, &err);
	if (rc == -EINTR)
		return cli_fail(cmd, 130, &err);
	if (rc < 0)
		return cli_fail(cmd, 1, &err);
	return 0;
}

const struct command cmd_image_build = {
	.name = "image build",
	.args = "SPEC",
	.summary = "Build a guest image from a specification",
	.details = "SPEC is a YAML file that names Debian packages, a kernel package and files "
		   "(see wisp-image(5)).\nWhat was built before is used again; a failed or "
		   "interrupted build leaves no image.",
	.options =
		(const struct option_desc[]){
			{OPT_OUTPUT, "output", 'o', "NAME",
			 "Name of the image (default: the specification's name)", COMPLETE_IMAGE},
			{OPT_REFRESH, "refresh", 0, NULL,
			 "Make the root file system again, with the packages of today", 0},
			{OPT_QUIET, "quiet", 'q', NULL, "Show no progress", 0},
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

static json_t *summary_json(const struct image *image)
{
	return json_pack(
		"{s:s, s:I, s:O*, s:O*, s:O*, s:s}", "name", image->name, "size",
		(json_int_t)image_size(image), "kernel",
		json_object_get(json_object_get(image->manifest, "kernel"), "release"), "release",
		json_object_get(json_object_get(image->manifest, "spec"), "release"), "created",
		json_object_get(image->manifest, "created"), "folder", image->folder);
}

static void list_one(const char *name, json_t *array)
{
	struct image image;
	struct error err;

	if (image_open(name, &image, &err) < 0) {
		if (array)
			json_array_append_new(
				array, json_pack("{s:s, s:s}", "name", name, "error", err.text));
		else
			printf("%-20s %s\n", name, err.text);
		return;
	}
	if (array)
		json_array_append_new(array, summary_json(&image));
	else
		printf("%-20s %7.1f MiB  %-24s %-10s %s\n", name,
		       (double)image_size(&image) / (1 << 20),
		       text_of(json_object_get(image.manifest, "kernel"), "release"),
		       text_of(json_object_get(image.manifest, "spec"), "release"),
		       text_of(image.manifest, "created"));
	image_close(&image);
}

static int run_list(const struct command *cmd, int argc, char **argv)
{
	struct option_parser options;
	struct error err;
	unsigned flags;
	json_t *array = NULL;
	char **names;
	int rc = parse_flags(cmd, argc, argv, &options, &flags);

	if (rc < 0)
		return -1 - rc;
	if (image_names(&names, &err) < 0)
		return cli_fail(cmd, 1, &err);
	if (flags & 1u << OPT_JSON)
		array = json_array();
	else if (names[0] && !(flags & 1u << OPT_NAMES))
		printf("%-20s %11s  %-24s %-10s %s\n", "NAME", "SIZE", "KERNEL", "RELEASE",
		       "CREATED");
	for (char **name = names; *name; name++) {
		if (flags & 1u << OPT_NAMES)
			puts(*name);
		else
			list_one(*name, array);
		free(*name);
	}
	free(names);
	if (array)
		cli_print_json(array);
	return 0;
}

static const struct option_desc json_option[] = {{OPT_JSON, "json", 0, NULL, "Print JSON", 0}, {0}};

const struct command cmd_image_list = {
	.name = "image list",
	.args = "",
	.summary = "List the guest images",
	.options = (const struct option_desc[]){{OPT_JSON, "json", 0, NULL, "Print JSON", 0},
						{OPT_NAMES, "names", 0, NULL,
						 "Print only the names", 0},
						{0}},
	.run = run_list,
};

static void show_text(const struct image *image)
{
	const json_t *m = image->manifest, *kernel = json_object_get(m, "kernel"), *part;
	const json_t *packages = json_object_get(m, "packages"), *package;
	const char *name;
	size_t i;

	printf("%-10s %s\n", "name", image->name);
	printf("%-10s %s\n", "folder", image->folder);
	printf("%-10s %s by %s\n", "created", text_of(m, "created"), text_of(m, "builder"));
	printf("%-10s %s\n", "release", text_of(json_object_get(m, "spec"), "release"));
	printf("%-10s %s %s\n", "kernel", text_of(kernel, "package"), text_of(kernel, "version"));
	printf("%-10s sha256:%s\n", "spec", text_of(m, "spec_sha256"));
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
	struct image image;
	struct error err;
	unsigned flags;
	int rc = parse_flags(cmd, argc, argv, &options, &flags);

	if (rc < 0)
		return -1 - rc;
	if (image_open(options.argv[0], &image, &err) < 0)
		return cli_fail(cmd, 1, &err);
	if (flags & 1u << OPT_JSON) {
		json_object_set_new(image.manifest, "folder", json_string(image.folder));
		cli_print_json(json_incref(image.manifest));
	} else {
		show_text(&image);
	}
	image_close(&image);
	return 0;
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

static int run_verify(const struct command *cmd, int argc, char **argv)
{
	return for_each(cmd, argc, argv, image_verify, "ok");
}

const struct command cmd_image_verify = {
	.name = "image verify",
	.args = "NAME...",
	.summary = "Check every byte of guest images against their manifests",
	.complete = COMPLETE_IMAGE,
	.run = run_verify,
};

static int run_remove(const struct command *cmd, int argc, char **argv)
{
	return for_each(cmd, argc, argv, image_remove, "removed");
}

const struct command cmd_image_remove = {
	.name = "image remove",
	.args = "NAME...",
	.summary = "Remove guest images",
	.details = "Virtual machines that use an image keep running. The cache stays.",
	.complete = COMPLETE_IMAGE,
	.run = run_remove,
};
