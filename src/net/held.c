/* SPDX-License-Identifier: Apache-2.0 */
/* Taps that were given to the keeper. */

#include "net/held.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "net/lan.h"

struct held_tap {
	struct held_tap *next;
	int fd;
	char name[16];
};

static struct held_tap *find(const struct held *held, const char *name)
{
	struct held_tap *t = held->first;

	while (t && strcmp(t->name, name))
		t = t->next;
	return t;
}

int held_add(struct held *held, const char *name, int fd, struct error *err)
{
	CLEANUP_CLOSE int own = fd;
	struct held_tap *t;
	int r;

	if (find(held, name))
		return 0;
	r = lan_tap_check(fd, name, err);
	if (r)
		return r;
	t = calloc(1, sizeof(*t));
	if (!t)
		return error_errno(err, -ENOMEM, "cannot take tap %s", name);
	strncpy(t->name, name, sizeof(t->name) - 1);
	t->fd = take_fd(&own);
	t->next = held->first;
	held->first = t;
	/* Who held it before may have been killed. */
	lan_tap_rest(t->fd);
	return 0;
}

int held_open(const struct held *held, const char *name, int *ret)
{
	const struct held_tap *t = find(held, name);
	int fd;

	if (!t)
		return -ENOENT;
	fd = fcntl(t->fd, F_DUPFD_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	lan_tap_attach(fd);
	*ret = fd;
	return 0;
}

void held_rest(const struct held *held, const char *name)
{
	const struct held_tap *t = find(held, name);

	if (t)
		lan_tap_rest(t->fd);
}

void held_done(struct held *held)
{
	while (held->first) {
		struct held_tap *t = held->first;

		held->first = t->next;
		close(t->fd);
		free(t);
	}
}
