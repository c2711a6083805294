/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of wisp-vmm. */

#include "vmm/config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "build-config.h"
#include "lib/cleanup.h"
#include "lib/command.h"
#include "lib/error.h"
#include "lib/parse.h"
#include "vmm/chardev.h"
#include "vmm/x86/model.h"

enum {
	OPT_KERNEL = 1,
	OPT_INITRD,
	OPT_CMDLINE,
	OPT_INCOMING,
	OPT_NAME,
	OPT_MEMORY,
	OPT_PAGE_SIZE,
	OPT_PREFAULT,
	OPT_CPUS,
	OPT_CPU_MODEL,
	OPT_PIN,
	OPT_IRQCHIP,
	OPT_SERIAL,
	OPT_DEVICE,
	OPT_CONTROL,
	OPT_ON_REBOOT,
	OPT_LOG_LEVEL,
	OPT_LOG_FILE,
	OPT_MAN_OPTIONS,
	OPT_VERSION,
};

static const struct option_desc options[] = {
	{OPT_KERNEL, "kernel", 'k', "FILE", "Kernel: a bzImage or an uncompressed ELF vmlinux",
	 COMPLETE_FILE},
	{OPT_INITRD, "initrd", 'i', "FILE", "Initial RAM disk", COMPLETE_FILE},
	{OPT_CMDLINE, "cmdline", 'a', "TEXT", "Kernel command line (default: console=ttyS0)", 0},
	{OPT_INCOMING, "incoming", 0, NULL,
	 "Wait for a saved state on the control socket instead of starting a kernel; "
	 "a reboot of the guest then ends the VM",
	 0},
	{OPT_NAME, "name", 'n', "NAME", "Name of the VM, in every log line (default: vm)", 0},
	{OPT_MEMORY, "memory", 'm', "SIZE", "Guest memory, MiB without a unit (default: 256M)", 0},
	{OPT_PAGE_SIZE, "page-size", 0, "SIZE",
	 "Page size of guest memory: 4K, 2M or 1G "
	 "(default: 4K, with transparent huge pages where the machine allows them)",
	 0},
	{OPT_PREFAULT, "prefault", 0, NULL, "Populate all guest memory before the guest starts", 0},
	{OPT_CPUS, "cpus", 'c', "N|TOPOLOGY",
	 "vCPUs: a number or sockets=S,cores=C,threads=T (default: 1)", 0},
	{OPT_CPU_MODEL, "cpu-model", 0, "MODEL", "CPU features: " MODEL_HELP " (default: host)",
	 COMPLETE_FILE},
	{OPT_PIN, "pin", 0, "LIST", "Pin vCPU i to the i-th CPU of a list like 0-3,8", 0},
	{OPT_IRQCHIP, "irqchip", 0, "MODE",
	 "Interrupt controllers: kernel or split (default: kernel)", 0},
	{OPT_SERIAL, "serial", 's', "BACKEND", "Console ttyS0: " CHARDEV_HELP " (default: stdio)",
	 0},
	{OPT_DEVICE, "device", 'd', "KIND,KEY=VALUE,...", "Add a device; may be repeated", 0},
	{OPT_CONTROL, "control", 0, "PATH", "Control socket (default: none)", COMPLETE_FILE},
	{OPT_ON_REBOOT, "on-reboot", 0, "ACTION",
	 "When the guest reboots: restart the VM or exit (default: restart)", 0},
	{OPT_LOG_LEVEL, "log-level", 0, "LEVEL", "error, warn, info or debug (default: warn)", 0},
	{OPT_LOG_FILE, "log-file", 0, "FILE", "Append log lines to FILE (default: standard error)",
	 COMPLETE_FILE},
	{OPT_MAN_OPTIONS, "man-options", 0, NULL, "Print this reference in scdoc form", 0},
	{OPT_VERSION, "version", 'V', NULL, "Print the version", 0},
	{0},
};

const struct command vmm_command = {
	.name = "wisp-vmm",
	.args = "",
	.summary = "Run one virtual machine",
	.options = options,
};

static void print_devices(FILE *out)
{
	fprintf(out, "\nDevices (--device KIND,KEY=VALUE,...):\n");
	for (unsigned i = 0; device_table[i]; i++) {
		const struct device_desc *d = device_table[i];

		fprintf(out, "  %-29s %s\n", d->name, d->summary);
		for (const struct device_key *k = d->keys; k->name; k++) {
			char head[64];

			snprintf(head, sizeof(head), "%s%s%s%s", k->name, k->arg ? "=" : "",
				 k->arg ? k->arg : "", k->required ? " (needed)" : "");
			fprintf(out, "    %-27s %s\n", head, k->help);
		}
	}
}

static void print_man(void)
{
	const struct command *const table[] = {&vmm_command, NULL};

	command_man(stdout, NULL, table);
	printf("# DEVICES\n\n");
	for (unsigned i = 0; device_table[i]; i++) {
		const struct device_desc *d = device_table[i];

		printf("*--device %s*,...\n\t", d->name);
		command_man_text(stdout, d->summary);
		printf(".\n\n");
		for (const struct device_key *k = d->keys; k->name; k++) {
			printf("\t*%s*%s", k->name, k->arg ? "=" : "");
			command_man_text(stdout, k->arg ? k->arg : "");
			printf("\n\t\t");
			command_man_text(stdout, k->help);
			printf("%s.\n\n", k->required ? " (needed)" : "");
		}
	}
}

