/* SPDX-License-Identifier: Apache-2.0 */
/* wisp vm list, stats and log: what is known of virtual machines. */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "agent/client.h"
#include "agent/proto.h"
#include "cli/cmd-vm.h"
#include "cli/commands.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/parse.h"
#include "lib/paths.h"
#include "net/state.h"
#include "vms/control.h"
#include "vms/footprint.h"
#include "vms/record.h"
#include "vms/vms.h"

#define FOLLOW_MS 200

/* -------- list -------- */

static void format_duration(long long seconds, char buf[32])
{
	if (seconds >= 86400)
		snprintf(buf, 32, "%lldd %02lld:%02lld", seconds / 86400, seconds / 3600 % 24,
			 seconds / 60 % 60);
	else
		snprintf(buf, 32, "%lld:%02lld:%02lld", seconds / 3600, seconds / 60 % 60,
			 seconds % 60);
}

static void print_row(const json_t *vm)
{
	const json_t *end = json_object_get(vm, "end");
	const char *state = record_text(vm, "state");
	char memory[32] = "-", uptime[32] = "-";
	const char *said = record_text(end, "said"), *open = record_text(vm, "hand_over");
	const json_t *operation = json_object_get(vm, "operation");

	if (vm_number(vm, "memory"))
		format_size((uint64_t)vm_number(vm, "memory"), memory, sizeof(memory));
	if (json_object_get(vm, "uptime_ms"))
		format_duration(vm_number(vm, "uptime_ms") / 1000, uptime);
	printf("%-16s %-9s %5lld %9s %-15s %11s %-12s %s\n", record_text(vm, "name"), state,
	       vm_number(vm, "vcpus"), memory, record_text(vm, "address"), uptime,
	       record_text(vm, "network"), record_text(vm, "image"));
	if (operation)
		printf("  %s, process %lld (wisp vm cancel %s ends it)\n",
		       record_text(operation, "what"), vm_number(operation, "pid"),
		       record_text(vm, "name"));
	if (end)
		printf("  %s%s%s\n", record_text(end, "reason"), *said ? ": " : "", said);
	if (!strcmp(state, "lost"))
		printf("  its network's keeper was killed%s\n",
		       *open ? "" : "; what was left is swept up");
	if (*open)
		printf("  %s\n", open);
}

static int run_list(const struct command *cmd, int argc, char **argv)
{
	struct option_parser parser;
	json_t *list = NULL;
	struct vm_flags f;
	struct error err;
	char **names;
	int r = vm_parse_flags(&parser, cmd, argc, argv, &f, &err);

	if (r)
		return r < 0 ? cli_fail(cmd, EXIT_USAGE, &err) : 0;
	if (vms_names(&names, &err))
		return cli_fail(cmd, EXIT_FAILURE, &err);
	list = json_array();
	for (char **name = names; *name; name++) {
		json_t *vm;

		/* One that vanishes while we look is no failure. */
		if (!vms_describe(*name, &vm, &err))
			json_array_append_new(list, vm);
	}
	state_list_free(names);
	if (f.json)
		return cli_print_json(list);
	if (!f.names && json_array_size(list))
		printf("%-16s %-9s %5s %9s %-15s %11s %-12s %s\n", "NAME", "STATE", "VCPUS",
		       "MEMORY", "ADDRESS", "UPTIME", "NETWORK", "IMAGE");
	for (size_t i = 0; i < json_array_size(list); i++) {
		if (f.names)
			puts(record_text(json_array_get(list, i), "name"));
		else
			print_row(json_array_get(list, i));
	}
	json_decref(list);
	return 0;
}

const struct command cmd_vm_list = {
	.name = "vm list",
	.args = "",
	.summary = "List the virtual machines",
	.details =
		"States: starting, running, paused, ended (with the reason, until the name is used "
		"again or wisp vm stop removes it), lost (it died with its network's keeper). A "
		"hand-over that was cut off is told, and its record kept.",
	.options = (const struct option_desc[]){{OPT_JSON, "json", 0, NULL, "Print JSON", 0},
						{OPT_NAMES, "names", 0, NULL,
						 "Print only the names", 0},
						{0}},
	.run = run_list,
};

