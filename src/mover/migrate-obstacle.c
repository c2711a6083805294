/* SPDX-License-Identifier: Apache-2.0 */
/* Compares two VMs, one of which is to go on in the other. */

#include "mover/migrate-obstacle.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/io.h"

#define TEXT_MAX 1000
#define TSC_TOLERANCE_PPM 1000 /* as the VMM: two calibrations of one clock */

static void add(json_t *list, const char *what, const char *source, const char *target,
		const char *fix)
{
	json_array_append_new(list, json_pack("{s:s,s:s,s:s,s:s}", "what", what, "source", source,
					      "target", target, "fix", fix));
}

/* A value in one line, for free(). */
static char *show(const json_t *value)
{
	if (!value)
		return strdup("unknown");
	if (json_is_string(value))
		return strdup(json_string_value(value));
	return json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_SORT_KEYS);
}

static void differ(json_t *list, const char *what, const json_t *a, const json_t *b,
		   const char *fix)
{
	CLEANUP_FREE char *left = show(a), *right = show(b);

	add(list, what, left ? left : "?", right ? right : "?", fix);
}

/* A member that has to be the same. */
static void same(json_t *list, const char *what, const json_t *source, const json_t *target,
		 const char *name, const char *fix)
{
	const json_t *a = json_object_get(source, name), *b = json_object_get(target, name);

	if (a != b && !json_equal(a, b))
		differ(list, what, a, b, fix);
}

static bool has_text(const json_t *list, const char *text)
{
	for (size_t i = 0; i < json_array_size(list); i++) {
		const char *other = json_string_value(json_array_get(list, i));

		if (other && !strcmp(other, text))
			return true;
	}
	return false;
}

static void compare_features(json_t *list, const json_t *has, const json_t *offered)
{
	CLEANUP_FREE char *lost = strdup("");

	for (size_t i = 0; i < json_array_size(has); i++) {
		const char *name = json_string_value(json_array_get(has, i));
		char *more;

		if (!name || has_text(offered, name))
			continue;
		more = io_format("%s%s%s", lost ? lost : "", lost && *lost ? " " : "", name);
		free(lost);
		lost = more;
	}
	if (lost && *lost)
		add(list, "CPU features", lost, "not offered by its CPU or KVM",
		    "start the VM with a CPU model that both machines have (wisp-vmm --cpu-model)");
}

/* A guest's clock can only go as fast as here, or be scaled. */
static void compare_tsc(json_t *list, const json_t *cpu, const json_t *offer)
{
	double a = (double)json_integer_value(json_object_get(cpu, "tsc_khz"));
	double b = (double)json_integer_value(json_object_get(offer, "tsc_khz"));
	double apart = a > b ? a - b : b - a;

	if (json_is_true(json_object_get(offer, "tsc_scaling")) ||
	    apart * 1e6 <= b * TSC_TOLERANCE_PPM)
		return;
	differ(list, "TSC frequency in kHz", json_object_get(cpu, "tsc_khz"),
	       json_object_get(offer, "tsc_khz"),
	       "choose a machine with this frequency, or whose KVM can scale it");
}

static const json_t *device_with(const json_t *devices, const char *id)
{
	for (size_t i = 0; i < json_array_size(devices); i++) {
		const json_t *device = json_array_get(devices, i);
		const char *other = json_string_value(json_object_get(device, "id"));

		if (id && other && !strcmp(other, id))
			return device;
	}
	return NULL;
}

static void compare_device(json_t *list, const char *id, const json_t *a, const json_t *b)
{
	static const char fix[] = "start the target with the same devices in the same order";
	static const char *const members[] = {"kind", "queues", "size", "readonly"};
	uint64_t needs = (uint64_t)json_integer_value(json_object_get(a, "needs"));
	uint64_t offers = (uint64_t)json_integer_value(json_object_get(b, "offers"));

	for (unsigned i = 0; i < ARRAY_SIZE(members); i++) {
		CLEANUP_FREE char *what = io_format("device %s: %s", id, members[i]);

		same(list, what ? what : id, a, b, members[i], fix);
	}
	if (needs & ~offers) {
		CLEANUP_FREE char *what = io_format("device %s: features", id);
		CLEANUP_FREE char *lost = io_format("0x%" PRIx64, needs & ~offers);

		add(list, what ? what : id, lost ? lost : "?", "not offered by its back end",
		    "give the target the same back end (file system of the disk, tap, vhost)");
	}
}

