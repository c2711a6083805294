/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compares two VMs, one of which is to go on in the other. What a peer says of its own may be as
 * long as a message: it is looked through once, and what is told of it is short.
 */

#include "mover/migrate-obstacle.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/io.h"

#define OBSTACLES_MAX 64 /* of one VM; what is more is only counted as that */
#define TEXT_MAX 1000
#define WHAT_MAX 200
#define TSC_TOLERANCE_PPM 1000 /* as the VMM: two calibrations of one clock */

static json_t *obstacle(const char *what, const char *source, const char *target, const char *fix)
{
	return json_pack("{s:s,s:s,s:s,s:s}", "what", what, "source", source, "target", target,
			 "fix", fix);
}

/* With one too many the last says that there are more. */
static void add(json_t *list, const char *what, const char *source, const char *target,
		const char *fix)
{
	size_t n = json_array_size(list);

	if (n < OBSTACLES_MAX)
		json_array_append_new(list, obstacle(what, source, target, fix));
	else
		json_array_set_new(list, n - 1,
				   obstacle("more", "differs", "", "see to those above first"));
}

/* At most max bytes, in whole characters of UTF-8: JSON takes nothing else. */
static char *cut(char *text, size_t max)
{
	size_t n = text ? strnlen(text, max + 1) : 0;

	if (n <= max)
		return text;
	while (max && ((uint8_t)text[max] & 0xc0) == 0x80)
		max--;
	text[max] = '\0';
	return text;
}

/* A value in one line, for free(). */
static char *show(const json_t *value)
{
	if (!value)
		return strdup("unknown");
	if (json_is_string(value))
		return cut(strdup(json_string_value(value)), TEXT_MAX);
	return cut(json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_SORT_KEYS), TEXT_MAX);
}

/* "device ID", or "device ID: MEMBER"; for free(). */
static char *name_device(const char *id, const char *member)
{
	return cut(
		io_format("device %s%s%s", id ? id : "?", member ? ": " : "", member ? member : ""),
		WHAT_MAX);
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

/* A set of the texts of a list: an object with a member for each. */
static json_t *set_of(const json_t *list)
{
	json_t *set = json_object(), *text;
	size_t i;

	json_array_foreach (list, i, text)
		if (json_is_string(text))
			json_object_set_new(set, json_string_value(text), json_true());
	return set;
}

/* Appends a word to a text that has room for TEXT_MAX bytes; false: it has not for this. */
static bool append_word(char *text, size_t *n, const char *word)
{
	size_t length = strlen(word);

	if (*n + 1 + length > TEXT_MAX)
		return false;
	if (*n)
		text[(*n)++] = ' ';
	memcpy(text + *n, word, length + 1);
	*n += length;
	return true;
}

static void compare_features(json_t *list, const json_t *has, const json_t *offered)
{
	json_t *set = set_of(offered), *feature;
	char lost[TEXT_MAX + 40] = "";
	size_t i, n = 0, more = 0;

	json_array_foreach (has, i, feature) {
		const char *name = json_string_value(feature);

		if (name && !json_object_get(set, name))
			more += more || !append_word(lost, &n, name);
	}
	json_decref(set);
	if (more)
		snprintf(lost + n, sizeof(lost) - n, "%sand %zu more", n ? " " : "", more);
	if (n || more)
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

static const char *id_of(const json_t *device)
{
	return json_string_value(json_object_get(device, "id"));
}

/* The devices by their ids. */
static json_t *devices_by_id(const json_t *devices)
{
	json_t *map = json_object(), *device;
	size_t i;

	json_array_foreach (devices, i, device)
		if (id_of(device))
			json_object_set(map, id_of(device), device);
	return map;
}

static const json_t *device_with(const json_t *map, const char *id)
{
	return id ? json_object_get(map, id) : NULL;
}

#define SAMPLE 8 /* digits of one */

/*
 * A disk that the VM writes differs here and there from what the other host sees of it; another
 * disk differs in most places. Where the source found zeros the VM may have written since.
 */
static void compare_samples(json_t *list, const char *id, const json_t *a, const json_t *b)
{
	const char *left = json_string_value(json_object_get(a, "sample"));
	const char *right = json_string_value(json_object_get(b, "sample"));
	size_t n = left && right ? strnlen(left, TEXT_MAX) / SAMPLE : 0;
	unsigned differ = 0, all = 0;
	CLEANUP_FREE char *what = name_device(id, "content");
	char text[64];

	if (!n || strnlen(right, TEXT_MAX) / SAMPLE != n)
		return;
	for (size_t i = 0; i < n; i++, left += SAMPLE, right += SAMPLE) {
		if (!memcmp(left, "00000000", SAMPLE))
			continue;
		all++;
		differ += !!memcmp(left, right, SAMPLE);
	}
	if (differ < 2 || differ <= all / 2)
		return;
	snprintf(text, sizeof(text), "another in %u of %u places", differ, all);
	add(list, what ? what : id, "the VM's disk", text,
	    "give the target the same disk (a file system that both hosts have)");
}

static void compare_device(json_t *list, const char *id, const json_t *a, const json_t *b)
{
	static const char fix[] = "start the target with the same devices in the same order";
	static const char *const members[] = {"kind", "queues", "size", "readonly"};
	uint64_t needs = (uint64_t)json_integer_value(json_object_get(a, "needs"));
	uint64_t offers = (uint64_t)json_integer_value(json_object_get(b, "offers"));

	for (unsigned i = 0; i < ARRAY_SIZE(members); i++) {
		CLEANUP_FREE char *what = name_device(id, members[i]);

		same(list, what ? what : id, a, b, members[i], fix);
	}
	compare_samples(list, id, a, b);
	if (needs & ~offers) {
		CLEANUP_FREE char *what = name_device(id, "features");
		CLEANUP_FREE char *lost = io_format("0x%" PRIx64, needs & ~offers);

		add(list, what ? what : id, lost ? lost : "?", "not offered by its back end",
		    "give the target the same back end (file system of the disk, tap, vhost)");
	}
}

/* Devices of one list that the other, by id, has not. */
static void missing_devices(json_t *list, const json_t *devices, const json_t *others,
			    bool at_source, const char *fix)
{
	const json_t *device;
	size_t i;

	json_array_foreach (devices, i, device) {
		CLEANUP_FREE char *what = NULL;

		if (device_with(others, id_of(device)))
			continue;
		what = name_device(id_of(device), NULL);
		differ(list, what ? what : "device", at_source ? device : NULL,
		       at_source ? NULL : device, fix);
	}
}

static void compare_devices(json_t *list, const json_t *source, const json_t *target)
{
	json_t *theirs = devices_by_id(source), *ours = devices_by_id(target);
	const json_t *device;
	size_t i;

	json_array_foreach (source, i, device) {
		const json_t *other = device_with(ours, id_of(device));

		if (other)
			compare_device(list, id_of(device), device, other);
	}
	missing_devices(list, source, ours, true, "start the target with this device");
	missing_devices(list, target, theirs, false, "start the target without this device");
	json_decref(theirs);
	json_decref(ours);
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
		CLEANUP_FREE char *what = name_device(id_of(device), NULL);

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
