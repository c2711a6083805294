/* SPDX-License-Identifier: Apache-2.0 */
/* wisp lab up and run: starting emulated nodes in which KVM is real. */

#include "cli/cmd-lab.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/client.h"
#include "cli/commands.h"
#include "doctor/probe.h"
#include "lab/lab.h"
#include "lib/args.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/parse.h"
#include "lib/paths.h"
#include "lib/process.h"
#include "net/keeper.h"

#define READY_TIMEOUT_NS (180ull * 1000000000) /* slow machines with many nodes */
#define DEFAULT_MEMORY (3ull << 30)
#define MIN_MEMORY (512ull << 20)

/* clang-format off */
#define UP_OPTIONS \
	NAME_OPTION, \
	{.id = OPT_NODES, .name = "nodes", .letter = 'N', .arg = "COUNT", \
	 .help = "Number of nodes, node1 to nodeCOUNT (default 1)"}, \
	{.id = OPT_CPUS, .name = "cpus", .arg = "COUNT", \
	 .help = "CPUs of each node (default 1 when emulated, else 2)"}, \
	{.id = OPT_MEMORY, .name = "memory", .arg = "SIZE", \
	 .help = "Memory of each node (default 3 GiB); taken as it is used"}, \
	{.id = OPT_HUGEPAGES, .name = "hugepages", .arg = "COUNT", \
	 .help = "2 MiB pages reserved in each node (default 0)"}, \
	{.id = OPT_NVME, .name = "nvme", \
	 .help = "Give each node an NVMe disk of 1 GiB with two SR-IOV functions"}, \
	{.id = OPT_SSH, .name = "ssh", \
	 .help = "Let the nodes reach each other by ssh, as root, with keys made for this lab"}, \
	{.id = OPT_SHARE, .name = "share", .arg = "DIR", .complete = COMPLETE_DIR, \
	 .help = "Mount this directory writable at the same path in every node (may be repeated)"}, \
	{.id = OPT_DISK, .name = "disk", .arg = "[NODE:]FILE", .complete = COMPLETE_FILE, \
	 .help = "Give the file to a node (default node1) as a virtio disk (may be repeated)"}, \
	{.id = OPT_KERNEL, .name = "kernel", .arg = "PACKAGE", \
	 .help = "Debian package of the nodes' kernel (default linux-image-cloud-amd64)"}, \
	{.id = OPT_ACCEL, .name = "accel", .arg = "auto|kvm|tcg", \
	 .help = "Hardware virtualization, emulation, or what is faster (default auto)"}
/* clang-format on */

struct up {
	struct lab_config config;
	const char *kernel_package, *accel, *on; /* on: the node that run's script runs in */
};

static int add_share(struct lab_config *c, const char *dir, struct error *err)
{
	struct stat st;
	char *path = realpath(dir, NULL);

	if (!path || stat(path, &st) < 0 || !S_ISDIR(st.st_mode)) {
		free(path);
		return error_set(err, -EINVAL, "--share %s is not a directory", dir);
	}
	if (c->nshares == LAB_SHARES_MAX) {
		free(path);
		return error_set(err, -EINVAL, "at most %d directories can be shared",
				 LAB_SHARES_MAX);
	}
	c->shares[c->nshares++] = path;
	return 0;
}

/* FILE or nodeN:FILE */
static int add_disk(struct lab_config *c, const char *text, struct error *err)
{
	const char *colon = strchr(text, ':');
	struct lab_disk disk = {.node = 0};
	char number[8] = "";
	int r;

	if (!strncmp(text, "node", 4) && colon && (size_t)(colon - text) < sizeof(number) + 3) {
		memcpy(number, text + 4, (size_t)(colon - text) - 4);
		r = parse_uint(number, "node of --disk", 1, LAB_NODES_MAX, &disk.node, err);
		if (r)
			return r;
		disk.node--;
		text = colon + 1;
	}
	if (c->ndisks == LAB_DISKS_MAX)
		return error_set(err, -EINVAL, "at most %d disks can be given", LAB_DISKS_MAX);
	disk.path = realpath(text, NULL);
	if (!disk.path)
		return error_errno(err, -errno, "cannot find disk %s", text);
	c->disks[c->ndisks++] = disk;
	return 0;
}

