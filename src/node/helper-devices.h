/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_NODE_HELPER_DEVICES_H
#define WISP_NODE_HELPER_DEVICES_H

/* Devices of the node in the hands of a cluster's user, by VFIO, and back. Needs root. */

#include <jansson.h>
#include <sys/types.h>

struct error;

/*
 * Lets the user open the IOMMU groups of the devices (a list of PCI addresses), which vfio-pci
 * drives from then on, and lock memory for them. root: what paths begin with ("" but in tests).
 */
int devices_give(const char *root, const json_t *addresses, uid_t uid, gid_t gid,
		 struct error *err);

/*
 * Takes them back. -EBUSY when somebody still has one open: it must not be anybody else's then.
 * They stay with vfio-pci.
 */
int devices_take(const char *root, const json_t *addresses, struct error *err);

#endif
