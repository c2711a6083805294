/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting other programs: fork and exec, with the reason of a failed exec brought back
 * over a pipe that closes when exec succeeds.
 */

#include "lib/process.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

/* What failed in the child, sent over the pipe. */
struct failure {
	int code;
	bool cwd;
};

static void reset_signals(void)
{
	sigset_t none;

	for (int i = 1; i < NSIG; i++)
		signal(i, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/*
 * Puts fds[n] at n. All are first copied above the range, so that no dup2 overwrites one
 * that is needed later; copies is the caller's room for them.
 */
static int place_fds(const int *fds, int *copies, unsigned nfds)
{
	for (unsigned i = 0; i < nfds; i++) {
		copies[i] = fds[i];
		if (i <= STDERR_FILENO && copies[i] < 0)
			copies[i] = open("/dev/null", O_RDWR | O_CLOEXEC);
		if (copies[i] >= 0)
			copies[i] = fcntl(copies[i], F_DUPFD_CLOEXEC, (int)nfds);
		if (copies[i] < 0 && (fds[i] >= 0 || i <= STDERR_FILENO))
			return -errno;
	}
	for (unsigned i = 0; i < nfds; i++) {
		if (copies[i] >= 0 && dup2(copies[i], (int)i) < 0)
			return -errno;
		if (copies[i] < 0)
			close((int)i);
	}
	return 0;
}

/* In the child, between fork and exec: only async-signal-safe calls. */
static void __attribute__((noreturn))
run_child(const struct process *p, int *copies, int pipe_fd, pid_t parent)
{
	struct failure failure = {0};

	reset_signals();
	if (p->new_session)
		setsid();
	if (p->die_with_parent) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent) /* it died before prctl */
			_exit(127);
	}
	/* Out of the way of the descriptors that are placed. */
	pipe_fd = fcntl(pipe_fd, F_DUPFD_CLOEXEC, (int)(p->nfds > 3 ? p->nfds : 3));
	failure.code = pipe_fd < 0 ? -errno : place_fds(p->fds, copies, p->nfds);
	if (!failure.code && p->cwd && chdir(p->cwd) < 0) {
		failure.code = -errno;
		failure.cwd = true;
	}
	if (!failure.code && p->in_child)
		failure.code = p->in_child(p->in_child_arg);
	if (!failure.code) {
		/* Whatever a library opened without CLOEXEC stays here. Old kernels: a pity. */
		close_range(p->nfds > 3 ? p->nfds : 3, UINT_MAX, CLOSE_RANGE_CLOEXEC);
		execvpe(p->argv[0], (char *const *)p->argv,
			p->env ? (char *const *)p->env : environ);
		failure.code = -errno;
	}
	(void)!write(pipe_fd, &failure, sizeof(failure));
	_exit(127);
}

int process_start(const struct process *p, pid_t *ret, struct error *err)
{
	CLEANUP_FREE int *copies = calloc(p->nfds + 1, sizeof(*copies));
	CLEANUP_CLOSE int rd = -1;
	CLEANUP_CLOSE int wr = -1;
	struct failure failure;
	pid_t parent = getpid(), pid;
	int fds[2];

	if (!copies)
		return -ENOMEM;
	if (pipe2(fds, O_CLOEXEC) < 0)
		return error_errno(err, -errno, "cannot start %s", p->argv[0]);
	rd = fds[0];
	wr = fds[1];
	pid = fork();
	if (pid < 0)
		return error_errno(err, -errno, "cannot start %s", p->argv[0]);
	if (!pid)
		run_child(p, copies, wr, parent);
	close(take_fd(&wr));
	if (!io_read_full(rd, &failure, sizeof(failure))) {
		waitpid(pid, NULL, 0);
		return failure.cwd ? error_errno(err, failure.code, "cannot go to %s", p->cwd)
				   : error_errno(err, failure.code, "cannot run %s", p->argv[0]);
	}
	*ret = pid;
	return 0;
}

