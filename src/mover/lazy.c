/* SPDX-License-Identifier: Apache-2.0 */
/* Faults of a VM that runs before its memory is there. */

#include "mover/lazy.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "mover/work.h"

#define BLOCK 16u
#define MAX_REGIONS 8

enum chunk_state {
	CHUNK_ABSENT,
	CHUNK_COMING, /* a thread has taken it */
	CHUNK_THERE,
};

struct region {
	uint64_t host, size, offset; /* in the VMM, and in the memfd */
};

struct lazy {
	const struct chain *chain;
	struct vmm *vmm;
	int memfd, uffd, stop_fd;
	struct region region[MAX_REGIONS];
	unsigned nregions;
	_Atomic uint8_t *state; /* enum chunk_state of each chunk */
	pthread_t thread;
	bool started;
	_Atomic uint64_t faults;
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

static int wake(const struct lazy *lazy, uint64_t host, uint64_t size)
{
	struct uffdio_range range = {.start = host, .len = size};

	return ioctl(lazy->uffd, UFFDIO_WAKE, &range) < 0 ? -errno : 0;
}

/* Wakes who waits for pages of a chunk; one may lie in two regions. */
static void wake_chunk(const struct lazy *lazy, uint64_t chunk)
{
	uint64_t from = chunk * CHUNK_BYTES, to = from + CHUNK_BYTES;

	for (unsigned i = 0; i < lazy->nregions; i++) {
		const struct region *r = &lazy->region[i];
		uint64_t first = from > r->offset ? from : r->offset;
		uint64_t end = to < r->offset + r->size ? to : r->offset + r->size;

		if (first < end)
			wake(lazy, r->host + (first - r->offset), end - first);
	}
}

/*
 * Writes a chunk to the memfd, which makes its pages appear in the VMM one by one, each whole.
 * Every page is written by one thread and once: the guest may change it as soon as it is there.
 */
static int bring(struct lazy *lazy, struct lane *lane, uint64_t chunk, struct error *err)
{
	uint8_t absent = CHUNK_ABSENT;
	int rc;

	if (!atomic_compare_exchange_strong(&lazy->state[chunk], &absent, CHUNK_COMING))
		return 0;
	rc = chain_read_chunk(lazy->chain, chunk, &lane->reader, lane->buf, err);
	if (rc == 0)
		rc = chain_write_chunk(lazy->chain, chunk, lane->buf, lazy->memfd, err);
	if (rc < 0)
		return rc;
	lazy->state[chunk] = CHUNK_THERE;
	wake_chunk(lazy, chunk);
	return 0;
}

/* A page that is zero in the checkpoint. */
static int bring_zero(const struct lazy *lazy, uint64_t host, struct error *err)
{
	struct uffdio_zeropage zero = {.range = {.start = host, .len = PAGE_BYTES}};

	while (ioctl(lazy->uffd, UFFDIO_ZEROPAGE, &zero) < 0) {
		if (errno == EEXIST)
			return wake(lazy, host, PAGE_BYTES);
		if (errno != EAGAIN)
			return error_errno(err, -errno, "cannot give the VM a zero page");
	}
	return 0;
}

static int serve(struct lazy *lazy, struct lane *lane, uint64_t address, struct error *err)
{
	uint64_t host = address & ~(uint64_t)(PAGE_BYTES - 1), page, chunk;
	const struct region *r = lazy->region;
	int rc;

	while (r < lazy->region + lazy->nregions && host - r->host >= r->size)
		r++;
	if (r == lazy->region + lazy->nregions)
		return error_set(err, -EPROTO, "a fault at 0x%" PRIx64 ", outside guest memory",
				 address);
	page = (r->offset + (host - r->host)) / PAGE_BYTES;
	chunk = page / CHUNK_PAGES;
	lazy->faults++;
	if (!chain_find(lazy->chain, page))
		return bring_zero(lazy, host, err);
	rc = bring(lazy, lane, chunk, err);
	/* If another thread brings it, that one may have woken the guest before it slept. */
	if (rc == 0 && lazy->state[chunk] == CHUNK_THERE)
		rc = wake(lazy, host, PAGE_BYTES);
	return rc;
}

static int serve_all(struct lazy *lazy, struct lane *lane, struct error *err)
{
	struct pollfd p[] = {{.fd = lazy->uffd, .events = POLLIN},
			     {.fd = lazy->stop_fd, .events = POLLIN}};

	for (;;) {
		struct uffd_msg msg[16];
		ssize_t n;

		if (poll(p, 2, -1) < 0 && errno != EINTR)
			return error_errno(err, -errno, "poll");
		if (p[1].revents)
			return 0;
		n = read(lazy->uffd, msg, sizeof(msg));
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (n <= 0)
			return error_errno(err, n ? -errno : -EPIPE, "cannot read faults");
		for (size_t i = 0; i < (size_t)n / sizeof(msg[0]); i++) {
			int rc = msg[i].event == UFFD_EVENT_PAGEFAULT
					 ? serve(lazy, lane, msg[i].arg.pagefault.address, err)
					 : 0;

			if (rc < 0)
				return rc;
		}
	}
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
	/* Nobody will bring the memory: the VMM ends when it sees this connection go. */
	if (lazy->rc < 0)
		shutdown(lazy->vmm->fd, SHUT_RDWR);
	return NULL;
}

static int take_regions(struct lazy *lazy, const json_t *array, struct error *err)
{
	const json_t *object;
	size_t i;

	json_array_foreach (array, i, object) {
		if (i == MAX_REGIONS)
			return error_set(err, -EPROTO, "wisp-vmm has %zu regions of memory",
					 json_array_size(array));
		lazy->region[i].host =
			(uint64_t)json_integer_value(json_object_get(object, "host"));
		lazy->region[i].size =
			(uint64_t)json_integer_value(json_object_get(object, "size"));
		lazy->region[i].offset =
			(uint64_t)json_integer_value(json_object_get(object, "offset"));
		lazy->nregions++;
	}
	return 0;
}

static int begin(struct lazy *lazy, struct error *err)
{
	json_t *result = NULL;
	int rc = vmm_call(lazy->vmm, "userfault", json_pack("{s:[s]}", "modes", "missing"), -1,
			  &result, err);

	if (rc < 0)
		return rc;
	lazy->uffd = jsonline_take_fd(&lazy->vmm->line);
	if (lazy->uffd < 0)
		rc = error_set(err, -EPROTO, "wisp-vmm handed no userfaultfd over");
	else
		rc = take_regions(lazy, json_object_get(result, "regions"), err);
	json_decref(result);
	if (rc < 0)
		return rc;
	rc = pthread_create(&lazy->thread, NULL, serve_main, lazy);
	lazy->started = rc == 0;
	return rc ? error_errno(err, -rc, "cannot start a thread") : 0;
}

int lazy_start(const struct chain *chain, struct vmm *vmm, int memfd, struct lazy **ret,
	       struct error *err)
{
	struct lazy *lazy = calloc(1, sizeof(*lazy));
	int rc = 0;

