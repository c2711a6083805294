/* SPDX-License-Identifier: Apache-2.0 */
/* All that keeps a VM from moving is found at once, and nothing that does not. */

#include "mover/test/scratch.h"

#include "mover/migrate-obstacle.h"

static const char plain[] =
	"{\"vcpus\": 2, \"topology\": {\"sockets\": 1, \"cores\": 2, \"threads\": 1},"
	" \"memory\": {\"size\": 1073741824, \"page_size\": 4096, \"regions\": [], \"used\": "
	"1000000},"
	" \"irqchip\": \"kernel\", \"state_version\": 1,"
	" \"cpu\": {\"vendor\": \"GenuineIntel\", \"tsc_khz\": 2500000, \"features\": [\"sse\", "
	"\"avx\"]},"
	" \"offer\": {\"vendor\": \"GenuineIntel\", \"tsc_khz\": 2500100, \"tsc_scaling\": false,"
	"  \"features\": [\"sse\", \"avx\", \"avx2\"]},"
	" \"devices\": [{\"id\": \"power0\", \"kind\": \"power0\"},"
	"  {\"id\": \"block0\", \"kind\": \"block\", \"queues\": 1, \"needs\": 5, \"offers\": 7,"
	"   \"size\": 1048576, \"readonly\": true}]}";

static json_t *load(const char *text)
{
	json_error_t why;
	json_t *value = json_loads(text, 0, &why);

	if (!value)
		fail_msg("%s", why.text);
	return value;
}

/* Sets the member at a path like "cpu.tsc_khz" or "devices.1.size". */
static void set(json_t *root, const char *path, const char *value)
{
	CLEANUP_FREE char *copy = strdup(path);
	char *rest = copy, *name = strsep(&rest, ".");
	json_error_t why;

	for (; rest; name = strsep(&rest, "."))
		root = json_is_array(root) ? json_array_get(root, (size_t)atoi(name))
					   : json_object_get(root, name);
	if (*value)
		json_object_set_new(root, name, json_loads(value, JSON_DECODE_ANY, &why));
	else
		json_object_del(root, name);
}

/* One change on a side gives one obstacle with these words. */
static void one(bool at_source, const char *path, const char *value, const char *words)
{
	json_t *source = load(plain), *target = load(plain), *list;
	CLEANUP_FREE char *text = NULL;

	set(at_source ? source : target, path, value);
	list = obstacle_at_target(source, target, 2000000);
	if (json_array_size(list) != 1)
		fail_msg("%s: %zu obstacles", path, json_array_size(list));
	text = obstacle_text(json_array_get(list, 0));
	if (!strstr(text, words))
		fail_msg("%s: no \"%s\" in \"%s\"", path, words, text);
	json_decref(list);
	json_decref(source);
	json_decref(target);
}

static void test_none(void **state)
{
	json_t *vm = load(plain), *list = obstacle_at_target(vm, vm, 2000000);

	assert_int_equal(json_array_size(list), 0);
	json_decref(list);
	list = obstacle_at_source(vm);
	assert_int_equal(json_array_size(list), 0);
	json_decref(list);
	json_decref(vm);
	assert_true(obstacle_free_memory() > 1 << 20);
}

static void test_each(void **state)
{
	one(true, "vcpus", "3", "vcpus: 3 at the source, 2 at the target; start the target with");
	one(false, "topology.threads", "2", "topology");
	one(true, "memory.size", "4096", "memory size: 4096 at the source, 1073741824");
	one(false, "memory.regions", "[1]", "memory regions");
	one(true, "memory.used", "3000000", "free memory: 2 MiB at the source, 1 MiB");
	one(true, "irqchip", "\"split\"", "irqchip: split at the source, kernel");
	one(true, "state_version", "2", "version of the saved state");
	one(false, "offer.vendor", "\"AuthenticAMD\"", "CPU vendor: GenuineIntel at the source");
	one(false, "offer.features", "[\"sse\"]", "CPU features: avx at the source, not offered");
	one(false, "offer.features", "[]", "CPU features: sse avx at the source");
	one(true, "cpu.tsc_khz", "2600000", "TSC frequency in kHz: 2600000 at the source");
	one(false, "devices.1.size", "512", "device block0: size: 1048576 at the source, 512");
	one(false, "devices.1.readonly", "false", "device block0: readonly");
	one(true, "devices.1.queues", "4", "device block0: queues: 4");
	one(false, "devices.1.kind", "\"net\"", "device block0: kind");
	one(false, "devices.1.offers", "3", "device block0: features: 0x4 at the source, not");
}

