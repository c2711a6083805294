/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_JOB_JOB_H
#define WISP_JOB_JOB_H

/*
 * A cluster's coordinator (docs/design/clusters.md): it takes the cluster through its stages, each
 * in a file of its own, and ends it. For the thread of the loop; nothing here waits.
 */

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "job/gather.h"
#include "job/manifest.h"
#include "job/nodes.h"
#include "job/output.h"
#include "job/spec.h"
#include "job/terminals.h"
#include "job/tubes.h"
#include "lib/error.h"
#include "lib/log.h"

struct loop;
struct loop_source;
struct images;
struct job;
struct migrate;
struct prepare;
struct program;
struct pruning;
struct save;

/* What a node is asked in a stage: a new request. */
typedef json_t *job_each_fn(const struct job *j, uint32_t place);

#define JOB_SESSION 33
#define JOB_CLUSTER_ID 80

enum vm_state { VM_PLANNED, VM_RESERVED, VM_STARTED, VM_READY, VM_PAUSED, VM_ENDED };

struct guest {
	char name[80], address[16];
	uint32_t place; /* of its node */
	enum vm_state state;
	json_t *times; /* of its start; or NULL */
};

/* recount.c: who asks what has become of VMs; no stage's question. */
struct recount {
	struct job *job;
};

/* drain.c: VMs leave nodes that drain. */
struct drain {
	struct loop_source *timer; /* NULL: the cluster does not run */
	bool moves;		   /* some of them are on their way */
	bool wanted;		   /* a node may have begun to drain since they were looked for */
	struct error kept;	   /* why VMs have stayed */
};

struct job_node {
	char name[64];
	json_t *facts;
	struct error gone; /* why it is not there; "": it is */
	unsigned vms;	   /* of ours that are to be there */
	bool holds;	   /* something of ours, as far as we know */
};

struct job {
	struct loop *loop;
	struct log log;
	struct spec spec;
	char id[JOB_CLUSTER_ID], session[JOB_SESSION];
	char before[JOB_CLUSTER_ID]; /* the last one of that name, or "" */
	char job[JOB_ID];	     /* a restart has that of the checkpoint */
	char *folder, *socket;	     /* state directory, and the control socket in it */
	int lock, log_fd;
	int claim; /* on the folder that it goes on from; or -1 */
	struct output output[2];
	struct nodes *nodes;
	struct tubes *tubes;
	struct terminals *terminals;

	struct job_node *node;
	size_t nnodes;
	struct guest *vm;
	size_t nvms;
	json_t *hosts; /* of all VMs: vms/hosts.h */

	const struct stage *stage; /* NULL: it is over */
	uint64_t since;		   /* when that began */
	json_t *past;		   /* stages that are done: [{stage, ms}] */
	struct loop_source *timer; /* of the stage */
	struct loop_source *walltime;
	unsigned waits;	   /* answers, of the stage */
	job_each_fn *each; /* and what it asks the nodes from next on */
	uint32_t next;
	uint32_t vni;	 /* VXLAN number */
	int64_t started; /* seconds since 1970 */
	uint64_t born;	 /* the same by io_now_ns() */
	bool joined;
	struct recount recount;

	bool detached;
	bool attended; /* somebody has attached */
	bool ending, released;
	bool unheard;	  /* it has ended, which nobody has heard */
	int code;	  /* exit code, with ending */
	struct error why; /* why it ends, or "": its program has ended */

	struct save *save;	   /* a checkpoint that is under way, or waits */
	bool save_open;		   /* nodes have not heard that one was given up */
	bool save_stays;	   /* nor that VMs which stay paused for it are to go on */
	struct pruning *pruning;   /* old checkpoints go; or NULL */
	struct migrate *migrate;   /* VMs that move */
	struct loop_source *clock; /* for checkpoints */
	unsigned clock_failures;   /* since the last that was made by it */
	struct drain drain;
	struct images *images;
	struct prepare *prepare;
	struct program *program;
};

