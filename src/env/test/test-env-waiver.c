/* SPDX-License-Identifier: Apache-2.0 */
/* Waivers: signed, checked, and refused for every reason. */

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "env/waiver.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

#define NOW 1700000000

struct fixture {
	char dir[64], key[80], public[80];
	json_t *facts;
	struct waiver waiver;
	struct error err;
};

static void make_key(const char *private, const char *public)
{
	EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	FILE *file = fopen(private, "w");

	assert_int_equal(PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL), 1);
	fclose(file);
	file = fopen(public, "w");
	assert_int_equal(PEM_write_PUBKEY(file, key), 1);
	fclose(file);
	EVP_PKEY_free(key);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	strcpy(f->dir, "/tmp/wisp-test-XXXXXX");
	if (!mkdtemp(f->dir))
		return -1;
	snprintf(f->key, sizeof(f->key), "%s/key", f->dir);
	snprintf(f->public, sizeof(f->public), "%s/site.pub", f->dir);
	make_key(f->key, f->public);
	f->facts = json_pack("{s:[s], s:[s]}", "user", "ann", "project", "p");
	f->waiver = (struct waiver){.rule = strdup("longjobs"),
				    .user = strdup("ann"),
				    .because = strdup("a campaign"),
				    .until = NOW + 10};
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	unlink(f->key);
	unlink(f->public);
	rmdir(f->dir);
	json_decref(f->facts);
	waiver_done(&f->waiver);
	free(f);
	return 0;
}

static char *signed_text(struct fixture *f)
{
	char *text = NULL;

	if (waiver_sign(&f->waiver, f->key, &text, &f->err))
		fail_msg("%s", f->err.text);
	return text;
}

static int check(struct fixture *f, const char *text, int64_t now)
{
	struct waiver got;
	int r = waiver_check(text, "w", f->dir, f->facts, now, &got, &f->err);

	if (!r) {
		assert_string_equal(got.rule, f->waiver.rule);
		assert_string_equal(got.because, f->waiver.because);
		assert_int_equal(got.until, f->waiver.until);
		waiver_done(&got);
	}
	return r;
}

static void refused(struct fixture *f, const char *text, int64_t now, int code, const char *why)
{
	assert_int_equal(check(f, text, now), code);
	if (!strstr(f->err.text, why))
		fail_msg("\"%s\" instead of \"%s\"", f->err.text, why);
}

static void test_good(void **state)
{
	struct fixture *f = *state;
	CLEANUP_FREE char *text = signed_text(f), *longer = NULL;

	assert_int_equal(check(f, text, NOW), 0);
	f->waiver.project = strdup("p");
	longer = signed_text(f);
	assert_int_equal(check(f, longer, NOW), 0);
}

static void test_refused(void **state)
{
	struct fixture *f = *state;
	CLEANUP_FREE char *text = signed_text(f), *other = NULL;
	char public[80];

	refused(f, text, NOW + 10, -EACCES, "w has ended");
	json_object_set_new(f->facts, "user", json_pack("[s]", "bob"));
	refused(f, text, NOW, -EACCES, "w is for user ann");
	json_object_set_new(f->facts, "user", json_pack("[s]", "ann"));
	f->waiver.application = strdup("lu");
	other = signed_text(f);
	refused(f, other, NOW, -EACCES, "w is for application lu");
	snprintf(public, sizeof(public), "%s/site.txt", f->dir);
	assert_int_equal(rename(f->public, public), 0);
	refused(f, text, NOW, -EACCES, "a key that is not in");
	make_key(f->key, f->public);
	refused(f, text, NOW, -EACCES, "a key that is not in");
	unlink(public);
}

/* Whatever byte is changed, it is no longer the waiver; so is what is cut off or added. */
static void test_changed(void **state)
{
	struct fixture *f = *state;
	CLEANUP_FREE char *text = signed_text(f), *longer = NULL;

	for (size_t i = 0; text[i]; i++) {
		char byte = text[i];

		text[i] = (char)(byte ^ 1);
		assert_true(check(f, text, NOW) < 0);
		text[i] = 0;
		assert_true(check(f, text, NOW) < 0);
		text[i] = byte;
	}
	longer = io_format("%s\n", text);
	refused(f, longer, NOW, -EINVAL, "a waiver has the lines");
	refused(f, "", NOW, -EINVAL, "no waiver of version 1");
}

static void test_sign_refuses(void **state)
{
	struct fixture *f = *state;
	char *text;

	free(f->waiver.because);
	f->waiver.because = strdup("two\nlines");
	assert_int_equal(waiver_sign(&f->waiver, f->key, &text, &f->err), -EINVAL);
	free(f->waiver.because);
	f->waiver.because = strdup("x");
	assert_int_equal(waiver_sign(&f->waiver, f->public, &text, &f->err), -EINVAL);
	assert_non_null(strstr(f->err.text, "no Ed25519 private key"));
	assert_int_equal(waiver_sign(&f->waiver, "/nowhere", &text, &f->err), -ENOENT);
}

static void test_time(void **state)
{
	struct error err;
	int64_t t;

	assert_int_equal(waiver_time("2027-01-31T00:00:00Z", &t, &err), 0);
	assert_int_equal(t, 1801353600);
	assert_int_equal(waiver_time("2027-01-31", &t, &err), 0);
	assert_int_equal(t, 1801353600);
	assert_int_equal(waiver_time("2027-01-31T00:00:00", &t, &err), -EINVAL);
	assert_int_equal(waiver_time("tomorrow", &t, &err), -EINVAL);
	assert_int_equal(waiver_time("2027-02-30", &t, &err), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_good, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_changed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_sign_refuses, setup, teardown),
		cmocka_unit_test(test_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
