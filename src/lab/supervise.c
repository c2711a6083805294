/* SPDX-License-Identifier: Apache-2.0 */
/* The keeper's side of a lab: QEMU and virtiofsd processes of each node. */

#include "lab/supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "image/initrd.h"
#include "lab/fresh.h"
#include "lab/qemu.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/log.h"
#include "lib/process.h"
#include "net/virtiofsd.h"

#define NVME_SIZE (1ull << 30)
#define FILES_MAX (1u << 20) /* of a process, as fs.nr_open allows by default */

struct node {
	pid_t qemu;		      /* 0 once it has ended */
	pid_t fs[1 + LAB_SHARES_MAX]; /* virtiofsd of the root and of the shares, likewise */
	char reason[160];	      /* why it ended; "" while it runs */
};

struct lab {
	const struct lab_config *config;
	struct node nodes[];
};

int lab_create(const struct lab_config *config, struct lab **ret)
{
	struct lab *lab = calloc(1, sizeof(*lab) + config->nodes * sizeof(lab->nodes[0]));

	if (!lab)
		return -ENOMEM;
	lab->config = config;
	*ret = lab;
	return 0;
}

void lab_destroy(struct lab *lab)
{
	free(lab);
}

/*
 * Only what was shared by name can be written: for the others the kernel, not the node, sees to
 * that.
 */
static int start_fs(const struct lab_config *config, const char *source, bool read_only, pid_t *pid,
		    int *connected, struct error *err)
{
	const struct virtiofsd fs = {.program = config->virtiofsd,
				     .preload = config->preload,
				     .source = source,
				     .read_only = read_only,
				     .cached = read_only};

	return virtiofsd_start(&fs, pid, connected, err);
}

static int start_qemu(const struct lab_config *config, unsigned index, const int *fds,
		      unsigned nfds, pid_t *pid, struct error *err)
{
	__attribute__((cleanup(args_done))) struct args args = {0};
	struct process process = {.fds = fds, .nfds = nfds};

	qemu_args(config, index, &args);
	if (args.failed)
		return error_errno(err, -ENOMEM, "cannot start QEMU");
	process.argv = (const char *const *)args.v;
	return process_start(&process, pid, err);
}

/*
 * What a node's kernel loads before its root is there, and what people come to the lab for:
 * KVM, its networks, device passthrough. Names that are built in are left out. An emulated CPU is
 * an AMD one; with hardware the module of the other vendor refuses.
 */
static int make_initrd(const struct lab_config *config, struct error *err)
{
	const char *const names[] = {"virtio_pci", "virtiofs",
				     "overlay",	   "virtio_net",
				     "virtio_blk", "virtio_rng",
				     "kvm-amd",	   "tun",
				     "vhost_net",  "vhost_vsock",
				     "vfio-pci",   "bridge",
				     "veth",	   "vxlan",
				     "nvme",	   "macvtap",
				     "8021q",	   "vfio_iommu_type1",
				     "loop",	   "squashfs",
				     "nf_tables",  config->kvm ? "kvm-intel" : NULL,
				     NULL};
	struct initrd initrd = {
		.modules = config->modules, .names = names, .agent = config->agent, .lz4 = true};
	CLEANUP_FREE char *path = io_format("%s/initrd", config->dir);

	return path ? initrd_build(&initrd, path, err) : -ENOMEM;
}

static int make_nvme_file(const struct lab_config *config, const char *name, struct error *err)
{
	CLEANUP_FREE char *path = io_format("%s/%s.nvme", config->dir, name);
	CLEANUP_CLOSE int fd = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;

	if (fd < 0 || ftruncate(fd, NVME_SIZE) < 0)
		return error_errno(err, -errno, "cannot create the NVMe disk of %s", name);
	return 0;
}

