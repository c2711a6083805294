/* SPDX-License-Identifier: Apache-2.0 */
/* ACPI's few registers of a hardware-reduced machine (ACPI 6.4, 4.8.3.7 and 4.8.3.6). */

#include "vmm/dev/power.h"

#include <errno.h>
#include <stdlib.h>

#include "lib/error.h"
#include "lib/log.h"
#include "vmm/device.h"
#include "vmm/state.h"
#include "vmm/vm.h"
#include "vmm/x86/acpi.h"

#define SLEEP_ENABLE 0x20
#define SLEEP_TYPE_SHIFT 2
#define PANIC_PANICKED 0x01
#define PANIC_CRASH_LOADED 0x02

struct power {
	struct device device; /* first: freed through it */
	uint8_t events;	      /* POWER_EVENT_*, not yet read by the guest */
	unsigned panics;      /* reported, for log_due() */
};

static const struct state_field power_state[] = {
	STATE_FIELD(struct power, events),
	STATE_END,
};

static void power_read(void *dev, uint64_t offset, void *data, unsigned len)
{
	struct power *p = dev;
	uint8_t *byte = data;

	if (len != 1)
		return;
	switch (POWER_PORT + offset) {
	case POWER_EVENTS:
		*byte = p->events;
		p->events = 0;
		break;
	case POWER_PANIC:
		*byte = PANIC_PANICKED | PANIC_CRASH_LOADED;
		break;
	default:
		*byte = 0;
	}
}

static void on_panic(struct power *p, uint8_t value)
{
	struct vm *vm = p->device.vm;

	if (!(value & (PANIC_PANICKED | PANIC_CRASH_LOADED)))
		return;
	if (log_due(&p->panics))
		log_error(&vm->log, "power", "the guest kernel panicked%s",
			  value & PANIC_CRASH_LOADED ? " and starts its crash kernel" : "");
	if (value & PANIC_PANICKED)
		vm_end(vm, VM_PANIC);
}

static void power_write(void *dev, uint64_t offset, const void *data, unsigned len)
{
	struct power *p = dev;
	uint8_t value = *(const uint8_t *)data;

	if (len != 1)
		return;
	switch (POWER_PORT + offset) {
	case POWER_SLEEP_CONTROL:
		if (value == (SLEEP_ENABLE | POWER_SLEEP_TYPE_S5 << SLEEP_TYPE_SHIFT))
			vm_end(p->device.vm, VM_POWER_OFF);
		break;
	case POWER_RESET:
		if (value == POWER_RESET_VALUE)
			vm_end(p->device.vm, VM_REBOOT);
		break;
	case POWER_PANIC:
		on_panic(p, value);
		break;
	}
}

static const struct bus_ops power_bus_ops = {.read = power_read, .write = power_write};

static void power_destroy(struct device *dev)
{
	bus_remove(&dev->vm->pio, POWER_PORT);
	free(dev);
}

static const struct device_ops power_ops = {.destroy = power_destroy};

static const struct device_desc power_desc = {
	.name = "power",
	.summary = "ACPI power-off, reset, power button and panic report (always there)",
	.max = 1,
};

int power_create(struct vm *vm, struct error *err)
{
	struct power *p = calloc(1, sizeof(*p));
	struct bus_range range = {
		.base = POWER_PORT, .size = 16, .ops = &power_bus_ops, .dev = p, .name = "power"};
	int r;

	if (!p)
		return error_errno(err, -ENOMEM, "power");
	p->device = (struct device){.desc = &power_desc, .ops = &power_ops, .vm = vm};
	device_add_state(&p->device, "power", power_state, p);
	r = bus_add(&vm->pio, &range, err);
	if (!r)
		r = vm_add_device(vm, &p->device, err);
	if (r)
		power_destroy(&p->device);
	return r;
}

static void raise_event(struct vm *vm, uint8_t event)
{
	for (unsigned i = 0; i < vm->ndevices; i++) {
		if (vm->devices[i]->desc != &power_desc)
			continue;
		((struct power *)vm->devices[i])->events |= event;
		irq_pulse(vm, POWER_IRQ);
	}
}

void power_button(struct vm *vm)
{
	raise_event(vm, POWER_EVENT_BUTTON);
}

void power_new_generation(struct vm *vm)
{
	if (!acpi_new_generation(&vm->mem))
		raise_event(vm, POWER_EVENT_GENERATION);
}
