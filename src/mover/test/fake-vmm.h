/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_TEST_FAKE_VMM_H
#define WISP_MOVER_TEST_FAKE_VMM_H

/*
 * A VMM for tests: memory that a thread writes to while it "runs", the rules of the control socket,
 * and failures on demand. All VMMs of a test share a world, which counts how many run.
 */

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/error.h"
#include "mover/index.h"
#include "mover/machine.h"

struct world {
	_Atomic int running;
	_Atomic bool twice; /* more than one ran at once */
};

enum fake_op {
	FAKE_STATE,
	FAKE_LOADED,
	FAKE_NAME,
	FAKE_MEMORY,
	FAKE_DESCRIBE,
	FAKE_FLUSH,
	FAKE_SAMPLE,
	FAKE_PAUSE,
	FAKE_HOLD, /* pause without hold */
	FAKE_RESUME,
	FAKE_STOP,
	FAKE_SAVE,
	FAKE_LOAD,
	FAKE_START,
	FAKE_COLLECT,
	FAKE_END,
	FAKE_FAULTS,
	FAKE_THROTTLE,
	FAKE_MISSING,
	FAKE_MISSING_STOP,
	FAKE_OPS,
};

struct fake_vmm {
	struct machine vmm;
	struct world *world;
	pthread_mutex_t mutex;
	uint64_t size;
	int fd;
	uint8_t *ram;
	enum machine_state state;
	bool dead, held, loaded;
	unsigned vcpus;
	uint64_t *dirty;  /* the VMM's own log */
	uint64_t *bitmap; /* of who follows, or NULL */
	unsigned percent;
	uint64_t faults; /* pages that became dirty */
	bool others_slower;
	int fail[FAKE_OPS];	       /* code that the call gives, without doing it */
	_Atomic unsigned pages_a_turn; /* what the guest writes in 100 us */
	_Atomic bool ending;
	_Atomic uint64_t turns;
	pthread_t guest;
	unsigned calls[FAKE_OPS];
	/* While memory is missing: as a VMM's userfault. */
	int uffd;
	unsigned unit; /* pages of its huge pages, which these play (unit > 1); 0: none */
	bool brought;  /* by a mover that is there */
	/* A guest that reads all over its memory and compares. */
	const uint8_t *mirror;
	pthread_t reader;
	_Atomic int reader_tid;
	_Atomic uint64_t reads, differ;
};

static inline struct fake_vmm *fake_of(struct machine *vmm)
{
	return (struct fake_vmm *)vmm;
}

static inline void fake_set(struct fake_vmm *f, enum machine_state state)
{
	if (f->state == state)
		return;
	if (f->state == MACHINE_RUNNING)
		f->world->running--;
	if (state == MACHINE_RUNNING && ++f->world->running > 1)
		f->world->twice = true;
	f->state = state;
}

static inline void fake_unfollow(struct fake_vmm *f)
{
	if (f->bitmap)
		munmap(f->bitmap, index_chunks(f->size) * 8);
	f->bitmap = NULL;
	f->percent = 0;
}

/* Lets go of the faults: what is missing is zero from now on. Locked. */
static inline void fake_let_go(struct fake_vmm *f)
{
	struct uffdio_range range = {(uintptr_t)f->ram, f->size};

	if (f->uffd < 0)
		return;
	ioctl(f->uffd, UFFDIO_UNREGISTER, &range);
	close(f->uffd);
	f->uffd = -1;
}

/* The mover's connection ends. */
static inline void fake_disconnect(struct fake_vmm *f)
{
	pthread_mutex_lock(&f->mutex);
	f->brought = false;
	fake_unfollow(f);
	if (f->held && f->state == MACHINE_PAUSED && !f->dead)
		fake_set(f, MACHINE_RUNNING);
	f->held = false;
	pthread_mutex_unlock(&f->mutex);
}

/* The VMM's process dies. */
static inline void fake_die(struct fake_vmm *f)
{
	pthread_mutex_lock(&f->mutex);
	fake_unfollow(f);
	fake_set(f, MACHINE_FAILED);
	f->dead = true;
	fake_let_go(f);
	pthread_mutex_unlock(&f->mutex);
}

