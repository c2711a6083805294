/* SPDX-License-Identifier: Apache-2.0 */
/* Guest RAM: its mapping, and the only checked way into it. */

#include "vmm/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/parse.h"
#include "vmm/ram-file.h"

#define PAGE_2M (2ULL << 20)
#define PAGE_1G (1ULL << 30)

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

/* A number of a /proc or /sys file: behind key when there is one. 0 when it is not there. */
static uint64_t read_number(const char *path, const char *key)
{
	CLEANUP_FREE char *text = NULL;
	const char *p;

	if (io_read_file(path, 64 * 1024, &text, NULL) < 0)
		return 0;
	p = key ? strstr(text, key) : text;
	return p ? strtoull(p + (key ? strlen(key) : 0), NULL, 10) : 0;
}

static int check_small_pages(uint64_t size, struct error *err)
{
	uint64_t available = read_number("/proc/meminfo", "MemAvailable:") << 10;

	if (size > available)
		return error_set(err, -ENOMEM,
				 "guest memory of %llu MiB does not fit: %llu MiB are available on "
				 "this machine (MemAvailable)",
				 (unsigned long long)size >> 20,
				 (unsigned long long)available >> 20);
	return 0;
}

static int check_huge_pages(uint64_t size, uint64_t page_size, struct error *err)
{
	char path[128], unit[32];
	uint64_t need = size / page_size, available;

	snprintf(path, sizeof(path), "/sys/kernel/mm/hugepages/hugepages-%llukB/free_hugepages",
		 (unsigned long long)page_size >> 10);
	available = read_number(path, NULL);
	if (need > available)
		return error_set(err, -ENOMEM,
				 "guest memory needs %llu huge pages of %s, %llu are free "
				 "(reserve more: echo N > %.*snr_hugepages)",
				 (unsigned long long)need,
				 format_size(page_size, unit, sizeof(unit)),
				 (unsigned long long)available,
				 (int)(strlen(path) - strlen("free_hugepages")), path);
	return 0;
}

