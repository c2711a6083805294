/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The PCI host: configuration space through ECAM and the two ports of old, which kernels use
 * before they have read the ACPI tables, and BARs that follow what the guest writes
 * there. Every byte of configuration space has a mask of the bits the guest may change; BAR
 * sizing falls out of it (a BAR's low address bits cannot be written).
 */

#include "vmm/pci/pci.h"

#include <endian.h>
#include <errno.h>
#include <linux/pci_regs.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "vmm/device.h"
#include "vmm/pci/msix.h"
#include "vmm/vm.h"

#define SLOT_SHIFT 15			       /* ECAM: 8 functions of 4 KiB a slot */
#define DECODED_SIZE (PCI_SLOTS << SLOT_SHIFT) /* bus 0 */

/* An Intel id that no product has and no Linux quirk looks for. */
#define BRIDGE_VENDOR 0x8086
#define BRIDGE_DEVICE 0x0d57
#define BRIDGE_CLASS 0x060000

/*
 * Configuration mechanism #1 (PCI 3.0, 3.2.2.3.2): the port takes bus, device, function and
 * dword, four ports behind it are that dword.
 */
#define ADDRESS_PORT 0xcf8
#define DATA_PORT 0xcfc
#define ADDRESS_ENABLE 0x80000000u
#define ADDRESS_BITS 0x80fffffcu

struct pci_host {
	struct pci_function *slot[PCI_SLOTS];
	uint32_t address; /* what ADDRESS_PORT was given */
	uint64_t next;	  /* free addresses of the window begin here */
	struct pci_function bridge;
};

static bool touches(unsigned offset, unsigned len, unsigned start, unsigned size)
{
	return offset < start + size && start < offset + len;
}

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}

static void put16(uint8_t *p, uint16_t v)
{
	v = htole16(v);
	memcpy(p, &v, sizeof(v));
}

static void put32(uint8_t *p, uint32_t v)
{
	v = htole32(v);
	memcpy(p, &v, sizeof(v));
}

static uint8_t *bar_register(uint8_t *config, unsigned i)
{
	return config + PCI_BASE_ADDRESS_0 + 4 * i;
}

static uint64_t bar_address(const uint8_t *config, unsigned i)
{
	uint32_t v;

	memcpy(&v, config + PCI_BASE_ADDRESS_0 + 4 * i, sizeof(v));
	return le32toh(v) & (uint32_t)PCI_BASE_ADDRESS_MEM_MASK;
}

static int bar_map(struct pci_function *fn, struct pci_bar *bar, uint64_t addr, struct error *err)
{
	struct bus_range range = {.base = addr,
				  .size = bar->size,
				  .ops = bar->ops,
				  .dev = bar->dev,
				  .name = fn->name};
	int r = bus_add(&fn->vm->mmio, &range, err);

	if (r)
		return r;
	bar->addr = addr;
	bar->mapped = true;
	if (bar->moved)
		bar->moved(bar->dev, addr, true);
	return 0;
}

static void bar_unmap(struct pci_function *fn, struct pci_bar *bar)
{
	bus_remove(&fn->vm->mmio, bar->addr);
	bar->mapped = false;
	if (bar->moved)
		bar->moved(bar->dev, bar->addr, false);
}

/*
 * Maps a BAR where its register says, or nowhere: while decoding is off, and outside the
 * window (where a guest that sizes BARs with decoding on puts them for a moment). A BAR that
 * would overlap another goes back to where it was last.
 */
static int bar_update(struct pci_function *fn, unsigned i, struct error *err)
{
	struct pci_bar *bar = &fn->bar[i];
	uint64_t addr = bar_address(fn->config, i), old = bar->addr;
	bool wanted = get16(fn->config + PCI_COMMAND) & PCI_COMMAND_MEMORY &&
		      addr >= PCI_MMIO_BASE && addr - PCI_MMIO_BASE <= PCI_MMIO_SIZE - bar->size;
	int r;

	if (!bar->size || (bar->mapped ? wanted && addr == old : !wanted))
		return 0;
	if (bar->mapped)
		bar_unmap(fn, bar);
	if (!wanted)
		return 0;
	r = bar_map(fn, bar, addr, err);
	if (r) {
		put32(bar_register(fn->config, i), (uint32_t)old);
		bar_map(fn, bar, old, NULL);
	}
	return r;
}

