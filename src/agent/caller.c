/* SPDX-License-Identifier: Apache-2.0 */
/* Signals, terminal and output of a process that stands in for a program far away. */

#include "agent/caller.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"

#define PIPE_CHUNK 4096 /* a pipe or terminal that is writable takes this without blocking */
#define GIVE_UP_AFTER 3 /* times the same signal */

static const int caught[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH};

int caller_begin(struct caller *c, int terminal, struct error *err)
{
	struct termios raw;
	sigset_t set;

	*c = (struct caller){.terminal = -1};
	sigemptyset(&set);
	for (unsigned i = 0; i < ARRAY_SIZE(caught); i++)
		sigaddset(&set, caught[i]);
	c->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (c->signal_fd < 0)
		return error_errno(err, -errno, "cannot catch signals");
	pthread_sigmask(SIG_BLOCK, &set, &c->old_mask);
	if (terminal < 0 || tcgetattr(terminal, &c->old_term) < 0)
		return 0;
	raw = c->old_term;
	cfmakeraw(&raw);
	if (!tcsetattr(terminal, TCSADRAIN, &raw))
		c->terminal = terminal;
	return 0;
}

void caller_end(struct caller *c)
{
	if (c->terminal >= 0)
		tcsetattr(c->terminal, TCSADRAIN, &c->old_term);
	close(c->signal_fd);
	pthread_sigmask(SIG_SETMASK, &c->old_mask, NULL);
}

int caller_signal(struct caller *c, struct error *err)
{
	struct signalfd_siginfo info;
	int signo;

	if (read(c->signal_fd, &info, sizeof(info)) != sizeof(info))
		return 0;
	signo = (int)info.ssi_signo;
	if (signo == SIGWINCH)
		return signo;
	c->repeated = signo == c->last_signal ? c->repeated + 1 : 1;
	c->last_signal = signo;
	if (c->repeated == GIVE_UP_AFTER && signo != SIGUSR1 && signo != SIGUSR2)
		return error_set(err, -EINTR, "given up after %d times %s", GIVE_UP_AFTER,
				 strsignal(signo));
	return signo;
}

ssize_t caller_write(int fd, const void *data, size_t n)
{
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	ssize_t r = send(fd, data, n, MSG_DONTWAIT | MSG_NOSIGNAL);
	struct stat st;

	if (r < 0 && errno == ENOTSOCK) {
		if (poll(&p, 1, 0) < 1)
			return 0;
		if (n > PIPE_CHUNK && !(!fstat(fd, &st) && S_ISREG(st.st_mode)))
			n = PIPE_CHUNK;
		r = write(fd, data, n);
	}
	if (r < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	return r < 0 ? -errno : r;
}
