/* SPDX-License-Identifier: Apache-2.0 */
/* CRC-32C: the vectors of RFC 3720 B.4, and any length, in one piece and in two, bit by bit. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/cleanup.h"
#include "mover/crc32c.h"

static void test_vectors(void **state)
{
	static const uint8_t pdu[48] = {
		0x01, 0xc0, [16] = 0x14, [22] = 0x04, [27] = 0x14, [31] = 0x18, 0x28, [40] = 0x02};
	uint8_t data[32];

	memset(data, 0, sizeof(data));
	assert_int_equal(crc32c(0, data, 32), 0x8a9136aa);
	memset(data, 0xff, sizeof(data));
	assert_int_equal(crc32c(0, data, 32), 0x62a8ab43);
	for (unsigned i = 0; i < 32; i++)
		data[i] = (uint8_t)i;
	assert_int_equal(crc32c(0, data, 32), 0x46dd794e);
	for (unsigned i = 0; i < 32; i++)
		data[i] = (uint8_t)(31 - i);
	assert_int_equal(crc32c(0, data, 32), 0x113fdb5c);
	assert_int_equal(crc32c(0, pdu, sizeof(pdu)), 0xd9963a56);
	assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
	assert_int_equal(crc32c(0, NULL, 0), 0);
}

/* As the polynomial defines it. */
static uint32_t bit_by_bit(const uint8_t *p, size_t n)
{
	uint32_t crc = ~0u;

	while (n--) {
		crc ^= *p++;
		for (unsigned bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
	}
	return ~crc;
}

static void test_agree(void **state)
{
	const size_t max = 5000;
	CLEANUP_FREE uint8_t *data = malloc(max + 8);

	assert_non_null(data);
	srandom(1);
	for (size_t i = 0; i < max + 8; i++)
		data[i] = (uint8_t)random();
	for (size_t n = 0; n <= max; n += n < 600 ? 1 : 37) {
		const uint8_t *p = data + n % 8;
		size_t cut = n ? (size_t)random() % n : 0;
		uint32_t sum = bit_by_bit(p, n);

		assert_int_equal(crc32c(0, p, n), sum);
		assert_int_equal(crc32c(crc32c(0, p, cut), p + cut, n - cut), sum);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_vectors),
		cmocka_unit_test(test_agree),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
