/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hostile guest on the PCI bus: the input is a list of accesses to configuration space and to
 * BARs, wherever they are. Ranges never overlap, BARs stay in their window, and what KVM would
 * hold (irqfds, ioeventfds) goes away with the devices (guest_destroy() checks that).
 */

#include <linux/pci_regs.h>
#include <string.h>

#include "input.h"
#include "vmm/devices.h"
#include "vmm/pci/msix.h"
#include "vmm/test/echo.h"
#include "vmm/test/guest-driver.h"

#define OPERATIONS_MAX 512

struct fuzz {
	struct guest guest;
	struct echo *echo[2];
	struct input in;
};

enum operation {
	OP_CONFIG_READ,
	OP_CONFIG_WRITE,
	OP_BAR_REGISTER,
	OP_COMMAND,
	OP_MSIX_CONTROL,
	OP_READ,
	OP_WRITE,
	OP_SIGNAL,
	OP_RUN,
	OPERATIONS
};

static struct pci_function *pick_function(struct fuzz *f)
{
	return &f->echo[input_u8(&f->in) & 1]->virtio.fn;
}

/* Where a BAR is, was, or could be. */
static uint64_t pick_address(struct fuzz *f)
{
	struct pci_bar *bar = &pick_function(f)->bar[input_u8(&f->in) & 1];
	uint64_t offset = input_number(&f->in, 2) & 0x1fff;

	return bar->addr + offset;
}

static void operate(struct fuzz *f)
{
	struct guest *g = &f->guest;
	struct pci_function *fn;
	unsigned slot, reg, width;
	uint64_t addr;

	switch (input_u8(&f->in) % OPERATIONS) {
	case OP_CONFIG_READ:
		slot = input_u8(&f->in) % 5;
		reg = (unsigned)input_number(&f->in, 2) & 0xfff;
		guest_config_read(g, slot, reg, input_width(&f->in) & 7);
		break;
	case OP_CONFIG_WRITE:
		slot = input_u8(&f->in) % 5;
		reg = input_u8(&f->in);
		width = input_width(&f->in);
		guest_config_write(g, slot, reg, (uint32_t)input_number(&f->in, 4), width);
		break;
	case OP_BAR_REGISTER:
		/* Close together, so that they meet. */
		fn = pick_function(f);
		reg = PCI_BASE_ADDRESS_0 + 4 * (input_u8(&f->in) & 1);
		addr = PCI_MMIO_BASE + (uint64_t)(input_u8(&f->in) & 15) * 0x1000;
		guest_config_write(g, fn->slot, reg, (uint32_t)addr, 4);
		break;
	case OP_COMMAND:
		fn = pick_function(f);
		guest_config_write(g, fn->slot, PCI_COMMAND, input_u8(&f->in), 2);
		break;
	case OP_MSIX_CONTROL:
		fn = pick_function(f);
		guest_config_write(g, fn->slot, msix_control_offset(fn->msix) + 1, input_u8(&f->in),
				   1);
		break;
	case OP_READ:
		addr = pick_address(f);
		guest_read(g, addr, input_width(&f->in));
		break;
	case OP_WRITE:
		addr = pick_address(f);
		width = input_width(&f->in);
		guest_write(g, addr, input_number(&f->in, width), width);
		break;
	case OP_SIGNAL:
		fn = pick_function(f);
		msix_signal(fn->msix, input_u8(&f->in) & 3);
		break;
	case OP_RUN:
		guest_run(g);
		break;
	}
}

static void check_bus(const struct bus *bus)
{
	for (unsigned i = 1; i < bus->count; i++)
		guest_require(bus->range[i - 1].base + bus->range[i - 1].size <=
			      bus->range[i].base);
	for (unsigned i = 0; i < bus->count; i++)
		guest_require(
			bus->range[i].base == PCI_ECAM_BASE ||
			(bus->range[i].base >= PCI_MMIO_BASE &&
			 bus->range[i].base + bus->range[i].size <= PCI_MMIO_BASE + PCI_MMIO_SIZE));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct device_config rng = {.desc = &rng_desc};
	struct fuzz f = {.in = {data, size, 0}};
	struct guest_device probed;
	struct device *dev;

	guest_create(&f.guest);
	f.guest.vm.log.level = -1;
	f.echo[0] = echo_create(&f.guest.vm);
	f.echo[1] = echo_create(&f.guest.vm);
	guest_require(!rng_desc.create(&f.guest.vm, &rng, &dev, NULL));
	for (unsigned i = 0; i < 2; i++)
		guest_probe(&f.guest, ECHO_ID, i, &probed);
	f.guest.gsis_max = 3; /* fewer than vectors */
	for (unsigned i = 0; i < OPERATIONS_MAX && f.in.pos < f.in.size; i++) {
		operate(&f);
		check_bus(&f.guest.vm.mmio);
	}
	guest_destroy(&f.guest);
	return 0;
}
