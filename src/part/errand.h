/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_PART_ERRAND_H
#define WISP_PART_ERRAND_H

/*
 * What would make the part wait is an errand: a child that does it and ends, or becomes another
 * program. Both talk by JSON lines. It dies with the part, and so does what it has started by
 * process_start() with die_with_parent. For the thread of the loop; the part is single-threaded.
 */

#include <jansson.h>
#include <sys/types.h>

struct errand;
struct errands;
struct error;
struct loop;

#define ERRAND_LINE_MAX (4u << 20) /* bytes of what is said at once */

/*
 * What an errand does, in the child: talk is a blocking socket for JSON lines to and from the part,
 * and standard error the reason of a failure that has no other. 0 and *ret: what there is to say
 * (may stay NULL), or -errno with the reason, and *ret: members that say more.
 */
typedef int errand_fn(int talk, void *arg, json_t **ret, struct error *err);

struct errand_end {
	int code; /* 0 or -errno; -ECHILD: it ended without saying how, and status tells */
	const char *reason;
	json_t *value; /* the end's: or NULL */
	int status;    /* of waitpid() */
};

/* Each may start others and cancel any. */
struct errand_ops {
	/*
	 * A line that is not the end, with the descriptor that came along (-1: none), which is the
	 * callee's. May be NULL: then nothing is to be said.
	 */
	void (*said)(void *arg, const json_t *message, int fd);
	/* Once, never out of a call of this interface. The errand has gone. */
	void (*done)(void *arg, const struct errand_end *end);
};

int errands_create(struct loop *loop, struct errands **ret);
/* Kills what is left; nobody is told. Accepts NULL. */
void errands_destroy(struct errands *errands);

/*
 * Starts one. arg is for ops, fn_arg for fn: the child has a copy of all memory. *ret (may be NULL)
 * lasts until done(). 0 or -errno.
 */
int errand_start(struct errands *errands, const struct errand_ops *ops, void *arg, errand_fn *fn,
		 void *fn_arg, struct errand **ret, struct error *err);

/* Says a line to it. -EPIPE: it does not listen any more, its end comes. */
int errand_tell(struct errand *errand, const json_t *message);

/* SIGTERM, and SIGKILL when that has not ended it in time. done() comes. */
void errand_cancel(struct errand *errand, unsigned patience_ms);

/*
 * In the child: becomes a program that talks on its standard input and output, and gets SIGTERM
 * when the part dies, so that it can undo what it has begun. Returns -errno.
 */
int errand_become(int talk, const char *const *argv, struct error *err);

/*
 * In the child: runs a program to its end, without the part. It gets a SIGTERM that the child is
 * sent, and one when the child dies. Returns its exit code (128 + signal), with the last line that
 * it printed on standard error in err, or -errno. *out is what it printed on standard output, new.
 */
int errand_run(const char *const *argv, char **out, struct error *err);

#endif
