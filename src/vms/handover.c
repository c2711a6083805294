/* SPDX-License-Identifier: Apache-2.0 */
/* Hand-overs that were cut off. */

#include "vms/handover.h"

#include <errno.h>
#include <string.h>

#include "lib/error.h"
#include "vms/record.h"

/* A record that cannot be read may say anything. */
static enum hand_over look_received(const char *dir)
{
	enum hand_over ret = HAND_OVER_UNDECIDED;
	json_t *record = NULL;
	const char *state;

	if (record_read(dir, RECORD_RECEIVE, &record, NULL))
		return ret;
	state = record_text(record, "state");
	if (!strcmp(state, "aborted"))
		ret = HAND_OVER_NONE;
	else if (!strcmp(state, "running"))
		ret = HAND_OVER_UNTOLD;
	json_decref(record);
	return ret;
}

enum hand_over hand_over_look(const char *dir)
{
	if (record_exists(dir, RECORD_SEND))
		return HAND_OVER_UNDECIDED;
	return record_exists(dir, RECORD_RECEIVE) ? look_received(dir) : HAND_OVER_NONE;
}

int hand_over_check(const char *name, const char *dir, enum hand_over least, const char *instead,
		    struct error *err)
{
	enum hand_over is = hand_over_look(dir);

	if (is == HAND_OVER_NONE || is < least)
		return 0;
	if (record_exists(dir, RECORD_SEND))
		return error_set(
			err, -EBUSY,
			"%s is being handed over to another place and may run there: go on "
			"with wisp vm migrate %s ADDRESS --token FILE --again, or %s",
			name, name, instead);
	return error_set(err, -EBUSY,
			 "%s %s: go on with wisp vm receive --again %s --listen ADDRESS, or %s",
			 name,
			 is == HAND_OVER_UNTOLD
				 ? "has come here, and the place it comes from may not know"
				 : "is being handed over to here and may run where it comes from",
			 name, instead);
}
