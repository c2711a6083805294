/* SPDX-License-Identifier: Apache-2.0 */
/* Sets of places against the same in a table of bits. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/error.h"
#include "tree/nodeset.h"

#define PLACES 64

static void same(const struct nodeset *set, const bool *bits)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < PLACES; i++) {
		count += bits[i];
		assert_int_equal(nodeset_has(set, i), bits[i]);
	}
	assert_int_equal(nodeset_count(set), count);
	for (size_t i = 1; i < set->n; i++)
		assert_true(set->range[i].first > set->range[i - 1].last + 1);
}

static void again(const struct nodeset *set)
{
	char *text = nodeset_format(set);
	struct nodeset copy = {0};

	assert_int_equal(nodeset_parse(text, &copy, NULL), 0);
	assert_true(nodeset_contains(set, &copy) && nodeset_contains(&copy, set));
	nodeset_done(&copy);
	free(text);
}

static void test_random(void **state)
{
	srand(1);
	for (unsigned round = 0; round < 300; round++) {
		struct nodeset set = {0}, other = {0}, slice = {0};
		bool bits[PLACES] = {0}, more[PLACES] = {0};

		for (unsigned i = 0; i < 12; i++) {
			uint32_t first = (uint32_t)rand() % PLACES;
			uint32_t last = first + (uint32_t)rand() % (PLACES - first);
			bool add = rand() % 2;

			if (rand() % 3)
				last = first;
			memset(bits + first, add, last - first + 1);
			assert_int_equal(add ? nodeset_add(&set, first, last)
					     : nodeset_remove(&set, first, last),
					 0);
			if (i % 3 == 0) {
				memset(more + first, 1, last - first + 1);
				nodeset_add(&other, first, last);
			}
			same(&set, bits);
		}
		again(&set);
		nodeset_slice(&set, 10, 40, &slice);
		assert_true(nodeset_contains(&set, &slice));
		for (unsigned i = 0; i < PLACES; i++)
			assert_int_equal(nodeset_has(&slice, i), bits[i] && i >= 10 && i <= 40);
		if (round % 2)
			nodeset_merge(&set, &other);
		else
			nodeset_subtract(&set, &other);
		for (unsigned i = 0; i < PLACES; i++)
			bits[i] = round % 2 ? bits[i] || more[i] : bits[i] && !more[i];
		same(&set, bits);
		nodeset_done(&set);
		nodeset_done(&other);
		nodeset_done(&slice);
	}
}

static void test_text(void **state)
{
	static const char *const bad[] = {"-1",	 "1-", "a",	"1,",  ",1",	  "1,,2",
					  "3-2", "1 ", "1-2-3", "0x1", "1048576", "99999999999"};
	struct nodeset set = {0};
	struct error err;
	char *text;

	assert_int_equal(nodeset_parse("120,3-5,0-2,7", &set, &err), 0);
	text = nodeset_format(&set);
	assert_string_equal(text, "0-5,7,120");
	free(text);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		err.text[0] = 0;
		assert_in_range(-nodeset_parse(bad[i], &set, &err), 1, 4095);
		assert_string_not_equal(err.text, "");
		assert_int_equal(nodeset_count(&set), 8);
	}
	nodeset_done(&set);
	assert_int_equal(nodeset_parse("", &set, &err), 0);
	assert_int_equal(nodeset_count(&set), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
