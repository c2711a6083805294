/* SPDX-License-Identifier: Apache-2.0 */
/* wisp lab: emulated nodes in which KVM is real. */

#include "cli/commands.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/client.h"
#include "doctor/probe.h"
#include "lab/lab.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/parse.h"
#include "lib/paths.h"
#include "lib/process.h"
#include "net/client.h"
#include "net/keeper.h"
#include "net/state.h"

#define READY_TIMEOUT_NS (180ull * 1000000000) /* slow machines with many nodes */
#define CONNECT_TIMEOUT_MS 5000
#define DEFAULT_MEMORY (3ull << 30)
#define MIN_MEMORY (512ull << 20)

enum {
	OPT_NAME = 1,
	OPT_NODES,
	OPT_CPUS,
	OPT_MEMORY,
	OPT_HUGEPAGES,
	OPT_NVME,
	OPT_SHARE,
	OPT_DISK,
	OPT_KERNEL,
	OPT_ACCEL,
	OPT_ON,
	OPT_JSON,
	OPT_NAMES,
	OPT_ALL,
	OPT_USER,
	OPT_CWD,
	OPT_ENV,
	OPT_FRESH,
	OPT_TTY,
	OPT_NO_TTY,
};

#define NAME_OPTION                                                                      \
	{                                                                                \
		.id = OPT_NAME, .name = "name", .letter = 'n', .arg = "LAB",             \
		.help = "Which lab, when there are several (default: $WISP_LAB, or lab)" \
	}

#define UP_OPTIONS                                                                               \
	NAME_OPTION,                                                                             \
		{.id = OPT_NODES,                                                                \
		 .name = "nodes",                                                                \
		 .letter = 'N',                                                                  \
		 .arg = "COUNT",                                                                 \
		 .help = "Number of nodes, node1 to nodeCOUNT (default 1)"},                     \
		{.id = OPT_CPUS,                                                                 \
		 .name = "cpus",                                                                 \
		 .arg = "COUNT",                                                                 \
		 .help = "CPUs of each node (default 2)"},                                       \
		{.id = OPT_MEMORY,                                                               \
		 .name = "memory",                                                               \
		 .arg = "SIZE",                                                                  \
		 .help = "Memory of each node (default 3 GiB); taken as it is used"},            \
		{.id = OPT_HUGEPAGES,                                                            \
		 .name = "hugepages",                                                            \
		 .arg = "COUNT",                                                                 \
		 .help = "2 MiB pages reserved in each node (default 0)"},                       \
		{.id = OPT_NVME,                                                                 \
		 .name = "nvme",                                                                 \
		 .help = "Give each node an NVMe disk of 1 GiB with two SR-IOV functions"},      \
		{.id = OPT_SHARE,                                                                \
		 .name = "share",                                                                \
		 .arg = "DIR",                                                                   \
		 .help = "Mount this directory writable at the same path in every node (may be " \
			 "repeated)",                                                            \
		 .complete = COMPLETE_DIR},                                                      \
		{.id = OPT_DISK,                                                                 \
		 .name = "disk",                                                                 \
		 .arg = "[NODE:]FILE",                                                           \
		 .help = "Give the file to a node (default node1) as a virtio disk (may be "     \
			 "repeated)",                                                            \
		 .complete = COMPLETE_FILE},                                                     \
		{.id = OPT_KERNEL,                                                               \
		 .name = "kernel",                                                               \
		 .arg = "PACKAGE",                                                               \
		 .help = "Debian package of the nodes' kernel (default "                         \
			 "linux-image-cloud-amd64)"},                                            \
	{                                                                                        \
		.id = OPT_ACCEL, .name = "accel", .arg = "auto|kvm|tcg",                         \
		.help = "Hardware virtualization, emulation, or what is faster (default auto)"   \
	}

/* The lab's name: the option's value, $WISP_LAB, "lab". */
static const char *lab_name(const char *option)
{
	const char *env = getenv("WISP_LAB");

	return option ? option : env && *env ? env : "lab";
}

