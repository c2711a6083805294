/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hostile guest at the devices without PCI: serial port, power ports and I/O APIC. Accesses of
 * any kind, input from the console at any time, saving and restoring in between.
 */

#include <sys/socket.h>
#include <unistd.h>

#include "input.h"
#include "lib/error.h"
#include "lib/io.h"
#include "vmm/chardev.h"
#include "vmm/dev/power.h"
#include "vmm/dev/serial.h"
#include "vmm/ioapic.h"
#include "vmm/test/guest-driver.h"

#define OPERATIONS_MAX 1000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void access_port(struct guest *g, struct input *in, uint16_t port)
{
	uint64_t value = input_number(in, 4);
	unsigned width = input_width(in) & 7;

	if (input_u8(in) & 1)
		bus_write(&g->vm.pio, port, &value, width ? width : 3);
	else
		bus_read(&g->vm.pio, port, &value, width ? width : 3);
}

static void access_ioapic(struct guest *g, struct input *in)
{
	uint64_t offset = input_u8(in) & 0x3f;
	unsigned width = input_width(in);
	uint64_t addr;
	uint32_t message;

	if (input_u8(in) & 1)
		guest_write(g, IOAPIC_BASE + offset, input_number(in, 4), width);
	else
		guest_read(g, IOAPIC_BASE + offset, width);
	for (unsigned pin = 0; pin < IRQ_PINS; pin++)
		if (ioapic_message(g->vm.ioapic, pin, &addr, &message))
			guest_require(addr >> 20 == 0xfee && !(message & ~0x87ffu));
}

/* What was saved comes back, also when it is not what we wrote. */
static void save_and_restore(struct guest *g, struct input *in)
{
	uint8_t buf[1024];

	for (unsigned i = 0; i < g->vm.ndevices; i++) {
		struct device *dev = g->vm.devices[i];
		struct wire_writer w = wire_writer(buf, sizeof(buf));
		struct wire_reader r;
		struct error err;

		state_save_parts(&w, dev->part, dev->nparts);
		guest_require(!w.failed);
		r = wire_reader(buf, w.pos);
		guest_require(!state_restore_parts(&r, dev->part, dev->nparts, &err));
		guest_require(!dev->ops->restored || !dev->ops->restored(dev, &err));
	}
}

static void operate(struct guest *g, struct input *in, int console)
{
	uint8_t bytes[64] = {0};

	switch (input_u8(in) % 6) {
	case 0:
	case 1:
		access_port(g, in, (uint16_t)(SERIAL_PORT - 1 + (input_u8(in) & 0xf)));
		break;
	case 2:
		access_port(g, in, (uint16_t)(POWER_PORT - 1 + (input_u8(in) & 0x1f)));
		break;
	case 3:
		access_ioapic(g, in);
		break;
	case 4:
		(void)!write(console, bytes, 1 + input_u8(in) % sizeof(bytes));
		guest_run(g);
		break;
	case 5:
		save_and_restore(g, in);
		power_button(&g->vm);
		break;
	}
	while (read(console, bytes, sizeof(bytes)) > 0)
		;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct guest g;
	struct input in = {.data = data, .size = size};
	struct error err;
	int s[2];

	guest_create(&g);
	log_init(&g.vm.log, "fuzz", -1, LOG_DEBUG);
	guest_require(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, s));
	guest_require(!serial_create(&g.vm, "none", &err) && !power_create(&g.vm, &err));
	guest_require(!ioapic_create(&g.vm, &err));
	guest_require(!chardev_adopt(serial_chardev(&g.vm), s[1]));
	for (unsigned i = 0; i < OPERATIONS_MAX && in.pos < in.size; i++)
		operate(&g, &in, s[0]);
	ioapic_destroy(&g.vm);
	guest_destroy(&g);
	close(s[0]);
	return 0;
}