/* Begins a call: locked. A code when it is to fail. */
static inline int fake_enter(struct fake_vmm *f, enum fake_op op, struct error *err)
{
	pthread_mutex_lock(&f->mutex);
	f->calls[op]++;
	if (f->dead)
		return error_set(err, -ENOTCONN, "the VMM is dead");
	return f->fail[op] ? error_set(err, f->fail[op], "call %d fails", op) : 0;
}

static inline int fake_leave(struct fake_vmm *f, int rc)
{
	pthread_mutex_unlock(&f->mutex);
	return rc;
}

static inline int fake_state(struct machine *vmm, enum machine_state *ret, struct error *err)
{
	struct fake_vmm *f = fake_of(vmm);
	int rc = fake_enter(f, FAKE_STATE, err);

	*ret = f->state;
	return fake_leave(f, rc);
}

static inline int fake_loaded(struct machine *vmm, bool *ret, struct error *err)
{
	struct fake_vmm *f = fake_of(vmm);
	int rc = fake_enter(f, FAKE_LOADED, err);

	*ret = f->loaded;
	return fake_leave(f, rc);
}

static inline int fake_name(struct machine *vmm, char ret[MACHINE_NAME], struct error *err)
{
	struct fake_vmm *f = fake_of(vmm);
	int rc = fake_enter(f, FAKE_NAME, err);

	snprintf(ret, MACHINE_NAME, "fake %p", (void *)f);
	return fake_leave(f, rc);
}

static inline int fake_memory(struct machine *vmm, int *fd, struct error *err)
{
	struct fake_vmm *f = fake_of(vmm);
	int rc = fake_enter(f, FAKE_MEMORY, err);

	if (rc == 0)
		*fd = dup(f->fd);
	return fake_leave(f, rc);
}

static inline int fake_describe(struct machine *vmm, json_t **ret, struct error *err)
{
	struct fake_vmm *f = fake_of(vmm);
	int rc = fake_enter(f, FAKE_DESCRIBE, err);

	if (rc == 0)
		*ret = json_pack("{s:i,s:{s:I,s:i,s:[]}}", "vcpus", (int)f->vcpus, "memory", "size",
				 (json_int_t)f->size, "page_size", PAGE_BYTES, "regions");
	return fake_leave(f, rc);
}

static inline int fake_flush(struct machine *vmm, const _Atomic bool *cancel, struct error *err)
{
	struct fake_vmm *f = fake_of(vmm);

	return fake_leave(f, fake_enter(f, FAKE_FLUSH, err));
}

static inline int fake_sample(struct machine *vmm, json_t *vm, struct error *err)
{
	struct fake_vmm *f = fake_of(vmm);

	return fake_leave(f, fake_enter(f, FAKE_SAMPLE, err));
}

static inline int fake_pause(struct machine *vmm, bool hold, struct error *err)
{
	struct fake_vmm *f = fake_of(vmm);
	int rc = fake_enter(f, hold ? FAKE_PAUSE : FAKE_HOLD, err);

	if (rc == 0) {
		fake_set(f, MACHINE_PAUSED);
		f->held = hold;
	}
	return fake_leave(f, rc);
}

static inline int fake_resume(struct machine *vmm, struct error *err)
{
	struct fake_vmm *f = fake_of(vmm);
	int rc = fake_enter(f, FAKE_RESUME, err);

	if (rc == 0 && f->state != MACHINE_PAUSED && f->state != MACHINE_RUNNING)
		rc = error_set(err, -EBUSY, "nothing to run");
	if (rc == 0) {
		fake_set(f, MACHINE_RUNNING);
		f->loaded = false;
	}
	f->held = false;
	return fake_leave(f, rc);
}

static inline int fake_stop(struct machine *vmm, struct error *err)
{
	struct fake_vmm *f = fake_of(vmm);
	int rc = fake_enter(f, FAKE_STOP, err);

	if (rc == 0) {
		fake_set(f, MACHINE_FAILED);
		f->dead = true;
		fake_let_go(f);
	}
	return fake_leave(f, rc);
}

