/* SPDX-License-Identifier: Apache-2.0 */
/* Gathers what a meet is made of from the options and files of a command. */

#include "cli/env-request.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "env/waiver.h"
#include "lib/cleanup.h"
#include "lib/error.h"

static int add_fact(struct env_request *r, const char *text, struct error *err)
{
	const char *equals = strchr(text, '=');
	CLEANUP_FREE char *name = equals ? strndup(text, (size_t)(equals - text)) : NULL;

	if (!name || !equals[1])
		return error_set(err, -EINVAL, "--fact %s: give NAME=VALUE", text);
	if (!r->facts)
		r->facts = json_object();
	return facts_add(r->facts, name, equals + 1, err);
}

int env_request_option(struct env_request *r, int id, const char *value, struct error *err)
{
	switch (id) {
	case ENV_OPT_POLICY:
		r->policy = value;
		return 0;
	case ENV_OPT_KEYS:
		r->keys = value;
		return 0;
	case ENV_OPT_FACT:
		return add_fact(r, value, err);
	case ENV_OPT_WAIVER:
		args_add(&r->waiver_files, "%s", value);
		return 0;
	default:
		r->json = true;
		return 0;
	}
}

static int load_waiver(struct env_request *r, const char *path, struct error *err)
{
	struct waiver waiver;
	int rc = waiver_load(path, r->keys ?: ENV_KEYS, r->facts, time(NULL), &waiver, err);

	if (rc)
		return rc;
	rc = documents_check_rule(&r->docs, waiver.rule, path, err);
	if (!rc)
		args_add(&r->waived, "%s", waiver.rule);
	waiver_done(&waiver);
	return rc;
}

/* 0, or -EINVAL: err says why, or (its text is empty) the problems of the documents. */
static int load(struct env_request *r, char **files, int n, struct error *err)
{
	int rc;

	err->text[0] = 0;
	if (!r->facts)
		r->facts = json_object();
	rc = facts_add_caller(r->facts, err);
	for (int i = 0; !rc && i < n; i++)
		documents_load(&r->docs, files[i], false);
	if (!rc && r->policy)
		documents_load_policy(&r->docs, r->policy);
	else if (!rc && access(ENV_POLICY, F_OK) == 0)
		documents_load_policy(&r->docs, ENV_POLICY);
	for (size_t i = 0; !rc && i < r->waiver_files.n; i++)
		rc = load_waiver(r, r->waiver_files.v[i], err);
	if (!rc && r->docs.problems.failed)
		rc = error_set(err, -ENOMEM, "out of memory");
	return rc ? rc : r->docs.problems.n ? -EINVAL : 0;
}

void env_request_done(struct env_request *r)
{
	documents_done(&r->docs);
	json_decref(r->facts);
	args_done(&r->waiver_files);
	args_done(&r->waived);
}

/* Tells what load() failed of, as text or JSON; the exit code. */
static int fail(const struct command *cmd, const struct env_request *r, const struct error *err)
{
	json_t *list = json_array();

	for (size_t i = 0; i < r->docs.problems.n; i++)
		if (r->json)
			json_array_append_new(list, json_string(r->docs.problems.v[i]));
		else
			fprintf(stderr, "%s\n", r->docs.problems.v[i]);
	if (r->json && err->text[0])
		json_array_append_new(list, json_string(err->text));
	if (r->json)
		cli_print_json(json_pack("{s:O}", "errors", list));
	else if (err->text[0])
		cli_fail(cmd, EXIT_FAILURE, err);
	json_decref(list);
	return EXIT_FAILURE;
}

int env_request_meet(const struct command *cmd, struct env_request *r, char **files, int n,
		     struct meet *ret)
{
	struct error err;

	*ret = (struct meet){0};
	if (load(r, files, n, &err))
		return fail(cmd, r, &err);
	meet_documents(&r->docs, r->facts, &r->waived, ret);
	if (!ret->failed)
		return 0;
	error_set(&err, -ENOMEM, "out of memory");
	return cli_fail(cmd, EXIT_FAILURE, &err);
}

int env_tell_conflicts(const struct command *cmd, const struct meet *m)
{
	fprintf(stderr, "wisp %s: %zu conflict%s\n", cmd->name, m->conflicts,
		m->conflicts > 1 ? "s" : "");
	result_print_conflicts(stderr, m);
	return EXIT_FAILURE;
}
