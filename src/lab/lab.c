/* SPDX-License-Identifier: Apache-2.0 */
/* The commands' side of a lab: preparing, starting, asking and stopping it. */

#include "lab/lab.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/client.h"
#include "image/kernel.h"
#include "lab/fresh.h"
#include "lab/ssh.h"
#include "lab/supervise.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/paths.h"
#include "net/client.h"
#include "net/keeper.h"
#include "net/message.h"
#include "net/state.h"
#include "net/virtiofsd.h"

#define TAIL 2000 /* bytes of a log that are shown */
#define POLL_MS 100
#define TSC_SAMPLE_MS 50
#define CONNECT_TIMEOUT_MS 5000

void lab_config_done(struct lab_config *c)
{
	free(c->name);
	free(c->dir);
	free(c->kernel);
	free(c->agent);
	free(c->modules);
	free(c->virtiofsd);
	free(c->preload);
	for (unsigned i = 0; i < c->nshares; i++)
		free(c->shares[i]);
	for (unsigned i = 0; i < c->ndisks; i++)
		free(c->disks[i].path);
	if (c->ssh_keys)
		close(c->ssh_keys);
	*c = (struct lab_config){0};
}

/* Against the system's clock, for long enough to be right to some millionths. */
static unsigned measure_tsc_khz(void)
{
	uint64_t start_ns = io_now_ns(), start = __builtin_ia32_rdtsc(), ns, ticks;

	poll(NULL, 0, TSC_SAMPLE_MS);
	ns = io_now_ns() - start_ns;
	ticks = __builtin_ia32_rdtsc() - start;
	return (unsigned)(ticks * 1000 / (ns / 1000));
}

int lab_prepare(struct lab_config *config, const char *kernel_package, struct error *err)
{
	struct kernel kernel = {0};
	int r = config->ssh ? ssh_check(err) : 0;

	if (!r)
		r = virtiofsd_find(&config->virtiofsd, err);
	if (!r && geteuid())
		r = paths_program("wisp-noatime.so", &config->preload, err);
	if (!r)
		r = kernel_get(kernel_package ? kernel_package : KERNEL_DEFAULT, &kernel, err);
	config->tsc_khz = measure_tsc_khz();
	if (!r)
		r = paths_program("wisp-agent", &config->agent, err);
	if (!r) {
		config->kernel = take_ptr(kernel.vmlinuz);
		config->modules = take_ptr(kernel.modules);
	}
	kernel_done(&kernel);
	return r;
}

int lab_start(struct lab_config *config, int *leash, struct error *err)
{
	struct net_config net = {
		.name = config->name, .address = LAB_BRIDGE_ADDRESS "/24", .hooks = &lab_hooks};
	struct lab *lab = NULL;
	int r = paths_run("lab", config->name, &config->dir, err);

	if (r)
		return r;
	r = lab_create(config, &lab);
	if (r)
		return error_errno(err, r, "cannot start lab %s", config->name);
	net.dir = config->dir;
	net.arg = lab;
	r = net_keeper_start(&net, leash, err);
	lab_destroy(lab);
	if (r == -EBUSY)
		error_set(err, r,
			  "lab %s runs already: wisp lab down --name %s ends it, --name chooses "
			  "another name",
			  config->name, config->name);
	if (r || !config->ssh)
		return r;
	r = ssh_make_keys(config->dir, err);
	if (r < 0) {
		close(take_fd(leash));
		lab_stop(config->name, NULL);
		return r;
	}
	config->ssh_keys = r;
	return 0;
}

static int open_control(const char *name, struct error *err)
{
	CLEANUP_FREE char *dir = NULL;
	int r = paths_run("lab", name, &dir, err);

	if (r)
		return r;
	r = net_connect(dir, NULL);
	if (r == -ENOENT || r == -ECONNREFUSED)
		return error_set(err, -ENOENT, "no lab %s runs: wisp lab up starts one", name);
	return r < 0 ? error_errno(err, r, "cannot reach lab %s", name) : r;
}

static void copy_string(char *to, size_t size, const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	snprintf(to, size, "%s", text ? text : "");
}

