/* SPDX-License-Identifier: Apache-2.0 */
/* Frames: what is written can be read, and nothing else is taken. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "agent/client.h"
#include "agent/proto.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/wire.h"

static void put_header(struct buffer *b, uint32_t size, uint16_t type, uint16_t flags)
{
	uint8_t header[PROTO_HEADER];
	struct wire_writer w = wire_writer(header, sizeof(header));

	wire_put_u32(&w, size);
	wire_put_u16(&w, type);
	wire_put_u16(&w, flags);
	buffer_append(b, header, sizeof(header));
}

static void test_round_trip(void **state)
{
	struct buffer b = {0};
	struct frame f;
	unsigned rows, cols;

	assert_int_equal(frame_append_hello(&b), 0);
	assert_int_equal(frame_append(&b, FRAME_STDIN, "abc", 3), 0);
	assert_int_equal(frame_append_winsize(&b, 24, 132), 0);
	assert_int_equal(frame_append_u32(&b, FRAME_CREDIT, 0xdeadbeef), 0);
	assert_int_equal(frame_parse(&b, &f, NULL), 1);
	assert_int_equal(frame_check_hello(&f, NULL), 0);
	frame_consume(&b, &f);
	assert_int_equal(frame_parse(&b, &f, NULL), 1);
	assert_int_equal(f.type, FRAME_STDIN);
	assert_int_equal(f.size, 3);
	assert_memory_equal(f.data, "abc", 3);
	frame_consume(&b, &f);
	assert_int_equal(frame_parse(&b, &f, NULL), 1);
	frame_winsize(&f, &rows, &cols);
	assert_int_equal(rows, 24);
	assert_int_equal(cols, 132);
	frame_consume(&b, &f);
	assert_int_equal(frame_parse(&b, &f, NULL), 1);
	assert_int_equal(frame_u32(&f), 0xdeadbeef);
	frame_consume(&b, &f);
	assert_int_equal(frame_parse(&b, &f, NULL), 0);
	buffer_done(&b);
}

static void test_pieces(void **state)
{
	struct buffer whole = {0}, b = {0};
	struct frame f;

	frame_append(&whole, FRAME_STDOUT, "0123456789", 10);
	for (size_t i = 0; i < buffer_used(&whole); i++) {
		assert_int_equal(frame_parse(&b, &f, NULL), 0);
		buffer_append(&b, whole.data + i, 1);
	}
	assert_int_equal(frame_parse(&b, &f, NULL), 1);
	buffer_done(&whole);
	buffer_done(&b);
}

static void test_bad_frames(void **state)
{
	static const struct {
		uint32_t size;
		uint16_t type, flags;
	} bad[] = {
		{0, 0, 0},
		{4, 99, 0},
		{PROTO_MAX_PAYLOAD + 1, FRAME_STDIN, 0},
		{UINT32_MAX, FRAME_REQUEST, 0},
		{7, FRAME_HELLO, 0},
		{9, FRAME_HELLO, 0},
		{3, FRAME_SIGNAL, 0},
		{1, FRAME_DONE, 0},
		{3, FRAME_ERROR, 0},
		{3, FRAME_STDIN, FRAME_MORE},
		{3, FRAME_REQUEST, 2},
		{0x54544547, 0x2f20, 0x4820}, /* "GET / H" */
	};

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct buffer b = {0};
		struct frame f;
		struct error err;

		put_header(&b, bad[i].size, bad[i].type, bad[i].flags);
		assert_int_equal(frame_parse(&b, &f, &err), -EPROTO);
		buffer_done(&b);
	}
}

static void test_hello(void **state)
{
	uint32_t other[2] = {htole32(PROTO_MAGIC), htole32(PROTO_VERSION + 1)};
	uint32_t wrong[2] = {htole32(0x12345678), htole32(PROTO_VERSION)};
	struct frame f = {.type = FRAME_HELLO, .size = 8, .data = (uint8_t *)other};

	assert_int_equal(frame_check_hello(&f, NULL), -EPROTONOSUPPORT);
	f.data = (uint8_t *)wrong;
	assert_int_equal(frame_check_hello(&f, NULL), -EPROTO);
}

static void test_exit_codes(void **state)
{
	for (int code = 0; code < 256; code++) {
		struct buffer b = {0};
		struct frame f;

		frame_append_exit(&b, code << 8); /* as waitpid tells it */
		assert_int_equal(frame_parse(&b, &f, NULL), 1);
		assert_int_equal(frame_exit_code(&f), code);
		buffer_consume(&b, buffer_used(&b));
		if (code > 0 && code < 65) {
			frame_append_exit(&b, code);
			assert_int_equal(frame_parse(&b, &f, NULL), 1);
			assert_int_equal(frame_exit_code(&f), 128 + code);
		}
		buffer_done(&b);
	}
}

