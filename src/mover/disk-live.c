/* SPDX-License-Identifier: Apache-2.0 */
/* Copies a disk that the VM goes on to write. */

#include "mover/disk-live.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "mover/disk.h"

static uint64_t blocks(const struct disk_live *d)
{
	return (d->size + DISK_BLOCK - 1) / DISK_BLOCK;
}

/* A byte for each block, and one that says that the VMM has given up. */
static int map_shared(struct disk_live *d, int fd, struct error *err)
{
	size_t bytes = (size_t)blocks(d) + 1;
	struct stat st;
	void *map;

	if (fd < 0 || fstat(fd, &st) < 0 || (uint64_t)st.st_size < bytes)
		return error_set(err, -EPROTO, "wisp-vmm does not tell what it copies");
	map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return error_errno(err, -errno, "cannot map what wisp-vmm copies");
	d->shared = map;
	return 0;
}

int disk_live_begin(struct disk_live *d, struct vmm *vmm, struct error *err)
{
	CLEANUP_CLOSE int fd = -1;
	int rc;

	if (ftruncate(d->to, (off_t)d->size) < 0)
		return error_errno(err, -errno, "cannot make a copy of %llu bytes",
				   (unsigned long long)d->size);
	rc = vmm_call(vmm, "disk-copy-start", json_pack("{s:s}", "id", d->id), d->to, NULL, err);
	if (rc < 0)
		return rc;
	fd = jsonline_take_fd(&vmm->line);
	return map_shared(d, fd, err);
}

struct live {
	struct disk_live *disk;
	struct work *work;
};

/* Its byte is looked at after it was read: while that is 0 nothing of the block has changed. */
static int copy_block(void *arg, uint64_t offset, const uint8_t *data, size_t n, struct error *err)
{
	struct live *live = arg;
	struct disk_live *d = live->disk;
	int rc;

	if (d->shared[blocks(d)])
		return 1;
	live->work->done += n;
	if (d->shared[offset / DISK_BLOCK])
		return 0;
	rc = disk_write(d->to, offset, data, n, err);
	if (rc < 0)
		return rc;
	d->shared[offset / DISK_BLOCK] = 1;
	d->bytes += n;
	return 0;
}

int disk_live_copy(struct disk_live *d, struct vmm *vmm, struct work *work, struct error *err)
{
	struct live live = {d, work};
	struct disk_walk walk = {d->from, d->size, work->progress, copy_block, &live};
	json_t *result = NULL;
	int rc = disk_walk(&walk, err);

	/* Who gave up says why now. */
	if (rc >= 0)
		rc = vmm_call(vmm, "disk-copy-stop", json_pack("{s:s}", "id", d->id), -1, &result,
			      err);
	d->vm_bytes = (uint64_t)json_integer_value(json_object_get(result, "bytes"));
	json_decref(result);
	return rc;
}

void disk_live_done(struct disk_live *d)
{
	if (d->shared)
		munmap((void *)d->shared, (size_t)blocks(d) + 1);
	d->shared = NULL;
}
