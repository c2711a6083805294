/* SPDX-License-Identifier: Apache-2.0 */
/* Hand-overs that were cut off. */

#include "vms/handover.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "lib/error.h"
#include "vms/record.h"

/* What the record of one side says. One that cannot be read may say anything. */
static enum hand_over look_at(const char *dir, const char *file, enum hand_over unknown)
{
	enum hand_over ret = unknown;
	json_t *record = NULL;
	const char *state;
	bool told;

	if (!record_exists(dir, file))
		return HAND_OVER_NONE;
	if (record_read(dir, file, &record, NULL))
		return unknown;
	state = record_text(record, "state");
	told = json_is_true(json_object_get(record, "told"));
	if (unknown == HAND_OVER_SENDING)
		ret = strcmp(state, "back") ? unknown : HAND_OVER_STAYED;
	else if (!strcmp(state, "aborted"))
		ret = told ? HAND_OVER_NONE : HAND_OVER_GIVEN_UP;
	else if (!strcmp(state, "running"))
		ret = HAND_OVER_CAME;
	json_decref(record);
	return ret;
}

enum hand_over hand_over_look(const char *dir)
{
	enum hand_over sent = look_at(dir, RECORD_SEND, HAND_OVER_SENDING);
	enum hand_over received = look_at(dir, RECORD_RECEIVE, HAND_OVER_RECEIVING);

	return sent > received ? sent : received;
}

int hand_over_check(const char *name, const char *dir, enum hand_over least, const char *instead,
		    struct error *err)
{
	static const char *const texts[] = {
		[HAND_OVER_STAYED] =
			"has stayed here, and the place where it was to go may not know",
		[HAND_OVER_CAME] = "has come here, and the place it comes from may not know",
		[HAND_OVER_GIVEN_UP] =
			"will not run here, and the place it comes from may not know",
		[HAND_OVER_RECEIVING] =
			"is being handed over to here and may run where it comes from",
		[HAND_OVER_SENDING] = "is being handed over to another place and may run there",
	};
	enum hand_over is = hand_over_look(dir);

	if (is == HAND_OVER_NONE || is < least)
		return 0;
	/* Nothing hangs on it: a VM that runs is not ended for that. */
	if (is == HAND_OVER_STAYED)
		instead =
			"leave it: it is forgotten with the VM, or when that is handed over again";
	if (is == HAND_OVER_STAYED || is == HAND_OVER_SENDING)
		return error_set(err, -EBUSY,
				 "%s %s: go on with wisp vm migrate %s ADDRESS --token FILE "
				 "--again, or %s",
				 name, texts[is], name, instead);
	return error_set(err, -EBUSY,
			 "%s %s: go on with wisp vm receive --again %s --listen ADDRESS, or %s",
			 name, texts[is], name, instead);
}
