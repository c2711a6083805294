/* SPDX-License-Identifier: Apache-2.0 */
/* Streams to what a VM has, its agent and its console, and to images of the user's here. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "image/transfer.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/jsonline.h"
#include "part/part.h"
#include "part/pump.h"
#include "vms/control.h"

#define PATIENCE_MS 10000 /* for an image that is about to come here */

struct connecting {
	struct part *part;
	json_int_t id;
	uint32_t stream;
	const char *vm; /* of the setup; NULL: an image is wanted */
	bool console, connected;
};

/* In the child: connects, and hands the descriptor over. */
static int connect_there(int talk, void *arg, json_t **ret, struct error *err)
{
	const struct connecting *c = arg;
	CLEANUP_FREE char *dir = NULL;
	int fd = vms_dir(c->vm, &dir, err);
	json_t *message;

	if (!fd)
		fd = c->console ? control_console(dir, err) : vms_agent(c->vm, err);
	if (fd < 0)
		return fd;
	message = json_object();
	return message ? jsonline_write_fd(talk, message, fd) : -ENOMEM;
}

/* In the child: gives images away, as long as the other end is there. */
static int serve_images(int talk, void *arg, json_t **ret, struct error *err)
{
	json_t *message = json_object();
	int pair[2], r;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return error_errno(err, -errno, "cannot make a connection");
	r = message ? jsonline_write_fd(talk, message, pair[1]) : -ENOMEM;
	close(pair[1]);
	return r ? r : image_serve(pair[0], pair[0], PATIENCE_MS, NULL, err);
}

static void on_said(void *arg, const json_t *message, int fd)
{
	struct connecting *c = arg;

	if (c->connected || fd < 0) {
		cleanup_close_fd(&fd);
		return;
	}
	c->connected = true;
	part_answer(c->part, c->id, NULL);
	pump_connect(c->part->pumps, c->stream, fd);
}

static void on_done(void *arg, const struct errand_end *end)
{
	struct connecting *c = arg;

	if (!c->connected) {
		part_refuse(c->part, c->id, end->code ? end->code : -EPIPE, end->reason, NULL);
		pump_close(c->part->pumps, c->stream);
	}
	free(c);
}

/* Both ends open the stream that the request names, also when it is refused. */
static int open_stream(struct part *p, const json_t *request, uint32_t *ret, struct error *err)
{
	json_int_t stream = json_integer_value(json_object_get(request, "stream"));
	int r;

	if (stream < 1 || stream > UINT32_MAX)
		return error_set(err, -EINVAL, "\"stream\" is not the number of a stream");
	r = pump_open(p->pumps, (uint32_t)stream, err);
	if (!r)
		*ret = (uint32_t)stream;
	return r;
}

static int parse(const struct part *p, const json_t *request, struct connecting *c,
		 struct error *err)
{
	const char *name = json_string_value(json_object_get(request, "vm"));
	const char *what = json_string_value(json_object_get(request, "what"));
	const struct setup_vm *vm = name ? setup_find(&p->setup, name) : NULL;

	if (what && !strcmp(what, "image"))
		return 0;
	if (!vm)
		return error_set(err, -ENOENT, "cluster %s has no VM %s on this node",
				 p->setup.cluster, name ? name : "without a name");
	if (!what || (strcmp(what, "agent") && strcmp(what, "console")))
		return error_set(err, -EINVAL, "\"what\" is agent, console or image, not \"%s\"",
				 what ? what : "");
	c->vm = vm->name;
	c->console = !strcmp(what, "console");
	return 0;
}

void part_connect(struct part *p, json_int_t id, const json_t *request)
{
	static const struct errand_ops ops = {on_said, on_done};
	struct connecting *c = calloc(1, sizeof(*c));
	struct error err = {"out of memory"};
	uint32_t stream = 0;
	int r = c ? open_stream(p, request, &stream, &err) : -ENOMEM;

	if (!r) {
		*c = (struct connecting){.part = p, .id = id, .stream = stream};
		r = parse(p, request, c, &err);
	}
	if (!r)
		r = errand_start(p->errands, &ops, c, c->vm ? connect_there : serve_images, c, NULL,
				 &err);
	if (!r)
		return;
	part_refuse(p, id, r, err.text, NULL);
	pump_close(p->pumps, stream);
	free(c);
}
