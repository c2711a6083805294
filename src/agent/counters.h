/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_AGENT_COUNTERS_H
#define WISP_AGENT_COUNTERS_H

/* Counters of the kernel's network, as /proc/net/snmp and /proc/net/netstat have them. */

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/*
 * In text, of pairs of lines "GROUP: NAME..." and "GROUP: NUMBER...": the number below NAME. False
 * when there is none.
 */
bool counters_find(const char *text, const char *group, const char *name, uint64_t *ret);

/*
 * {"sent", "retransmitted", "timeouts"}: segments of TCP since this machine began, those that were
 * sent again, and how often that was for a timer that ran out. NULL: the kernel does not tell.
 */
json_t *counters_tcp(void);

#endif
