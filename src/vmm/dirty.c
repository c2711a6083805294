/* SPDX-License-Identifier: Apache-2.0 */
/* Dirty tracking (Linux Documentation/virt/kvm/api.rst: KVM_GET_DIRTY_LOG, KVM_CLEAR_DIRTY_LOG). */

#include "vmm/dirty.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/error.h"
#include "vmm/device.h"
#include "vmm/vm.h"

#define WORD_PAGES 64ULL
#define CLEAR_PAGES (16ULL << 10) /* 64 MiB: well below a millisecond */

struct dirty {
	const void *owner; /* NULL: kept for who knows the tag */
	char *tag;
	int fd;
	_Atomic uint64_t *bitmap; /* shared with another process, which clears bits */
	size_t bytes;
	uint64_t *log; /* of one slot, as KVM tells it */
	size_t log_bytes;
	_Atomic uint64_t *vhost; /* by guest physical address */
	size_t vhost_bytes;
	bool manual; /* a page is protected again when told, not when read */
};

static size_t bitmap_bytes(uint64_t pages)
{
	return (size_t)((pages + WORD_PAGES - 1) / WORD_PAGES) * sizeof(uint64_t);
}

uint64_t dirty_pages(const struct vm *vm)
{
	return vm->mem.size / DIRTY_PAGE;
}

