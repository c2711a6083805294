/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_PART_PART_H
#define WISP_PART_PART_H

/*
 * The part: a user's process that carries out a cluster's requests on one node, for the node's
 * daemon (docs/formats/node.md, The part). It never waits, and all it knows is in files and locks:
 * killed, another with the same setup goes on, and the VMs never knew. For the thread of the loop.
 * SIGPIPE has to be ignored.
 */

#include <jansson.h>
#include <stdbool.h>

#include "part/errand.h"
#include "part/guests.h"
#include "part/setup.h"
#include "vms/vms.h"

struct conn;
struct error;
struct log;
struct loop;
struct part;
struct pumps;
struct save;
struct work;

/* fd: of the daemon; the part's when it was made. The loop is stopped when the daemon has gone. */
int part_create(struct loop *loop, const struct log *log, int fd, struct part **ret,
		struct error *err);
/* Ends all errands, and no VM. Accepts NULL. */
void part_destroy(struct part *part);

/* -------- between the files of the part -------- */

struct part {
	struct loop *loop;
	const struct log *log;
	struct conn *conn;
	struct errands *errands;
	bool is_set_up;
	struct setup setup;
	char *volumes; /* folder of the volumes that live as long as their VM */
	struct guests *guests;
	struct work *works; /* requests that are under way */
	json_t *moving;	    /* VMs that are being sent, by name: part-move.c's */
	json_t *early;	    /* events that come behind the answer of setup, or NULL */
	json_t *stops;	    /* those that wait until nothing begins any more */
	struct save *save;  /* the cut that is under way, or NULL */
	struct pumps *pumps;
};

/* Carries a request out, and answers it now or later. */
typedef void part_fn(struct part *part, json_int_t id, const json_t *request);

/* Answers: value may be NULL, and is taken. */
void part_answer(struct part *part, json_int_t id, json_t *value);
/* The same of a failure; more may have members that say more, and is taken. */
void part_refuse(struct part *part, json_int_t id, int code, const char *reason, json_t *more);
/* The event vm-ended; end stays the caller's. */
void part_tell_end(struct part *part, const char *vm, const json_t *end);
/* Takes the event. */
void part_event(struct part *part, json_t *event);

/* The network as the library knows it; points into the part. */
struct vms_network part_network(const struct part *part);

/*
 * The VMs that a request is for: those of its "vms", or all. *ret has room for all of them, and is
 * the caller's to free. -EINVAL, -ENOENT.
 */
int part_vms(const struct part *part, const json_t *request, const struct setup_vm ***ret,
	     size_t *n, struct error *err);

/* A work has ended: what waited for that begins. */
void part_go_on(struct part *part);

/* part-start.c */
part_fn part_start, part_stop;
/* part-restore.c */
part_fn part_restore;
/* part-run.c */
part_fn part_pause, part_resume, part_list, part_tcp, part_usage;
/* A part that was killed in a cut may have left VMs without their shares. */
void part_attach(struct part *part);
/* part-save.c */
part_fn part_save;
/* The VMs are about to end; the part is. */
void part_save_stop(struct part *part);
void part_save_destroy(struct part *part);
/* part-move.c */
part_fn part_send, part_receive;
/*
 * A VM has ended here. True: it is being sent, and its end is told when it is known whether it has
 * moved or failed.
 */
bool part_move_ends(struct part *part, const char *vm, json_t *end);
/* part-connect.c */
part_fn part_connect;
/* part-image.c */
part_fn part_image;

#endif
