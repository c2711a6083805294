/* SPDX-License-Identifier: Apache-2.0 */
/* A claim as a peer sends it; what is taken can be placed or refused. */

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "node/claim.h"
#include "node/place.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void place_it(const struct claim *claim)
{
	struct topo_node node = {.memory = 1 << 30};
	struct topo_core cores[4] = {
		{.ncpus = 2, .cpus = {0, 4}}, {.ncpus = 1, .cpus = {1}}, {.ncpus = 1, .cpus = {2}}};
	struct topo_device device = {.address = "0000:00:01.0", .driver = "vfio-pci", .group = -1};
	unsigned distance = 10;
	struct topology t = {.nodes = &node,
			     .cores = cores,
			     .devices = &device,
			     .nnodes = 1,
			     .ncores = 3,
			     .ndevices = 1,
			     .distance = &distance};
	struct placement *p = NULL;
	struct place_free f;
	unsigned owned = 0;

	if (place_free_init(&f, &t))
		return;
	f.cores[0] = f.cores[1] = f.cores[2] = true;
	f.devices[0] = PLACE_FREE;
	f.pages[0][0] = 1 << 18;
	if (!place(&f, claim, &p))
		for (unsigned i = 0; i < claim->nvms; i++)
			for (unsigned k = 0; k < 3; k++)
				owned += p->vms[i].cores[k];
	if (owned > 3)
		abort();
	placement_destroy(p);
	place_free_done(&f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	json_t *json = json_loadb((const char *)data, size, 0, NULL);
	struct claim *claim = NULL;

	if (json && !claim_parse(json, 1, &claim, NULL))
		place_it(claim);
	claim_destroy(claim);
	json_decref(json);
	return 0;
}
