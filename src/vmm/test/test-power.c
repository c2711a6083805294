/* SPDX-License-Identifier: Apache-2.0 */
/* The power ports: what ends the VM and how, and the power button. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/log.h"
#include "vmm/dev/power.h"
#include "vmm/test/guest-driver.h"
#include "vmm/x86/acpi.h"

static int setup(void **state)
{
	static struct guest g;
	struct error err;

	guest_create(&g);
	g.vm.log.fd = -1;
	*state = &g;
	return power_create(&g.vm, &err);
}

static int teardown(void **state)
{
	guest_destroy(*state);
	return 0;
}

static uint32_t in(struct guest *g, uint16_t port, unsigned len)
{
	uint32_t value = 0;

	bus_read(&g->vm.pio, port, &value, len);
	return value;
}

static void out(struct guest *g, uint16_t port, uint32_t value, unsigned len)
{
	bus_write(&g->vm.pio, port, &value, len);
}

static void test_ends(void **state)
{
	static const struct {
		uint16_t port;
		uint32_t value;
		unsigned len;
		enum vm_end end;
	} cases[] = {
		{POWER_SLEEP_CONTROL, 0x34, 1, VM_POWER_OFF}, /* SLP_EN, SLP_TYP 5 */
		{POWER_SLEEP_CONTROL, 0x14, 1, VM_RUNNING},   /* without SLP_EN */
		{POWER_SLEEP_CONTROL, 0x20, 1, VM_RUNNING},   /* S0 */
		{POWER_SLEEP_CONTROL, 0x2c, 1, VM_RUNNING},   /* S3: not offered */
		{POWER_SLEEP_CONTROL, 0x34, 2, VM_RUNNING},
		{POWER_SLEEP_STATUS, 0x80, 1, VM_RUNNING},
		{POWER_RESET, 1, 1, VM_REBOOT},
		{POWER_RESET, 0, 1, VM_RUNNING},
		{POWER_RESET, 6, 1, VM_RUNNING},
		{POWER_RESET, 1, 4, VM_RUNNING},
		{POWER_PANIC, 1, 1, VM_PANIC},
		{POWER_PANIC, 3, 1, VM_PANIC},
		{POWER_PANIC, 2, 1, VM_RUNNING}, /* its crash kernel goes on */
		{POWER_PANIC, 0xfc, 1, VM_RUNNING},
		{POWER_EVENTS, 0xff, 1, VM_RUNNING},
		{POWER_PORT + 15, 0xff, 1, VM_RUNNING},
	};
	struct guest *g = *state;

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		g->vm.end = VM_RUNNING;
		out(g, cases[i].port, cases[i].value, cases[i].len);
		assert_int_equal(g->vm.end, cases[i].end);
	}
	assert_int_equal(in(g, POWER_EVENTS, 1), 0);
}

static unsigned lines(int fd)
{
	char text[4096];
	ssize_t n = pread(fd, text, sizeof(text), 0);
	unsigned count = 0;

	for (ssize_t i = 0; i < n; i++)
		count += text[i] == '\n';
	return count;
}

/* A guest that reports for ever does not fill the log; what is no report is not logged. */
static void test_panic_log(void **state)
{
	struct guest *g = *state;
	int fd = memfd_create("log", MFD_CLOEXEC);

	assert_true(fd >= 0);
	log_init(&g->vm.log, "test", fd, LOG_ERROR);
	for (unsigned i = 0; i < 10; i++)
		out(g, POWER_PANIC, 0xfc, 1);
	assert_int_equal(lines(fd), 0);
	for (unsigned i = 0; i < 10; i++)
		out(g, POWER_PANIC, 2, 1);
	assert_int_equal(lines(fd), 4); /* the 1st, 2nd, 4th and 8th */
	g->vm.log.fd = -1;
	close(fd);
}

static void test_button(void **state)
{
	struct guest *g = *state;

	power_button(&g->vm);
	power_button(&g->vm);
	assert_int_equal(g->pulses[POWER_IRQ], 2);
	/* A read of another width is none. */
	assert_int_equal(in(g, POWER_EVENTS, 2), 0xffff);
	assert_int_equal(in(g, POWER_EVENTS, 1), POWER_EVENT_BUTTON);
	assert_int_equal(in(g, POWER_EVENTS, 1), 0);
	assert_int_equal(g->vm.end, VM_RUNNING);
}

/* Each copy of a guest is told, and finds other bytes than the last one. */
static void test_generation(void **state)
{
	struct guest *g = *state;
	uint8_t first[ACPI_GENERATION_SIZE];

	power_new_generation(&g->vm);
	memcpy(first, guest_at(g, ACPI_GENERATION, sizeof(first)), sizeof(first));
	assert_int_equal(g->pulses[POWER_IRQ], 1);
	power_button(&g->vm);
	assert_int_equal(in(g, POWER_EVENTS, 1), POWER_EVENT_GENERATION | POWER_EVENT_BUTTON);
	power_new_generation(&g->vm);
	assert_memory_not_equal(first, guest_at(g, ACPI_GENERATION, sizeof(first)), sizeof(first));
}

static void test_reads(void **state)
{
	struct guest *g = *state;

	assert_int_equal(in(g, POWER_PANIC, 1), 3);
	assert_int_equal(in(g, POWER_SLEEP_STATUS, 1), 0);
	assert_int_equal(in(g, POWER_PORT + 15, 1), 0);
	assert_int_equal(in(g, POWER_PORT + 16, 1), 0xff);
}

static void test_state(void **state)
{
	struct guest *g = *state;
	struct device *dev = g->vm.devices[0];
	uint8_t buf[256];
	struct wire_writer w = wire_writer(buf, sizeof(buf));
	struct wire_reader r;
	struct error err;

	power_button(&g->vm);
	state_save_parts(&w, dev->part, dev->nparts);
	assert_false(w.failed);
	in(g, POWER_EVENTS, 1);
	r = wire_reader(buf, w.pos);
	assert_int_equal(state_restore_parts(&r, dev->part, dev->nparts, &err), 0);
	assert_int_equal(in(g, POWER_EVENTS, 1), POWER_EVENT_BUTTON);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_ends, setup, teardown),
		cmocka_unit_test_setup_teardown(test_panic_log, setup, teardown),
		cmocka_unit_test_setup_teardown(test_button, setup, teardown),
		cmocka_unit_test_setup_teardown(test_generation, setup, teardown),
		cmocka_unit_test_setup_teardown(test_reads, setup, teardown),
		cmocka_unit_test_setup_teardown(test_state, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
