/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whoever greets a daemon, or answers where one calls: the first byte says which, the rest is what
 * it sends. It knows no key, so it is never let in.
 */

#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "channel/greet.h"
#include "lib/error.h"
#include "lib/loop.h"

#define INPUT_MAX 16384

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int ok)
{
	if (!ok)
		abort();
}

static void on_done(void *arg, int code, const char *reason, const struct greet_peer *peer)
{
	require(code < 0 && reason[0] && !peer);
	*(bool *)arg = true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char key[] = "a key that nobody is told, 32 bytes or more";
	struct loop *loop = NULL;
	struct greet *greet;
	struct error err;
	bool done = false;
	int s[2];

	if (!size || size > INPUT_MAX || loop_create(&loop))
		return 0;
	signal(SIGPIPE, SIG_IGN);
	require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s) == 0);
	struct greet_params p = {.loop = loop,
				 .in = s[0],
				 .out = s[0],
				 .called = data[0] & 1,
				 .way = data[0] & 1 ? GREET_REMOTE : GREET_KEY,
				 .self = "n1",
				 .node = data[0] & 1 ? NULL : "n7",
				 .key = key,
				 .nkey = sizeof(key)};
	require(greet_start(&p, on_done, &done, &greet, &err) == 0);
	if (send(s[1], data + 1, size - 1, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0)
		shutdown(s[1], SHUT_WR);
	while (!done)
		require(loop_run_once(loop, 5000) > 0);
	close(s[0]);
	close(s[1]);
	loop_destroy(loop);
	return 0;
}
