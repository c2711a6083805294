/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_CLI_JOB_FORMER_H
#define WISP_CLI_JOB_FORMER_H

/* The cluster whose checkpoint another one goes on from: who had it, and its end on this machine.
 */

#include <jansson.h>
#include <stdbool.h>

struct error;
struct job_manifest;

/*
 * `former` of a coordinator's description (docs/formats/job.md). lost: nodes as the user named
 * them; -EINVAL: one of them had no VM.
 */
int job_former(const struct job_manifest *m, const json_t *lost, json_t **ret, struct error *err);

/*
 * Adds to nodes those that had VMs, are not there and not lost, as they were reached then, and says
 * how many in `others` of the description, whose `nodes` are yet those of then.
 */
void job_former_nodes(json_t *spec, json_t *nodes);

/*
 * Where the coordinator of the same job still runs on this machine: ends its cluster (stop), or
 * -EBUSY with the way to do so.
 */
int job_former_stop(const json_t *spec, bool stop, struct error *err);

#endif
