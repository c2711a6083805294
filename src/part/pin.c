/* SPDX-License-Identifier: Apache-2.0 */
/* Places for vCPUs among the CPUs that a VM was granted. */

#include "part/pin.h"

#include <errno.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/parse.h"

#define LIST_MAX 4096

/* The hardware threads of the CPU's core; where the kernel does not say: itself. */
static void siblings_of(const char *sys, int cpu, cpu_set_t *ret)
{
	CLEANUP_FREE char *path =
		io_format("%s/devices/system/cpu/cpu%d/topology/thread_siblings_list", sys, cpu);
	CLEANUP_FREE char *text = NULL;

	CPU_ZERO(ret);
	CPU_SET(cpu, ret);
	if (!path || io_read_file(path, LIST_MAX, &text, NULL) <= 0)
		return;
	text[strcspn(text, "\n")] = 0;
	parse_cpulist(text, ret, NULL);
}

/* The first of each core that is allowed. */
static void one_of_each_core(const struct pin_request *request, cpu_set_t *ret)
{
	cpu_set_t taken, siblings;

	CPU_ZERO(ret);
	CPU_ZERO(&taken);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, &request->allowed) || CPU_ISSET(cpu, &taken))
			continue;
		siblings_of(request->sys, cpu, &siblings);
		CPU_OR(&taken, &taken, &siblings);
		CPU_SET(cpu, ret);
	}
}

int pin_choose(const struct pin_request *request, cpu_set_t *ret, struct error *err)
{
	cpu_set_t places = request->allowed;
	unsigned n, at = 0, first;
	char list[256];

	if (request->cores)
		one_of_each_core(request, &places);
	n = (unsigned)CPU_COUNT(&places);
	if (n < request->vcpus)
		return error_set(err, -E2BIG,
				 "%u vCPUs are to be pinned to %s of their own, and there are %u "
				 "(CPUs %s)",
				 request->vcpus, request->cores ? "cores" : "hardware threads", n,
				 format_cpulist(&request->allowed, list, sizeof(list)));
	first = request->skip % n;
	CPU_ZERO(ret);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &places) && (at++ + n - first) % n < request->vcpus)
			CPU_SET(cpu, ret);
	return 0;
}
