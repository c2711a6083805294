/* SPDX-License-Identifier: Apache-2.0 */
/* Names of hosts to addresses. */

#include "lib/lookup.h"

#include <errno.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/offload.h"

/* What the thread works on. */
struct question {
	char *host, *port;
	int rc;
	struct addrinfo *list;
};

struct lookup {
	struct offload *offload;
	struct question *question; /* the offload's */
};

static void release(void *arg)
{
	struct question *q = arg;

	if (q->list)
		freeaddrinfo(q->list);
	free(q->host);
	free(q->port);
	free(q);
}

static void work(void *arg)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	struct question *q = arg;

	q->rc = getaddrinfo(q->host, q->port, &hints, &q->list);
}

int lookup_start(const char *host, const char *port, struct lookup **ret, struct error *err)
{
	CLEANUP_FREE struct lookup *l = calloc(1, sizeof(*l));
	struct question *q = calloc(1, sizeof(*q));
	int r = 0;

	if (q) {
		q->host = strdup(host);
		q->port = strdup(port);
	}
	if (!l || !q || !q->host || !q->port)
		r = error_set(err, -ENOMEM, "out of memory");
	if (!r)
		r = offload_start(work, release, q, &l->offload, err);
	if (r) {
		if (q)
			release(q);
		return r;
	}
	l->question = q;
	*ret = take_ptr(l);
	return 0;
}

int lookup_fd(const struct lookup *l)
{
	return offload_fd(l->offload);
}

int lookup_result(const struct lookup *l, const struct addrinfo **ret, struct error *err)
{
	const struct question *q = l->question;

	if (q->rc)
		return error_set(err, -EHOSTUNREACH, "%s: %s", q->host, gai_strerror(q->rc));
	*ret = q->list;
	return 0;
}

void lookup_drop(struct lookup **l)
{
	if (!*l)
		return;
	offload_drop(&(*l)->offload);
	free(take_ptr(*l));
}
