/* SPDX-License-Identifier: Apache-2.0 */
/* The pages that follow a VM, at the target: sessions, and what is missing between them. */

#include "mover/migrate-catcher.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/io.h"

#define TICK_NS 20000000

/* -------- a session -------- */

void catcher_fail(struct catcher *c, int rc, const struct error *why)
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
	int rc = start_thread(c, catcher_ask_main, c, err);

	for (unsigned i = 0; rc == 0 && i < c->streams; i++) {
		struct catcher_lane *lane = malloc(sizeof(*lane));

		if (!lane)
			return error_set(err, -ENOMEM, "out of memory");
		*lane = (struct catcher_lane){c, i};
		rc = start_thread(c, catcher_take_main, lane, err);
		if (rc < 0)
			free(lane);
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
	c->wanted = calloc(chunks, sizeof(uint64_t));
	c->due = calloc(chunks, sizeof(uint64_t));
	c->zero = calloc(chunks, sizeof(uint64_t));
	c->asked = calloc(chunks, sizeof(uint64_t));
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
