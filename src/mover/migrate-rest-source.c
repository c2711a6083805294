/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Post-copy in the course of a migration, at the source: when the rest of the pages is sent, and
 * how that goes on after a connection that broke.
 */

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "mover/migrate-set.h"
#include "mover/migrate-source.h"

/* One for what is asked for, and the others; hellos count 64 connections at most. */
static unsigned rest_streams(const struct source *s)
{
	return s->o.streams < MIGRATE_STREAMS ? s->o.streams + 1 : MIGRATE_STREAMS;
}

int source_rest_connect(struct source *s, struct error *err)
{
	int rc = 0;

	s->rest_streams = rest_streams(s);
	for (unsigned i = 0; i < s->rest_streams; i++)
		s->rest[i].fd = -1;
	for (unsigned i = 0; rc == 0 && i < s->rest_streams; i++) {
		rc = source_connect(s, HELLO_REST, i, &s->rest[i], err);
		if (i && s->o.bandwidth)
			s->rest[i].pace = &s->pace;
	}
	return rc;
}

/* The memory stays ours when the VMM dies: the memfd lives as long as one of its descriptors. */
static int make_pusher(struct source *s, struct error *err)
{
	if (s->pusher)
		return 0;
	return pusher_create(s->sender.memfd, s->sender.memory, s->o.compression, s->rest_streams,
			     &s->pusher, err);
}

/* Pages where the memory has a hole need not be read to be known as zero. */
static void find_zeros(const struct source *s, const uint64_t *there, const uint64_t *missing,
		       uint64_t *zero)
{
	for (uint64_t c = 0; c < index_chunks(s->sender.memory); c++)
		zero[c] = missing[c] & ~there[c];
}

int source_rest_unit(struct source *s, const struct message *m, struct error *err)
{
	int rc = message_u64(m, &s->unit, err);

	if (rc == 0 && (s->unit != FAULTS_UNIT_MAX || s->sender.memory % s->unit))
		rc = error_set(err, -EBADMSG, "pages of %" PRIu64 " bytes at the target", s->unit);
	return rc;
}

/* Half of a huge page cannot be missing. */
static void round_up(const struct source *s, uint64_t *missing)
{
	uint64_t n = s->unit / CHUNK_BYTES;

	for (uint64_t first = 0; n && first < index_chunks(s->sender.memory); first += n) {
		uint64_t any = 0;

		for (uint64_t c = first; c < first + n; c++)
			any |= missing[c];
		for (uint64_t c = first; any && c < first + n; c++)
			missing[c] = ~0ull;
	}
}

static int send_missing(struct source *s, uint64_t *missing, uint64_t *zero, struct error *err)
{
	uint64_t left, memory = s->sender.memory;
	int rc = sender_left(&s->sender, &left, err);

	if (rc == 0)
		rc = faults_there(s->sender.memfd, memory, zero, err);
	if (rc < 0)
		return rc;
	for (uint64_t c = 0; c < index_chunks(memory); c++)
		missing[c] = s->sender.bitmap[c] & index_chunk_mask(memory, c);
	round_up(s, missing);
	find_zeros(s, zero, missing, zero);
	json_object_set_new(s->report, "missing",
			    json_integer((json_int_t)set_count(missing, memory)));
	rc = missing_send(&s->control, memory, missing, zero, err);
	if (rc == 0)
		rc = make_pusher(s, err);
	return rc < 0 ? rc : pusher_start(s->pusher, s->rest, missing, zero, err);
}

int source_rest_begin(struct source *s, struct error *err)
{
	uint64_t chunks = index_chunks(s->sender.memory);
	CLEANUP_FREE uint64_t *missing = calloc(chunks, sizeof(*missing));
	CLEANUP_FREE uint64_t *zero = calloc(chunks, sizeof(*zero));
	int rc = missing && zero ? 0 : error_set(err, -ENOMEM, "out of memory");

	if (rc == 0)
		rc = send_missing(s, missing, zero, err);
	s->note.rest = true;
	return rc < 0 ? rc : source_at(s, STEP_REST);
}

