/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_JOB_FORMER_H
#define WISP_JOB_FORMER_H

#include "job/job.h"

/*
 * Ends what the nodes have of the cluster whose checkpoint this one goes on from; former_ended()
 * when nothing is left. The job fails when a node that had VMs does not answer, and nobody said
 * that it is lost. Only where the spec has `former`.
 */
void former_end(struct job *j);

/* stage-resolve.c */
void former_ended(struct job *j);

#endif
