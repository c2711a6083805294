/* SPDX-License-Identifier: Apache-2.0 */
/* The 16550A as a driver sees it, with a socket at its other end. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/loop.h"
#include "vmm/chardev.h"
#include "vmm/dev/serial.h"
#include "vmm/test/guest-driver.h"

enum { DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR, FCR = IIR };

#define IIR_NONE 0x01
#define IIR_THRI 0x02
#define IIR_RDI 0x04
#define FIFO_SIZE 64

struct fixture {
	struct guest guest;
	int host; /* the other end */
};

static int setup(void **state)
{
	static struct fixture f;
	struct error err;
	int s[2];

	guest_create(&f.guest);
	*state = &f;
	if (serial_create(&f.guest.vm, "none", &err) ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, s))
		return -1;
	f.host = s[0];
	return chardev_adopt(serial_chardev(&f.guest.vm), s[1]);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	guest_destroy(&f->guest);
	close(f->host);
	return 0;
}

static uint8_t get(struct fixture *f, unsigned reg)
{
	uint8_t value;

	bus_read(&f->guest.vm.pio, SERIAL_PORT + reg, &value, 1);
	return value;
}

static void set(struct fixture *f, unsigned reg, uint8_t value)
{
	bus_write(&f->guest.vm.pio, SERIAL_PORT + reg, &value, 1);
}

/* How often the interrupt fired since the last call. */
static unsigned pulses(struct fixture *f)
{
	unsigned n = f->guest.pulses[SERIAL_IRQ];

	f->guest.pulses[SERIAL_IRQ] = 0;
	return n;
}

static void type(struct fixture *f, const char *text)
{
	assert_int_equal(io_write_full(f->host, text, strlen(text)), 0);
	guest_run(&f->guest);
}

static void test_output(void **state)
{
	struct fixture *f = *state;
	char buf[8] = {0};

	assert_int_equal(get(f, LSR), 0x60);
	for (const char *p = "hello"; *p; p++)
		set(f, DATA, (uint8_t)*p);
	assert_int_equal(read(f->host, buf, sizeof(buf)), 5);
	assert_string_equal(buf, "hello");
	assert_int_equal(get(f, LSR), 0x60);
	assert_int_equal(pulses(f), 0);
}

static void test_input(void **state)
{
	struct fixture *f = *state;

	type(f, "ab");
	assert_int_equal(pulses(f), 0);
	set(f, IER, 0x01);
	assert_true(pulses(f) > 0);
	assert_int_equal(get(f, IIR) & 0x0f, IIR_RDI);
	assert_int_equal(get(f, LSR), 0x61);
	assert_int_equal(get(f, DATA), 'a');
	/* The pin is edge-triggered: what is left has to announce itself. */
	assert_int_equal(pulses(f), 1);
	assert_int_equal(get(f, DATA), 'b');
	assert_int_equal(get(f, LSR), 0x60);
	assert_int_equal(get(f, IIR) & 0x0f, IIR_NONE);
	assert_int_equal(get(f, DATA), 0);
	assert_int_equal(pulses(f), 0);
}

/* More than the FIFO holds waits in the socket; nothing is lost, nothing comes twice. */
static void test_input_flow(void **state)
{
	struct fixture *f = *state;
	char text[1001] = {0};

	for (unsigned i = 0; i < 1000; i++)
		text[i] = (char)('!' + i % 90);
	type(f, text);
	for (unsigned i = 0; i < 1000; i++) {
		if (!(get(f, LSR) & 1))
			guest_run(&f->guest);
		assert_int_equal(get(f, LSR) & 1, 1);
		assert_int_equal(get(f, DATA), text[i]);
	}
	guest_run(&f->guest);
	assert_int_equal(get(f, LSR), 0x60);
	/* An idle line costs no wake-ups. */
	assert_int_equal(loop_run_once(f->guest.vm.loop, 0), 0);
}

static void test_transmit_interrupt(void **state)
{
	struct fixture *f = *state;

	set(f, IER, 0x02);
	assert_int_equal(pulses(f), 1);
	assert_int_equal(get(f, IIR), IIR_THRI);
	/* Reading it acknowledged it. */
	assert_int_equal(get(f, IIR), IIR_NONE);
	set(f, DATA, 'x');
	assert_int_equal(pulses(f), 1);
	/* Received data goes first. */
	type(f, "y");
	set(f, IER, 0x03);
	assert_int_equal(get(f, IIR), IIR_RDI);
	get(f, DATA);
	assert_int_equal(get(f, IIR), IIR_THRI);
	assert_int_equal(get(f, IIR), IIR_NONE);
	set(f, IER, 0);
	pulses(f);
	set(f, DATA, 'z');
	assert_int_equal(pulses(f), 0);
	assert_int_equal(get(f, IER), 0);
	set(f, IER, 0xff);
	assert_int_equal(get(f, IER), 0x0f);
}

static void test_fifo_control(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(get(f, IIR), IIR_NONE);
	set(f, FCR, 0x01);
	assert_int_equal(get(f, IIR), 0xc0 | IIR_NONE);
	type(f, "lost");
	assert_int_equal(get(f, LSR), 0x61);
	set(f, FCR, 0x03);
	assert_int_equal(get(f, LSR), 0x60);
	type(f, "k");
	assert_int_equal(get(f, DATA), 'k');
	set(f, FCR, 0x00);
	assert_int_equal(get(f, IIR), IIR_NONE);
}