/* A mover that was started again has to get hold of the memory. */
static int find_memory(struct source *s, struct error *err)
{
	json_t *vm = NULL;
	int rc = 0;

	if (s->sender.memfd >= 0)
		return 0;
	rc = s->o.vmm->ops->describe(s->o.vmm, &vm, err);
	if (rc == 0)
		s->sender.memory = (uint64_t)json_integer_value(
			json_object_get(json_object_get(vm, "memory"), "size"));
	json_decref(vm);
	if (rc == 0)
		rc = s->o.vmm->ops->memory(s->o.vmm, &s->sender.memfd, err);
	s->memory_gone = rc == -ENOTCONN;
	return s->memory_gone ? error_set(err, -ENODATA,
					  "the source's wisp-vmm is gone, and with it the rest of "
					  "the VM's memory")
			      : rc;
}

int source_rest_return(struct source *s, struct error *err)
{
	CLEANUP_FREE uint64_t *missing = NULL;
	int rc = find_memory(s, err);

	if (rc < 0)
		return rc;
	source_rest_stop(s);
	missing = calloc(index_chunks(s->sender.memory), sizeof(*missing));
	if (!missing)
		return error_set(err, -ENOMEM, "out of memory");
	rc = missing_receive(&s->control, s->sender.memory, missing, NULL, err);
	if (rc == 0)
		rc = source_rest_connect(s, err);
	if (rc == 0)
		rc = make_pusher(s, err);
	if (rc == 0)
		rc = pusher_start(s->pusher, s->rest, missing, NULL, err);
	return rc < 0 ? rc : source_at(s, STEP_REST);
}

void source_rest_stop(struct source *s)
{
	if (s->pusher)
		pusher_stop(s->pusher);
	for (unsigned i = 0; i < s->rest_streams; i++)
		channel_close(&s->rest[i]);
}

/* What the target says when it has everything; silence is right as long as pages go. */
static int hear_whole(struct source *s, struct message *m, struct error *err)
{
	uint64_t before, pages, asked;
	int rc;

	do {
		pusher_count(s->pusher, &before, &asked);
		rc = channel_wait(&s->control, err);
		pusher_count(s->pusher, &pages, &asked);
	} while (rc == -ETIMEDOUT && pages != before);
	return rc < 0 ? rc : message_expect(&s->control, MESSAGE_WHOLE, m, err);
}

static void report_whole(struct source *s, const struct message *m)
{
	uint64_t pages, asked;
	json_t *waited = NULL;

	pusher_count(s->pusher, &pages, &asked);
	json_object_set_new(s->report, "followed", json_integer((json_int_t)pages));
	json_object_set_new(s->report, "asked", json_integer((json_int_t)asked));
	if (message_json(m, &waited, NULL) == 0)
		json_object_set_new(s->report, "waited", waited);
}

int source_rest_follow(struct source *s, struct error *err)
{
	uint64_t since = s->step_ns[STEP_FOLLOW];
	struct message m = {0};
	int rc = source_at(s, STEP_FOLLOW);

	if (rc < 0)
		return rc;
	if (since) /* it runs since the first time */
		s->step_ns[STEP_FOLLOW] = since;
	s->control.cancel[1] = pusher_failed(s->pusher);
	rc = hear_whole(s, &m, err);
	s->control.cancel[1] = NULL;
	if (rc == 0)
		report_whole(s, &m);
	message_done(&m);
	source_rest_stop(s);
	if (rc == 0)
		return (rc = source_at(s, STEP_WHOLE)) < 0 ? rc : 1;
	channel_close(&s->control);
	return 0;
}

void source_rest_done(struct source *s)
{
	source_rest_stop(s);
	pusher_destroy(s->pusher);
	s->pusher = NULL;
}
