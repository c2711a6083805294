/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_JOB_TUBES_H
#define WISP_JOB_TUBES_H

/*
 * Byte streams to what is in VMs of the cluster (`connect` of docs/formats/node.md), wherever they
 * are: one connection to this node's daemon, made when it is needed. For the thread of the loop.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;
struct loop;
struct tube;
struct tubes;

struct tubes_params {
	struct loop *loop;
	const char *socket;  /* of this node's daemon */
	const char *session; /* the secret of the cluster */
	const char *cluster; /* its ID */
};

struct tube_ops {
	/* Bytes have come. They are used up by the call. */
	void (*data)(void *arg, const uint8_t *data, size_t n);
	/* There is room for more (tube_write()). */
	void (*room)(void *arg);
	/*
	 * Nothing more comes: code 0 when the other side has ended it, else -errno, also when it
	 * could not be opened. The tube has gone then. Not out of a call.
	 */
	void (*closed)(void *arg, int code, const char *reason);
};

/* What params points to outlives it. */
int tubes_create(const struct tubes_params *params, struct tubes **ret, struct error *err);
/* No tube tells anything any more. Accepts NULL. */
void tubes_destroy(struct tubes *tubes);

/* what: "agent" or another of `connect`. Data may be written at once. 0 or -ENOMEM. */
int tube_open(struct tubes *tubes, const char *node, const char *vm, const char *what,
	      const struct tube_ops *ops, void *arg, struct tube **ret);

/* Takes all, or nothing: -EAGAIN until there is room. */
int tube_write(struct tube *tube, const void *data, size_t n);

/* Whether the other side is to wait with more data than is under way. */
void tube_hold(struct tube *tube, bool hold);

/* What came makes no sense, say: it ends, and closed() comes with this. */
void tube_fail(struct tube *tube, int code, const char *reason);

/* Nobody wants it any more; nothing is told. Accepts NULL. */
void tube_close(struct tube *tube);

#endif
