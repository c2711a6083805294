/* SPDX-License-Identifier: Apache-2.0 */
/* Pages that arrive are put into the memory of the target's VM, by a thread a connection. */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/io.h"
#include "mover/migrate-copy.h"
#include "mover/page.h"

#define TICK_NS 20000000
#define HUGE_BYTES (2 << 20)
#define PIPE_BYTES (1 << 20) /* what every user may have */

struct hold {
	struct receiver *r;
	struct channel *channel;
	uint8_t *data, *raw;
	struct compressor *compressor;
	int pipe[2];
};

struct start {
	struct receiver *r;
	unsigned stream;
};

int receiver_init(struct receiver *r, struct error *err)
{
	uint64_t chunks = index_chunks(r->memory);
	struct stat st;

	pthread_mutex_init(&r->mutex, NULL);
	pthread_cond_init(&r->arrived, NULL);
	if (fstat(r->memfd, &st))
		return error_errno(err, -errno, "cannot look at the VM's memory");
	if ((uint64_t)st.st_size < r->memory)
		return error_set(err, -EINVAL, "the VM's memory is smaller than it says");
	r->written = calloc(chunks, sizeof(*r->written));
	if (!r->written)
		return error_set(err, -ENOMEM, "out of memory");
	/* Pages that may have something in them have to be made zero when the peer's are. */
	for (uint64_t c = 0; st.st_blocks && c < chunks; c++)
		r->written[c] = ~0ull;
	/* hugetlbfs cannot be written to, and the huge pages of a tmpfs are filled faster so. */
	if (st.st_blksize < HUGE_BYTES)
		return 0;
	r->map = mmap(NULL, r->memory, PROT_READ | PROT_WRITE, MAP_SHARED, r->memfd, 0);
	if (r->map == MAP_FAILED) {
		r->map = NULL;
		return error_errno(err, -errno, "cannot map the VM's memory");
	}
	return 0;
}

/* Bytes of the data go to a place of the memory; without data, zeros do. */
static int put(struct receiver *r, const uint8_t *data, uint64_t at, size_t n, struct error *err)
{
	if (r->map) {
		memcpy(r->map + at, data, n);
		return 0;
	}
	while (n) {
		ssize_t done = pwrite(r->memfd, data, n, (off_t)at);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return error_errno(err, done ? -errno : -EIO, "cannot write guest memory");
		data += done;
		at += (uint64_t)done;
		n -= (size_t)done;
	}
	return 0;
}

static int put_pages(struct receiver *r, uint64_t chunk, uint64_t mask, const uint8_t *data,
		     struct error *err)
{
	unsigned first, pages;
	int rc = 0;
	size_t n;

	while (rc == 0 && mask) {
		mask = page_run(mask, &first, &pages);
		n = (size_t)pages * PAGE_BYTES;
		rc = put(r, data, (chunk * CHUNK_PAGES + first) * PAGE_BYTES, n, err);
		data += n;
	}
	return rc;
}

static int put_zeros(struct receiver *r, uint64_t chunk, uint64_t mask, struct error *err)
{
	static const uint8_t zeros[PAGE_BYTES];
	int rc = 0;

	for (mask &= r->written[chunk]; rc == 0 && mask; mask &= mask - 1)
		rc = put_pages(r, chunk, mask & -mask, zeros, err);
	return rc;
}

/* From the connection into the memory, without a buffer of ours. */
static int take_lent(struct hold *h, const struct row *row, struct error *err)
{
	struct receiver *r = h->r;
	uint64_t mask = row->stored;
	unsigned first, pages;
	int rc = 0;

	while (rc == 0 && mask) {
		uint64_t at;
		size_t n;

		mask = page_run(mask, &first, &pages);
		at = (row->chunk * CHUNK_PAGES + first) * PAGE_BYTES;
		n = (size_t)pages * PAGE_BYTES;
		rc = r->map ? channel_receive(h->channel, r->map + at, n, err)
			    : channel_receive_file(h->channel, h->pipe, r->memfd, at, n, err);
	}
	return rc;
}

