/* SPDX-License-Identifier: Apache-2.0 */
/* Reading and writing the files of a control group. */

#include "node/cgroup-file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/paths.h"

int cgroup_path(const char *base, const char *job, const char *part, char **ret, struct error *err)
{
	int r = job ? paths_check_name(job, "job", err) : 0;

	if (!r && part)
		r = paths_check_name(part, "control group", err);
	if (r)
		return r;
	*ret = io_format("%s/wisp.slice%s%s%s%s", base, job ? "/job-" : "", job ? job : "",
			 part ? "/" : "", part ? part : "");
	return *ret ? 0 : error_set(err, -ENOMEM, "out of memory");
}

int cgroup_write(const char *dir, const char *file, const char *value, struct error *err)
{
	CLEANUP_FREE char *path = io_format("%s/%s", dir, file);
	CLEANUP_CLOSE int fd = path ? open(path, O_WRONLY | O_TRUNC | O_CLOEXEC) : -1;
	ssize_t n;

	if (fd < 0 && errno == ENOENT && !access(dir, F_OK))
		return error_set(
			err, -EOPNOTSUPP,
			"control group %s has no %s: the kernel lacks that controller, or has it "
			"in version 1 (boot with cgroup_no_v1=all), or it was not delegated",
			dir, file);
	if (fd < 0)
		return error_errno(err, -errno, "cannot open %s/%s", dir, file);
	n = write(fd, value, strlen(value));
	if (n != (ssize_t)strlen(value))
		return error_errno(err, n < 0 ? -errno : -EIO, "cannot write \"%s\" to %s", value,
				   path);
	return 0;
}

char *cgroup_read(const char *dir, const char *file)
{
	CLEANUP_FREE char *path = io_format("%s/%s", dir, file);
	char *text = NULL;

	if (!path || io_read_file(path, 1 << 20, &text, NULL) < 0)
		return NULL;
	return text;
}

uint64_t cgroup_value(const char *text, const char *word)
{
	size_t n = strlen(word);

	for (const char *line = text; line && *line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (!strncmp(line, word, n) && line[n] == ' ')
			return strtoull(line + n + 1, NULL, 10);
	}
	return 0;
}
