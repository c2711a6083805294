/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_CONFIG_H
#define WISP_VMM_CONFIG_H

/* What the command line asked for. Parsed once, then read-only. */

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/log.h"
#include "vmm/device.h"
#include "vmm/irq.h"
#include "vmm/x86/topology.h"

#define CONFIG_DEVICES_MAX 24

struct vm_config {
	const char *name;
	const char *kernel, *initrd, *cmdline;
	bool incoming; /* no kernel: the state comes through the control socket */
	uint64_t memory, page_size;
	bool prefault;
	struct topology topology;
	const char *cpu_model; /* "host", a level, or a mask file (x86/model.h) */
	cpu_set_t pin;	       /* vCPU i runs on the i-th CPU of the set */
	bool pinned;
	enum irqchip_mode irqchip;
	const char *serial; /* chardev specification, see chardev.h */
	struct device_config device[CONFIG_DEVICES_MAX];
	unsigned ndevices;
	const char *control; /* path of the control socket, or NULL */
	bool restart_on_reboot;
	enum log_level log_level;
	const char *log_file;
};

/*
 * Parses argv of wisp-vmm. Returns 1 and the configuration, 0 when help or version was
 * printed, -EINVAL with the reason. Strings point into argv.
 */
int config_parse(struct vm_config *config, int argc, char **argv, struct error *err);

/* Frees what a configuration that was parsed holds. */
void config_done(struct vm_config *config);

/* The command description behind it, for the generated documentation. */
extern const struct command vmm_command;

#endif