/* -------- up and run -------- */

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

	*up = (struct up){.accel = "auto",
			  .config = {.nodes = 1, .cpus = 2, .memory = DEFAULT_MEMORY}};
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
	warn_about_memory(c);
	fprintf(stderr, "wisp lab: starting lab %s: %u node%s, each %u CPUs and %s, %s\n", c->name,
		c->nodes, c->nodes > 1 ? "s" : "", c->cpus,
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
	code = parse_up(cmd, &parser, &up, lab_name(NULL));
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

/* Runs the program in the node with our streams. Returns its exit code. */
static int exec_in(const struct command *cmd, const char *lab, const char *node,
		   const struct client_exec *exec, bool fresh)
{
	CLEANUP_CLOSE int fd = -1;
	struct error err;
	int code, r = lab_connect(lab, node, CONNECT_TIMEOUT_MS, &fd, &err);

	if (!r)
		r = lab_freshen(lab, node, exec->cwd, exec->argv, fresh, &err);
	if (!r)
		r = client_exec(fd, exec, &code, &err);
	return r ? cli_fail(cmd, EXIT_CANNOT_RUN, &err) : code;
}

/*
 * The node has this machine's files, so what leads to them means the same there: PATH, HOME,
 * and our own variables but those that tell of things that run here.
 */
static void inherit_env(struct args *env)
{
	for (char **e = environ; *e; e++)
		if (!strncmp(*e, "PATH=", 5) || !strncmp(*e, "HOME=", 5) ||
		    !strncmp(*e, "LANG=", 5) ||
		    (!strncmp(*e, "WISP_", 5) && strncmp(*e, "WISP_LAB=", 9) &&
		     strncmp(*e, "WISP_RUN=", 9)))
			args_add(env, "%s", *e);
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

	inherit_env(&env);
	exec.env = (const char *const *)env.v;
	return exec_in(cmd, c->name, node, &exec, false);
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

/* -------- exec -------- */

struct exec_options {
	const char *lab, *user, *cwd;
	struct args env;
	bool fresh;
	int tty; /* 1 yes, 0 no, -1 when both ends are terminals */
};

static int parse_exec(struct option_parser *parser, struct exec_options *o, struct error *err)
{
	const char *value;
	int r;

	while ((r = option_next(parser, &value, err)) > 0) {
		switch (r) {
		case OPTION_HELP:
			return r;
		case OPT_NAME:
			o->lab = value;
			break;
		case OPT_USER:
			o->user = value;
			break;
		case OPT_CWD:
			o->cwd = value;
			break;
		case OPT_ENV:
			if (!strchr(value, '='))
				return error_set(err, -EINVAL, "--env %s is not NAME=VALUE", value);
			args_add(&o->env, "%s", value);
			break;
		case OPT_FRESH:
			o->fresh = true;
			break;
		default:
			o->tty = r == OPT_TTY;
		}
	}
	if (!r && !parser->argc)
		r = error_set(err, -EINVAL, "which node? wisp lab exec NODE [--] PROGRAM ...");
	return r;
}

static int run_exec(const struct command *cmd, int argc, char **argv)
{
	CLEANUP_FREE char *cwd = getcwd(NULL, 0);
	struct exec_options o = {.lab = lab_name(NULL), .cwd = cwd, .tty = -1};
	struct client_exec exec = {
		.in_fd = STDIN_FILENO, .out_fd = STDOUT_FILENO, .err_fd = STDERR_FILENO};
	struct option_parser parser;
	struct error err;
	int r;

	inherit_env(&o.env);
	option_start(&parser, cmd, argc, argv);
	r = parse_exec(&parser, &o, &err);
	if (!r) {
		argv[parser.argc] = NULL;
		exec.argv = (const char *const *)parser.argv + 1;
		/* NODE -- PROGRAM: the dashes separate. */
		if (exec.argv[0] && !strcmp(exec.argv[0], "--"))
			exec.argv++;
		exec.shell = !exec.argv[0];
		exec.env = (const char *const *)o.env.v;
		exec.cwd = o.cwd;
		exec.user = o.user;
		exec.terminal = o.tty >= 0 ? o.tty : isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
		r = exec_in(cmd, o.lab, parser.argv[0], &exec, o.fresh);
	} else {
		r = r > 0 ? 0 : cli_fail(cmd, EXIT_USAGE, &err);
	}
	args_done(&o.env);
	return r;
}

static const struct option_desc exec_options[] = {
	NAME_OPTION,
	{.id = OPT_USER,
	 .name = "user",
	 .letter = 'u',
	 .arg = "USER",
	 .help = "Run as this user of the node (default root)"},
	{.id = OPT_CWD,
	 .name = "cwd",
	 .arg = "DIR",
	 .help = "Run in this directory (default the current one, which the node has as well)"},
	{.id = OPT_ENV,
	 .name = "env",
	 .letter = 'e',
	 .arg = "NAME=VALUE",
	 .help = "Set a variable (may be repeated); PATH, HOME, LANG and WISP_* are passed on"},
	{.id = OPT_TTY,
	 .name = "tty",
	 .letter = 't',
	 .help = "Give it a terminal (default when input and output are terminals)"},
	{.id = OPT_FRESH,
	 .name = "fresh",
	 .help = "Make the node look at all files of this machine again"},
	{.id = OPT_NO_TTY, .name = "no-tty", .letter = 'T', .help = "Give it none"},
	{0}};

const struct command cmd_lab_exec = {
	.name = "lab exec",
	.args = "NODE [--] [PROGRAM [ARGUMENT...]]",
	.summary = "Run a program in a node; without one, a shell",
	.details =
		"The program's input, output, errors and exit code are those of this command "
		"(128 + N when signal N ended it); 126 when it could not be run. Signals are "
		"passed on.\n\nA node remembers the files it has seen. It looks again "
		"when the program, a file among its arguments, Wisp's own programs or the images "
		"have changed here since; --fresh makes it look again in any case.",
	.options = exec_options,
	.stops_at_args = true,
	.complete = COMPLETE_NODE,
	.run = run_exec,
};

/* -------- status, down and net: about labs that run -------- */

struct about_options {
	const char *lab; /* NULL: not said */
	bool json, names, all;
};

/* 0, OPTION_HELP, or -errno. */
static int parse_about(struct option_parser *parser, struct about_options *o, struct error *err)
{
	const char *value;
	int r;

	while ((r = option_next(parser, &value, err)) > 0) {
		if (r == OPTION_HELP)
			return r;
		if (r == OPT_NAME)
			o->lab = value;
		o->json |= r == OPT_JSON;
		o->names |= r == OPT_NAMES;
		o->all |= r == OPT_ALL;
	}
	if (!r && parser->argc && !parser->cmd->stops_at_args)
		r = error_set(err, -EINVAL, "unexpected argument %s", parser->argv[0]);
	return r;
}

/* Calls fn for the lab that was named, or for all there are, dead or alive; adds up results. */
static int each_lab(const char *only, int (*fn)(const char *name, void *arg, struct error *err),
		    void *arg, struct error *err)
{
	CLEANUP_FREE char *folder = NULL;
	char **names = NULL;
	int r = 0, sum = 0;

	if (only)
		return fn(only, arg, err);
	r = paths_run("lab", NULL, &folder, err);
	if (!r)
		r = state_list(folder, &names, err);
	for (char **name = names; !r && *name; name++) {
		int n = fn(*name, arg, err);

		if (n < 0)
			r = n;
		else
			sum += n;
	}
	state_list_free(names);
	return r ? r : sum;
}

static json_t *describe_lab(const char *name, const struct lab_status *s)
{
	json_t *nodes = json_array();

	for (unsigned i = 0; i < s->nodes; i++)
		json_array_append_new(nodes, json_pack("{ss, ss, sb, ss}", "name", s->node[i].name,
						       "address", s->node[i].address, "running",
						       (int)s->node[i].running, "reason",
						       s->node[i].reason));
	return json_pack("{ss, sb, ss, si, sI, so}", "name", name, "running", 1, "accel", s->accel,
			 "cpus", (int)s->cpus, "memory", (json_int_t)s->memory, "nodes", nodes);
}

static void print_lab(const char *name, const struct lab_status *s)
{
	char memory[32];

	printf("lab %s: each node %u CPUs, %s, %s\n", name, s->cpus,
	       format_size(s->memory, memory, sizeof(memory)),
	       strcmp(s->accel, "kvm") ? "emulated" : "hardware virtualization");
	for (unsigned i = 0; i < s->nodes; i++)
		printf("  %-8s %-12s %s\n", s->node[i].name, s->node[i].address,
		       s->node[i].running ? "running" : s->node[i].reason);
}

struct status_output {
	bool names;
	json_t *json; /* array, or NULL */
};

/* A keeper that was killed leaves a directory; it is nothing that runs. */
static int show_crashed(const char *name, const struct status_output *out)
{
	if (out->json)
		json_array_append_new(
			out->json, json_pack("{ss, sb, s[]}", "name", name, "running", 0, "nodes"));
	else if (!out->names)
		printf("lab %s: crashed; wisp lab down --name %s sweeps up\n", name, name);
	return 0;
}

static int show_status(const char *name, void *arg, struct error *err)
{
	const struct status_output *out = arg;
	struct lab_status status;
	int r = lab_status(name, &status, err);

	if (r == -ENOENT && lab_crashed(name))
		return show_crashed(name, out);
	if (r)
		return r;
	if (out->json)
		json_array_append_new(out->json, describe_lab(name, &status));
	for (unsigned i = 0; out->names && i < status.nodes; i++)
		puts(status.node[i].name);
	if (!out->names && !out->json)
		print_lab(name, &status);
	return 1;
}

static int run_status(const struct command *cmd, int argc, char **argv)
{
	struct about_options o = {0};
	struct status_output out = {0};
	struct option_parser parser;
	struct error err;
	int r;

	option_start(&parser, cmd, argc, argv);
	r = parse_about(&parser, &o, &err);
	if (r)
		return r > 0 ? 0 : cli_fail(cmd, EXIT_USAGE, &err);
	out.names = o.names;
	out.json = o.json ? json_array() : NULL;
	r = each_lab(o.names && !o.lab ? lab_name(NULL) : o.lab, show_status, &out, &err);
	if (r >= 0 && out.json) {
		json_dumpf(out.json, stdout, JSON_INDENT(2));
		putchar('\n');
	}
	json_decref(out.json);
	return r < 0 ? cli_fail(cmd, EXIT_FAILURE, &err) : 0;
}

static const struct option_desc status_options[] = {
	NAME_OPTION,
	{.id = OPT_JSON, .name = "json", .help = "Print a JSON array of labs"},
	{.id = OPT_NAMES, .name = "names", .help = "Print the names of the nodes alone"},
	{0}};

const struct command cmd_lab_status = {
	.name = "lab status",
	.args = "",
	.summary = "Show the labs and which of their nodes run",
	.details =
		"Without --name all labs of this user, perhaps none. Exits with 1 when the named "
		"lab does not exist.",
	.options = status_options,
	.run = run_status,
};

static int stop_one(const char *name, void *arg, struct error *err)
{
	int r = lab_stop(name, err);

	if (r >= 0)
		fprintf(stderr, "wisp lab down: lab %s %s\n", name, r ? "is gone" : "does not run");
	return r;
}

static int run_down(const struct command *cmd, int argc, char **argv)
{
	struct about_options o = {0};
	struct option_parser parser;
	struct error err;
	int r;

	option_start(&parser, cmd, argc, argv);
	r = parse_about(&parser, &o, &err);
	if (r)
		return r > 0 ? 0 : cli_fail(cmd, EXIT_USAGE, &err);
	r = each_lab(o.all ? NULL : lab_name(o.lab), stop_one, NULL, &err);
	return r < 0 ? cli_fail(cmd, EXIT_FAILURE, &err) : 0;
}

static const struct option_desc down_options[] = {
	NAME_OPTION,
	{.id = OPT_ALL, .name = "all", .letter = 'a', .help = "End all labs of this user"},
	{0}};

const struct command cmd_lab_down = {
	.name = "lab down",
	.args = "",
	.summary = "End a lab and sweep up what a crashed one left",
	.details = "Exits with 0 also when there was no lab.",
	.options = down_options,
	.run = run_down,
};

static int run_net(const struct command *cmd, int argc, char **argv)
{
	struct about_options o = {0};
	CLEANUP_FREE char *dir = NULL;
	CLEANUP_CLOSE int control = -1;
	struct option_parser parser;
	struct error err;
	int r;

	option_start(&parser, cmd, argc, argv);
	r = parse_about(&parser, &o, &err);
	if (!r && !parser.argc)
		r = error_set(&err, -EINVAL, "no program to run: wisp lab net -- ip address");
	if (r)
		return r > 0 ? 0 : cli_fail(cmd, EXIT_USAGE, &err);
	argv[parser.argc] = NULL;
	r = paths_run("lab", lab_name(o.lab), &dir, &err);
	if (!r)
		r = control = net_connect(dir, &err);
	if (r >= 0)
		r = net_run(control, parser.argv, &err);
	return r < 0 ? cli_fail(cmd, EXIT_CANNOT_RUN, &err) : r;
}

static const struct option_desc net_options[] = {NAME_OPTION, {0}};

const struct command cmd_lab_net = {
	.name = "lab net",
	.args = "[--] PROGRAM [ARGUMENT...]",
	.summary = "Run a program of this machine on a lab's private network",
	.details = "It sees the bridge (10.77.0.1) and reaches the nodes, and nothing else: for "
		   "tcpdump, iperf3 and the like. Its exit code is that of the command.",
	.options = net_options,
	.stops_at_args = true,
	.run = run_net,
};