static inline int fake_save(struct machine *vmm, int fd, json_t **cpu, struct error *err)
{
	struct fake_vmm *f = fake_of(vmm);
	int rc = fake_enter(f, FAKE_SAVE, err);

	if (rc == 0 && f->state != MACHINE_PAUSED)
		rc = error_set(err, -EBUSY, "it runs");
	if (rc == 0 && write(fd, "state of the machine", 20) != 20)
		rc = -EIO;
	if (rc == 0) {
		/* Requests that end now write to memory. */
		memset(f->ram + PAGE_BYTES, 0x5a, PAGE_BYTES);
		f->dirty[0] |= 2;
		*cpu = json_object();
	}
	return fake_leave(f, rc);
}

static inline int fake_load(struct machine *vmm, int fd, const char *clock, struct error *err)
{
	struct fake_vmm *f = fake_of(vmm);
	char text[64] = "";
	int rc = fake_enter(f, FAKE_LOAD, err);

	if (rc == 0 && (f->state != MACHINE_INCOMING || pread(fd, text, sizeof(text), 0) != 20 ||
			strcmp(text, "state of the machine")))
		rc = error_set(err, -EBADMSG, "no state");
	/* Devices look at their queues. */
	if (rc == 0 && f->mirror) {
		pthread_mutex_unlock(&f->mutex);
		for (uint64_t at = 0; at + 64 <= f->size && !f->dead; at += f->size / 5)
			f->differ += memcmp(f->ram + at, f->mirror + at, 64) != 0 && !f->dead;
		pthread_mutex_lock(&f->mutex);
		rc = f->dead ? error_set(err, -ENOTCONN, "the VMM is dead") : 0;
	}
	fake_set(f, rc ? MACHINE_FAILED : MACHINE_PAUSED);
	f->loaded = rc == 0;
	return fake_leave(f, rc);
}

static inline int fake_dirty_start(struct machine *vmm, int fd, struct error *err)
{
	struct fake_vmm *f = fake_of(vmm);
	int rc = fake_enter(f, FAKE_START, err);
	size_t bytes = index_chunks(f->size) * 8;

	if (rc == 0) {
		f->bitmap = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		memset(f->dirty, 0xff, bytes);
		if (f->bitmap == MAP_FAILED)
			rc = -ENOMEM;
	}
	return fake_leave(f, rc);
}

static inline int fake_dirty_collect(struct machine *vmm, uint64_t first, uint64_t pages,
				     struct error *err)
{
	struct fake_vmm *f = fake_of(vmm);
	int rc = fake_enter(f, FAKE_COLLECT, err);

	if (rc == 0 && (!f->bitmap || first % 64 || first + pages > f->size / PAGE_BYTES ||
			(pages % 64 && first + pages != f->size / PAGE_BYTES)))
		rc = error_set(err, -EINVAL, "no such pages");
	for (uint64_t c = first / 64; rc == 0 && c < (first + pages + 63) / 64; c++) {
		uint64_t mask = index_chunk_mask(f->size, c);

		atomic_fetch_or((_Atomic uint64_t *)&f->bitmap[c], f->dirty[c] & mask);
		f->dirty[c] = 0;
	}
	return fake_leave(f, rc);
}

static inline int fake_dirty_stop(struct machine *vmm, struct error *err)
{
	struct fake_vmm *f = fake_of(vmm);
	int rc = fake_enter(f, FAKE_END, err);

	if (rc == 0)
		fake_unfollow(f);
	return fake_leave(f, rc);
}

/* The first vCPU writes all that is written. */
static inline int fake_faults(struct machine *vmm, unsigned n, uint64_t *ret, struct error *err)
{
	struct fake_vmm *f = fake_of(vmm);
	int rc = fake_enter(f, FAKE_FAULTS, err);

	for (unsigned i = 0; rc == 0 && i < n; i++)
		ret[i] = i ? 0 : f->faults;
	return fake_leave(f, rc);
}