/* What a stage begins; job_next() says that it is done, or job_fail() that it cannot be. */
struct stage {
	const char *name;
	void (*begin)(struct job *j);
	/* Time is up (job->timer), or the nodes were joined again. May be NULL. */
	void (*timeout)(struct job *j);
	void (*joined)(struct job *j);
	/* What it still has is left: the job ends. May be NULL. */
	void (*leave)(struct job *j);
};

/* -------- job.c -------- */

/* Takes the spec. The loop stops when it is over. */
int job_create(struct loop *loop, struct spec *spec, struct job **ret, struct error *err);
void job_destroy(struct job *j);

/* The stage is done. */
void job_next(struct job *j);

/* It ends: with an exit code, and why (NULL: its program has ended). The first time counts. */
void job_end(struct job *j, int code, const char *why);
void job_fail(struct job *j, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/*
 * Tells all that failed of an answer to a request. False: nothing did. True: the job ends, and why
 * begins with what.
 */
bool job_failed(struct job *j, const struct gather *answer, const char *what);

/* The name of the node that an error of an answer is of. */
const char *job_name_of(const struct job *j, const json_t *error);

/* A request that has the cluster's ID, to those who hold VMs (to NULL), or to a place. */
void job_ask(struct job *j, json_t *request, const char *to, unsigned timeout_ms, nodes_fn *fn);
/* The stage asks each node that is to have VMs, and is done when all have answered. each.c */
void job_ask_each(struct job *j, job_each_fn *make);
/* Whoever holds VMs, as text for `to`; a new string. */
char *job_holders(const struct job *j);

/* Something that people should know. */
void job_note(struct job *j, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* How much of the job's walltime is used, also before it was restarted. */
uint64_t job_used_ms(const struct job *j);

/* The state has changed: it is written down soon. */
void job_changed(struct job *j);

/* Its name is free from here on. */
void job_leave_folder(struct job *j);

struct guest *job_find_vm(const struct job *j, const char *name);

/* -------- the others -------- */

extern const struct stage stage_resolve, stage_place, stage_reserve, stage_image, stage_network,
	stage_start, stage_ready, stage_prepare, stage_run, stage_end;

/* describe.c: what is known of it, for people and programs; a new reference. */
json_t *job_describe(const struct job *j);

/* stage-end.c: somebody has attached. */
void job_attended(struct job *j);

/* events.c: what nodes say unasked. */
bool guest_is_up(const struct guest *vm);
void job_hear(struct job *j, const json_t *event);

/* recount.c: the nodes were joined again: what has become of the VMs that had been started? */
void job_recount(struct job *j);

/* requests.c: what terminals ask for. */
extern const struct terminals_ops job_terminals_ops;

/* stage-resolve.c: whether the node of that place gets no VM, whatever it has. */
bool place_is_out(const struct job *j, size_t place);

/* stage-image.c: a node tells how much of the image has come. */
void image_hear(struct job *j, const json_t *event);

/* stage-reserve.c: requests to reserve these VMs (taken), and to link all who hold (places). */
json_t *job_reservation(const struct job *j, json_t *vms);
json_t *job_network(const struct job *j, const char *places);

/* stage-start.c: the image by its digest. A VM has become ready. */
json_t *job_image(const struct job *j);
void ready_count(struct job *j);

/* program.c: for terminals. Input that comes before the program waits for it. */
int program_create(struct job *j);
void program_destroy(struct job *j);
/* Of a checkpoint: [{vm, id, stdout, stderr}]; a new reference. */
json_t *program_tasks(const struct job *j);
bool program_runs(const struct job *j);
int program_signal(struct job *j, int signo);
void program_input(struct job *j, struct terminal *from, const uint8_t *data, size_t n);
/* Terminals have read. */
void program_go_on(struct job *j);

#endif
