/* SPDX-License-Identifier: Apache-2.0 */
/* wisp vm: starts, shows and ends virtual machines. */

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "agent/client.h"
#include "cli/commands.h"
#include "doctor/probe.h"
#include "image/image.h"
#include "lib/args.h"
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

#define START_TIMEOUT_S 180
#define STOP_TIMEOUT_S 20
#define FOLLOW_MS 200

enum {
	OPT_IMAGE = 1,
	OPT_PASSED, /* goes to wisp-vmm, or the network, under its own name */
	OPT_CPUS,
	OPT_MEMORY,
	OPT_PAGE_SIZE,
	OPT_PIN,
	OPT_CPU_MODEL,
	OPT_IRQCHIP,
	OPT_VHOST,
	OPT_ADDRESS,
	OPT_ON_REBOOT,
	OPT_LOG_LEVEL,
	OPT_PASSED_END,
	OPT_PREFAULT,
	OPT_NET,
	OPT_SUBNET,
	OPT_DISK,
	OPT_CMDLINE,
	OPT_KERNEL,
	OPT_WAIT,
	OPT_NO_WAIT,
	OPT_FORCE,
	OPT_JSON,
	OPT_NAMES,
	OPT_TIMEOUT,
	OPT_KILL,
	OPT_ALL,
	OPT_VMM,
	OPT_FOLLOW,
};

/* One VM of a command that handles several at once. */
struct job {
	pthread_t thread;
	const char *name;
	const void *options;
	json_t *vm;
	const char *how;
	struct error err;
	int r;
};

/* Runs fn for all jobs at once and waits. */
static void run_jobs(struct job *jobs, int n, void *(*fn)(void *job))
{
	for (int i = 0; i < n; i++)
		if (!jobs[i].r && pthread_create(&jobs[i].thread, NULL, fn, &jobs[i]))
			jobs[i].r = error_set(&jobs[i].err, -EAGAIN, "cannot make a thread");
	for (int i = 0; i < n; i++)
		if (jobs[i].thread)
			pthread_join(jobs[i].thread, NULL);
}

static int print_json(json_t *value)
{
	int r = value ? json_dumpf(value, stdout, JSON_INDENT(2)) : -1;

	putchar('\n');
	json_decref(value);
	return r < 0 ? EXIT_FAILURE : 0;
}

static long long number(const json_t *object, const char *key)
{
	return (long long)json_integer_value(json_object_get(object, key));
}

/* -------- start -------- */

struct start {
	json_t *spec; /* what the VMs have in common */
	const char *image, *kernel, *network;
	struct subnet subnet;
	bool has_subnet, wait, force, json;
	unsigned timeout_s;
};

static int set_text(json_t *spec, const char *key, const char *value, struct error *err)
{
	return json_object_set_new(spec, key, json_string(value)) < 0
		       ? error_set(err, -EINVAL, "--%s: the value is not UTF-8 text", key)
		       : 0;
}

static int check_word(const char *option, const char *value, const char *words, struct error *err)
{
	size_t n = strlen(value);

	for (const char *w = words; *w; w += strcspn(w, "|") + (w[strcspn(w, "|")] == '|'))
		if (strcspn(w, "|") == n && !strncmp(w, value, n))
			return 0;
	return error_set(err, -EINVAL, "--%s is one of %s, not \"%s\"", option, words, value);
}

/* PATH[,readonly] */
static int add_disk(json_t *spec, const char *text, struct error *err)
{
	CLEANUP_FREE char *copy = strdup(text);
	CLEANUP_FREE char *path = NULL;
	char *comma = copy ? strrchr(copy, ',') : NULL;
	bool readonly = comma && !strcmp(comma, ",readonly");

	if (!copy)
		return error_errno(err, -ENOMEM, "--disk");
	if (readonly)
		*comma = 0;
	path = realpath(copy, NULL);
	if (!path)
		return error_errno(err, -errno, "cannot find disk %s", copy);
	return json_array_append_new(json_object_get(spec, "disks"),
				     json_pack("{sssb}", "path", path, "readonly", readonly)) < 0
		       ? error_set(err, -EINVAL, "--disk %s: the path is not UTF-8 text", text)
		       : 0;
}

