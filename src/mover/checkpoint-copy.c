/* SPDX-License-Identifier: Apache-2.0 */
/* The memory of a checkpoint: what is written while the VM runs, and what is left for the pause. */

#include "mover/checkpoint-parts.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "mover/chain.h"
#include "mover/compare.h"
#include "mover/page.h"
#include "mover/steps.h"

#define MAX_ROUNDS 30
#define RATE_PAGES 1000 /* fewer tell nothing of the rate */
#define LOOK_MS 250	/* ready: how often is looked what was written, at first */
#define LOOK_MOST_MS 2000
#define SLICE_NS 20000000 /* ready: what is written at once: told to cut, it has to end first */
#define FLUSH_NS 1000000000

static uint64_t words(const struct checkpoint *c)
{
	return index_chunks(c->memory.size);
}

/* Finds what changed since the parent. */
static int compare(struct checkpoint *c, struct error *err)
{
	struct chain chain;
	int rc;

	if (!c->parent)
		return 0;
	c->changed = calloc(words(c), sizeof(*c->changed));
	if (!c->changed)
		return error_set(err, -ENOMEM, "out of memory");
	rc = chain_open(&c->store, c->parent, &chain, err);
	if (rc < 0)
		return error_prefix(err, rc, "incremental on epoch %" PRIu64, c->parent);
	rc = compare_memory(&chain, c->memory.fd, c->request->progress, c->changed, err);
	chain_close(&chain);
	return rc;
}

static void note_round(struct checkpoint *c, uint64_t pages, uint64_t ns)
{
	json_array_append_new(c->rounds, json_pack("{s:I, s:I}", "pages", (json_int_t)pages, "ns",
						   (json_int_t)ns));
}

static uint64_t count(const struct checkpoint *c, const uint64_t *bitmap)
{
	uint64_t n = 0;

	for (uint64_t i = 0; i < words(c); i++)
		n += (unsigned)__builtin_popcountll(bitmap[i]);
	return n;
}

/* Writes all of memory, or what is in the bitmap. A round that is long enough tells the rate. */
static int write_round(struct checkpoint *c, const uint64_t *bitmap, struct error *err)
{
	uint64_t pages = bitmap ? count(c, bitmap) : c->memory.size / PAGE_BYTES;
	uint64_t start = io_now_ns(), ns;
	int rc;

	writer_gentle(c->writer, c->was_running && !c->paused);
	rc = writer_pages(c->writer, c->memory.fd, bitmap, err);

	ns = io_now_ns() - start;
	note_round(c, pages, ns);
	if (rc == 0 && pages >= RATE_PAGES)
		c->rate = (double)pages / (double)(ns + 1);
	return rc;
}

/* Everything that is not as in the parent, while the VM runs. */
static int first_round(struct checkpoint *c, uint64_t *pages, struct error *err)
{
	bool known = c->track.on;
	int rc = known ? 0 : track_start(&c->track, err);

	/* Of a new log every page counts as written: that is the round that comes now. */
	if (rc == 0)
		rc = track_collect(&c->track, pages, err);
	if (rc == 0 && !known)
		rc = compare(c, err);
	return rc < 0 ? rc : write_round(c, known ? c->track.dirty : c->changed, err);
}

static int take_brake(struct checkpoint *c, struct error *err)
{
	int rc;

	if (!c->request->throttle)
		return 0;
	rc = machine_connect(c->request->control, false, &c->machine, err);
	if (rc == 0)
		rc = brake_init(&c->brake, c->machine, c->vcpus, err);
	if (rc == 0)
		brake_look(&c->brake);
	return rc;
}

static double pause_of(const struct checkpoint *c, uint64_t pages)
{
	return (double)pages / c->rate;
}

/*
 * What was written in the last round would not fit into the pause. Whether another round is of use:
 * what is written becomes less, by itself or because the vCPUs that write are made slower.
 */
static bool goes_on(struct checkpoint *c, unsigned round, uint64_t pages, uint64_t before)
{
	bool slow = pages / 7 > before / 10;

	if (!c->request->throttle)
		return round < 3 || pages <= before / 10 * 9;
	if (round < 2 || !slow)
		return true;
	return brake_more(&c->brake, pages, NULL) == 0 || pages <= before / 10 * 9;
}

static int check_pause(const struct checkpoint *c, uint64_t pages, struct error *err)
{
	double ms = pause_of(c, pages) / 1e6;

	if (!c->request->max_pause_ms || ms <= c->request->max_pause_ms)
		return 0;
	return error_set(err, -EAGAIN,
			 "the VM writes faster than its memory can be written here: it would pause "
			 "for %.0f ms, and %u are allowed (--max-pause)%s",
			 ms, c->request->max_pause_ms,
			 c->request->throttle ? "" : "; --throttle slows it down meanwhile");
}

/* The last round is written in the pause, with what comes until then. */
static int leave(struct checkpoint *c, uint64_t pages, struct error *err)
{
	track_put_back(&c->track);
	c->left = pages * PAGE_BYTES;
	return check_pause(c, pages, err);
}