static void test_divisor(void **state)
{
	struct fixture *f = *state;

	set(f, IER, 0x05);
	set(f, LCR, 0x83);
	assert_int_equal(get(f, LCR), 0x83);
	set(f, DATA, 0x34);
	set(f, IER, 0x12);
	assert_int_equal(get(f, DATA), 0x34);
	assert_int_equal(get(f, IER), 0x12);
	set(f, LCR, 0x03);
	assert_int_equal(get(f, IER), 0x05);
	assert_int_equal(get(f, DATA), 0);
	/* Nothing of the divisor was sent. */
	assert_int_equal(read(f->host, &(char){0}, 1), -1);
	set(f, SCR, 0xa5);
	assert_int_equal(get(f, SCR), 0xa5);
}

static void test_loopback(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(get(f, MSR), 0xb0);
	set(f, LSR, 0xff);
	set(f, MSR, 0xff);
	assert_int_equal(get(f, LSR), 0x60);
	/* The modem outputs come back as inputs. */
	set(f, MCR, 0x10);
	assert_int_equal(get(f, MSR), 0x00);
	set(f, MCR, 0x11);
	assert_int_equal(get(f, MSR), 0x20);
	set(f, MCR, 0x12);
	assert_int_equal(get(f, MSR), 0x10);
	set(f, MCR, 0x14);
	assert_int_equal(get(f, MSR), 0x40);
	set(f, MCR, 0xf8);
	assert_int_equal(get(f, MSR), 0x80);
	assert_int_equal(get(f, MCR), 0x18);
	/* So does what is sent; what overruns the FIFO is lost. */
	for (unsigned i = 0; i < FIFO_SIZE + 20; i++)
		set(f, DATA, (uint8_t)i);
	for (unsigned i = 0; i < FIFO_SIZE; i++)
		assert_int_equal(get(f, DATA), i);
	assert_int_equal(get(f, LSR), 0x60);
	assert_int_equal(read(f->host, &(char){0}, 1), -1);
}

static void test_wide_access(void **state)
{
	struct fixture *f = *state;
	uint32_t value = 0x41414141;

	bus_write(&f->guest.vm.pio, SERIAL_PORT, &value, 4);
	assert_int_equal(read(f->host, &(char){0}, 1), -1);
	bus_read(&f->guest.vm.pio, SERIAL_PORT + 4, &value, 4);
	assert_int_equal(value, 0xffffffff);
}

/* A new client sees the last output, and all of a full history. */
static void test_replay(void **state)
{
	struct fixture *f = *state;
	char buf[9000];

	for (unsigned total = 0; total < 8193; total++) {
		set(f, DATA, (uint8_t)total);
		(void)!read(f->host, buf, sizeof(buf));
		if (total < 8191)
			continue;
		int s[2];

		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s), 0);
		assert_int_equal(chardev_adopt(serial_chardev(&f->guest.vm), s[1]), 0);
		assert_int_equal(io_read_full(s[0], buf, 8192), 0);
		for (unsigned i = 0; i < 8192; i++)
			assert_int_equal((uint8_t)buf[i], (uint8_t)(total + 1 + i - 8192));
		/* The former client was sent away. */
		assert_int_equal(read(f->host, buf, sizeof(buf)), 0);
		close(f->host);
		f->host = s[0];
	}
}

static void test_state(void **state)
{
	struct fixture *f = *state;
	struct device *dev = f->guest.vm.devices[0];
	uint8_t buf[1024];
	struct wire_writer w = wire_writer(buf, sizeof(buf));
	struct wire_reader r;
	struct error err;
	uint8_t *count;

	type(f, "saved");
	set(f, SCR, 0x77);
	state_save_parts(&w, dev->part, dev->nparts);
	assert_false(w.failed);
	while (get(f, LSR) & 1)
		get(f, DATA);
	set(f, SCR, 0);
	r = wire_reader(buf, w.pos);
	assert_int_equal(state_restore_parts(&r, dev->part, dev->nparts, &err), 0);
	assert_int_equal(dev->ops->restored(dev, &err), 0);
	assert_int_equal(get(f, SCR), 0x77);
	for (const char *p = "saved"; *p; p++)
		assert_int_equal(get(f, DATA), *p);
	/* A file that lies. */
	count = memmem(buf, w.pos, "fifo_count", 10);
	assert_non_null(count);
	count[18] = FIFO_SIZE + 1;
	r = wire_reader(buf, w.pos);
	assert_int_equal(state_restore_parts(&r, dev->part, dev->nparts, &err), 0);
	assert_int_equal(dev->ops->restored(dev, &err), -EBADMSG);
	assert_string_equal(err.text, "serial: 65 bytes in a FIFO of 64");
}

static void test_backends(void **state)
{
	static const char *const bad[] = {"", "tty", "socket=", "file=", "stdio2", "socket"};
	static struct guest g;
	struct error err;
	unsigned ports;

	guest_create(&g);
	ports = g.vm.pio.count;
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(serial_create(&g.vm, bad[i], &err), -EINVAL);
	assert_string_equal(
		err.text, "console \"socket\" is not one of stdio, socket=PATH, file=PATH or none");
	assert_int_equal(serial_create(&g.vm, "file=/nonexistent/x", &err), -ENOENT);
	assert_string_equal(err.text,
			    "cannot open console file /nonexistent/x: No such file or directory");
	assert_int_equal(serial_create(&g.vm, "socket=/nonexistent/x", &err), -ENOENT);
	assert_int_equal(g.vm.pio.count, ports);
	assert_null(serial_chardev(&g.vm));
	guest_destroy(&g);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(output),
		TEST(input),
		TEST(input_flow),
		TEST(transmit_interrupt),
		TEST(fifo_control),
		TEST(divisor),
		TEST(loopback),
		TEST(wide_access),
		TEST(replay),
		TEST(state),
		cmocka_unit_test(test_backends),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
