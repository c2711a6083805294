/* SPDX-License-Identifier: Apache-2.0 */
/* Answers that become one, kept output, and MPI's launchers. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "job/gather.h"
#include "job/input.h"
#include "job/mpi.h"
#include "job/output.h"
#include "job/save-tcp.h"
#include "job/save.h"
#include "job/spec.h"
#include "job/walltime.h"
#include "lib/error.h"

/* -------- answers -------- */

static int add(struct gather *g, const char *text)
{
	json_t *message = json_loads(text, 0, NULL);
	struct error err;
	int r = gather_add(g, message, &err);

	json_decref(message);
	return r;
}

static void test_gather(void **state)
{
	struct gather g;
	char *ok;

	assert_int_equal(gather_init(&g), 0);
	assert_int_equal(add(&g, "{\"ok\": \"0-3\", \"values\": {\"9\": {\"a\": 1}}}"), 0);
	assert_true(gather_is_good(&g));
	assert_int_equal(add(&g, "{\"done\": true, \"ok\": \"5\", \"errors\": "
				 "[{\"node\": 4, \"errno\": 16, \"error\": \"held\"}]}"),
			 1);
	ok = nodeset_format(&g.ok);
	assert_string_equal(ok, "0-3,5,9");
	free(ok);
	assert_true(nodeset_has(&g.failed, 4));
	assert_false(gather_is_good(&g));
	assert_non_null(gather_value(&g, 9));
	assert_null(gather_value(&g, 0));
	gather_done(&g);
}

static void take_counters(struct save_tcp *tcp, const char *text,
			  void (*take)(struct save_tcp *tcp, const struct gather *answer))
{
	struct gather g;

	assert_int_equal(gather_init(&g), 0);
	add(&g, text);
	take(tcp, &g);
	gather_done(&g);
}

/* One is new, one began anew, one does not say all: these are left out. */
static void test_tcp(void **state)
{
	struct save_tcp tcp = {0};
	json_t *all, *one;

	assert_null(save_tcp_describe(&tcp));
	take_counters(&tcp,
		      "{\"done\": true, \"values\": {\"0\": {"
		      "\"a\": {\"sent\": 10, \"retransmitted\": 1, \"timeouts\": 0},"
		      "\"b\": {\"sent\": 9, \"retransmitted\": 1, \"timeouts\": 0}},"
		      "\"3\": {\"d\": {\"sent\": 1}}}}",
		      save_tcp_before);
	assert_null(save_tcp_describe(&tcp));
	take_counters(&tcp,
		      "{\"done\": true, \"values\": {\"0\": {"
		      "\"a\": {\"sent\": 30, \"retransmitted\": 4, \"timeouts\": 2},"
		      "\"b\": {\"sent\": 3, \"retransmitted\": 1, \"timeouts\": 0},"
		      "\"c\": {\"sent\": 3, \"retransmitted\": 1, \"timeouts\": 0}},"
		      "\"3\": {\"d\": {\"sent\": 2, \"retransmitted\": \"x\"}}}}",
		      save_tcp_after);
	all = save_tcp_describe(&tcp);
	assert_int_equal(json_object_size(json_object_get(all, "vms")), 1);
	one = json_object_get(json_object_get(all, "vms"), "a");
	assert_int_equal(json_integer_value(json_object_get(one, "sent")), 20);
	assert_int_equal(json_integer_value(json_object_get(one, "retransmitted")), 3);
	assert_int_equal(json_integer_value(json_object_get(one, "timeouts")), 2);
	json_decref(all);
	save_tcp_done(&tcp);
}

static void test_refused(void **state)
{
	struct gather g;

	assert_int_equal(gather_init(&g), 0);
	assert_int_equal(add(&g, "{\"done\": true, \"errno\": 1, \"error\": \"not yours\"}"), 1);
	assert_int_equal(g.code, -1);
	assert_string_equal(g.why.text, "not yours");
	assert_false(gather_is_good(&g));
	gather_done(&g);
}

