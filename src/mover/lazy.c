/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Faults of a VM that runs before its memory is there. It comes in spans: a chunk, or the chunks of
 * a huge page, which are put together in the memfd before the VM sees them.
 */

#include "mover/lazy.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "mover/blocktime.h"
#include "mover/page.h"
#include "mover/work.h"

#define BLOCK 16u
#define AT_ONCE 16
#define WAIT_US 100

enum span_state {
	SPAN_ABSENT,
	SPAN_COMING, /* a thread has taken it */
	SPAN_THERE,
};

struct lazy {
	const struct chain *chain;
	const char *control;
	struct faults faults;
	struct blocktime blocktime;
	int stop_fd;
	unsigned chunks;	/* of a span */
	uint64_t spans;		/* of the memory */
	_Atomic uint8_t *state; /* enum span_state of each */
	uint8_t *map;		/* the memfd, of huge pages; else NULL */
	pthread_t thread;
	bool started;
	_Atomic bool failed, letting_go;
	/* Of the thread that serves faults, once it has ended. */
	int rc;
	struct error err;
};

struct lane { /* of one thread */
	struct epoch_reader reader;
	uint8_t *buf;
};

static int lane_init(struct lane *lane, struct error *err)
{
	int rc = epoch_reader_init(&lane->reader, err);

	lane->buf = NULL;
	if (rc == 0 && posix_memalign((void **)&lane->buf, PAGE_BYTES, CHUNK_BYTES)) {
		epoch_reader_done(&lane->reader);
		rc = error_set(err, -ENOMEM, "out of memory");
	}
	return rc;
}

static void lane_done(struct lane *lane)
{
	epoch_reader_done(&lane->reader);
	free(lane->buf);
}

/*
 * Gives the VM a chunk. Every page is written by one thread and once: the guest may change it as
 * soon as it is there. Those that a mover before us gave stay as they are.
 */
static int give(struct lazy *lazy, uint64_t chunk, const uint8_t *data, struct error *err)
{
	uint64_t left = chain_pages(lazy->chain, chunk);
	int rc = 0;

	while (rc == 0 && left) {
		unsigned first, n;

		left = page_run(left, &first, &n);
		rc = faults_copy(&lazy->faults, chunk * CHUNK_PAGES + first, n,
				 data + (size_t)first * PAGE_BYTES, err);
	}
	return rc;
}

static int bring_chunk(struct lazy *lazy, struct lane *lane, uint64_t chunk, struct error *err)
{
	int rc = chain_read_chunk(lazy->chain, chunk, &lane->reader, lane->buf, err);

	return rc < 0 ? rc : give(lazy, chunk, lane->buf, err);
}

/* Until it is shown nobody sees it; so a mover that dies may leave it half done. */
static int bring_huge(struct lazy *lazy, struct lane *lane, uint64_t first, struct error *err)
{
	int rc = 0;

	for (uint64_t c = first; rc == 0 && c < first + lazy->chunks; c++) {
		uint8_t *at = lazy->map + c * CHUNK_BYTES;

		page_clear(at, ~chain_pages(lazy->chain, c));
		rc = chain_read_chunk(lazy->chain, c, &lane->reader, at, err);
	}
	return rc < 0 ? rc
		      : faults_show(&lazy->faults, first * CHUNK_PAGES, lazy->faults.unit, err);
}

static void end_waits(struct lazy *lazy, uint64_t span, uint64_t pages)
{
	for (unsigned i = 0; i < lazy->chunks; i++)
		blocktime_end(&lazy->blocktime, span * lazy->chunks + i, pages);
}

static int bring(struct lazy *lazy, struct lane *lane, uint64_t span, struct error *err)
{
	uint8_t absent = SPAN_ABSENT;
	int rc;

	if (!atomic_compare_exchange_strong(&lazy->state[span], &absent, SPAN_COMING))
		return 0;
	rc = (lazy->map ? bring_huge : bring_chunk)(lazy, lane, span * lazy->chunks, err);
	if (rc < 0)
		return rc;
	lazy->state[span] = SPAN_THERE;
	end_waits(lazy, span, ~0ull);
	return 0;
}

