/* SPDX-License-Identifier: Apache-2.0 */
/* A 16550A UART (PC16550D data sheet) without a baud rate: bytes leave at once. */

#include "vmm/dev/serial.h"

#include <errno.h>
#include <stdlib.h>

#include "lib/error.h"
#include "vmm/chardev.h"
#include "vmm/device.h"
#include "vmm/state.h"
#include "vmm/vm.h"

enum { REG_DATA, REG_IER, REG_IIR_FCR, REG_LCR, REG_MCR, REG_LSR, REG_MSR, REG_SCR, REGISTERS };

#define IER_RDI 0x01  /* received data */
#define IER_THRI 0x02 /* transmitter empty */
#define IIR_NONE 0x01
#define IIR_THRI 0x02
#define IIR_RDI 0x04
#define IIR_FIFO 0xc0
#define FCR_ENABLE 0x01
#define FCR_CLEAR_RX 0x02
#define LCR_DLAB 0x80
#define MCR_LOOP 0x10
#define LSR_DR 0x01
#define LSR_IDLE 0x60  /* holding register and transmitter empty */
#define MSR_READY 0xb0 /* carrier, data set ready, clear to send */

struct serial {
	struct device device; /* first: freed through it */
	struct chardev *chardev;
	uint8_t ier, fcr, lcr, mcr, scr, divisor_low, divisor_high;
	uint8_t thr_empty_pending; /* the transmitter-empty interrupt is not yet acknowledged */
	uint8_t fifo[64];	   /* received bytes; larger than the chip's 16 to save wake-ups */
	uint32_t fifo_head, fifo_count;
	uint64_t bytes_in, bytes_out;
};

static const struct state_field serial_state[] = {
	STATE_FIELD(struct serial, ier),	  STATE_FIELD(struct serial, fcr),
	STATE_FIELD(struct serial, lcr),	  STATE_FIELD(struct serial, mcr),
	STATE_FIELD(struct serial, scr),	  STATE_FIELD(struct serial, divisor_low),
	STATE_FIELD(struct serial, divisor_high), STATE_FIELD(struct serial, thr_empty_pending),
	STATE_ARRAY(struct serial, fifo),	  STATE_FIELD(struct serial, fifo_head),
	STATE_FIELD(struct serial, fifo_count),	  STATE_END,
};

static uint8_t interrupt_id(const struct serial *s)
{
	if ((s->ier & IER_RDI) && s->fifo_count)
		return IIR_RDI;
	if ((s->ier & IER_THRI) && s->thr_empty_pending)
		return IIR_THRI;
	return IIR_NONE;
}

/* The pin is edge-triggered: pulsed whenever a cause appears. */
static void raise_if_pending(struct serial *s)
{
	if (interrupt_id(s) != IIR_NONE)
		irq_pulse(s->device.vm, SERIAL_IRQ);
}

static void receive(struct serial *s, uint8_t byte)
{
	s->fifo[(s->fifo_head + s->fifo_count++) % sizeof(s->fifo)] = byte;
	s->bytes_in++;
}

static uint8_t take_received(struct serial *s)
{
	uint8_t byte = 0;

	if (!s->fifo_count)
		return 0;
	byte = s->fifo[s->fifo_head % sizeof(s->fifo)];
	s->fifo_head = (s->fifo_head + 1) % sizeof(s->fifo);
	if (!--s->fifo_count)
		chardev_input_ready(s->chardev);
	else
		raise_if_pending(s);
	return byte;
}

static uint8_t take_interrupt_id(struct serial *s)
{
	uint8_t id = interrupt_id(s);

	if (id == IIR_THRI)
		s->thr_empty_pending = 0;
	return id | (s->fcr & FCR_ENABLE ? IIR_FIFO : 0);
}

static uint8_t modem_status(const struct serial *s)
{
	if (!(s->mcr & MCR_LOOP))
		return MSR_READY;
	/* In loop-back mode the outputs are wired to the inputs. */
	return (uint8_t)((s->mcr & 0x02) << 3 | (s->mcr & 0x01) << 5 | (s->mcr & 0x0c) << 4);
}

static uint8_t read_register(struct serial *s, unsigned reg)
{
	switch (reg) {
	case REG_DATA:
		return s->lcr & LCR_DLAB ? s->divisor_low : take_received(s);
	case REG_IER:
		return s->lcr & LCR_DLAB ? s->divisor_high : s->ier;
	case REG_IIR_FCR:
		return take_interrupt_id(s);
	case REG_LCR:
		return s->lcr;
	case REG_MCR:
		return s->mcr;
	case REG_LSR:
		return LSR_IDLE | (s->fifo_count ? LSR_DR : 0);
	case REG_MSR:
		return modem_status(s);
	default:
		return s->scr;
	}
}