/* A frequency that can be scaled, more features, memory of huge pages: no obstacles. */
static void test_fine(void **state)
{
	json_t *source = load(plain), *target = load(plain), *list;

	set(source, "cpu.tsc_khz", "3100000");
	set(target, "offer.tsc_scaling", "true");
	set(target, "memory.page_size", "2097152");
	set(target, "devices.1.offers", "255");
	list = obstacle_at_target(source, target, UINT64_MAX);
	assert_int_equal(json_array_size(list), 0);
	json_decref(list);
	json_decref(source);
	json_decref(target);
}

/* How many obstacles two samples of a disk are. */
static size_t samples(const char *source, const char *target)
{
	json_t *a = load(plain), *b = load(plain), *list;
	size_t n;

	json_object_set_new(json_array_get(json_object_get(a, "devices"), 1), "sample",
			    json_string(source));
	json_object_set_new(json_array_get(json_object_get(b, "devices"), 1), "sample",
			    json_string(target));
	list = obstacle_at_target(a, b, UINT64_MAX);
	n = json_array_size(list);
	if (n) {
		CLEANUP_FREE char *text = obstacle_text(json_array_get(list, 0));

		assert_non_null(strstr(text, "device block0: content"));
	}
	json_decref(list);
	json_decref(a);
	json_decref(b);
	return n;
}

/* Another disk is an obstacle, one that is written to is not. */
static void test_samples(void **state)
{
	assert_int_equal(samples("1111111100000000222222223333333344444444",
				 "1111111100000000222222223333333344444444"),
			 0);
	assert_int_equal(samples("1111111100000000222222223333333344444444",
				 "1111111100000000a2222222b333333344444444"),
			 0);
	assert_int_equal(samples("1111111100000000222222223333333344444444",
				 "1111111100000000a2222222b3333333c4444444"),
			 1);
	assert_int_equal(samples("111111112222222233333333", "000000000000000000000000"), 1);
	assert_int_equal(samples("0000000011111111", "0000000022222222"), 0);
	/* The VM made a file system on an empty disk meanwhile. */
	assert_int_equal(samples("0000000011111111000000000000000000000000",
				 "2222222211111111333333334444444455555555"),
			 0);
	/* Whatever a peer says. */
	assert_int_equal(samples("", ""), 0);
	assert_int_equal(samples("1111111122222222", "1111"), 0);
	assert_int_equal(samples("111111112222", "333333334444"), 0);
}

static void test_all(void **state)
{
	json_t *source = load(plain), *target = load(plain), *list;

	set(source, "vcpus", "3");
	set(source, "memory.size", "1");
	set(target, "offer.features", "[]");
	set(target, "devices.1.size", "512");
	set(target, "devices.0.id", "\"rng0\"");
	list = obstacle_at_target(source, target, 10);
	assert_int_equal(json_array_size(list), 7);
	json_decref(list);
	json_decref(source);
	json_decref(target);
}

static void test_stays(void **state)
{
	json_t *vm = load(plain), *list;
	CLEANUP_FREE char *text = NULL;

	set(vm, "devices.1.stays", "\"unplug it in the guest\"");
	list = obstacle_at_source(vm);
	assert_int_equal(json_array_size(list), 1);
	text = obstacle_text(json_array_get(list, 0));
	assert_non_null(strstr(text, "device block0: its state cannot be saved"));
	assert_non_null(strstr(text, "unplug it in the guest"));
	json_decref(list);
	json_decref(vm);
}