/* A file of features is named from here; the keeper that starts wisp-vmm is elsewhere. */
static int set_cpu_model(json_t *spec, const char *value, struct error *err)
{
	bool word = !strcmp(value, "host") || !strncmp(value, "x86-64-", 7);
	CLEANUP_FREE char *path = word ? NULL : realpath(value, NULL);

	return set_text(spec, "cpu-model", path ? path : value, err);
}

static const char *option_name(const struct command *cmd, int id)
{
	const struct option_desc *o = cmd->options;

	while (o->id != id)
		o++;
	return o->name;
}

static int start_option(const struct command *cmd, struct start *s, int id, const char *value,
			struct error *err)
{
	int r = 0;

	if (id == OPT_CPU_MODEL)
		return set_cpu_model(s->spec, value, err);
	if (id > OPT_PASSED && id < OPT_PASSED_END) {
		if (id == OPT_VHOST)
			r = check_word("vhost", value, "auto|on|off", err);
		if (id == OPT_ON_REBOOT)
			r = check_word("on-reboot", value, "restart|exit", err);
		return r ? r : set_text(s->spec, option_name(cmd, id), value, err);
	}
	switch (id) {
	case OPT_IMAGE:
		s->image = value;
		return 0;
	case OPT_KERNEL:
		s->kernel = value;
		return 0;
	case OPT_NET:
		s->network = value;
		return paths_check_name(value, "network", err);
	case OPT_SUBNET:
		s->has_subnet = true;
		return subnet_parse(value, &s->subnet, err);
	case OPT_DISK:
		return add_disk(s->spec, value, err);
	case OPT_CMDLINE:
		return set_text(s->spec, "cmdline", value, err);
	case OPT_WAIT:
		s->wait = true;
		return parse_uint(value, "--wait", 1, 86400, &s->timeout_s, err);
	case OPT_NO_WAIT:
		s->wait = false;
		return 0;
	case OPT_PREFAULT:
		json_object_set_new(s->spec, "prefault", json_true());
		return 0;
	case OPT_FORCE:
		s->force = true;
		return 0;
	default:
		s->json = true;
		return 0;
	}
}

/* The parts of the image, and which of its kernels; another kernel is a file. */
static int use_image(struct start *s, struct error *err)
{
	CLEANUP_FREE char *file = NULL;
	struct image image;
	const char *kernel;
	json_t *parts;
	int r = image_open(s->image, &image, err);

	if (r)
		return r;
	kernel = !strcmp(s->kernel, "vmlinux")	 ? image.vmlinux
		 : !strcmp(s->kernel, "vmlinuz") ? image.vmlinuz
						 : (file = realpath(s->kernel, NULL));
	parts = kernel ? json_pack("{ss,ss,ss,ss}", "image", s->image, "kernel", kernel, "initrd",
				   image.initrd, "root", image.root)
		       : NULL;
	if (!kernel)
		r = error_set(err, -ENOENT,
			      "--kernel %s is neither vmlinux, vmlinuz nor a file that is there",
			      s->kernel);
	else if (!parts || json_object_update_new(s->spec, parts) < 0)
		r = error_set(err, -EINVAL, "image %s: its path is not UTF-8 text", s->image);
	image_close(&image);
	return r;
}

/* Linux guests on a KVM that interprets their kernel would take minutes and then fail. */
static int check_kvm(const struct start *s, char **names, int n, struct error *err)
{
	struct args command = {0};
	char reason[400];
	int r;

	if (s->force || probe_kvm(reason, sizeof(reason)) == KVM_HARDWARE)
		return 0;
	args_add(&command, "wisp lab exec node1 -- wisp vm start");
	for (int i = 0; i < n; i++)
		args_extend(&command, " %s", names[i]);
	r = command.failed
		    ? error_errno(err, -ENOMEM, "%s", reason)
		    : error_set(err, -ENODEV,
				"%s, then %s --image %s (--force tries it here all the same)",
				reason, command.v[0], s->image);
	args_done(&command);
	return r;
}

static int start_one(const struct start *s, struct job *job)
{
	json_t *spec = json_copy(s->spec);
	int r = spec ? set_text(spec, "name", job->name, &job->err) : -ENOMEM;

	if (!r)
		r = vms_start(spec, s->network, s->has_subnet ? &s->subnet : NULL, &job->vm,
			      &job->err);
	json_decref(spec);
	return r;
}

