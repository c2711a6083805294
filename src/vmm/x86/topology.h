/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_TOPOLOGY_H
#define WISP_VMM_TOPOLOGY_H

/*
 * Sockets, cores and threads of the guest, and the APIC ids that encode them: each level has
 * a field of bits wide enough for its count (Intel SDM volume 3, 9.9.1; AMD64 volume 2, 16.10).
 */

#include <stdint.h>

struct error;

struct topology {
	unsigned sockets, cores, threads; /* cores per socket, threads per core */
};

#define TOPOLOGY_VCPUS_MAX 254

/* "4" (one socket, cores without threads) or "sockets=2,cores=4,threads=2"; what is left out is 1.
 */
int topology_parse(const char *text, struct topology *ret, struct error *err);

static inline unsigned topology_vcpus(const struct topology *t)
{
	return t->sockets * t->cores * t->threads;
}

/* Bits of the thread field, and of thread and core fields together. */
unsigned topology_thread_bits(const struct topology *t);
unsigned topology_package_shift(const struct topology *t);

/* The APIC id of vCPU index: threads vary fastest, then cores, then sockets. */
uint32_t topology_apic_id(const struct topology *t, unsigned index);

#endif
