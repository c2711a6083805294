/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_JOB_SAVE_TCP_H
#define WISP_JOB_SAVE_TCP_H

/*
 * What TCP in the VMs had to send again around a cut: their counters before it, and a while after
 * it. Pure; any thread.
 */

#include <jansson.h>
#include <stdint.h>

struct gather;

struct save_tcp {
	json_t *before; /* {VM: counters} */
	json_t *vms;	/* {VM: what came to them} */
	uint64_t since, ms;
};

/* Answers to `tcp` (docs/formats/node.md); what is not known of a VM is left out. */
void save_tcp_before(struct save_tcp *tcp, const struct gather *answer);
void save_tcp_after(struct save_tcp *tcp, const struct gather *answer);

/*
 * {"ms": between the two, "vms": {VM: {"sent", "retransmitted", "timeouts"}}}, a new reference.
 * NULL: nobody counted.
 */
json_t *save_tcp_describe(const struct save_tcp *tcp);

void save_tcp_done(struct save_tcp *tcp);

#endif
