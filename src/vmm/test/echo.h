/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_TEST_ECHO_H
#define WISP_VMM_TEST_ECHO_H

/*
 * A virtio device for tests of the transport and the rings: it writes what a request's readable
 * part holds into its writable part. Queue 0 is served from kicks, queue 1 only by the test.
 */

#include "vmm/virtio/virtio.h"

#define ECHO_ID 0x3e /* no device of the specification */
#define ECHO_QUEUE_SIZE 256
#define ECHO_FEATURES 0x5ULL
#define ECHO_MAX (64U << 10) /* bytes of an answer, more or less */

struct echo {
	struct virtio virtio;
	struct virtq_chain chain; /* the last request */
	uint8_t config[12];
	uint8_t counter[3]; /* saved state */
	bool fail_activate;
	unsigned activations, deactivations, kicks, pauses, resumes, restores;
};

struct echo *echo_create(struct vm *vm);

/* Serves a queue once; the number of requests or the error of virtq_pop(). */
int echo_serve(struct echo *echo, struct virtq *q);

#endif