/* One that could not even start leaves nothing to look at. */
static void forget_failed(const char *name)
{
	struct vms_stop stop = {0};
	json_t *vm = NULL;
	json_t *code;

	if (vms_describe(name, &vm, NULL))
		return;
	code = json_object_get(json_object_get(vm, "end"), "code");
	if (code && (json_integer_value(code) == 1 || json_integer_value(code) == 2))
		vms_stop(name, &stop, NULL);
	json_decref(vm);
}

static void *wait_job(void *arg)
{
	struct job *job = arg;
	const struct start *s = job->options;
	json_t *boot = NULL;

	job->r = vms_wait(job->name, s->wait, s->timeout_s * 1000, &boot, &job->err);
	if (boot)
		json_object_set_new(job->vm, "boot", boot);
	if (job->r == -ECHILD)
		forget_failed(job->name);
	return NULL;
}

static void print_started(const struct start *s, const struct job *job)
{
	const json_t *boot = json_object_get(job->vm, "boot");

	printf("%s: %s at %s", job->name, s->wait ? "ready" : "started",
	       record_text(job->vm, "address"));
	if (json_object_get(boot, "init_ms"))
		printf(", init after %.3f s", (double)number(boot, "init_ms") / 1e3);
	if (boot)
		printf(", agent after %.3f s", (double)number(boot, "ready_ms") / 1e3);
	putchar('\n');
}

static int start_all(const struct command *cmd, const struct start *s, char **names, int n)
{
	struct job *jobs = calloc((size_t)n, sizeof(*jobs));
	json_t *list = s->json ? json_array() : NULL;
	int code = 0, started = 0;

	if (!jobs)
		return EXIT_FAILURE;
	/* Networks are made while there are no threads. */
	for (int i = 0; i < n; i++) {
		jobs[i] = (struct job){.name = names[i], .options = s};
		jobs[i].r = start_one(s, &jobs[i]);
		started += !jobs[i].r;
	}
	if (s->wait && started)
		fprintf(stderr, "wisp vm start: waiting for %d VM%s\n", started,
			started > 1 ? "s" : "");
	run_jobs(jobs, n, wait_job);
	for (int i = 0; i < n; i++) {
		if (jobs[i].r)
			code = cli_fail(cmd, EXIT_FAILURE, &jobs[i].err);
		else if (!s->json)
			print_started(s, &jobs[i]);
		if (list && !jobs[i].r)
			json_array_append(list, jobs[i].vm);
		json_decref(jobs[i].vm);
	}
	free(jobs);
	if (list)
		print_json(list);
	return code;
}

/* The same name twice would be one VM that is started twice. */
static int check_names(char **names, int n, const struct start *s, struct error *err)
{
	int r = n ? 0 : error_set(err, -EINVAL, "give the VM a name");

	for (int i = 0; !r && i < n; i++) {
		r = paths_check_name(names[i], "VM", err);
		for (int j = 0; !r && j < i; j++)
			if (!strcmp(names[i], names[j]))
				r = error_set(err, -EINVAL, "VM %s is given twice", names[i]);
	}
	if (!r && !s->image)
		r = error_set(err, -EINVAL, "no --image (\"wisp image list\" shows them)");
	if (!r && n > 1 && *record_text(s->spec, "address"))
		r = error_set(err, -EINVAL, "--address is for one VM");
	return r;
}

static int run_start(const struct command *cmd, int argc, char **argv)
{
	struct start s = {.spec = json_pack("{ss,ss,ss,s[]}", "cpus", "1", "memory", "512M",
					    "vhost", "auto", "disks"),
			  .network = "default",
			  .kernel = "vmlinux",
			  .wait = true,
			  .timeout_s = START_TIMEOUT_S};
	struct option_parser parser;
	const char *value;
	struct error err;
	int id, code, r = 0;

	option_start(&parser, cmd, argc, argv);
	while (!r && (id = option_next(&parser, &value, &err)) > 0 && id != OPTION_HELP)
		r = start_option(cmd, &s, id, value, &err);
	if (!r)
		r = id;
	if (!r)
		r = check_names(parser.argv, parser.argc, &s, &err);
	code = r < 0 ? cli_fail(cmd, EXIT_USAGE, &err) : 0;
	if (!r) {
		r = use_image(&s, &err);
		if (!r)
			r = check_kvm(&s, parser.argv, parser.argc, &err);
		code = r ? cli_fail(cmd, EXIT_FAILURE, &err)
			 : start_all(cmd, &s, parser.argv, parser.argc);
	}
	json_decref(s.spec);
	return code;
}