static void test_error_text(void **state)
{
	struct buffer b = {0};
	struct frame f;
	struct error err;

	frame_append_error(&b, -ENOENT, "no \033[2Jfile");
	assert_int_equal(frame_parse(&b, &f, NULL), 1);
	assert_int_equal(frame_error(&f, &err), -ENOENT);
	assert_string_equal(err.text, "no ?[2Jfile");
	buffer_done(&b);
}

/* A value of several frames, and one that is beyond the limit. */
static void test_json(void **state)
{
	struct json_collector c = {0};
	struct buffer b = {0};
	struct frame f;
	size_t n = 3 * PROTO_MAX_PAYLOAD;
	char *text = malloc(n + 1);
	json_t *value, *back = NULL;
	int r = 0;

	memset(text, 'x', n);
	text[n] = 0;
	value = json_pack("{s:s}", "long", text);
	assert_int_equal(frame_append_json(&b, FRAME_RESULT, value), 0);
	while (!r) {
		assert_int_equal(frame_parse(&b, &f, NULL), 1);
		r = json_collect(&c, &f, &back, NULL);
		frame_consume(&b, &f);
	}
	assert_int_equal(r, 1);
	assert_true(json_equal(value, back));
	json_decref(value);
	json_decref(back);
	free(text);
	f = (struct frame){.type = FRAME_REQUEST,
			   .flags = FRAME_MORE,
			   .size = PROTO_MAX_PAYLOAD,
			   .data = calloc(1, PROTO_MAX_PAYLOAD)};
	for (unsigned i = 0; i < PROTO_MAX_JSON / PROTO_MAX_PAYLOAD; i++)
		assert_int_equal(json_collect(&c, &f, &back, NULL), 0);
	assert_int_equal(json_collect(&c, &f, &back, NULL), -EMSGSIZE);
	free((void *)f.data);
	buffer_done(&c.text);
	buffer_done(&b);
}

static int entry_of(const char *name, enum entry_kind kind, const char *target, bool top,
		    struct entry *ret)
{
	struct entry e = {.kind = kind, .mode = 04755, .mtime_ns = -5, .size = 7};
	struct buffer b = {0};
	struct frame f;
	int r;

	strcpy(e.name, name);
	strcpy(e.target, target);
	assert_int_equal(frame_append_entry(&b, &e), 0);
	assert_int_equal(frame_parse(&b, &f, NULL), 1);
	r = frame_entry(&f, top, ret, NULL);
	buffer_done(&b);
	return r;
}

static void test_entries(void **state)
{
	static const char *const bad[] = {"", ".", "..", "/", "a/b", "/etc", "../x"};
	struct entry e;

	assert_int_equal(entry_of("a", ENTRY_FILE, "", false, &e), 0);
	assert_string_equal(e.name, "a");
	assert_int_equal(e.mode, 0755); /* never set-user-id */
	assert_int_equal(e.mtime_ns, -5);
	assert_int_equal(e.size, 7);
	assert_int_equal(entry_of("l", ENTRY_LINK, "/etc/passwd", false, &e), 0);
	assert_string_equal(e.target, "/etc/passwd");
	assert_int_equal(entry_of("", ENTRY_DIR, "", true, &e), 0);
	assert_int_equal(entry_of("x", ENTRY_DIR, "", true, &e), -EPROTO);
	assert_int_equal(entry_of("l", ENTRY_LINK, "", false, &e), -EPROTO);
	assert_int_equal(entry_of("f", ENTRY_FILE, "target", false, &e), -EPROTO);
	assert_int_equal(entry_of("f", 4, "", false, &e), -EPROTO);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(entry_of(bad[i], ENTRY_FILE, "", false, &e), -EPROTO);
}

static void test_printable(void **state)
{
	char got[16];

	text_printable("a\033[m\177\302\233\303\233", 9, got);
	assert_string_equal(got, "a?[m???\303\233");
}

/* An agent that is stopped accepts, and never says a word or only part of one. */
static void test_silent_agent(void **state)
{
	uint64_t start = io_now_ns();
	struct error err;
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	assert_int_equal(client_poweroff(pair[0], false, 50, &err), -ETIMEDOUT);
	assert_int_equal(write(pair[1], "\0", 1), 1);
	assert_int_equal(client_poweroff(pair[0], false, 50, &err), -ETIMEDOUT);
	assert_true(io_now_ns() - start >= 100000000);
	close(pair[0]);
	close(pair[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_silent_agent), cmocka_unit_test(test_printable),
		cmocka_unit_test(test_round_trip),   cmocka_unit_test(test_pieces),
		cmocka_unit_test(test_bad_frames),   cmocka_unit_test(test_hello),
		cmocka_unit_test(test_exit_codes),   cmocka_unit_test(test_error_text),
		cmocka_unit_test(test_json),	     cmocka_unit_test(test_entries),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
