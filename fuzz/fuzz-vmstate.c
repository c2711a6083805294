/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole VM's state from a hostile file. The input is loaded as it is; then it is taken as changes
 * (offset, new byte) to a state that is good, so that what is deep inside is reached as well. What
 * is refused changes no vCPU, and says why.
 */

#include <stdlib.h>
#include <string.h>

#include "lib/error.h"
#include "vmm/config.h"
#include "vmm/dev/power.h"
#include "vmm/ioapic.h"
#include "vmm/test/echo.h"
#include "vmm/test/guest-driver.h"
#include "vmm/vcpu.h"
#include "vmm/vmstate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct machine {
	struct guest guest;
	struct vm_config config;
	struct vcpu vcpu;
	struct cpuid cpuid;
	struct echo *echo;
};

static void machine_create(struct machine *m)
{
	struct vm *vm = &m->guest.vm;
	struct error err;

	guest_create(&m->guest);
	vm->log.level = -1;
	m->config = (struct vm_config){.topology = {1, 1, 1}, .irqchip = IRQCHIP_SPLIT};
	vm->config = &m->config;
	vm->vcpus = &m->vcpu;
	vm->nvcpus = 1;
	vm->cpuid = &m->cpuid;
	m->vcpu = (struct vcpu){.vm = vm};
	m->guest.offered.count = 1;
	m->guest.cpu[0].cpuid.count = 1;
	m->guest.cpu[0].tsc_khz = 1;
	guest_require(!ioapic_create(vm, &err) && !power_create(vm, &err));
	m->echo = echo_create(vm);
	m->echo->virtio.device.ops->pause(&m->echo->virtio.device);
}

static void machine_destroy(struct machine *m)
{
	vmstate_forget(&m->guest.vm);
	free(m->guest.vm.clock_plan);
	m->guest.vm.clock_plan = NULL;
	ioapic_destroy(&m->guest.vm);
	guest_destroy(&m->guest);
}

static void load(const uint8_t *data, size_t size)
{
	static struct machine m;
	struct error err = {0};
	int r;

	memset(&m, 0, sizeof(m));
	machine_create(&m);
	r = vmstate_load(&m.guest.vm, data, size, size & 1, &err);
	guest_require(r <= 0 && (!r || err.text[0]));
	if (!r) {
		struct device *dev = &m.echo->virtio.device;

		dev->ops->resume(dev);
		guest_run(&m.guest);
	}
	machine_destroy(&m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct machine m;
	uint8_t *bytes;

	load(data, size);
	memset(&m, 0, sizeof(m));
	machine_create(&m);
	guest_require(!vmstate_save(&m.guest.vm, NULL));
	bytes = m.guest.vm.saved;
	for (size_t i = 0; i + 3 <= size; i += 3)
		bytes[(data[i] | (size_t)data[i + 1] << 8) % m.guest.vm.saved_size] = data[i + 2];
	load(bytes, m.guest.vm.saved_size);
	machine_destroy(&m);
	return 0;
}
