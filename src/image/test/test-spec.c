/* SPDX-License-Identifier: Apache-2.0 */
/* Image specifications: what is accepted, and what errors say. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "image/spec.h"
#include "lib/cleanup.h"
#include "lib/error.h"

static void test_defaults(void **state)
{
	struct spec spec;
	struct error err;

	assert_int_equal(spec_parse("packages: []\n", 13, "x.yaml", &spec, &err), 0);
	assert_null(spec.name);
	assert_null(spec.release);
	assert_string_equal(spec.kernel, "linux-image-cloud-amd64");
	assert_string_equal(spec.compression, "lz4");
	assert_null(spec.packages[0]);
	assert_null(spec.modules[0]);
	assert_null(spec.run[0]);
	assert_int_equal(spec.nfiles, 0);
	assert_true(spec.trim);
	spec_done(&spec);
}

static void test_everything(void **state)
{
	static const char text[] =
		"name: a.b-c\n"
		"release: trixie\n"
		"kernel: linux-image-amd64\n"
		"packages: [g++, libc6=2.36-9+deb12u14]\n"
		"modules:\n  - ext4\n  - crc32c-intel\n"
		"files:\n"
		"  - from: sub/hello.c\n    to: /usr/src/hello.c\n    mode: 0640\n"
		"  - {from: x, to: /y}\n"
		"run:\n  - |\n    echo \"it's\"\n    true\n"
		"compression: zstd\n"
		"trim: no\n";
	struct spec spec;
	struct error err;
	json_t *json;
	CLEANUP_FREE char *dump = NULL;

	assert_int_equal(spec_parse(text, strlen(text), "x.yaml", &spec, &err), 0);
	json = spec_json(&spec);
	dump = json_dumps(json, JSON_COMPACT | JSON_SORT_KEYS);
	json_decref(json);
	assert_string_equal(
		dump, "{\"compression\":\"zstd\",\"files\":[{\"from\":\"sub/hello.c\",\"mode\":416,"
		      "\"to\":\"/usr/src/hello.c\"},{\"from\":\"x\",\"mode\":0,\"to\":\"/y\"}],"
		      "\"kernel\":\"linux-image-amd64\",\"modules\":[\"ext4\",\"crc32c-intel\"],"
		      "\"packages\":[\"g++\",\"libc6=2.36-9+deb12u14\"],\"release\":\"trixie\","
		      "\"run\":[\"echo \\\"it's\\\"\\ntrue\\n\"],\"trim\":false}");
	assert_string_equal(spec.name, "a.b-c");
	spec_done(&spec);
}

static void test_errors(void **state)
{
	static const struct {
		const char *text, *error;
	} cases[] = {
		{"", "x.yaml: is empty"},
		{"- a\n", "x.yaml:1:1: must be fields"},
		{"pakages: []\n",
		 "x.yaml:1:1: unknown field \"pakages\" (did you mean \"packages\"?)"},
		{"packages: []\nzzzzzzzzzzz: 1\n", "x.yaml:2:1: unknown field \"zzzzzzzzzzz\""},
		{"packages: [a\n", "x.yaml:2:1: "},
		{"packages: bash\n", "x.yaml:1:11: packages must be a list"},
		{"packages:\n  - [a]\n", "x.yaml:2:5: packages must be a single value"},
		{"packages: []\npackages: []\n", "x.yaml:2:1: packages is there twice"},
		{"packages: [bash-]\n", "packages: \"bash-\" is not a Debian package"},
		{"packages: [-oX=y]\n", "is not a Debian package"},
		{"packages: ['a b']\n", "is not a Debian package"},
		{"packages: [bash=]\n", "is not a Debian package"},
		{"kernel: vmlinux\n", "kernel: \"vmlinux\" is not a kernel package"},
		{"release: ../x\n", "is not a Debian code name"},
		{"name: -x\n", "x.yaml:1:7: name: \"-x\" is not a name"},
		{"compression: zip\n", "\"zip\" is not lz4, zstd, gzip or xz"},
		{"trim: maybe\n", "trim must be yes or no"},
		{"run: ['']\n", "\"\" is not a shell command"},
		{"modules: [a/b]\n", "is not a kernel module's name"},
		{"files: [{from: a}]\n", "x.yaml:1:9: a file needs \"from\" and \"to\""},
		{"files: [{from: ../a, to: /b}]\n", "is not a path beside the specification"},
		{"files: [{from: /a, to: /b}]\n", "is not a path beside the specification"},
		{"files: [{from: a, to: b}]\n", "is not an absolute path"},
		{"files: [{from: a, to: /b/../c}]\n", "is not an absolute path"},
		{"files: [{from: a, to: /b, mode: rw}]\n", "mode must be an octal number"},
		{"files: [{from: a, too: /b}]\n", "(did you mean \"to\"?)"},
		{"name: \"a\\0b\"\n", "contains a NUL byte"},
		{"? [a]\n: b\n", "a field's name must be a word"},
		{"name: \xff\n", "x.yaml:"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct spec spec;
		struct error err = {0};

		assert_int_equal(
			spec_parse(cases[i].text, strlen(cases[i].text), "x.yaml", &spec, &err),
			-EINVAL);
		if (!strstr(err.text, cases[i].error))
			fail_msg("%s: \"%s\" instead of \"%s\"", cases[i].text, err.text,
				 cases[i].error);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_everything),
		cmocka_unit_test(test_errors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