/* Maps at an address aligned to 2 MiB at least, so that transparent huge pages can form. */
static uint8_t *map_aligned(int fd, uint64_t size, uint64_t page_size)
{
	uint64_t align = page_size > PAGE_2M ? page_size : PAGE_2M;
	uint8_t *raw = mmap(NULL, size + align, PROT_NONE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint8_t *start, *end;

	if (raw == MAP_FAILED)
		return NULL;
	start = (uint8_t *)(((uintptr_t)raw + align - 1) & ~(align - 1));
	end = start + size;
	if (start > raw)
		munmap(raw, (size_t)(start - raw));
	if (raw + size + align > end)
		munmap(end, (size_t)(raw + size + align - end));
	if (mmap(start, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) ==
	    MAP_FAILED) {
		munmap(start, size);
		return NULL;
	}
	return start;
}

struct populate_job {
	pthread_t thread;
	uint8_t *start;
	uint64_t size;
	int result;
};

static void *populate_run(void *arg)
{
	struct populate_job *job = arg;

	if (job->size && madvise(job->start, job->size, MADV_POPULATE_WRITE) < 0)
		job->result = -errno;
	return NULL;
}

/* Populates in parallel: one thread zeroes about 1 to 5 GB/s, far below memory bandwidth. */
static int populate(uint8_t *host, uint64_t size, uint64_t page_size)
{
	struct populate_job job[8] = {0};
	unsigned n = (unsigned)get_nprocs();
	uint64_t chunk;
	int r = 0;

	if (n > ARRAY_SIZE(job))
		n = ARRAY_SIZE(job);
	if (size < 256 << 20)
		n = 1;
	chunk = (size / n + page_size - 1) & ~(page_size - 1);
	for (unsigned i = 0; i < n; i++) {
		uint64_t begin = chunk * i < size ? chunk * i : size;

		job[i].start = host + begin;
		job[i].size = size - begin < chunk ? size - begin : chunk;
		if (i && pthread_create(&job[i].thread, NULL, populate_run, &job[i])) {
			populate_run(&job[i]);
			job[i].thread = 0;
		}
	}
	populate_run(&job[0]);
	for (unsigned i = 0; i < n; i++) {
		if (job[i].thread)
			pthread_join(job[i].thread, NULL);
		if (job[i].result)
			r = job[i].result;
	}
	return r;
}

static void set_regions(struct memory *mem, uint8_t *host)
{
	uint64_t low = mem->size < MEMORY_LOW_MAX ? mem->size : MEMORY_LOW_MAX;

	mem->region[0] = (struct memory_region){.gpa = 0, .size = low, .offset = 0, .host = host};
	mem->nregions = 1;
	if (mem->size > low) {
		mem->region[1] = (struct memory_region){.gpa = MEMORY_HIGH_START,
							.size = mem->size - low,
							.offset = low,
							.host = host + low};
		mem->nregions = 2;
	}
}

static int check_request(uint64_t size, uint64_t page_size, struct error *err)
{
	char unit[32];

	if (page_size != 4096 && page_size != PAGE_2M && page_size != PAGE_1G)
		return error_set(err, -EINVAL, "page size must be 4K, 2M or 1G");
	if (size < (16ULL << 20) || size > (1ULL << 45))
		return error_set(err, -EINVAL, "guest memory must be between 16 MiB and 32 TiB");
	if (size % page_size)
		return error_set(err, -EINVAL, "guest memory of %llu bytes is no multiple of %s",
				 (unsigned long long)size,
				 format_size(page_size, unit, sizeof(unit)));
	if (page_size == 4096)
		return check_small_pages(size, err);
	return check_huge_pages(size, page_size, err);
}

int memory_create(struct memory *mem, uint64_t size, uint64_t page_size, bool prefault,
		  struct error *err)
{
	CLEANUP_CLOSE int fd = -1;
	uint8_t *host;
	int r = check_request(size, page_size, err);

	if (r)
		return r;
	fd = ram_file_create(size, page_size, err);
	if (fd < 0)
		return fd;
	host = map_aligned(fd, size, page_size);
	if (!host)
		return error_errno(err, -errno, "cannot map %llu MiB of guest memory",
				   (unsigned long long)size >> 20);
	madvise(host, size, MADV_DONTFORK);
	madvise(host, size, MADV_DONTDUMP);
	if (page_size == 4096)
		madvise(host, size, MADV_HUGEPAGE);
	r = prefault || page_size != 4096 ? populate(host, size, page_size) : 0;
	if (r) {
		munmap(host, size);
		return error_errno(err, r, "cannot populate %llu MiB of guest memory",
				   (unsigned long long)size >> 20);
	}
	*mem = (struct memory){.fd = take_fd(&fd), .size = size, .page_size = page_size};
	set_regions(mem, host);
	return 0;
}

void memory_want_huge(const struct memory *mem, bool want)
{
	if (mem->page_size == 4096)
		madvise(mem->region[0].host, mem->size, want ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
}

void memory_destroy(struct memory *mem)
{
	if (!mem->nregions)
		return;
	munmap(mem->region[0].host, mem->size);
	close(mem->fd);
	*mem = (struct memory){.fd = -1};
}

void *memory_at(const struct memory *mem, uint64_t gpa, uint64_t len)
{
	for (unsigned i = 0; i < mem->nregions; i++) {
		const struct memory_region *r = &mem->region[i];
		uint64_t offset = gpa - r->gpa;

		if (gpa >= r->gpa && offset < r->size && len <= r->size - offset)
			return r->host + offset;
	}
	return NULL;
}

int memory_read(const struct memory *mem, uint64_t gpa, void *buf, uint64_t len)
{
	const void *p = memory_at(mem, gpa, len);

	if (!p)
		return -EFAULT;
	memcpy(buf, p, len);
	return 0;
}

int memory_write(struct memory *mem, uint64_t gpa, const void *buf, uint64_t len)
{
	void *p = memory_at(mem, gpa, len);

	if (!p)
		return -EFAULT;
	memcpy(p, buf, len);
	memory_mark_dirty(mem, gpa, len);
	return 0;
}

void memory_mark_dirty_slow(struct memory *mem, uint64_t gpa, uint64_t len)
{
	const uint8_t *p = memory_at(mem, gpa, len);
	uint64_t first, last;

	if (!p || !len)
		return;
	first = (uint64_t)(p - mem->region[0].host) >> 12;
	last = (uint64_t)(p + len - 1 - mem->region[0].host) >> 12;
	for (uint64_t page = first; page <= last; page++)
		__atomic_fetch_or((uint64_t *)&mem->dirty[page / 64], 1ULL << (page % 64),
				  __ATOMIC_RELAXED);
}