/* Nothing is to be checked, and the memory can be received into. */
static bool is_lent(const struct hold *h, const struct row *row)
{
	return !row->compression && channel_is_sound(h->channel) &&
	       (h->r->map || channel_takes_files(h->channel));
}

/* Where pages that lie side by side can be received at once; NULL: nowhere. */
static uint8_t *place_of(const struct receiver *r, const struct row *row)
{
	unsigned first, pages;

	if (!r->map || row->compression || !row->stored || page_run(row->stored, &first, &pages))
		return NULL;
	return r->map + (row->chunk * CHUNK_PAGES + first) * PAGE_BYTES;
}

/* Damage ends the migration: it does not matter that it is in the memory then. */
static int take_data(struct hold *h, const struct row *row, struct error *err)
{
	uint8_t *place = place_of(h->r, row);
	const uint8_t *data = h->data;
	int rc = message_receive_data(h->channel, row, place ? place : h->data, err);

	if (place)
		return rc;
	if (rc == 0 && row->compression) {
		rc = compressor_unpack(h->compressor, row->compression, h->data, row->length,
				       h->raw, (size_t)row_pages(row) * PAGE_BYTES);
		data = h->raw;
		if (rc < 0)
			error_set(err, rc, "chunk %" PRIu64 " does not decompress", row->chunk);
	}
	return rc < 0 ? rc : put_pages(h->r, row->chunk, row->stored, data, err);
}

static int take_pages(struct hold *h, const struct message *m, struct error *err)
{
	struct receiver *r = h->r;
	struct row row;
	int rc = message_receive_row(h->channel, m, r->memory, &row, err);

	if (rc < 0)
		return rc;
	rc = put_zeros(r, row.chunk, row.zero, err);
	if (rc == 0 && is_lent(h, &row))
		rc = take_lent(h, &row, err);
	else if (rc == 0)
		rc = take_data(h, &row, err);
	r->written[row.chunk] |= row.stored;
	r->count.bytes += row.length;
	r->count.pages += row_pages(&row);
	r->count.zero += (unsigned)__builtin_popcountll(row.zero);
	return rc;
}

static int take_sync(struct hold *h, unsigned stream, const struct message *m, struct error *err)
{
	struct receiver *r = h->r;
	uint64_t round;
	int rc = message_body_u64(h->channel, m, &round, err);

	SCOPED_LOCK(&r->mutex);
	if (rc == 0 && round != r->round[stream] + 1)
		rc = error_set(err, -EBADMSG, "round %" PRIu64 " after %" PRIu64, round,
			       r->round[stream]);
	if (rc == 0)
		r->round[stream] = round;
	pthread_cond_signal(&r->arrived);
	return rc;
}

static int take_all(struct hold *h, unsigned stream, struct error *err)
{
	for (;;) {
		struct message m = {0};
		/* Between rounds nothing comes: how long that may be is the control's to say. */
		unsigned patience = h->channel->timeout_ms;
		int rc;

		h->channel->timeout_ms = 0;
		rc = channel_wait(h->channel, err);
		h->channel->timeout_ms = patience;
		if (rc == 0)
			rc = message_next(h->channel, &m, err);
		if (rc < 0)
			return rc;
		if (m.type == MESSAGE_PAGES)
			rc = take_pages(h, &m, err);
		else if (m.type == MESSAGE_SYNC)
			rc = take_sync(h, stream, &m, err);
		else
			rc = error_set(err, -EBADMSG, "type %" PRIu32 " among pages", m.type);
		if (rc < 0)
			return rc;
	}
}

