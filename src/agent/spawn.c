/* SPDX-License-Identifier: Apache-2.0 */
/* Starting programs: pipes or a terminal, and a child that says why it could not. */

#include "agent/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "agent/agent.h"
#include "agent/runspec.h"
#include "lib/error.h"

void child_reset(const struct agent *agent)
{
	sigset_t none;

	sigemptyset(&none);
	for (int signo = 1; signo < _NSIG; signo++)
		signal(signo, SIG_DFL);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setrlimit(RLIMIT_NOFILE, &agent->child_nofile);
}

/* The child's ends of its standard streams. */
struct child_fds {
	int in, out, err, status;
};

/* Runs in the child; never returns. */
static _Noreturn void child_main(const struct agent *agent, const struct runspec *spec,
				 const struct child_fds *fds)
{
	struct spawn_failure f = {.stage = STAGE_TERMINAL};

	setsid();
	if ((!spec->terminal || !ioctl(fds->in, TIOCSCTTY, 0)) && dup2(fds->in, 0) >= 0 &&
	    dup2(fds->out, 1) >= 0 && dup2(fds->err, 2) >= 0) {
		child_reset(agent);
		f.stage = (int)runspec_exec(spec);
	}
	f.code = errno;
	if (write(fds->status, &f, sizeof(f)) != sizeof(f))
		_exit(125);
	_exit(126);
}

/* One pipe: the agent's end does not block. ours: 0 the reading end, 1 the writing end. */
static int make_pipe(int ours, int *ours_fd, int *theirs_fd)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	*ours_fd = fds[ours];
	*theirs_fd = fds[!ours];
	return fcntl(fds[ours], F_SETFL, O_NONBLOCK) < 0 ? -errno : 0;
}

static int open_pipes(struct spawned *ours, struct child_fds *theirs)
{
	int r = make_pipe(1, &ours->in, &theirs->in);

	if (!r)
		r = make_pipe(0, &ours->out, &theirs->out);
	return r ? r : make_pipe(0, &ours->err, &theirs->err);
}

static int open_terminal(const struct runspec *spec, struct spawned *ours, struct child_fds *theirs)
{
	struct winsize ws = {.ws_row = (unsigned short)spec->rows,
			     .ws_col = (unsigned short)spec->cols};
	int unlock = 0, master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);

	ours->out = master;
	if (master < 0 || ioctl(master, TIOCSPTLCK, &unlock) < 0 ||
	    ioctl(master, TIOCSWINSZ, &ws) < 0)
		return -errno;
	/* Two descriptors: reading and writing are watched apart. */
	ours->in = fcntl(master, F_DUPFD_CLOEXEC, 3);
	theirs->in = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (ours->in < 0 || theirs->in < 0)
		return -errno;
	theirs->out = fcntl(theirs->in, F_DUPFD_CLOEXEC, 3);
	theirs->err = fcntl(theirs->in, F_DUPFD_CLOEXEC, 3);
	if (theirs->out < 0 || theirs->err < 0)
		return -errno;
	/* The user may open /dev/tty's name; not allowed to us, not needed by most. */
	if (!geteuid() && fchown(theirs->in, spec->user.uid, (gid_t)-1) < 0)
		return -errno;
	return 0;
}

static void close_all(const int *fds, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

int spawn(const struct agent *agent, const struct runspec *spec, struct spawned *ret,
	  struct error *err)
{
	struct child_fds theirs = {-1, -1, -1, -1};
	struct spawned ours = {-1, -1, -1, -1, -1};
	int r = spec->terminal ? open_terminal(spec, &ours, &theirs) : open_pipes(&ours, &theirs);

	if (!r)
		r = make_pipe(0, &ours.status, &theirs.status);
	if (!r) {
		ours.pid = fork();
		if (!ours.pid)
			child_main(agent, spec, &theirs);
		if (ours.pid < 0)
			r = -errno;
	}
	close_all((int[]){theirs.in, theirs.out, theirs.err, theirs.status}, 4);
	if (r) {
		close_all((int[]){ours.in, ours.out, ours.err, ours.status}, 4);
		return error_errno(err, r, "cannot start %s", spec->path);
	}
	*ret = ours;
	return 0;
}

int spawn_plain(const struct agent *agent, const struct runspec *spec, pid_t *ret,
		struct error *err)
{
	pid_t pid = fork();

	if (!pid) {
		setsid();
		child_reset(agent);
		runspec_exec(spec);
		log_error(&agent->log, "exec", "cannot run %s: %s", spec->path, strerror(errno));
		_exit(127);
	}
	if (pid < 0)
		return error_errno(err, -errno, "cannot start %s", spec->path);
	*ret = pid;
	return 0;
}
