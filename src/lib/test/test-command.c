/* SPDX-License-Identifier: Apache-2.0 */
/* The command table: options, help, and a completion script that bash really runs. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/cleanup.h"
#include "lib/command.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/process.h"

enum { OPT_SIZE = 1, OPT_ALL, OPT_VERBOSE, OPT_FILE };

static const struct option_desc options[] = {
	{OPT_SIZE, "size", 's', "SIZE", "How large (default: 1M)", COMPLETE_NONE},
	{OPT_ALL, "all", 'a', NULL, "All of them", COMPLETE_NONE},
	{OPT_VERBOSE, "verbose", 'v', NULL, "Say more", COMPLETE_NONE},
	{OPT_FILE, "file-with-a-long-name", 0, "FILENAME", "Where to", COMPLETE_FILE},
	{0},
};

static const struct command up = {.name = "lab up",
				  .args = "[NODE...]",
				  .summary = "Start the lab",
				  .details = "More about it.",
				  .options = options,
				  .complete = COMPLETE_FILE};
static const struct command down = {.name = "lab down", .args = "", .summary = "Stop the lab"};
static const struct command doctor = {.name = "doctor", .args = "", .summary = "Look around"};
static const struct command exec = {.name = "vm exec",
				    .args = "VM PROGRAM",
				    .summary = "Run a program",
				    .options = options,
				    .stops_at_args = true};
static const struct command *const table[] = {&up, &down, &doctor, &exec, NULL};

/* Parses the words of line and tells what came out: "s=4 a | args". */
static const char *parse(const struct command *cmd, const char *line, int *r, struct error *err)
{
	static const char names[] = "?savf";
	static char out[256], words[256];
	char *argv[20], *save = NULL;
	struct option_parser p;
	const char *value;
	int argc = 0;

	strcpy(words, line);
	for (char *w = strtok_r(words, " ", &save); w; w = strtok_r(NULL, " ", &save))
		argv[argc++] = w;
	option_start(&p, cmd, argc, argv);
	*out = 0;
	while ((*r = option_next(&p, &value, err)) > 0 && *r != OPTION_HELP)
		sprintf(out + strlen(out), value ? "%c=%s " : "%c ", names[*r], value);
	strcat(out, "|");
	if (!*r)
		for (int i = 0; i < p.argc; i++)
			sprintf(out + strlen(out), " %s", p.argv[i]);
	return out;
}

static void test_options(void **state)
{
	static const struct {
		const struct command *cmd;
		const char *line, *want;
	} cases[] = {
		{&up, "", "|"},
		{&up, "a b", "| a b"},
		{&up, "--size 4M --all x", "s=4M a | x"},
		{&up, "x --size=4M y -a z", "s=4M a | x y z"},
		{&up, "--size=", "s= |"},
		{&up, "--size --all", "s=--all |"},
		{&up, "-s 4", "s=4 |"},
		{&up, "-s4 x", "s=4 | x"},
		{&up, "-avs4", "a v s=4 |"},
		{&up, "-av -s 4 -a", "a v s=4 a |"},
		{&up, "-as", NULL},
		{&up, "-s-", "s=- |"},
		{&up, "-a -", "a | -"},
		{&up, "-a -- -v --all", "a | -v --all"},
		{&up, "x -- -v", "| x -v"},
		{&up, "-- -- x", "| -- x"},
		{&exec, "-a vm1 ls -l --all", "a | vm1 ls -l --all"},
		{&exec, "vm1 -- ls -l", "| vm1 ls -l"},
		{&exec, "vm1 -- -- x", "| vm1 -- x"},
		{&exec, "vm1 ls -- x", "| vm1 ls -- x"},
		{&exec, "-- vm1 ls -l", "| vm1 ls -l"},
		{&down, "x", "| x"},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct error err;
		int r;
		const char *got = parse(cases[i].cmd, cases[i].line, &r, &err);

		assert_int_equal(r, cases[i].want ? 0 : -EINVAL);
		if (cases[i].want)
			assert_string_equal(got, cases[i].want);
	}
}

static void test_bad_options(void **state)
{
	static const struct {
		const char *line, *text;
	} cases[] = {
		{"--none", "unknown option --none (see --help)"},
		{"--siz 4", "unknown option --siz (see --help)"},
		{"--sizes=4", "unknown option --sizes (see --help)"},
		{"--=4", "unknown option -- (see --help)"},
		{"--all=yes", "option --all takes no value"},
		{"--size", "option --size needs a value (SIZE)"},
		{"-s", "option --size needs a value (SIZE)"},
		{"-x", "unknown option -x (see --help)"},
		{"-ax", "unknown option -x (see --help)"},
		{"-a=1", "unknown option -= (see --help)"},
		{"---all", "unknown option ---all (see --help)"},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct error err;
		int r;

		parse(&up, cases[i].line, &r, &err);
		assert_int_equal(r, -EINVAL);
		assert_string_equal(err.text, cases[i].text);
	}
}

