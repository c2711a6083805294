/* SPDX-License-Identifier: Apache-2.0 */
/* The end of the machine: by request, signal or power button. */

#include "agent/agent.h"

#include <errno.h>
#include <fcntl.h>
#include <mntent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "agent/spawn.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

#define TERM_NS 3000000000ULL /* for programs to end after SIGTERM */
#define KILL_NS 1000000000ULL
#define MAX_MOUNTS 256

/* A distribution ends itself: its own init knows how. */
static int run_tool(struct agent *agent, const char *path, struct error *err)
{
	pid_t pid;

	if (geteuid())
		return error_set(err, -EPERM, "the agent is not root and cannot end the machine");
	if (access(path, X_OK) < 0)
		return error_errno(err, -errno, "cannot run %s", path);
	pid = fork();
	if (!pid) {
		child_reset(agent);
		execl(path, path, (char *)NULL);
		_exit(127);
	}
	return pid < 0 ? error_errno(err, -errno, "cannot run %s", path) : 0;
}

int shutdown_request(struct agent *agent, enum shutdown_how how, struct error *err)
{
	if (!agent->is_init)
		return run_tool(agent, how == SHUTDOWN_REBOOT ? "/sbin/reboot" : "/sbin/poweroff",
				err);
	agent->stop_how = how;
	loop_stop(agent->loop);
	return 0;
}

/* Reaps until no child is left or the time is over. SIGCHLD is blocked by the loop. */
static void wait_for_children(uint64_t limit_ns)
{
	uint64_t end = io_now_ns() + limit_ns, now;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	for (;;) {
		pid_t pid = waitpid(-1, NULL, WNOHANG);
		struct timespec left;

		if (pid > 0)
			continue;
		now = io_now_ns();
		if (pid < 0 || now >= end)
			return;
		left = (struct timespec){.tv_sec = (time_t)((end - now) / 1000000000),
					 .tv_nsec = (long)((end - now) % 1000000000)};
		sigtimedwait(&set, NULL, &left);
	}
}

/* Last mounted first; what is busy is made read-only, so that nothing is half-written. */
static void unmount_all(const struct log *log)
{
	FILE *f = setmntent("/proc/self/mounts", "re");
	char *targets[MAX_MOUNTS];
	unsigned n = 0;
	struct mntent *m;

	while (f && n < MAX_MOUNTS && (m = getmntent(f)))
		if (strncmp(m->mnt_dir, "/proc", 5) && strncmp(m->mnt_dir, "/sys", 4) &&
		    strncmp(m->mnt_dir, "/dev", 4) && (targets[n] = strdup(m->mnt_dir)))
			n++;
	if (f)
		endmntent(f);
	while (n--) {
		if (umount2(targets[n], 0) < 0 &&
		    mount(NULL, targets[n], NULL, MS_REMOUNT | MS_RDONLY, NULL) < 0)
			log_debug(log, "shutdown", "%s stays mounted: %s", targets[n],
				  strerror(errno));
		free(targets[n]);
	}
}

void shutdown_machine(struct agent *agent)
{
	bool again = agent->stop_how == SHUTDOWN_REBOOT;

	log_info(&agent->log, "shutdown", "%s", again ? "rebooting" : "powering off");
	kill(-1, SIGTERM);
	kill(-1, SIGCONT);
	wait_for_children(TERM_NS);
	kill(-1, SIGKILL);
	wait_for_children(KILL_NS);
	sync();
	unmount_all(&agent->log);
	reboot(again ? RB_AUTOBOOT : RB_POWER_OFF);
	log_error(&agent->log, "shutdown", "the kernel refuses: %s", strerror(errno));
}