/* -------- stats -------- */

/* Facts of a guest whose agent answers; a paused one does not. */
static void add_facts(const char *name, json_t *all)
{
	CLEANUP_CLOSE int fd = -1;
	json_t *facts = NULL;

	if (strcmp(record_text(all, "state"), "running") != 0)
		return;
	fd = vms_agent(name, NULL);
	if (fd >= 0 && !client_facts(fd, &facts, NULL))
		json_object_set_new(all, "guest", facts);
}

static int collect_stats(const char *name, json_t **ret, struct error *err)
{
	CLEANUP_FREE char *dir = NULL;
	json_t *all = NULL, *stats = NULL;
	struct footprint f;
	int r = vms_dir(name, &dir, err);

	if (!r)
		r = vms_describe(name, &all, err);
	if (!r)
		r = control_call(dir, "stats", &stats, NULL, err);
	if (!r)
		r = footprint_read((pid_t)vm_number(all, "pid"), &f, err);
	if (r) {
		json_decref(stats);
		json_decref(all);
		return r;
	}
	json_object_set_new(all, "stats", stats);
	json_object_set_new(all, "footprint",
			    json_pack("{sI,sI,sI}", "guest_ram", (json_int_t)f.guest, "private",
				      (json_int_t)f.anonymous, "file", (json_int_t)f.file));
	add_facts(name, all);
	*ret = all;
	return 0;
}

static void print_exits(const json_t *stats)
{
	json_t *vcpus = json_object_get(stats, "vcpu_exits"), *kinds, *count;
	const char *kind;
	size_t i;

	json_array_foreach (vcpus, i, kinds) {
		printf("vcpu %-9zu", i);
		json_object_foreach (kinds, kind, count) {
			printf(" %s %lld", kind, (long long)json_integer_value(count));
		}
		putchar('\n');
	}
}

static void print_devices(const json_t *stats)
{
	const char *id, *key;
	json_t *device, *value;

	json_object_foreach (json_object_get(stats, "devices"), id, device) {
		if (!json_object_size(device))
			continue;
		printf("%-14s", id);
		json_object_foreach (device, key, value) {
			CLEANUP_FREE char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);

			printf(" %s %s", key, text ? text : "");
		}
		putchar('\n');
	}
}

static void print_stats(const json_t *all)
{
	const json_t *stats = json_object_get(all, "stats"), *f = json_object_get(all, "footprint");
	const json_t *guest = json_object_get(all, "guest"), *boot = json_object_get(all, "boot");
	const char *host = record_text(guest, "hostname"), *release = record_text(guest, "kernel");
	char hostname[65], kernel[65];
	char uptime[32];

	text_printable(host, strnlen(host, 64), hostname);
	text_printable(release, strnlen(release, 64), kernel);
	format_duration(vm_number(all, "uptime_ms") / 1000, uptime);
	printf("%-14s %s, %lld vCPUs, up %s, process %lld\n", record_text(all, "name"),
	       record_text(all, "state"), vm_number(all, "vcpus"), uptime, vm_number(all, "pid"));
	if (boot)
		printf("%-14s init %lld ms, agent %lld ms\n", "boot", vm_number(boot, "init_ms"),
		       vm_number(boot, "ready_ms"));
	printf("%-14s %lld MiB of %lld MiB in use\n", "guest memory",
	       vm_number(f, "guest_ram") >> 20, vm_number(all, "memory") >> 20);
	printf("%-14s private %lld KiB, file-mapped %lld KiB\n", "hypervisor",
	       vm_number(f, "private") >> 10, vm_number(f, "file") >> 10);
	printf("%-14s %lld\n", "wake-ups", vm_number(stats, "event_loop_wakeups"));
	print_exits(stats);
	print_devices(stats);
	if (guest)
		printf("%-14s %s, Linux %s, %lld CPUs, %lld MiB available\n", "guest", hostname,
		       kernel, vm_number(guest, "cpus"),
		       vm_number(guest, "memory_available") >> 20);
}