static int make_pipe(int ret[2], struct error *err)
{
	if (pipe2(ret, O_CLOEXEC))
		return error_errno(err, -errno, "cannot make a pipe");
	/* A user who has too many pipes gets a small one. */
	fcntl(ret[1], F_SETPIPE_SZ, PIPE_BYTES);
	return 0;
}

int receiver_run(struct receiver *r, unsigned stream, struct error *err)
{
	struct hold h = {.r = r, .channel = &r->channel[stream], .pipe = {-1, -1}};
	int rc = make_pipe(h.pipe, err);

	if (rc == 0 && (posix_memalign((void **)&h.data, PAGE_BYTES, CHUNK_BYTES) ||
			posix_memalign((void **)&h.raw, PAGE_BYTES, CHUNK_BYTES) ||
			compressor_create(COMPRESSION_NONE, &h.compressor) < 0))
		rc = error_set(err, -ENOMEM, "out of memory");
	if (rc == 0)
		rc = take_all(&h, stream, err);
	cleanup_close_fd(&h.pipe[0]);
	cleanup_close_fd(&h.pipe[1]);
	free(h.data);
	free(h.raw);
	compressor_destroy(h.compressor);
	return rc;
}

static void *receiver_main(void *arg)
{
	struct start *start = arg;
	struct receiver *r = start->r;
	struct error err = {{0}};
	int rc = receiver_run(r, start->stream, &err);

	free(start);
	pthread_mutex_lock(&r->mutex);
	if (!r->rc) {
		r->rc = rc;
		r->err = err;
	}
	r->failed = true;
	pthread_cond_signal(&r->arrived);
	pthread_mutex_unlock(&r->mutex);
	return NULL;
}

int receiver_start(struct receiver *r, struct error *err)
{
	while (r->started < r->streams) {
		struct start *start = malloc(sizeof(*start));
		int rc;

		if (!start)
			return error_set(err, -ENOMEM, "out of memory");
		*start = (struct start){r, r->started};
		r->channel[r->started].cancel[1] = &r->ending;
		rc = pthread_create(&r->thread[r->started], NULL, receiver_main, start);
		if (rc) {
			free(start);
			return error_errno(err, -rc, "cannot start a thread");
		}
		r->started++;
	}
	return 0;
}

static bool all_arrived(const struct receiver *r, uint64_t round)
{
	for (unsigned i = 0; i < r->streams; i++)
		if (r->round[i] < round)
			return false;
	return true;
}

int receiver_wait(struct receiver *r, uint64_t round, unsigned timeout_ms, struct error *err)
{
	uint64_t end = io_now_ns() + timeout_ms * 1000000ull;

	SCOPED_LOCK(&r->mutex);
	while (!all_arrived(r, round)) {
		struct timespec until;

		if (r->failed)
			return error_set(err, r->rc, "%s", r->err.text);
		if (io_now_ns() >= end)
			return error_set(err, -ETIMEDOUT,
					 "the pages of round %" PRIu64 " did not come", round);
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_nsec += TICK_NS;
		until.tv_sec += until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
		pthread_cond_timedwait(&r->arrived, &r->mutex, &until);
	}
	return 0;
}

/* hugetlbfs has no holes, and refuses. */
void receiver_keep_holes(struct receiver *r)
{
	if (r->map)
		madvise(r->map, r->memory, MADV_NOHUGEPAGE);
}

void receiver_done(struct receiver *r)
{
	r->ending = true;
	for (unsigned i = 0; i < r->started; i++)
		shutdown(r->channel[i].fd, SHUT_RDWR);
	for (unsigned i = 0; i < r->started; i++)
		pthread_join(r->thread[i], NULL);
	r->started = 0;
	for (unsigned i = 0; i < r->streams; i++)
		channel_close(&r->channel[i]);
	if (r->map)
		munmap(r->map, r->memory);
	r->map = NULL;
	free(r->written);
	r->written = NULL;
	pthread_mutex_destroy(&r->mutex);
	pthread_cond_destroy(&r->arrived);
}
