/* SPDX-License-Identifier: Apache-2.0 */
/* What is left of a job's walltime. */

#include "job/walltime.h"

#include <errno.h>

#include "lib/error.h"

#define LEAST_MS 1000 /* as the shortest walltime */

int walltime_left(const json_t *environment, uint64_t used_ms, uint64_t *ret, struct error *err)
{
	json_int_t all = json_integer_value(json_object_get(environment, "walltime"));

	if (all <= 0) {
		*ret = UINT64_MAX;
		return 0;
	}
	if (used_ms + LEAST_MS > (uint64_t)all)
		return error_set(err, -ETIME,
				 "nothing is left of the job's walltime of %.0f s, which a restart "
				 "does not begin anew: go on from an earlier checkpoint (--at), or "
				 "run it from its beginning with a longer walltime",
				 (double)all / 1e3);
	*ret = (uint64_t)all - used_ms;
	return 0;
}
