/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pages that follow a VM, at the source: what it asks for at once and on a connection of its
 * own, what lies near that next, all others in their order.
 */

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "mover/migrate-copy.h"
#include "mover/migrate-postcopy.h"
#include "mover/migrate-set.h"

#define NEAR 16u /* chunks from one that is asked for on that come before others: 4 MiB */

struct pusher {
	struct sender sender; /* its bitmap: what has not been pushed */
	_Atomic uint64_t asked;
	/* Of a session. */
	pthread_mutex_t mutex;
	uint64_t sweep, near, near_end; /* chunks */
	pthread_t thread[MIGRATE_STREAMS];
	unsigned started;
	_Atomic bool failed;
};

struct start {
	struct pusher *p;
	unsigned stream;
};

int pusher_create(int memfd, uint64_t memory, enum compression compression, unsigned streams,
		  struct pusher **ret, struct error *err)
{
	struct pusher *p = calloc(1, sizeof(*p));
	int rc;

	if (!p)
		return error_set(err, -ENOMEM, "out of memory");
	pthread_mutex_init(&p->mutex, NULL);
	p->sender = (struct sender){.memfd = memfd,
				    .memory = memory,
				    .compression = compression,
				    .streams = streams,
				    .bitmap_fd = -1};
	for (unsigned i = 0; i < streams; i++)
		p->sender.channel[i].fd = -1;
	rc = sender_init(&p->sender, err);
	if (rc < 0)
		pusher_destroy(p);
	else
		*ret = p;
	return rc;
}

void pusher_destroy(struct pusher *p)
{
	if (!p)
		return;
	pusher_stop(p);
	sender_done(&p->sender);
	pthread_mutex_destroy(&p->mutex);
	free(p);
}

/* The next chunk to push, with the pages that nobody else has taken; false: none is left. */
static bool take_chunk(struct pusher *p, uint64_t *chunk, uint64_t *pages)
{
	uint64_t chunks = index_chunks(p->sender.memory);

	SCOPED_LOCK(&p->mutex);
	for (;;) {
		uint64_t c = p->near < p->near_end ? p->near++ : p->sweep++;

		if (c >= chunks)
			break;
		*pages = atomic_exchange(&p->sender.bitmap[c], 0);
		*chunk = c;
		if (*pages)
			return true;
	}
	p->sweep = chunks;
	return false;
}

static void go_near(struct pusher *p, uint64_t chunk)
{
	uint64_t chunks = index_chunks(p->sender.memory);

	SCOPED_LOCK(&p->mutex);
	p->near = chunk;
	p->near_end = chunks - chunk < NEAR ? chunks : chunk + NEAR;
}

static int push(struct pusher *p, unsigned stream, struct error *err)
{
	uint64_t chunk, pages;
	int rc = 0;

	while (rc == 0 && !p->failed && take_chunk(p, &chunk, &pages))
		rc = sender_pages(&p->sender, stream, chunk, pages, err);
	if (rc == 0)
		rc = message_send_u64(&p->sender.channel[stream], MESSAGE_SYNC, ROUND_REST, err);
	return rc;
}

/* Answers are never late: who is asked for a page sends it though it may be on its way. */
static int answer(struct pusher *p, const struct message *m, struct error *err)
{
	uint64_t chunk, pages;
	int rc;

	if (m->type != MESSAGE_REQUEST)
		return error_set(err, -EBADMSG, "type %u among requests", m->type);
	rc = request_take(m, p->sender.memory, &chunk, &pages, err);
	if (rc < 0)
		return rc;
	atomic_fetch_and(&p->sender.bitmap[chunk], ~pages);
	go_near(p, chunk);
	p->asked += (unsigned)__builtin_popcountll(pages);
	return sender_pages(&p->sender, 0, chunk, pages, err);
}

static int answer_all(struct pusher *p, struct error *err)
{
	struct channel *ch = &p->sender.channel[0];

	for (;;) {
		struct message m = {0};
		int rc = message_wait_long(ch, err);

		if (rc == 0)
			rc = message_receive(ch, &m, err);
		if (rc == 0)
			rc = answer(p, &m, err);
		message_done(&m);
		if (rc < 0)
			return rc;
	}
}

static void *pusher_main(void *arg)
{
	struct start start = *(struct start *)arg;
	struct error err = {{0}};

	free(arg);
	if ((start.stream ? push(start.p, start.stream, &err) : answer_all(start.p, &err)) < 0)
		start.p->failed = true;
	return NULL;
}

static void set_work(struct pusher *p, const uint64_t *missing, const uint64_t *zero)
{
	for (uint64_t c = 0; c < index_chunks(p->sender.memory); c++)
		p->sender.bitmap[c] = missing[c] & ~(zero ? zero[c] : 0);
	p->sweep = p->near = p->near_end = 0;
	p->failed = false;
}

int pusher_start(struct pusher *p, struct channel *channel, const uint64_t *missing,
		 const uint64_t *zero, struct error *err)
{
	set_work(p, missing, zero);
	for (unsigned i = 0; i < p->sender.streams; i++) {
		p->sender.channel[i] = channel[i];
		p->sender.channel[i].cancel[0] = &p->failed;
		p->sender.channel[i].cancel[1] = NULL;
		channel[i] = (struct channel){.fd = -1};
	}
	while (p->started < p->sender.streams) {
		struct start *start = malloc(sizeof(*start));
		int rc;

		if (!start)
			return error_set(err, -ENOMEM, "out of memory");
		*start = (struct start){p, p->started};
		rc = pthread_create(&p->thread[p->started], NULL, pusher_main, start);
		if (rc) {
			free(start);
			return error_errno(err, -rc, "cannot start a thread");
		}
		p->started++;
	}
	return 0;
}

void pusher_stop(struct pusher *p)
{
	p->failed = true;
	for (unsigned i = 0; i < p->started; i++)
		shutdown(p->sender.channel[i].fd, SHUT_RDWR);
	for (unsigned i = 0; i < p->started; i++)
		pthread_join(p->thread[i], NULL);
	p->started = 0;
	for (unsigned i = 0; i < p->sender.streams; i++)
		channel_close(&p->sender.channel[i]);
}

const _Atomic bool *pusher_failed(const struct pusher *p)
{
	return &p->failed;
}

void pusher_count(const struct pusher *p, uint64_t *pages, uint64_t *asked)
{
	*pages = p->sender.count.pages;
	*asked = p->asked;
}
