/* SPDX-License-Identifier: Apache-2.0 */
/* Frames cut anywhere, too long, of no type, and of JSON that is none. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "channel/frame.h"
#include "lib/cleanup.h"
#include "lib/error.h"

static void add(struct frame_reader *r, const void *data, size_t n)
{
	const uint8_t *p = data;

	while (n) {
		size_t room, some;
		uint8_t *to = frame_room(r, &room);

		assert_non_null(to);
		some = n < room ? n : room;
		memcpy(to, p, some);
		frame_added(r, some);
		p += some;
		n -= some;
	}
}

static void test_pieces(void **state)
{
	struct frame_reader r = {.max = FRAME_MAX};
	json_t *m = json_pack("{s:s, s:i}", "op", "reserve", "id", 7);
	struct error err = {{0}};
	struct frame f;
	uint8_t *p;
	size_t n;

	assert_int_equal(frame_encode(m, FRAME_MAX, &p, &n, &err), 0);
	for (size_t cut = 0; cut < n; cut++) {
		add(&r, p, cut);
		assert_int_equal(frame_take(&r, &f, &err), 0);
		assert_int_equal(frame_is_cut(&r), cut > 0);
		add(&r, p + cut, n - cut);
		assert_int_equal(frame_take(&r, &f, &err), 1);
		assert_int_equal(f.type, FRAME_MESSAGE);
		assert_true(json_equal(f.message, m));
		json_decref(f.message);
		assert_false(frame_is_cut(&r));
	}
	free(p);
	json_decref(m);
	frame_reader_done(&r);
}

/* What goes to many is one message with what is each one's own; long ones grow as they are written.
 */
static void test_shared(void **state)
{
	struct frame_reader r = {.max = FRAME_MAX};
	json_t *own = json_pack("{s:i, s:s}", "id", 7, "to", "0-99"), *rest = json_object();
	CLEANUP_FREE char *text = NULL;
	struct error err = {{0}};
	struct frame f;
	uint8_t *p;
	size_t n;

	for (int i = 0; i < 1000; i++) {
		char key[16];

		snprintf(key, sizeof(key), "k%d", i);
		json_object_set_new(rest, key, json_string("\"{,}\\"));
	}
	text = json_dumps(rest, JSON_COMPACT);
	assert_int_equal(frame_encode_with(own, text, FRAME_MAX, &p, &n, &err), 0);
	add(&r, p, n);
	free(p);
	assert_int_equal(frame_take(&r, &f, &err), 1);
	json_object_update(rest, own);
	assert_true(json_equal(f.message, rest));
	json_decref(f.message);
	assert_int_equal(frame_encode(rest, FRAME_MAX, &p, &n, &err), 0);
	free(p);
	n -= FRAME_HEADER;
	assert_int_equal(frame_encode(rest, n + 1, &p, &n, &err), 0);
	free(p);
	n -= FRAME_HEADER;
	assert_int_equal(frame_encode(rest, n, &p, &n, &err), -EMSGSIZE);
	assert_int_equal(frame_encode_with(own, text, n, &p, &n, &err), -EMSGSIZE);
	json_decref(own);
	json_decref(rest);
	frame_reader_done(&r);
}

static void refuse(const void *bytes, size_t n, int code)
{
	struct frame_reader r = {.max = 4096};
	struct error err = {{0}};
	struct frame f;

	add(&r, bytes, n);
	assert_int_equal(frame_take(&r, &f, &err), code);
	assert_string_not_equal(err.text, "");
	frame_reader_done(&r);
}

#define REFUSE(text, code) refuse(text, sizeof(text) - 1, code)

static void test_refused(void **state)
{
	REFUSE("\0\0\0\0", -EBADMSG);
	REFUSE("\0\0\x10\x01", -EMSGSIZE);
	REFUSE("\xff\xff\xff\xff", -EMSGSIZE);
	REFUSE("\0\0\0\1\7", -EBADMSG);
	REFUSE("\0\0\0\1\0", -EBADMSG);
	REFUSE("\0\0\0\2\3x", -EBADMSG);
	REFUSE("\0\0\0\4\2abc", -EBADMSG);
	REFUSE("\0\0\0\1\1", -EBADMSG);
	REFUSE("\0\0\0\3\1[]", -EBADMSG);
	REFUSE("\0\0\0\4\1{\"a", -EBADMSG);
	REFUSE("\0\0\0\x0e\1{\"a\":1,\"a\":2}", -EBADMSG);
	REFUSE("\0\0\0\x08\1{\"\xff\":1}", -EBADMSG);
}

/* What is announced costs nothing until it comes; a great message is given back. */
static void test_memory(void **state)
{
	struct frame_reader r = {.max = FRAME_MAX};
	struct error err = {{0}};
	struct frame f;
	size_t big = 4u << 20;
	uint8_t *data = calloc(1, big);
	uint8_t head[FRAME_HEADER];

	frame_header(head, FRAME_DATA, big);
	add(&r, head, sizeof(head));
	assert_in_range(r.room, 1, 8192);
	add(&r, data, big);
	assert_in_range(r.room, big, 3 * big);
	assert_int_equal(frame_take(&r, &f, &err), 1);
	assert_int_equal(f.size, big - FRAME_STREAM);
	add(&r, head, 1);
	assert_in_range(r.room, 1, 8192);
	free(data);
	frame_reader_done(&r);
}

/* Many small values in a message that is short enough; a text may have what it wants. */
static void test_values(void **state)
{
	size_t n = FRAME_VALUES_MAX * 3 + 16;
	char *text = malloc(n + 1);
	struct frame_reader r = {.max = FRAME_MAX};
	struct error err = {{0}};
	uint8_t head[FRAME_HEADER];
	struct frame f;

	strcpy(text, "{\"a\":\"");
	memset(text + 6, ',', n - 8);
	strcpy(text + n - 2, "\"}");
	for (unsigned i = 0; i < 2; i++) {
		frame_header(head, FRAME_MESSAGE, n);
		add(&r, head, sizeof(head));
		add(&r, text, n);
		assert_int_equal(frame_take(&r, &f, &err), i ? -EMSGSIZE : 1);
		if (i == 0)
			json_decref(f.message);
		text[5] = '[';
	}
	free(text);
	frame_reader_done(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pieces),	cmocka_unit_test(test_shared),
		cmocka_unit_test(test_refused), cmocka_unit_test(test_memory),
		cmocka_unit_test(test_values),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
