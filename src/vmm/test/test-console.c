/* SPDX-License-Identifier: Apache-2.0 */
/* The console device over a socket and a file. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <linux/virtio_ids.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/loop.h"
#include "vmm/devices.h"
#include "vmm/test/guest-driver.h"

enum { KEY_SOCKET, KEY_FILE, KEY_STDIO };

struct fixture {
	struct guest guest;
	struct guest_device dev;
	struct device *device;
	char dir[32], path[64];
};

static void begin(struct fixture *f, unsigned key)
{
	struct device_config cfg = {.desc = &console_desc};
	struct error err = {0};

	strcpy(f->dir, "/tmp/wisp-test-XXXXXX");
	guest_require(mkdtemp(f->dir));
	snprintf(f->path, sizeof(f->path), "%s/console", f->dir);
	cfg.value[key] = f->path;
	guest_create(&f->guest);
	guest_require(!console_desc.create(&f->guest.vm, &cfg, &f->device, &err));
	guest_probe(&f->guest, VIRTIO_ID_CONSOLE, 0, &f->dev);
	guest_start(&f->dev, ~0ULL, 0);
}

static void end(struct fixture *f)
{
	guest_destroy(&f->guest);
	unlink(f->path);
	rmdir(f->dir);
}

static struct guest_buf output(struct fixture *f, const char *text)
{
	struct guest_buf buf = {guest_alloc(&f->guest, strlen(text), 1), (uint32_t)strlen(text),
				false};

	memcpy(guest_at(&f->guest, buf.gpa, buf.len), text, buf.len);
	return buf;
}

static void add_input_buffer(struct fixture *f, uint32_t len)
{
	guest_add(&f->dev.queue[0], &(struct guest_buf){guest_alloc(&f->guest, len, 1), len, true},
		  1);
	guest_kick(&f->dev.queue[0]);
}

static int client(struct fixture *f)
{
	int fd = io_unix_connect(f->path, NULL);

	guest_require(fd >= 0);
	guest_run(&f->guest);
	return fd;
}

static void test_output(void **state)
{
	struct fixture f;
	struct guest_buf bufs[2];
	struct stat st;
	char buf[32] = {0};
	int fd;

	begin(&f, KEY_SOCKET);
	assert_int_equal(stat(f.path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	/* Nobody is there: dropped (but kept for who comes), not blocked. */
	bufs[0] = output(&f, "early ");
	assert_int_equal(guest_request(&f.dev.queue[1], bufs, 1), 0);
	fd = client(&f);
	bufs[0] = output(&f, "hello, ");
	bufs[1] = output(&f, "world");
	assert_int_equal(guest_request(&f.dev.queue[1], bufs, 2), 0);
	assert_int_equal(guest_interrupts(&f.dev, 2), 2);
	assert_int_equal(io_read_full(fd, buf, 18), 0);
	assert_string_equal(buf, "early hello, world");
	close(fd);
	guest_run(&f.guest);
	assert_int_equal(guest_request(&f.dev.queue[1], bufs, 2), 0);
	end(&f);
}

/* A client that never reads does not stop the guest. */
static void test_slow_reader(void **state)
{
	struct fixture f;
	struct guest_buf buf;
	struct virtq_used used;
	int fd;

	begin(&f, KEY_SOCKET);
	fd = client(&f);
	buf = (struct guest_buf){guest_alloc(&f.guest, 1 << 20, 1), 1 << 20, false};
	for (unsigned i = 0; i < 32; i++)
		guest_add(&f.dev.queue[1], &buf, 1);
	guest_kick(&f.dev.queue[1]);
	for (unsigned i = 0; i < 32; i++)
		assert_true(guest_wait(&f.dev.queue[1], &used));
	close(fd);
	end(&f);
}

/* Input waits for buffers; every byte arrives, in order, however small they are. */
static void test_input(void **state)
{
	struct fixture f;
	uint8_t sent[5000], got[5000];
	struct virtq_used used;
	size_t n = 0;
	int fd;

	begin(&f, KEY_SOCKET);
	fd = client(&f);
	for (size_t i = 0; i < sizeof(sent); i++)
		sent[i] = (uint8_t)(i * 7 + i / 256);
	assert_int_equal(io_write_full(fd, sent, sizeof(sent)), 0);
	guest_run(&f.guest);
	for (uint32_t len = 1; n < sizeof(got); len = len % 97 + 1) {
		uint64_t at = f.guest.next;

		add_input_buffer(&f, len);
		assert_true(guest_wait(&f.dev.queue[0], &used));
		assert_in_range(used.written, 1, len);
		memcpy(got + n, guest_at(&f.guest, at, used.written), used.written);
		n += used.written;
		assert_int_equal(guest_interrupts(&f.dev, 1), 1);
	}
	assert_memory_equal(sent, got, sizeof(sent));
	/* Pending bytes are part of the saved state, paused devices take none. */
	assert_int_equal(f.device->ops->pause(f.device), 0);
	add_input_buffer(&f, 10);
	assert_int_equal(io_write_full(fd, "late", 4), 0);
	guest_run(&f.guest);
	assert_false(guest_used(&f.dev.queue[0], &used));
	f.device->ops->resume(f.device);
	assert_true(guest_wait(&f.dev.queue[0], &used));
	assert_int_equal(used.written, 4);
	close(fd);
	end(&f);
}

/* Bytes that arrived before there was a driver. */
static void test_input_before_driver(void **state)
{
	struct fixture f;
	struct virtq_used used;
	int fd;

	begin(&f, KEY_SOCKET);
	guest_set_status(&f.dev, 0);
	fd = client(&f);
	assert_int_equal(io_write_full(fd, "first", 5), 0);
	guest_run(&f.guest);
	guest_start(&f.dev, ~0ULL, 0);
	add_input_buffer(&f, 64);
	assert_true(guest_wait(&f.dev.queue[0], &used));
	assert_int_equal(used.written, 5);
	close(fd);
	end(&f);
}

static void test_file(void **state)
{
	struct fixture f;
	struct guest_buf buf;
	CLEANUP_FREE char *text = NULL;

	begin(&f, KEY_FILE);
	buf = output(&f, "logged\n");
	assert_int_equal(guest_request(&f.dev.queue[1], &buf, 1), 0);
	assert_int_equal(io_read_file(f.path, 100, &text, NULL), 7);
	assert_string_equal(text, "logged\n");
	end(&f);
}

static void test_keys(void **state)
{
	struct device_config cfg = {.desc = &console_desc};
	struct device *dev;
	struct guest g;
	struct error err;

	guest_create(&g);
	assert_int_equal(console_desc.create(&g.vm, &cfg, &dev, &err), -EINVAL);
	cfg.value[KEY_SOCKET] = cfg.value[KEY_FILE] = "/nonexistent/x";
	assert_int_equal(console_desc.create(&g.vm, &cfg, &dev, &err), -EINVAL);
	cfg.value[KEY_SOCKET] = NULL;
	assert_int_equal(console_desc.create(&g.vm, &cfg, &dev, &err), -ENOENT);
	guest_destroy(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_output), cmocka_unit_test(test_slow_reader),
		cmocka_unit_test(test_input),  cmocka_unit_test(test_input_before_driver),
		cmocka_unit_test(test_file),   cmocka_unit_test(test_keys),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