static const struct option_desc start_options[] = {
	{OPT_IMAGE, "image", 'i', "IMAGE", "Guest image it runs; needed", COMPLETE_IMAGE},
	{OPT_CPUS, "cpus", 'c', "N|TOPOLOGY",
	 "vCPUs: a number or sockets=S,cores=C,threads=T (default 1)", 0},
	{OPT_MEMORY, "memory", 'm', "SIZE", "Memory, MiB without a unit (default 512M)", 0},
	{OPT_PAGE_SIZE, "page-size", 0, "SIZE",
	 "Pages behind its memory: 4K, 2M or 1G (default 4K)", 0},
	{OPT_PREFAULT, "prefault", 0, NULL, "Populate all its memory before it starts", 0},
	{OPT_PIN, "pin", 0, "LIST", "Pin vCPU i to the i-th CPU of a list like 0-3,8", 0},
	{OPT_CPU_MODEL, "cpu-model", 0, "MODEL",
	 "CPU features: host, a level like x86-64-v3, or a file (default host)", COMPLETE_FILE},
	{OPT_IRQCHIP, "irqchip", 0, "MODE",
	 "Interrupt controllers: kernel or split (default kernel)", 0},
	{OPT_NET, "net", 'n', "NETWORK",
	 "Private network it joins; made when it is not there (default \"default\")", 0},
	{OPT_SUBNET, "subnet", 0, "ADDRESS/PREFIX",
	 "Addresses of a network that is made (default " SUBNET_DEFAULT ")", 0},
	{OPT_ADDRESS, "address", 0, "ADDRESS", "Its address there (default: a free one)", 0},
	{OPT_VHOST, "vhost", 0, "MODE",
	 "Network in the kernel: auto, on or off (default auto: when it is possible)", 0},
	{OPT_DISK, "disk", 'd', "PATH[,readonly]",
	 "Another disk, /dev/vdb and so on: a file or block device (may be repeated)",
	 COMPLETE_FILE},
	{OPT_CMDLINE, "cmdline-add", 'a', "TEXT", "Words for the end of the kernel's command line",
	 0},
	{OPT_KERNEL, "kernel", 'k', "WHICH",
	 "vmlinux or vmlinuz of the image, or a file (default vmlinux)", COMPLETE_FILE},
	{OPT_WAIT, "wait", 'w', "SECONDS", "How long to wait for its agent (default 180)", 0},
	{OPT_NO_WAIT, "no-wait", 0, NULL, "Wait for its hypervisor alone", 0},
	{OPT_ON_REBOOT, "on-reboot", 0, "ACTION",
	 "When the guest reboots: restart it or exit (default restart)", 0},
	{OPT_LOG_LEVEL, "log-level", 0, "LEVEL",
	 "Of its hypervisor: error, warn, info or debug (default warn)", 0},
	{OPT_FORCE, "force", 0, NULL, "Start even where KVM is useless for Linux guests", 0},
	{OPT_JSON, "json", 0, NULL, "Print JSON", 0},
	{0}};

const struct command cmd_vm_start = {
	.name = "vm start",
	.args = "NAME...",
	.summary = "Start virtual machines",
	.details =
		"They run in the background, each with its name and a static address on a private "
		"network where all know each other by name. The command waits for their agents and "
		"prints the times from the start of the hypervisor to the first line of init and "
		"to the agent's answer. A VM that is not ready in time keeps running.",
	.options = start_options,
	.run = run_start,
};

/* -------- list -------- */

struct flags {
	bool json, names, all, kill, vmm, follow;
	unsigned timeout_s;
};

