/* SPDX-License-Identifier: Apache-2.0 */
/* A key in a file, which nobody else may read. */

#include "node/cluster-key.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/paths.h"

static int check(const struct stat *st, const char *path, struct error *err)
{
	if (!S_ISREG(st->st_mode))
		return error_set(err, -EINVAL, "the cluster's key %s is no file", path);
	if ((st->st_uid && st->st_uid != geteuid()) || st->st_mode & 077)
		return error_set(
			err, -EPERM,
			"the cluster's key %s is open to others, who could be this user on "
			"all nodes: chown it to the daemon's user, and chmod 600",
			path);
	if (st->st_size < CLUSTER_KEY_MIN || st->st_size > CLUSTER_KEY_MAX)
		return error_set(err, -EINVAL,
				 "the cluster's key %s has %lld bytes, not %u to %u; make one: "
				 "head -c 32 /dev/urandom >%s",
				 path, (long long)st->st_size, CLUSTER_KEY_MIN, CLUSTER_KEY_MAX,
				 path);
	return 0;
}

static int read_file(int fd, const char *path, uint8_t *ret, size_t *n, struct error *err)
{
	struct stat st;
	int r = fstat(fd, &st) ? error_errno(err, -errno, "cannot look at %s", path)
			       : check(&st, path, err);

	if (r)
		return r;
	r = io_read_full(fd, ret, (size_t)st.st_size);
	if (r)
		return error_errno(err, r, "cannot read %s", path);
	*n = (size_t)st.st_size;
	return 0;
}

int cluster_key_read(const char *path, uint8_t ret[CLUSTER_KEY_MAX], size_t *n, struct error *err)
{
	CLEANUP_FREE char *usual = NULL;
	CLEANUP_CLOSE int fd = -1;
	int r = path ? 0 : paths_config("cluster.key", &usual, err);

	*n = 0;
	if (r)
		return r == -ENOENT ? 0 : r; /* without a home there is no usual place */
	fd = open(path ? path : usual, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 && errno == ENOENT && !path)
		return 0;
	if (fd < 0)
		return error_errno(err, -errno, "cannot open the cluster's key %s",
				   path ? path : usual);
	return read_file(fd, path ? path : usual, ret, n, err);
}
