/* SPDX-License-Identifier: Apache-2.0 */
/* wisp vm start. */

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cmd-vm.h"
#include "cli/commands.h"
#include "cli/env-request.h"
#include "doctor/probe.h"
#include "image/image.h"
#include "lib/args.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/parse.h"
#include "lib/paths.h"
#include "vms/record.h"
#include "vms/vms.h"

#define START_TIMEOUT_S 180

enum {
	OPT_IMAGE = OPT_FOLLOW + 1,
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
	OPT_SHARE,
	OPT_PCI,
	OPT_CMDLINE,
	OPT_KERNEL,
	OPT_SIGNED,
	OPT_KEYS,
	OPT_WAIT,
	OPT_NO_WAIT,
	OPT_FORCE,
};

struct start {
	json_t *spec; /* what the VMs have in common */
	const char *image, *kernel, *network;
	struct image_demand demand; /* what the image has to be */
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

/* PATH[,at=TARGET][,readonly]; one that is mounted has a serial number by which it is found. */
static int add_disk(json_t *spec, const char *text, struct error *err)
{
	CLEANUP_FREE char *copy = strdup(text);
	CLEANUP_FREE char *path = NULL;
	CLEANUP_FREE char *name = NULL;
	json_t *disks = json_object_get(spec, "disks"), *disk;
	char *rest = copy, *file = copy ? strsep(&rest, ",") : NULL, *word;
	const char *target = NULL;
	bool readonly = false;

	if (!copy)
		return error_errno(err, -ENOMEM, "--disk");
	while ((word = strsep(&rest, ","))) {
		if (!strcmp(word, "readonly"))
			readonly = true;
		else if (!strncmp(word, "at=/", 4) && word[4])
			target = word + 3;
		else
			return error_set(err, -EINVAL,
					 "--disk %s: \"%s\" is neither at=TARGET nor readonly",
					 file, word);
	}
	path = realpath(file, NULL);
	if (!path)
		return error_errno(err, -errno, "cannot find disk %s", file);
	name = target ? io_format("disk%zu", json_array_size(disks)) : NULL;
	disk = json_pack("{ss,sb,ss*,ss*}", "path", path, "readonly", readonly, "name", name,
			 "target", target);
	return json_array_append_new(disks, disk) < 0
		       ? error_set(err, -EINVAL, "--disk %s: the path is not UTF-8 text", text)
		       : 0;
}

/* What is wrong with the address wisp-vmm says, which uses it. */
static int add_device(json_t *spec, const char *address, struct error *err)
{
	if (strchr(address, ','))
		return error_set(err, -EINVAL, "--pci %s is not one PCI address", address);
	return json_array_append_new(json_object_get(spec, "devices"), json_string(address)) < 0
		       ? error_set(err, -EINVAL, "--pci: the value is not UTF-8 text")
		       : 0;
}

/* TAG=PATH[,at=TARGET][,readonly] */
static int add_share(json_t *spec, const char *text, struct error *err)
{
	CLEANUP_FREE char *copy = strdup(text);
	CLEANUP_FREE char *path = NULL;
	CLEANUP_FREE char *target = NULL;
	char *rest = copy, *head = copy ? strsep(&rest, ",") : NULL, *word;
	char *from = head ? strchr(head, '=') : NULL;
	bool readonly = false;
	int r;

	if (!copy)
		return error_errno(err, -ENOMEM, "--share");
	if (!from || !from[1])
		return error_set(err, -EINVAL, "--share %s is not TAG=PATH[,at=TARGET][,readonly]",
				 text);
	*from++ = 0;
	r = paths_check_name(head, "share", err);
	if (!r && strlen(head) > 36) /* virtio 1.2, 5.11.4 */
		r = error_set(err, -EINVAL, "--share %s: a tag has at most 36 bytes", head);
	while (!r && (word = strsep(&rest, ","))) {
		if (!strcmp(word, "readonly"))
			readonly = true;
		else if (!strncmp(word, "at=/", 4) && word[4])
			target = target ? target : strdup(word + 3);
		else
			r = error_set(err, -EINVAL,
				      "--share %s: \"%s\" is neither at=TARGET nor readonly", head,
				      word);
	}
	if (r)
		return r;
	path = realpath(from, NULL);
	if (!path)
		return error_errno(err, -errno, "--share %s: cannot find %s", head, from);
	if (!target)
		target = io_format("/mnt/%s", head);
	return json_array_append_new(json_object_get(spec, "shares"),
				     json_pack("{ss,ss,ss,sb}", "tag", head, "source", path,
					       "target", target ? target : "", "readonly",
					       readonly)) < 0
		       ? error_set(err, -EINVAL, "--share %s: the path is not UTF-8 text", text)
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
	case OPT_KEYS:
		s->demand.keys = value;
		s->demand.is_signed = true;
		return 0;
	case OPT_SIGNED:
		s->demand.is_signed = true;
		return 0;
	case OPT_NET:
		s->network = value;
		return paths_check_name(value, "network", err);
	case OPT_SUBNET:
		s->has_subnet = true;
		return subnet_parse(value, &s->subnet, err);
	case OPT_DISK:
		return add_disk(s->spec, value, err);
	case OPT_SHARE:
		return add_share(s->spec, value, err);
	case OPT_PCI:
		return add_device(s->spec, value, err);
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
	int r = image_admit(s->image, &s->demand, &image, err);

	if (r)
		return r;
	kernel = !strcmp(s->kernel, "vmlinux")	 ? image.vmlinux
		 : !strcmp(s->kernel, "vmlinuz") ? image.vmlinuz
						 : (file = realpath(s->kernel, NULL));
	parts = kernel ? json_pack("{ss,ss,ss,ss,ss*}", "image", image.name, "kernel", kernel,
				   "initrd", image.initrd, "root", image.root, "image_key",
				   json_string_value(json_object_get(image.manifest, "key")))
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

static int start_one(const struct start *s, struct vm_job *job)
{
	const struct vms_network network = {.name = s->network,
					    .subnet = s->has_subnet ? &s->subnet : NULL};
	json_t *spec = json_copy(s->spec);
	int r = spec ? set_text(spec, "name", job->name, &job->err) : -ENOMEM;

	if (!r)
		r = vms_start(spec, &network, &job->vm, &job->err);
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
	struct vm_job *job = arg;
	const struct start *s = job->options;
	json_t *boot = NULL;

	job->r = vms_wait(job->name, s->wait, s->timeout_s * 1000, &boot, &job->err);
	if (boot)
		json_object_set_new(job->vm, "boot", boot);
	if (job->r == -ECHILD)
		forget_failed(job->name);
	return NULL;
}

static void print_started(const struct start *s, const struct vm_job *job)
{
	const json_t *boot = json_object_get(job->vm, "boot");

	printf("%s: %s at %s", job->name, s->wait ? "ready" : "started",
	       record_text(job->vm, "address"));
	if (json_object_get(boot, "init_ms"))
		printf(", init after %.3f s", (double)vm_number(boot, "init_ms") / 1e3);
	if (boot)
		printf(", agent after %.3f s", (double)vm_number(boot, "ready_ms") / 1e3);
	putchar('\n');
	if (*record_text(boot, "warning"))
		fprintf(stderr, "wisp vm start: %s: %s\n", job->name, record_text(boot, "warning"));
}

static int start_all(const struct command *cmd, const struct start *s, char **names, int n)
{
	struct vm_job *jobs = calloc((size_t)n, sizeof(*jobs));
	json_t *list = s->json ? json_array() : NULL;
	int code = 0, started = 0;

	if (!jobs)
		return EXIT_FAILURE;
	/* Networks are made while there are no threads. */
	for (int i = 0; i < n; i++) {
		jobs[i] = (struct vm_job){.name = names[i], .options = s};
		jobs[i].r = start_one(s, &jobs[i]);
		started += !jobs[i].r;
	}
	if (s->wait && started)
		fprintf(stderr, "wisp vm start: waiting for %d VM%s\n", started,
			started > 1 ? "s" : "");
	vm_run_jobs(jobs, n, wait_job);
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
		cli_print_json(list);
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
	struct start s = {.spec = json_pack("{ss,ss,ss,s[],s[],s[]}", "cpus", "1", "memory", "512M",
					    "vhost", "auto", "disks", "shares", "devices"),
			  .network = "default",
			  .demand = {.keys = ENV_KEYS},
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
	{OPT_IMAGE, "image", 'i', "IMAGE",
	 "Guest image it runs: NAME, NAME@sha256:DIGEST or @sha256:DIGEST; needed", COMPLETE_IMAGE},
	{OPT_SIGNED, "signed", 0, NULL,
	 "Only an image that is signed by a key of the folder, as if it was built of an "
	 "environment with signed: yes",
	 0},
	{OPT_KEYS, "keys", 0, "DIR",
	 "That folder (default " ENV_KEYS "); without --signed the same as with it", COMPLETE_DIR},
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
	{OPT_DISK, "disk", 'd', "PATH[,at=TARGET][,readonly]",
	 "Another disk, /dev/vdb and so on: a file or block device, mounted in the guest at TARGET "
	 "when that is given (may be repeated)",
	 COMPLETE_FILE},
	{OPT_SHARE, "share", 's', "TAG=PATH[,at=TARGET][,readonly]",
	 "A folder of this machine, mounted in the guest at TARGET (default /mnt/TAG; may be "
	 "repeated)",
	 COMPLETE_DIR},
	{OPT_PCI, "pci", 'g', "ADDRESS",
	 "A PCI device of this machine that vfio-pci drives, as 0000:81:00.1 (may be repeated); a "
	 "VM "
	 "with one can be neither saved nor moved",
	 0},
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
		"to the agent's answer. A VM that is not ready in time keeps running. An image "
		"that was built of an environment with signed: yes has to be signed.",
	.options = start_options,
	.run = run_start,
};