static int check_accel(const char *value, struct error *err)
{
	if (strcmp(value, "auto") && strcmp(value, "kvm") && strcmp(value, "tcg"))
		return error_set(err, -EINVAL, "--accel is auto, kvm or tcg, not %s", value);
	return 0;
}

static int up_option(struct up *up, int id, const char *value, struct error *err)
{
	struct lab_config *c = &up->config;

	switch (id) {
	case OPT_NAME:
		free(c->name);
		c->name = strdup(value);
		return c->name ? 0 : -ENOMEM;
	case OPT_NODES:
		return parse_uint(value, "--nodes", 1, LAB_NODES_MAX, &c->nodes, err);
	case OPT_CPUS:
		return parse_uint(value, "--cpus", 1, 255, &c->cpus, err);
	case OPT_MEMORY:
		return parse_size(value, 1 << 20, &c->memory, err);
	case OPT_HUGEPAGES:
		return parse_uint(value, "--hugepages", 0, 1 << 20, &c->hugepages, err);
	case OPT_NVME:
		c->nvme = true;
		return 0;
	case OPT_SSH:
		c->ssh = true;
		return 0;
	case OPT_SHARE:
		return add_share(c, value, err);
	case OPT_DISK:
		return add_disk(c, value, err);
	case OPT_KERNEL:
		up->kernel_package = value;
		return 0;
	case OPT_ACCEL:
		up->accel = value;
		return check_accel(value, err);
	default:
		up->on = value;
		return 0;
	}
}

static int check_config(const struct lab_config *c, struct error *err)
{
	if (c->memory % (2 << 20) || c->memory < MIN_MEMORY)
		return error_set(err, -EINVAL,
				 "--memory must be a multiple of 2 MiB and at least 512 MiB");
	if ((uint64_t)c->hugepages << 21 > c->memory / 4 * 3)
		return error_set(err, -EINVAL,
				 "--hugepages %u take more than three quarters of the memory",
				 c->hugepages);
	for (unsigned i = 0; i < c->ndisks; i++)
		if (c->disks[i].node >= c->nodes)
			return error_set(err, -EINVAL, "--disk names node%u of %u",
					 c->disks[i].node + 1, c->nodes);
	return paths_check_name(c->name, "lab", err);
}

/* Returns 0, or the exit code + 1 to leave with. */
static int parse_up(const struct command *cmd, struct option_parser *parser, struct up *up,
		    const char *default_name)
{
	const char *value;
	struct error err;
	int r;

	*up = (struct up){.accel = "auto", .config = {.nodes = 1, .memory = DEFAULT_MEMORY}};
	while ((r = option_next(parser, &value, &err)) > 0) {
		if (r == OPTION_HELP)
			return 1;
		r = up_option(up, r, value, &err);
		if (r < 0)
			break;
	}
	if (!r && !up->config.name) {
		up->config.name = strdup(default_name);
		r = up->config.name ? 0 : error_errno(&err, -ENOMEM, "cannot start");
	}
	if (!r)
		r = check_config(&up->config, &err);
	return r ? 1 + cli_fail(cmd, EXIT_USAGE, &err) : 0;
}

/* Says what will be slow or tight before it is. */
static void warn_about_memory(const struct lab_config *c)
{
	uint64_t available = probe_available_memory(""), wanted = c->memory * c->nodes;
	char have[32], want[32];

	if (available && wanted > available)
		fprintf(stderr,
			"wisp lab: %u nodes may come to use %s, %s are free here: fewer --nodes or "
			"less --memory if it gets slow\n",
			c->nodes, format_size(wanted >> 20 << 20, want, sizeof(want)),
			format_size(available >> 20 << 20, have, sizeof(have)));
}

