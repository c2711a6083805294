/* SPDX-License-Identifier: Apache-2.0 */
/* Counters in the kernel's texts. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "agent/counters.h"

static const char text[] = "Ip: Forwarding OutSegs\n"
			   "Ip: 1 99\n"
			   "Tcp: RtoMax MaxConn OutSegs RetransSegs\n"
			   "Tcp: 120000 -1 18446744073709551615 7\n"
			   "TcpExt: TCPTimeouts More\n"
			   "TcpExt: 3\n"
			   "Udp: OutDatagrams\n";

static void test_find(void **state)
{
	uint64_t n = 0;

	assert_true(counters_find(text, "Tcp", "OutSegs", &n));
	assert_true(n == UINT64_MAX);
	assert_true(counters_find(text, "Tcp", "RetransSegs", &n));
	assert_int_equal(n, 7);
	assert_true(counters_find(text, "TcpExt", "TCPTimeouts", &n));
	assert_int_equal(n, 3);
}

static void test_not_there(void **state)
{
	uint64_t n = 5;

	assert_false(counters_find(text, "Tcp", "Out", &n));
	assert_false(counters_find(text, "Tcp", "TCPTimeouts", &n));
	assert_false(counters_find(text, "TcpExt", "More", &n));
	assert_false(counters_find(text, "Udp", "OutDatagrams", &n));
	assert_false(counters_find(text, "Icmp", "OutSegs", &n));
	assert_false(counters_find("", "Tcp", "OutSegs", &n));
	assert_false(counters_find("Tcp:", "Tcp", "OutSegs", &n));
	assert_int_equal(n, 5);
}

/* The kernel of this machine writes as we read. */
static void test_kernel(void **state)
{
	json_t *tcp = counters_tcp();

	assert_true(json_is_integer(json_object_get(tcp, "sent")));
	assert_true(json_is_integer(json_object_get(tcp, "retransmitted")));
	assert_true(json_is_integer(json_object_get(tcp, "timeouts")));
	json_decref(tcp);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_find),
		cmocka_unit_test(test_not_there),
		cmocka_unit_test(test_kernel),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
