/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_AGENT_CALLER_H
#define WISP_AGENT_CALLER_H

/*
 * Standing in for a program far away: the signals of this process are caught, its terminal is
 * raw, and what the program writes is written without waiting. One at a time in a process.
 */

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <termios.h>

struct error;

struct caller {
	int signal_fd; /* readable: caller_signal() */
	int terminal;  /* that was made raw, or -1 */
	int last_signal, repeated;
	sigset_t old_mask;
	struct termios old_term;
};

/* terminal: a descriptor that is made raw if it is one; -1: none. */
int caller_begin(struct caller *caller, int terminal, struct error *err);
/* As it was. */
void caller_end(struct caller *caller);

/*
 * The signal that came: SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2 or SIGWINCH; 0: none;
 * -EINTR when one that asks for the end came three times in a row.
 */
int caller_signal(struct caller *caller, struct error *err);

/* Writes what the descriptor takes without waiting, maybe 0 bytes; or -errno. */
ssize_t caller_write(int fd, const void *data, size_t n);

#endif