static int serve(struct lazy *lazy, struct lane *lane, const struct fault *fault, struct error *err)
{
	uint64_t span = fault->page / CHUNK_PAGES / lazy->chunks;
	uint64_t bit = lazy->map ? ~0ull : 1ull << fault->page % CHUNK_PAGES;
	int rc;

	blocktime_begin(&lazy->blocktime, fault->thread, fault->page);
	if (!lazy->map && !chain_find(lazy->chain, fault->page)) {
		rc = faults_zero(&lazy->faults, fault->page, err);
		end_waits(lazy, span, bit);
		/* Let go of meanwhile: who waited has been woken, and takes what is there. */
		return rc == -ENOENT && lazy->letting_go ? 0 : rc;
	}
	rc = bring(lazy, lane, span, err);
	/* If another thread brings it, that one may have woken the guest before it slept. */
	if (rc == 0 && lazy->state[span] == SPAN_THERE) {
		faults_wake(&lazy->faults, fault->page);
		end_waits(lazy, span, bit);
	}
	return rc;
}

static int serve_all(struct lazy *lazy, struct lane *lane, struct error *err)
{
	struct fault fault[AT_ONCE];
	int n;

	while ((n = faults_wait(&lazy->faults, lazy->stop_fd, fault, AT_ONCE, err)) > 0) {
		for (int i = 0; i < n; i++) {
			int rc = serve(lazy, lane, &fault[i], err);

			if (rc < 0)
				return rc;
		}
	}
	return n;
}

static void *serve_main(void *arg)
{
	struct lazy *lazy = arg;
	struct lane lane;

	lazy->rc = lane_init(&lane, &lazy->err);
	if (lazy->rc == 0) {
		lazy->rc = serve_all(lazy, &lane, &lazy->err);
		lane_done(&lane);
	}
	/* Nobody will bring the memory. Who waits for the VMM hears that it is gone. */
	if (lazy->rc < 0) {
		lazy->failed = true;
		faults_end(lazy->control, lazy->err.text, NULL);
	}
	return NULL;
}

/* What a mover before us has brought need not be read. */
static int look(struct lazy *lazy, int memfd, struct error *err)
{
	const struct chain *chain = lazy->chain;
	CLEANUP_FREE uint64_t *there = calloc(chain->chunks, sizeof(*there));
	int rc = there ? faults_there(memfd, chain->memory, there, err)
		       : error_set(err, -ENOMEM, "out of memory");

	for (uint64_t c = 0; rc == 0 && c < chain->chunks; c++)
		if (!(chain_pages(chain, c) & ~there[c]))
			lazy->state[c] = SPAN_THERE;
	return rc;
}

/* Huge pages: the same, and where they are put together. */
static int look_huge(struct lazy *lazy, int memfd, struct error *err)
{
	void *map = mmap(NULL, lazy->chain->memory, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);

	if (map == MAP_FAILED)
		return error_errno(err, -errno, "cannot map guest memory");
	lazy->map = map;
	for (uint64_t i = 0; i < lazy->spans; i++)
		if (faults_was_shown(&lazy->faults, i))
			lazy->state[i] = SPAN_THERE;
	return 0;
}

static int begin(struct lazy *lazy, int memfd, struct error *err)
{
	int rc = (lazy->faults.unit > 1 ? look_huge : look)(lazy, memfd, err);

	if (rc == 0 && blocktime_init(&lazy->blocktime, &lazy->faults) < 0)
		rc = error_set(err, -ENOMEM, "out of memory");
	if (rc < 0)
		return rc;
	rc = pthread_create(&lazy->thread, NULL, serve_main, lazy);
	lazy->started = rc == 0;
	/* A mover before us may have been told of who waits. */
	faults_wake_all(&lazy->faults);
	return rc ? error_errno(err, -rc, "cannot start a thread") : 0;
}

