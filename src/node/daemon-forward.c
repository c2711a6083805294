/* SPDX-License-Identifier: Apache-2.0 */
/* Requests that the part of a cluster does: they go on to it, and its answers back. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "node/cluster.h"
#include "node/daemon-cluster.h"

struct forward {
	struct reply *reply;
	struct daemon *d;
	char cluster[CLAIM_NAME];
	json_t *request;
};

/* What an error says besides its reason, a new object; NULL: nothing. */
static json_t *more_of(const json_t *answer)
{
	static const char *const known[] = {"re", "done", "errno", "error", "value"};
	json_t *more = json_copy((json_t *)answer);

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		json_object_del(more, known[i]);
	return more;
}

static void on_forwarded(void *arg, int code, const char *reason, json_t *answer)
{
	struct forward *f = arg;
	struct cluster *c = cluster_known(f->d, f->cluster);
	json_t *value = code ? more_of(answer) : json_incref(json_object_get(answer, "value"));
	struct error err;

	if (!code && c)
		life_done(c, f->request, value);
	error_set(&err, code, "%s", reason);
	reply_send(f->reply, code, value, &err);
	json_decref(value);
	json_decref(f->request);
	free(f);
}

static bool is_one_of(const char *op, const char *const *ops)
{
	while (*ops && strcmp(op, *ops))
		ops++;
	return *ops;
}

/* VMs that are to have cores of their own do not start without. */
static int check_cores(struct cluster *c, const json_t *request, struct error *err)
{
	static const char *const starting[] = {"start", "restore", "receive", NULL};

	return is_one_of(json_string_value(json_object_get(request, "op")), starting)
		       ? group_make(c, err)
		       : 0;
}

/* What it runs was found to be right when it was reserved: that alone. */
static int check_image(struct daemon *d, const struct cluster *c, const json_t *request,
		       struct error *err)
{
	static const char *const takers[] = {"image", "start", "restore", "receive", NULL};
	const char *op = json_string_value(json_object_get(request, "op"));
	const json_t *image = json_object_get(request, "image");

	/* What goes on has its image. */
	if (!image && json_is_true(json_object_get(request, "again")) && !strcmp(op, "receive"))
		return 0;
	return is_one_of(op, takers)
		       ? cluster_check_image(d->store, c->id, json_string_value(image), err)
		       : 0;
}

/* Its answer, and its end, if it was refused (r is not 0). */
static void forward_refused(struct forward *f, int r, const struct error *err)
{
	if (!r)
		return;
	reply_send(f->reply, r, NULL, err);
	json_decref(f->request);
	free(f);
}

/* The cluster may have come to its end meanwhile. */
static void on_counted(void *arg, int code, const char *reason, json_t *answer)
{
	struct forward *f = arg;
	struct cluster *c = NULL;
	struct error err;
	int r = answer ? cluster_of_request(f->d, &f->reply->who, f->request, &c, &err)
		       : error_set(&err, code, "%s", reason);

	if (!r)
		r = part_ask(c, f->request, on_forwarded, f, &err);
	forward_refused(f, r, &err);
}

/* Counters end with their VMMs: whoever is to end these waits for them. */
static int pass_on(struct cluster *c, struct forward *f, struct error *err)
{
	const char *op = json_string_value(json_object_get(f->request, "op"));

	return strcmp(op, "stop") ? part_ask(c, f->request, on_forwarded, f, err)
				  : usage_ask(c, on_counted, f, err);
}

void daemon_forward(struct daemon *d, struct reply *reply, const json_t *request)
{
	struct forward *f = calloc(1, sizeof(*f));
	struct cluster *c = NULL;
	struct error err;
	int r;

	if (!f) {
		error_set(&err, -ENOMEM, "out of memory");
		reply_send(reply, -ENOMEM, NULL, &err);
		return;
	}
	*f = (struct forward){.reply = reply, .d = d, .request = json_incref((json_t *)request)};
	r = cluster_of_request(d, &reply->who, request, &c, &err);
	if (!r)
		r = check_image(d, c, request, &err);
	if (!r)
		r = check_cores(c, request, &err);
	if (!r) {
		snprintf(f->cluster, sizeof(f->cluster), "%s", c->id);
		r = pass_on(c, f, &err);
	}
	forward_refused(f, r, &err);
}
