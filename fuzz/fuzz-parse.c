/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text for every parser of values that people type. What is accepted means the same when it is
 * written out and read again; what is refused leaves the output alone.
 */

#include <stdlib.h>
#include <string.h>

#include "lib/error.h"
#include "lib/log.h"
#include "lib/parse.h"
#include "vmm/device.h"
#include "vmm/x86/topology.h"

#define UNTOUCHED 0x5aa55aa55aa55aa5

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
	if (!ok)
		abort();
}

static void numbers(const char *text)
{
	uint64_t v = UNTOUCHED, again;
	unsigned u;
	struct error err;
	char buf[32];
	bool b;

	if (parse_u64(text, "x", 10, 1000, &v, &err))
		require(v == UNTOUCHED);
	else
		require(v >= 10 && v <= 1000);
	parse_uint(text, "x", 0, 100, &u, &err);
	parse_bool(text, "x", &b, &err);
	log_level_parse(text, &err);
	if (!parse_size(text, 1 << 20, &v, &err))
		require(!parse_size(format_size(v, buf, sizeof(buf)), 0, &again, &err) &&
			again == v);
}

static void lists(const char *text)
{
	cpu_set_t set, again;
	struct topology t;
	struct error err;
	char buf[8192];

	if (!parse_cpulist(text, &set, &err)) {
		require(CPU_COUNT(&set));
		require(!parse_cpulist(format_cpulist(&set, buf, sizeof(buf)), &again, &err));
		require(CPU_EQUAL(&set, &again));
	}
	if (!topology_parse(text, &t, &err))
		require(topology_vcpus(&t) && topology_vcpus(&t) <= TOPOLOGY_VCPUS_MAX);
}

static void addresses(const char *text)
{
	struct pci_address pci;
	struct error err;
	uint8_t mac[6];

	if (!parse_pci_address(text, &pci, &err))
		require(pci.device < 32 && pci.function < 8);
	if (!parse_mac(text, mac, &err))
		require(!(mac[0] & 1) && strlen(text) == 17);
}

static void devices(const char *text)
{
	struct device_config cfg;
	struct error err;

	if (device_config_parse(text, &cfg, &err))
		return;
	for (const struct device_key *k = cfg.desc->keys; k->name; k++)
		require(!k->required || device_config_get(&cfg, k->name));
	free(cfg.text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = 0;
	numbers(text);
	lists(text);
	addresses(text);
	devices(text);
	free(text);
	return 0;
}
