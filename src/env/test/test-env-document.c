/* SPDX-License-Identifier: Apache-2.0 */
/* Documents: what is read of them, and that every error is told with its place. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "env/test/documents.h"

static void test_document(void **state)
{
	struct documents docs = {0};
	const struct document *doc;

	parse(&docs,
	      "wisp: 1\nbecause: so it is\nmemory: 2G\n---\nrule: other\ndefaults: {cpus: 2}\n",
	      "dir/lu.yaml", false);
	assert_int_equal(docs.problems.n, 0);
	assert_int_equal(docs.n, 2);
	doc = docs.doc[0];
	assert_string_equal(doc->rule, "lu");
	assert_string_equal(doc->because, "so it is");
	assert_int_equal(doc->level, LEVEL_USER);
	assert_int_equal(doc->n, 1);
	assert_int_equal(doc->claim[0].line, 3);
	assert_int_equal(doc->claim[0].column, 9);
	assert_string_equal(docs.doc[1]->rule, "other");
	assert_true(docs.doc[1]->claim[0].is_default);
	documents_done(&docs);
}

static void test_levels(void **state)
{
	static const struct {
		const char *text;
		enum level level;
		const char *rule;
	} rows[] = {
		{"memory: 1G", LEVEL_SITE, "p"},
		{"match: {queue: x}", LEVEL_CLASS, "p"},
		{"match: {queue: x}\nlevel: site", LEVEL_SITE, "p"},
		{"level: project\nrule: r.1", LEVEL_PROJECT, "r.1"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct documents docs = {0};

		parse(&docs, rows[i].text, "p.yaml", true);
		assert_int_equal(docs.problems.n, 0);
		assert_int_equal(docs.doc[0]->level, rows[i].level);
		assert_string_equal(docs.doc[0]->rule, rows[i].rule);
		documents_done(&docs);
	}
}

/* One error each; "policy" ones are read as policy. */
static void test_errors(void **state)
{
	static const struct {
		const char *text, *error;
	} cases[] = {
		{"", "x.yaml: there is no document in it"},
		{"- a\n", "x.yaml:1:1: a document must be fields"},
		{"pakages: []\n",
		 "x.yaml:1:1: unknown field \"pakages\" (did you mean \"packages\"?)"},
		{"packages: []\nzzzzzzzzzzz: 1\n",
		 "x.yaml:2:1: unknown field \"zzzzzzzzzzz\" (\"wisp env fields\" lists them)"},
		{"ab: 1\n", "unknown field \"ab\" (\"wisp"},
		{"packages: [a\n", "x.yaml:2:1: "},
		{"packages: bash\n", "x.yaml:1:11: packages must be a list, or none"},
		{"packages:\n  - [a]\n", "x.yaml:2:5: packages: an item must be a text"},
		{"packages: []\npackages: []\n",
		 "x.yaml:2:1: \"packages\" is here twice (first in line 1)"},
		{"packages: [bash-]\n", "packages: \"bash-\" is not a Debian package"},
		{"packages: [-oX=y]\n", "is not a Debian package"},
		{"packages: ['a b']\n", "is not a Debian package"},
		{"packages: [bash=]\n", "is not a Debian package"},
		{"packages: [\"g*\"]\n", "\"g*\" is a pattern: what must be in is named"},
		{"packages: {forbid: [\"g*=1\"]}\n", "a pattern is over the name alone"},
		{"packages: {deny: []}\n",
		 "x.yaml:1:12: packages has require, allow and forbid, not \"deny\""},
		{"kernel: vmlinux\n", "kernel: \"vmlinux\" is not a kernel package"},
		{"base: debian:../x\n", "x.yaml:1:7: base: \"debian:../x\" is not debian"},
		{"base: image:x@sha256:12\n", "is not debian"},
		{"base: []\n", "base: an empty list leaves no value"},
		{"base: {a: b}\n", "base must be a text, or a list of texts"},
		{"name: -x\n", "x.yaml:1:7: name: \"-x\" is not a name"},
		{"compression: zip\n", "\"zip\" is not lz4|zstd|gzip|xz"},
		{"trim: maybe\n", "trim must be yes or no"},
		{"trim: [yes]\n", "trim must be yes or no"},
		{"cpus: 0\n", "cpus: \"0\" is not within 1..254"},
		{"cpus: 1G\n", "cpus must be a number, like 4 or 1..8"},
		{"cpus: 8..2\n", "cpus: \"8..2\" has its smaller end behind"},
		{"cpus: ..\n", "cpus must be a number"},
		{"cpus: 99999999999999999999\n", "cpus must be a number"},
		{"memory: 1.5G\n", "memory must be a size, like 512M or 1G..8G"},
		{"memory: 9000T\n", "memory: \"9000T\" is not within 1M..1024T"},
		{"walltime: 3\n", "walltime: \"3\" is not within 1s..3650d"},
		{"walltime: soon\n", "walltime must be a duration, like 90s or 1m..60m, or off"},
		{"memory: off\n", "memory must be a size"},
		{"steps: ['']\n", "run must be a text of 1 to"},
		{"steps: [{step: a}]\n", "x.yaml:1:9: a step is a text, or has \"run\""},
		{"steps: [a, a]\n", "x.yaml:1:12: step \"a\" is in the list twice"},
		{"steps: [{run: a, when: b}]\n", "a step has step, run and after, not \"when\""},
		{"steps: [{run: a, after: b}]\n", "after must be a list of steps"},
		{"program: ./lu\n", "program must be a list of a program and its arguments"},
		{"program: []\n", "program must be a list"},
		{"program: [[a]]\n", "program: this must be a text"},
		{"files: [{from: a}]\n",
		 "x.yaml:1:8: files must be entries, \"KEY: ...\", or none"},
		{"files: {/b: {from: ../a}}\n", "is not a path beside the document"},
		{"files: {/b: {from: /a}}\n", "is not a path beside the document"},
		{"files: {b: {from: a}}\n", "x.yaml:1:9: files: \"b\" is not an absolute path"},
		{"files: {/b/../c: {from: a}}\n", "is not an absolute path"},
		{"files: {/b: {from: a, mode: rw}}\n", "is not four octal digits"},
		{"files: {/b: {from: a, too: /b}}\n", "x.yaml:1:23: unknown field \"too\""},
		{"files: {/b: a}\n", "files.* must be fields"},
		{"checkpoint: 5m\n", "checkpoint must be fields"},
		{"checkpoint: {intervall: 5m}\n", "(did you mean \"interval\"?)"},
		{"checkpoint.interval: 5m\n", "unknown field \"checkpoint.interval\""},
		{"network: {subnet: 10.0.0.0}\n", "ADDRESS/PREFIX"},
		{"devices: [x]\n", "is not pci:ADDRESS"},
		{"environment: {1A: x}\n", "is not a variable's name"},
		{"defaults: {memory: 1G..2G}\n", "x.yaml:1:20: memory: a default is one value"},
		{"defaults: {packages: {allow: [gcc]}}\n", "packages: a default is one value"},
		{"defaults: {files: none}\n", "files must be entries"},
		{"defaults: {files: {/a: none}}\n", "a default cannot be that there is none"},
		{"defaults: {rule: x}\n", "unknown field \"rule\""},
		{"wisp: 2\n", "x.yaml:1:7: wisp: this program reads version 1 only"},
		{"match: {user: x}\n", "x.yaml:1:1: match is for the documents of a policy"},
		{"level: site\n", "level is for the documents of a policy"},
		{"warn: yes\n", "warn is for the documents of a policy"},
		{"rule: 'a b'\n", "rule: \"a b\" is not a name"},
		{"memory: &a 1G\n", "x.yaml:1:9: an anchor has no place here"},
		{"memory: *a\n", "an alias has no place here"},
		{"memory: !!str 1G\n", "a tag has no place here"},
		{"<<: {memory: 1G}\n", "merge keys have no place here"},
		{"? [a]\n: b\n", "x.yaml:1:3: a field's name must be a word"},
		{"name: \"a\\0b\"\n", "x.yaml:1:7: a NUL byte is in this text"},
		{"a: [[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]\n", "nested too deeply"},
		{"memory: \xff\n", "x.yaml:"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct documents docs = {0};
		bool told = false;

		parse(&docs, cases[i].text, "x.yaml", false);
		for (size_t j = 0; j < docs.problems.n; j++)
			told |= strstr(docs.problems.v[j], cases[i].error) != NULL;
		if (!told)
			fail_msg("%s: \"%s\" instead of \"%s\"", cases[i].text,
				 docs.problems.n ? docs.problems.v[0] : "", cases[i].error);
		documents_done(&docs);
	}
}

static void test_policy_errors(void **state)
{
	static const struct {
		const char *text, *error;
	} cases[] = {
		{"match: {usr: x}\n", "x.yaml:1:9: there is no fact \"usr\" (there are user, "},
		{"match: {}\n", "match must be facts"},
		{"match: {walltime: long}\n", "walltime must be a duration"},
		{"level: class\n", "x.yaml:1:8: level must be site or project"},
		{"warn: maybe\n", "warn must be yes or no"},
		{"warn: yes\ndefaults: {cpus: 1}\n", "a document that warns has no defaults"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct documents docs = {0};

		parse(&docs, cases[i].text, "x.yaml", true);
		if (docs.problems.n != 1 || !strstr(docs.problems.v[0], cases[i].error))
			fail_msg("%s: \"%s\" instead of \"%s\"", cases[i].text,
				 docs.problems.n ? docs.problems.v[0] : "", cases[i].error);
		documents_done(&docs);
	}
}

/* All errors of a file at once; a thousand of them are not a thousand lines. */
static void test_all_errors(void **state)
{
	struct documents docs = {0};
	struct args many = {0};

	parse(&docs, "memory: x\ncpus: y\ncheckpoint: {interval: z, keep: 0}\n---\nfoo: 1\n",
	      "x.yaml", false);
	assert_int_equal(docs.problems.n, 5);
	assert_string_equal(docs.problems.v[4],
			    "x.yaml:5:1: unknown field \"foo\" (\"wisp env fields\" lists them)");
	documents_done(&docs);
	args_add(&many, "packages: [");
	for (unsigned i = 0; i < 1000; i++)
		args_extend(&many, "A%u, ", i);
	args_extend(&many, "]");
	parse(&docs, many.v[0], "x.yaml", false);
	assert_int_equal(docs.problems.n, 100);
	documents_done(&docs);
	args_done(&many);
}

/* What is too large to be meant is refused, not worked on for hours. */
static void test_large(void **state)
{
	struct documents docs = {0};
	struct args large = {0};

	args_add(&large, "environment: {");
	for (unsigned i = 0; i < 1100; i++)
		args_extend(&large, "A%u: x, ", i);
	args_extend(&large, "}");
	parse(&docs, large.v[0], "x.yaml", false);
	assert_int_equal(docs.problems.n, 1);
	assert_non_null(strstr(docs.problems.v[0], "there are more than 1024 of these"));
	documents_done(&docs);
	args_done(&large);
	args_add(&large, "cpus: 1\n");
	for (unsigned i = 0; i < 70; i++)
		args_extend(&large, "---\ncpus: 1\n");
	parse(&docs, large.v[0], "x.yaml", false);
	assert_non_null(strstr(docs.problems.v[0], "more than 64 documents"));
	documents_done(&docs);
	args_done(&large);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_document),   cmocka_unit_test(test_levels),
		cmocka_unit_test(test_errors),	   cmocka_unit_test(test_policy_errors),
		cmocka_unit_test(test_all_errors), cmocka_unit_test(test_large),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