static void decode_status(const json_t *answer, struct lab_status *ret)
{
	const json_t *nodes = json_object_get(answer, "nodes"), *value;
	size_t i;

	*ret = (struct lab_status){
		.cpus = (unsigned)json_integer_value(json_object_get(answer, "cpus")),
		.memory = (uint64_t)json_integer_value(json_object_get(answer, "memory")),
	};
	copy_string(ret->accel, sizeof(ret->accel), answer, "accel");
	json_array_foreach (nodes, i, value) {
		struct lab_node *node = &ret->node[i];

		if (i >= LAB_NODES_MAX)
			break;
		copy_string(node->name, sizeof(node->name), value, "name");
		copy_string(node->address, sizeof(node->address), value, "address");
		copy_string(node->reason, sizeof(node->reason), value, "reason");
		node->running = json_is_true(json_object_get(value, "running"));
		ret->nodes++;
	}
}

static int ask_status(int control, struct lab_status *ret, struct error *err)
{
	json_t *request = json_pack("{ss}", "op", "nodes"), *answer = NULL;
	int r = request ? message_call(control, request, &answer, NULL, err) : -ENOMEM;

	if (!r)
		decode_status(answer, ret);
	json_decref(answer);
	json_decref(request);
	return r;
}

int lab_status(const char *name, struct lab_status *ret, struct error *err)
{
	CLEANUP_CLOSE int control = open_control(name, err);

	return control < 0 ? control : ask_status(control, ret, err);
}

bool lab_crashed(const char *name)
{
	CLEANUP_FREE char *dir = NULL;

	return !paths_run("lab", name, &dir, NULL) && !access(dir, F_OK) && !state_alive(dir);
}

static const struct lab_node *find_node(const struct lab_status *status, const char *name)
{
	for (unsigned i = 0; i < status->nodes; i++)
		if (!strcmp(status->node[i].name, name))
			return &status->node[i];
	return NULL;
}

/* The node's address, when it runs. */
static int find_running(int control, const char *name, const char *node, struct lab_node *ret,
			struct error *err)
{
	struct lab_status status;
	const struct lab_node *found;
	int r = ask_status(control, &status, err);

	if (r)
		return r;
	found = find_node(&status, node);
	if (!found)
		return error_set(err, -ENOENT, "lab %s has no node %s, only node1 to node%u", name,
				 node, status.nodes);
	if (!found->running)
		return error_set(err, -EHOSTDOWN, "%s of lab %s does not run: %s", node, name,
				 found->reason);
	*ret = *found;
	return 0;
}

int lab_connect(const char *name, const char *node, int timeout_ms, int *ret, struct error *err)
{
	CLEANUP_CLOSE int control = open_control(name, err);
	struct lab_node found;
	int r = control;

	if (r >= 0)
		r = find_running(control, name, node, &found, err);
	if (!r)
		r = net_connect_tcp(control, found.address, LAB_AGENT_PORT, timeout_ms, ret, err);
	return r;
}

int lab_check_node(const char *name, const char *node, struct error *err)
{
	CLEANUP_CLOSE int control = open_control(name, err);
	struct lab_node found;

	return control < 0 ? control : find_running(control, name, node, &found, err);
}

/* Runs a script in the node, with our standard error for all it says. input: -1: none. */
static int run_script(int fd, const char *const *argv, int input, const char *what,
		      struct error *err)
{
	struct client_exec exec = {.argv = argv,
				   .cwd = "/",
				   .in_fd = input,
				   .out_fd = STDERR_FILENO,
				   .err_fd = STDERR_FILENO};
	int code = 0, r = client_exec(fd, &exec, &code, err);

	if (r)
		return error_prefix(err, r, "cannot %s", what);
	return code ? error_set(err, -EIO, "cannot %s: exit code %d", what, code) : 0;
}

int lab_freshen(const char *name, const char *node, const char *cwd, const char *const *argv,
		bool always, struct error *err)
{
	/* Drops what is known of files that are not in use; their pages go with it. */
	static const char *const forget[] = {"sh", "-c", "echo 2 >/proc/sys/vm/drop_caches", NULL};
	CLEANUP_FREE char *dir = NULL;
	CLEANUP_CLOSE int fd = -1;
	int r = paths_run("lab", name, &dir, err);

	if (r || (!always && !fresh_stale(dir, node, cwd, argv)))
		return r;
	r = lab_connect(name, node, CONNECT_TIMEOUT_MS, &fd, err);
	/* The mark comes first: what changes meanwhile is looked at again. */
	if (!r)
		r = fresh_mark(dir, node, err);
	return r ? r : run_script(fd, forget, -1, "make the node look at its files again", err);
}

