/* SPDX-License-Identifier: Apache-2.0 */
/* Opens a raw file or a block device as the store of a disk: lock, size, block sizes. */

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "vmm/block/file.h"

static int open_file(struct file_store *f, const struct store_options *opt, struct stat *st,
		     struct error *err)
{
	int flags = O_CLOEXEC | O_NOCTTY | (opt->readonly ? O_RDONLY : O_RDWR) |
		    (opt->direct ? O_DIRECT : 0);

	if (stat(f->path, st) < 0)
		return error_errno(err, -errno, "cannot open disk %s", f->path);
	if (!S_ISREG(st->st_mode) && !S_ISBLK(st->st_mode))
		return error_set(err, -EINVAL, "disk %s is neither a file nor a block device",
				 f->path);
	if (S_ISBLK(st->st_mode) && !opt->readonly)
		flags |= O_EXCL; /* refused while the host has it mounted */
	f->fd = open(f->path, flags);
	if (f->fd >= 0)
		return fstat(f->fd, st) < 0
			       ? error_errno(err, -errno, "cannot open disk %s", f->path)
			       : 0;
	if (errno == EBUSY)
		return error_set(err, -EBUSY, "disk %s is in use by the host (mounted?)", f->path);
	if ((errno == EACCES || errno == EROFS) && !opt->readonly)
		return error_errno(err, -errno, "cannot open disk %s for writing (add readonly?)",
				   f->path);
	if (errno == EINVAL && opt->direct)
		return error_set(err, -EINVAL,
				 "disk %s: its file system has no direct I/O; leave cache=none out",
				 f->path);
	return error_errno(err, -errno, "cannot open disk %s", f->path);
}

/* An open file description lock: it lives exactly as long as our descriptor. */
static int lock_file(struct file_store *f, bool readonly, struct error *err)
{
	struct flock lock = {.l_type = readonly ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET};

	if (!fcntl(f->fd, F_OFD_SETLK, &lock))
		return 0;
	if (errno == EAGAIN || errno == EACCES)
		return error_set(err, -EBUSY, "disk %s is used by another process%s (see lslocks)",
				 f->path, readonly ? " that may write it" : "");
	return error_errno(err, -errno, "cannot lock disk %s", f->path);
}

/* What this host's memory had of it while another wrote is not true any more. */
static int take_file(struct file_store *f, struct error *err)
{
	int r = lock_file(f, false, err);

	if (!r && f->waits)
		posix_fadvise(f->fd, 0, 0, POSIX_FADV_DONTNEED);
	if (!r)
		f->waits = false;
	return r;
}

int file_claim(struct store *store, bool claim, struct error *err)
{
	struct file_store *f = container_of(store, struct file_store, store);
	struct flock unlock = {.l_type = F_UNLCK, .l_whence = SEEK_SET};

	/* Readers disturb nobody. */
	if (f->readonly)
		return 0;
	if (claim)
		return take_file(f, err);
	/* Who has it next, perhaps on another host, is to find what was written. */
	if (fdatasync(f->fd) < 0)
		return error_errno(err, -errno, "cannot sync disk %s", f->path);
	fcntl(f->fd, F_OFD_SETLK, &unlock);
	return 0;
}

int file_file(struct store *store, const char **path)
{
	struct file_store *f = container_of(store, struct file_store, store);

	*path = f->path;
	return f->fd;
}

static bool power_of_two(uint64_t n)
{
	return n && !(n & (n - 1));
}

static int block_device_sizes(struct file_store *f, struct error *err)
{
	struct store *s = &f->store;
	unsigned physical = 0;
	int logical = 0;

	if (ioctl(f->fd, BLKGETSIZE64, &s->size) < 0 || ioctl(f->fd, BLKSSZGET, &logical) < 0 ||
	    ioctl(f->fd, BLKPBSZGET, &physical) < 0)
		return error_errno(err, -errno, "cannot read the size of disk %s", f->path);
	s->block_size = logical >= 512 && power_of_two((unsigned)logical) ? (unsigned)logical : 512;
	s->physical_size = power_of_two(physical) ? physical : s->block_size;
	s->can_discard = s->can_zero = true;
	return 0;
}

/*
 * The guest sees 512-byte blocks whatever the file system has: partition tables of images
 * count in them.
 */
static void regular_file_sizes(struct file_store *f, const struct stat *st)
{
	struct store *s = &f->store;

	s->size = (uint64_t)st->st_size;
	s->block_size = 512;
	s->physical_size = power_of_two((uint64_t)st->st_blksize) && st->st_blksize <= 1 << 20
				   ? (uint32_t)st->st_blksize
				   : 4096;
	/* Behind the end there is nothing to punch: this only asks whether it could. */
	s->can_discard = s->can_zero =
		!fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, st->st_size, 4096);
}

static int direct_sizes(struct file_store *f, struct error *err)
{
	/* Kernels before 6.1 do not say: the logical block of today's disks is safe. */
	uint32_t align = 4096, mem_align = 4096;
#ifdef STATX_DIOALIGN
	struct statx sx;

	if (!statx(f->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &sx) && sx.stx_mask & STATX_DIOALIGN) {
		align = sx.stx_dio_offset_align;
		mem_align = sx.stx_dio_mem_align;
	}
#endif
	if (!power_of_two(align) || !power_of_two(mem_align) || align > 65536)
		return error_set(err, -EINVAL,
				 "disk %s: its file system has no direct I/O; leave cache=none out",
				 f->path);
	if (f->store.size % align)
		return error_set(err, -EINVAL,
				 "disk %s: direct I/O (cache=none) needs a size that is a multiple "
				 "of %u bytes, it has %llu",
				 f->path, align, (unsigned long long)f->store.size);
	f->align = align;
	f->mem_align = mem_align;
	return 0;
}

static int read_sizes(struct file_store *f, const struct stat *st, const struct store_options *opt,
		      struct error *err)
{
	struct store *s = &f->store;
	int r = 0;

	f->align = f->mem_align = 1;
	if (S_ISBLK(st->st_mode))
		r = block_device_sizes(f, err);
	else
		regular_file_sizes(f, st);
	if (r)
		return r;
	if (!s->size || s->size % 512)
		return error_set(err, -EINVAL,
				 "disk %s has %llu bytes, which is not a multiple of 512: "
				 "truncate -s %llu %s",
				 f->path, (unsigned long long)s->size,
				 (unsigned long long)(s->size / 512 + 1) * 512, f->path);
	if (s->physical_size < s->block_size)
		s->physical_size = s->block_size;
	if (opt->readonly)
		s->can_discard = s->can_zero = false;
	return opt->direct ? direct_sizes(f, err) : 0;
}

int store_open_file(const char *path, const struct store_options *opt, struct loop *loop,
		    const struct log *log, struct store **ret, struct error *err)
{
	struct file_store *f = calloc(1, sizeof(*f));
	struct stat st;
	int r;

	if (!f)
		return error_errno(err, -ENOMEM, "cannot open disk %s", path);
	*f = (struct file_store){
		.store.ops = &file_store_ops, .path = path, .log = log, .loop = loop, .fd = -1};
	r = open_file(f, opt, &st, err);
	f->readonly = opt->readonly;
	f->waits = opt->unlocked;
	if (!r && !(opt->unlocked && !opt->readonly))
		r = lock_file(f, opt->readonly, err);
	if (!r)
		r = read_sizes(f, &st, opt, err);
	if (!r)
		r = file_io_init(f, opt->depth, err);
	if (r) {
		store_destroy(&f->store);
		return r;
	}
	*ret = &f->store;
	return 0;
}