static int bars_update(struct pci_function *fn, struct error *err)
{
	int ret = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(fn->bar); i++) {
		int r = bar_update(fn, i, err);

		if (r)
			ret = r;
	}
	return ret;
}

static void config_write(struct pci_function *fn, unsigned offset, const uint8_t *data,
			 unsigned len)
{
	struct error err;

	for (unsigned i = offset; i < offset + len; i++)
		fn->config[i] = (uint8_t)((fn->config[i] & ~fn->writable[i]) |
					  (data[i - offset] & fn->writable[i]));
	if ((touches(offset, len, PCI_COMMAND, 2) ||
	     touches(offset, len, PCI_BASE_ADDRESS_0, 24)) &&
	    bars_update(fn, &err) && log_due(&fn->complaints))
		log_warn(&fn->vm->log, "pci", "BAR not moved: %s", err.text);
	if (fn->msix && touches(offset, len, msix_control_offset(fn->msix), 2))
		msix_control_written(fn->msix);
	if (fn->config_write && touches(offset, len, fn->hook_start, fn->hook_end - fn->hook_start))
		fn->config_write(fn, offset, len);
}

/* The function an ECAM access is for, its offset there in *reg; NULL: nobody. */
static struct pci_function *decode(struct pci_host *host, uint64_t offset, unsigned len,
				   unsigned *reg)
{
	*reg = offset & 0xfff;
	/* Functions 1 to 7 do not exist, and nothing naturally aligned crosses a function. */
	if (offset & 0x7000 || *reg + len > 0x1000)
		return NULL;
	return host->slot[offset >> SLOT_SHIFT];
}

static void ecam_read(void *dev, uint64_t offset, void *data, unsigned len)
{
	unsigned reg;
	struct pci_function *fn = decode(dev, offset, len, &reg);

	if (!fn) {
		memset(data, 0xff, len);
		return;
	}
	memset(data, 0, len);
	if (reg + len > PCI_CONFIG_SIZE)
		return;
	if (fn->config_read && touches(reg, len, fn->hook_start, fn->hook_end - fn->hook_start))
		fn->config_read(fn, reg, len);
	memcpy(data, fn->config + reg, len);
}

static void ecam_write(void *dev, uint64_t offset, const void *data, unsigned len)
{
	unsigned reg;
	struct pci_function *fn = decode(dev, offset, len, &reg);

	if (fn && reg + len <= PCI_CONFIG_SIZE)
		config_write(fn, reg, data, len);
}

static const struct bus_ops ecam_ops = {.read = ecam_read, .write = ecam_write};

static void address_read(void *dev, uint64_t offset, void *data, unsigned len)
{
	struct pci_host *host = dev;

	memset(data, 0xff, len);
	if (len == 4)
		put32(data, host->address);
}

/* Anything but a dword is not for the register. */
static void address_write(void *dev, uint64_t offset, const void *data, unsigned len)
{
	struct pci_host *host = dev;
	uint32_t v;

	if (len != 4)
		return;
	memcpy(&v, data, sizeof(v));
	host->address = le32toh(v) & ADDRESS_BITS;
}

/* Where ECAM has what the data ports show; UINT64_MAX: nowhere. */
static uint64_t selected(const struct pci_host *host, uint64_t offset, unsigned len)
{
	uint64_t devfn = host->address >> 8 & 0xffff; /* and the bus, of which there is one */

	if (!(host->address & ADDRESS_ENABLE) || devfn > 0xff || offset + len > 4)
		return UINT64_MAX;
	return devfn << 12 | (host->address & 0xff) | offset;
}

