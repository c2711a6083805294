/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_LIB_PROCESS_H
#define WISP_LIB_PROCESS_H

/*
 * Starting other programs, without a shell. Every descriptor of ours that is not handed on
 * by name is closed in the child, signals are at their defaults and none is blocked.
 */

#include <stdbool.h>
#include <sys/types.h>

struct error;

struct process {
	const char *const *argv; /* ends with NULL; argv[0] is looked up in PATH */
	const char *const *env;	 /* ends with NULL; NULL: ours */
	const char *cwd;	 /* NULL: ours */
	/*
	 * The child's descriptor n is fds[n]; -1 leaves it closed, or /dev/null for 0, 1
	 * and 2. Those of 0, 1 and 2 beyond nfds are ours. They stay the caller's.
	 */
	const int *fds;
	unsigned nfds;
	/*
	 * The kernel kills the child when the *thread* that started it ends. Children of the
	 * child need their own care.
	 */
	bool die_with_parent;
	/* Runs in the child before exec; 0 or -errno. Only async-signal-safe calls. */
	int (*in_child)(void *arg);
	void *in_child_arg;
	bool new_session; /* setsid: no controlling terminal, ^C does not reach it */
};

/*
 * Starts the program. Returns 0 and its pid, which the caller must wait for, or -errno with
 * the reason, also when the program does not exist or may not be executed.
 */
int process_start(const struct process *process, pid_t *ret, struct error *err);

/* Waits for the end; *status as waitpid() gives it. 0 or -errno. */
int process_wait(pid_t pid, int *status);

/*
 * Names this process among all processes of all machines, now and later: the machine's boot, the
 * PID namespace, the PID there and the time it was started. execve() does not change it.
 */
#define PROCESS_INSTANCE 96
int process_instance(char ret[PROCESS_INSTANCE], struct error *err);

/* Exit code of a status as shells see it: the program's own, or 128 + signal. */
int process_exit_code(int status);

/*
 * Starts the program and waits for it. Standard output is returned in *out (new, ends with
 * NUL, its length in *size when not NULL; the caller frees it) when out is not NULL.
 * Standard error is taken for the error text unless fds[2] was given. Returns 0 when it
 * exited with 0, -ECHILD with the exit code and the last line of its standard error in err
 * when it did not, or -errno when it could not be run.
 */
int process_run(const struct process *process, char **out, size_t *size, struct error *err);

#endif
