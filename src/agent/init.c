/* SPDX-License-Identifier: Apache-2.0 */
/* Process 1: from the kernel's hands to a machine that can run programs. */

#include "agent/init.h"
#include "agent/program.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/reboot.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "agent/agent.h"
#include "agent/hosts.h"
#include "agent/modules.h"
#include "agent/root.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

#define MODULE_LIST "/etc/wisp/modules"
#define OPEN_FILES 8192 /* soft limit for programs: one rank of a wide MPI job */
#define OPEN_FILES_MAX 524288

struct mount_row {
	const char *target, *type;
	unsigned long flags;
	const char *options;
};

static const struct mount_row early_mounts[] = {
	{"/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL},
	{"/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL},
	{"/dev", "devtmpfs", MS_NOSUID, "mode=0755"},
};

static const struct mount_row late_mounts[] = {
	{"/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "gid=5,mode=0620,ptmxmode=0666"},
	{"/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777"},
	{"/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755"},
	{"/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777"},
	{"/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL},
};

void init_announce(void)
{
	static const char line[] = "wisp-agent: init starts\n";

	/* The kernel opens the console for us when the initrd has one. */
	if (write(STDERR_FILENO, line, strlen(line)) < 0) {
		int fd = open("/dev/console", O_WRONLY | O_NOCTTY | O_CLOEXEC);

		if (fd >= 0 && write(fd, line, strlen(line)) < 0)
			errno = 0; /* nobody to tell */
		if (fd >= 0)
			close(fd);
	}
}

static uint64_t since_boot_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static int mount_row(const struct mount_row *m, struct error *err)
{
	if (mkdir(m->target, 0755) < 0 && errno != EEXIST)
		return error_errno(err, -errno, "cannot create %s", m->target);
	/* The kernel may have mounted /dev already. */
	if (mount(m->type, m->target, m->type, m->flags, m->options) < 0 && errno != EBUSY)
		return error_errno(err, -errno, "cannot mount %s on %s", m->type, m->target);
	return 0;
}

/* The standard streams, when the initrd had no console. */
static void open_console(void)
{
	int fd = open("/dev/console", O_RDWR | O_NOCTTY);

	while (fd >= 0 && fd < 3)
		fd = dup(fd);
	if (fd >= 3)
		close(fd);
}

static void make_links(void)
{
	static const char *const links[][2] = {{"/proc/self/fd", "/dev/fd"},
					       {"/proc/self/fd/0", "/dev/stdin"},
					       {"/proc/self/fd/1", "/dev/stdout"},
					       {"/proc/self/fd/2", "/dev/stderr"}};

	for (unsigned i = 0; i < ARRAY_SIZE(links); i++)
		if (symlink(links[i][0], links[i][1]) < 0 && errno != EEXIST)
			return;
}

static void set_limits(struct agent *agent)
{
	static const struct rlimit memlock = {RLIM_INFINITY, RLIM_INFINITY};
	static const struct rlimit files = {OPEN_FILES_MAX, OPEN_FILES_MAX};

	/* RDMA and MPI lock the memory they send from. */
	if (setrlimit(RLIMIT_MEMLOCK, &memlock) < 0 || setrlimit(RLIMIT_NOFILE, &files) < 0)
		log_warn(&agent->log, "init", "cannot raise the limits: %s", strerror(errno));
	agent->child_nofile = (struct rlimit){OPEN_FILES, OPEN_FILES_MAX};
}

/* "name=address,name=address" */
static int parse_hosts(const char *text, json_t **ret, struct error *err)
{
	CLEANUP_FREE char *copy = strdup(text);
	json_t *hosts = json_array();
	char *rest = copy, *item;

	while ((item = strsep(&rest, ","))) {
		char *address = strchr(item, '=');

		if (!address) {
			json_decref(hosts);
			return error_set(err, -EINVAL, "wisp.hosts: \"%s\" is not name=address",
					 item);
		}
		*address++ = 0;
		json_array_append_new(hosts,
				      json_pack("{s:s,s:s}", "name", item, "address", address));
	}
	*ret = hosts;
	return 0;
}

static int set_hosts(const char *text, struct error *err)
{
	json_t *hosts = NULL;
	int r = parse_hosts(text, &hosts, err);

	if (!r)
		r = hosts_set(HOSTS_PATH, hosts, err);
	json_decref(hosts);
	return r;
}

static int set_net(void *arg, struct error *err)
{
	int r = configure_net(arg, err);

	return r == -ENODEV ? -EAGAIN : r;
}

/* What fails here is told and does not stop the machine: it can still be reached and mended. */
static void set_names(struct agent *agent, const struct init_config *config)
{
	struct error err;

	if (config->name && configure_hostname(config->name, &err))
		log_error(&agent->log, "init", "%s", err.text);
	if (config->hosts && set_hosts(config->hosts, &err))
		log_error(&agent->log, "init", "%s", err.text);
	if (config->dns && configure_names("/etc/resolv.conf", config->dns, &err))
		log_error(&agent->log, "init", "%s", err.text);
	if (configure_loopback(&err))
		log_error(&agent->log, "init", "%s", err.text);
	for (unsigned i = 0; i < config->net_count; i++)
		if (wait_for_device(set_net, (void *)config->nets[i], &err))
			log_error(&agent->log, "init", "%s", err.text);
}

static int read_config(struct init_config *config, struct error *err)
{
	CLEANUP_FREE char *cmdline = NULL;
	ssize_t n = io_read_file("/proc/cmdline", 65536, &cmdline, err);

	return n < 0 ? (int)n : init_config_parse(cmdline, config, err);
}

int init_boot(struct agent *agent, struct init_config *config, struct error *err)
{
	int r = 0;

	agent->boot.init = since_boot_ms();
	umask(0);
	for (unsigned i = 0; !r && i < ARRAY_SIZE(early_mounts); i++)
		r = mount_row(&early_mounts[i], err);
	open_console();
	if (!r)
		r = read_config(config, err);
	if (r)
		return r;
	init_load_modules(&agent->log, MODULE_LIST);
	if (config->root)
		r = root_switch(&agent->log, config->root, err);
	if (r)
		return r;
	agent->boot.root = since_boot_ms();
	make_links();
	for (unsigned i = 0; i < ARRAY_SIZE(late_mounts); i++)
		if (mount_row(&late_mounts[i], err))
			log_error(&agent->log, "init", "%s", err->text);
	umask(022);
	set_limits(agent);
	set_names(agent, config);
	/* Ctrl-Alt-Del comes to us as SIGINT. */
	reboot(LINUX_REBOOT_CMD_CAD_OFF);
	return 0;
}

static void write_facts(struct agent *agent)
{
	json_t *facts = facts_collect(agent);
	CLEANUP_FREE char *text = facts ? json_dumps(facts, JSON_INDENT(2)) : NULL;
	CLEANUP_FREE char *line = text ? io_format("%s\n", text) : NULL;
	struct error err = {"out of memory"};

	json_decref(facts);
	if ((mkdir("/run/wisp", 0755) < 0 && errno != EEXIST) || !line ||
	    io_write_file(AGENT_FACTS_PATH, line, strlen(line), &err))
		log_warn(&agent->log, "init", "cannot write the facts: %s", err.text);
}

int init_ready(struct agent *agent, const struct init_config *config, struct error *err)
{
	CLEANUP_FREE char *line = NULL;
	int r = 0;

	if (!config->listen_count)
		r = listener_add(agent, "vsock:1024", err);
	for (unsigned i = 0; !r && i < config->listen_count; i++)
		r = listener_add(agent, config->listens[i], err);
	if (r)
		log_error(&agent->log, "init", "%s", err->text);
	agent->boot.ready = since_boot_ms();
	write_facts(agent);
	line = io_format("wisp-agent: ready in %llu ms\n", (unsigned long long)agent->boot.ready);
	if (line)
		io_write_full(STDERR_FILENO, line, strlen(line));
	return config->exec ? program_start_plain(agent, config->exec, err) : 0;
}