int process_wait(pid_t pid, int *status)
{
	while (waitpid(pid, status, 0) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	return 0;
}

int process_exit_code(int status)
{
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Everything in a memfd, as a string. */
static int slurp(int fd, char **ret, size_t *size)
{
	off_t n = lseek(fd, 0, SEEK_END);
	CLEANUP_FREE char *text = NULL;
	int r;

	if (n < 0)
		return -errno;
	text = malloc((size_t)n + 1);
	if (!text)
		return -ENOMEM;
	r = io_pread_full(fd, text, (size_t)n, 0);
	if (r < 0)
		return r;
	text[n] = 0;
	if (size)
		*size = (size_t)n;
	*ret = take_ptr(text);
	return 0;
}

static const char *last_line(char *text)
{
	size_t n = strlen(text);
	char *start;

	while (n && text[n - 1] == '\n')
		text[--n] = 0;
	start = strrchr(text, '\n');
	return start ? start + 1 : text;
}

static int explain(const char *program, int status, int errors, struct error *err)
{
	CLEANUP_FREE char *text = NULL;
	const char *reason = "";

	if (errors >= 0 && !slurp(errors, &text, NULL))
		reason = last_line(text);
	return WIFEXITED(status) ? error_set(err, -ECHILD, "%s exited with %d%s%s", program,
					     WEXITSTATUS(status), *reason ? ": " : "", reason)
				 : error_set(err, -ECHILD, "%s was ended by signal %d (%s)%s%s",
					     program, WTERMSIG(status), strsignal(WTERMSIG(status)),
					     *reason ? ": " : "", reason);
}

int process_run(const struct process *process, char **out, size_t *size, struct error *err)
{
	struct process p = *process;
	CLEANUP_CLOSE int output = -1;
	CLEANUP_CLOSE int errors = -1;
	CLEANUP_FREE int *fds = calloc(p.nfds + 3, sizeof(*fds));
	int r, status;
	pid_t pid;

	if (!fds)
		return -ENOMEM;
	for (unsigned i = 0; i < p.nfds || i < 3; i++)
		fds[i] = i < p.nfds ? p.fds[i] : (int)i;
	if (out)
		fds[1] = output = memfd_create("stdout", MFD_CLOEXEC);
	if (p.nfds < 3)
		fds[2] = errors = memfd_create("stderr", MFD_CLOEXEC);
	if ((out && output < 0) || (p.nfds < 3 && errors < 0))
		return error_errno(err, -errno, "cannot run %s", p.argv[0]);
	p.fds = fds;
	p.nfds = p.nfds < 3 ? 3 : p.nfds;

	r = process_start(&p, &pid, err);
	if (!r)
		r = process_wait(pid, &status);
	if (r < 0)
		return r;
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		return explain(p.argv[0], status, errors, err);
	return out ? slurp(output, out, size) : 0;
}

/* Field 22 of /proc/PID/stat (proc(5)); the name before it may have spaces and parentheses. */
static int start_time(char ret[24], struct error *err)
{
	CLEANUP_FREE char *text = NULL;
	ssize_t n = io_read_file("/proc/self/stat", 4096, &text, err);
	const char *p = n < 0 ? NULL : strrchr(text, ')');

	if (n < 0)
		return (int)n;
	for (unsigned field = 2; p && field < 22; field++)
		p = strchr(p + 1, ' ');
	if (!p || strspn(p + 1, "0123456789") == 0 || strspn(p + 1, "0123456789") > 20)
		return error_set(err, -EPROTO, "/proc/self/stat has no time of start");
	snprintf(ret, 24, "%.*s", (int)strspn(p + 1, "0123456789"), p + 1);
	return 0;
}

int process_instance(char ret[PROCESS_INSTANCE], struct error *err)
{
	CLEANUP_FREE char *boot = NULL;
	char start[24];
	struct stat ns;
	ssize_t n = io_read_file("/proc/sys/kernel/random/boot_id", 64, &boot, err);
	int r = n < 0 ? (int)n : start_time(start, err);

	if (r < 0)
		return r;
	if (stat("/proc/self/ns/pid", &ns))
		return error_errno(err, -errno, "/proc/self/ns/pid");
	snprintf(ret, PROCESS_INSTANCE, "%.36s.%llu.%d.%s", boot, (unsigned long long)ns.st_ino,
		 (int)getpid(), start);
	return 0;
}
