/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pages that follow a VM, at the target: faults become requests, pages that come are given to
 * the VM. A page is claimed (its bit of `wanted` cleared) by the thread that gives it.
 */

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "mover/blocktime.h"
#include "mover/faults.h"
#include "mover/huge.h"
#include "mover/migrate-postcopy.h"
#include "mover/migrate-set.h"
#include "mover/page.h"

#define AT_ONCE 16
#define TICK_NS 20000000

typedef _Atomic uint64_t word;

struct catcher {
	struct catcher_options o;
	int memfd;
	struct faults faults;
	struct blocktime blocktime;
	struct huge *huge; /* when the VM has huge pages */
	uint64_t *there;   /* as seen between sessions; the pages that are missing then */
	word *wanted;	   /* of what is due: nobody has claimed it */
	word *due, *zero;  /* missing at the begin of the session; known to be zero */
	word *asked;	   /* in this session */
	_Atomic uint64_t left;
	/* Of a session. */
	unsigned streams, started;
	struct channel channel[MIGRATE_STREAMS];
	pthread_t thread[MIGRATE_STREAMS + 2];
	int stop_fd;
	_Atomic bool failed, fatal, stopping, lost;
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	struct error err; /* why it failed */
	bool running;
};

/* What one connection needs to take pages. */
struct hold {
	struct catcher *c;
	unsigned stream;
	uint8_t *data, *raw;
	struct compressor *compressor;
};

static uint64_t bit_of(uint64_t page)
{
	return 1ull << page % CHUNK_PAGES;
}

static void fail(struct catcher *c, int rc, const struct error *why)
{
	SCOPED_LOCK(&c->mutex);
	/* No process, or it does not wait for its memory any more: nobody but us may say that. */
	if (rc == -ESRCH || rc == -ENOENT)
		c->lost = true;
	if (!c->failed && !c->stopping)
		c->err = *why;
	c->failed = true;
	pthread_cond_broadcast(&c->changed);
}

/* -------- faults -------- */

static int ask(struct catcher *c, const struct fault *fault, struct error *err)
{
	uint64_t chunk = fault->page / CHUNK_PAGES, bit = bit_of(fault->page);
	bool before = atomic_fetch_or(&c->asked[chunk], bit) & bit;

	blocktime_begin(&c->blocktime, fault->thread, fault->page);
	/* After the bit is in `asked` who learns that a page is zero gives it himself. */
	if (c->zero[chunk] & bit || !(c->due[chunk] & bit)) {
		int rc = faults_zero(&c->faults, fault->page, err);

		blocktime_end(&c->blocktime, chunk, bit);
		return rc;
	}
	if (c->wanted[chunk] & bit)
		return before ? 0 : request_send(&c->channel[0], chunk, bit, err);
	/* Somebody is giving it, or has: then he may have woken who did not wait yet. */
	faults_wake(&c->faults, fault->page);
	blocktime_end(&c->blocktime, chunk, bit);
	return 0;
}

/* The VM waits for all of a huge page. */
static void end_huge(struct catcher *c, uint64_t chunk)
{
	blocktime_end(&c->blocktime, huge_first(c->huge, chunk), ~0ull);
}

static int ask_huge(struct catcher *c, const struct fault *fault, struct error *err)
{
	uint64_t first = huge_first(c->huge, fault->page / CHUNK_PAGES);
	int rc;

	blocktime_begin(&c->blocktime, fault->thread, first * CHUNK_PAGES);
	rc = huge_show_if_whole(c->huge, first, err);
	if (rc) {
		/* Who showed it may have woken who did not wait yet. */
		faults_wake(&c->faults, fault->page);
		end_huge(c, first);
		return rc < 0 ? rc : 0;
	}
	for (uint64_t chunk = first; rc == 0 && chunk < first + huge_chunks(c->huge); chunk++) {
		uint64_t pages = c->wanted[chunk];

		pages &= ~atomic_fetch_or(&c->asked[chunk], pages);
		if (pages)
			rc = request_send(&c->channel[0], chunk, pages, err);
	}
	return rc;
}

