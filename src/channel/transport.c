/* SPDX-License-Identifier: Apache-2.0 */
/* What carries the bytes of a connection. */

#include "channel/transport.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "channel/tls.h"
#include "lib/error.h"

static int set_nonblock(int fd, struct error *err)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return error_errno(err, -errno, "cannot set a connection up");
	return 0;
}

int transport_init(struct transport *t, int in, int out, struct tls *tls, struct error *err)
{
	struct stat st;
	int rc = set_nonblock(in, err);

	if (rc == 0 && out != in)
		rc = set_nonblock(out, err);
	if (rc == 0 && fstat(out, &st) < 0)
		rc = error_errno(err, -errno, "cannot set a connection up");
	if (rc == 0)
		*t = (struct transport){in, out, S_ISSOCK(st.st_mode), tls};
	return rc;
}

void transport_done(struct transport *t)
{
	tls_destroy(t->tls);
	if (t->out >= 0 && t->out != t->in)
		close(t->out);
	if (t->in >= 0)
		close(t->in);
	*t = (struct transport){.in = -1, .out = -1};
}

static ssize_t plain(ssize_t n, short events, short *wait, struct error *err)
{
	if (n >= 0)
		return n;
	*wait = events;
	if (errno == EAGAIN || errno == EINTR)
		return -EAGAIN;
	return error_errno(err, -errno, "the connection");
}

ssize_t transport_read(struct transport *t, void *buf, size_t n, short *wait, struct error *err)
{
	if (t->tls)
		return tls_receive(t->tls, buf, n, wait, err);
	return plain(read(t->in, buf, n), POLLIN, wait, err);
}

ssize_t transport_write(struct transport *t, const void *buf, size_t n, short *wait,
			struct error *err)
{
	if (t->tls)
		return tls_send(t->tls, buf, n, wait, err);
	if (t->socket)
		return plain(send(t->out, buf, n, MSG_NOSIGNAL), POLLOUT, wait, err);
	return plain(write(t->out, buf, n), POLLOUT, wait, err);
}

void transport_shut(struct transport *t)
{
	if (t->socket) {
		shutdown(t->out, SHUT_WR);
	} else {
		if (t->out != t->in)
			close(t->out);
		t->out = -1;
	}
}

bool transport_pending(struct transport *t)
{
	return t->tls && tls_pending(t->tls);
}
