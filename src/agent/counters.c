/* SPDX-License-Identifier: Apache-2.0 */
/* Counters of the kernel's network. */

#include "agent/counters.h"

#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/io.h"

#define FILE_MAX (256u << 10)

/* Behind the "GROUP:" of the first line that begins so. */
static const char *find_line(const char *text, const char *group)
{
	size_t n = strlen(group);

	while (text) {
		if (!strncmp(text, group, n) && text[n] == ':')
			return text + n + 1;
		text = strchr(text, '\n');
		text = text ? text + 1 : NULL;
	}
	return NULL;
}

static size_t next_word(const char **at)
{
	*at += strspn(*at, " ");
	return strcspn(*at, " \n");
}

bool counters_find(const char *text, const char *group, const char *name, uint64_t *ret)
{
	const char *names = find_line(text, group);
	const char *values = names ? find_line(names, group) : NULL;

	while (values) {
		size_t n = next_word(&names), size = next_word(&values);

		if (!n || !size)
			return false;
		if (n == strlen(name) && !strncmp(names, name, n)) {
			*ret = strtoull(values, NULL, 10);
			return true;
		}
		names += n;
		values += size;
	}
	return false;
}

json_t *counters_tcp(void)
{
	CLEANUP_FREE char *snmp = NULL;
	CLEANUP_FREE char *netstat = NULL;
	uint64_t sent, again, timeouts;

	if (io_read_file("/proc/net/snmp", FILE_MAX, &snmp, NULL) < 0 ||
	    io_read_file("/proc/net/netstat", FILE_MAX, &netstat, NULL) < 0 ||
	    !counters_find(snmp, "Tcp", "OutSegs", &sent) ||
	    !counters_find(snmp, "Tcp", "RetransSegs", &again) ||
	    !counters_find(netstat, "TcpExt", "TCPTimeouts", &timeouts))
		return NULL;
	return json_pack("{s:I, s:I, s:I}", "sent", (json_int_t)sent, "retransmitted",
			 (json_int_t)again, "timeouts", (json_int_t)timeouts);
}
