/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions and the ends of reservations. */

#include "node/lease.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/error.h"
#include "node/store.h"

static int take_int(const struct store_row *row, void *arg)
{
	*(int64_t *)arg = store_int(row, 0);
	return 0;
}

int lease_user(struct store *s, const char *cluster, unsigned *ret, struct error *err)
{
	int64_t user = -1;
	int r = store_each(s, take_int, &user, err, "SELECT user FROM cluster WHERE id = ?", "t",
			   cluster);

	if (r)
		return r;
	if (user < 0)
		return error_set(err, -ENOENT, "%s has no resources of this node", cluster);
	*ret = (unsigned)user;
	return 0;
}

int lease_assign(struct store *s, const char *cluster, const char *session, struct error *err)
{
	return store_run(s, err, "UPDATE cluster SET session = ?2, until = NULL WHERE id = ?1",
			 "tt", cluster, session);
}

int lease_keep(struct store *s, unsigned user, const char *session, struct error *err)
{
	return store_run(s, err, "UPDATE cluster SET until = NULL WHERE user = ? AND session = ?",
			 "it", (int64_t)user, session);
}

int lease_leave(struct store *s, unsigned user, const char *session, int64_t until,
		struct error *err)
{
	return store_run(s, err, "UPDATE cluster SET until = ?3 WHERE user = ?1 AND session = ?2",
			 "iti", (int64_t)user, session, until);
}

int lease_orphan(struct store *s, int64_t until, struct error *err)
{
	return store_run(s, err, "UPDATE cluster SET until = ?", "i", until);
}

int lease_next(struct store *s, int64_t *ret, struct error *err)
{
	*ret = 0;
	return store_each(s, take_int, ret, err, "SELECT min(until) FROM cluster WHERE NOT ending",
			  "");
}

static int take_text(const struct store_row *row, void *arg)
{
	*(char **)arg = strdup(store_text(row, 0));
	return *(char **)arg ? 0 : -ENOMEM;
}

int lease_draining(struct store *s, char **ret, struct error *err)
{
	*ret = NULL;
	return store_each(s, take_text, ret, err, "SELECT because FROM drain", "");
}

int lease_drain(struct store *s, const char *because, struct error *err)
{
	if (!because)
		return store_run(s, err, "DELETE FROM drain", "");
	return store_run(s, err, "INSERT OR REPLACE INTO drain (id, because) VALUES (1, ?)", "t",
			 because);
}