static int add_device(struct vm_config *c, const char *value, struct error *err)
{
	struct device_config *d = &c->device[c->ndevices];
	unsigned same = 0;
	int r;

	if (c->ndevices == CONFIG_DEVICES_MAX)
		return error_set(err, -ENOSPC, "more than %d devices", CONFIG_DEVICES_MAX);
	r = device_config_parse(value, d, err);
	if (r)
		return r;
	for (unsigned i = 0; i <= c->ndevices; i++)
		same += c->device[i].desc == d->desc;
	c->ndevices++;
	if (same > d->desc->max)
		return error_set(err, -ENOSPC, "a VM can have %u %s device%s, no more",
				 d->desc->max, d->desc->name, d->desc->max > 1 ? "s" : "");
	return 0;
}

/* One of two words; *second tells which. */
static int parse_choice(const char *value, const char *option, const char *first, const char *other,
			bool *second, struct error *err)
{
	if (strcmp(value, first) && strcmp(value, other))
		return error_set(err, -EINVAL, "%s \"%s\" is neither %s nor %s", option, value,
				 first, other);
	*second = !strcmp(value, other);
	return 0;
}

static int set_name(struct vm_config *c, const char *value, struct error *err)
{
	if (!*value || strlen(value) > 63 || strpbrk(value, "/ \t\n"))
		return error_set(
			err, -EINVAL,
			"VM name \"%s\" must have 1 to 63 characters, no blanks or slashes", value);
	c->name = value;
	return 0;
}

static int set_option(struct vm_config *c, int id, const char *value, struct error *err)
{
	bool second = false;
	int r;

	switch (id) {
	case OPT_KERNEL:
		c->kernel = value;
		return 0;
	case OPT_INITRD:
		c->initrd = value;
		return 0;
	case OPT_CMDLINE:
		c->cmdline = value;
		return 0;
	case OPT_INCOMING:
		c->incoming = true;
		return 0;
	case OPT_NAME:
		return set_name(c, value, err);
	case OPT_MEMORY:
		return parse_size(value, 1 << 20, &c->memory, err);
	case OPT_PAGE_SIZE:
		return parse_size(value, 0, &c->page_size, err);
	case OPT_PREFAULT:
		c->prefault = true;
		return 0;
	case OPT_CPUS:
		return topology_parse(value, &c->topology, err);
	case OPT_CPU_MODEL:
		c->cpu_model = value;
		return 0;
	case OPT_PIN:
		c->pinned = true;
		return parse_cpulist(value, &c->pin, err);
	case OPT_IRQCHIP:
		r = parse_choice(value, "irqchip", "kernel", "split", &second, err);
		if (!r)
			c->irqchip = second ? IRQCHIP_SPLIT : IRQCHIP_KERNEL;
		return r;
	case OPT_SERIAL:
		c->serial = value;
		return 0;
	case OPT_DEVICE:
		return add_device(c, value, err);
	case OPT_CONTROL:
		c->control = value;
		return 0;
	case OPT_ON_REBOOT:
		r = parse_choice(value, "on-reboot", "exit", "restart", &second, err);
		if (!r)
			c->restart_on_reboot = second;
		return r;
	case OPT_LOG_LEVEL:
		r = log_level_parse(value, err);
		if (r >= 0)
			c->log_level = (enum log_level)r;
		return r < 0 ? r : 0;
	case OPT_LOG_FILE:
		c->log_file = value;
		return 0;
	}
	return -EINVAL;
}

/* A VM starts from a kernel, or from a state that comes by the control socket. */
static int check_start(struct vm_config *c, struct error *err)
{
	if (!c->incoming)
		return c->kernel ? 0
				 : error_set(err, -EINVAL,
					     "no kernel given (--kernel FILE; --help tells more)");
	if (c->kernel || c->initrd)
		return error_set(err, -EINVAL, "--incoming takes no --kernel and no --initrd");
	if (!c->control)
		return error_set(err, -EINVAL, "--incoming needs --control PATH");
	c->restart_on_reboot = false; /* there is nothing to start again from */
	return 0;
}

int config_parse(struct vm_config *config, int argc, char **argv, struct error *err)
{
	struct vm_config c = {
		.name = "vm",
		.cmdline = "console=ttyS0",
		.memory = 256 << 20,
		.page_size = 4096,
		.topology = {1, 1, 1},
		.cpu_model = "host",
		.serial = "stdio",
		.restart_on_reboot = true,
		.log_level = LOG_WARN,
	};
	struct option_parser parser;
	const char *value;
	int id, r = 0;

	option_start(&parser, &vmm_command, argc - 1, argv + 1);
	while (!r && (id = option_next(&parser, &value, err)) > 0) {
		if (id == OPTION_HELP) {
			print_devices(stdout);
			return 0;
		}
		if (id == OPT_MAN_OPTIONS) {
			print_man();
			return 0;
		}
		if (id == OPT_VERSION) {
			printf("wisp-vmm %s\n", WISP_VERSION);
			return 0;
		}
		r = set_option(&c, id, value, err);
	}
	if (!r)
		r = id;
	if (!r && parser.argc)
		r = error_set(err, -EINVAL, "unexpected argument \"%s\"", parser.argv[0]);
	if (!r)
		r = check_start(&c, err);
	if (r) {
		config_done(&c);
		return r;
	}
	*config = c;
	return 1;
}

void config_done(struct vm_config *c)
{
	while (c->ndevices)
		free(c->device[--c->ndevices].text);
}