/*
 * What the agent leaves to us. $1 is the folder of the kernel's modules, the others are the shared
 * directories. The devices are for everybody: a node is for experiments.
 */
static const char finish_script[] =
	"mkdir -p /dev/hugepages /lib/modules\n"
	"mount -t hugetlbfs hugetlbfs /dev/hugepages\n"
	"ln -sfn \"$1\" /lib/modules/$(uname -r)\n"
	"for f in /dev/kvm /dev/net/tun /dev/vhost-net /dev/vhost-vsock /dev/vfio/vfio; do\n"
	"	[ ! -e $f ] || chmod 666 $f\n"
	"done\n"
	"shift\n"
	"n=0\n"
	"for dir; do\n"
	"	mkdir -p \"$dir\" && mount -t virtiofs share$n \"$dir\" || exit\n"
	"	n=$((n + 1))\n"
	"done\n";

static int finish_node(const struct lab_config *config, int fd, struct error *err)
{
	const char *argv[LAB_SHARES_MAX + 6] = {"sh", "-c", finish_script, "sh", config->modules};

	for (unsigned i = 0; i < config->nshares; i++)
		argv[5 + i] = config->shares[i];
	return run_script(fd, argv, -1, "finish the set-up", err);
}

/* ssh from and to the other nodes. */
static int install_ssh(const struct lab_config *config, const char *node, struct error *err)
{
	const char *argv[] = {"sh", "-c", ssh_install_script, NULL};
	CLEANUP_CLOSE int fd = -1;
	int r = lab_connect(config->name, node, CONNECT_TIMEOUT_MS, &fd, err);

	if (!r && lseek(config->ssh_keys, 0, SEEK_SET) < 0)
		r = error_errno(err, -errno, "cannot read the keys for ssh");
	return r ? r : run_script(fd, argv, config->ssh_keys, "start ssh", err);
}

/*
 * The agent listens once the node is set up. Before the node's kernel runs nothing answers at
 * all, so each try is short.
 */
int lab_wait_ready(const struct lab_config *config, unsigned node, uint64_t timeout_ns,
		   struct error *err)
{
	uint64_t end = io_now_ns() + timeout_ns;
	char name[16];

	node_name(node, name);
	for (;;) {
		CLEANUP_CLOSE int fd = -1;
		int r = lab_connect(config->name, name, 5 * POLL_MS, &fd, err);

		if (!r) {
			r = finish_node(config, fd, err);
			return r || !config->ssh ? r : install_ssh(config, name, err);
		}
		if (r == -EHOSTDOWN || r == -ENOENT)
			return r;
		if (io_now_ns() > end)
			return error_set(err, -ETIMEDOUT, "%s does not answer after %llu s", name,
					 (unsigned long long)(timeout_ns / 1000000000));
		poll(NULL, 0, POLL_MS);
	}
}

static char *file_tail(const char *path)
{
	CLEANUP_CLOSE int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	char *text = calloc(1, TAIL + 1);
	struct stat st;

	if (fd >= 0 && text && !fstat(fd, &st) &&
	    pread(fd, text, TAIL, st.st_size > TAIL ? st.st_size - TAIL : 0) < 0)
		*text = 0;
	return text;
}

char *lab_console_tail(const struct lab_config *config, unsigned node)
{
	char name[16];
	CLEANUP_FREE char *path = io_format("%s/%s.console", config->dir, node_name(node, name));

	return file_tail(path);
}

char *lab_log_tail(const struct lab_config *config)
{
	CLEANUP_FREE char *path = io_format("%s/log", config->dir);

	return file_tail(path);
}

int lab_stop(const char *name, struct error *err)
{
	CLEANUP_FREE char *dir = NULL;
	int r = paths_run("lab", name, &dir, err);

	return r ? r : net_stop(dir, err);
}
