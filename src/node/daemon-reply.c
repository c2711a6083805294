/* SPDX-License-Identifier: Apache-2.0 */
/* Answers that are due, which outlive who asked. */

#include <errno.h>
#include <stdlib.h>

#include "lib/error.h"
#include "node/daemon.h"

/* Whether the asker may have one more of that id. */
static int check(const struct daemon *d, const struct reply *model, struct error *err)
{
	unsigned n = 0;

	for (const struct reply *r = d->replies; r; r = r->next) {
		if (r->asker != model->asker)
			continue;
		if (r->id == model->id && r->to == model->to)
			return error_set(err, -EPROTO, "a request with the id of another");
		n++;
	}
	if (n >= REPLIES_MAX)
		return error_set(err, -EBUSY, "more than %u requests at once", REPLIES_MAX);
	return 0;
}

int reply_create(struct daemon *d, const struct reply *model, struct reply **ret, struct error *err)
{
	int r = check(d, model, err);
	struct reply *reply = r ? NULL : malloc(sizeof(*reply));

	if (r)
		return r;
	if (!reply)
		return error_set(err, -ENOMEM, "out of memory");
	*reply = *model;
	reply->d = d;
	reply->who = *model->asker;
	reply->who.facts = NULL;
	reply->next = d->replies;
	d->replies = reply;
	*ret = reply;
	return 0;
}

void reply_send(struct reply *reply, int code, json_t *value, const struct error *err)
{
	struct reply **at = &reply->d->replies;

	while (*at != reply)
		at = &(*at)->next;
	*at = reply->next;
	reply->fn(reply, code, code ? err->text : "", value);
	json_decref(reply->who.facts);
	free(reply);
}

void replies_forget(struct daemon *d, const struct asker *asker)
{
	for (struct reply *r = d->replies; r; r = r->next)
		if (r->asker == asker) {
			r->asker = NULL;
			r->conn = NULL;
		}
}