static inline int fake_throttle(struct machine *vmm, unsigned n, const uint8_t *percent,
				struct error *err)
{
	struct fake_vmm *f = fake_of(vmm);
	int rc = fake_enter(f, FAKE_THROTTLE, err);

	if (rc == 0 && n != f->vcpus)
		rc = error_set(err, -EINVAL, "another number of vCPUs");
	if (rc == 0)
		f->percent = percent[0];
	for (unsigned i = 1; rc == 0 && i < n; i++)
		f->others_slower |= percent[i] != 0;
	return fake_leave(f, rc);
}

static inline void fake_describe_faults(struct fake_vmm *f, struct faults *ret)
{
	*ret = (struct faults){
		.fd = dup(f->uffd), .nregions = 1, .nthreads = 1, .unit = f->unit ? f->unit : 1};
	ret->keeper.fd = -1;
	ret->region[0].host = (uintptr_t)f->ram;
	ret->region[0].size = f->size;
	ret->thread = calloc(2, sizeof(int));
	ret->thread[0] = f->reader_tid;
	snprintf(ret->instance, sizeof(ret->instance), "fake %p", (void *)f);
	f->brought = true;
}

static inline int fake_faults_open(struct machine *vmm, unsigned hold_ms, struct faults *ret,
				   struct error *err)
{
	struct fake_vmm *f = fake_of(vmm);
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_THREAD_ID |
			    (f->unit ? UFFD_FEATURE_MINOR_SHMEM : UFFD_FEATURE_MISSING_SHMEM)};
	struct uffdio_register reg = {.range = {(uintptr_t)f->ram, f->size},
				      .mode = f->unit ? UFFDIO_REGISTER_MODE_MINOR
						      : UFFDIO_REGISTER_MODE_MISSING};
	int rc = fake_enter(f, FAKE_MISSING, err);

	if (rc == 0) {
		f->uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
		if (f->uffd < 0 || ioctl(f->uffd, UFFDIO_API, &api) ||
		    ioctl(f->uffd, UFFDIO_REGISTER, &reg) ||
		    (f->unit && madvise(f->ram, f->size, MADV_DONTNEED)))
			abort();
		fake_describe_faults(f, ret);
	}
	return fake_leave(f, rc);
}

static inline int fake_faults_take(struct machine *vmm, struct faults *ret,
				   struct vmm_memory *memory, struct error *err)
{
	struct fake_vmm *f = fake_of(vmm);
	int rc = 0;

	pthread_mutex_lock(&f->mutex);
	if (f->dead || f->uffd < 0)
		rc = error_set(err, -ENOENT, "nobody waits");
	else if (f->brought)
		rc = error_set(err, -EBUSY, "somebody brings it");
	if (rc == 0) {
		fake_describe_faults(f, ret);
		*memory = (struct vmm_memory){dup(f->fd), f->size, PAGE_BYTES};
	}
	return fake_leave(f, rc);
}

static inline int fake_faults_end(struct machine *vmm, const char *reason, struct error *err)
{
	struct fake_vmm *f = fake_of(vmm);

	if (f->uffd < 0 || f->dead)
		return error_set(err, -ENOENT, "nobody waits");
	fake_die(f);
	return 0;
}

static inline int fake_faults_stop(struct machine *vmm, struct error *err)
{
	struct fake_vmm *f = fake_of(vmm);
	int rc = fake_enter(f, FAKE_MISSING_STOP, err);

	if (rc == 0)
		fake_let_go(f);
	return fake_leave(f, rc);
}

static inline void fake_hang_up(struct machine *vmm)
{
}

static const struct machine_ops fake_ops = {
	.state = fake_state,
	.loaded = fake_loaded,
	.name = fake_name,
	.memory = fake_memory,
	.describe = fake_describe,
	.flush = fake_flush,
	.sample = fake_sample,
	.pause = fake_pause,
	.resume = fake_resume,
	.stop = fake_stop,
	.save = fake_save,
	.load = fake_load,
	.dirty_start = fake_dirty_start,
	.dirty_collect = fake_dirty_collect,
	.dirty_stop = fake_dirty_stop,
	.faults = fake_faults,
	.throttle = fake_throttle,
	.faults_open = fake_faults_open,
	.faults_take = fake_faults_take,
	.faults_end = fake_faults_end,
	.faults_stop = fake_faults_stop,
	.hang_up = fake_hang_up,
};