static void compare_devices(json_t *list, const json_t *source, const json_t *target)
{
	for (size_t i = 0; i < json_array_size(source); i++) {
		const json_t *device = json_array_get(source, i);
		const char *id = json_string_value(json_object_get(device, "id"));
		const json_t *other = device_with(target, id);
		CLEANUP_FREE char *what = io_format("device %s", id ? id : "?");

		if (!id || !other)
			differ(list, what ? what : "device", device, NULL,
			       "start the target with this device");
		else
			compare_device(list, id, device, other);
	}
	for (size_t i = 0; i < json_array_size(target); i++) {
		const json_t *device = json_array_get(target, i);
		const char *id = json_string_value(json_object_get(device, "id"));
		CLEANUP_FREE char *what = io_format("device %s", id ? id : "?");

		if (!device_with(source, id))
			differ(list, what ? what : "device", NULL, device,
			       "start the target without this device");
	}
}

static void compare_room(json_t *list, const json_t *memory, uint64_t free_bytes)
{
	json_int_t used = json_integer_value(json_object_get(memory, "used"));
	char a[32], b[32];

	if (used <= 0 || (uint64_t)used <= free_bytes)
		return;
	snprintf(a, sizeof(a), "%" PRIu64 " MiB", (uint64_t)used >> 20);
	snprintf(b, sizeof(b), "%" PRIu64 " MiB", free_bytes >> 20);
	add(list, "free memory", a, b, "free memory there, or choose another machine");
}

json_t *obstacle_at_source(const json_t *vm)
{
	const json_t *devices = json_object_get(vm, "devices");
	json_t *list = json_array();

	for (size_t i = 0; i < json_array_size(devices); i++) {
		const json_t *device = json_array_get(devices, i);
		const char *stays = json_string_value(json_object_get(device, "stays"));
		const char *id = json_string_value(json_object_get(device, "id"));
		CLEANUP_FREE char *what = io_format("device %s", id ? id : "?");

		if (stays)
			add(list, what ? what : "device", "its state cannot be saved", "", stays);
	}
	return list;
}

json_t *obstacle_at_target(const json_t *source, const json_t *target, uint64_t free_bytes)
{
	static const char shape[] = "start the target with the same --memory and --cpus";
	const json_t *memory = json_object_get(source, "memory"),
		     *ours = json_object_get(target, "memory"),
		     *cpu = json_object_get(source, "cpu"),
		     *offer = json_object_get(target, "offer");
	json_t *list = json_array();

	same(list, "vcpus", source, target, "vcpus", shape);
	same(list, "topology", source, target, "topology", shape);
	same(list, "memory size", memory, ours, "size", shape);
	same(list, "memory regions", memory, ours, "regions", shape);
	same(list, "irqchip", source, target, "irqchip",
	     "start the target with the same --irqchip");
	same(list, "version of the saved state", source, target, "state_version",
	     "use the same version of Wisp on both machines");
	same(list, "CPU vendor", cpu, offer, "vendor",
	     "choose a machine with a CPU of this vendor");
	compare_features(list, json_object_get(cpu, "features"),
			 json_object_get(offer, "features"));
	compare_tsc(list, cpu, offer);
	compare_devices(list, json_object_get(source, "devices"),
			json_object_get(target, "devices"));
	compare_room(list, memory, free_bytes);
	return list;
}

uint64_t obstacle_free_memory(void)
{
	CLEANUP_FREE char *text = NULL;
	const char *line;

	if (io_read_file("/proc/meminfo", 65536, &text, NULL) < 0)
		return UINT64_MAX;
	line = strstr(text, "\nMemAvailable:");
	return line ? strtoull(line + strlen("\nMemAvailable:"), NULL, 10) << 10 : UINT64_MAX;
}

static const char *text_of(const json_t *obstacle, const char *name)
{
	const char *text = json_string_value(json_object_get(obstacle, name));

	return text ? text : "?";
}

char *obstacle_text(const json_t *obstacle)
{
	const char *target = text_of(obstacle, "target");
	char *text =
		io_format("%.200s: %.*s at the source%s%.200s%s; %.300s", text_of(obstacle, "what"),
			  TEXT_MAX, text_of(obstacle, "source"), *target ? ", " : "", target,
			  *target ? " at the target" : "", text_of(obstacle, "fix"));

	for (char *p = text; p && *p; p++)
		if (*p < ' ' || *p > '~')
			*p = '?';
	return text;
}
