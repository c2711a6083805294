/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a cluster's part says to the daemon: it is a process of the user's, who may put another in
 * its place. Answers that are right or nearly so, events, streams, garbage, its end, while another
 * program of the user asks for things. The helper that starts parts and ends clusters is here: what
 * it does is told by the input, too.
 */

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "input.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/loop.h"
#include "node/claim.h"
#include "node/cluster.h"
#include "node/daemon-cluster.h"
#include "node/lease.h"
#include "node/store.h"
#include "node/topology.h"

#define DEEDS 64u /* of an input */
#define TURNS 4u  /* of the loop, after each */
#define CLUSTER "fz-00000001"
#define SECRET "a secret of sixteen bytes"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct link {
	int fd;
	uint8_t in[16384];
	size_t used;
};

struct helper_call {
	struct helper_call *next;
	const struct helper_ops *ops; /* NULL: nobody hears */
	void *arg;
	bool told, part;
};

struct play {
	struct daemon *d;
	struct link part, peer;
	json_t *asked; /* of the part: what it has not answered */
	json_int_t last;
	uint32_t stream; /* of the peer */
	struct input in;
};

static char folder[] = "/dev/shm/wisp-fuzz-XXXXXX";
static char socket_path[64], database[64];
static struct play play;
static struct helper_call *calls; /* as the daemon knows them */

static void require(int ok)
{
	if (!ok)
		abort();
}

/* -------- in place of node/helper-call.c -------- */

int helper_start(struct helper_calls *all, const json_t *job, int socket,
		 const struct helper_ops *ops, void *arg, struct helper_call **ret,
		 struct error *err)
{
	struct helper_call *call = calloc(1, sizeof(*call));

	require(call != NULL);
	*call = (struct helper_call){calls, ops, arg, false, socket >= 0};
	calls = call;
	if (socket >= 0) {
		require(play.part.fd < 0);
		play.part.fd = dup(socket);
		play.part.used = 0;
	}
	*ret = call;
	return 0;
}

/* Nobody's. */
pid_t helper_pid(const struct helper_call *call)
{
	return INT_MAX;
}

void helper_forget(struct helper_call **call)
{
	if (*call)
		(*call)->ops = NULL;
	*call = NULL;
}

/* That it has failed it says with the others. */
void helper_kill(struct helper_call *call)
{
}

void helper_calls_done(struct helper_calls *all)
{
}

static void helper_free(struct helper_call *call)
{
	struct helper_call **at = &calls;

	while (*at != call)
		at = &(*at)->next;
	*at = call->next;
	free(call);
}

/* The oldest that has said nothing says this. */
static void helper_says(int code)
{
	struct helper_call *call = NULL;

	for (struct helper_call *c = calls; c; c = c->next)
		if (!c->told)
			call = c;
	if (!call)
		return;
	call->told = true;
	if (!call->ops || code || !call->ops->ended) {
		const struct helper_ops *ops = call->ops;
		void *arg = call->arg;

		helper_free(call);
		if (ops)
			ops->done(arg, code, code ? "it cannot" : "");
	} else {
		call->ops->done(call->arg, 0, "");
	}
}

static void part_ends(struct play *p)
{
	if (p->part.fd < 0)
		return;
	close(p->part.fd);
	p->part.fd = -1;
	json_array_clear(p->asked);
	for (struct helper_call *c = calls; c; c = c->next)
		if (c->part) {
			const struct helper_ops *ops = c->ops;
			void *arg = c->arg;
			bool told = c->told;

			helper_free(c);
			if (ops && told)
				ops->ended(arg, SIGKILL);
			else if (ops)
				ops->done(arg, -ECHILD, "it has ended");
			return;
		}
}

/* -------- frames -------- */

