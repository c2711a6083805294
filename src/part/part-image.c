/* SPDX-License-Identifier: Apache-2.0 */
/* The image of a cluster's VMs: it is here, or is fetched from the parts of other nodes. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "image/transfer.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/jsonline.h"
#include "node/tunnel.h"
#include "part/begin.h"
#include "part/work.h"

#define KEYS "/etc/wisp/keys.d"
#define SHA256 "@sha256:"
#define SAY_NS 1000000000ull

/* The digest in a reference; NULL: it has none. */
static const char *digest_in(const char *reference)
{
	const char *at = strstr(reference, SHA256);

	return at ? at + strlen(SHA256) : NULL;
}

/* Where there is none of that name and digest, one of the digest does as well. */
static bool may_be_called_otherwise(const char *reference, int code)
{
	return (code == -ENOENT || code == -EBADMSG) && digest_in(reference) &&
	       strncmp(reference, SHA256, strlen(SHA256));
}

int begin_admit(const struct part *p, const char *reference, struct image *ret, struct error *err)
{
	const struct image_demand demand = {.environment = p->setup.environment, .keys = KEYS};
	int r = image_admit(reference, &demand, ret, err);

	if (may_be_called_otherwise(reference, r) &&
	    !image_admit(strstr(reference, SHA256), &demand, ret, NULL))
		return 0;
	return r;
}

/* -------- in the child -------- */

struct telling {
	int talk;
	uint64_t last;
};

static void tell(void *arg, uint64_t done, uint64_t total)
{
	struct telling *t = arg;
	uint64_t now = io_now_ns();
	json_t *message;

	if (now - t->last < SAY_NS && done < total)
		return;
	t->last = now;
	message = json_pack("{s:I, s:I}", "done", (json_int_t)done, "total", (json_int_t)total);
	jsonline_write(t->talk, message);
	json_decref(message);
}

/* -EREMOTEIO: another node may do better. */
static int fetch_from(const struct part *p, const char *node, const char *digest, int talk,
		      json_t **ret, struct error *err)
{
	json_t *request = json_pack("{s:s, s:s, s:s}", "cluster", p->setup.cluster, "node", node,
				    "what", "image");
	struct telling telling = {.talk = talk};
	const struct image_wish wish = {.tell = tell, .arg = &telling};
	struct image_arrived got;
	CLEANUP_CLOSE int fd = -1;
	int r = tunnel_open(p->setup.socket, request, &fd, err);

	json_decref(request);
	if (r)
		return error_prefix(err, -EREMOTEIO, "node %s", node);
	r = image_fetch(fd, fd, digest, &wish, &got, err);
	if (r)
		return r == -EREMOTEIO ? error_prefix(err, r, "node %s", node) : r;
	*ret = json_pack("{s:s, s:s, s:I}", "from", node, "name", got.name, "bytes",
			 (json_int_t)got.brought);
	return 0;
}

static int fetch(const struct work *w, const char *digest, int talk, json_t **ret,
		 struct error *err)
{
	const json_t *nodes = json_object_get(w->request, "from"), *node;
	int r = -EREMOTEIO;
	size_t i;

	if (!w->part->setup.socket)
		return error_set(err, -EOPNOTSUPP, "this part knows no way to other nodes");
	json_array_foreach (nodes, i, node) {
		const char *text = json_string_value(node);

		if (!text)
			return error_set(err, -EINVAL, "\"from\" is not a list of nodes");
		r = fetch_from(w->part, text, digest, talk, ret, err);
		if (r != -EREMOTEIO)
			break;
	}
	return r;
}

static int have_image(int talk, void *arg, json_t **ret, struct error *err)
{
	const struct work *w = arg;
	const char *reference = json_string_value(json_object_get(w->request, "image"));
	const char *digest = reference ? digest_in(reference) : NULL;
	struct image image;
	int r;

	if (!digest)
		return error_set(err, -EINVAL, "\"image\" is not NAME" SHA256 "DIGEST");
	r = image_open(reference, &image, err);
	if (may_be_called_otherwise(reference, r) &&
	    !image_open(strstr(reference, SHA256), &image, NULL))
		r = 0;
	if (!r)
		image_close(&image);
	if (r != -ENOENT && r != -EBADMSG)
		return r;
	return json_array_size(json_object_get(w->request, "from"))
		       ? fetch(w, digest, talk, ret, err)
		       : -ENOENT;
}

/* -------- in the part -------- */

static void on_said(struct work *w, const char *vm, const json_t *message, int fd)
{
	json_t *event = json_pack("{s:s, s:s, s:O*, s:O*}", "event", "progress", "op", "image",
				  "done", json_object_get(message, "done"), "total",
				  json_object_get(message, "total"));

	cleanup_close_fd(&fd);
	part_event(w->part, event);
}

static void image_done(struct work *w)
{
	json_t *value = json_incref(json_object_get(w->values, ""));

	if (value) {
		json_decref(w->values);
		w->values = value;
	}
	work_end(w);
}

void part_image(struct part *p, json_int_t id, const json_t *request)
{
	struct work *w = work_create(p, id, request);

	if (!w)
		return;
	w->begins = true; /* VMs are about to; who stops them stops that, too */
	w->said = on_said;
	work_add(w, NULL, have_image, w);
	work_go(w, image_done);
}