/* Until it is told to stop: when the connections are gone, what is zero can be given still. */
static void *serve_main(void *arg)
{
	struct catcher *c = arg;
	struct fault fault[AT_ONCE];
	struct error err = {{0}};
	int n, rc;

	while ((n = faults_wait(&c->faults, c->stop_fd, fault, AT_ONCE, &err)) > 0)
		for (int i = 0; i < n; i++)
			if ((rc = (c->huge ? ask_huge : ask)(c, &fault[i], &err)) < 0)
				fail(c, rc, &err);
	if (n < 0)
		fail(c, n, &err);
	return NULL;
}

/* -------- pages -------- */

/* The pages of a set, out of those that lie at data one behind the other. */
static int give(struct catcher *c, uint64_t chunk, uint64_t set, uint64_t stored,
		const uint8_t *data, struct error *err)
{
	int rc = 0;

	while (rc == 0 && set) {
		unsigned first, n, before;

		set = page_run(set, &first, &n);
		before = (unsigned)__builtin_popcountll(stored & ((1ull << first) - 1));
		if (c->huge)
			memcpy(huge_at(c->huge, chunk) + (size_t)first * PAGE_BYTES,
			       data + (size_t)before * PAGE_BYTES, (size_t)n * PAGE_BYTES);
		else
			rc = faults_copy(&c->faults, chunk * CHUNK_PAGES + first, n,
					 data + (size_t)before * PAGE_BYTES, err);
	}
	return rc;
}

/* Zero pages stay holes, unless somebody waits for them, or they are parts of huge ones. */
static int give_zeros(struct catcher *c, uint64_t chunk, uint64_t set, struct error *err)
{
	int rc = 0;

	atomic_fetch_or(&c->zero[chunk], set);
	if (c->huge)
		return 0;
	for (set &= c->asked[chunk]; rc == 0 && set; set &= set - 1)
		rc = faults_zero(&c->faults, chunk * CHUNK_PAGES + (unsigned)__builtin_ctzll(set),
				 err);
	return rc;
}

static int put(struct catcher *c, const struct row *row, const uint8_t *data, struct error *err)
{
	uint64_t all = row->stored | row->zero;
	uint64_t mine = atomic_fetch_and(&c->wanted[row->chunk], ~all) & all;
	int rc = give(c, row->chunk, mine & row->stored, row->stored, data, err);

	if (rc == 0)
		rc = give_zeros(c, row->chunk, row->zero & (mine | c->zero[row->chunk]), err);
	if (rc == 0 && c->huge)
		rc = huge_came(c->huge, row->chunk, (unsigned)__builtin_popcountll(mine), err);
	if (rc < 0)
		return rc;
	if (!c->huge)
		blocktime_end(&c->blocktime, row->chunk, mine);
	else if (rc)
		end_huge(c, row->chunk);
	if (mine) {
		SCOPED_LOCK(&c->mutex);
		c->left -= (unsigned)__builtin_popcountll(mine);
		pthread_cond_broadcast(&c->changed);
	}
	return 0;
}

static int take_row(struct hold *h, const struct message *m, struct error *err)
{
	struct catcher *c = h->c;
	const uint8_t *data = h->data;
	uint64_t allowed;
	struct row row;
	int rc = message_receive_pages(&c->channel[h->stream], m, c->o.memory, &row, h->data, err);

	if (rc < 0)
		return rc;
	allowed = h->stream ? c->due[row.chunk] : c->asked[row.chunk];
	if ((row.stored | row.zero) & ~allowed)
		return error_set(err, -EBADMSG,
				 "the source sends pages of chunk %" PRIu64 " that %s", row.chunk,
				 h->stream ? "were not missing" : "nobody asked for");
	if (row.compression && row.length) {
		rc = compressor_unpack(h->compressor, row.compression, h->data, row.length, h->raw,
				       (size_t)row_pages(&row) * PAGE_BYTES);
		if (rc < 0)
			return error_set(err, rc, "chunk %" PRIu64 " does not decompress",
					 row.chunk);
		data = h->raw;
	}
	return put(c, &row, data, err);
}

