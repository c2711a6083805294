/* SPDX-License-Identifier: Apache-2.0 */
/* What an environment may say and this Wisp cannot do: here alone, for all who refuse it. */

#include "env/able.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "lib/error.h"

int env_able(const json_t *environment, struct error *err)
{
	const json_t *network = json_object_get(environment, "network");
	const json_t *checkpoint = json_object_get(environment, "checkpoint");
	const char *kind = json_string_value(json_object_get(network, "kind"));
	bool macvtap = kind && !strcmp(kind, "macvtap");

	if (macvtap && json_is_false(json_object_get(network, "isolated")))
		return error_set(err, -EOPNOTSUPP,
				 "network.isolated: no is a way out of private networks; one of "
				 "kind macvtap is the nodes' own, so leave it out");
	if (json_array_size(json_object_get(environment, "devices")) &&
	    json_integer_value(json_object_get(checkpoint, "interval")))
		return error_set(err, -EOPNOTSUPP,
				 "checkpoint.interval: a VM that has devices of its node (devices) "
				 "cannot be saved; leave out one of them");
	return 0;
}
