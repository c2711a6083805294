/* SPDX-License-Identifier: Apache-2.0 */
/* Each type: what one and several constraints leave, and what conflicts. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "env/test/documents.h"

/* Documents of the user (a), of the site (b), and what a field becomes. */
struct row {
	const char *user, *site, *field, *wanted;
};

static void check_row(const struct row *row)
{
	struct documents docs = {0};
	const struct decision *d;
	CLEANUP_FREE char *got = NULL;
	struct meet m;

	if (row->user)
		parse(&docs, row->user, "u.yaml", false);
	if (row->site)
		parse(&docs, row->site, "s.yaml", true);
	if (docs.problems.n)
		fail_msg("%s / %s: %s", row->user, row->site, docs.problems.v[0]);
	meet_documents(&docs, NULL, NULL, &m);
	assert_false(m.failed);
	d = meet_find(&m, row->field);
	if (d && d->why)
		got = strdup(d->why);
	else if (d && d->value)
		got = value_text(d->field, d->value);
	if (!got || strcmp(got, row->wanted)) {
		if (strcmp(row->wanted, "-") || got)
			fail_msg("%s / %s: %s is \"%s\", not \"%s\"", row->user ?: "",
				 row->site ?: "", row->field, got ?: "-", row->wanted);
	}
	meet_done(&m);
	documents_done(&docs);
}

static void check_rows(const struct row *rows, size_t n)
{
	for (size_t i = 0; i < n; i++)
		check_row(&rows[i]);
}

static void test_text(void **state)
{
	static const struct row rows[] = {
		{"base: debian:bookworm", NULL, "base", "debian:bookworm"},
		{"base: debian:bookworm", "base: debian:*", "base", "debian:bookworm"},
		{"base: debian:bookworm", "base: [debian:trixie, oci:*]", "base",
		 "no text is in all of these"},
		{"base: [debian:trixie, debian:sid]", "base: [debian:sid, debian:bookworm]", "base",
		 "debian:sid"},
		{NULL, "base: [debian, debian:sid]", "base", "debian"},
		{NULL, "base: [debian:trixie, debian:sid]", "base",
		 "several values are left, and no default is one of them: say which"},
		{NULL, "base: \"debian:?rixie\"", "base",
		 "several values are left, and no default is one of them: say which"},
		{"base: debian:bookworm", "base: oci:*", "base", "no text is in all of these"},
		/* The words of a field are all there are. */
		{NULL, "mpi: \"?pen*\"", "mpi", "openmpi"},
		{NULL, "mpi: \"*mpi*\"", "mpi",
		 "several values are left, and no default is one of them: say which"},
		{NULL, "mpi: \"x*\"", "mpi", "no text is in all of these"},
		{"environment: {A: \"*\"}", NULL, "environment[A]", "*"},
		{"environment: {A: [b, c]}", "environment: {A: [c, d]}", "environment[A]", "c"},
		{"name: [\"é?\", x]", "name: x", "name", "x"},
		{NULL, NULL, "name", "-"},
	};

	check_rows(rows, ARRAY_SIZE(rows));
}

static void test_flag(void **state)
{
	static const struct row rows[] = {
		{"trim: no", NULL, "trim", "no"},
		{"trim: no", "trim: false", "trim", "no"},
		{"trim: no", "trim: yes", "trim", "it cannot be both yes and no"},
		{NULL, NULL, "trim", "yes"},
		{NULL, "defaults: {trim: no}", "trim", "no"},
	};

	check_rows(rows, ARRAY_SIZE(rows));
}

