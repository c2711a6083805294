/* SPDX-License-Identifier: Apache-2.0 */
/* Made-up sensors, and metrics that are parsed back. */

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "lib/error.h"
#include "node/health.h"
#include "node/metrics.h"
#include "node/test/made.h"
#include "node/topology.h"

struct parsed {
	char family[64], type[16], help[128], label[32], value[64];
	double number;
	unsigned values, families;
};

/* Undoes the escapes of a text up to its end (a character that is not escaped). */
static const char *unescape(const char *text, char end, char *ret)
{
	for (; *text != end; text++) {
		assert_true(*text && *text != '\n');
		if (*text == '\\') {
			text++;
			assert_true(*text == '\\' || *text == 'n' || (*text == '"' && end == '"'));
			*ret++ = *text == 'n' ? '\n' : *text;
		} else {
			*ret++ = *text;
		}
	}
	*ret = 0;
	return text;
}

static const char *word(const char *text, const char *ends, char *ret)
{
	size_t n = strcspn(text, ends);

	memcpy(ret, text, n);
	ret[n] = 0;
	return text + n;
}

/* By the format's own rules; p keeps what came last. */
static const char *parse_line(const char *at, struct parsed *p)
{
	char name[64];

	if (!strncmp(at, "# HELP ", 7)) {
		at = word(at + 7, " ", p->family);
		at = unescape(at + 1, '\n', p->help);
		p->families++;
	} else if (!strncmp(at, "# TYPE ", 7)) {
		at = word(at + 7, " ", name);
		assert_string_equal(name, p->family);
		at = word(at + 1, "\n", p->type);
	} else {
		at = word(at, "{ ", name);
		assert_string_equal(name, p->family);
		while (*at != ' ') {
			assert_true(*at == '{' || *at == ',');
			at = word(at + 1, "=", p->label);
			assert_int_equal(at[1], '"');
			at = unescape(at + 2, '"', p->value) + 1;
			at += *at == '}';
		}
		p->number = strtod(at, (char **)&at);
		p->values++;
	}
	assert_int_equal(*at, '\n');
	return at + 1;
}

static struct parsed parse_all(struct metrics *m)
{
	struct parsed p = {.family = ""};
	char *text = NULL;

	assert_int_equal(metrics_take(m, &text), 0);
	for (const char *at = text; *at;)
		at = parse_line(at, &p);
	free(text);
	return p;
}

static void test_metrics(void **state)
{
	const struct metrics_label odd[] = {{"path", "C:\\DIR\n\"x\","}, {"b", "é }"}};
	static const double numbers[] = {0,	   1,	     0.1, -3.5, 1e300, 9007199254740991.0,
					 INFINITY, -INFINITY};
	struct parsed p;

	for (unsigned i = 0; i < ARRAY_SIZE(numbers); i++) {
		struct metrics *m = metrics_new();

		metrics_family(m, "wisp:x_1", "counter", "a \"help\"\nof \\ lines");
		metrics_value(m, 5, NULL, 0);
		metrics_value(m, numbers[i], odd, 1 + i % 2);
		p = parse_all(m);
		assert_true(p.number == numbers[i]);
		assert_int_equal(p.values, 2);
		assert_string_equal(p.type, "counter");
		assert_string_equal(p.help, "a \"help\"\nof \\ lines");
		assert_string_equal(p.value, odd[i % 2].value);
	}
}

static void test_bad_metrics(void **state)
{
	static const char *const bad[] = {"", "1x", "a-b", "a b", "é"};
	char *text = NULL;

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		struct metrics *m = metrics_new();

		metrics_family(m, bad[i], "gauge", "");
		metrics_value(m, 1, NULL, 0);
		assert_int_equal(metrics_take(m, &text), -EINVAL);
		m = metrics_new();
		metrics_family(m, "good", "gauge", "");
		metrics_value(m, 1, &(struct metrics_label){bad[i], "x"}, 1);
		assert_int_equal(metrics_take(m, &text), -EINVAL);
	}
	assert_int_equal(metrics_take(NULL, &text), -ENOMEM);
	assert_null(text);
}

static json_t *read_health(void **state, unsigned dead)
{
	struct topology *t = NULL;
	json_t *health = NULL;

	assert_int_equal(topology_read(&(struct topology_source){.synthetic = "numa:2 core:1 pu:1",
								 .root = *state},
				       &t, NULL),
			 0);
	assert_int_equal(health_read(*state, t, dead, &health, NULL), 0);
	topology_destroy(t);
	return health;
}