static void data_read(void *dev, uint64_t offset, void *data, unsigned len)
{
	uint64_t at = selected(dev, offset, len);

	memset(data, 0xff, len);
	if (at != UINT64_MAX)
		ecam_read(dev, at, data, len);
}

static void data_write(void *dev, uint64_t offset, const void *data, unsigned len)
{
	uint64_t at = selected(dev, offset, len);

	if (at != UINT64_MAX)
		ecam_write(dev, at, data, len);
}

static const struct bus_ops address_ops = {.read = address_read, .write = address_write};
static const struct bus_ops data_ops = {.read = data_read, .write = data_write};

static int add_ports(struct vm *vm, struct pci_host *host, struct error *err)
{
	struct bus_range address = {.base = ADDRESS_PORT,
				    .size = 4,
				    .ops = &address_ops,
				    .dev = host,
				    .name = "pci-address"};
	struct bus_range data = {
		.base = DATA_PORT, .size = 4, .ops = &data_ops, .dev = host, .name = "pci-data"};
	int r = bus_add(&vm->pio, &address, err);

	return r ? r : bus_add(&vm->pio, &data, err);
}

int pci_host_create(struct vm *vm, struct error *err)
{
	struct bus_range range = {
		.base = PCI_ECAM_BASE, .size = DECODED_SIZE, .ops = &ecam_ops, .name = "pci-ecam"};
	struct pci_host *host = calloc(1, sizeof(*host));
	int r;

	if (!host)
		return error_errno(err, -ENOMEM, "PCI host");
	host->next = PCI_MMIO_BASE;
	range.dev = host;
	vm->pci = host;
	r = bus_add(&vm->mmio, &range, err);
	if (!r)
		r = add_ports(vm, host, err);
	if (r)
		return r;
	pci_function_init(&host->bridge, vm, "pci-host", BRIDGE_VENDOR, BRIDGE_DEVICE, 0,
			  BRIDGE_CLASS, 0);
	return pci_add(&host->bridge, err);
}

void pci_host_destroy(struct vm *vm)
{
	if (!vm->pci)
		return;
	bus_remove(&vm->mmio, PCI_ECAM_BASE);
	bus_remove(&vm->pio, ADDRESS_PORT);
	bus_remove(&vm->pio, DATA_PORT);
	free(vm->pci);
	vm->pci = NULL;
}

void pci_function_init(struct pci_function *fn, struct vm *vm, const char *name, uint16_t vendor,
		       uint16_t device, uint16_t subsystem, uint32_t class_code, uint8_t revision)
{
	*fn = (struct pci_function){.vm = vm, .name = name, .cap_end = PCI_STD_HEADER_SIZEOF};
	put16(fn->config + PCI_VENDOR_ID, vendor);
	put16(fn->config + PCI_DEVICE_ID, device);
	put16(fn->config + PCI_SUBSYSTEM_VENDOR_ID, vendor);
	put16(fn->config + PCI_SUBSYSTEM_ID, subsystem);
	put32(fn->config + PCI_CLASS_REVISION, class_code << 8 | revision);
	put16(fn->writable + PCI_COMMAND,
	      PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE);
	fn->writable[PCI_CACHE_LINE_SIZE] = 0xff;
	fn->writable[PCI_INTERRUPT_LINE] = 0xff;
}

int pci_add_capability(struct pci_function *fn, uint8_t id, uint8_t size)
{
	unsigned at = fn->cap_end, end = (at + size + 3u) & ~3u;

	if (end > PCI_CONFIG_SIZE)
		return -ENOSPC;
	fn->config[at + PCI_CAP_LIST_ID] = id;
	fn->config[fn->cap_last ? fn->cap_last + PCI_CAP_LIST_NEXT : PCI_CAPABILITY_LIST] =
		(uint8_t)at;
	fn->config[PCI_STATUS] |= PCI_STATUS_CAP_LIST;
	fn->cap_last = (uint8_t)at;
	fn->cap_end = (uint16_t)end;
	return (int)at;
}

