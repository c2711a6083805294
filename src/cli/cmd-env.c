/* SPDX-License-Identifier: Apache-2.0 */
/* wisp env check, merge, explain, why, diff: what documents come to. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/env-request.h"
#include "lib/cleanup.h"
#include "lib/error.h"

enum { OPT_DIGEST = ENV_OPT_OWN };

/* What a command does with a meet; returns the exit code. */
typedef int use_fn(const struct command *cmd, const struct env_request *r, const struct meet *m);

/* The options into the request; those of the command itself into a set of 1 << id. */
static int take_options(const struct command *cmd, int argc, char **argv, struct env_request *r,
			struct option_parser *ret, unsigned *own, struct error *err)
{
	const char *value;
	int id, rc = 0;

	option_start(ret, cmd, argc, argv);
	while (!rc && (id = option_next(ret, &value, err)) > 0 && id != OPTION_HELP)
		if (id >= ENV_OPT_OWN)
			*own |= 1u << id;
		else
			rc = env_request_option(r, id, value, err);
	return rc ? rc : id;
}

static int meet_and_use(const struct command *cmd, struct env_request *r, char **files, int n,
			use_fn *use)
{
	struct meet meet;
	int code = env_request_meet(cmd, r, files, n, &meet);

	if (!code)
		code = use(cmd, r, &meet);
	meet_done(&meet);
	return code;
}

static int usage(const struct command *cmd, int rc, const struct error *err)
{
	return rc > 0 ? 0 : cli_fail(cmd, EXIT_USAGE, err);
}

struct use {
	use_fn *fn, *with_own; /* with_own: when the command's own option was given */
	bool needs_documents;
};

/* Meets the documents, and uses what they come to. */
static int run_use(const struct command *cmd, int argc, char **argv, const struct use *use)
{
	struct env_request r = {0};
	struct option_parser parser;
	unsigned own = 0;
	struct error err;
	int code, rc = take_options(cmd, argc, argv, &r, &parser, &own, &err);

	if (!rc && use->needs_documents && !parser.argc && !r.policy)
		rc = error_set(&err, -EINVAL, "give documents, or --policy with a folder of them");
	code = rc ? usage(cmd, rc, &err)
		  : meet_and_use(cmd, &r, parser.argv, parser.argc, own ? use->with_own : use->fn);
	env_request_done(&r);
	return code;
}

/* -------- check -------- */

static int use_check(const struct command *cmd, const struct env_request *r, const struct meet *m)
{
	if (r->json)
		return cli_print_json(result_report(m)) || m->conflicts ? EXIT_FAILURE : 0;
	if (m->conflicts)
		return env_tell_conflicts(cmd, m);
	result_print_notes(stderr, m);
	printf("%zu document%s: good\n", r->docs.n, r->docs.n == 1 ? "" : "s");
	return 0;
}

static int run_check(const struct command *cmd, int argc, char **argv)
{
	static const struct use use = {.fn = use_check, .needs_documents = true};

	return run_use(cmd, argc, argv, &use);
}

const struct command cmd_env_check = {
	.name = "env check",
	.args = "FILE...",
	.summary = "Check documents of environments, and whether they go together",
	.details = "All errors and conflicts are told, each with its place. With --policy and no "
		   "FILE the documents of the site are checked. Exit code 1: something is wrong.",
	.options = (const struct option_desc[]){ENV_OPTIONS, {0}},
	.complete = COMPLETE_FILE,
	.run = run_check,
};

/* -------- merge -------- */

static int print_canonical(const struct meet *m, bool digest)
{
	json_t *closed = result_json(m);
	CLEANUP_FREE char *text = result_canonical(closed);
	char sum[DIGEST_TEXT];
	int rc = text ? result_digest(closed, sum, NULL) : -ENOMEM;

	json_decref(closed);
	if (rc)
		return EXIT_FAILURE;
	puts(digest ? sum : text);
	return 0;
}