static int start_node(struct net_keeper *keeper, struct lab *lab, unsigned index, struct error *err)
{
	const struct lab_config *config = lab->config;
	struct node *node = &lab->nodes[index];
	int fds[QEMU_FD_FS + 1 + LAB_SHARES_MAX] = {-1, STDOUT_FILENO, STDERR_FILENO, -1};
	unsigned nfds = QEMU_FD_FS;
	char name[16];
	int r = net_keeper_tap(keeper, node_name(index, name), &fds[QEMU_FD_TAP], err);

	if (!r)
		r = fresh_mark(config->dir, name, err);
	if (!r && config->nvme)
		r = make_nvme_file(config, name, err);
	for (unsigned i = 0; !r && i <= config->nshares; i++) {
		r = start_fs(config, i ? config->shares[i - 1] : "/", !i, &node->fs[i], &fds[nfds],
			     err);
		nfds += !r;
	}
	if (!r)
		r = start_qemu(config, index, fds, nfds, &node->qemu, err);
	for (unsigned i = QEMU_FD_TAP; i < nfds; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	return r ? error_prefix(err, r, "%s", name) : 0;
}

/*
 * virtiofsd holds a descriptor for each file that the node's kernel remembers: a search through the
 * whole tree remembers many, and without one more the node cannot even close its files.
 */
static void raise_file_limit(void)
{
	struct rlimit files = {FILES_MAX, FILES_MAX};

	if (setrlimit(RLIMIT_NOFILE, &files) && !getrlimit(RLIMIT_NOFILE, &files)) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
}

/* Failure ends the keeper and the kernel all that was started. */
static int on_start(struct net_keeper *keeper, void *arg, struct error *err)
{
	struct lab *lab = arg;
	int r = make_initrd(lab->config, err);

	raise_file_limit();
	for (unsigned i = 0; !r && i < lab->config->nodes; i++)
		r = start_node(keeper, lab, i, err);
	return r;
}

static void describe(char *buf, size_t size, const char *program, int status)
{
	if (WIFSIGNALED(status))
		snprintf(buf, size, "%s was killed by signal %d (%s)", program, WTERMSIG(status),
			 strsignal(WTERMSIG(status)));
	else if (WEXITSTATUS(status))
		snprintf(buf, size, "%s exited with %d", program, WEXITSTATUS(status));
	else
		snprintf(buf, size, "powered off");
}

/* A node without its QEMU is gone; one without its file system is not worth keeping. */
static void on_node_child(struct node *node, pid_t pid, int status)
{
	if (node->qemu == pid) {
		node->qemu = 0;
		if (!node->reason[0])
			describe(node->reason, sizeof(node->reason), "QEMU", status);
		for (unsigned i = 0; i < ARRAY_SIZE(node->fs); i++)
			if (node->fs[i])
				kill(node->fs[i], SIGKILL);
		return;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(node->fs); i++) {
		if (node->fs[i] != pid)
			continue;
		node->fs[i] = 0;
		/* It also ends when QEMU closes the connection, which is no reason. */
		if (node->qemu && (!WIFEXITED(status) || WEXITSTATUS(status))) {
			describe(node->reason, sizeof(node->reason), "virtiofsd", status);
			kill(node->qemu, SIGKILL);
		}
	}
}

static void on_child(struct net_keeper *keeper, void *arg, pid_t pid, int status)
{
	struct lab *lab = arg;

	for (unsigned i = 0; i < lab->config->nodes; i++) {
		struct node *node = &lab->nodes[i];
		bool lived = node->qemu;
		char name[16];

		on_node_child(node, pid, status);
		if (lived && !node->qemu)
			log_info(net_keeper_log(keeper), "lab", "%s: %s", node_name(i, name),
				 node->reason);
	}
}

static json_t *describe_node(const struct lab *lab, unsigned index)
{
	const struct node *node = &lab->nodes[index];
	char name[16], address[16];

	return json_pack("{ss, ss, sb, ss}", "name", node_name(index, name), "address",
			 node_address(index, address), "running", node->qemu != 0, "reason",
			 node->reason);
}

/* {"op":"nodes"}: the nodes and whether they run. */
static int on_request(struct net_keeper *keeper, void *arg, const char *op, const json_t *request,
		      json_t *answer, int *fd, struct error *err)
{
	const struct lab *lab = arg;
	const struct lab_config *c = lab->config;
	json_t *nodes;

	if (strcmp(op, "nodes"))
		return -ENOSYS;
	nodes = json_array();
	for (unsigned i = 0; i < c->nodes; i++)
		json_array_append_new(nodes, describe_node(lab, i));
	if (json_object_set_new(answer, "nodes", nodes) < 0 ||
	    json_object_set_new(answer, "cpus", json_integer(c->cpus)) < 0 ||
	    json_object_set_new(answer, "memory", json_integer((json_int_t)c->memory)) < 0 ||
	    json_object_set_new(answer, "accel", json_string(c->kvm ? "kvm" : "tcg")) < 0)
		return error_errno(err, -ENOMEM, "cannot list the nodes");
	return 0;
}

const struct net_hooks lab_hooks = {
	.start = on_start,
	.request = on_request,
	.child = on_child,
};