/* Gives each BAR an address in the window: aligned to its size, behind all others. */
static int place_bars(struct pci_host *host, struct pci_function *fn, struct error *err)
{
	uint64_t next = host->next;

	for (unsigned i = 0; i < ARRAY_SIZE(fn->bar); i++) {
		struct pci_bar *bar = &fn->bar[i];

		if (!bar->size)
			continue;
		bar->addr = (next + bar->size - 1) & ~(bar->size - 1);
		next = bar->addr + bar->size;
		if (next > PCI_MMIO_BASE + PCI_MMIO_SIZE)
			return error_set(err, -ENOSPC,
					 "no room for a BAR of %llu bytes in the PCI window",
					 (unsigned long long)bar->size);
		put32(bar_register(fn->config, i), (uint32_t)bar->addr);
		put32(bar_register(fn->writable, i), ~(uint32_t)(bar->size - 1));
	}
	host->next = next;
	return 0;
}

int pci_add(struct pci_function *fn, struct error *err)
{
	struct pci_host *host = fn->vm->pci;
	unsigned slot = 0;
	int r;

	while (slot < PCI_SLOTS && host->slot[slot])
		slot++;
	if (slot == PCI_SLOTS)
		return error_set(err, -ENOSPC, "the PCI bus is full (%u devices)", PCI_SLOTS);
	r = place_bars(host, fn, err);
	if (r)
		return r;
	memcpy(fn->power_on, fn->config, sizeof(fn->config));
	fn->slot = (uint8_t)slot;
	host->slot[slot] = fn;
	return 0;
}

static void unmap_all(struct pci_function *fn)
{
	for (unsigned i = 0; i < ARRAY_SIZE(fn->bar); i++)
		if (fn->bar[i].mapped)
			bar_unmap(fn, &fn->bar[i]);
}

void pci_remove(struct pci_function *fn)
{
	struct pci_host *host = fn->vm ? fn->vm->pci : NULL;

	if (host && host->slot[fn->slot] == fn) {
		unmap_all(fn);
		host->slot[fn->slot] = NULL;
	}
	msix_destroy(fn->msix);
	fn->msix = NULL;
}

static const struct state_field pci_state[] = {
	STATE_ARRAY(struct pci_function, config),
	STATE_END,
};

void pci_add_state(struct pci_function *fn, struct device *dev)
{
	device_add_state(dev, "pci", pci_state, fn);
	if (fn->msix)
		device_add_state(dev, "msix", msix_state, fn->msix);
}

void pci_pause(struct pci_function *fn)
{
	if (fn->msix)
		msix_pause(fn->msix);
}

int pci_restored(struct pci_function *fn, struct error *err)
{
	int r;

	for (unsigned i = 0; i < PCI_CONFIG_SIZE; i++)
		if ((fn->config[i] ^ fn->power_on[i]) & ~fn->writable[i])
			return error_set(
				err, -EBADMSG,
				"saved PCI configuration differs at 0x%02x: 0x%02x, not 0x%02x", i,
				fn->config[i], fn->power_on[i]);
	unmap_all(fn);
	r = bars_update(fn, err);
	if (r)
		return error_prefix(err, -EBADMSG, "saved PCI configuration");
	return fn->msix ? msix_restored(fn->msix, err) : 0;
}

static const struct state_field host_state[] = {
	STATE_FIELD(struct pci_host, address),
	STATE_END,
};

void pci_host_parts(struct vm *vm, struct state_part *ret)
{
	ret[0] = (struct state_part){"host", host_state, vm->pci};
	ret[1] = (struct state_part){"bridge", pci_state, &vm->pci->bridge};
}

int pci_host_restored(struct vm *vm, struct error *err)
{
	if (vm->pci->address & ~ADDRESS_BITS)
		return error_set(err, -EBADMSG, "saved PCI address register is 0x%x",
				 vm->pci->address);
	return pci_restored(&vm->pci->bridge, err);
}