static void test_lies(void **state)
{
	static const char *const lies[] = {
		"{\"ok\": \"3-1\"}",
		"{\"ok\": \"99999999\"}",
		"{\"values\": {\"x\": 1}}",
		"{\"values\": {\"\": 1}}",
		"{\"values\": {\"1048576\": 1}}",
		"{\"errors\": [{\"node\": -1, \"errno\": 1}]}",
		"{\"errors\": [{\"node\": 1, \"errno\": 0}]}",
		"{\"errors\": [7]}",
	};

	for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		struct gather g;

		assert_int_equal(gather_init(&g), 0);
		assert_int_equal(add(&g, lies[i]), -EPROTO);
		gather_done(&g);
	}
}

/* -------- output -------- */

static void test_output(void **state)
{
	char path[] = "/tmp/wisp-output.XXXXXX", got[16] = "";
	struct output o;
	uint64_t at = 0;

	close(mkstemp(path));
	assert_int_equal(output_create(&o, path, NULL), 0);
	assert_int_equal(output_read(&o, &at, got, sizeof(got)), 0);
	assert_int_equal(output_append(&o, "one two", 7), 0);
	assert_int_equal(output_read(&o, &at, got, 3), 3);
	assert_memory_equal(got, "one", 3);
	assert_int_equal(at, 3);
	/* The program is back at "one ", and then at a place that was never seen here. */
	assert_int_equal(output_set(&o, 4), 0);
	assert_int_equal(output_append(&o, "six", 3), 0);
	at = 0;
	assert_int_equal(output_read(&o, &at, got, sizeof(got)), 7);
	assert_memory_equal(got, "one six", 7);
	assert_int_equal(output_set(&o, 1000), 0);
	at = 0;
	assert_int_equal(output_read(&o, &at, got, sizeof(got)), 0);
	assert_int_equal(at, 1000);
	output_done(&o);
	unlink(path);
}

/* However much is written, about OUTPUT_KEEP of it takes space. */
static void test_long_output(void **state)
{
	char path[] = "/tmp/wisp-output.XXXXXX", got[8];
	static char piece[1 << 20];
	struct output o;
	struct stat st;
	uint64_t at = 0;

	close(mkstemp(path));
	assert_int_equal(output_create(&o, path, NULL), 0);
	for (unsigned i = 0; i < 150; i++) {
		memset(piece, (int)('a' + i % 26), sizeof(piece));
		assert_int_equal(output_append(&o, piece, sizeof(piece)), 0);
	}
	assert_int_equal(fstat(o.fd, &st), 0);
	assert_int_equal(st.st_size, 150 << 20);
	assert_true((uint64_t)st.st_blocks * 512 <= OUTPUT_KEEP + (8u << 20));
	assert_int_equal(output_read(&o, &at, got, sizeof(got)), 8);
	assert_true(at >= (150u << 20) - OUTPUT_KEEP - (4u << 20));
	assert_int_equal(got[0], 'a' + (int)((at - 8) >> 20) % 26);
	output_done(&o);
	unlink(path);
}

/* -------- input -------- */

static size_t send_all(struct input *in)
{
	const uint8_t *data;
	size_t n, all = 0;

	while ((n = input_next(in, &data))) {
		input_went(in, n);
		all += n;
	}
	return all;
}

static void test_input(void **state)
{
	static uint8_t piece[100000];
	struct input in = {0};
	const uint8_t *data;
	uint64_t base;

	for (size_t i = 0; i < sizeof(piece); i++)
		piece[i] = (uint8_t)(i * 7);
	for (unsigned i = 0; i < 6; i++)
		assert_int_equal(input_add(&in, piece, sizeof(piece)), 0);
	in.ends = true;
	assert_int_equal(input_next(&in, &data), 0);
	assert_int_equal(input_go_on(&in, 0), 0);
	input_grant(&in, PROTO_STDIN_WINDOW);
	assert_int_equal(send_all(&in), PROTO_STDIN_WINDOW);
	assert_false(input_is_over(&in));
	/* The connection breaks; the agent has 200,000 bytes of them. */
	assert_int_equal(input_go_on(&in, 200000), 0);
	assert_int_equal(input_next(&in, &data), 0);
	input_grant(&in, 150000);
	assert_true(input_next(&in, &data) > 0);
	assert_memory_equal(data, piece, 1000);
	assert_int_equal(send_all(&in), 150000);
	input_grant(&in, 1000000);
	assert_int_equal(send_all(&in), 250000);
	assert_true(input_is_over(&in));
	assert_true(buffer_used(&in.kept) <= PROTO_STDIN_WINDOW);
	/* A guest that went back too far: what is between is lost, and told. */
	base = in.base;
	assert_int_equal(input_go_on(&in, base - 10), 10);
	input_done(&in);
}

