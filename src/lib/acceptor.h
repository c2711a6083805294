/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_LIB_ACCEPTOR_H
#define WISP_LIB_ACCEPTOR_H

/*
 * Takes the connections of a listening socket in an event loop. When descriptors or memory have
 * run out it tries again every second, instead of being woken for ever. All functions belong to
 * the thread of the loop, as loop.h says.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

struct acceptor;
struct error;
struct log;
struct loop;

struct acceptor_ops {
	/* A connection (CLOEXEC) of that peer; takes the fd. May destroy the acceptor. */
	void (*connection)(void *arg, int fd, const struct sockaddr_storage *peer);
	/*
	 * accept(2) failed for a reason that is not about one connection: the socket may be dead
	 * for good. May destroy the acceptor. NULL: nothing is done.
	 */
	void (*broken)(void *arg, int code);
};

/*
 * fd: a socket that listens, which is the acceptor's from then on, unless this fails; flags:
 * SOCK_NONBLOCK or 0, of the connections. log may be NULL; subsystem is a literal. Log, ops and arg
 * stay the caller's.
 */
int acceptor_create(struct loop *loop, const struct log *log, const char *subsystem, int fd,
		    int flags, const struct acceptor_ops *ops, void *arg, struct acceptor **ret,
		    struct error *err);

/* Takes none for now; who connects waits. Or takes them again. */
void acceptor_pause(struct acceptor *acceptor, bool pause);

/* Stops listening: closes the socket. Accepts NULL. */
void acceptor_destroy(struct acceptor *acceptor);

#endif
