/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A peer of a JSON line socket that sends anything in pieces of any size: every line is taken
 * or refused once, and the buffer stays within its limit.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "input.h"
#include "lib/error.h"
#include "lib/jsonline.h"

#define LINE_MAX_HERE 4096
#define INPUT_MAX 16384

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int ok)
{
	if (!ok)
		abort();
}

/* Takes what is whole; the number of lines. */
static unsigned take(struct jsonline *line)
{
	unsigned n = 0;

	for (;; n++) {
		json_t *value = NULL;
		struct error err = {0};
		int r = jsonline_take(line, &value, &err);

		if (r == -EAGAIN)
			return n;
		require(r ? r == -EBADMSG && err.text[0] && !value : json_is_object(value));
		json_decref(value);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {.data = data, .size = size < INPUT_MAX ? size : INPUT_MAX};
	struct jsonline line = {0};
	unsigned sent = 0, taken = 0;
	int s[2], r = 0;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, s))
		return 0;
	while (r >= 0 && in.pos < in.size) {
		size_t n = 1 + (size_t)input_number(&in, 2) % 2000;

		if (n > in.size - in.pos)
			n = in.size - in.pos;
		if (n && send(s[0], in.data + in.pos, n, MSG_NOSIGNAL) != (ssize_t)n)
			break;
		for (size_t i = 0; i < n; i++)
			sent += in.data[in.pos + i] == '\n';
		in.pos += n;
		for (size_t got = 0; got < n && r >= 0; got += 512) {
			r = jsonline_read(&line, s[1], LINE_MAX_HERE);
			taken += take(&line);
		}
		require(line.used <= line.room && line.room <= LINE_MAX_HERE);
	}
	close(s[0]);
	while (r >= 0) {
		r = jsonline_read(&line, s[1], LINE_MAX_HERE);
		taken += take(&line);
	}
	require(r == -EPIPE || r == -EMSGSIZE);
	require(r == -EPIPE ? taken == sent : taken <= sent);
	jsonline_done(&line);
	close(s[1]);
	return 0;
}