/* Options of the smaller commands. 0, OPTION_HELP, or -errno. */
static int parse_flags(struct option_parser *parser, const struct command *cmd, int argc,
		       char **argv, struct flags *f, struct error *err)
{
	const char *value;
	int r;

	*f = (struct flags){.timeout_s = STOP_TIMEOUT_S};
	option_start(parser, cmd, argc, argv);
	while ((r = option_next(parser, &value, err)) > 0) {
		if (r == OPTION_HELP)
			return r;
		f->json |= r == OPT_JSON;
		f->names |= r == OPT_NAMES;
		f->all |= r == OPT_ALL;
		f->kill |= r == OPT_KILL;
		f->vmm |= r == OPT_VMM;
		f->follow |= r == OPT_FOLLOW;
		if (r == OPT_TIMEOUT) {
			r = parse_uint(value, "--timeout", 0, 86400, &f->timeout_s, err);
			if (r)
				return r;
		}
	}
	if (!r && !*cmd->args && parser->argc)
		r = error_set(err, -EINVAL, "unexpected argument %s", parser->argv[0]);
	if (!r && *cmd->args && !parser->argc && !f->all)
		r = error_set(err, -EINVAL, "give the name of a VM");
	if (!r && !strcmp(cmd->args, "NAME") && parser->argc > 1)
		r = error_set(err, -EINVAL, "give one VM");
	return r;
}

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
	const char *said = record_text(end, "said");

	if (number(vm, "memory"))
		format_size((uint64_t)number(vm, "memory"), memory, sizeof(memory));
	if (json_object_get(vm, "uptime_ms"))
		format_duration(number(vm, "uptime_ms") / 1000, uptime);
	printf("%-16s %-9s %5lld %9s %-15s %11s %-12s %s\n", record_text(vm, "name"), state,
	       number(vm, "vcpus"), memory, record_text(vm, "address"), uptime,
	       record_text(vm, "network"), record_text(vm, "image"));
	if (end)
		printf("  %s%s%s\n", record_text(end, "reason"), *said ? ": " : "", said);
	if (!strcmp(state, "lost"))
		printf("  its network's keeper was killed; what was left is swept up\n");
}

static int run_list(const struct command *cmd, int argc, char **argv)
{
	struct option_parser parser;
	json_t *list = NULL;
	struct flags f;
	struct error err;
	char **names;
	int r = parse_flags(&parser, cmd, argc, argv, &f, &err);

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
		return print_json(list);
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
		"again or wisp vm stop removes it), lost (it died with its network's keeper).",
	.options = (const struct option_desc[]){{OPT_JSON, "json", 0, NULL, "Print JSON", 0},
						{OPT_NAMES, "names", 0, NULL,
						 "Print only the names", 0},
						{0}},
	.run = run_list,
};

/* -------- stop -------- */

static void *stop_job(void *arg)
{
	struct job *job = arg;
	const struct flags *f = job->options;
	struct vms_stop stop = {.timeout_ms = f->timeout_s * 1000, .kill = f->kill};

	job->r = vms_stop(job->name, &stop, &job->err);
	job->how = stop.how;
	return NULL;
}

static int stop_all(const struct command *cmd, const struct flags *f, char **names, int n)
{
	struct job *jobs = calloc((size_t)n + 1, sizeof(*jobs));
	int code = 0;

	if (!jobs)
		return EXIT_FAILURE;
	for (int i = 0; i < n; i++)
		jobs[i] = (struct job){.name = names[i], .options = f};
	run_jobs(jobs, n, stop_job);
	for (int i = 0; i < n; i++) {
		if (jobs[i].r)
			code = cli_fail(cmd, EXIT_FAILURE, &jobs[i].err);
		else
			printf("%s: %s\n", names[i], jobs[i].how);
	}
	free(jobs);
	vms_leave_networks();
	return code;
}

static int run_stop(const struct command *cmd, int argc, char **argv)
{
	struct option_parser parser;
	char **names = NULL;
	struct flags f;
	struct error err;
	int n = 0, r = parse_flags(&parser, cmd, argc, argv, &f, &err);

	if (r)
		return r < 0 ? cli_fail(cmd, EXIT_USAGE, &err) : 0;
	if (!f.all)
		return stop_all(cmd, &f, parser.argv, parser.argc);
	if (vms_names(&names, &err))
		return cli_fail(cmd, EXIT_FAILURE, &err);
	while (names[n])
		n++;
	r = stop_all(cmd, &f, names, n);
	state_list_free(names);
	return r;
}

