/* SPDX-License-Identifier: Apache-2.0 */
/* wisp doctor: what this machine can do. */

#include "cli/commands.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "doctor/probe.h"
#include "lib/error.h"

enum { OPT_JSON = 1 };

static void print_fact(const struct probe *probe, const struct probe_result *r)
{
	static const char *const marks[] = {"ok  ", "less", "no  "};

	printf("%s  %-32s %s\n", marks[r->state], probe->title,
	       r->value[0] ? r->value : r->missing);
	if (r->state == PROBE_OK)
		return;
	if (r->value[0] && r->missing[0])
		printf("      missing:  %s\n", r->missing);
	printf("      instead:  %s\n", probe->fallback);
	if (r->fix[0])
		printf("      to fix:   %s\n", r->fix);
}

static json_t *describe_fact(const struct probe *probe, const struct probe_result *r)
{
	json_t *fact = json_pack("{ss, ss, ss, ss}", "name", probe->name, "title", probe->title,
				 "state", probe_state_name(r->state), "value", r->value);

	if (fact && r->state != PROBE_OK)
		json_object_update_new(fact, json_pack("{ss, ss, ss}", "missing", r->missing,
						       "fallback", probe->fallback, "fix", r->fix));
	return fact;
}

static json_t *describe_kvm(const struct kvm_measure *m)
{
	return json_pack("{ss, sf, sf, sf, ss}", "verdict", kvm_verdict_name(m->verdict),
			 "host_ns_per_turn", m->host_ns, "guest_ns_per_turn", m->guest_ns,
			 "exit_ns", m->exit_ns, "reason", m->reason);
}

/* Without names all facts are. names ends with NULL. */
static bool wanted(const struct probe *probe, char **names)
{
	if (!*names)
		return true;
	while (*names && strcmp(*names, probe->name))
		names++;
	return *names;
}

static int print_json(const struct probe_context *context, char **names)
{
	json_t *facts = json_array(), *all;
	bool ok = true;

	for (const struct probe *p = probes; p->name; p++) {
		struct probe_result result;

		if (!wanted(p, names))
			continue;
		probe_run(p, context, &result);
		ok = ok && result.state == PROBE_OK;
		json_array_append_new(facts, describe_fact(p, &result));
	}
	all = json_pack("{si, so, so}", "version", 1, "kvm", describe_kvm(context->kvm), "facts",
			facts);
	if (!all || json_dumpf(all, stdout, JSON_INDENT(2)) < 0)
		return EXIT_FAILURE;
	putchar('\n');
	json_decref(all);
	return *names && !ok ? EXIT_FAILURE : 0;
}

static int print_text(const struct probe_context *context, char **names)
{
	bool ok = true;

	for (const struct probe *p = probes; p->name; p++) {
		struct probe_result result;

		if (!wanted(p, names))
			continue;
		probe_run(p, context, &result);
		ok = ok && result.state == PROBE_OK;
		print_fact(p, &result);
	}
	return *names && !ok ? EXIT_FAILURE : 0;
}

static int run_doctor(const struct command *cmd, int argc, char **argv)
{
	struct kvm_measure measure;
	struct probe_context context = {.root = "", .kvm = &measure};
	struct option_parser parser;
	struct error err;
	const char *value;
	bool json = false;
	int r;

	option_start(&parser, cmd, argc, argv);
	while ((r = option_next(&parser, &value, &err)) > 0) {
		if (r == OPTION_HELP)
			return 0;
		json = true;
	}
	for (int i = 0; !r && i < parser.argc; i++)
		if (!probe_find(parser.argv[i]))
			r = error_set(&err, -EINVAL,
				      "there is no fact \"%s\" (wisp doctor --json names "
				      "them)",
				      parser.argv[i]);
	if (r < 0)
		return cli_fail(cmd, EXIT_USAGE, &err);
	kvm_measure(&measure);
	parser.argv[parser.argc] = NULL; /* as in main's argv there is room for it */
	return json ? print_json(&context, parser.argv) : print_text(&context, parser.argv);
}

static const struct option_desc options[] = {
	{.id = OPT_JSON, .name = "json", .help = "Print one JSON object"}, {0}};

const struct command cmd_doctor = {
	.name = "doctor",
	.args = "[FACT...]",
	.summary = "Tell what this machine can do, and measure it",
	.details =
		"Each fact says what there is, what is missing, what Wisp does instead, and the "
		"command that fixes it. Whether KVM runs the kernels of guests at hardware speed "
		"is measured in a throw-away VM.\n\n"
		"With names of facts (as in --json) only those are told, and the exit code is 1 "
		"unless "
		"all of them are fine. Otherwise it is 0 whatever is found.",
	.options = options,
	.run = run_doctor,
};
