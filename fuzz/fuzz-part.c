/* SPDX-License-Identifier: Apache-2.0 */
/* What a part is set up with, and the descriptions of VMs that come out of it. */

#include <stdlib.h>

#include "input.h"
#include "lib/error.h"
#include "lib/parse.h"
#include "part/setup.h"
#include "part/spec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char name[] = "mpi", file[] = "/i/file";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct image image = {.name = name, .vmlinux = file, .initrd = file, .root = file};
	json_t *json = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, NULL);
	struct spec_host host = {.sys = "/nowhere", .volumes = "/nowhere"};
	struct setup setup;
	struct error err;

	parse_cpulist("0-63", &host.cpus, NULL);
	if (json && !setup_parse(json, &setup, &err)) {
		for (size_t i = 0; i < setup.nvms; i++) {
			json_t *spec = NULL;
			int r = spec_derive(&setup, &setup.vms[i], &image, &host, &spec, &err);

			if ((r == 0) != (spec != NULL))
				abort();
			json_decref(spec);
		}
		setup_done(&setup);
	}
	json_decref(json);
	return 0;
}