int lazy_start(const struct chain *chain, const char *control, struct faults *faults, int memfd,
	       struct lazy **ret, struct error *err)
{
	struct lazy *lazy = calloc(1, sizeof(*lazy));
	int rc = 0;

	if (!lazy)
		return error_set(err, -ENOMEM, "out of memory");
	*lazy = (struct lazy){.chain = chain, .control = control, .faults = *faults};
	lazy->stop_fd = eventfd(0, EFD_CLOEXEC);
	lazy->chunks = faults->unit > 1 ? faults->unit / CHUNK_PAGES : 1;
	lazy->spans = chain->chunks / lazy->chunks;
	lazy->state = calloc(lazy->spans, sizeof(*lazy->state));
	*faults = (struct faults){.fd = -1, .keeper = {.fd = -1}};
	if (lazy->stop_fd < 0 || !lazy->state)
		rc = error_set(err, -ENOMEM, "out of memory");
	if (rc == 0)
		rc = begin(lazy, memfd, err);
	if (rc < 0)
		lazy_destroy(lazy);
	else
		*ret = lazy;
	return rc;
}

static int run_rest(struct work *work, unsigned thread, struct error *err)
{
	struct lazy *lazy = work->arg;
	struct lane lane;
	uint64_t first;
	int rc = lane_init(&lane, err);

	if (rc < 0)
		return rc;
	while (rc == 0 && (first = atomic_fetch_add(&work->next, BLOCK)) < lazy->spans) {
		uint64_t end = first + BLOCK;

		for (uint64_t i = first; rc == 0 && i < end && i < lazy->spans; i++) {
			rc = work_check(work, err);
			if (rc == 0)
				rc = bring(lazy, &lane, i, err);
		}
	}
	lane_done(&lane);
	return rc;
}

/* What the thread that serves faults has taken is not there before it says so. */
static void wait_for_the_last(const struct lazy *lazy)
{
	for (uint64_t i = 0; i < lazy->spans; i++)
		while (lazy->state[i] != SPAN_THERE && !lazy->failed)
			usleep(WAIT_US);
}

static void stop_serving(struct lazy *lazy)
{
	if (!lazy->started)
		return;
	eventfd_write(lazy->stop_fd, 1);
	pthread_join(lazy->thread, NULL);
	lazy->started = false;
}

static int let_go(struct lazy *lazy, struct vmm *vmm, struct error *err)
{
	lazy->letting_go = true;
	return vmm_call(vmm, "userfault-stop", NULL, -1, NULL, err);
}

int lazy_finish(struct lazy *lazy, struct vmm *vmm, json_t **faults, struct error *err)
{
	struct work work = {.threads = work_threads(lazy->chain->memory),
			    .run = run_rest,
			    .arg = lazy,
			    .what = "reading",
			    .gentle = true};
	int rc = work_run(&work, err);

	if (rc == 0)
		wait_for_the_last(lazy);
	/* The thread goes on until the VMM has let go: what is zero is asked for until then. */
	if (rc == 0 && !lazy->failed)
		rc = let_go(lazy, vmm, err);
	stop_serving(lazy);
	if (lazy->rc < 0) {
		rc = lazy->rc;
		if (err)
			*err = lazy->err;
	}
	if (rc == 0)
		*faults = blocktime_report(&lazy->blocktime);
	return rc;
}

void lazy_destroy(struct lazy *lazy)
{
	if (!lazy)
		return;
	stop_serving(lazy);
	faults_close(&lazy->faults);
	blocktime_done(&lazy->blocktime);
	cleanup_close_fd(&lazy->stop_fd);
	if (lazy->map)
		munmap(lazy->map, lazy->chain->memory);
	free(lazy->state);
	free(lazy);
}
