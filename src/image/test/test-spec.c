/* SPDX-License-Identifier: Apache-2.0 */
/* What an image is made of, out of environments. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "env/result.h"
#include "image/spec.h"
#include "lib/cleanup.h"
#include "lib/error.h"

struct fixture {
	struct documents docs;
	struct meet meet;
	struct spec spec;
	struct error err;
	int rc;
};

/* A document of the user in dir/u.yaml, and of the site in policy/s.yaml. */
static void take(struct fixture *f, const char *user, const char *site)
{
	*f = (struct fixture){0};
	documents_parse(&f->docs, user, strlen(user), "dir/u.yaml", false);
	if (site)
		documents_parse(&f->docs, site, strlen(site), "policy/s.yaml", true);
	if (f->docs.problems.n)
		fail_msg("%s", f->docs.problems.v[0]);
	meet_documents(&f->docs, NULL, NULL, &f->meet);
	assert_int_equal(f->meet.conflicts, 0);
	f->rc = spec_from_meet(&f->meet, &f->spec, &f->err);
}

static void done(struct fixture *f)
{
	spec_done(&f->spec);
	meet_done(&f->meet);
	documents_done(&f->docs);
}

static void test_defaults(void **state)
{
	struct fixture f;

	take(&f, "memory: 1G\n", NULL);
	assert_int_equal(f.rc, 0);
	assert_null(f.spec.name);
	assert_null(f.spec.release);
	assert_string_equal(f.spec.kernel, "linux-image-cloud-amd64");
	assert_string_equal(f.spec.compression, "lz4");
	assert_null(f.spec.packages[0]);
	assert_null(f.spec.modules[0]);
	assert_null(f.spec.run[0]);
	assert_int_equal(f.spec.nfiles, 0);
	assert_true(f.spec.trim);
	done(&f);
}

static void test_everything(void **state)
{
	static const char text[] =
		"name: a.b-c\n"
		"base: debian:trixie\n"
		"kernel: linux-image-amd64\n"
		"packages: [libc6=2.36-9+deb12u14, g++]\n"
		"modules: [ext4, crc32c-intel]\n"
		"files:\n"
		"  /usr/src/hello.c: {from: sub/hello.c, mode: 0640}\n"
		"  /y: {from: x}\n"
		"steps:\n  - |\n    echo \"it's\"\n    true\n  - {step: b, run: c}\n"
		"compression: zstd\n"
		"trim: no\n";
	CLEANUP_FREE char *dump = NULL;
	struct fixture f;
	json_t *json;

	take(&f, text, NULL);
	assert_int_equal(f.rc, 0);
	assert_string_equal(f.spec.name, "a.b-c");
	assert_string_equal(f.spec.packages[0], "g++");
	assert_string_equal(f.spec.packages[1], "libc6=2.36-9+deb12u14");
	assert_string_equal(f.spec.run[0], "echo \"it's\"\ntrue\n");
	assert_string_equal(f.spec.run[1], "c");
	assert_null(f.spec.run[2]);
	assert_int_equal(f.spec.nfiles, 2);
	assert_string_equal(f.spec.files[0].from, "dir/sub/hello.c");
	assert_int_equal(f.spec.files[0].mode, 0640);
	assert_string_equal(f.spec.files[1].to, "/y");
	assert_int_equal(f.spec.files[1].mode, 0);
	assert_string_equal(f.spec.release, "trixie");
	json = spec_environment(&f.meet, "debian:trixie");
	dump = json_dumps(json, JSON_COMPACT | JSON_SORT_KEYS);
	json_decref(json);
	assert_string_equal(
		dump, "{\"base\":\"debian:trixie\",\"compression\":\"zstd\",\"files\":{"
		      "\"/usr/src/hello.c\":{\"from\":\"sub/hello.c\",\"mode\":\"0640\"},"
		      "\"/y\":{\"from\":\"x\"}},\"kernel\":\"linux-image-amd64\",\"modules\":["
		      "\"crc32c-intel\",\"ext4\"],\"packages\":[\"g++\",\"libc6=2.36-9+deb12u14\"],"
		      "\"steps\":[{\"run\":\"echo \\\"it's\\\"\\ntrue\\n\",\"step\":"
		      "\"echo \\\"it's\\\"\\ntrue\\n\"},{\"run\":\"c\",\"step\":\"b\"}],"
		      "\"trim\":false}");
	done(&f);
}

/* Files are beside the document that names them; a user cannot put another in the site's place. */
static void test_sources(void **state)
{
	static const struct {
		const char *user, *site, *from;
	} rows[] = {
		{"files: {/a: {from: x}}", NULL, "dir/x"},
		{"files: {/a: {from: x}}", "files: {/a: {mode: 0600}}", "dir/x"},
		{"files: {/a: {from: x}}", "files: {/a: {from: \"*\"}}", "dir/x"},
		{"name: u", "files: {/a: {from: x}}", "policy/x"},
		{"files: {/a: {from: x}}", "files: {/a: {from: x}}", "policy/x"},
		{"files: {/a: {from: [x, y]}}", "files: {/a: {from: [x, z]}}", "dir/x"},
		{"files: {/a: {mode: 0600}}",
		 "files: {/a: {mode: 0600}}\ndefaults: {files: {/a: {from: d}}}", "policy/d"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct fixture f;

		take(&f, rows[i].user, rows[i].site);
		assert_int_equal(f.rc, 0);
		assert_int_equal(f.spec.nfiles, 1);
		assert_string_equal(f.spec.files[0].from, rows[i].from);
		done(&f);
	}
}

static void test_bases(void **state)
{
	struct fixture f;

	take(&f, "base: oci:docker.io/library/debian", NULL);
	assert_int_equal(f.rc, 0);
	assert_int_equal(f.spec.base, SPEC_OCI);
	assert_string_equal(f.spec.from, "docker.io/library/debian");
	done(&f);
	take(&f, "base: image:hpc", NULL);
	assert_int_equal(f.rc, 0);
	assert_int_equal(f.spec.base, SPEC_IMAGE);
	assert_string_equal(f.spec.from, "hpc");
	done(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_everything),
		cmocka_unit_test(test_sources),
		cmocka_unit_test(test_bases),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