static void transmit(struct serial *s, uint8_t byte)
{
	if (!(s->mcr & MCR_LOOP)) {
		chardev_output(s->chardev, &byte, 1);
		s->bytes_out++;
	} else if (s->fifo_count < sizeof(s->fifo)) {
		receive(s, byte);
	}
	s->thr_empty_pending = 1;
	raise_if_pending(s);
}

static void write_data(struct serial *s, uint8_t value)
{
	if (s->lcr & LCR_DLAB)
		s->divisor_low = value;
	else
		transmit(s, value);
}

static void write_ier(struct serial *s, uint8_t value)
{
	if (s->lcr & LCR_DLAB) {
		s->divisor_high = value;
		return;
	}
	/* Enabling the transmitter interrupt while it is empty raises it. */
	if (value & ~s->ier & IER_THRI)
		s->thr_empty_pending = 1;
	s->ier = value & 0x0f;
	raise_if_pending(s);
}

static void write_fcr(struct serial *s, uint8_t value)
{
	s->fcr = value;
	if (value & FCR_CLEAR_RX) {
		s->fifo_count = 0;
		chardev_input_ready(s->chardev);
	}
}

static void write_register(struct serial *s, unsigned reg, uint8_t value)
{
	switch (reg) {
	case REG_DATA:
		write_data(s, value);
		break;
	case REG_IER:
		write_ier(s, value);
		break;
	case REG_IIR_FCR:
		write_fcr(s, value);
		break;
	case REG_LCR:
		s->lcr = value;
		break;
	case REG_MCR:
		s->mcr = value & 0x1f;
		break;
	case REG_SCR:
		s->scr = value;
		break;
	}
}

static void serial_read(void *dev, uint64_t offset, void *data, unsigned len)
{
	/* Wider accesses than a byte do not exist on the chip's bus. */
	if (len == 1)
		*(uint8_t *)data = read_register(dev, (unsigned)offset);
}

static void serial_write(void *dev, uint64_t offset, const void *data, unsigned len)
{
	if (len == 1)
		write_register(dev, (unsigned)offset, *(const uint8_t *)data);
}

static const struct bus_ops serial_bus_ops = {.read = serial_read, .write = serial_write};

static size_t input_room(void *arg)
{
	struct serial *s = arg;

	return sizeof(s->fifo) - s->fifo_count;
}

static void input(void *arg, const uint8_t *data, size_t len)
{
	struct serial *s = arg;

	for (size_t i = 0; i < len; i++)
		receive(s, data[i]);
	raise_if_pending(s);
}

static const struct chardev_ops serial_chardev_ops = {.room = input_room, .input = input};

static void serial_stats(struct device *dev, json_t *object)
{
	const struct serial *s = (const struct serial *)dev;

	json_object_set_new(object, "bytes_in", json_integer((json_int_t)s->bytes_in));
	json_object_set_new(object, "bytes_out", json_integer((json_int_t)s->bytes_out));
}

static void serial_destroy(struct device *dev)
{
	struct serial *s = (struct serial *)dev;

	bus_remove(&dev->vm->pio, SERIAL_PORT);
	chardev_destroy(s->chardev);
	free(s);
}

static int serial_restored(struct device *dev, struct error *err)
{
	struct serial *s = (struct serial *)dev;

	if (s->fifo_count > sizeof(s->fifo))
		return error_set(err, -EBADMSG, "serial: %u bytes in a FIFO of %zu", s->fifo_count,
				 sizeof(s->fifo));
	return 0;
}

static const struct device_ops serial_ops = {
	.restored = serial_restored, .stats = serial_stats, .destroy = serial_destroy};

const struct device_desc serial_desc = {
	.name = "serial",
	.summary = "16550A console (always there; --serial chooses its back end)",
	.max = 1,
};

int serial_create(struct vm *vm, const char *spec, struct error *err)
{
	struct serial *s = calloc(1, sizeof(*s));
	struct bus_range range = {.base = SERIAL_PORT,
				  .size = REGISTERS,
				  .ops = &serial_bus_ops,
				  .dev = s,
				  .name = "serial"};
	int r;

	if (!s)
		return error_errno(err, -ENOMEM, "serial");
	s->device = (struct device){.desc = &serial_desc, .ops = &serial_ops, .vm = vm};
	device_add_state(&s->device, "serial", serial_state, s);
	r = chardev_create(spec, vm->loop, &serial_chardev_ops, s, &s->chardev, err);
	if (!r)
		r = bus_add(&vm->pio, &range, err);
	if (!r)
		r = vm_add_device(vm, &s->device, err);
	if (r)
		serial_destroy(&s->device);
	return r;
}

struct chardev *serial_chardev(struct vm *vm)
{
	for (unsigned i = 0; i < vm->ndevices; i++)
		if (vm->devices[i]->desc == &serial_desc)
			return ((struct serial *)vm->devices[i])->chardev;
	return NULL;
}