/* Told to cut already. */
static bool hurried(struct checkpoint *c)
{
	return c->request->steps && steps_await(c->request->steps, STEPS_CUT, 0, NULL) != 0;
}

int checkpoint_copy(struct checkpoint *c, struct error *err)
{
	uint64_t pages = 0, before;
	int rc = take_brake(c, err);

	if (rc == 0)
		rc = first_round(c, &pages, err);
	c->copied = true;
	for (unsigned round = 1; rc == 0; round++) {
		before = pages;
		rc = track_collect(&c->track, &pages, err);
		if (rc < 0)
			return rc;
		if (c->machine)
			brake_look(&c->brake);
		if (pause_of(c, pages) < c->request->downtime_ms * 1e6 || hurried(c) ||
		    !goes_on(c, round, pages, before) || round == MAX_ROUNDS)
			return leave(c, pages, err);
		rc = write_round(c, c->track.dirty, err);
	}
	return rc;
}

/*
 * Writes a slice of what is dirty, the next one each time; the rest comes again. *pages, of what is
 * dirty, become those of the rest.
 */
static int write_slice(struct checkpoint *c, uint64_t *pages, struct error *err)
{
	CLEANUP_FREE uint64_t *slice = calloc(words(c), sizeof(*slice));
	uint64_t most = (uint64_t)(c->rate * SLICE_NS), n = 0;

	if (!slice)
		return error_set(err, -ENOMEM, "out of memory");
	for (uint64_t i = 0; i < words(c) && n < most; i++) {
		uint64_t at = c->slice++ % words(c);

		slice[at] = c->track.dirty[at];
		c->track.dirty[at] = 0;
		n += (unsigned)__builtin_popcountll(slice[at]);
	}
	*pages -= n;
	return write_round(c, slice, err);
}

/* What was written while nobody told to cut. Sets how long to wait until the next look. */
static int look(struct checkpoint *c, int *wait_ms, struct error *err)
{
	uint64_t pages, before = c->left / PAGE_BYTES;
	int rc = track_collect(&c->track, &pages, err);

	if (rc == 0 && pause_of(c, pages) > c->request->downtime_ms * 1e6 / 2)
		rc = write_slice(c, &pages, err);
	if (rc < 0)
		return rc;
	*wait_ms = pages < before ? LOOK_MS : *wait_ms * 2;
	if (*wait_ms > LOOK_MOST_MS)
		*wait_ms = LOOK_MOST_MS;
	return leave(c, pages, err);
}

static int say_ready(struct checkpoint *c, struct error *err)
{
	double rate = c->rate * 1e9 * PAGE_BYTES;
	json_t *members = json_pack("{s:I, s:I, s:I}", "remaining", (json_int_t)c->left, "rate",
				    (json_int_t)rate, "pause_ns",
				    (json_int_t)pause_of(c, c->left / PAGE_BYTES));

	return steps_say(c->request->steps, "ready", members, err);
}

int checkpoint_hold(struct checkpoint *c, struct error *err)
{
	uint64_t flushed;
	int wait_ms = LOOK_MS, rc = checkpoint_flush(c, err);

	flushed = io_now_ns();
	if (!c->copied)
		c->left = c->memory.size;
	if (rc == 0)
		rc = say_ready(c, err);
	while (rc == 0) {
		rc = steps_await(c->request->steps, STEPS_CUT, wait_ms, err);
		if (rc > 0)
			return 0;
		if (rc == 0 && c->copied)
			rc = look(c, &wait_ms, err);
		if (rc == 0 && io_now_ns() - flushed > FLUSH_NS) {
			rc = checkpoint_flush(c, err);
			flushed = io_now_ns();
		}
	}
	return rc;
}

int checkpoint_rest(struct checkpoint *c, struct error *err)
{
	bool known = c->track.on;
	uint64_t pages;
	int rc = known ? 0 : compare(c, err);

	/* From now on for the next one: what was written before is in this epoch. */
	if (rc == 0 && !known && c->request->track)
		rc = track_start(&c->track, err);
	if (rc == 0 && c->track.on)
		rc = track_collect(&c->track, &pages, err);
	return rc < 0 ? rc : write_round(c, known ? c->track.dirty : c->changed, err);
}

int checkpoint_take_log(struct checkpoint *c, struct error *err)
{
	struct manifest parent;
	int rc;

	track_init(&c->track, &c->vmm, words(c));
	/* A full one ends the log that was kept: it is of no use any more. */
	if (!c->parent)
		return track_take(&c->track, "none", err);
	rc = epoch_manifest(&c->store, c->parent, &parent, err);
	if (rc < 0)
		return rc;
	rc = track_take(&c->track, parent.identity, err);
	manifest_done(&parent);
	return rc < 0 ? rc : 0;
}

/* Without a log the next one compares: that it cannot be kept is no failure. */
bool checkpoint_keep_log(struct checkpoint *c, uint64_t epoch)
{
	struct manifest written;
	int rc;

	if (!c->request->track || epoch_manifest(&c->store, epoch, &written, NULL) < 0)
		return false;
	rc = track_keep(&c->track, written.identity, NULL);
	manifest_done(&written);
	return rc == 0;
}
