/* SPDX-License-Identifier: Apache-2.0 */
/* The table of requests. */

#include <errno.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "node/daemon.h"
#include "node/lease.h"

typedef int request_fn(struct daemon *d, struct asker *who, const json_t *request, json_t **ret,
		       struct error *err);

#define BECAUSE_MAX 200

static int drain(struct daemon *d, struct asker *who, const json_t *request, json_t **ret,
		 struct error *err)
{
	const char *because = json_string_value(json_object_get(request, "because"));

	if (!because || !*because || strlen(because) > BECAUSE_MAX)
		return error_set(err, -EINVAL, "say why: \"because\", a text of 1 to %d bytes",
				 BECAUSE_MAX);
	return lease_drain(d->store, because, err);
}

static int undrain(struct daemon *d, struct asker *who, const json_t *request, json_t **ret,
		   struct error *err)
{
	return lease_drain(d->store, NULL, err);
}

static int metrics(struct daemon *d, struct asker *who, const json_t *request, json_t **ret,
		   struct error *err)
{
	CLEANUP_FREE char *text = NULL;
	int r = watch_metrics(d, &text, err);

	if (!r)
		*ret = json_pack("{s:s}", "text", text);
	return r;
}

static const struct request {
	const char *op;
	bool operators; /* only they */
	request_fn *fn;
} requests[] = {
	{"facts", false, daemon_facts},
	{"session", false, daemon_session},
	{"reserve", false, daemon_reserve},
	{"release", false, daemon_release},
	{"list", false, daemon_list},
	{"account", false, daemon_account},
	{"drain", true, drain},
	{"undrain", true, undrain},
	{"metrics", false, metrics},
};

int daemon_request(struct daemon *d, struct asker *who, const json_t *request, json_t **ret,
		   struct error *err)
{
	const char *op = json_string_value(json_object_get(request, "op"));

	*ret = NULL;
	for (size_t i = 0; op && i < ARRAY_SIZE(requests); i++) {
		if (strcmp(requests[i].op, op))
			continue;
		if (requests[i].operators && !who->operator)
			return error_set(err, -EPERM, "%s is for operators of the node alone", op);
		return requests[i].fn(d, who, request, ret, err);
	}
	return error_set(err, -ENOSYS, "there is no request \"%.64s\"", op ? op : "");
}