/* "STATE VALUE" of a fact */
static void expect(const json_t *health, const char *name, const char *about, const char *text)
{
	const json_t *fact;
	char is[64];
	size_t i;

	json_array_foreach (json_object_get(health, "facts"), i, fact) {
		const char *of = json_string_value(json_object_get(fact, "about"));

		if (strcmp(json_string_value(json_object_get(fact, "name")), name) ||
		    strcmp(of ? of : "", about))
			continue;
		snprintf(is, sizeof(is), "%s %.15g",
			 json_string_value(json_object_get(fact, "state")),
			 json_number_value(json_object_get(fact, "value")));
		assert_string_equal(is, text);
		return;
	}
	fail_msg("no fact %s of %s", name, about);
}

static void test_health(void **state)
{
	struct metrics *m = metrics_new();
	struct parsed p;
	json_t *health;

	made_file(*state, "/proc/loadavg", "1.50 1.20 1.00 2/300 12345\n");
	made_file(*state, "/sys/devices/system/node/node1/meminfo",
		  "Node 1 MemTotal:  2048 kB\nNode 1 MemFree:   1024 kB\n");
	made_file(*state, "/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages",
		  "5\n");
	made_file(*state, "/sys/devices/system/edac/mc/mc0/ce_count", "3\n");
	made_file(*state, "/sys/devices/system/edac/mc/mc0/ue_count", "0\n");
	made_file(*state, "/sys/class/hwmon/hwmon2/temp1_input", "45500\n");
	made_file(*state, "/sys/class/hwmon/hwmon2/temp1_crit", "100000\n");
	made_file(*state, "/sys/class/hwmon/hwmon2/temp2_input", "-5000\n");
	health = read_health(state, 0);
	expect(health, "load", "", "ok 1.5");
	expect(health, "memory_free_bytes", "node1", "ok 1048576");
	expect(health, "huge_pages", "node0, 2 MiB", "ok 5");
	expect(health, "memory_errors_corrected", "mc0", "ok 3");
	expect(health, "temperature_celsius", "hwmon2/temp1", "ok 45.5");
	expect(health, "temperature_celsius", "hwmon2/temp2", "ok -5");
	assert_string_equal(json_string_value(json_object_get(health, "state")), "ok");
	health_metrics(health, m);
	p = parse_all(m);
	assert_int_equal(p.families, 8);
	assert_int_equal(p.values, json_array_size(json_object_get(health, "facts")));
	json_decref(health);
}

static void test_ill(void **state)
{
	json_t *health = read_health(state, 2);

	expect(health, "dead_vmms", "", "warn 2");
	assert_string_equal(json_string_value(json_object_get(health, "state")), "warn");
	json_decref(health);
	made_file(*state, "/sys/class/hwmon/hwmon0/temp1_input", "96000\n");
	made_file(*state, "/sys/class/hwmon/hwmon0/temp1_crit", "100000\n");
	made_file(*state, "/proc/loadavg", "9.00 1.20 1.00 2/300 12345\n");
	health = read_health(state, 0);
	expect(health, "temperature_celsius", "hwmon0/temp1", "warn 96");
	expect(health, "load", "", "warn 9");
	json_decref(health);
	made_file(*state, "/sys/devices/system/edac/mc/mc0/ue_count", "1\n");
	health = read_health(state, 0);
	expect(health, "memory_errors_uncorrected", "mc0", "bad 1");
	assert_string_equal(json_string_value(json_object_get(health, "state")), "bad");
	json_decref(health);
}

/* Of this machine: whatever it has can be written and parsed. */
static void test_here(void **state)
{
	struct metrics *m = metrics_new();
	struct topology *t = NULL;
	json_t *health = NULL;
	struct parsed p;

	assert_int_equal(topology_read(&(struct topology_source){0}, &t, NULL), 0);
	assert_int_equal(health_read("", t, 0, &health, NULL), 0);
	health_metrics(health, m);
	p = parse_all(m);
	assert_true(p.families >= 2);
	json_decref(health);
	topology_destroy(t);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, made_set_up, made_tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_metrics),
					   cmocka_unit_test(test_bad_metrics), TEST(test_health),
					   TEST(test_ill), cmocka_unit_test(test_here)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