/* 1: the last page of this connection has come. */
static int take_end(struct hold *h, const struct message *m, struct error *err)
{
	uint64_t number;
	int rc = message_body_u64(&h->c->channel[h->stream], m, &number, err);

	if (rc == 0 && (number != ROUND_REST || !h->stream))
		rc = error_set(err, -EBADMSG, "round %" PRIu64 " among the pages that follow",
			       number);
	return rc < 0 ? rc : 1;
}

static int take_all(struct hold *h, struct error *err)
{
	struct channel *ch = &h->c->channel[h->stream];
	int rc;

	do {
		struct message m = {0};

		rc = message_wait_long(ch, err);
		if (rc == 0)
			rc = message_next(ch, &m, err);
		if (rc < 0)
			return rc;
		if (m.type == MESSAGE_PAGES)
			rc = take_row(h, &m, err);
		else if (m.type == MESSAGE_SYNC)
			rc = take_end(h, &m, err);
		else
			rc = error_set(err, -EBADMSG, "type %" PRIu32 " among pages", m.type);
	} while (rc == 0);
	return rc;
}

static void *take_main(void *arg)
{
	struct hold h = *(struct hold *)arg;
	struct error err = {{0}};
	int rc = 0;

	free(arg);
	if (posix_memalign((void **)&h.data, PAGE_BYTES, CHUNK_BYTES) ||
	    posix_memalign((void **)&h.raw, PAGE_BYTES, CHUNK_BYTES) ||
	    compressor_create(COMPRESSION_NONE, &h.compressor) < 0)
		rc = error_set(&err, -ENOMEM, "out of memory");
	if (rc == 0)
		rc = take_all(&h, &err);
	free(h.data);
	free(h.raw);
	compressor_destroy(h.compressor);
	if (rc < 0)
		fail(h.c, rc, &err);
	return NULL;
}

/* -------- a session -------- */

static void wait_tick(struct catcher *c)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += TICK_NS;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_cond_timedwait(&c->changed, &c->mutex, &until);
}

/* Sees that nothing comes any more, and what hangs on it. */
static void *guard_main(void *arg)
{
	struct catcher *c = arg;
	uint64_t left = c->left, since = io_now_ns();

	pthread_mutex_lock(&c->mutex);
	while (!c->failed && !c->stopping) {
		wait_tick(c);
		if (c->left != left || !c->left)
			since = io_now_ns();
		left = c->left;
		if (io_now_ns() - since > c->o.timeout_ms * 1000000ull && !c->failed) {
			error_set(&c->err, -ETIMEDOUT, "no page has come for %u ms",
				  c->o.timeout_ms);
			c->failed = true;
		}
	}
	pthread_mutex_unlock(&c->mutex);
	if (c->failed && c->fatal)
		c->o.vmm->ops->faults_end(c->o.vmm, c->err.text, NULL);
	return NULL;
}

static int start_thread(struct catcher *c, void *(*fn)(void *), void *arg, struct error *err)
{
	int rc = pthread_create(&c->thread[c->started], NULL, fn, arg);

	c->started += rc == 0;
	return rc ? error_errno(err, -rc, "cannot start a thread") : 0;
}

static int start_threads(struct catcher *c, struct error *err)
{
	int rc = start_thread(c, serve_main, c, err);

	for (unsigned i = 0; rc == 0 && i < c->streams; i++) {
		struct hold *h = calloc(1, sizeof(*h));

		if (!h)
			return error_set(err, -ENOMEM, "out of memory");
		*h = (struct hold){.c = c, .stream = i};
		rc = start_thread(c, take_main, h, err);
		if (rc < 0)
			free(h);
	}
	return rc < 0 ? rc : start_thread(c, guard_main, c, err);
}

