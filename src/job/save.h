/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_JOB_SAVE_H
#define WISP_JOB_SAVE_H

#include "job/job.h"

/* value: what it was, valid in the call; with code NULL. Once, not out of a call. */
typedef void save_fn(void *arg, int code, const char *reason, const json_t *value);

/*
 * Begins a checkpoint of the whole cluster. request: folder, mode, incremental, compress (of the
 * environment, where left out), suspend: the VMs stay paused. -EBUSY: one is under way.
 */
int save_begin(struct job *j, const json_t *request, save_fn *fn, void *arg, struct error *err);

/* Checkpoints by the clock begin and end. save-clock.c */
void save_clock_start(struct job *j);
void save_clock_stop(struct job *j);

/* The nodes were joined again: those that have not heard so are told that one was given up. */
void save_rejoined(struct job *j);

/* The cluster ends: who waits is told. Nothing where there is none. */
void save_cancel(struct job *j);

#endif
