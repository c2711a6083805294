/* SPDX-License-Identifier: Apache-2.0 */
/* Makes the file of guest RAM: of a tmpfs with huge pages, else a memfd. */

#include "vmm/ram-file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <linux/mount.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

#define THP "/sys/kernel/mm/transparent_hugepage/enabled"
#define PAGE_2M (2ULL << 20)
#define PAGE_1G (1ULL << 30)

static bool wants_huge(void)
{
	CLEANUP_FREE char *text = NULL;

	return io_read_file(THP, 256, &text, NULL) >= 0 && !strstr(text, "[never]");
}

static int set(int fs, const char *key, const char *value)
{
	return (int)syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, key, value, 0);
}

/* Nothing is attached anywhere: the tmpfs lives as long as the file. */
static int create_huge(void)
{
	CLEANUP_CLOSE int fs = (int)syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC);
	CLEANUP_CLOSE int mount = -1;
	CLEANUP_CLOSE int fd = -1;

	if (fs < 0 || set(fs, "huge", "always") || set(fs, "nr_blocks", "0") ||
	    set(fs, "mode", "0700") ||
	    syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0))
		return -errno;
	mount = (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC,
			     MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
	if (mount < 0)
		return -errno;
	fd = openat(mount, RAM_FILE_NAME, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 || unlinkat(mount, RAM_FILE_NAME, 0))
		return -errno;
	return take_fd(&fd);
}

static int create_memfd(uint64_t page_size)
{
	unsigned flags = MFD_CLOEXEC;
	int fd;

	if (page_size == PAGE_2M)
		flags |= MFD_HUGETLB | MFD_HUGE_2MB;
	if (page_size == PAGE_1G)
		flags |= MFD_HUGETLB | MFD_HUGE_1GB;
	fd = memfd_create(RAM_FILE_NAME, flags);
	return fd < 0 ? -errno : fd;
}

int ram_file_create(uint64_t size, uint64_t page_size, struct error *err)
{
	CLEANUP_CLOSE int fd = page_size == 4096 && wants_huge() ? create_huge() : -ENOTSUP;

	if (fd < 0)
		fd = create_memfd(page_size);
	if (fd < 0)
		return error_errno(err, fd, "cannot create guest memory");
	if (ftruncate(fd, (off_t)size) < 0)
		return error_errno(err, -errno, "cannot size guest memory to %llu MiB",
				   (unsigned long long)size >> 20);
	/* Huge pages are taken now: without a page a later access would be a SIGBUS. */
	if (page_size != 4096 && fallocate(fd, 0, 0, (off_t)size) < 0)
		return error_errno(err, -errno, "cannot allocate %llu MiB of huge pages",
				   (unsigned long long)size >> 20);
	return take_fd(&fd);
}