static int run_stats(const struct command *cmd, int argc, char **argv)
{
	struct option_parser parser;
	json_t *all = NULL;
	struct vm_flags f;
	struct error err;
	int r = vm_parse_flags(&parser, cmd, argc, argv, &f, &err);

	if (r)
		return r < 0 ? cli_fail(cmd, EXIT_USAGE, &err) : 0;
	r = collect_stats(parser.argv[0], &all, &err);
	if (r)
		return cli_fail(cmd, EXIT_FAILURE, &err);
	if (f.json)
		return cli_print_json(all);
	print_stats(all);
	json_decref(all);
	return 0;
}

const struct command cmd_vm_stats = {
	.name = "vm stats",
	.args = "NAME",
	.summary = "Show what a virtual machine uses and how often its hypervisor works",
	.options = (const struct option_desc[]){{OPT_JSON, "json", 0, NULL, "Print JSON", 0}, {0}},
	.complete = COMPLETE_VM,
	.run = run_stats,
};

/* -------- log -------- */

static int copy_out(int fd)
{
	char buf[65536];
	ssize_t n;

	while ((n = read(fd, buf, sizeof(buf))) > 0)
		if (io_write_full(STDOUT_FILENO, buf, (size_t)n))
			return -errno;
	return n < 0 ? -errno : 0;
}

/* What a long-running guest printed before (vmm/chardev.c). */
static void copy_older(const char *path)
{
	CLEANUP_FREE char *old = io_format("%s.old", path);
	CLEANUP_CLOSE int fd = old ? open(old, O_RDONLY | O_CLOEXEC) : -1;

	if (fd >= 0)
		copy_out(fd);
}

static int show_log(const char *name, const struct vm_flags *f, struct error *err)
{
	CLEANUP_FREE char *dir = NULL;
	CLEANUP_FREE char *path = NULL;
	CLEANUP_CLOSE int fd = -1;
	int r = paths_check_name(name, "VM", err);

	if (!r)
		r = paths_run("vm", name, &dir, err);
	if (r)
		return r;
	path = io_format("%s/%s", dir, f->vmm ? VM_LOG : VM_CONSOLE);
	fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	if (fd < 0)
		return error_set(err, -ENOENT, "there is no VM %s (\"wisp vm list\" shows all)",
				 name);
	copy_older(path);
	r = copy_out(fd);
	while (!r && f->follow && state_alive(dir)) {
		poll(NULL, 0, FOLLOW_MS);
		r = copy_out(fd);
	}
	return r ? error_errno(err, r, "cannot show %s", path) : 0;
}

static int run_log(const struct command *cmd, int argc, char **argv)
{
	struct option_parser parser;
	struct vm_flags f;
	struct error err;
	int r = vm_parse_flags(&parser, cmd, argc, argv, &f, &err);

	if (r)
		return r < 0 ? cli_fail(cmd, EXIT_USAGE, &err) : 0;
	r = show_log(parser.argv[0], &f, &err);
	return r ? cli_fail(cmd, EXIT_FAILURE, &err) : 0;
}

const struct command cmd_vm_log = {
	.name = "vm log",
	.args = "NAME",
	.summary = "Show what a virtual machine printed on its console",
	.details = "Also of one that has ended, until its name is used again.",
	.options =
		(const struct option_desc[]){
			{OPT_VMM, "vmm", 0, NULL, "Show the messages of its hypervisor instead", 0},
			{OPT_FOLLOW, "follow", 'f', NULL, "Go on until the VM ends", 0},
			{0}},
	.complete = COMPLETE_VM,
	.run = run_log,
};
