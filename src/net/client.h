/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_NET_CLIENT_H
#define WISP_NET_CLIENT_H

/*
 * The other side of a keeper's control socket (net/keeper.h). dir is its state directory. Requests
 * that the hooks answer are sent with message_call() on the descriptor of net_connect().
 */

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct error;

/* Connects. The caller owns the descriptor; -ENOENT or -ECONNREFUSED: no keeper there. */
int net_connect(const char *dir, struct error *err);

/* A new tap on the network's bridge: 0 and its descriptor (see link_add_tap()). */
int net_tap(int control, const char *name, int *ret, struct error *err);

/* Gives it an open macvtap (net/lan.h), which stays the caller's too. name: of n bytes. */
int net_give_tap(int control, const char *name, size_t n, int tap, struct error *err);

/*
 * A TCP connection into the network. Waits at most timeout_ms for it. 0 and the connected
 * blocking socket, which fails with -ETIMEDOUT when its peer has been silent for a minute, or
 * -errno (-ECONNREFUSED, -EHOSTUNREACH, -ETIMEDOUT: not there yet).
 */
int net_connect_tcp(int control, const char *address, uint16_t port, int timeout_ms, int *ret,
		    struct error *err);

/*
 * Stops the keeper, waits until it and all it had started are gone, and sweeps its directory.
 * Returns 1 when something ran or was swept, 0 when there was nothing, or -errno.
 */
int net_stop(const char *dir, struct error *err);

/* Runs a program inside the network (it dies with it). Returns its exit code, or -errno. */
int net_run(int control, char *const *argv, struct error *err);

#endif
