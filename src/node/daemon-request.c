/* SPDX-License-Identifier: Apache-2.0 */
/* The table of requests. */

#include <errno.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "node/daemon-cluster.h"
#include "node/lease.h"

#define BECAUSE_MAX 200

static int drain(struct daemon *d, const struct asker *who, const json_t *request, json_t **ret,
		 struct error *err)
{
	const char *because = json_string_value(json_object_get(request, "because"));
	int r;

	if (!because || !*because || strlen(because) > BECAUSE_MAX)
		return error_set(err, -EINVAL, "say why: \"because\", a text of 1 to %d bytes",
				 BECAUSE_MAX);
	r = lease_drain(d->store, because, err);
	if (!r)
		clusters_tell(d, json_pack("{s:s, s:s}", "event", "drain", "because", because));
	return r;
}

static int undrain(struct daemon *d, const struct asker *who, const json_t *request, json_t **ret,
		   struct error *err)
{
	return lease_drain(d->store, NULL, err);
}

static int metrics(struct daemon *d, const struct asker *who, const json_t *request, json_t **ret,
		   struct error *err)
{
	CLEANUP_FREE char *text = NULL;
	int r = watch_metrics(d, who, &text, err);

	if (!r)
		*ret = json_pack("{s:s}", "text", text);
	return r;
}

/* clang-format off */
static const struct request {
	const char *op;
	bool operators; /* only they */
	request_now_fn *now;
	request_later_fn *later; /* one of both */
} requests[] = {
	{"facts", false, daemon_facts, NULL},
	{"session", false, NULL, daemon_session},
	{"reserve", false, daemon_reserve, NULL},
	{"network", false, NULL, daemon_network},
	{"image", false, NULL, daemon_forward},
	{"start", false, NULL, daemon_forward},
	{"restore", false, NULL, daemon_forward},
	{"pause", false, NULL, daemon_forward},
	{"resume", false, NULL, daemon_forward},
	{"save", false, NULL, daemon_forward},
	{"tcp", false, NULL, daemon_forward},
	{"send", false, NULL, daemon_forward},
	{"receive", false, NULL, daemon_forward},
	{"stop", false, NULL, daemon_forward},
	{"release", false, NULL, daemon_release},
	{"vms", false, daemon_vms, NULL},
	{"list", false, daemon_list, NULL},
	{"account", false, daemon_account, NULL},
	{"drain", true, drain, NULL},
	{"undrain", true, undrain, NULL},
	{"metrics", false, metrics, NULL},
	{"connect", false, NULL, daemon_connect},
};
/* clang-format on */

static const char *op_of(const json_t *request)
{
	const char *op = json_string_value(json_object_get(request, "op"));

	return op ? op : "";
}

static const struct request *find(const struct asker *who, const char *op, int *code,
				  struct error *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
		if (strcmp(requests[i].op, op))
			continue;
		if (!requests[i].operators || who->operator)
			return &requests[i];
		*code = error_set(err, -EPERM, "%s is for operators of the node alone", op);
		return NULL;
	}
	*code = error_set(err, -ENOSYS, "there is no request \"%.64s\"", op);
	return NULL;
}

void request_do(struct daemon *d, struct reply *reply, const json_t *request)
{
	struct error err = {""};
	json_t *value = NULL;
	int code = 0;
	const struct request *r = find(&reply->who, op_of(request), &code, &err);

	if (r && r->later) {
		r->later(d, reply, request);
		return;
	}
	if (r)
		code = r->now(d, &reply->who, request, &value, &err);
	reply_send(reply, code, value, &err);
	json_decref(value);
}

/* Root of another node asks for a user there; whose own daemon this is asks for nobody else. */
static int take_user(struct reply *reply, const json_t *request, struct error *err)
{
	const json_t *as = json_object_get(request, "as");

	if (!as)
		return 0;
	if (!json_is_integer(as) || json_integer_value(as) < 0 ||
	    json_integer_value(as) >= UINT32_MAX)
		return error_set(err, -EINVAL, "\"as\" has to be a user's number");
	if (strcmp(op_of(request), "connect"))
		return error_set(err, -EINVAL,
				 "only connect is done \"as\" another user; the "
				 "others are asked for in a tree");
	return user_may_be(&reply->who, (uid_t)json_integer_value(as), err);
}

void daemon_request(struct daemon *d, struct reply *reply, const json_t *request)
{
	struct error err;
	int r = take_user(reply, request, &err);

	if (r)
		reply_send(reply, r, NULL, &err);
	else
		who_then_do(d, reply, request, !strcmp(op_of(request), "reserve"));
}
