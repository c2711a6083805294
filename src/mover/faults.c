/* SPDX-License-Identifier: Apache-2.0 */
/* Memory of a VMM that comes when it is touched (Linux admin-guide/mm/userfaultfd.rst). */

#include "mover/faults.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "mover/index.h"

#define AT_ONCE 16
#define DISCARD_TRIES 10
#define DISCARD_NAP_US 2000
#define TAKE_MS 2000 /* for the mover that was killed to be gone */
#define RETRY_MS 20

static uint64_t number(const json_t *object, const char *name)
{
	return (uint64_t)json_integer_value(json_object_get(object, name));
}

/* What "userfault" answered, with its descriptor. */
static int take_answer(struct vmm *vmm, const json_t *result, struct faults *ret, struct error *err)
{
	const json_t *regions = json_object_get(result, "regions");
	const json_t *threads = json_object_get(result, "threads");
	const char *instance = json_string_value(json_object_get(result, "instance"));
	struct faults f = {.fd = jsonline_take_fd(&vmm->line), .keeper = {.fd = -1}};

	f.nregions = (unsigned)json_array_size(regions);
	f.nthreads = (unsigned)json_array_size(threads);
	if (f.fd < 0 || f.nregions > FAULTS_REGIONS || f.nthreads > FAULTS_THREADS) {
		cleanup_close_fd(&f.fd);
		return error_set(err, -EPROTO, "wisp-vmm handed no userfaultfd over that fits");
	}
	f.thread = calloc(f.nthreads + 1, sizeof(*f.thread));
	if (!f.thread) {
		cleanup_close_fd(&f.fd);
		return error_set(err, -ENOMEM, "out of memory");
	}
	for (unsigned i = 0; i < f.nregions; i++) {
		const json_t *region = json_array_get(regions, i);

		f.region[i].host = number(region, "host");
		f.region[i].size = number(region, "size");
		f.region[i].offset = number(region, "offset");
	}
	f.unit = (unsigned)(number(result, "page_size") / PAGE_BYTES);
	snprintf(f.instance, sizeof(f.instance), "%s", instance ? instance : "");
	for (unsigned i = 0; i < f.nthreads; i++)
		f.thread[i] = (int)json_integer_value(json_array_get(threads, i));
	*ret = f;
	return 0;
}

int faults_check_page_size(uint64_t page_size, struct error *err)
{
	if (page_size <= FAULTS_UNIT_MAX)
		return 0;
	return error_set(err, -EOPNOTSUPP,
			 "pages of %" PRIu64 " MiB, for each of which the VM would stand still too "
			 "long: start it with --page-size 2M or 4K",
			 page_size >> 20);
}

/* How its memory is to be missing: huge pages are there from the begin, and only not mapped. */
static int choose_mode(struct vmm *vmm, const char **ret, struct error *err)
{
	json_t *status = NULL;
	uint64_t page_size;
	int rc = vmm_call(vmm, "status", NULL, -1, &status, err);

	if (rc < 0)
		return rc;
	page_size = number(status, "page_size");
	json_decref(status);
	rc = faults_check_page_size(page_size, err);
	if (rc < 0)
		return rc;
	*ret = page_size == PAGE_BYTES ? "missing" : "minor";
	return 0;
}

int faults_open(struct vmm *vmm, unsigned hold_ms, struct faults *ret, struct error *err)
{
	json_t *result = NULL;
	const char *mode = NULL;
	int rc = choose_mode(vmm, &mode, err);

	if (rc == 0)
		rc = vmm_call(vmm, "userfault",
			      json_pack("{s:[s],s:i}", "modes", mode, "hold_ms", (int)hold_ms), -1,
			      &result, err);
	if (rc == 0)
		rc = take_answer(vmm, result, ret, err);
	json_decref(result);
	return rc;
}

static int connect_keeper(const char *control, struct vmm *ret, struct error *err)
{
	CLEANUP_FREE char *path = io_format("%s.faults", control);
	int rc = path ? vmm_connect(path, ret, err) : error_set(err, -ENOMEM, "out of memory");

	/* The socket of a process that is gone. */
	return rc == -ECONNREFUSED ? -ENOENT : rc;
}