/* Writes pages here and there; a page is zeroed now and then. */
static inline void *fake_guest(void *arg)
{
	struct fake_vmm *f = arg;
	uint64_t seed = 88172645463325252u;

	for (; !f->ending; usleep(f->pages_a_turn ? 100 : 10000)) {
		for (unsigned i = f->pages_a_turn; i; i--) {
			uint64_t page;

			seed ^= seed << 13;
			seed ^= seed >> 7;
			seed ^= seed << 17;
			page = seed % (f->size / PAGE_BYTES);
			pthread_mutex_lock(&f->mutex);
			if (f->state == MACHINE_RUNNING && seed >> 32 & 127 &&
			    seed % 100 >= f->percent) {
				memset(f->ram + page * PAGE_BYTES, seed & 15 ? (int)seed : 0,
				       PAGE_BYTES);
				f->faults += !(f->dirty[page / 64] >> page % 64 & 1);
				f->dirty[page / 64] |= 1ull << page % 64;
			}
			pthread_mutex_unlock(&f->mutex);
		}
		f->turns++;
	}
	return NULL;
}

/* Reads pages here and there while it runs; each is that of the mirror. */
static inline void *fake_reader(void *arg)
{
	struct fake_vmm *f = arg;
	uint64_t seed = 88172645463325252u;

	f->reader_tid = gettid();
	while (!f->ending) {
		uint64_t at;

		if (f->state != MACHINE_RUNNING) {
			usleep(100);
			continue;
		}
		seed ^= seed << 13;
		seed ^= seed >> 7;
		seed ^= seed << 17;
		at = seed % (f->size / PAGE_BYTES) * PAGE_BYTES;
		if (memcmp(f->ram + at, f->mirror + at, PAGE_BYTES) && !f->dead && !f->ending)
			f->differ++;
		f->reads++;
	}
	return NULL;
}

/* The guest of an empty VMM will be one that compares. */
static inline void fake_read(struct fake_vmm *f, const uint8_t *mirror)
{
	f->mirror = mirror;
	if (pthread_create(&f->reader, NULL, fake_reader, f))
		abort();
	while (!f->reader_tid)
		usleep(100);
}

static inline void fake_init(struct fake_vmm *f, struct world *world, uint64_t size, bool incoming)
{
	*f = (struct fake_vmm){
		.vmm = {&fake_ops}, .world = world, .size = size, .vcpus = 2, .uffd = -1};
	pthread_mutex_init(&f->mutex, NULL);
	f->state = MACHINE_INCOMING;
	f->fd = memfd_create("fake-ram", MFD_CLOEXEC);
	if (f->fd < 0 || ftruncate(f->fd, (off_t)size))
		abort();
	f->ram = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, f->fd, 0);
	f->dirty = calloc(index_chunks(size), 8);
	if (f->ram == MAP_FAILED || !f->dirty)
		abort();
	if (!incoming) {
		fake_set(f, MACHINE_RUNNING);
		for (uint64_t p = 0; p < size / PAGE_BYTES; p += 1 + p % 3)
			memset(f->ram + p * PAGE_BYTES, (int)p, PAGE_BYTES);
		if (pthread_create(&f->guest, NULL, fake_guest, f))
			abort();
	}
}

static inline void fake_done(struct fake_vmm *f)
{
	f->ending = true;
	fake_let_go(f);
	if (f->reader)
		pthread_join(f->reader, NULL);
	if (f->guest)
		pthread_join(f->guest, NULL);
	fake_unfollow(f);
	munmap(f->ram, f->size);
	close(f->fd);
	free(f->dirty);
	pthread_mutex_destroy(&f->mutex);
}

#endif
