/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_AGENT_MODULES_H
#define WISP_AGENT_MODULES_H

/* The kernel modules that the initrd brings (docs/formats/agent.md, As init). */

#include <stdbool.h>

struct log;

/* Loads those of a list that this machine needs, in its order. What fails is logged. */
void init_load_modules(const struct log *log, const char *list);

/* Is there a PCI device "VENDOR:DEVICE"? folder: /sys/bus/pci/devices. */
bool init_has_device(const char *folder, const char *id);

#endif
