/* SPDX-License-Identifier: Apache-2.0 */
/* wisp env fields and waive: the table of fields, and waivers of rules. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/commands.h"
#include "env/schema.h"
#include "env/waiver.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

enum {
	OPT_JSON = 1,
	OPT_MAN,
	OPT_NAMES,
	OPT_USER,
	OPT_PROJECT,
	OPT_APPLICATION,
	OPT_UNTIL,
	OPT_KEY,
	OPT_BECAUSE,
	OPT_OUTPUT,
};

/* -------- fields -------- */

static int no_field(const struct command *cmd, const char *name)
{
	struct error err;
	char near[64];

	if (field_nearest("", name, near, sizeof(near)))
		error_set(&err, -ENOENT, "there is no field %s (did you mean %s?)", name, near);
	else
		error_set(&err, -ENOENT, "there is no field %s", name);
	return cli_fail(cmd, EXIT_FAILURE, &err);
}

static void print_names(void)
{
	for (size_t i = 0; i < env_nfields; i++)
		puts(env_fields[i].path);
}

static int run_fields(const struct command *cmd, int argc, char **argv)
{
	struct option_parser parser;
	unsigned flags = 0;
	struct error err;
	const char *value, *name;
	int id;

	option_start(&parser, cmd, argc, argv);
	while ((id = option_next(&parser, &value, &err)) > 0 && id != OPTION_HELP)
		flags |= 1u << id;
	if (!id && parser.argc > 1)
		id = error_set(&err, -EINVAL, "give one field, or none");
	if (id)
		return id > 0 ? 0 : cli_fail(cmd, EXIT_USAGE, &err);
	name = parser.argc ? parser.argv[0] : NULL;
	if (name && !field_find(name) && !field_is_group(name))
		return no_field(cmd, name);
	if (flags & 1u << OPT_JSON)
		return cli_print_json(fields_json(name));
	if (flags & 1u << OPT_MAN)
		fields_man(stdout);
	else if (flags & 1u << OPT_NAMES)
		print_names();
	else
		fields_print(stdout, name);
	return 0;
}

const struct command cmd_env_fields = {
	.name = "env fields",
	.args = "[FIELD]",
	.summary = "List the fields of environments, or describe some",
	.options =
		(const struct option_desc[]){
			{OPT_JSON, "json", 0, NULL, "Print JSON", 0},
			{OPT_NAMES, "names", 0, NULL, "Print only the names", 0},
			{OPT_MAN, "man", 0, NULL, "Print them in scdoc form, for the man page", 0},
			{0}},
	.complete = COMPLETE_FIELD,
	.run = run_fields,
};

/* -------- waive -------- */

struct waive {
	struct waiver waiver;
	const char *key, *output, *until;
};

static void waive_option(struct waive *w, int id, const char *value)
{
	char **text = id == OPT_USER	      ? &w->waiver.user
		      : id == OPT_PROJECT     ? &w->waiver.project
		      : id == OPT_APPLICATION ? &w->waiver.application
		      : id == OPT_BECAUSE     ? &w->waiver.because
					      : NULL;

	if (id == OPT_KEY)
		w->key = value;
	if (id == OPT_OUTPUT)
		w->output = value;
	if (id == OPT_UNTIL)
		w->until = value;
	if (text) {
		free(*text);
		*text = strdup(value);
	}
}

static int check_waive(struct waive *w, int argc, char **argv, struct error *err)
{
	int r;

	if (argc != 1)
		return error_set(err, -EINVAL, "give the name of one rule");
	if (!w->waiver.user || !w->until || !w->key || !w->waiver.because)
		return error_set(err, -EINVAL, "--user, --until, --key and --because are needed");
	w->waiver.rule = strdup(argv[0]);
	r = waiver_time(w->until, &w->waiver.until, err);
	if (!r && w->waiver.until <= time(NULL))
		r = error_set(err, -EINVAL, "--until %s is over", w->until);
	return r ? error_prefix(err, r, "wrong option") : 0;
}

static int sign_waiver(const struct command *cmd, const struct waive *w)
{
	CLEANUP_FREE char *text = NULL;
	struct error err;
	int r = waiver_sign(&w->waiver, w->key, &text, &err);

	if (!r && w->output)
		r = io_write_file(w->output, text, strlen(text), &err);
	else if (!r)
		fputs(text, stdout);
	return r ? cli_fail(cmd, EXIT_FAILURE, &err) : 0;
}

static int run_waive(const struct command *cmd, int argc, char **argv)
{
	struct option_parser parser;
	struct waive w = {0};
	struct error err;
	const char *value;
	int id, code;

	option_start(&parser, cmd, argc, argv);
	while ((id = option_next(&parser, &value, &err)) > 0 && id != OPTION_HELP)
		waive_option(&w, id, value);
	if (!id)
		id = check_waive(&w, parser.argc, parser.argv, &err);
	if (id)
		code = id > 0 ? 0 : cli_fail(cmd, EXIT_USAGE, &err);
	else
		code = sign_waiver(cmd, &w);
	waiver_done(&w.waiver);
	return code;
}

const struct command cmd_env_waive = {
	.name = "env waive",
	.args = "RULE",
	.summary = "Sign a waiver that lets a user off one of the site's rules",
	.details = "The public key has to be in the folder of keys of whoever enforces:\n"
		   "openssl genpkey -algorithm ed25519 -out me.key\n"
		   "openssl pkey -in me.key -pubout -out /etc/wisp/keys.d/me.pub",
	.options =
		(const struct option_desc[]){
			{OPT_USER, "user", 'u', "USER", "For whom; needed", 0},
			{OPT_UNTIL, "until", 0, "TIME",
			 "Until when, 2027-01-31T12:00:00Z or a day; needed", 0},
			{OPT_KEY, "key", 'k', "FILE",
			 "Ed25519 private key (PEM) to sign by; needed", COMPLETE_FILE},
			{OPT_BECAUSE, "because", 0, "TEXT", "The reason, a line; needed", 0},
			{OPT_PROJECT, "project", 0, "PROJECT", "For this project alone", 0},
			{OPT_APPLICATION, "application", 0, "NAME", "For this application alone",
			 0},
			{OPT_OUTPUT, "output", 'o', "FILE", "Where to (default: standard output)",
			 COMPLETE_FILE},
			{0}},
	.run = run_waive,
};
