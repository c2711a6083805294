/* SPDX-License-Identifier: Apache-2.0 */
/* CPU topology of the guest and its APIC ids. */

#include "vmm/x86/topology.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/parse.h"

/* Parses "NAME=N" into the member that NAME chooses. */
static int parse_level(struct topology *t, const char *item, struct error *err)
{
	const struct {
		const char *name;
		unsigned *value;
	} levels[] = {{"sockets", &t->sockets}, {"cores", &t->cores}, {"threads", &t->threads}};
	const char *equals = strchr(item, '=');

	for (unsigned i = 0; equals && i < ARRAY_SIZE(levels); i++)
		if (strlen(levels[i].name) == (size_t)(equals - item) &&
		    !strncmp(item, levels[i].name, (size_t)(equals - item)))
			return parse_uint(equals + 1, levels[i].name, 1, TOPOLOGY_VCPUS_MAX,
					  levels[i].value, err);
	return error_set(err, -EINVAL,
			 "CPU topology \"%s\" is not a number and not like "
			 "sockets=2,cores=4,threads=2",
			 item);
}

int topology_parse(const char *text, struct topology *ret, struct error *err)
{
	struct topology t = {.sockets = 1, .cores = 1, .threads = 1};
	char copy[128], *save = NULL;
	int r = 0;

	if (!strchr(text, '=')) {
		r = parse_uint(text, "number of vCPUs", 1, TOPOLOGY_VCPUS_MAX, &t.cores, err);
	} else {
		if (snprintf(copy, sizeof(copy), "%s", text) >= (int)sizeof(copy))
			return error_set(err, -EINVAL, "CPU topology \"%.40s...\" is too long",
					 text);
		for (char *item = strtok_r(copy, ",", &save); item && !r;
		     item = strtok_r(NULL, ",", &save))
			r = parse_level(&t, item, err);
	}
	if (!r && topology_vcpus(&t) > TOPOLOGY_VCPUS_MAX)
		r = error_set(err, -ERANGE,
			      "%u sockets x %u cores x %u threads are more than %d vCPUs",
			      t.sockets, t.cores, t.threads, TOPOLOGY_VCPUS_MAX);
	if (!r)
		*ret = t;
	return r;
}

/* Bits that hold the numbers 0 to count-1. */
static unsigned bits_for(unsigned count)
{
	return count > 1 ? 32 - (unsigned)__builtin_clz(count - 1) : 0;
}

unsigned topology_thread_bits(const struct topology *t)
{
	return bits_for(t->threads);
}

unsigned topology_package_shift(const struct topology *t)
{
	return bits_for(t->threads) + bits_for(t->cores);
}

uint32_t topology_apic_id(const struct topology *t, unsigned index)
{
	unsigned thread = index % t->threads;
	unsigned core = index / t->threads % t->cores;
	unsigned socket = index / t->threads / t->cores;

	return socket << topology_package_shift(t) | core << topology_thread_bits(t) | thread;
}