int catcher_start(struct catcher *c, struct channel *channel, unsigned streams, bool fatal,
		  struct error *err)
{
	for (uint64_t i = 0; i < index_chunks(c->o.memory); i++)
		c->asked[i] = 0;
	for (unsigned i = 0; i < streams; i++) {
		c->channel[i] = channel[i];
		c->channel[i].cancel[0] = &c->failed;
		c->channel[i].cancel[1] = &c->stopping;
		channel[i] = (struct channel){.fd = -1};
	}
	c->streams = streams;
	c->failed = c->stopping = false;
	c->fatal = fatal;
	c->running = true;
	/* Whoever waits was told of before this session: he is told of again. */
	faults_wake_all(&c->faults);
	return start_threads(c, err);
}

void catcher_not_fatal(struct catcher *c)
{
	c->fatal = false;
}

static void end_session(struct catcher *c)
{
	if (!c->running)
		return;
	c->stopping = true;
	pthread_cond_broadcast(&c->changed);
	eventfd_write(c->stop_fd, 1);
	for (unsigned i = 0; i < c->streams; i++)
		shutdown(c->channel[i].fd, SHUT_RDWR);
	for (unsigned i = 0; i < c->started; i++)
		pthread_join(c->thread[i], NULL);
	for (unsigned i = 0; i < c->streams; i++)
		channel_close(&c->channel[i]);
	eventfd_read(c->stop_fd, &(eventfd_t){0});
	c->started = c->streams = 0;
	c->running = false;
}

static int look_there(struct catcher *c, struct error *err)
{
	if (!c->huge)
		return faults_there(c->memfd, c->o.memory, c->there, err);
	for (uint64_t i = 0; i < index_chunks(c->o.memory); i++)
		c->there[i] = huge_is_shown(c->huge, i) ? ~0ull : 0;
	return 0;
}

/* Between sessions: what is neither there nor known to be zero is missing. */
static int look(struct catcher *c, struct error *err)
{
	int rc = look_there(c, err);

	for (uint64_t i = 0; rc == 0 && i < index_chunks(c->o.memory); i++) {
		c->there[i] = index_chunk_mask(c->o.memory, i) & ~c->there[i] & ~c->zero[i];
		c->wanted[i] = c->due[i] = c->there[i];
	}
	if (rc == 0 && c->huge)
		rc = huge_expect(c->huge, c->there, c->zero, err);
	if (rc == 0)
		c->left = set_count(c->there, c->o.memory);
	return rc;
}

int catcher_stop(struct catcher *c, struct error *err)
{
	end_session(c);
	return look(c, err);
}

bool catcher_running(const struct catcher *c)
{
	return c->running;
}

const _Atomic bool *catcher_failed(const struct catcher *c)
{
	return &c->failed;
}

const char *catcher_reason(const struct catcher *c)
{
	return c->err.text[0] ? c->err.text : "the connection to the source ended";
}

bool catcher_lost(const struct catcher *c)
{
	return c->lost;
}

uint64_t catcher_wait(struct catcher *c)
{
	SCOPED_LOCK(&c->mutex);
	if (c->running && c->left && !c->failed)
		wait_tick(c);
	return c->left;
}

/* Huge pages that are all zero, and that nobody has asked for. */
static int show_zeros(struct catcher *c, struct error *err)
{
	int rc = 0;

	for (uint64_t i = 0; rc >= 0 && i < index_chunks(c->o.memory); i += huge_chunks(c->huge))
		if (!huge_is_shown(c->huge, i))
			rc = huge_show_if_whole(c->huge, i, err);
	return rc < 0 ? rc : 0;
}

int catcher_finish(struct catcher *c, json_t **report, struct error *err)
{
	int rc = c->huge ? show_zeros(c, err) : 0;

	if (rc == 0)
		rc = c->o.vmm->ops->faults_stop(c->o.vmm, err);
	if (rc == 0)
		*report = blocktime_report(&c->blocktime);
	return rc;
}

/* -------- the object -------- */

