/* SPDX-License-Identifier: Apache-2.0 */
/* Reading claims. */

#include "node/claim.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/parse.h"
#include "lib/paths.h"

static int read_name(const json_t *json, const char *key, char ret[CLAIM_NAME], struct error *err)
{
	const char *text = json_string_value(json_object_get(json, key));

	if (!text)
		return error_set(err, -EINVAL, "a claim has no \"%s\"", key);
	if (paths_check_name(text, key, err))
		return -EINVAL;
	snprintf(ret, CLAIM_NAME, "%s", text);
	return 0;
}

static int read_number(const json_t *json, const char *vm, const char *key, uint64_t max,
		       uint64_t otherwise, uint64_t *ret, struct error *err)
{
	const json_t *value = json_object_get(json, key);
	json_int_t n = value ? json_integer_value(value) : (json_int_t)otherwise;

	if ((value && !json_is_integer(value)) || n < 1 || (uint64_t)n > max)
		return error_set(err, -EINVAL, "%s: \"%s\" has to be a number from 1 to %llu", vm,
				 key, (unsigned long long)max);
	*ret = n;
	return 0;
}

static int read_numa(const json_t *json, struct claim_vm *vm, struct error *err)
{
	static const char *const words[] = {
		[CLAIM_NONE] = "none", [CLAIM_ONE] = "one", [CLAIM_MIRROR] = "mirror"};
	const json_t *value = json_object_get(json, "numa");
	const char *text = value ? json_string_value(value) : "none";

	for (unsigned i = 0; text && i < ARRAY_SIZE(words); i++)
		if (!strcmp(text, words[i])) {
			vm->numa = i;
			return 0;
		}
	return error_set(err, -EINVAL, "%s: \"numa\" has to be none, one or mirror", vm->name);
}

static bool is_device(const char *text)
{
	struct pci_address address;
	unsigned vendor, device;
	int end = 0;

	if (strlen(text) >= sizeof(((struct claim_vm *)0)->devices[0]))
		return false;
	if (sscanf(text, "%4x:%4x%n", &vendor, &device, &end) == 2 && end == 9 && !text[end])
		return true;
	return !parse_pci_address(!strncmp(text, "vf:", 3) ? text + 3 : text, &address, NULL);
}

/* Addresses are written as the kernel does, so that texts can be compared. */
static void write_device(const char *text, char *ret, size_t size)
{
	const char *prefix = !strncmp(text, "vf:", 3) ? "vf:" : "";
	struct pci_address a;

	if (strlen(text) == 9 && text[4] == ':')
		snprintf(ret, size, "%s", text);
	else if (!parse_pci_address(text + strlen(prefix), &a, NULL))
		snprintf(ret, size, "%s%04x:%02x:%02x.%x", prefix, a.domain, a.bus, a.device,
			 a.function);
}

static int read_devices(const json_t *json, struct claim_vm *vm, struct error *err)
{
	const json_t *list = json_object_get(json, "devices"), *item;
	size_t i;

	if ((list && !json_is_array(list)) || json_array_size(list) > CLAIM_DEVICES)
		return error_set(err, -EINVAL, "%s: \"devices\" has to be a list of at most %d",
				 vm->name, CLAIM_DEVICES);
	json_array_foreach (list, i, item) {
		const char *text = json_string_value(item);

		if (!text || !is_device(text))
			return error_set(
				err, -EINVAL,
				"%s: device \"%s\" is no PCI address, vf:ADDRESS or VENDOR:DEVICE",
				vm->name, text ? text : "");
		write_device(text, vm->devices[i], sizeof(vm->devices[i]));
	}
	vm->ndevices = json_array_size(list);
	return 0;
}

static int read_flag(const json_t *json, const char *vm, const char *key, bool *ret,
		     struct error *err)
{
	const json_t *value = json_object_get(json, key);

	if (value && !json_is_boolean(value))
		return error_set(err, -EINVAL, "%s: \"%s\" has to be true or false", vm, key);
	*ret = json_is_true(value);
	return 0;
}

static int read_vm(const json_t *json, struct claim_vm *vm, struct error *err)
{
	uint64_t cpus = 0;
	int r = read_name(json, "name", vm->name, err);

	if (!r)
		r = read_number(json, vm->name, "cpus", CLAIM_CPUS, 0, &cpus, err);
	if (!r)
		r = read_number(json, vm->name, "memory", INT64_MAX, 0, &vm->memory, err);
	if (!r)
		r = read_number(json, vm->name, "page-size", 1 << 30, CLAIM_BASE, &vm->page_size,
				err);
	if (!r)
		r = read_numa(json, vm, err);
	if (!r)
		r = read_devices(json, vm, err);
	if (!r)
		r = read_flag(json, vm->name, "dedicated", &vm->dedicated, err);
	if (!r)
		r = read_flag(json, vm->name, "cores", &vm->cores, err);
	if (r)
		return r;
	if (vm->page_size != CLAIM_BASE && vm->page_size != 2 << 20 && vm->page_size != 1 << 30)
		return error_set(err, -EINVAL,
				 "%s: \"page-size\" has to be 4 KiB, 2 MiB or 1 GiB in bytes",
				 vm->name);
	if (vm->memory % vm->page_size)
		return error_set(err, -EINVAL, "%s: \"memory\" has to be whole pages of %llu bytes",
				 vm->name, (unsigned long long)vm->page_size);
	vm->cpus = cpus;
	return 0;
}

static int read_vms(const json_t *list, struct claim *claim, struct error *err)
{
	const json_t *item;
	size_t i;

	if (!json_array_size(list) || json_array_size(list) > CLAIM_VMS)
		return error_set(err, -EINVAL, "\"vms\" has to be a list of 1 to %d", CLAIM_VMS);
	claim->vms = calloc(json_array_size(list), sizeof(*claim->vms));
	if (!claim->vms)
		return error_set(err, -ENOMEM, "out of memory");
	claim->nvms = json_array_size(list);
	json_array_foreach (list, i, item) {
		int r = read_vm(item, &claim->vms[i], err);

		if (r)
			return r;
		for (unsigned k = 0; k < i; k++)
			if (!strcmp(claim->vms[k].name, claim->vms[i].name))
				return error_set(err, -EINVAL, "two VMs are named %s",
						 claim->vms[i].name);
	}
	return 0;
}

int claim_parse(const json_t *json, unsigned user, struct claim **ret, struct error *err)
{
	struct claim *claim = calloc(1, sizeof(*claim));
	int r;

	if (!claim)
		return error_set(err, -ENOMEM, "out of memory");
	claim->user = user;
	r = read_name(json, "cluster", claim->cluster, err);
	if (!r)
		r = read_vms(json_object_get(json, "vms"), claim, err);
	if (r) {
		claim_destroy(claim);
		return r;
	}
	*ret = claim;
	return 0;
}

void claim_destroy(struct claim *claim)
{
	if (!claim)
		return;
	free(claim->vms);
	free(claim);
}