static int merge(const struct command *cmd, const struct env_request *r, const struct meet *m,
		 bool digest)
{
	if (r->json)
		return cli_print_json(result_report(m)) || m->conflicts ? EXIT_FAILURE : 0;
	if (m->conflicts)
		return env_tell_conflicts(cmd, m);
	result_print_notes(stderr, m);
	return print_canonical(m, digest);
}

static int use_merge(const struct command *cmd, const struct env_request *r, const struct meet *m)
{
	return merge(cmd, r, m, false);
}

static int use_digest(const struct command *cmd, const struct env_request *r, const struct meet *m)
{
	return merge(cmd, r, m, true);
}

static int run_merge(const struct command *cmd, int argc, char **argv)
{
	static const struct use use = {.fn = use_merge, .with_own = use_digest};

	return run_use(cmd, argc, argv, &use);
}

const struct command cmd_env_merge = {
	.name = "env merge",
	.args = "FILE...",
	.summary = "Print the environment that documents come to",
	.details =
		"It is canonical JSON: the same environment is the same text wherever it was made. "
		"With --json also where each value comes from. What the site's rules leave out or "
		"warn of goes to standard error. Exit code 1: there are errors or conflicts.",
	.options = (const struct option_desc[]){ENV_OPTIONS,
						{OPT_DIGEST, "digest", 0, NULL,
						 "Print its SHA-256 alone", 0},
						{0}},
	.complete = COMPLETE_FILE,
	.run = run_merge,
};

/* -------- explain -------- */

static int use_explain(const struct command *cmd, const struct env_request *r, const struct meet *m)
{
	if (r->json)
		cli_print_json(result_report(m));
	else
		result_print(stdout, m);
	return m->conflicts ? EXIT_FAILURE : 0;
}

static int run_explain(const struct command *cmd, int argc, char **argv)
{
	static const struct use use = {.fn = use_explain};

	return run_use(cmd, argc, argv, &use);
}

const struct command cmd_env_explain = {
	.name = "env explain",
	.args = "[FILE...]",
	.summary = "Show every field of an environment, its value and who decided it",
	.details =
		"Defaults that do not fit, documents that are about other requests, warnings and "
		"conflicts are shown, too. Without documents: what the site's rules and the "
		"built-in defaults come to.",
	.options = (const struct option_desc[]){ENV_OPTIONS, {0}},
	.complete = COMPLETE_FILE,
	.run = run_explain,
};

/* -------- why -------- */

static int print_why(const struct command *cmd, const struct meet *m, const char *name)
{
	struct error err;
	char near[64];

	if (result_print_why(stdout, m, name))
		return m->conflicts ? EXIT_FAILURE : 0;
	if (field_find(name) || field_is_group(name))
		error_set(&err, -ENOENT, "%s has no entries", name);
	else if (field_nearest("", name, near, sizeof(near)))
		error_set(&err, -ENOENT, "there is no field %s (did you mean %s?)", name, near);
	else
		error_set(&err, -ENOENT, "there is no field %s (\"wisp env fields\" lists them)",
			  name);
	return cli_fail(cmd, EXIT_FAILURE, &err);
}

static int run_why(const struct command *cmd, int argc, char **argv)
{
	struct env_request r = {0};
	struct option_parser parser;
	struct meet meet = {0};
	unsigned own = 0;
	struct error err;
	int code, rc = take_options(cmd, argc, argv, &r, &parser, &own, &err);

	if (!rc && !parser.argc)
		rc = error_set(&err, -EINVAL, "give a field, and documents");
	code = rc ? usage(cmd, rc, &err)
		  : env_request_meet(cmd, &r, parser.argv + 1, parser.argc - 1, &meet);
	if (!rc && !code)
		code = print_why(cmd, &meet, parser.argv[0]);
	meet_done(&meet);
	env_request_done(&r);
	return code;
}

const struct command cmd_env_why = {
	.name = "env why",
	.args = "FIELD FILE...",
	.summary = "Show who says what about a field of an environment",
	.details = "FIELD may also be the beginning of several (\"checkpoint\"), and an entry of a "
		   "map: files[/etc/motd].mode.",
	.options = (const struct option_desc[]){ENV_OPTIONS, {0}},
	.complete = COMPLETE_FILE,
	.run = run_why,
};

