/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MSI-X (PCI Express base specification 5.0, 6.1.4 and 7.7.2). A vector that can fire is an
 * irqfd; one that cannot is a bare eventfd whose counter is the pending bit.
 */

#include "vmm/pci/msix.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "lib/error.h"
#include "vmm/pci/pci.h"
#include "vmm/state.h"
#include "vmm/vm.h"

#define VECTORS_MAX 64
#define PBA_OFFSET 2048
#define BAR_SIZE 4096

struct vector {
	int fd;
	int gsi; /* -1: none yet */
	bool attached;
};

struct msix {
	struct pci_function *fn;
	unsigned cap; /* offset of the capability */
	unsigned count;
	struct vector vector[VECTORS_MAX];
	uint32_t table[VECTORS_MAX][4]; /* address low, high, data, control */
	uint64_t pending;		/* as of msix_pause() */
};

const struct state_field msix_state[] = {
	STATE_FIELD(struct msix, pending),
	/* Two dimensions are one array of dwords in the format. */
	{.name = "table",
	 .offset = offsetof(struct msix, table),
	 .size = sizeof(uint32_t),
	 .count = VECTORS_MAX * 4},
	STATE_END,
};

static uint16_t control(const struct msix *m)
{
	const uint8_t *p = m->fn->config + msix_control_offset(m);

	return (uint16_t)(p[0] | p[1] << 8);
}

static bool can_fire(const struct msix *m, unsigned i)
{
	return (control(m) & (PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL)) ==
		       PCI_MSIX_FLAGS_ENABLE &&
	       !(m->table[i][3] & PCI_MSIX_ENTRY_CTRL_MASKBIT);
}

static void drain(int fd)
{
	eventfd_t count;

	eventfd_read(fd, &count);
}

static void disconnect(struct msix *m, struct vector *v, bool free_gsi)
{
	if (v->attached)
		irq_detach(m->fn->vm, v->gsi, v->fd);
	v->attached = false;
	if (free_gsi && v->gsi >= 0) {
		irq_msi_free(m->fn->vm, v->gsi);
		v->gsi = -1;
	}
}

static int connect_vector(struct msix *m, unsigned i)
{
	struct vector *v = &m->vector[i];
	const uint32_t *entry = m->table[i];
	int r;

	if (v->gsi < 0)
		v->gsi = irq_msi_alloc(m->fn->vm);
	if (v->gsi < 0)
		return v->gsi;
	r = irq_msi_set(m->fn->vm, v->gsi, entry[0] | (uint64_t)entry[1] << 32, entry[2]);
	if (r || v->attached)
		return r;
	r = irq_attach(m->fn->vm, v->gsi, v->fd);
	if (r)
		return r;
	v->attached = true;
	/* What was pending has fired by now; later signals are consumed by KVM. */
	drain(v->fd);
	return 0;
}

/* Brings a vector's connection in line with its masks and its message. */
static void update(struct msix *m, unsigned i)
{
	int r;

	if (!can_fire(m, i)) {
		disconnect(m, &m->vector[i], false);
		return;
	}
	r = connect_vector(m, i);
	if (r) {
		/* KVM refused the guest's message, or there are no routes left. */
		disconnect(m, &m->vector[i], true);
		if (log_due(&m->fn->complaints))
			log_warn(&m->fn->vm->log, "pci", "%s: MSI-X vector %u is not connected: %s",
				 m->fn->name, i, strerrordesc_np(-r));
	}
}

static void update_all(struct msix *m)
{
	for (unsigned i = 0; i < m->count; i++)
		update(m, i);
}

static bool is_signalled(const struct vector *v)
{
	struct pollfd p = {.fd = v->fd, .events = POLLIN};

	return !v->attached && poll(&p, 1, 0) > 0;
}

static uint64_t pending_bits(const struct msix *m)
{
	uint64_t bits = 0;

	for (unsigned i = 0; i < m->count; i++)
		bits |= (uint64_t)is_signalled(&m->vector[i]) << i;
	return bits;
}

/* Accesses are aligned dwords or qwords (7.7.2.2); others read as zero and write nothing. */
static bool valid_access(uint64_t offset, unsigned len)
{
	return (len == 4 || len == 8) && offset % len == 0;
}

