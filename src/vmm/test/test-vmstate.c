/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The saved state of a whole VM: there and back, cut, changed, of another machine, and of an
 * earlier version. With a path as argument this program writes what test_golden reads instead.
 */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <linux/pci_regs.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "vmm/config.h"
#include "vmm/dev/power.h"
#include "vmm/ioapic.h"
#include "vmm/test/guest-driver.h"
#include "vmm/vcpu.h"
#include "vmm/vmstate.h"
#include "vmm/x86/features.h"

struct machine {
	struct guest guest;
	struct vm_config config;
	struct vcpu vcpu[GUEST_CPUS];
	struct cpuid cpuid;
};

static void machine_create(struct machine *m)
{
	struct vm *vm = &m->guest.vm;
	struct error err;

	guest_create(&m->guest);
	m->config = (struct vm_config){.topology = {1, GUEST_CPUS, 1}, .irqchip = IRQCHIP_SPLIT};
	vm->config = &m->config;
	vm->vcpus = m->vcpu;
	vm->nvcpus = GUEST_CPUS;
	vm->cpuid = &m->cpuid;
	for (unsigned i = 0; i < GUEST_CPUS; i++)
		m->vcpu[i] = (struct vcpu){.vm = vm, .index = i};
	m->guest.offered.count = 2;
	m->guest.offered.entry[0] = (struct kvm_cpuid_entry2){.ebx = 0x756e6547};
	m->guest.offered.entry[1] = (struct kvm_cpuid_entry2){.function = 1, .ecx = 0x3};
	assert_int_equal(ioapic_create(vm, &err), 0);
	assert_int_equal(power_create(vm, &err), 0);
}

static void machine_destroy(struct machine *m)
{
	vmstate_forget(&m->guest.vm);
	free(m->guest.vm.clock_plan);
	m->guest.vm.clock_plan = NULL;
	ioapic_destroy(&m->guest.vm);
	guest_destroy(&m->guest);
}

static int setup(void **state)
{
	struct machine *m = calloc(2, sizeof(*m));

	*state = m;
	machine_create(&m[0]);
	machine_create(&m[1]);
	for (unsigned i = 0; i < GUEST_CPUS; i++) {
		struct cpu_state *s = &m[0].guest.cpu[i];

		s->cpuid = m[0].guest.offered;
		s->regs.rip = 0x1234 + i;
		s->tsc_khz = 1000000;
		s->xsave[700] = 77;
		s->nmsrs = 2;
		s->msr_index[0] = 0x10a;
		s->msr_index[1] = 0x277;
		s->msr_value[0] = 5;
	}
	guest_write(&m[0].guest, IOAPIC_BASE, 0x12, 4);
	power_button(&m[0].guest.vm);
	return 0;
}

static int teardown(void **state)
{
	struct machine *m = *state;

	machine_destroy(&m[0]);
	machine_destroy(&m[1]);
	free(m);
	return 0;
}

static int load(struct machine *m, const void *data, size_t size, struct error *err)
{
	free(m->guest.vm.clock_plan);
	m->guest.vm.clock_plan = NULL;
	return vmstate_load(&m->guest.vm, data, size, false, err);
}

static struct vm *saved(struct machine *m)
{
	assert_int_equal(vmstate_save(&m->guest.vm, NULL), 0);
	return &m->guest.vm;
}

static void test_round_trip(void **state)
{
	struct machine *m = *state;
	struct vm *from = saved(&m[0]), *to;
	uint8_t events = 0;

	assert_int_equal(load(&m[1], from->saved, from->saved_size, NULL), 0);
	assert_int_equal(m[1].guest.cpu_sets, GUEST_CPUS);
	assert_memory_equal(m[1].guest.cpu, m[0].guest.cpu, sizeof(m[0].guest.cpu));
	assert_int_equal(guest_read(&m[1].guest, IOAPIC_BASE, 4), 0x12);
	assert_int_equal(m[1].guest.clocks, 1);
	assert_non_null(m[1].guest.vm.clock_plan);
	to = saved(&m[1]);
	assert_int_equal(to->saved_size, from->saved_size);
	bus_read(&to->pio, POWER_EVENTS, &events, 1);
	assert_int_equal(events, POWER_EVENT_BUTTON);
	/* What is in a pause once is what it is, whatever happens to KVM's side. */
	m[0].guest.cpu[0].regs.rip = 1;
	assert_ptr_equal(saved(&m[0])->saved, from->saved);
}

/* A guest between its write of the PCI address port and the access to the data port. */
static void test_pci_host(void **state)
{
	struct machine *m = *state;
	uint32_t address = 0x8000003c;
	struct vm *from;
	uint32_t value;

	bus_write(&m[0].guest.vm.pio, 0xcf8, &address, 4);
	guest_config_write(&m[0].guest, 0, PCI_INTERRUPT_LINE, 0x5a, 1);
	from = saved(&m[0]);
	assert_int_equal(load(&m[1], from->saved, from->saved_size, NULL), 0);
	bus_read(&m[1].guest.vm.pio, 0xcf8, &value, 4);
	assert_int_equal(value, address);
	bus_read(&m[1].guest.vm.pio, 0xcfc, &value, 4);
	assert_int_equal(value & 0xff, 0x5a);
}

