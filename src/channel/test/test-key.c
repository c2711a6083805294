/* SPDX-License-Identifier: Apache-2.0 */
/* Keys are those of RFC 5869, appendix A.1 (its first 32 bytes). */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "channel/key.h"
#include "lib/error.h"

static const uint8_t prk[KEY_SIZE] = {
	0x07, 0x77, 0x09, 0x36, 0x2c, 0x2e, 0x32, 0xdf, 0x0d, 0xdc, 0x3f,
	0x0d, 0xc4, 0x7b, 0xba, 0x63, 0x90, 0xb6, 0xc7, 0x3b, 0xb5, 0x0f,
	0x9c, 0x31, 0x22, 0xec, 0x84, 0x4a, 0xd7, 0xc2, 0xb3, 0xe5,
};
static const uint8_t okm[KEY_SIZE] = {
	0x3c, 0xb2, 0x5f, 0x25, 0xfa, 0xac, 0xd5, 0x7a, 0x90, 0x43, 0x4f,
	0x64, 0xd0, 0x36, 0x2f, 0x2a, 0x2d, 0x2d, 0x0a, 0x90, 0xcf, 0x1a,
	0x5a, 0x4c, 0x5d, 0xb0, 0x2d, 0x56, 0xec, 0xc4, 0xc5, 0xbf,
};

static void test_rfc(void **state)
{
	uint8_t salt[13], secret[22], info[10], key[KEY_SIZE], out[KEY_SIZE];

	for (unsigned i = 0; i < sizeof(salt); i++)
		salt[i] = (uint8_t)i;
	for (unsigned i = 0; i < sizeof(info); i++)
		info[i] = (uint8_t)(0xf0 + i);
	memset(secret, 0x0b, sizeof(secret));
	assert_int_equal(key_extract(salt, sizeof(salt), secret, sizeof(secret), key, NULL), 0);
	assert_memory_equal(key, prk, KEY_SIZE);
	assert_int_equal(key_expand(key, info, sizeof(info), out, NULL), 0);
	assert_memory_equal(out, okm, KEY_SIZE);
}

static void test_long(void **state)
{
	uint8_t info[1024] = {0}, out[KEY_SIZE];
	struct error err = {{0}};

	assert_int_not_equal(key_expand(prk, info, sizeof(info), out, &err), 0);
	assert_string_not_equal(err.text, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rfc),
		cmocka_unit_test(test_long),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
