/* SPDX-License-Identifier: Apache-2.0 */
/* One JSON object per line over a stream. */

#include "lib/jsonline.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

void jsonline_done(struct jsonline *line)
{
	free(line->buf);
	*line = (struct jsonline){0};
}

static bool whole(const struct jsonline *line)
{
	return line->used && memchr(line->buf, '\n', line->used);
}

int jsonline_read(struct jsonline *line, int fd, size_t max)
{
	ssize_t n;

	if (whole(line))
		return 1;
	if (line->used >= max)
		return -EMSGSIZE;
	if (line->used == line->room) {
		size_t more = line->room ? line->room * 2 : 512;
		char *bigger = realloc(line->buf, more);

		if (!bigger)
			return -ENOMEM;
		line->buf = bigger;
		line->room = more;
	}
	n = read(fd, line->buf + line->used, line->room - line->used);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	if (!n)
		return -EPIPE;
	line->used += (size_t)n;
	return whole(line);
}

int jsonline_take(struct jsonline *line, json_t **ret, struct error *err)
{
	char *end = line->used ? memchr(line->buf, '\n', line->used) : NULL;
	json_error_t jerr;
	json_t *value;
	size_t len;

	if (!end)
		return -EAGAIN;
	len = (size_t)(end - line->buf);
	value = json_loadb(line->buf, len, JSON_REJECT_DUPLICATES, &jerr);
	memmove(line->buf, end + 1, line->used - len - 1);
	line->used -= len + 1;
	if (!value)
		return error_set(err, -EBADMSG, "not JSON: %s (column %d)", jerr.text, jerr.column);
	if (!json_is_object(value)) {
		json_decref(value);
		return error_set(err, -EBADMSG, "not a JSON object");
	}
	*ret = value;
	return 0;
}

int jsonline_write(int fd, const json_t *value)
{
	CLEANUP_FREE char *text = json_dumps(value, JSON_COMPACT);
	CLEANUP_FREE char *line = text ? io_format("%s\n", text) : NULL;

	if (!line)
		return -ENOMEM;
	return io_write_full(fd, line, strlen(line));
}

int jsonline_call(int fd, const json_t *request, json_t **answer, struct error *err)
{
	struct jsonline line = {0};
	int r = jsonline_write(fd, request);

	if (r == -EPIPE) /* a server that refuses us has said why before it hung up */
		r = 0;
	while (!r)
		r = jsonline_read(&line, fd, 16 * 1024 * 1024);
	if (r > 0)
		r = jsonline_take(&line, answer, err);
	else
		error_errno(err, r, "no answer on the control socket");
	jsonline_done(&line);
	return r;
}
