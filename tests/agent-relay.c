/* SPDX-License-Identifier: Apache-2.0 */
/* agent-relay NAME=VSOCK_PATH...: the relay alone, for the tests; each VM finds each. */

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/relay.h"
#include "lib/error.h"
#include "lib/log.h"
#include "lib/loop.h"

static int lookup(void *arg, const char *from, const char *name, char **path, struct error *err)
{
	size_t n = strlen(name);

	for (char **vm = arg; *vm; vm++)
		if (!strncmp(*vm, name, n) && (*vm)[n] == '=') {
			*path = strdup(*vm + n + 1);
			return *path ? 0 : error_errno(err, -ENOMEM, "%s", name);
		}
	return error_set(err, -ENOENT, "no VM %s in this network", name);
}

static void on_stop(void *arg, int signo)
{
	loop_stop(arg);
}

static int add_all(struct relay *relay, char **vms, struct error *err)
{
	for (; *vms; vms++) {
		char *name = strndup(*vms, strcspn(*vms, "="));
		int r = name ? relay_add(relay, name, *vms + strlen(name) + 1, err) : -ENOMEM;

		free(name);
		if (r)
			return r;
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct loop *loop = NULL;
	struct relay *relay = NULL;
	struct loop_source *source;
	struct error err = {"cannot start"};
	struct log log;
	int r;

	log_init(&log, "relay", 2, LOG_INFO);
	r = loop_create(&loop);
	if (!r)
		r = loop_add_signal(loop, SIGTERM, on_stop, loop, &source);
	if (!r)
		r = relay_create(loop, &log, lookup, argv + 1, &relay);
	if (!r)
		r = add_all(relay, argv + 1, &err);
	if (r)
		fprintf(stderr, "agent-relay: %s\n", err.text);
	else
		loop_run(loop);
	relay_destroy(relay);
	loop_destroy(loop);
	return r ? 1 : 0;
}
