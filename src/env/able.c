/* SPDX-License-Identifier: Apache-2.0 */
/* What an environment may say and this Wisp cannot do: here alone, for all who refuse it. */

#include "env/able.h"

#include <errno.h>
#include <string.h>

#include "lib/error.h"

int env_able(const json_t *environment, struct error *err)
{
	const json_t *network = json_object_get(environment, "network");
	const char *kind = json_string_value(json_object_get(network, "kind"));

	if (kind && strcmp(kind, "private") != 0)
		return error_set(err, -EOPNOTSUPP,
				 "network.kind: %s: this Wisp has private networks alone (which "
				 "lead out with network.isolated: no)",
				 kind);
	if (json_array_size(json_object_get(environment, "devices")))
		return error_set(err, -EOPNOTSUPP,
				 "devices: this Wisp's hypervisor cannot give devices of the node "
				 "to VMs (it has no VFIO); leave the field out");
	return 0;
}
