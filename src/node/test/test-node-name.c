/* SPDX-License-Identifier: Apache-2.0 */
/* Names of nodes, and the key of their cluster. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "lib/error.h"
#include "node/cluster-key.h"
#include "node/nodename.h"
#include "node/test/made.h"

static void is(const char *text, const char *name, const char *host, const char *port)
{
	struct nodename n;
	struct error err;

	if (nodename_parse(text, &n, &err))
		fail_msg("%s", err.text);
	assert_string_equal(n.name, name);
	assert_string_equal(n.host, host);
	assert_string_equal(n.port, port);
}

static void test_names(void **state)
{
	static const char *const bad[] = {
		"",	     "@h",	 "n1@",	       "n1@:7",	  "n1@h:",	 "n1@h:0",
		"n1@h:x",    "n1@h:1:2", "n1@::1",     "n1@[::1", "n1@[::1]x",	 "n1@-oProxy=x",
		"-n1",	     "n1@a b",	 "n1@h:65536", "n1@h:-1", "n1@[::1]:+7", "n1@a@b",
		"n1@[-x]:1", "a/b",	 "n1@h\n:1",
	};
	char is_long[400];
	struct nodename n = {.port = "left"};
	struct error err;

	is("n1", "n1", "n1", "7450");
	is("n1.site", "n1.site", "n1.site", "7450");
	is("n1@10.0.0.7", "n1", "10.0.0.7", "7450");
	is("n1@host.site:1", "n1", "host.site", "1");
	is("n1@[fe80::1%eth0]:65535", "n1", "fe80::1%eth0", "65535");
	is("n1@[::1]", "n1", "::1", "7450");
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (nodename_parse(bad[i], &n, &err) == 0)
			fail_msg("\"%s\" is taken for a node", bad[i]);
	memset(is_long, 'a', sizeof(is_long));
	is_long[sizeof(is_long) - 1] = 0;
	assert_int_equal(nodename_parse(is_long, &n, &err), -EINVAL);
	is_long[2] = '@';
	assert_int_equal(nodename_parse(is_long, &n, &err), -EINVAL);
	assert_string_equal(n.port, "left");
}

static void test_addresses(void **state)
{
	struct nodename n;
	struct error err;

	assert_int_equal(nodename_parse_address("0.0.0.0", &n, &err), 0);
	assert_string_equal(n.port, "7450");
	assert_int_equal(nodename_parse_address("[::]:0", &n, &err), 0);
	assert_string_equal(n.host, "::");
	assert_string_equal(n.port, "0");
	assert_int_equal(nodename_parse_address(":7450", &n, &err), -EINVAL);
}

static int key_of(const char *root, const char *path, mode_t mode, const char *text, size_t *n,
		  struct error *err)
{
	CLEANUP_FREE char *full = io_format("%s%s", root, path);
	uint8_t key[CLUSTER_KEY_MAX];
	int r;

	if (text) {
		made_file(root, path, text);
		assert_int_equal(chmod(full, mode), 0);
	}
	r = cluster_key_read(full, key, n, err);
	assert_true(r || !memcmp(key, text ? text : "", *n));
	return r;
}

static void test_key(void **state)
{
	static const char key[] = "thirty-two bytes are what it has";
	const char *root = *state;
	char is_long[CLUSTER_KEY_MAX + 2];
	struct error err;
	size_t n = 7;

	assert_int_equal(key_of(root, "/key", 0600, key, &n, &err), 0);
	assert_int_equal(n, 32);
	assert_int_equal(key_of(root, "/key", 0400, key, &n, &err), 0);
	assert_int_equal(key_of(root, "/key", 0640, key, &n, &err), -EPERM);
	assert_non_null(strstr(err.text, "chmod 600"));
	assert_int_equal(n, 0);
	assert_int_equal(key_of(root, "/key", 0600, key + 1, &n, &err), -EINVAL);
	assert_non_null(strstr(err.text, "31 bytes"));
	memset(is_long, 'k', sizeof(is_long));
	is_long[CLUSTER_KEY_MAX + 1] = 0;
	assert_int_equal(key_of(root, "/key", 0600, is_long, &n, &err), -EINVAL);
	assert_int_equal(key_of(root, "/none", 0600, NULL, &n, &err), -ENOENT);
	assert_int_equal(key_of(root, "", 0700, NULL, &n, &err), -EINVAL);
}

/* The usual place may be empty. */
static void test_usual_key(void **state)
{
	uint8_t key[CLUSTER_KEY_MAX];
	struct error err;
	size_t n = 7;

	setenv("WISP_CONFIG", *state, 1);
	assert_int_equal(cluster_key_read(NULL, key, &n, &err), 0);
	assert_int_equal(n, 0);
	assert_int_equal(
		key_of(*state, "/cluster.key", 0600, "thirty-two bytes are what it has", &n, &err),
		0);
	assert_int_equal(cluster_key_read(NULL, key, &n, &err), 0);
	assert_int_equal(n, 32);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_addresses),
		cmocka_unit_test_setup_teardown(test_key, made_set_up, made_tear_down),
		cmocka_unit_test_setup_teardown(test_usual_key, made_set_up, made_tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
