/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A user of the node who may connect to its daemon, and sends what it likes behind the greeting:
 * requests, joins of trees, data of streams. The daemon has no way to other nodes.
 */

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/error.h"
#include "lib/io.h"
#include "lib/loop.h"
#include "node/daemon.h"
#include "node/topology.h"

#define INPUT_MAX 16384
#define TURNS 2000u /* in which a connection has to end */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char folder[] = "/tmp/wisp-fuzz-XXXXXX";
static char socket_path[64], database[64];

static void require(int ok)
{
	if (!ok)
		abort();
}

static void clean_up(void)
{
	static const char *const behind[] = {"", "-wal", "-shm", ".lock"};
	char path[80];

	for (size_t i = 0; i < sizeof(behind) / sizeof(behind[0]); i++) {
		snprintf(path, sizeof(path), "%s%s", database, behind[i]);
		unlink(path);
	}
	unlink(socket_path);
	rmdir(folder);
}

static struct daemon *start(void)
{
	static const struct topology_source source = {.synthetic = "pack:1 numa:1 core:2 pu:1"};
	struct daemon_params p = {.socket = socket_path,
				  .database = database,
				  .name = "n1",
				  .labels = json_array(),
				  .admit = {.keys = "/nowhere"},
				  .root = "/nowhere",
				  .operators = (gid_t)-1,
				  .grace = 1};
	struct daemon *d = NULL;
	struct error err;

	signal(SIGPIPE, SIG_IGN);
	require(mkdtemp(folder) != NULL);
	snprintf(socket_path, sizeof(socket_path), "%s/socket", folder);
	snprintf(database, sizeof(database), "%s/node.db", folder);
	atexit(clean_up);
	require(!topology_read(&source, &p.topology, &err) && !loop_create(&p.loop));
	require(!daemon_create(&p, &d, &err));
	return d;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char hello[] = "\0\0\0\027\1{\"wisp\":1,\"node\":\"me\"}";
	static struct daemon *d;
	struct error err;
	unsigned turns = 0;
	int fd;

	if (size > INPUT_MAX)
		return 0;
	if (!d)
		d = start();
	fd = io_unix_connect_nonblock(socket_path, &err);
	require(fd >= 0);
	require(send(fd, hello, sizeof(hello) - 1, MSG_NOSIGNAL) == sizeof(hello) - 1);
	require(!size || send(fd, data, size, MSG_NOSIGNAL) == (ssize_t)size);
	shutdown(fd, SHUT_WR);
	do
		require(loop_run_once(d->p.loop, 1000) >= 0 && ++turns < TURNS);
	while (turns < 2 || d->peers);
	close(fd);
	return 0;
}
