/* SPDX-License-Identifier: Apache-2.0 */
/* Saved state: the encoding of tables, and input that is not what the table says. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "vmm/state.h"

struct thing {
	uint8_t small;
	uint16_t numbers[3];
	uint64_t big;
	char not_saved;
};

static const struct state_field thing_state[] = {
	STATE_FIELD(struct thing, small),
	STATE_ARRAY(struct thing, numbers),
	STATE_FIELD(struct thing, big),
	STATE_END,
};

static const struct thing sample = {
	.small = 0x12, .numbers = {1, 2, 0xffee}, .big = 0x1122334455667788};

static size_t save(uint8_t *buf, size_t size)
{
	struct wire_writer w = wire_writer(buf, size);

	state_save(&w, thing_state, &sample);
	assert_false(w.failed);
	return w.pos;
}

/* The bytes are a format: they do not change by accident. */
static void test_encoding(void **state)
{
	static const uint8_t golden[] = {
		3,    0, /* fields */
		5,    0,    's',  'm',	'a',  'l',  'l',  1,	0,   0, 0, 1, 0,    0,
		0,    0x12,					     /* small */
		7,    0,    'n',  'u',	'm',  'b',  'e',  'r',	's', /* numbers */
		2,    0,    0,	  0,	3,    0,    0,	  0,	1,   0, 2, 0, 0xee, 0xff,
		3,    0,    'b',  'i',	'g',  8,    0,	  0,	0,   1, 0, 0, 0, /* big */
		0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,
	};
	uint8_t buf[256];

	assert_int_equal(save(buf, sizeof(buf)), sizeof(golden));
	assert_memory_equal(buf, golden, sizeof(golden));
}

static void test_round_trip(void **state)
{
	struct thing t = {.not_saved = 'x'};
	uint8_t buf[256];
	struct wire_reader r = wire_reader(buf, save(buf, sizeof(buf)));

	assert_int_equal(state_restore(&r, thing_state, &t, NULL), 0);
	assert_true(wire_done(&r));
	assert_int_equal(t.small, sample.small);
	assert_memory_equal(t.numbers, sample.numbers, sizeof(t.numbers));
	assert_int_equal(t.big, sample.big);
	assert_int_equal(t.not_saved, 'x');
}

/* Cut anywhere, and with any byte of a name or shape changed, nothing is restored. */
static void test_damage(void **state)
{
	const struct thing untouched = {.small = 99};
	uint8_t buf[256];
	size_t size = save(buf, sizeof(buf));
	struct error err = {0};

	for (size_t n = 0; n < size; n++) {
		struct thing t = untouched;
		struct wire_reader r = wire_reader(buf, n);

		assert_int_equal(state_restore(&r, thing_state, &t, &err), -EBADMSG);
		assert_memory_equal(&t, &untouched, sizeof(t));
		assert_true(err.text[0]);
	}
	for (size_t i = 0; i < 15; i++) {
		struct thing t = untouched;
		struct wire_reader r = wire_reader(buf, size);

		buf[i] ^= 0x40;
		assert_int_equal(state_restore(&r, thing_state, &t, &err), -EBADMSG);
		assert_memory_equal(&t, &untouched, sizeof(t));
		buf[i] ^= 0x40;
	}
}

static void test_other_table(void **state)
{
	static const struct state_field shorter[] = {
		STATE_FIELD(struct thing, small),
		STATE_ARRAY(struct thing, numbers),
		STATE_END,
	};
	static const struct state_field renamed[] = {
		STATE_FIELD(struct thing, small),
		STATE_FIELD(struct thing, big),
		STATE_END,
	};
	uint8_t buf[256];
	struct wire_reader r = wire_reader(buf, save(buf, sizeof(buf)));
	struct thing t = {0};
	struct error err;

	assert_int_equal(state_restore(&r, shorter, &t, &err), -EBADMSG);
	assert_string_equal(err.text, "saved state has 3 fields, not 2");
	assert_int_equal(state_restore(&r, renamed, &t, &err), -EBADMSG);
	assert_string_equal(err.text, "saved state has \"numbers\" where \"big\" should be");
	assert_int_equal(t.small, 0);
}