static void table_read(void *dev, uint64_t offset, void *data, unsigned len)
{
	const struct msix *m = dev;

	memset(data, 0, len);
	if (!valid_access(offset, len))
		return;
	if (offset < m->count * sizeof(m->table[0])) {
		memcpy(data, (const uint8_t *)m->table + offset, len);
	} else if (offset >= PBA_OFFSET && offset < PBA_OFFSET + sizeof(uint64_t)) {
		uint64_t bits = pending_bits(m);

		memcpy(data, (const uint8_t *)&bits + (offset - PBA_OFFSET), len);
	}
}

static void table_write(void *dev, uint64_t offset, const void *data, unsigned len)
{
	struct msix *m = dev;

	if (!valid_access(offset, len) || offset >= m->count * sizeof(m->table[0]))
		return;
	memcpy((uint8_t *)m->table + offset, data, len);
	update(m, (unsigned)(offset / sizeof(m->table[0])));
}

static const struct bus_ops table_ops = {.read = table_read, .write = table_write};

static int open_vectors(struct msix *m, unsigned n)
{
	while (m->count < n) {
		struct vector *v = &m->vector[m->count];

		v->gsi = -1;
		v->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (v->fd < 0)
			return -errno;
		m->table[m->count++][3] = PCI_MSIX_ENTRY_CTRL_MASKBIT;
	}
	return 0;
}

int msix_create(struct pci_function *fn, unsigned bar, unsigned nvectors, struct error *err)
{
	int cap = pci_add_capability(fn, PCI_CAP_ID_MSIX, PCI_CAP_MSIX_SIZEOF);
	struct msix *m = cap < 0 ? NULL : calloc(1, sizeof(*m));
	uint8_t *config = fn->config + cap;
	int r;

	if (!m)
		return error_errno(err, cap < 0 ? cap : -ENOMEM, "MSI-X");
	m->fn = fn;
	m->cap = (unsigned)cap;
	r = open_vectors(m, nvectors);
	if (r) {
		msix_destroy(m);
		return error_errno(err, r, "MSI-X eventfds");
	}
	config[PCI_MSIX_FLAGS] = (uint8_t)(nvectors - 1);
	config[PCI_MSIX_TABLE] = (uint8_t)bar;
	config[PCI_MSIX_PBA] = (uint8_t)bar;
	config[PCI_MSIX_PBA + 1] = PBA_OFFSET >> 8;
	fn->writable[cap + PCI_MSIX_FLAGS + 1] =
		(PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL) >> 8;
	fn->bar[bar] = (struct pci_bar){.size = BAR_SIZE, .ops = &table_ops, .dev = m};
	fn->msix = m;
	return 0;
}

void msix_destroy(struct msix *m)
{
	if (!m)
		return;
	for (unsigned i = 0; i < m->count; i++) {
		disconnect(m, &m->vector[i], true);
		close(m->vector[i].fd);
	}
	free(m);
}

void msix_signal(struct msix *m, uint16_t vector)
{
	/* Fails only when the counter is full, and then the vector is pending already. */
	if (vector < m->count)
		eventfd_write(m->vector[vector].fd, 1);
}

int msix_eventfd(struct msix *m, uint16_t vector)
{
	return vector < m->count ? m->vector[vector].fd : -1;
}

unsigned msix_count(const struct msix *m)
{
	return m->count;
}

bool msix_enabled(const struct msix *m)
{
	return control(m) & PCI_MSIX_FLAGS_ENABLE;
}

unsigned msix_control_offset(const struct msix *m)
{
	return m->cap + PCI_MSIX_FLAGS;
}

void msix_control_written(struct msix *m)
{
	update_all(m);
}

void msix_pause(struct msix *m)
{
	m->pending = pending_bits(m);
}

int msix_restored(struct msix *m, struct error *err)
{
	if (m->count < 64 && m->pending >> m->count)
		return error_set(err, -EBADMSG,
				 "saved MSI-X state has interrupts of %u vectors at most, "
				 "bits 0x%llx are set",
				 m->count, (unsigned long long)m->pending);
	for (unsigned i = 0; i < m->count; i++)
		if (m->pending >> i & 1)
			msix_signal(m, (uint16_t)i);
	update_all(m);
	return 0;
}