static void test_number(void **state)
{
	static const struct row rows[] = {
		{"cpus: 4", NULL, "cpus", "4"},
		{"cpus: 4", "cpus: 4..", "cpus", "4"},
		{"cpus: 4", "cpus: 5..", "cpus", "no value is in all of these"},
		{"cpus: 2..8", "cpus: [1, 4..6]", "cpus", "4"},
		{"cpus: 2..8", "cpus: [1, 8..9]", "cpus", "8"},
		{"cpus: [1, 8]", "cpus: [2..7]", "cpus", "no value is in all of these"},
		{NULL, "cpus: ..8", "cpus", "1"},
		{NULL, "cpus: [2..3, 7]", "cpus", "2"},
		{"memory: 1536M", NULL, "memory", "1536M"},
		{NULL, "memory: 1G..", "memory", "1G"},
		{NULL, "memory: ..256M", "memory", "256M"},
		{NULL, "memory: 2147483648", "memory", "2G"},
		{NULL, "checkpoint: {interval: 1m..60m}", "checkpoint.interval", "1h"},
		{"checkpoint: {interval: off}", "checkpoint: {interval: 1m..}",
		 "checkpoint.interval", "off"},
		{"checkpoint: {interval: off}", "checkpoint: {interval: ..1h}",
		 "checkpoint.interval", "no value is in all of these"},
		{"checkpoint: {interval: [90s, off]}", "checkpoint: {interval: ..1h}",
		 "checkpoint.interval", "90s"},
		{"walltime: 1d", NULL, "walltime", "1d"},
		{NULL, "walltime: [1h..2h, 119m..3h]", "walltime", "3h"},
		{NULL, "ranks: ..8", "ranks",
		 "several values are left, and no default is one of them: say which"},
		{NULL, "ranks: ..8\ndefaults: {ranks: 4}", "ranks", "4"},
	};

	check_rows(rows, ARRAY_SIZE(rows));
}

static void test_set(void **state)
{
	static const struct row rows[] = {
		{"packages: [gcc, bash]", NULL, "packages", "[bash, gcc]"},
		{"packages: [gcc]", "packages: [bash]", "packages", "[bash, gcc]"},
		{"packages: none", NULL, "packages", "[]"},
		{"packages: []", NULL, "packages", "[]"},
		{"packages: none", "packages: [bash]", "packages",
		 "bash is asked for and not allowed"},
		{"packages: [gcc, libx-dev]", "packages: {forbid: [\"*-dev\"]}", "packages",
		 "libx-dev is asked for and not allowed"},
		{"packages: [gcc, bash]", "packages: {allow: [\"g*\", bash]}", "packages",
		 "[bash, gcc]"},
		{"packages: [gcc, bash]", "packages: {allow: [\"g*\"]}", "packages",
		 "bash is asked for and not allowed"},
		{NULL, "packages: {allow: [\"g*\"]}", "packages", "-"},
		{"packages: [gcc]", "packages: [gcc=12]", "packages", "[gcc=12]"},
		{"packages: [gcc=13]", "packages: [gcc=12]", "packages",
		 "gcc=12 and gcc=13 do not go together"},
		{"packages: [gcc, gcc-12=1, gcc=2]", NULL, "packages", "[gcc-12=1, gcc=2]"},
		{"packages: [gcc=2]", "packages: {forbid: [gcc]}", "packages",
		 "gcc=2 is asked for and not allowed"},
		{NULL, "packages: {allow: [\"g*\"]}\ndefaults: {packages: [gcc]}", "packages",
		 "[gcc]"},
		{NULL, "packages: {allow: [\"g*\"]}\ndefaults: {packages: [bash]}", "packages",
		 "-"},
		{"packages: [bash]", "defaults: {packages: [gcc]}", "packages", "[bash]"},
		{"cmdline: [quiet, a=1]", "cmdline: [a=2]", "cmdline",
		 "a=1 and a=2 do not go together"},
	};

	check_rows(rows, ARRAY_SIZE(rows));
}

static void test_map(void **state)
{
	static const struct row rows[] = {
		{"files: {/a: {from: a}}", NULL, "files[/a].from", "a"},
		{"files: {/a: {from: a}}", "files: {/a: {mode: 0644}}", "files[/a].mode", "0644"},
		{"files: {/a: {from: a}}", "files: {/a: {from: b}}", "files[/a].from",
		 "no text is in all of these"},
		{"files: {/a: {from: a}}", "files: {\"/*\": {mode: 0600}}", "files[/a].mode",
		 "0600"},
		{"files: {/a: {from: a}}", "files: {/a: none}", "files[/a]",
		 "it must be there and must not"},
		{"files: {/a/b: {from: a}}", "files: {\"/a/*\": none}", "files[/a/b]",
		 "it must be there and must not"},
		{"files: {/a: {from: a}}", "files: none", "files[/a]",
		 "it must be there and must not"},
		{NULL, "files: {\"/*\": {mode: 0600}}", "files[/a].mode", "-"},
		{"files: {/a: {mode: 0600}}", NULL, "files[/a]", "it needs from"},
		{"volumes: {x: {target: /x}}", NULL, "volumes[x]", "it needs size|path"},
		{"volumes: {x: {size: 1G}}", NULL, "volumes[x].filesystem", "none"},
		{"volumes: {x: {size: 1G}}", "defaults: {volumes: {\"*\": {filesystem: ext4}}}",
		 "volumes[x].filesystem", "ext4"},
		{NULL, "defaults: {volumes: {x: {size: 1G}}}", "volumes[x].size", "-"},
		{"environment: {A: b}", "environment: {A: none}", "environment[A]",
		 "it must be there and must not"},
		{"environment: {A: \"none\"}", NULL, "environment[A]", "none"},
	};

	check_rows(rows, ARRAY_SIZE(rows));
}

