/* SPDX-License-Identifier: Apache-2.0 */
/* Error texts, log lines and the wire helpers. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/log.h"
#include "lib/wire.h"

static void test_error_set(void **state)
{
	struct error err;

	errno = EXDEV;
	assert_int_equal(error_set(&err, -EINVAL, "disk %s has %u sectors", "a.img", 7), -EINVAL);
	assert_string_equal(err.text, "disk a.img has 7 sectors");
	assert_int_equal(error_errno(&err, -ENOENT, "cannot open %s", "x"), -ENOENT);
	assert_string_equal(err.text, "cannot open x: No such file or directory");
	assert_int_equal(error_errno(&err, -99999, "x"), -99999);
	assert_string_equal(err.text, "x: Unknown error 99999");
	assert_int_equal(errno, EXDEV);
}

static void test_error_prefix(void **state)
{
	struct error err;

	error_set(&err, -EINVAL, "no such key");
	assert_int_equal(error_prefix(&err, -EINVAL, "device %s", "block"), -EINVAL);
	assert_string_equal(err.text, "device block: no such key");
	/* The old text may be an argument of the new one. */
	error_set(&err, -EINVAL, "<%s>", err.text);
	assert_string_equal(err.text, "<device block: no such key>");
	error_prefix(&err, -EINVAL, "%.3s", err.text);
	assert_string_equal(err.text, "<de: <device block: no such key>");
}

static void test_error_without_reader(void **state)
{
	assert_int_equal(error_set(NULL, -EINVAL, "x"), -EINVAL);
	assert_int_equal(error_errno(NULL, -EINVAL, "x"), -EINVAL);
	assert_int_equal(error_prefix(NULL, -EINVAL, "x"), -EINVAL);
}

static void test_error_truncation(void **state)
{
	char text[2 * sizeof(struct error)];
	struct {
		struct error err;
		char guard;
	} e = {.guard = 'g'};
	const size_t max = sizeof(e.err.text) - 1;

	for (size_t len = max - 40; len < max + 40; len++) {
		memset(text, 'x', len);
		text[len] = 0;
		error_set(&e.err, -EINVAL, "%s", text);
		assert_int_equal(strlen(e.err.text), len < max ? len : max);
		error_errno(&e.err, -ENOENT, "%s", text);
		assert_true(strlen(e.err.text) <= max);
		error_prefix(&e.err, -EINVAL, "%s", text);
		assert_int_equal(strlen(e.err.text), max);
		assert_int_equal(e.guard, 'g');
	}
}

struct log_fixture {
	struct log log;
	char text[4096];
};

static void log_begin(struct log_fixture *f, const char *name, enum log_level level)
{
	int fd = memfd_create("log", MFD_CLOEXEC);

	assert_true(fd >= 0);
	log_init(&f->log, name, fd, level);
}

/* What was logged since the last call. */
static const char *logged(struct log_fixture *f)
{
	ssize_t n = pread(f->log.fd, f->text, sizeof(f->text) - 1, 0);

	assert_true(n >= 0);
	f->text[n] = 0;
	assert_int_equal(ftruncate(f->log.fd, 0), 0);
	assert_int_equal(lseek(f->log.fd, 0, SEEK_SET), 0);
	return f->text;
}

static void test_log_line(void **state)
{
	struct log_fixture f;
	unsigned year, ms;
	char rest[128];

	log_begin(&f, "vm-7", LOG_INFO);
	errno = EXDEV;
	log_warn(&f.log, "block", "disk %d is slow", 3);
	assert_int_equal(errno, EXDEV);
	assert_int_equal(
		sscanf(logged(&f), "%4u-%*2u-%*2uT%*2u:%*2u:%*2u.%3uZ %127[^\n]", &year, &ms, rest),
		3);
	assert_in_range(year, 2020, 9999);
	assert_string_equal(rest, "vm-7[block] warn: disk 3 is slow");
	assert_string_equal(strchr(f.text, '\n'), "\n");
	close(f.log.fd);
}

static void test_log_levels(void **state)
{
	static const char *const names[] = {"error", "warn", "info", "debug"};
	struct log_fixture f;
	struct error err;

	log_begin(&f, "vm", LOG_ERROR);
	for (int level = LOG_ERROR; level <= LOG_DEBUG; level++) {
		assert_int_equal(log_level_parse(names[level], &err), level);
		assert_string_equal(log_level_name((enum log_level)level), names[level]);
		f.log.level = level;
		for (int i = LOG_ERROR; i <= LOG_DEBUG; i++) {
			log_write(&f.log, (enum log_level)i, "x", "text");
			assert_int_equal(*logged(&f) != 0, i <= level);
		}
	}
	assert_int_equal(log_level_parse("Info", &err), -EINVAL);
	assert_string_equal(err.text, "log level \"Info\" is not one of error, warn, info, debug");
	assert_int_equal(log_level_parse("", &err), -EINVAL);
	close(f.log.fd);
}