static void *map_private(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* A file that got shorter would end this process when it is written. */
static int check_file(int fd, size_t bytes, struct error *err)
{
	int seals = fcntl(fd, F_GET_SEALS);
	struct stat st;

	if (fstat(fd, &st) < 0)
		return error_errno(err, -errno, "dirty bitmap");
	if (seals < 0 || !(seals & F_SEAL_SHRINK))
		return error_set(err, -EINVAL,
				 "the dirty bitmap is no memfd sealed against "
				 "shrinking (F_SEAL_SHRINK)");
	if ((uint64_t)st.st_size != bytes)
		return error_set(err, -EINVAL, "the dirty bitmap has %lld bytes, not %zu",
				 (long long)st.st_size, bytes);
	return 0;
}

static int map_all(struct vm *vm, struct dirty *d, int fd, struct error *err)
{
	const struct memory_region *last = &vm->mem.region[vm->mem.nregions - 1];
	void *map;
	int r;

	d->bytes = bitmap_bytes(dirty_pages(vm));
	d->log_bytes = d->bytes;
	d->vhost_bytes = bitmap_bytes((last->gpa + last->size) / DIRTY_PAGE);
	r = check_file(fd, d->bytes, err);
	if (r)
		return r;
	map = mmap(NULL, d->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return error_errno(err, -errno, "cannot map the dirty bitmap");
	d->bitmap = map;
	d->log = map_private(d->log_bytes);
	d->vhost = map_private(d->vhost_bytes);
	return d->log && d->vhost ? 0 : error_errno(err, -ENOMEM, "dirty log");
}

/*
 * With both flags a page is only protected again when it is asked for, a piece at a time, and
 * nothing happens to the running guest at the start.
 */
static bool enable_manual(struct vm *vm, bool *all_set)
{
	int flags = ioctl(vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2);
	struct kvm_enable_cap cap = {.cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2};

	*all_set = false;
	if (flags <= 0)
		return false;
	cap.args[0] = (uint64_t)flags &
		      (KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET);
	if (ioctl(vm->fd, KVM_ENABLE_CAP, &cap) < 0)
		return false;
	*all_set = cap.args[0] & KVM_DIRTY_LOG_INITIALLY_SET;
	return true;
}

static void tell_devices(struct vm *vm)
{
	for (unsigned i = 0; i < vm->ndevices; i++)
		if (vm->devices[i]->ops->log_dirty)
			vm->devices[i]->ops->log_dirty(vm->devices[i]);
}

static void destroy(struct dirty *d)
{
	if (d->bitmap)
		munmap((void *)d->bitmap, d->bytes);
	if (d->log)
		munmap(d->log, d->log_bytes);
	if (d->vhost)
		munmap((void *)d->vhost, d->vhost_bytes);
	if (d->fd >= 0)
		close(d->fd);
	free(d->tag);
	free(d);
}

int dirty_start(struct vm *vm, int fd, const void *owner, struct error *err)
{
	struct dirty *d;
	bool all_set;
	int r;

	if (vm->dirty && vm->dirty->owner)
		return error_set(err, -EBUSY, "writes are tracked already");
	dirty_stop(vm);
	d = calloc(1, sizeof(*d));
	if (!d)
		return error_errno(err, -ENOMEM, "dirty log");
	d->owner = owner;
	d->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	r = d->fd < 0 ? error_errno(err, -errno, "dirty log") : map_all(vm, d, fd, err);
	if (!r) {
		d->manual = enable_manual(vm, &all_set);
		r = vm_map_memory(vm, KVM_MEM_LOG_DIRTY_PAGES, err);
	}
	if (r) {
		destroy(d);
		return r;
	}
	/* Where KVM does not say that all pages count as written, the bitmap does. */
	if (!all_set)
		memset((void *)d->bitmap, 0xff, d->bytes);
	vm->mem.dirty = d->bitmap;
	vm->dirty = d;
	tell_devices(vm);
	return 0;
}

/* Number of bits that were not set in the word before. */
static unsigned merge(struct dirty *d, uint64_t word, uint64_t bits)
{
	uint64_t old;

	if (!bits)
		return 0;
	old = __atomic_fetch_or((uint64_t *)&d->bitmap[word], bits, __ATOMIC_RELAXED);
	return (unsigned)__builtin_popcountll(bits & ~old);
}

/*
 * Piece by piece: KVM holds the lock that a vCPU's fault needs while it protects the pages of one
 * call. (It also counts them in 32 bits.)
 */
static int clear_log(struct vm *vm, unsigned slot, uint64_t first, uint64_t pages)
{
	for (uint64_t end = first + pages; first < end; first += CLEAR_PAGES) {
		uint64_t left = end - first;
		struct kvm_clear_dirty_log clear = {
			.slot = slot,
			.first_page = first,
			.num_pages = (uint32_t)(left < CLEAR_PAGES ? left : CLEAR_PAGES),
			.dirty_bitmap = vm->dirty->log + first / WORD_PAGES,
		};

		if (ioctl(vm->fd, KVM_CLEAR_DIRTY_LOG, &clear) < 0)
			return -errno;
	}
	return 0;
}

/* What KVM saw in pages [first, first + pages) of a slot whose first page in the bitmap is base. */
static int64_t collect_slot(struct vm *vm, unsigned slot, uint64_t base, uint64_t first,
			    uint64_t pages, struct error *err)
{
	struct dirty *d = vm->dirty;
	struct kvm_dirty_log get = {.slot = slot, .dirty_bitmap = d->log};
	uint64_t from = first / WORD_PAGES, to = (first + pages + WORD_PAGES - 1) / WORD_PAGES;
	int64_t n = 0;
	int r;

	if (ioctl(vm->fd, KVM_GET_DIRTY_LOG, &get) < 0)
		return error_errno(err, -errno, "cannot read the log of written pages");
	if (!d->manual) { /* reading has cleared all of it */
		from = 0;
		to = bitmap_bytes(vm->mem.region[slot].size / DIRTY_PAGE) / sizeof(uint64_t);
	}
	for (uint64_t i = from; i < to; i++)
		n += merge(d, base / WORD_PAGES + i, d->log[i]);
	r = d->manual ? clear_log(vm, slot, first, pages) : 0;
	return r ? error_errno(err, r, "cannot clear the log of written pages") : n;
}

/* Regions are multiples of 64 pages apart, in the guest as in the memfd. */
static int64_t collect_vhost(struct vm *vm, const struct memory_region *region, uint64_t first,
			     uint64_t pages)
{
	struct dirty *d = vm->dirty;
	uint64_t from = (region->gpa / DIRTY_PAGE + first) / WORD_PAGES;
	uint64_t to = region->offset / DIRTY_PAGE / WORD_PAGES + first / WORD_PAGES;
	int64_t n = 0;

	for (uint64_t i = 0; i < (pages + WORD_PAGES - 1) / WORD_PAGES; i++) {
		_Atomic uint64_t *word = &d->vhost[from + i];

		if (*word)
			n += merge(d, to + i, atomic_exchange(word, 0));
	}
	return n;
}

int64_t dirty_collect(struct vm *vm, uint64_t first, uint64_t pages, struct error *err)
{
	uint64_t total = dirty_pages(vm);
	int64_t n = 0;

	if (!vm->dirty)
		return error_set(err, -EINVAL, "writes are not tracked (dirty-start)");
	if (first % WORD_PAGES || first > total || pages > total - first ||
	    (pages % WORD_PAGES && first + pages != total))
		return error_set(err, -EINVAL,
				 "pages %llu and %llu: multiples of 64, in a memory of %llu pages",
				 (unsigned long long)first, (unsigned long long)pages,
				 (unsigned long long)total);
	for (unsigned i = 0; i < vm->mem.nregions; i++) {
		const struct memory_region *r = &vm->mem.region[i];
		uint64_t base = r->offset / DIRTY_PAGE, end = base + r->size / DIRTY_PAGE;
		uint64_t from = first > base ? first : base;
		uint64_t to = first + pages < end ? first + pages : end;
		int64_t some;

		if (from >= to)
			continue;
		n += collect_vhost(vm, r, from - base, to - from);
		some = collect_slot(vm, i, base, from - base, to - from, err);
		if (some < 0)
			return some;
		n += some;
	}
	return n;
}

void dirty_stop(struct vm *vm)
{
	struct dirty *d = vm->dirty;

	if (!d)
		return;
	vm->dirty = NULL;
	vm->mem.dirty = NULL;
	tell_devices(vm);
	vm_map_memory(vm, 0, NULL);
	destroy(d);
}

int dirty_keep(struct vm *vm, const void *owner, const char *tag, struct error *err)
{
	char *copy;

	if (!dirty_owned_by(vm, owner))
		return error_set(err, -EINVAL, "there is no log of this connection to keep");
	copy = strdup(tag);
	if (!copy)
		return error_errno(err, -ENOMEM, "dirty log");
	vm->dirty->tag = copy;
	vm->dirty->owner = NULL;
	return 0;
}

int dirty_take(struct vm *vm, const void *owner, const char *tag, struct error *err)
{
	struct dirty *d = vm->dirty;

	if (!d || d->owner)
		return error_set(err, -ENOENT, "no log of written pages is kept");
	if (strcmp(d->tag, tag)) {
		dirty_stop(vm);
		return error_set(err, -ESTALE, "the log of written pages was of something else");
	}
	free(d->tag);
	d->tag = NULL;
	d->owner = owner;
	return d->fd;
}

bool dirty_owned_by(const struct vm *vm, const void *owner)
{
	return vm->dirty && vm->dirty->owner == owner;
}

void *dirty_vhost_log(const struct vm *vm, uint64_t *size)
{
	*size = vm->dirty ? vm->dirty->vhost_bytes : 0;
	return vm->dirty ? (void *)vm->dirty->vhost : NULL;
}
