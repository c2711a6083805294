/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A coordinator whose daemon and whose terminal say what they like: answers to what it asks that
 * are right, or nearly, events, streams, requests of wisp cluster. The input is what they do one
 * after the other, each a byte and what belongs to it.
 */

#include <endian.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/proto.h"
#include "input.h"
#include "job/job.h"
#include "job/spec.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/loop.h"

#define LINKS 8u
#define ASKED 64u
#define DEEDS 48u /* of an input */
#define TURNS 6u  /* of the loop, after each */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A connection of the coordinator's; the last one is the terminal's, which is ours. */
struct link {
	int fd;
	uint8_t in[16384];
	size_t used;
};

struct asked {
	struct link *link;
	json_t *request;
};

struct play {
	struct loop *loop;
	struct job *job;
	int listener;
	struct link link[LINKS + 1];
	struct asked asked[ASKED];
	size_t nasked;
	struct link *streamed; /* where a stream was opened last */
	uint32_t stream;
	struct input in;
};

static char folder[] = "/dev/shm/wisp-fuzz-XXXXXX";
static char socket_path[64], saved[64];

static void require(int ok)
{
	if (!ok)
		abort();
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	return remove(path);
}

static void remove_folder(void)
{
	nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void prepare(void)
{
	signal(SIGPIPE, SIG_IGN);
	require(mkdtemp(folder) != NULL);
	snprintf(socket_path, sizeof(socket_path), "%s/socket", folder);
	snprintf(saved, sizeof(saved), "%s/saved", folder);
	setenv("WISP_RUN", folder, 1);
	atexit(remove_folder);
}

/* -------- what they say -------- */

static void send_frame(struct link *l, unsigned type, const void *data, size_t n)
{
	uint32_t length = htobe32((uint32_t)n + 1);
	uint8_t head[5] = {[4] = (uint8_t)type};

	if (l->fd < 0)
		return;
	memcpy(head, &length, sizeof(length));
	if (send(l->fd, head, 5, MSG_NOSIGNAL | MSG_DONTWAIT) != 5 ||
	    (n && send(l->fd, data, n, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)n)) {
		close(l->fd);
		l->fd = -1;
	}
}

static void send_json(struct link *l, json_t *message)
{
	char *text = json_dumps(message, JSON_COMPACT);

	if (text)
		send_frame(l, 1, text, strlen(text));
	free(text);
	json_decref(message);
}

static void send_stream(struct link *l, uint32_t stream, const void *data, size_t n)
{
	uint32_t number = htobe32(stream);
	uint8_t piece[4 + 1024];

	n = n < 1024 ? n : 1024;
	memcpy(piece, &number, sizeof(number));
	if (n)
		memcpy(piece + 4, data, n);
	send_frame(l, 2, piece, 4 + n);
}

/* -------- right answers -------- */

static json_t *facts(const char *name)
{
	return json_pack("{s:s, s:s, s:[], s:n, s:{s:i, s:i}, s:{s:i, s:I}}", "name", name, "type",
			 "compute", "labels", "draining", "topology", "threads", 8, "cores", 8,
			 "free", "threads", 8, "memory", (json_int_t)8 << 30);
}

static json_t *epoch(const char *vm)
{
	return json_pack("{s:{s:I, s:i, s:i, s:s}}", vm, "at", (json_int_t)1 << 60, "pause_ns", 5,
			 "epoch", 1, "digest",
			 "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
}

static json_t *right_answer(const json_t *request)
{
	const char *op = json_string_value(json_object_get(request, "op"));
	const json_t *to = json_object_get(request, "to");
	json_t *answer = json_pack("{s:O, s:b}", "re", json_object_get(request, "id"), "done", 1);

	if (!strcmp(op, "facts") && to == NULL)
		json_object_set_new(answer, "values",
				    json_pack("{s:o, s:o}", "0", facts("n0"), "1", facts("n1")));
	else if (!strcmp(op, "save"))
		json_object_set_new(
			answer, "values",
			json_pack("{s:o, s:o}", "0", epoch("fz-0"), "1", epoch("fz-1")));
	else if (!strcmp(op, "vms"))
		json_object_set_new(answer, "values",
				    json_pack("{s:{s:{s:b}}, s:{}}", "0", "fz-0", "ready", 1, "1"));
	else if (strcmp(op, "connect"))
		json_object_set_new(answer, "ok",
				    to ? json_incref((json_t *)to) : json_string("0-1"));
	return answer;
}

/* -------- what the coordinator says -------- */

static void hear(struct play *p, struct link *l, unsigned type, const uint8_t *data, size_t n)
{
	json_t *message = type == 1 ? json_loadb((const char *)data, n, 0, NULL) : NULL;
	const json_t *stream = json_object_get(message, "stream");

	if (json_is_string(json_object_get(message, "op")) &&
	    json_is_integer(json_object_get(message, "id")) && p->nasked < ASKED)
		p->asked[p->nasked++] = (struct asked){l, json_incref(message)};
	if (json_is_integer(stream)) {
		p->streamed = l;
		p->stream = (uint32_t)json_integer_value(stream);
	}
	json_decref(message);
}

static void read_link(struct play *p, struct link *l)
{
	ssize_t n =
		l->fd < 0 ? 0 : recv(l->fd, l->in + l->used, sizeof(l->in) - l->used, MSG_DONTWAIT);
	size_t at = 0;

	if (n > 0)
		l->used += (size_t)n;
	while (l->used - at >= 5) {
		uint32_t size;

		memcpy(&size, l->in + at, sizeof(size));
		size = be32toh(size);
		if (!size || size > sizeof(l->in) - 4) {
			close(l->fd);
			l->fd = -1;
			return;
		}
		if (l->used - at - 4 < size)
			break;
		hear(p, l, l->in[at + 4], l->in + at + 5, size - 1);
		at += 4 + size;
	}
	memmove(l->in, l->in + at, l->used - at);
	l->used -= at;
}

static void accept_one(struct play *p)
{
	int fd = accept4(p->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	for (size_t i = 0; fd >= 0 && i < LINKS; i++)
		if (p->link[i].fd < 0) {
			p->link[i].fd = fd;
			p->link[i].used = 0;
			send_json(&p->link[i], json_pack("{s:i, s:s}", "wisp", 1, "node", "n0"));
			return;
		}
	if (fd >= 0)
		close(fd);
}

static void turn(struct play *p)
{
	for (unsigned i = 0; i < TURNS && p->job->stage; i++) {
		require(loop_run_once(p->loop, 0) >= 0);
		accept_one(p);
		for (size_t k = 0; k <= LINKS; k++)
			read_link(p, &p->link[k]);
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

/* To the oldest question; `more` replaces members of what is right. */
static void answer(struct play *p, json_t *more)
{
	struct asked one;
	json_t *message;

	if (p->nasked) {
		one = p->asked[0];
		memmove(p->asked, p->asked + 1, --p->nasked * sizeof(one));
		message = right_answer(one.request);
		json_object_update(message, more);
		send_json(one.link, message);
		json_decref(one.request);
	}
	json_decref(more);
}

static void ready(struct play *p)
{
	static const char *const names[] = {"fz-0", "fz-1"};

	for (size_t i = 0; i < 2; i++)
		send_json(&p->link[0], json_pack("{s:s, s:i, s:s, s:s}", "event", "ready", "node",
						 (int)i, "cluster", p->job->id, "vm", names[i]));
}

/* An agent that greets, starts what it is asked to, and says how that has ended. */
static void agent(struct play *p, unsigned code)
{
	struct buffer frames = {0};
	uint8_t started[4] = {1}, exit[8] = {0, 0, 0, 0, (uint8_t)code};

	if (!p->streamed)
		return;
	require(!frame_append_hello(&frames) &&
		!frame_append(&frames, FRAME_STARTED, started, sizeof(started)) &&
		!frame_append(&frames, FRAME_EXIT, exit, sizeof(exit)));
	send_stream(p->streamed, p->stream, frames.data + frames.start, buffer_used(&frames));
	send_stream(p->streamed, p->stream, "", 0);
	buffer_done(&frames);
}

static void agent_bytes(struct play *p)
{
	size_t n = input_u8(&p->in), there = p->in.size - p->in.pos;

	n = n < there ? n : there;
	if (p->streamed)
		send_stream(p->streamed, p->stream, p->in.data + p->in.pos, n);
	p->in.pos += n;
}

/* Checkpoints of wherever a terminal likes would be made here. */
static void terminal(struct play *p)
{
	struct link *l = &p->link[LINKS];
	json_t *message = take_json(p);

	if (l->fd < 0) {
		l->fd = io_unix_connect_nonblock(p->job->socket, NULL);
		l->used = 0;
		send_json(l, json_pack("{s:i, s:s}", "wisp", 1, "node", "me"));
		turn(p);
	}
	if (json_object_get(message, "folder"))
		json_object_set_new(message, "folder", json_string(saved));
	send_json(l, message);
}

static void drop(struct play *p, struct link *l)
{
	if (l->fd >= 0)
		close(l->fd);
	l->fd = -1;
	for (size_t i = 0; i < p->nasked;)
		if (p->asked[i].link == l) {
			json_decref(p->asked[i].request);
			p->asked[i] = p->asked[--p->nasked];
		} else {
			i++;
		}
	if (p->streamed == l)
		p->streamed = NULL;
}

static void deed(struct play *p)
{
	uint8_t what = input_u8(&p->in);

	switch (what & 15) {
	case 0:
	case 1:
	case 2:
		answer(p, json_object());
		break;
	case 3:
		answer(p, take_json(p));
		break;
	case 4:
		send_json(&p->link[0], take_json(p));
		break;
	case 5:
		ready(p);
		break;
	case 6:
	case 7:
		terminal(p);
		break;
	case 8:
		agent(p, what >> 4);
		break;
	case 9:
		agent_bytes(p);
		break;
	case 10:
		drop(p, &p->link[(what >> 4) % (LINKS + 1)]);
		break;
	default: /* answers all */
		for (unsigned i = 0; i < 8 && p->nasked; i++) {
			answer(p, json_object());
			turn(p);
		}
		break;
	}
	turn(p);
}

/* -------- life -------- */

static json_t *description(void)
{
	return json_pack(
		"{s:s, s:s, s:[s, s], s:[s, s], s:b, s:[], s:s, s:{s:i, s:i, s:i, s:i, s:{s:s}}, "
		"s:{s:s, s:s}, s:[s, s], s:i, s:i, s:s, s:b}",
		"name", "fz", "socket", socket_path, "nodes", "n0@10.0.0.1", "n1@10.0.0.2",
		"addresses", "10.0.0.1", "10.0.0.2", "self", 1, "documents", "digest", "0",
		"environment", "vms", 2, "vms-per-node", 1, "cpus", 1, "memory", 1 << 20,
		"checkpoint", "directory", saved, "image", "name", "i", "digest", "0", "program",
		"echo", "x", "uid", 1000, "gid", 1000, "user-name", "me", "detach", 0);
}

static void begin(struct play *p)
{
	struct spec spec;
	struct error err;

	for (size_t i = 0; i <= LINKS; i++)
		p->link[i].fd = -1;
	unlink(socket_path);
	p->listener = io_unix_listen(socket_path, &err);
	require(p->listener >= 0 && !fcntl(p->listener, F_SETFL, O_NONBLOCK));
	require(!loop_create(&p->loop) && !spec_read(description(), &spec, &err));
	require(!job_create(p->loop, &spec, &p->job, &err));
	turn(p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static bool prepared;
	static struct play play;
	struct play *p = &play;

	if (!prepared)
		prepare();
	prepared = true;
	*p = (struct play){.in = {data, size, 0}};
	begin(p);
	for (unsigned i = 0; i < DEEDS && p->in.pos < p->in.size && p->job->stage; i++)
		deed(p);
	for (size_t i = 0; i <= LINKS; i++)
		drop(p, &p->link[i]);
	job_destroy(p->job);
	loop_destroy(p->loop);
	close(p->listener);
	return 0;
}