/* Cut anywhere, and with bytes behind it, nothing is changed. */
static void test_cut(void **state)
{
	struct machine *m = *state;
	struct vm *from = saved(&m[0]);
	CLEANUP_FREE uint8_t *more = calloc(1, from->saved_size + 1);
	struct error err;

	for (size_t n = 0; n < from->saved_size; n += n < 400 ? 1 : 53) {
		assert_int_equal(load(&m[1], from->saved, n, &err), -EBADMSG);
		assert_true(err.text[0]);
	}
	memcpy(more, from->saved, from->saved_size);
	assert_int_equal(load(&m[1], more, from->saved_size + 1, &err), -EBADMSG);
	assert_string_equal(err.text, "1 bytes behind the saved state");
	assert_int_equal(m[1].guest.cpu_sets, 0);
	assert_int_equal(guest_read(&m[1].guest, IOAPIC_BASE, 4), 0);
}

/* One bit changed: refused, or the state of another VM. */
static void test_flips(void **state)
{
	struct machine *m = *state;
	struct vm *from = saved(&m[0]);
	uint8_t *bytes = from->saved;
	unsigned refused = 0;

	for (size_t i = 0; i < from->saved_size; i += 7) {
		bytes[i] ^= (uint8_t)(1 << i % 8);
		refused += load(&m[1], bytes, from->saved_size, NULL) != 0;
		bytes[i] ^= (uint8_t)(1 << i % 8);
	}
	assert_true(refused > 100);
	assert_int_equal(load(&m[1], bytes, from->saved_size, NULL), 0);
}

static void expect(struct machine *to, struct vm *from, int code, const char *text)
{
	struct error err = {0};

	assert_int_equal(load(to, from->saved, from->saved_size, &err), code);
	if (!strstr(err.text, text))
		fail_msg("%s", err.text);
	assert_int_equal(to->guest.cpu_sets, 0);
}

static void test_other_machine(void **state)
{
	struct machine *m = *state;
	struct vm *from = saved(&m[0]);

	m[1].config.topology.threads = 2;
	expect(&m[1], from, -EINVAL, "threads=1, this one sockets=1,cores=2,threads=2");
	m[1].config.topology.threads = 1;
	m[1].config.irqchip = IRQCHIP_KERNEL;
	expect(&m[1], from, -EINVAL, "--irqchip split");
	m[1].config.irqchip = IRQCHIP_SPLIT;
	m[1].guest.vm.nvcpus = 1;
	expect(&m[1], from, -EINVAL, "the saved VM has 3 vCPUs and devices, this one has 2");
	m[1].guest.vm.nvcpus = GUEST_CPUS;
	m[1].guest.vm.mem.size += 1 << 20;
	expect(&m[1], from, -EINVAL, "of memory");
	m[1].guest.vm.mem.size -= 1 << 20;
	m[1].guest.offered.entry[1].ecx = 0x1;
	expect(&m[1], from, -EOPNOTSUPP,
	       "cpu0: this machine's CPU or KVM lacks what the guest "
	       "has: pclmulqdq");
	m[1].guest.offered.entry[0].ebx = 0;
	expect(&m[1], from, -EOPNOTSUPP, "another vendor");
}

static void test_kvm_refuses(void **state)
{
	struct machine *m = *state;
	struct vm *from = saved(&m[0]);

	m[1].guest.cpu_refused = true;
	expect(&m[1], from, -EOPNOTSUPP, "cpu0: KVM refused");
}

static void add_name(void *arg, const char *name)
{
	strcat(arg, name);
	strcat(arg, " ");
}

static void test_feature_names(void **state)
{
	static const struct cpuid c = {
		.count = 4,
		.entry = {{.function = 1, .ecx = 1u << 31 | 1u << 27 | 1, .edx = 1u << 10},
			  {.function = 0xd, .flags = 1, .eax = 7},
			  {.function = 0x80000001, .edx = 1u << 29},
			  {.function = 0x40000001, .eax = 1}},
	};
	char text[256] = "";

	features_each(&c, add_name, text);
	assert_string_equal(text, "cpuid.0x1.0.edx.10 pni hypervisor xcr0.x87 xcr0.sse xcr0.avx lm "
				  "kvm.clock ");
}

/* Every version loads what version 1 wrote (tests/golden/vmstate-1); it is never written again. */
static void test_golden(void **state)
{
	CLEANUP_FREE char *data = NULL;
	struct machine *m = *state;
	ssize_t size = io_read_file(GOLDEN "/vmstate-1/machine.bin", 1 << 20, &data, NULL);
	struct error err = {0};

	assert_true(size > 0);
	if (load(&m[1], data, (size_t)size, &err) < 0)
		fail_msg("%s", err.text);
	assert_memory_equal(m[1].guest.cpu, m[0].guest.cpu, sizeof(m[0].guest.cpu));
	assert_int_equal(guest_read(&m[1].guest, IOAPIC_BASE, 4), 0x12);
}

static int write_golden(const char *path)
{
	void *state;
	struct machine *m;
	struct vm *vm;
	int r;

	setup(&state);
	m = state;
	vm = saved(&m[0]);
	r = io_write_file(path, vm->saved, vm->saved_size, NULL);
	teardown(&state);
	return r ? 1 : 0;
}

int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(round_trip),    TEST(pci_host),	TEST(cut),	     TEST(flips),
		TEST(other_machine), TEST(kvm_refuses), TEST(feature_names), TEST(golden),
	};

	if (argc > 1)
		return write_golden(argv[1]);

	return cmocka_run_group_tests(tests, NULL, NULL);
}