/* One that has just been killed may still be going. */
static int ask_for_them(struct vmm *keeper, json_t **ret, struct error *err)
{
	uint64_t end = io_now_ns() + TAKE_MS * 1000000ull;
	int rc;

	while ((rc = vmm_call(keeper, "userfault-take", NULL, -1, ret, err)) == -EBUSY) {
		if (io_now_ns() >= end)
			break;
		usleep(RETRY_MS * 1000);
	}
	return rc;
}

/* A mover before us has shown some huge pages. */
static int take_mapped(struct vmm *keeper, struct faults *f, struct error *err)
{
	CLEANUP_CLOSE int fd = -1;
	uint64_t size = 0, bytes;
	int rc;

	if (f->unit == 1)
		return 0;
	for (unsigned i = 0; i < f->nregions; i++)
		size += f->region[i].size;
	bytes = (size / PAGE_BYTES / f->unit + 63) / 64 * 8;
	f->mapped = malloc(bytes);
	if (!f->mapped)
		return error_set(err, -ENOMEM, "out of memory");
	rc = vmm_call(keeper, "mapped", NULL, -1, NULL, err);
	if (rc < 0)
		return rc;
	fd = jsonline_take_fd(&keeper->line);
	rc = fd < 0 ? -EBADF : io_pread_full(fd, f->mapped, bytes, 0);
	return rc < 0 ? error_errno(err, rc, "wisp-vmm does not say what memory is there") : 0;
}

int faults_take(const char *control, struct faults *ret, struct vmm_memory *memory,
		struct error *err)
{
	struct vmm keeper;
	json_t *result = NULL;
	struct faults f = {.fd = -1};
	int rc = connect_keeper(control, &keeper, err);

	if (rc < 0)
		return rc;
	rc = ask_for_them(&keeper, &result, err);
	if (rc == 0)
		rc = take_answer(&keeper, result, &f, err);
	json_decref(result);
	if (rc == 0)
		rc = take_mapped(&keeper, &f, err);
	if (rc == 0 && memory)
		rc = vmm_memory(&keeper, memory, err);
	if (rc < 0) {
		faults_close(&f);
		vmm_close(&keeper);
		return rc;
	}
	f.keeper = keeper;
	*ret = f;
	return 0;
}

int faults_end(const char *control, const char *reason, struct error *err)
{
	struct vmm vmm;
	int rc = connect_keeper(control, &vmm, err);

	if (rc < 0)
		return rc;
	rc = vmm_call(&vmm, "userfault-end", json_pack("{s:s%}", "reason", reason, strlen(reason)),
		      -1, NULL, err);
	if (vmm.lost) /* as it is to be: no answer comes from a process that is gone */
		rc = 0;
	vmm_close(&vmm);
	return rc;
}

void faults_close(struct faults *f)
{
	if (f->thread) {
		cleanup_close_fd(&f->fd);
		if (f->keeper.fd >= 0)
			vmm_close(&f->keeper);
	}
	free(f->thread);
	free(f->mapped);
	*f = (struct faults){.fd = -1, .keeper = {.fd = -1}};
}

/* -------- events -------- */

static int page_of(const struct faults *f, uint64_t address, uint64_t *ret, struct error *err)
{
	for (unsigned i = 0; i < f->nregions; i++) {
		if (address - f->region[i].host < f->region[i].size) {
			*ret = (f->region[i].offset + (address - f->region[i].host)) / PAGE_BYTES;
			return 0;
		}
	}
	return error_set(err, -EPROTO, "a fault at 0x%" PRIx64 ", outside guest memory", address);
}

static int read_faults(const struct faults *f, struct fault *ret, unsigned n, struct error *err)
{
	struct uffd_msg msg[AT_ONCE];
	ssize_t got = read(f->fd, msg, sizeof(msg[0]) * (n < AT_ONCE ? n : AT_ONCE));
	unsigned found = 0;

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (got <= 0)
		return error_errno(err, got ? -errno : -EPIPE, "cannot read faults");
	for (size_t i = 0; i < (size_t)got / sizeof(msg[0]); i++) {
		int rc;

		if (msg[i].event != UFFD_EVENT_PAGEFAULT)
			continue;
		rc = page_of(f, msg[i].arg.pagefault.address, &ret[found].page, err);
		if (rc < 0)
			return rc;
		ret[found++].thread = (int)msg[i].arg.pagefault.feat.ptid;
	}
	return (int)found;
}