static int make(const struct catcher_options *o, struct catcher **ret, struct error *err)
{
	struct catcher *c = calloc(1, sizeof(*c));
	uint64_t chunks = index_chunks(o->memory);

	if (!c)
		return error_set(err, -ENOMEM, "out of memory");
	*c = (struct catcher){.o = *o, .memfd = -1, .faults = {.fd = -1, .keeper = {.fd = -1}}};
	pthread_mutex_init(&c->mutex, NULL);
	pthread_cond_init(&c->changed, NULL);
	c->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	c->there = calloc(chunks, sizeof(*c->there));
	c->wanted = calloc(chunks, sizeof(word));
	c->due = calloc(chunks, sizeof(word));
	c->zero = calloc(chunks, sizeof(word));
	c->asked = calloc(chunks, sizeof(word));
	*ret = c;
	if (c->stop_fd < 0 || !c->there || !c->wanted || !c->due || !c->zero || !c->asked)
		return error_set(err, -ENOMEM, "out of memory");
	return 0;
}

/* With the faults: ready for a session. missing: NULL after a mover before us. */
static int prepare(struct catcher *c, const uint64_t *missing, struct error *err)
{
	int rc = 0;

	if (blocktime_init(&c->blocktime, &c->faults) < 0)
		return error_set(err, -ENOMEM, "out of memory");
	if (c->faults.unit > 1)
		rc = huge_create(&c->faults, c->memfd, c->o.memory, &c->huge, err);
	if (rc == 0 && c->huge && missing)
		rc = huge_show_others(c->huge, missing, err);
	return rc < 0 ? rc : look(c, err);
}

/* What is right at the target may be a hole: it is zero. Huge pages have no holes. */
static void know_zeros(struct catcher *c, const uint64_t *missing, const uint64_t *zero)
{
	for (uint64_t i = 0; i < index_chunks(c->o.memory); i++)
		c->zero[i] =
			zero[i] |
			(c->faults.unit > 1 ? 0 : index_chunk_mask(c->o.memory, i) & ~missing[i]);
}

int catcher_create(const struct catcher_options *o, const uint64_t *missing, const uint64_t *zero,
		   struct catcher **ret, struct error *err)
{
	struct catcher *c = NULL;
	int rc = make(o, &c, err);

	if (rc == 0)
		rc = o->vmm->ops->memory(o->vmm, &c->memfd, err);
	if (rc == 0 && o->page_size == PAGE_BYTES)
		rc = faults_discard(c->memfd, o->memory, missing, err);
	if (rc == 0)
		rc = o->vmm->ops->faults_open(o->vmm, o->patience_ms, &c->faults, err);
	if (rc == 0) {
		know_zeros(c, missing, zero);
		rc = prepare(c, missing, err);
	}
	if (rc < 0)
		catcher_destroy(c);
	else
		*ret = c;
	return rc;
}

int catcher_create_again(const struct catcher_options *o, struct catcher **ret, struct error *err)
{
	struct catcher_options all = *o;
	struct faults faults = {.fd = -1};
	struct vmm_memory memory = {.fd = -1};
	struct catcher *c = NULL;
	int rc = o->vmm->ops->faults_take(o->vmm, &faults, &memory, err);

	if (rc < 0)
		return rc;
	all.memory = memory.size;
	rc = make(&all, &c, err);
	if (rc < 0) {
		faults_close(&faults);
		cleanup_close_fd(&memory.fd);
	} else {
		c->faults = faults;
		c->memfd = memory.fd;
		rc = prepare(c, NULL, err);
	}
	if (rc < 0)
		catcher_destroy(c);
	else
		*ret = c;
	return rc;
}

void catcher_destroy(struct catcher *c)
{
	if (!c)
		return;
	end_session(c);
	huge_destroy(c->huge);
	faults_close(&c->faults);
	blocktime_done(&c->blocktime);
	cleanup_close_fd(&c->memfd);
	cleanup_close_fd(&c->stop_fd);
	free(c->there);
	free(c->wanted);
	free(c->due);
	free(c->zero);
	free(c->asked);
	pthread_mutex_destroy(&c->mutex);
	pthread_cond_destroy(&c->changed);
	free(c);
}

const uint64_t *catcher_missing(const struct catcher *c)
{
	return c->there;
}

uint64_t catcher_memory(const struct catcher *c)
{
	return c->o.memory;
}

const char *catcher_name(const struct catcher *c)
{
	return c->faults.instance;
}