static void send_frame(struct link *l, unsigned type, const void *data, size_t n)
{
	uint32_t length = htobe32((uint32_t)n + 1);
	uint8_t head[5] = {[4] = (uint8_t)type};

	memcpy(head, &length, sizeof(length));
	if (l->fd >= 0 && send(l->fd, head, 5, MSG_NOSIGNAL | MSG_DONTWAIT) == 5 && n)
		send(l->fd, data, n, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void send_json(struct link *l, json_t *message)
{
	char *text = json_dumps(message, JSON_COMPACT);

	if (text)
		send_frame(l, 1, text, strlen(text));
	free(text);
	json_decref(message);
}

static void hear(struct play *p, const struct link *l, const uint8_t *data, size_t n)
{
	json_t *message = json_loadb((const char *)data, n, 0, NULL);

	if (l == &p->part && json_is_string(json_object_get(message, "op")) &&
	    json_is_integer(json_object_get(message, "id")))
		json_array_append(p->asked, message);
	json_decref(message);
}

/* False: it was closed. */
static bool read_link(struct play *p, struct link *l)
{
	ssize_t n = recv(l->fd, l->in + l->used, sizeof(l->in) - l->used, MSG_DONTWAIT);
	size_t at = 0;

	if (!n)
		return false;
	l->used += n > 0 ? (size_t)n : 0;
	while (l->used - at >= 5) {
		uint32_t size;

		memcpy(&size, l->in + at, sizeof(size));
		size = be32toh(size);
		if (!size || size > sizeof(l->in) - 4)
			return false;
		if (l->used - at - 4 < size)
			break;
		if (l->in[at + 4] == 1)
			hear(p, l, l->in + at + 5, size - 1);
		at += 4 + size;
	}
	memmove(l->in, l->in + at, l->used - at);
	l->used -= at;
	return true;
}

static void turn(struct play *p)
{
	for (unsigned i = 0; i < TURNS; i++) {
		require(loop_run_once(p->d->p.loop, 0) >= 0);
		if (p->part.fd >= 0 && !read_link(p, &p->part))
			part_ends(p);
		if (p->peer.fd >= 0)
			read_link(p, &p->peer);
	}
}

/* -------- deeds -------- */

static json_t *take_json(struct play *p)
{
	size_t n = (size_t)input_number(&p->in, 2), there = p->in.size - p->in.pos;
	json_t *json;

	n = n < there ? n : there;
	json = json_loadb((const char *)p->in.data + p->in.pos, n, JSON_REJECT_DUPLICATES, NULL);
	p->in.pos += n;
	if (json_is_object(json))
		return json;
	json_decref(json);
	return json_object();
}

static void answer(struct play *p, json_t *more)
{
	const json_t *request = json_array_get(p->asked, 0);
	json_t *message = json_pack("{s:O?, s:b, s:{}}", "re", json_object_get(request, "id"),
				    "done", 1, "value");

	json_object_update(message, more);
	if (request)
		send_json(&p->part, json_incref(message));
	json_decref(message);
	json_array_remove(p->asked, 0);
	json_decref(more);
}

static void ask(struct play *p, unsigned which)
{
	static const char *const ops[] = {"start", "stop",    "pause",	 "resume",
					  "save",  "restore", "receive", "send",
					  "vms",   "connect", "release", "list"};
	const char *op = ops[which % (sizeof(ops) / sizeof(ops[0]))];
	json_t *request =
		json_pack("{s:s, s:I, s:s}", "op", op, "id", ++p->last, "cluster", CLUSTER);

	if (!strcmp(op, "connect")) {
		json_object_set_new(request, "node", json_string("n1"));
		json_object_set_new(request, "vm", json_string("fz-0"));
		json_object_set_new(request, "what", json_string("agent"));
		json_object_set_new(request, "stream", json_integer(p->stream));
		p->stream += 2;
	}
	send_json(&p->peer, request);
}

static void send_bytes(struct play *p, struct link *l, unsigned type)
{
	size_t n = input_u8(&p->in), there = p->in.size - p->in.pos;

	n = n < there ? n : there;
	send_frame(l, type, p->in.data + p->in.pos, n);
	p->in.pos += n;
}

static void deed(struct play *p)
{
	uint8_t what = input_u8(&p->in);

	switch (what & 15) {
	case 0:
	case 1:
		answer(p, json_object());
		break;
	case 2:
		answer(p, take_json(p));
		break;
	case 3:
	case 4:
		send_json(&p->part, take_json(p));
		break;
	case 5:
		send_bytes(p, &p->part, 2);
		break;
	case 6:
		send_bytes(p, &p->part, what >> 4);
		break;
	case 7:
		part_ends(p);
		break;
	case 8:
		helper_says(-EIO);
		break;
	case 9:
		helper_says(0);
		break;
	case 10:
		send_bytes(p, &p->peer, 2);
		break;
	default:
		ask(p, what >> 4);
		break;
	}
	turn(p);
}

/* -------- life -------- */

static void remove_files(void)
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
	struct daemon_params params = {.socket = socket_path,
				       .database = database,
				       .name = "n1",
				       .labels = json_array(),
				       .admit = {.keys = "/nowhere"},
				       .root = "/nowhere",
				       .operators = (gid_t)-1,
				       .grace = 3600};
	struct daemon *d = NULL;
	struct error err;

	signal(SIGPIPE, SIG_IGN);
	require(mkdtemp(folder) != NULL);
	setenv("WISP_RUN", folder, 1);
	setenv("WISP_LIBEXECDIR", "/nowhere", 1);
	snprintf(socket_path, sizeof(socket_path), "%s/socket", folder);
	snprintf(database, sizeof(database), "%s/node.db", folder);
	atexit(remove_files);
	require(!topology_read(&source, &params.topology, &err) && !loop_create(&params.loop));
	require(!daemon_create(&params, &d, &err));
	return d;
}

/* A cluster with its network, of which nothing runs yet. */
static void make_cluster(struct daemon *d)
{
	json_t *vms = json_pack("[{s:s, s:s}, {s:s, s:s}]", "name", "fz-0", "address", "10.78.0.2",
				"name", "fz-1", "address", "10.78.0.3");
	json_t *wanted = json_pack("{s:s, s:[{s:s, s:i, s:i}, {s:s, s:i, s:i}]}", "cluster",
				   CLUSTER, "vms", "name", "fz-0", "cpus", 1, "memory", 4096,
				   "name", "fz-1", "cpus", 1, "memory", 4096);
	json_t *environment = json_object(), *nodes = json_array(), *lease = NULL, *missing = NULL;
	const struct cluster_network net = {7, "10.78.0.0/24", nodes};
	struct claim *claim = NULL;
	struct error err;

	require(!claim_parse(wanted, geteuid(), &claim, &err));
	require(!alloc_claim(&d->alloc, claim, daemon_now(), daemon_now() + 3600, &lease, &missing,
			     &err));
	require(!cluster_keep(d->store, CLUSTER, environment, NULL, vms, 0, &err));
	require(!lease_assign(d->store, CLUSTER, SECRET, &err));
	require(!cluster_add_network(d->store, CLUSTER, &net, &err));
	claim_destroy(claim);
	json_decref(wanted);
	json_decref(vms);
	json_decref(environment);
	json_decref(nodes);
	json_decref(lease);
}

static void connect_peer(struct play *p)
{
	p->peer.fd = io_unix_connect_nonblock(socket_path, NULL);
	require(p->peer.fd >= 0);
	send_json(&p->peer, json_pack("{s:i, s:s}", "wisp", 1, "node", "me"));
	send_json(&p->peer, json_pack("{s:s, s:I, s:s}", "op", "session", "id", ++p->last,
				      "session", SECRET));
	turn(p);
}

/* Nothing of it is there for the next one. */
static void end(struct play *p)
{
	struct cluster *c = cluster_known(p->d, CLUSTER);

	if (c)
		cluster_destroy(c);
	while (calls)
		helper_free(calls);
	require(!alloc_release(&p->d->alloc, CLUSTER, daemon_now(), NULL));
	if (p->part.fd >= 0)
		close(p->part.fd);
	close(p->peer.fd);
	for (unsigned i = 0; i < 100 && p->d->peers; i++)
		require(loop_run_once(p->d->p.loop, 100) >= 0);
	require(!p->d->peers);
	json_decref(p->asked);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct daemon *d;
	struct play *p = &play;

	if (!d)
		d = start();
	*p = (struct play){
		.d = d, .part.fd = -1, .peer.fd = -1, .stream = 1, .in = {data, size, 0}};
	p->asked = json_array();
	make_cluster(d);
	connect_peer(p);
	ask(p, 0);
	turn(p);
	for (unsigned i = 0; i < DEEDS && p->in.pos < p->in.size; i++)
		deed(p);
	end(p);
	return 0;
}
