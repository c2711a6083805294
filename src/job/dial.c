/* SPDX-License-Identifier: Apache-2.0 */
/* Connecting and greeting. */

#include "job/dial.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "channel/conn.h"
#include "channel/greet.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/loop.h"

struct dial {
	struct loop *loop;
	int fd;
	struct greet *greet;
	const struct conn_ops *ops;
	void *ops_arg;
	dial_fn *fn;
	void *arg;
};

static void on_greeted(void *arg, int code, const char *reason, const struct greet_peer *peer)
{
	struct dial dial = *(struct dial *)arg;
	struct conn_params params = {.loop = dial.loop,
				     .in = dial.fd,
				     .out = dial.fd,
				     .ops = dial.ops,
				     .arg = dial.ops_arg};
	struct conn *conn = NULL;
	struct error err;

	free(arg);
	if (!code) {
		code = conn_create(&params, &conn, &err);
		reason = err.text;
	}
	if (code)
		close(dial.fd);
	dial.fn(dial.arg, code, code ? reason : NULL, conn);
}

static int begin(struct dial *dial, const char *socket, struct error *err)
{
	struct greet_params params = {.loop = dial->loop, .way = GREET_LOCAL, .self = "program"};

	dial->fd = io_unix_connect_nonblock(socket, err);
	if (dial->fd < 0)
		return dial->fd;
	params.in = params.out = dial->fd;
	return greet_start(&params, on_greeted, dial, &dial->greet, err);
}

int dial_start(struct loop *loop, const char *socket, const struct conn_ops *ops, void *ops_arg,
	       dial_fn *fn, void *arg, struct dial **ret, struct error *err)
{
	struct dial *dial = calloc(1, sizeof(*dial));
	int r;

	if (!dial)
		return error_set(err, -ENOMEM, "out of memory");
	*dial = (struct dial){
		.loop = loop, .fd = -1, .ops = ops, .ops_arg = ops_arg, .fn = fn, .arg = arg};
	r = begin(dial, socket, err);
	if (r)
		dial_cancel(dial);
	else
		*ret = dial;
	return r;
}

void dial_cancel(struct dial *dial)
{
	if (!dial)
		return;
	greet_cancel(dial->greet);
	if (dial->fd >= 0)
		close(dial->fd);
	free(dial);
}