int faults_wait(const struct faults *f, int stop_fd, struct fault *ret, unsigned n,
		struct error *err)
{
	for (;;) {
		struct pollfd p[] = {{.fd = f->fd, .events = POLLIN},
				     {.fd = stop_fd, .events = POLLIN}};
		int rc;

		if (poll(p, 2, -1) < 0 && errno != EINTR)
			return error_errno(err, -errno, "poll");
		if (p[1].revents)
			return 0;
		rc = p[0].revents ? read_faults(f, ret, n, err) : 0;
		if (rc)
			return rc;
	}
}

/* -------- pages -------- */

/* Where in the VMM the page is, and how many follow it there; one is in one region. */
static int address_of(const struct faults *f, uint64_t page, uint64_t *host, uint64_t *pages,
		      struct error *err)
{
	uint64_t at = page * PAGE_BYTES;

	for (unsigned i = 0; i < f->nregions; i++) {
		uint64_t in = at - f->region[i].offset;

		if (at >= f->region[i].offset && in < f->region[i].size) {
			*host = f->region[i].host + in;
			*pages = (f->region[i].size - in) / PAGE_BYTES;
			return 0;
		}
	}
	return error_set(err, -EPROTO, "page %" PRIu64 " is outside guest memory", page);
}

static void wake(const struct faults *f, uint64_t host)
{
	struct uffdio_range range = {.start = host, .len = (uint64_t)f->unit * PAGE_BYTES};

	ioctl(f->fd, UFFDIO_WAKE, &range);
}

void faults_wake(const struct faults *f, uint64_t page)
{
	uint64_t host = 0, run = 0;

	if (address_of(f, page - page % f->unit, &host, &run, NULL) == 0)
		wake(f, host);
}

void faults_wake_all(const struct faults *f)
{
	for (unsigned i = 0; i < f->nregions; i++) {
		struct uffdio_range range = {.start = f->region[i].host, .len = f->region[i].size};

		ioctl(f->fd, UFFDIO_WAKE, &range);
	}
}

/* At least one page of a run that lies in one region; *done is how many. */
static int copy_some(const struct faults *f, uint64_t host, uint64_t n, const uint8_t *data,
		     uint64_t *done, struct error *err)
{
	struct uffdio_copy copy = {.dst = host, .src = (uintptr_t)data, .len = n * PAGE_BYTES};
	int rc = ioctl(f->fd, UFFDIO_COPY, &copy) < 0 ? -errno : 0;

	*done = copy.copy > 0 ? (uint64_t)copy.copy / PAGE_BYTES : 0;
	if (rc == 0 || *done || rc == -EAGAIN)
		return 0;
	if (rc == -EEXIST) {
		wake(f, host);
		*done = 1;
		return 0;
	}
	return error_errno(err, rc, "cannot give the VM its memory");
}

int faults_copy(const struct faults *f, uint64_t page, uint64_t n, const void *data,
		struct error *err)
{
	const uint8_t *from = data;

	while (n) {
		uint64_t host = 0, run = 0, done = 0;
		int rc = address_of(f, page, &host, &run, err);

		if (rc == 0)
			rc = copy_some(f, host, run < n ? run : n, from, &done, err);
		if (rc < 0)
			return rc;
		page += done;
		n -= done;
		from += done * PAGE_BYTES;
	}
	return 0;
}

/* As copy_some(). */
static int show_some(const struct faults *f, uint64_t host, uint64_t n, uint64_t *done,
		     struct error *err)
{
	struct uffdio_continue show = {.range = {.start = host, .len = n * PAGE_BYTES}};
	int rc = ioctl(f->fd, UFFDIO_CONTINUE, &show) < 0 ? -errno : 0;

	*done = show.mapped > 0 ? (uint64_t)show.mapped / PAGE_BYTES : 0;
	if (rc == 0 || *done || rc == -EAGAIN)
		return 0;
	if (rc == -EEXIST) {
		wake(f, host);
		*done = f->unit;
		return 0;
	}
	return error_errno(err, rc, "cannot show the VM its memory");
}

int faults_show(const struct faults *f, uint64_t page, uint64_t n, struct error *err)
{
	while (n) {
		uint64_t host = 0, run = 0, done = 0;
		int rc = address_of(f, page, &host, &run, err);

		if (rc == 0)
			rc = show_some(f, host, run < n ? run : n, &done, err);
		if (rc < 0)
			return rc;
		page += done;
		n -= done;
	}
	return 0;
}

bool faults_was_shown(const struct faults *f, uint64_t number)
{
	return f->mapped && f->mapped[number / 64] >> number % 64 & 1;
}

