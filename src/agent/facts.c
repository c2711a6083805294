/* SPDX-License-Identifier: Apache-2.0 */
/* What the agent tells about its machine. */

#include "agent/agent.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "agent/counters.h"
#include "build-config.h"
#include "lib/cleanup.h"
#include "lib/io.h"

static json_t *addresses(void)
{
	json_t *list = json_array();
	struct ifaddrs *all;

	if (getifaddrs(&all) < 0)
		return list;
	for (struct ifaddrs *a = all; a; a = a->ifa_next) {
		char text[INET6_ADDRSTRLEN];
		int family = a->ifa_addr ? a->ifa_addr->sa_family : AF_UNSPEC;
		const void *address =
			family == AF_INET ? (void *)&((struct sockaddr_in *)a->ifa_addr)->sin_addr
			: family == AF_INET6
				? (void *)&((struct sockaddr_in6 *)a->ifa_addr)->sin6_addr
				: NULL;

		if (address && !(a->ifa_flags & IFF_LOOPBACK) &&
		    inet_ntop(family, address, text, sizeof(text)))
			json_array_append_new(list, json_pack("{s:s,s:s}", "interface", a->ifa_name,
							      "address", text));
	}
	freeifaddrs(all);
	return list;
}

/* "MemAvailable:   123 kB" in bytes. */
static json_int_t memory_available(void)
{
	CLEANUP_FREE char *text = NULL;
	const char *line;

	if (io_read_file("/proc/meminfo", 65536, &text, NULL) < 0)
		return 0;
	line = strstr(text, "MemAvailable:");
	return line ? (json_int_t)strtoull(line + strlen("MemAvailable:"), NULL, 10) * 1024 : 0;
}

json_t *facts_collect(const struct agent *agent)
{
	struct utsname names;
	struct sysinfo info;
	double load[3] = {0};
	json_t *facts;

	if (uname(&names) < 0 || sysinfo(&info) < 0)
		return NULL;
	getloadavg(load, 3);
	facts = json_pack("{s:s,s:i,s:b,s:s,s:s,s:I,s:I,s:I,s:I,s:[f,f,f],s:o,s:o*}", "agent",
			  WISP_VERSION, "protocol", (int)PROTO_VERSION, "init", (int)agent->is_init,
			  "hostname", names.nodename, "kernel", names.release, "cpus",
			  (json_int_t)sysconf(_SC_NPROCESSORS_ONLN), "memory",
			  (json_int_t)info.totalram * info.mem_unit, "memory_available",
			  memory_available(), "uptime", (json_int_t)info.uptime, "load", load[0],
			  load[1], load[2], "addresses", addresses(), "tcp", counters_tcp());
	if (facts && agent->is_init)
		json_object_set_new(facts, "boot",
				    json_pack("{s:I,s:I,s:I}", "init_ms",
					      (json_int_t)agent->boot.init, "root_ms",
					      (json_int_t)agent->boot.root, "ready_ms",
					      (json_int_t)agent->boot.ready));
	return facts;
}
