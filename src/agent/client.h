/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_AGENT_CLIENT_H
#define WISP_AGENT_CLIENT_H

/*
 * The host's side of the agent protocol. Each function that takes an fd is one session:
 * give it a fresh connection and close that afterwards. Blocking. Any thread, but
 * client_exec() handles signals: one at a time in a process.
 */

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "agent/copy.h"

struct error;

/*
 * Through the UNIX socket of a VM's vsock: "CONNECT port". An fd (CLOEXEC) or -errno;
 * -ECONNREFUSED and -ECONNRESET while the guest does not listen yet.
 */
int client_connect_vsock_unix(const char *path, unsigned port, struct error *err);

/* "unix:PATH", "tcp:ADDRESS:PORT" or "vsock:PATH[:PORT]", PATH being a VM's vsock UNIX socket. */
int client_connect(const char *address, struct error *err);

/*
 * Tries until an agent answers ping at the address of client_connect(). -ETIMEDOUT with the
 * last reason. stop, when not NULL, is asked between tries; its negative value ends the wait.
 */
int client_wait_ready(const char *address, unsigned timeout_ms, int (*stop)(void *arg), void *arg,
		      struct error *err);

/*
 * Reads a line of at most size - 1 bytes, without its end, and nothing behind it: what comes
 * then is the session. -EMSGSIZE, -EPIPE, -ETIMEDOUT (by SO_RCVTIMEO).
 */
int client_read_line(int fd, char *line, size_t size);

/*
 * Sends one request and returns its result, which the caller releases. Does not take request.
 * -ETIMEDOUT when the whole call takes longer: an agent that is stopped never answers.
 */
int client_call(int fd, const json_t *request, unsigned timeout_ms, json_t **ret,
		struct error *err);

/* These two wait 10 s at most. */
int client_facts(int fd, json_t **ret, struct error *err);
/* settings: the members of "configure"; not taken. */
int client_configure(int fd, const json_t *settings, struct error *err);
int client_poweroff(int fd, bool reboot, unsigned timeout_ms, struct error *err);

struct client_exec {
	const char *const *argv; /* up to NULL; may be empty when shell is set */
	bool shell;		 /* the words are a command line for the user's shell */
	const char *const *env;	 /* "NAME=VALUE" up to NULL, or NULL */
	const char *cwd;	 /* NULL: the user's home */
	const char *user;	 /* name or number, NULL: the agent's */
	const char *group;
	bool terminal;		   /* a pseudo-terminal; in_fd is set raw if it is one */
	int in_fd, out_fd, err_fd; /* in_fd -1: the program gets an empty stdin */
};

/*
 * Runs a program, passes its streams on and forwards SIGINT, SIGTERM, SIGHUP, SIGQUIT,
 * SIGUSR1, SIGUSR2 and window changes. Returns 0 and in *code 0..255 or 128 + signal; a
 * negative errno when it did not start or the connection broke, -EINTR when the same
 * signal was sent three times and the program did not end.
 */
int client_exec(int fd, const struct client_exec *exec, int *code, struct error *err);

/*
 * Copies src (here) to dest (there) and back, as user (NULL: the agent's). copy gives the
 * progress callback and gets the counts; NULL when neither is wanted.
 */
int client_copy_in(int fd, const char *src, const char *dest, const char *user, struct copy *copy,
		   struct error *err);
int client_copy_out(int fd, const char *src, const char *dest, const char *user, struct copy *copy,
		    struct error *err);

#endif