/* -------- MPI -------- */

static char *command(const char *environment, const char *program, bool label)
{
	json_t *env = json_loads(environment, 0, NULL), *words = json_loads(program, 0, NULL);
	json_t *vms = json_pack("[s, s]", "lu-0", "lu-1"), *list = NULL;
	struct mpi mpi = {.environment = env, .vms = vms};
	struct error err = {""};
	char *text;

	if (mpi_command(&mpi, words, label, &list, &err))
		text = strdup(err.text);
	else
		text = json_dumps(list, JSON_COMPACT);
	json_decref(env);
	json_decref(words);
	json_decref(vms);
	json_decref(list);
	return text;
}

static void says(const char *environment, const char *program, bool label, const char *wanted)
{
	char *text = command(environment, program, label);

	if (!strstr(text, wanted))
		fail_msg("%s with %s: %s does not have %s", program, environment, text, wanted);
	free(text);
}

static void test_mpi(void **state)
{
	says("{\"cpus\": 4}", "[\"./lu\"]", false, "[\"./lu\"]");
	says("{\"cpus\": 4, \"mpi\": \"none\"}", "[\"./lu\"]", true, "[\"./lu\"]");
	says("{\"cpus\": 4, \"mpi\": \"openmpi\"}", "[\"./lu\", \"-n\"]", false,
	     "\"mpirun\",\"-n\",\"8\",\"./lu\",\"-n\"]");
	says("{\"cpus\": 4, \"mpi\": \"openmpi\", \"ranks\": 3}", "[\"./lu\"]", true,
	     "\"-n\",\"3\",\"--tag-output\",\"./lu\"]");
	says("{\"cpus\": 4, \"mpi\": \"mpich\", \"ranks-per-vm\": 16}", "[\"./lu\"]", true,
	     "\"-n\",\"32\",\"-prepend-rank\",\"./lu\"]");
	says("{\"cpus\": 4, \"mpi\": \"mpich\"}", "[\"/usr/bin/mpiexec.hydra\", \"./lu\"]", false,
	     "[\"/usr/bin/mpiexec.hydra\",\"./lu\"]");
	says("{\"cpus\": 4, \"mpi\": \"mpich\", \"ranks\": 9}", "[\"./lu\"]", false,
	     "9 ranks do not fit into 2 VMs of 4");
}

static void test_hosts(void **state)
{
	json_t *env = json_pack("{s:i, s:{s:s, s:s}}", "cpus", 4, "environment", "LANG", "C",
				"HYDRA_HOST_FILE", "/mine");
	json_t *vms = json_pack("[s, s]", "lu-0", "lu-1"), *variables;
	struct mpi mpi = {.environment = env, .vms = vms};
	char *openmpi = mpi_hosts_openmpi(&mpi), *mpich = mpi_hosts_mpich(&mpi);

	assert_string_equal(openmpi, "lu-0 slots=4\nlu-1 slots=4\n");
	assert_string_equal(mpich, "lu-0:4\nlu-1:4\n");
	variables = mpi_variables(&mpi);
	assert_string_equal(json_string_value(json_object_get(variables, "LANG")), "C");
	assert_string_equal(json_string_value(json_object_get(variables, "HYDRA_HOST_FILE")),
			    "/mine");
	assert_string_equal(
		json_string_value(json_object_get(variables, "OMPI_MCA_orte_default_hostfile")),
		MPI_HOSTS_OPENMPI);
	free(openmpi);
	free(mpich);
	json_decref(variables);
	json_decref(env);
	json_decref(vms);
}

/* -------- what a coordinator is started with -------- */

#define GOOD                                                                                  \
	"\"name\": \"lu\", \"socket\": \"/s\", \"digest\": \"d\", \"image\": {}, \"nodes\": " \
	"[\"a\"], "                                                                           \
	"\"program\": [], \"environment\": {\"vms\": 2}"

#define JOB "\"job\": \"00112233445566778899aabbccddeeff\""
#define FORMER(lost) "\"former\": {\"id\": \"lu-1\", \"nodes\": [\"a\"], " lost "}"

