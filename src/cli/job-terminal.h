/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_CLI_JOB_TERMINAL_H
#define WISP_CLI_JOB_TERMINAL_H

/* A terminal of a cluster: its program's output, our input and signals, until one of both ends. */

#include <stdbool.h>

struct error;

struct job_terminal {
	const char *name;   /* of the cluster */
	const char *socket; /* of its coordinator */
	bool hold;	    /* the cluster ends when this terminal is lost */
	bool input;	    /* stdin goes to the program */
	bool past;	    /* output from its beginning, as far as it is kept */
	bool until_run;	    /* leaves when the program has been started; ^C before that ends it */
	bool quiet;	    /* no stages */
	bool json;	    /* stages and the end as JSON, one object a line, on stderr */
	const char *label;  /* put before each line of output, or NULL */
};

/*
 * *code: the cluster's exit code, or 0 when it was left alone. -errno: its coordinator could not be
 * reached, or has died. One at a time in a process: it handles signals.
 */
int job_terminal_run(const struct job_terminal *terminal, int *code, struct error *err);

#endif