static int evaluated(int *counter)
{
	return ++*counter;
}

static void test_log_costs_nothing(void **state)
{
	struct log_fixture f;
	int counter = 0;

	log_begin(&f, "vm", LOG_INFO);
	log_debug(&f.log, "x", "%d", evaluated(&counter));
	assert_int_equal(counter, 0);
	f.log.level = LOG_DEBUG;
	log_debug(&f.log, "x", "%d", evaluated(&counter));
	assert_int_equal(counter, 1);
	log_error((struct log *)NULL, "x", "nobody listens");
	close(f.log.fd);
}

/* One message is one line, whatever is in it and however long it is. */
static void test_log_one_line(void **state)
{
	struct log_fixture f;
	char text[3000];

	log_begin(&f, "a name that is much longer than the sixty-three bytes that fit into it",
		  LOG_INFO);
	assert_int_equal(strlen(f.log.name), 63);
	log_info(&f.log, "x", "one\ntwo\r\x1b[31m\tthree");
	assert_non_null(strstr(logged(&f), ": one two  [31m three\n"));
	memset(text, 'y', sizeof(text));
	text[sizeof(text) - 1] = 0;
	log_info(&f.log, "x", "%s", text);
	logged(&f);
	assert_in_range(strlen(f.text), 1000, 1025);
	assert_string_equal(strchr(f.text, '\n'), "\n");
	close(f.log.fd);
	/* A log that is gone is no reason to fail. */
	errno = EXDEV;
	log_info(&f.log, "x", "lost");
	assert_int_equal(errno, EXDEV);
}

static void test_wire(void **state)
{
	static const uint8_t want[] = {0x01, 0x23, 0x01, 0x67, 0x45, 0x23, 0x01, 0xef,
				       0xcd, 0xab, 0x89, 0x67, 0x45, 0x23, 0x01, 'x'};
	uint8_t buf[sizeof(want)];
	struct wire_writer w = wire_writer(buf, sizeof(buf));
	struct wire_reader r = wire_reader(buf, sizeof(buf));

	wire_put_u8(&w, 0x01);
	wire_put_u16(&w, 0x0123);
	wire_put_u32(&w, 0x01234567);
	wire_put_u64(&w, 0x0123456789abcdef);
	wire_put_bytes(&w, "x", 1);
	assert_false(w.failed);
	assert_memory_equal(buf, want, sizeof(want));
	assert_int_equal(wire_get_u8(&r), 0x01);
	assert_int_equal(wire_get_u16(&r), 0x0123);
	assert_int_equal(wire_get_u32(&r), 0x01234567);
	assert_int_equal(wire_get_u64(&r), 0x0123456789abcdef);
	assert_true(wire_ok(&r));
	assert_false(wire_done(&r));
	assert_memory_equal(wire_get_bytes(&r, 1), "x", 1);
	assert_true(wire_done(&r));
	assert_non_null(wire_get_bytes(&r, 0));
}

/* Running over the end is remembered: nothing is read or written any more. */
static void test_wire_errors_stick(void **state)
{
	uint8_t buf[4] = {1, 2, 3, 4}, small[4] = {0};
	struct wire_reader r = wire_reader(buf, 3);
	struct wire_writer w = wire_writer(small, 3);

	assert_int_equal(wire_get_u32(&r), 0);
	assert_false(wire_ok(&r));
	assert_int_equal(wire_get_u8(&r), 0);
	assert_null(wire_get_bytes(&r, 0));
	r = wire_reader(buf, 3);
	wire_get_u8(&r);
	assert_null(wire_get_bytes(&r, SIZE_MAX));
	assert_false(wire_done(&r));

	wire_put_u32(&w, 0xffffffff);
	assert_true(w.failed);
	wire_put_u8(&w, 0xff);
	assert_int_equal(w.pos, 0);
	w = wire_writer(small, 3);
	wire_put_u16(&w, 0xffff);
	wire_put_bytes(&w, buf, SIZE_MAX);
	assert_true(w.failed);
	assert_int_equal(small[2] | small[3], 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_error_set),
		cmocka_unit_test(test_error_prefix),
		cmocka_unit_test(test_error_without_reader),
		cmocka_unit_test(test_error_truncation),
		cmocka_unit_test(test_log_line),
		cmocka_unit_test(test_log_levels),
		cmocka_unit_test(test_log_costs_nothing),
		cmocka_unit_test(test_log_one_line),
		cmocka_unit_test(test_wire),
		cmocka_unit_test(test_wire_errors_stick),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