static void test_spec(void **state)
{
	static const char *const bad[] = {
		"{}",
		"{" GOOD ", \"name\": \"../x\"}",
		"{" GOOD ", \"name\": \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}",
		"{" GOOD ", \"socket\": 7}",
		"{" GOOD ", \"nodes\": []}",
		"{" GOOD ", \"nodes\": [1]}",
		"{" GOOD ", \"program\": {}}",
		"{" GOOD ", \"environment\": {\"vms\": 0}}",
		"{" GOOD ", \"environment\": {\"vms\": 300}}",
		"{" GOOD ", \"environment\": {\"vms\": 1, \"network\": {\"subnet\": \"x\"}}}",
		"{" GOOD ", \"image\": 1}",
		"{" GOOD ", \"job\": \"0011\"}",
		"{" GOOD ", \"restore\": {}}",
		"{" GOOD ", \"restore\": {}, " FORMER("\"lost\": []") "}",
		"{" GOOD ", \"restore\": {}, " JOB "}",
		"{" GOOD ", \"restore\": {}, " JOB ", " FORMER("\"lost\": [1]") "}",
		"{" GOOD ", \"others\": 1}",
		"{" GOOD ", \"others\": -1}",
	};
	struct spec spec;
	struct error err;

	assert_int_equal(spec_read(json_loads("{" GOOD "}", 0, NULL), &spec, &err), 0);
	assert_int_equal(spec.vms, 2);
	assert_string_equal(spec.subnet, "10.78.0.0/24");
	spec_done(&spec);
	assert_int_equal(spec_read(json_loads("{" GOOD ", \"restore\": {}, " JOB
					      ", " FORMER("\"lost\": [\"a\"]") "}",
					      0, NULL),
				   &spec, &err),
			 0);
	spec_done(&spec);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		err.text[0] = 0;
		assert_true(spec_read(json_loads(bad[i], 0, NULL), &spec, &err) < 0);
		assert_string_not_equal(err.text, "");
	}
}

/* After a tenth, at least 10 s, then twice as long; never longer than the interval. */
static void test_clock(void **state)
{
	static const uint64_t s = 1000000000;

	(void)state;
	assert_int_equal(save_clock_retry_ns(3600 * s, 1), 360 * s);
	assert_int_equal(save_clock_retry_ns(3600 * s, 2), 720 * s);
	assert_int_equal(save_clock_retry_ns(3600 * s, 5), 3600 * s);
	assert_int_equal(save_clock_retry_ns(3600 * s, 1000000000), 3600 * s);
	assert_int_equal(save_clock_retry_ns(60 * s, 1), 10 * s);
	assert_int_equal(save_clock_retry_ns(60 * s, 2), 20 * s);
	assert_int_equal(save_clock_retry_ns(s, 1), s);
}

static void test_walltime(void **state)
{
	json_t *limited = json_pack("{s:i}", "walltime", 60000);
	json_t *free_one = json_pack("{s:s}", "walltime", "off");
	struct error err;
	uint64_t left = 0;

	(void)state;
	assert_int_equal(walltime_left(limited, 0, &left, &err), 0);
	assert_int_equal(left, 60000);
	assert_int_equal(walltime_left(limited, 59000, &left, &err), 0);
	assert_int_equal(left, 1000);
	assert_int_equal(walltime_left(limited, 59001, &left, &err), -ETIME);
	assert_non_null(strstr(err.text, "walltime of 60 s"));
	assert_int_equal(walltime_left(limited, 70000, &left, &err), -ETIME);
	assert_int_equal(walltime_left(free_one, 70000, &left, &err), 0);
	assert_true(left == UINT64_MAX);
	json_decref(limited);
	json_decref(free_one);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_gather),	cmocka_unit_test(test_tcp),
		cmocka_unit_test(test_refused), cmocka_unit_test(test_lies),
		cmocka_unit_test(test_output),	cmocka_unit_test(test_long_output),
		cmocka_unit_test(test_mpi),	cmocka_unit_test(test_hosts),
		cmocka_unit_test(test_spec),	cmocka_unit_test(test_input),
		cmocka_unit_test(test_clock),	cmocka_unit_test(test_walltime),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
