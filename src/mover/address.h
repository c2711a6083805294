/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_ADDRESS_H
#define WISP_MOVER_ADDRESS_H

/* Sockets between movers, by the text of their address. Any thread. */

#include <stdbool.h>

struct error;

/*
 * "unix:PATH" or "tcp:HOST:PORT"; to listen also "tcp:fd=N", an inherited socket that listens.
 * Return a descriptor (CLOEXEC) or -errno. Neither a host nor who knows its address need answer:
 * both have timeout_ms, and a cancel (as in struct channel) ends it with -ECANCELED.
 */
int address_connect(const char *address, unsigned timeout_ms, const _Atomic bool *const cancel[2],
		    struct error *err);
int address_listen(const char *address, struct error *err);

/*
 * The next connection on a listening descriptor; timeout_ms 0: for ever. Returns it, or as
 * channel_receive().
 */
int address_accept(int fd, unsigned timeout_ms, const _Atomic bool *const cancel[2],
		   struct error *err);

/* The other end of a connected descriptor, for people. */
#define ADDRESS_TEXT 80
void address_peer(int fd, char ret[ADDRESS_TEXT]);

#endif
