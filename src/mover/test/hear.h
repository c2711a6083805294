/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_TEST_HEAR_H
#define WISP_MOVER_TEST_HEAR_H

/* A target that hears one peer, for tests. */

#include <errno.h>
#include <poll.h>

#include "lib/error.h"
#include "lib/io.h"
#include "mover/migrate-hello.h"

/* Within ch->timeout_ms; the descriptor stays ch's. */
static inline int hear_one(struct channel *ch, const struct secret *secret, struct hello *ret,
			   struct error *err)
{
	uint64_t end = io_now_ns() + ch->timeout_ms * 1000000ull;
	struct hearing h;
	int rc;

	hearing_init(&h, ch->fd, secret);
	while ((rc = hearing_step(&h, err)) == -EAGAIN) {
		struct pollfd p = {.fd = ch->fd, .events = h.wait};

		poll(&p, 1, 10);
		if (io_now_ns() >= end) {
			rc = error_set(err, -ETIMEDOUT, "too late");
			break;
		}
	}
	h.ch.timeout_ms = ch->timeout_ms;
	*ch = h.ch;
	*ret = h.hello;
	return rc;
}

#endif