	if (!lazy)
		return error_set(err, -ENOMEM, "out of memory");
	*lazy = (struct lazy){.chain = chain, .vmm = vmm, .memfd = memfd, .uffd = -1};
	lazy->stop_fd = eventfd(0, EFD_CLOEXEC);
	lazy->state = calloc(chain->chunks, sizeof(*lazy->state));
	if (lazy->stop_fd < 0 || !lazy->state)
		rc = error_set(err, -ENOMEM, "out of memory");
	if (rc == 0)
		rc = begin(lazy, err);
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
	while (rc == 0 && (first = atomic_fetch_add(&work->next, BLOCK)) < lazy->chain->chunks) {
		uint64_t end = first + BLOCK;

		for (uint64_t c = first; rc == 0 && c < end && c < lazy->chain->chunks; c++) {
			rc = work_check(work, err);
			if (rc == 0)
				rc = bring(lazy, &lane, c, err);
		}
	}
	lane_done(&lane);
	return rc;
}

static void stop_serving(struct lazy *lazy)
{
	if (!lazy->started)
		return;
	eventfd_write(lazy->stop_fd, 1);
	pthread_join(lazy->thread, NULL);
	lazy->started = false;
}

int lazy_finish(struct lazy *lazy, uint64_t *faults, struct error *err)
{
	struct work work = {.threads = work_threads(lazy->chain->memory),
			    .run = run_rest,
			    .arg = lazy,
			    .what = "reading"};
	int rc = work_run(&work, err);

	/* The thread goes on until the VMM has let go: what is zero is asked for until then. */
	if (rc == 0)
		rc = vmm_call(lazy->vmm, "userfault-stop", NULL, -1, NULL, err);
	stop_serving(lazy);
	if (lazy->rc < 0) {
		rc = lazy->rc;
		if (err)
			*err = lazy->err;
	}
	if (faults)
		*faults = lazy->faults;
	return rc;
}

void lazy_destroy(struct lazy *lazy)
{
	if (!lazy)
		return;
	stop_serving(lazy);
	cleanup_close_fd(&lazy->uffd);
	cleanup_close_fd(&lazy->stop_fd);
	free(lazy->state);
	free(lazy);
}
