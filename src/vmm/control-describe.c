/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command "describe": what another VMM has to have, or to offer, for this VM to go on there.
 * All of it is known while the VM runs.
 */

#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "vmm/call.h"
#include "vmm/config.h"
#include "vmm/device.h"
#include "vmm/vm.h"
#include "vmm/vmstate.h"
#include "vmm/x86/cpu.h"
#include "vmm/x86/cpuid.h"
#include "vmm/x86/features.h"

static void append_name(void *arg, const char *name)
{
	json_array_append_new(arg, json_string(name));
}

/* "GenuineIntel": CPUID leaf 0. */
static json_t *vendor(struct cpuid *cpuid)
{
	const struct kvm_cpuid_entry2 *e = cpuid_find(cpuid, 0, 0);
	char text[13] = "";

	if (!e)
		return NULL;
	memcpy(text, &e->ebx, 4);
	memcpy(text + 4, &e->edx, 4);
	memcpy(text + 8, &e->ecx, 4);
	for (char *p = text; *p; p++)
		if (*p < ' ' || *p > '~')
			*p = '?';
	return json_string(text);
}

static json_t *describe_cpu(struct cpuid *cpuid, uint32_t tsc_khz)
{
	json_t *features = json_array();

	features_each(cpuid, append_name, features);
	return json_pack("{s:o*,s:i,s:o}", "vendor", vendor(cpuid), "tsc_khz", (int)tsc_khz,
			 "features", features);
}

json_t *call_cpu(struct vm *vm)
{
	return describe_cpu(vm->cpuid, vm->tsc_khz);
}

/* What a VM could have on this machine at most. */
static int describe_offer(struct vm *vm, json_t *result, struct error *err)
{
	CLEANUP_FREE struct cpuid *offered = calloc(1, sizeof(*offered));
	json_t *offer;
	int r = offered ? cpu_offered(vm, offered, err) : error_errno(err, -ENOMEM, "CPUID");

	if (r)
		return r;
	offer = describe_cpu(offered, vm->host_tsc_khz);
	json_object_set_new(
		offer, "tsc_scaling",
		json_boolean(ioctl(vm->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_CONTROL) > 0));
	json_object_set_new(result, "offer", offer);
	return 0;
}

static const char *why_stays(const struct device *dev)
{
	return dev->ops->stays ? dev->ops->stays(dev) : NULL;
}

int call_check_stays(const struct vm *vm, struct error *err)
{
	for (unsigned i = 0; i < vm->ndevices; i++) {
		const char *why = why_stays(vm->devices[i]);

		if (why)
			return error_set(err, -EBUSY, "device %s cannot be saved: %s",
					 vm->devices[i]->id, why);
	}
	return 0;
}

static json_t *describe_device(struct device *dev)
{
	json_t *object = json_pack("{s:s,s:s}", "id", dev->id, "kind",
				   dev->desc ? dev->desc->name : dev->id);
	const char *stays = why_stays(dev);

	if (dev->ops->describe)
		dev->ops->describe(dev, object);
	if (stays)
		json_object_set_new(object, "stays", json_string(stays));
	return object;
}

int cmd_describe(struct call *call, struct error *err)
{
	struct vm *vm = call->vm;
	const struct topology *t = &vm->config->topology;
	json_t *devices;

	if (!vm->cpuid)
		return error_set(err, -EBUSY, "the VM has no vCPUs yet");
	devices = json_array();
	for (unsigned i = 0; i < vm->ndevices; i++)
		json_array_append_new(devices, describe_device(vm->devices[i]));
	json_object_set_new(call->result, "state_version", json_integer(VMSTATE_VERSION));
	json_object_set_new(call->result, "topology",
			    json_pack("{s:i,s:i,s:i}", "sockets", t->sockets, "cores", t->cores,
				      "threads", t->threads));
	json_object_set_new(call->result, "irqchip",
			    json_string(vm->config->irqchip == IRQCHIP_SPLIT ? "split" : "kernel"));
	json_object_set_new(call->result, "cpu", call_cpu(vm));
	json_object_set_new(call->result, "devices", devices);
	return describe_offer(vm, call->result, err);
}