static void test_no_room(void **state)
{
	uint8_t buf[256];
	size_t size = save(buf, sizeof(buf));
	struct wire_writer w = wire_writer(buf, size - 1);

	state_save(&w, thing_state, &sample);
	assert_true(w.failed);
}

static void test_parts(void **state)
{
	struct thing a = sample, b = {.small = 7}, c = {0}, d = {0};
	const struct state_part from[] = {{"a", thing_state, &a}, {"b", thing_state, &b}};
	const struct state_part to[] = {{"a", thing_state, &c}, {"b", thing_state, &d}};
	const struct state_part other[] = {{"a", thing_state, &c}, {"x", thing_state, &d}};
	uint8_t buf[512];
	struct wire_writer w = wire_writer(buf, sizeof(buf));
	struct wire_reader r;
	struct error err;

	state_save_parts(&w, from, 2);
	assert_false(w.failed);
	r = wire_reader(buf, w.pos);
	assert_int_equal(state_restore_parts(&r, other, 2, &err), -EBADMSG);
	assert_int_equal(state_restore_parts(&r, to, 1, &err), -EBADMSG);
	r = wire_reader(buf, w.pos - 1);
	assert_int_equal(state_restore_parts(&r, to, 2, &err), -EBADMSG);
	assert_int_equal(c.small, 0);
	r = wire_reader(buf, w.pos);
	assert_int_equal(state_restore_parts(&r, to, 2, &err), 0);
	assert_true(wire_done(&r));
	assert_int_equal(c.big, sample.big);
	assert_int_equal(d.small, 7);
}

struct list {
	uint16_t values[4];
	uint8_t after;
};

static const struct state_field list_state[] = {
	STATE_TRIMMED(struct list, values),
	STATE_FIELD(struct list, after),
	STATE_END,
};

/* An array without the zeros at its end fits into another of any size that holds the rest. */
static void test_trimmed(void **state)
{
	struct list from = {.values = {1, 0, 3}, .after = 9}, to = {.values = {4, 4, 4, 4}};
	struct state_field shorter[] = {list_state[0], list_state[1], STATE_END};
	uint8_t buf[64];
	struct wire_writer w = wire_writer(buf, sizeof(buf));
	struct wire_reader r;
	struct error err;

	state_save(&w, list_state, &from);
	r = wire_reader(buf, w.pos);
	assert_int_equal(state_restore(&r, list_state, &to, NULL), 0);
	assert_true(wire_done(&r));
	assert_memory_equal(to.values, from.values, sizeof(to.values));
	assert_int_equal(to.after, 9);
	shorter[0].count = 3;
	r = wire_reader(buf, w.pos);
	assert_int_equal(state_restore(&r, shorter, &to, NULL), 0);
	shorter[0].count = 2;
	r = wire_reader(buf, w.pos);
	assert_int_equal(state_restore(&r, shorter, &to, &err), -EBADMSG);
	assert_string_equal(err.text, "saved field \"values\" has 3 elements of 2 bytes, not at "
				      "most 2 of 2");
	/* Nothing at all is fine, a zero at the end is not how it is written. */
	from = (struct list){0};
	w = wire_writer(buf, sizeof(buf));
	state_save(&w, list_state, &from);
	r = wire_reader(buf, w.pos);
	assert_int_equal(state_restore(&r, list_state, &to, NULL), 0);
	assert_int_equal(to.values[0], 0);
	from.values[0] = 1;
	w = wire_writer(buf, sizeof(buf));
	state_save(&w, list_state, &from);
	buf[18] = 0;
	r = wire_reader(buf, w.pos);
	assert_int_equal(state_restore(&r, list_state, &to, &err), -EBADMSG);
	assert_string_equal(err.text, "saved field \"values\" ends with a zero");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_encoding), cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_damage),	 cmocka_unit_test(test_other_table),
		cmocka_unit_test(test_no_room),	 cmocka_unit_test(test_parts),
		cmocka_unit_test(test_trimmed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
