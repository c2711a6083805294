/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A wisp-vmm for tests of clusters with guests that are no Linux: the real one (real/wisp-vmm
 * beside this program) with a guest that halts, or does what it is told, and in place of the agent
 * that would be in the guest a wisp-agent (beside this program) behind the VM's vsock socket. That
 * agent is process 1 of a PID namespace, which ends with wisp-vmm: what it runs ends with the VM,
 * however that ends.
 */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

#define VSOCK "path="
#define READY "wisp-agent: ready in a test\n"

static void die(const char *what)
{
	fprintf(stderr, "vmm-with-agent: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* A child that ends with its parent, whoever was quicker. */
static pid_t child(void)
{
	pid_t parent = getpid(), pid = fork();

	if (pid)
		return pid;
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent)
		_exit(1);
	return 0;
}

/* -------- a connection -------- */

static void take_line(int fd)
{
	char c = 0;

	while (c != '\n')
		if (read(fd, &c, 1) != 1)
			_exit(0);
}

/* False: that direction has ended. */
static bool pass(int from, int to)
{
	char data[65536];
	ssize_t n = read(from, data, sizeof(data));

	if (n > 0)
		return !io_write_full(to, data, (size_t)n);
	shutdown(to, SHUT_WR);
	return false;
}

static void __attribute__((noreturn)) serve(int fd, const char *agent)
{
	struct pollfd p[2] = {{.fd = fd, .events = POLLIN}, {.events = POLLIN}};
	int ends[2] = {fd, -1};

	take_line(fd);
	ends[1] = p[1].fd = io_unix_connect(agent, NULL);
	if (ends[1] < 0 || io_write_full(fd, "OK 1\n", 5))
		_exit(1);
	while (p[0].fd >= 0 || p[1].fd >= 0) {
		poll(p, 2, -1);
		for (unsigned i = 0; i < 2; i++)
			if (p[i].revents && !pass(ends[i], ends[!i]))
				p[i].fd = -1;
	}
	_exit(0);
}

/* -------- the agent -------- */

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || io_write_full(fd, text, strlen(text)))
		die(path);
	close(fd);
}

/* A user may have a PID namespace in a user namespace; there the user stays who it is. */
static void new_namespaces(void)
{
	char uid[32], gid[32];

	snprintf(uid, sizeof(uid), "%u %u 1", geteuid(), geteuid());
	snprintf(gid, sizeof(gid), "%u %u 1", getegid(), getegid());
	if (unshare(CLONE_NEWUSER | CLONE_NEWPID))
		die("no namespaces");
	write_file("/proc/self/setgroups", "deny");
	write_file("/proc/self/uid_map", uid);
	write_file("/proc/self/gid_map", gid);
}

/* Whoever made the namespace stays outside of it, and ends it when it ends. */
static void __attribute__((noreturn)) hold_agent(const char *here, const char *socket)
{
	CLEANUP_FREE char *program = io_format("%s/wisp-agent", here);
	CLEANUP_FREE char *listen = io_format("unix:%s", socket);
	pid_t pid;

	new_namespaces();
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		signal(SIGCHLD, SIG_DFL);
		execl(program, "wisp-agent", "--listen", listen, NULL);
	}
	while (pid > 0)
		pause();
	_exit(1);
}

/* Also what the console would say, which is what starts its keeper looking for the agent. */
static void announce(const char *dir, const char *socket)
{
	CLEANUP_FREE char *console = io_format("%s/console", dir);
	int fd = open(console, O_WRONLY | O_APPEND | O_CLOEXEC);

	for (unsigned i = 0; access(socket, F_OK) && i < 2000; i++)
		usleep(5000);
	if (fd < 0 || io_write_full(fd, READY, strlen(READY)))
		die(console);
	close(fd);
}

static void __attribute__((noreturn)) be_guest(const char *here, const char *vsock)
{
	CLEANUP_FREE char *dir = strndup(vsock, (size_t)(strrchr(vsock, '/') - vsock));
	CLEANUP_FREE char *agent = io_format("%s/agent", dir);
	struct error err;
	int listener;

	close_range(3, UINT_MAX, 0);
	signal(SIGCHLD, SIG_IGN);
	prctl(PR_SET_NAME, "guest");
	listener = io_unix_listen(vsock, &err);
	if (listener < 0)
		die(err.text);
	if (!child())
		hold_agent(here, agent);
	announce(dir, agent);
	for (;;) {
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

		if (fd >= 0 && !child())
			serve(fd, agent);
		close(fd);
	}
}

/* -------- the machine -------- */

/* What the document's kernel command line has behind "--"; nothing: it halts. */
static char *words_of(const char *cmdline)
{
	const char *words = strstr(cmdline, " -- ");

	return strdup(words ? words + 4 : "!");
}

int main(int argc, char **argv)
{
	CLEANUP_FREE char *here = strndup(argv[0], (size_t)(strrchr(argv[0], '/') - argv[0]));
	CLEANUP_FREE char *real = io_format("%s/real/wisp-vmm", here);

	for (int i = 1; i < argc; i++) {
		char *path =
			strncmp(argv[i], "--device=vsock,", 15) ? NULL : strstr(argv[i], VSOCK);

		if (path && !child())
			be_guest(here, path + strlen(VSOCK));
		if (path)
			argv[i] = io_format("%s-unused", argv[i]);
		if (!strcmp(argv[i], "--cmdline"))
			argv[i + 1] = words_of(argv[i + 1]);
	}
	execv(real, argv);
	die(real);
}