/* -------- diff -------- */

/* The values of a meet by their fields' names, as text. */
static json_t *flat(const struct meet *m)
{
	json_t *object = json_object();

	for (size_t i = 0; i < m->n; i++) {
		const struct decision *d = &m->d[i];
		CLEANUP_FREE char *text = d->value && d->field->type != &type_map
						  ? value_text(d->field, d->value)
						  : NULL;

		if (text)
			json_object_set_new(object, d->name, json_string(text));
	}
	return object;
}

/* The fields of one of two sides; NULL: code is the exit code. */
static json_t *load_side(const struct command *cmd, const struct env_request *common, char *file,
			 int *code)
{
	struct env_request r = {.facts = json_deep_copy(common->facts),
				.policy = common->policy,
				.keys = common->keys,
				.json = common->json};
	struct meet meet;
	json_t *fields = NULL;

	for (size_t i = 0; i < common->waiver_files.n; i++)
		args_add(&r.waiver_files, "%s", common->waiver_files.v[i]);
	*code = env_request_meet(cmd, &r, &file, 1, &meet);
	if (!*code && meet.conflicts)
		*code = env_tell_conflicts(cmd, &meet);
	else if (!*code)
		fields = flat(&meet);
	meet_done(&meet);
	env_request_done(&r);
	return fields;
}

/* What differs: {FIELD: [A, B]}; null: left out there. Takes both. */
static json_t *differences(json_t *a, json_t *b)
{
	json_t *result = json_object(), *value;
	const char *name;

	json_object_foreach (a, name, value) {
		json_t *other = json_object_get(b, name);

		if (!other || !json_equal(value, other))
			json_object_set_new(result, name, json_pack("[O, O?]", value, other));
	}
	json_object_foreach (b, name, value)
		if (!json_object_get(a, name))
			json_object_set_new(result, name, json_pack("[n, O]", value));
	json_decref(a);
	json_decref(b);
	return result;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void print_differences(json_t *result, const char *a, const char *b)
{
	CLEANUP_FREE const char **names = calloc(json_object_size(result) + 1, sizeof(*names));
	size_t n = 0;
	const char *name;
	json_t *pair;

	json_object_foreach (result, name, pair)
		if (names)
			names[n++] = name;
	if (n)
		qsort(names, n, sizeof(*names), compare_names);
	for (size_t i = 0; i < n; i++) {
		pair = json_object_get(result, names[i]);
		printf("%s\n    %s: %s\n    %s: %s\n", names[i], a,
		       json_string_value(json_array_get(pair, 0)) ?: "left out", b,
		       json_string_value(json_array_get(pair, 1)) ?: "left out");
	}
}

static int run_diff(const struct command *cmd, int argc, char **argv)
{
	struct env_request r = {0};
	struct option_parser parser;
	json_t *a = NULL, *b = NULL;
	unsigned own = 0;
	struct error err;
	int code = 0, rc = take_options(cmd, argc, argv, &r, &parser, &own, &err);

	if (!rc && parser.argc != 2)
		rc = error_set(&err, -EINVAL, "give two environments");
	if (rc)
		code = usage(cmd, rc, &err);
	else if ((a = load_side(cmd, &r, parser.argv[0], &code)) &&
		 (b = load_side(cmd, &r, parser.argv[1], &code))) {
		json_t *result = differences(json_incref(a), json_incref(b));

		code = json_object_size(result) ? 1 : 0;
		if (r.json)
			cli_print_json(json_incref(result));
		else
			print_differences(result, parser.argv[0], parser.argv[1]);
		json_decref(result);
	}
	json_decref(a);
	json_decref(b);
	env_request_done(&r);
	return code;
}

const struct command cmd_env_diff = {
	.name = "env diff",
	.args = "A B",
	.summary = "Show in which fields two environments differ",
	.details = "Each is a document, or what env merge printed. The site's rules are met with "
		   "both. Exit code 1: they differ, or one has errors.",
	.options = (const struct option_desc[]){ENV_OPTIONS, {0}},
	.complete = COMPLETE_FILE,
	.run = run_diff,
};