int faults_zero(const struct faults *f, uint64_t page, struct error *err)
{
	uint64_t host = 0, run = 0;
	struct uffdio_zeropage zero;
	int rc = address_of(f, page, &host, &run, err);

	if (rc < 0)
		return rc;
	zero = (struct uffdio_zeropage){.range = {.start = host, .len = PAGE_BYTES}};
	while (ioctl(f->fd, UFFDIO_ZEROPAGE, &zero) < 0) {
		if (errno == EEXIST) {
			wake(f, host);
			return 0;
		}
		if (errno != EAGAIN)
			return error_errno(err, -errno, "cannot give the VM a zero page");
	}
	return 0;
}

/* -------- what is there -------- */

static void set_bits(uint64_t *set, uint64_t first, uint64_t end)
{
	while (first < end) {
		unsigned bit = first % 64;
		uint64_t n = end - first < 64 - bit ? end - first : 64 - bit;

		set[first / 64] |= (n == 64 ? ~0ull : (1ull << n) - 1) << bit;
		first += n;
	}
}

int faults_there(int memfd, uint64_t size, uint64_t *set, struct error *err)
{
	off_t at = 0, end;

	memset(set, 0, index_chunks(size) * sizeof(*set));
	while ((at = lseek(memfd, at, SEEK_DATA)) >= 0 && (uint64_t)at < size) {
		end = lseek(memfd, at, SEEK_HOLE);
		if (end <= at)
			return error_errno(err, -EIO, "cannot see what memory is there");
		if ((uint64_t)end > size)
			end = (off_t)size;
		set_bits(set, (uint64_t)at / PAGE_BYTES, (uint64_t)end / PAGE_BYTES);
		at = end;
	}
	return at < 0 && errno != ENXIO
		       ? error_errno(err, -errno, "cannot see what memory is there")
		       : 0;
}

static bool in_set(const uint64_t *set, uint64_t page)
{
	return !set || set[page / 64] >> page % 64 & 1;
}

/* The page behind the last that is in the set, or out of it, as the first. */
static uint64_t run_end(const uint64_t *set, uint64_t first, uint64_t pages)
{
	bool in = in_set(set, first);
	uint64_t end = first + 1;

	if (!set)
		return pages;
	while (end < pages && in_set(set, end) == in)
		end += !(end % 64) && set[end / 64] == (in ? ~0ull : 0) ? 64 : 1;
	return end < pages ? end : pages;
}

static int punch(int memfd, uint64_t size, const uint64_t *set, struct error *err)
{
	uint64_t pages = size / PAGE_BYTES, end;

	for (uint64_t first = 0; first < pages; first = end) {
		end = run_end(set, first, pages);
		if (in_set(set, first) &&
		    fallocate(memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			      (off_t)(first * PAGE_BYTES), (off_t)((end - first) * PAGE_BYTES)))
			return error_errno(err, -errno, "cannot discard memory of the VM");
	}
	return 0;
}

static bool meet(const uint64_t *there, const uint64_t *set, uint64_t size)
{
	for (uint64_t c = 0; c < index_chunks(size); c++)
		if (there[c] & (set ? set[c] : ~0ull))
			return true;
	return false;
}

/*
 * A part of a huge page is only made zero, and nobody would be told of its use, as long as somebody
 * else in the kernel has the page in hand: it is looked at, and asked for again.
 */
int faults_discard(int memfd, uint64_t size, const uint64_t *set, struct error *err)
{
	CLEANUP_FREE uint64_t *there = calloc(index_chunks(size), sizeof(*there));

	if (!there)
		return error_set(err, -ENOMEM, "out of memory");
	/* Looking takes no time; a hole in nothing takes the kernel 400 us a GiB. */
	if (lseek(memfd, 0, SEEK_DATA) < 0 && errno == ENXIO)
		return 0;
	for (unsigned i = 0; i < DISCARD_TRIES; i++) {
		int rc = punch(memfd, size, set, err);

		if (rc == 0)
			rc = faults_there(memfd, size, there, err);
		if (rc < 0 || !meet(there, set, size))
			return rc;
		usleep(DISCARD_NAP_US);
	}
	return error_set(err, -EOPNOTSUPP,
			 "this kernel does not discard pages of the VM's memory: start its machine "
			 "with transparent_hugepage/enabled set to never");
}