static int choose_accel(struct up *up, struct error *err)
{
	enum kvm_verdict verdict;

	if (!strcmp(up->accel, "tcg"))
		return 0;
	verdict = probe_kvm(NULL, 0);
	up->config.kvm = verdict == KVM_HARDWARE;
	if (!up->config.kvm && !strcmp(up->accel, "kvm"))
		return error_set(err, -ENODEV,
				 "--accel kvm: KVM is %s here (wisp doctor tells why): --accel tcg",
				 kvm_verdict_name(verdict));
	return 0;
}

/* QEMU's emulation of several CPUs is not sound (docs/design/lab.md): several nodes are. */
static void choose_cpus(struct lab_config *c)
{
	if (!c->cpus)
		c->cpus = c->kvm ? 2 : 1;
	else if (c->cpus > 1 && !c->kvm)
		fprintf(stderr,
			"wisp lab: an emulated node with %u CPUs hangs now and then, a fault of "
			"the "
			"emulation: --nodes uses more of this machine, and does not\n",
			c->cpus);
}

static void print_reasons(const struct lab_config *c, unsigned node)
{
	CLEANUP_FREE char *console = lab_console_tail(c, node);
	CLEANUP_FREE char *log = lab_log_tail(c);
	char name[16];

	fprintf(stderr, "---- the end of what %s printed:\n%s\n", node_name(node, name),
		console && *console ? console : "(nothing)");
	fprintf(stderr, "---- the end of the log of QEMU and virtiofsd:\n%s----\n", log ? log : "");
}

static int wait_nodes(const struct lab_config *c, struct error *err)
{
	uint64_t start = io_now_ns();

	for (unsigned i = 0; i < c->nodes; i++) {
		char name[16], address[16];
		int r = lab_wait_ready(c, i, READY_TIMEOUT_NS, err);

		if (r) {
			print_reasons(c, i);
			return r;
		}
		fprintf(stderr, "wisp lab: %s is up after %.1f s (%s)\n", node_name(i, name),
			(double)(io_now_ns() - start) / 1e9, node_address(i, address));
	}
	return 0;
}

/* All of up but letting go of the leash. Exit code 0 or 1 + message. */
static int bring_up(const struct command *cmd, struct up *up, int *leash)
{
	struct lab_config *c = &up->config;
	CLEANUP_CLOSE int held = -1;
	char memory[32];
	struct error err;
	int r;

	r = choose_accel(up, &err);
	if (!r)
		r = lab_prepare(c, up->kernel_package, &err);
	if (r)
		return cli_fail(cmd, EXIT_FAILURE, &err);
	choose_cpus(c);
	warn_about_memory(c);
	fprintf(stderr, "wisp lab: starting lab %s: %u node%s, each %u CPU%s and %s, %s\n", c->name,
		c->nodes, c->nodes > 1 ? "s" : "", c->cpus, c->cpus > 1 ? "s" : "",
		format_size(c->memory, memory, sizeof(memory)),
		c->kvm ? "hardware virtualization" : "emulated");
	r = lab_start(c, &held, &err);
	if (!r) {
		r = wait_nodes(c, &err);
		if (r)
			lab_stop(c->name, NULL);
	}
	if (r)
		return cli_fail(cmd, EXIT_FAILURE, &err);
	*leash = take_fd(&held);
	return 0;
}

static int run_up(const struct command *cmd, int argc, char **argv)
{
	struct option_parser parser;
	struct up up;
	int code, leash = -1;

	option_start(&parser, cmd, argc, argv);
	code = parse_up(cmd, &parser, &up, lab_chosen(NULL));
	if (!code && parser.argc) {
		struct error err;

		error_set(&err, -EINVAL, "unexpected argument %s", parser.argv[0]);
		code = 1 + cli_fail(cmd, EXIT_USAGE, &err);
	}
	if (code) {
		code--;
	} else {
		code = bring_up(cmd, &up, &leash);
		if (!code)
			net_keeper_release(&leash);
	}
	lab_config_done(&up.config);
	return code;
}