static void test_find(void **state)
{
	static const struct {
		const char *words[4];
		const struct command *want;
	} cases[] = {
		{{"lab", "up", "x"}, &up},
		{{"lab", "down"}, &down},
		{{"doctor", "up"}, &doctor},
		{{"lab"}, NULL},
		{{"lab", "u"}, NULL},
		{{"la", "up"}, NULL},
		{{"up"}, NULL},
		{{"lab up"}, NULL},
		{{"doctors"}, NULL},
		{{NULL}, NULL},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		int argc = 0, used = -1;

		while (cases[i].words[argc])
			argc++;
		assert_ptr_equal(command_find(table, argc, (char **)cases[i].words, &used),
				 cases[i].want);
		assert_int_equal(used, cases[i].want ? cases[i].want == &doctor ? 1 : 2 : 0);
	}
}

static void test_help(void **state)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	command_help(out, "wisp", &up);
	fclose(out);
	assert_string_equal(
		text, "Usage: wisp lab up [OPTIONS] [NODE...]\n\nStart the lab.\n\nMore about it.\n"
		      "\nOptions:\n"
		      "  -s, --size SIZE               How large (default: 1M)\n"
		      "  -a, --all                     All of them\n"
		      "  -v, --verbose                 Say more\n"
		      "      --file-with-a-long-name FILENAME\n"
		      "                                Where to\n"
		      "  -h, --help                    Print this help\n");
	free(text);
	out = open_memstream(&text, &size);
	command_list(out, "wisp", table, "lab");
	fclose(out);
	assert_non_null(strstr(text, "\n  lab up             Start the lab\n"));
	assert_null(strstr(text, "doctor"));
	free(text);
}

/* The words that bash would offer for line, of which the last is being typed. */
static char *completions(const char *line)
{
	static const char script[] =
		". ./completion || exit 1\n"
		"read -ra COMP_WORDS <<<\"$1\"; [[ $1 == *' ' ]] && COMP_WORDS+=('')\n"
		"COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _wisp\n"
		"printf '%s\\n' \"${COMPREPLY[@]}\" | sort -u | tr '\\n' ' '";
	const char *const argv[] = {"bash", "-uc", script, "bash", line, NULL};
	char *text = NULL;
	struct error err = {0};

	if (process_run(&(struct process){.argv = argv}, &text, NULL, &err))
		fail_msg("%s: %s", line, err.text);
	return text;
}

static void test_completion(void **state)
{
	static const struct {
		const char *line, *want;
	} cases[] = {
		{"wisp ", "doctor lab vm "},
		{"wisp la", "lab "},
		{"wisp d", "doctor "},
		{"wisp x", " "},
		{"wisp lab ", "down up "},
		{"wisp lab u", "up "},
		{"wisp vm ", "exec "},
		{"wisp lab down --", "--help "},
		{"wisp lab up --", "--all --file-with-a-long-name --help --size --verbose "},
		{"wisp lab up --s", "--size "},
		{"wisp lab up --all --v", "--verbose "},
		{"wisp lab up --file-with-a-long-name some", "some file "},
		{"wisp lab up s", "some file "},
		{"wisp lab up --size ", " "},
		{"wisp lab up -s ", " "},
		{"wisp vm exec s", " "},
		{"wisp doctor ", " "},
	};
	const char *const check[] = {"bash", "-n", "./completion", NULL};
	char dir[] = "/tmp/wisp-test-XXXXXX";
	struct error err = {0};
	FILE *out;

	assert_non_null(mkdtemp(dir));
	assert_int_equal(chdir(dir), 0);
	out = fopen("completion", "w");
	command_completion(out, "wisp", table);
	fclose(out);
	assert_int_equal(io_write_file("some file", "", 0, &err), 0);
	assert_int_equal(process_run(&(struct process){.argv = check}, NULL, NULL, &err), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		CLEANUP_FREE char *got = completions(cases[i].line);

		if (strcmp(got, cases[i].want))
			fail_msg("\"%s\" completes to \"%s\", not \"%s\"", cases[i].line, got,
				 cases[i].want);
	}
	unlink("completion");
	unlink("some file");
	assert_int_equal(chdir("/"), 0);
	rmdir(dir);
}

static void test_man(void **state)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	command_man(out, "wisp", table);
	fclose(out);
	assert_non_null(strstr(text, "## wisp lab up [NODE...]\n\nStart the lab.\n"));
	assert_non_null(strstr(text, "*-s*, *--size* SIZE\n\tHow large (default: 1M).\n"));
	free(text);
	out = open_memstream(&text, &size);
	command_man_text(out, "a_b *c* #1 ~x \\");
	fclose(out);
	assert_string_equal(text, "a\\_b \\*c\\* \\#1 \\~x \\\\");
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_options),	   cmocka_unit_test(test_bad_options),
		cmocka_unit_test(test_find),	   cmocka_unit_test(test_help),
		cmocka_unit_test(test_completion), cmocka_unit_test(test_man),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