const struct command cmd_vm_stop = {
	.name = "vm stop",
	.args = "NAME...",
	.summary = "End virtual machines",
	.details =
		"Asks the agent to power off, then presses the power button, then stops the "
		"hypervisor, then kills it, and says which of them it took. Removes what is "
		"known of a VM that had ended before. The private network ends with its last VM.",
	.options =
		(const struct option_desc[]){
			{OPT_TIMEOUT, "timeout", 't', "SECONDS",
			 "How long the guest has for each way of powering off (default 20)", 0},
			{OPT_KILL, "kill", 'k', NULL, "Kill it at once", 0},
			{OPT_ALL, "all", 'a', NULL, "End all VMs of this user", 0},
			{0}},
	.complete = COMPLETE_VM,
	.run = run_stop,
};

/* -------- pause and resume -------- */

static int control_each(const struct command *cmd, int argc, char **argv, const char *command)
{
	struct option_parser parser;
	struct flags f;
	struct error err;
	int code = 0, r = parse_flags(&parser, cmd, argc, argv, &f, &err);

	if (r)
		return r < 0 ? cli_fail(cmd, EXIT_USAGE, &err) : 0;
	for (int i = 0; i < parser.argc; i++) {
		CLEANUP_FREE char *dir = NULL;

		r = vms_dir(parser.argv[i], &dir, &err);
		if (!r)
			r = control_call(dir, command, NULL, NULL, &err);
		if (r)
			code = cli_fail(cmd, EXIT_FAILURE, &err);
	}
	return code;
}

static int run_pause(const struct command *cmd, int argc, char **argv)
{
	return control_each(cmd, argc, argv, "pause");
}

static int run_resume(const struct command *cmd, int argc, char **argv)
{
	return control_each(cmd, argc, argv, "resume");
}

const struct command cmd_vm_pause = {
	.name = "vm pause",
	.args = "NAME...",
	.summary = "Stop the vCPUs of virtual machines",
	.complete = COMPLETE_VM,
	.run = run_pause,
};

const struct command cmd_vm_resume = {
	.name = "vm resume",
	.args = "NAME...",
	.summary = "Let paused virtual machines run on",
	.complete = COMPLETE_VM,
	.run = run_resume,
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
		r = footprint_read((pid_t)number(all, "pid"), &f, err);
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
	char uptime[32];

	format_duration(number(all, "uptime_ms") / 1000, uptime);
	printf("%-14s %s, %lld vCPUs, up %s, process %lld\n", record_text(all, "name"),
	       record_text(all, "state"), number(all, "vcpus"), uptime, number(all, "pid"));
	if (boot)
		printf("%-14s init %lld ms, agent %lld ms\n", "boot", number(boot, "init_ms"),
		       number(boot, "ready_ms"));
	printf("%-14s %lld MiB of %lld MiB in use\n", "guest memory", number(f, "guest_ram") >> 20,
	       number(all, "memory") >> 20);
	printf("%-14s private %lld KiB, file-mapped %lld KiB\n", "hypervisor",
	       number(f, "private") >> 10, number(f, "file") >> 10);
	printf("%-14s %lld\n", "wake-ups", number(stats, "event_loop_wakeups"));
	print_exits(stats);
	print_devices(stats);
	if (guest)
		printf("%-14s %s, Linux %s, %lld CPUs, %lld MiB available\n", "guest",
		       record_text(guest, "hostname"), record_text(guest, "kernel"),
		       number(guest, "cpus"), number(guest, "memory_available") >> 20);
}

static int run_stats(const struct command *cmd, int argc, char **argv)
{
	struct option_parser parser;
	json_t *all = NULL;
	struct flags f;
	struct error err;
	int r = parse_flags(&parser, cmd, argc, argv, &f, &err);

	if (r)
		return r < 0 ? cli_fail(cmd, EXIT_USAGE, &err) : 0;
	r = collect_stats(parser.argv[0], &all, &err);
	if (r)
		return cli_fail(cmd, EXIT_FAILURE, &err);
	if (f.json)
		return print_json(all);
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

static int show_log(const char *name, const struct flags *f, struct error *err)
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
	struct flags f;
	struct error err;
	int r = parse_flags(&parser, cmd, argc, argv, &f, &err);

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
