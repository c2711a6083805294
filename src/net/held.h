/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_NET_HELD_H
#define WISP_NET_HELD_H

/*
 * Taps that a keeper cannot open and was given: each stays open for the next start of its machine,
 * and gets frames only while one has it. Zero to begin with.
 */

#include <stdbool.h>

struct error;
struct held_tap;

struct held {
	struct held_tap *first;
};

/*
 * Takes the descriptor of a macvtap (net/lan.h), also when it fails. One whose name is there is
 * closed. 0 or -errno.
 */
int held_add(struct held *held, const char *name, int fd, struct error *err);

/* A copy for a machine that starts, the caller's; -ENOENT: none of that name. */
int held_open(const struct held *held, const char *name, int *ret);

/* The machine is not here any more, or only stands still for ever. Fine for other names. */
void held_rest(const struct held *held, const char *name);

void held_done(struct held *held);

#endif
