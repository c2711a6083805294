/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMS_HOSTS_H
#define WISP_VMS_HOSTS_H

/*
 * Names and addresses of VMs as messages have them: {"name": "lu-0", "address": "10.78.0.2"}, and
 * with "count": 3 also lu-1 and lu-2 at the addresses behind it.
 */

#include <jansson.h>

struct error;

#define HOSTS_ALL_MAX 4096 /* VMs of a network whose names are told to it */

/*
 * A new list of {"name", "address"}, one for each VM. -EINVAL: an entry that counts has a name
 * without a number at its end, or leads beyond what numbers and addresses there are; -E2BIG.
 */
int hosts_expand(const json_t *hosts, json_t **ret, struct error *err);

#endif