static const struct option_desc up_options[] = {UP_OPTIONS, {0}};

const struct command cmd_lab_up = {
	.name = "lab up",
	.args = "",
	.summary = "Start a lab: emulated nodes in which KVM is real",
	.details =
		"A node sees the files of this machine (writes go to memory and are lost), has a "
		"name and an address on a private network, and a complete /dev/kvm. Run "
		"commands in it with wisp lab exec; end the lab with wisp lab down.",
	.options = up_options,
	.run = run_up,
};

/* The script on this machine, told by $WISP_LAB which lab is its own. */
static int run_here(const struct command *cmd, const struct lab_config *c, char **argv)
{
	struct process process = {.argv = (const char *const *)argv, .die_with_parent = true};
	struct error err;
	int r, status;
	pid_t pid;

	setenv("WISP_LAB", c->name, 1);
	r = process_start(&process, &pid, &err);
	if (!r)
		r = process_wait(pid, &status);
	return r ? cli_fail(cmd, EXIT_CANNOT_RUN, &err) : process_exit_code(status);
}

static int run_there(const struct command *cmd, const struct lab_config *c, const char *node,
		     char **argv)
{
	__attribute__((cleanup(args_done))) struct args env = {0};
	CLEANUP_FREE char *cwd = getcwd(NULL, 0);
	struct client_exec exec = {.argv = (const char *const *)argv,
				   .cwd = cwd,
				   .in_fd = STDIN_FILENO,
				   .out_fd = STDOUT_FILENO,
				   .err_fd = STDERR_FILENO};

	lab_exec_env(&env);
	exec.env = (const char *const *)env.v;
	return lab_exec(cmd, c->name, node, &exec, false);
}

static int run_run(const struct command *cmd, int argc, char **argv)
{
	CLEANUP_FREE char *own_name = io_format("run-%d", getpid());
	struct option_parser parser;
	struct up up;
	struct error err;
	int code, leash = -1;

	option_start(&parser, cmd, argc, argv);
	code = own_name ? parse_up(cmd, &parser, &up, own_name) : 1 + EXIT_FAILURE;
	if (!code && !parser.argc) {
		error_set(&err, -EINVAL, "no program to run: wisp lab run --nodes 2 -- SCRIPT");
		code = 1 + cli_fail(cmd, EXIT_USAGE, &err);
	}
	if (code) {
		code--;
	} else {
		code = bring_up(cmd, &up, &leash);
		if (!code) {
			argv[parser.argc] = NULL;
			code = up.on ? run_there(cmd, &up.config, up.on, parser.argv)
				     : run_here(cmd, &up.config, parser.argv);
			if (lab_stop(up.config.name, &err) < 0)
				fprintf(stderr, "wisp %s: %s\n", cmd->name, err.text);
			close(leash);
		}
	}
	lab_config_done(&up.config);
	return code;
}

static const struct option_desc run_options[] = {
	UP_OPTIONS,
	{.id = OPT_ON,
	 .name = "on",
	 .arg = "NODE",
	 .help = "Run the program in this node, not on this machine"},
	{0}};

const struct command cmd_lab_run = {
	.name = "lab run",
	.args = "[--] PROGRAM [ARGUMENT...]",
	.summary = "Start a lab, run a program, end the lab",
	.details = "The program runs on this machine, with WISP_LAB set so that wisp lab exec and "
		   "the others mean this lab, or in a node (--on). Its exit code is that of the "
		   "command. The lab ends with the program, and when this command is killed.",
	.options = run_options,
	.stops_at_args = true,
	.run = run_run,
};
