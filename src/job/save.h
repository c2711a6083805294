/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_JOB_SAVE_H
#define WISP_JOB_SAVE_H

#include "job/job.h"

struct save_ops {
	/* A step begins: its name. NULL: nobody wants to know. */
	void (*step)(void *arg, const char *step);
	/* value: what it was, valid in the call; with code NULL. Once, not out of save_begin(). */
	void (*over)(void *arg, int code, const char *reason, const json_t *value);
};

/*
 * Begins a checkpoint of the whole cluster. request: folder, mode, incremental, compress (of the
 * environment, where left out), suspend: the VMs stay paused. -EBUSY: one is under way. It waits
 * while old ones are being removed from that folder.
 */
int save_begin(struct job *j, const json_t *request, const struct save_ops *ops, void *arg,
	       struct error *err);

/*
 * Nobody wants the one that is under way any more: its end (-ECANCELED) comes as that of one that
 * failed. -ESRCH: there is none; -EALREADY: all of it is saved.
 */
int save_give_up(struct job *j, struct error *err);

/* Whether one is under way: one that waits for its folder is not, and disturbs nobody. */
bool save_is_under_way(const struct job *j);

/* A folder has become free: who waits for it goes on. */
void save_go_on(struct job *j);

/*
 * Removes old checkpoints of a folder (taken), when a new one is there; keep 0: none. Nothing,
 * where others are still being removed: the next one does. save-prune.c
 */
struct save_folder;
void save_prune(struct job *j, struct save_folder *folder, uint64_t keep);
bool save_prunes(const struct job *j, const char *path);
/* What is begun goes on, and nobody hears of it. */
void save_prune_stop(struct job *j);

/* Checkpoints by the clock begin and end. save-clock.c */
void save_clock_start(struct job *j);
void save_clock_stop(struct job *j);
/* How long after so many failures in a row, at least one, it is tried again: twice as long each. */
uint64_t save_clock_retry_ns(uint64_t interval, unsigned failures);

/* The nodes were joined again: those that have not heard so are told that one was given up. */
void save_rejoined(struct job *j);

/* The cluster ends: who waits is told. Nothing where there is none. */
void save_cancel(struct job *j);

#endif
