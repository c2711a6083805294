/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_AGENT_VOLUMES_H
#define WISP_AGENT_VOLUMES_H

/* Disks of this machine that have a place in its tree: mounted by request. */

#include <jansson.h>

struct error;

#define VOLUME_SERIAL 20 /* bytes of a name that a virtio disk's serial number has room for */

/*
 * wanted: [{"disk", "target", "readonly"}]: the serial number of a disk, and where its file system
 * is to be mounted. What is there already stays. -ENODEV: no such disk, or no driver for what is on
 * it.
 */
int volumes_mount(const json_t *wanted, struct error *err);

#endif