/* What a peer says may be anything; a terminal gets printable characters. */
static void test_nonsense(void **state)
{
	static const char *const texts[] = {
		"{}",
		"[]",
		"{\"devices\": 7}",
		"{\"devices\": [1, {}, {\"id\": 4}, null]}",
		"{\"cpu\": [], \"memory\": \"\\u001b[2J\"}",
		"{\"cpu\": {\"features\": [1, \"\\u001b\", {}]}, \"vcpus\": {\"a\": []}}",
		"{\"memory\": {\"used\": -1, \"size\": 1e99}, \"devices\": [{\"id\": \"block0\", "
		"\"needs\": -1}]}"};

	for (unsigned i = 0; i < ARRAY_SIZE(texts); i++) {
		json_t *source = load(texts[i]), *target = load(plain), *list;

		list = obstacle_at_target(source, target, 1);
		assert_true(json_array_size(list) > 1);
		if (json_is_array(source))
			json_array_extend(list, source);
		json_array_append_new(list, json_null());
		for (size_t k = 0; k < json_array_size(list); k++) {
			CLEANUP_FREE char *text = obstacle_text(json_array_get(list, k));

			assert_non_null(text);
			for (char *p = text; *p; p++)
				assert_in_range(*p, ' ', '~');
		}
		json_decref(list);
		json_decref(obstacle_at_source(source));
		json_decref(source);
		json_decref(target);
	}
}

/* As much as a peer can say in a message: what is told of it fits into one too. */
static void test_too_many(void **state)
{
	json_t *source = load(plain), *target = load(plain), *list;
	json_t *features = json_array(), *devices = json_array();
	CLEANUP_FREE char *answer = NULL;
	CLEANUP_FREE char *text = NULL;

	for (unsigned i = 0; i < 150000; i++) {
		char name[64];

		snprintf(name, sizeof(name), "\u00e4\u00f6\u00fc%u", i);
		json_array_append_new(features, json_string(name));
		if (i < 20000)
			json_array_append_new(devices, json_pack("{s:s}", "id", name));
	}
	json_object_set_new(json_object_get(source, "cpu"), "features", features);
	json_object_set_new(source, "devices", devices);
	json_object_set_new(source, "vcpus", json_stringn("\xc3\xa4", 2));
	list = obstacle_at_target(source, target, UINT64_MAX);
	assert_in_range(json_array_size(list), 10, 64);
	answer = json_dumps(list, JSON_COMPACT);
	assert_non_null(answer);
	assert_true(strlen(answer) < 1 << 20);
	assert_non_null(strstr(answer, "and 149"));
	text = obstacle_text(json_array_get(list, json_array_size(list) - 1));
	assert_non_null(strstr(text, "more"));
	json_decref(list);
	json_decref(source);
	json_decref(target);
}

/* A text that is cut stays a text, or the obstacle would be lost. */
static void test_long(void **state)
{
	for (unsigned at = 0; at < 4; at++) {
		json_t *source = load(plain), *target = load(plain), *list;
		char vendor[4096] = "";

		for (unsigned n = at; n < 4000; n += 2)
			memcpy(vendor + n, "\xc3\xa4", 2);
		memset(vendor, 'x', at);
		json_object_set_new(json_object_get(source, "cpu"), "vendor", json_string(vendor));
		list = obstacle_at_target(source, target, UINT64_MAX);
		assert_int_equal(json_array_size(list), 1);
		assert_in_range(strlen(json_string_value(
					json_object_get(json_array_get(list, 0), "source"))),
				990, 1000);
		json_decref(list);
		json_decref(source);
		json_decref(target);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_none),	 cmocka_unit_test(test_each),
		cmocka_unit_test(test_fine),	 cmocka_unit_test(test_samples),
		cmocka_unit_test(test_all),	 cmocka_unit_test(test_stays),
		cmocka_unit_test(test_nonsense), cmocka_unit_test(test_too_many),
		cmocka_unit_test(test_long),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