static void test_steps(void **state)
{
	static const struct row rows[] = {
		{"steps: [b, a]", NULL, "steps", "[\"b\", \"a\"]"},
		{"steps: [b]", "steps: [a]", "steps", "[\"a\", \"b\"]"},
		{"steps: [b]", "steps: [{run: a, after: [b]}]", "steps", "[\"b\", \"a\"]"},
		{"steps: [a, b]", "steps: [b, a]", "steps",
		 "the order is a circle that step \"a\" is in or behind"},
		{"steps: [{step: x, run: a}]", "steps: [{step: x, run: b}]", "steps",
		 "step \"x\" runs two different things"},
		{"steps: [{step: x, run: a}]", "steps: [{run: b, after: [x, nowhere]}]", "steps",
		 "[x: \"a\", \"b\"]"},
		{"steps: [a]", "steps: none", "steps", "there are steps where there must be none"},
		{"steps: none", "steps: none", "steps", "none"},
		{"steps: [{run: a, after: [a]}]", NULL, "steps",
		 "the order is a circle that step \"a\" is in or behind"},
		{"steps: [d, b]", "steps: [c, b, a]", "steps", "[\"c\", \"d\", \"b\", \"a\"]"},
	};

	check_rows(rows, ARRAY_SIZE(rows));
}

static void test_command(void **state)
{
	static const struct row rows[] = {
		{"program: [a, b]", NULL, "program", "[a, b]"},
		{"program: [a, b]", "program: [a, b]", "program", "[a, b]"},
		{"program: [a, b]", "program: [b, a]", "program", "there are different commands"},
		{"program: [b]", "defaults: {program: [a]}", "program", "[b]"},
		{NULL, NULL, "program", "-"},
	};

	check_rows(rows, ARRAY_SIZE(rows));
}

/* Every built-in default is a value of its field, and every example a good document. */
static void test_table(void **state)
{
	struct documents docs = {0};
	struct meet m;

	meet_documents(&docs, NULL, NULL, &m);
	for (size_t i = 0; i < env_nfields; i++) {
		const struct field *f = &env_fields[i];
		const struct decision *d = meet_find(&m, f->path);

		parse(&docs, f->example, f->path, false);
		if (docs.problems.n)
			fail_msg("%s: %s", f->path, docs.problems.v[0]);
		if (f->builtin && !strchr(f->path, '*') && (!d || d->by != BY_BUILTIN || !d->value))
			fail_msg("%s: %s is not a value", f->path, f->builtin);
	}
	meet_done(&m);
	documents_done(&docs);
}

static void test_patterns(void **state)
{
	static const struct {
		const char *pattern, *text;
		bool matches;
	} rows[] = {
		{"", "", true},
		{"*", "", true},
		{"?", "", false},
		{"a*c", "abc", true},
		{"a*c", "abcd", false},
		{"*a*b", "xxaxxbxab", true},
		{"?", "é", true},
		{"??", "é", false},
		{"a/*", "a/b/c", true},
		{"[a]", "a", false},
		{"\\*", "\\anything", true},
		{"*é", "eé", true},
		{"a**b", "ab", true},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (pattern_matches(rows[i].pattern, rows[i].text) != rows[i].matches)
			fail_msg("%s and %s", rows[i].pattern, rows[i].text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_text),	 cmocka_unit_test(test_flag),
		cmocka_unit_test(test_number),	 cmocka_unit_test(test_set),
		cmocka_unit_test(test_map),	 cmocka_unit_test(test_steps),
		cmocka_unit_test(test_command),	 cmocka_unit_test(test_table),
		cmocka_unit_test(test_patterns),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
