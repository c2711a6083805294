/* SPDX-License-Identifier: Apache-2.0 */
/* userfaultfd on guest RAM (Linux Documentation/admin-guide/mm/userfaultfd.rst). */

#include "vmm/userfault.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "vmm/userfault-watch.h"
#include "vmm/vm.h"

struct userfault {
	struct vm *vm;
	int fd;
	struct userfault_watch *watch; /* with modes that give memory */
};

/* The device gives it to whoever may open it; the system call needs a capability or the sysctl. */
static int open_userfault(struct error *err)
{
	CLEANUP_CLOSE int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	int fd = -1;

	if (device >= 0)
		fd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 && errno == EPERM)
		return error_set(err, -EPERM,
				 "this user may not serve faults of the kernel: give it "
				 "/dev/userfaultfd, or set vm.unprivileged_userfaultfd=1");
	return fd < 0 ? error_errno(err, -errno, "no userfaultfd in this kernel") : fd;
}

static uint64_t features_of(unsigned modes, bool huge)
{
	uint64_t f = 0;

	if (modes & (USERFAULT_MISSING | USERFAULT_MINOR)) /* who waits is told for each fault */
		f |= UFFD_FEATURE_THREAD_ID;
	if (modes & USERFAULT_MISSING)
		f |= huge ? UFFD_FEATURE_MISSING_HUGETLBFS : UFFD_FEATURE_MISSING_SHMEM;
	if (modes & USERFAULT_MINOR)
		f |= huge ? UFFD_FEATURE_MINOR_HUGETLBFS : UFFD_FEATURE_MINOR_SHMEM;
	if (modes & USERFAULT_WP)
		f |= UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
	return f;
}

static uint64_t register_modes(unsigned modes)
{
	return (modes & USERFAULT_MISSING ? UFFDIO_REGISTER_MODE_MISSING : 0) |
	       (modes & USERFAULT_MINOR ? UFFDIO_REGISTER_MODE_MINOR : 0) |
	       (modes & USERFAULT_WP ? UFFDIO_REGISTER_MODE_WP : 0);
}

static int register_memory(const struct vm *vm, int fd, unsigned modes, struct error *err)
{
	struct uffdio_api api = {.api = UFFD_API,
				 .features = features_of(modes, vm->mem.page_size != 4096)};

	if (ioctl(fd, UFFDIO_API, &api) < 0)
		return error_errno(
			err, -errno,
			"this kernel cannot serve such faults (features "
			"0x%llx)",
			(unsigned long long)features_of(modes, vm->mem.page_size != 4096));
	/*
	 * Kernels before Linux 6.4 put huge pages together that have holes, and fill those with
	 * zeros without a fault (khugepaged).
	 */
	memory_want_huge(&vm->mem, false);
	for (unsigned i = 0; i < vm->mem.nregions; i++) {
		struct uffdio_register reg = {
			.range = {.start = (uintptr_t)vm->mem.region[i].host,
				  .len = vm->mem.region[i].size},
			.mode = register_modes(modes),
		};

		if (ioctl(fd, UFFDIO_REGISTER, &reg) < 0)
			return error_errno(err, -errno, "cannot register guest memory for faults");
		/* What is mapped does not fault: the memory stays, in the memfd. */
		if (modes & USERFAULT_MINOR &&
		    madvise(vm->mem.region[i].host, vm->mem.region[i].size, MADV_DONTNEED) < 0)
			return error_errno(err, -errno,
					   "this kernel cannot unmap huge pages "
					   "(Linux 5.18)");
	}
	return 0;
}

static void destroy(struct userfault *u)
{
	userfault_watch_stop(u->watch);
	if (u->fd >= 0)
		close(u->fd);
	free(u);
}

int userfault_start(struct vm *vm, unsigned modes, int connection, unsigned hold_ms,
		    struct error *err)
{
	struct userfault *u;
	int r, ret;

	if (vm->userfault)
		return error_set(err, -EBUSY, "faults are served already");
	u = calloc(1, sizeof(*u));
	if (!u)
		return error_errno(err, -ENOMEM, "userfault");
	*u = (struct userfault){.vm = vm, .fd = -1};
	u->fd = r = open_userfault(err);
	if (r >= 0)
		r = register_memory(vm, u->fd, modes, err);
	ret = r ? -1 : fcntl(u->fd, F_DUPFD_CLOEXEC, 0);
	if (!r && ret < 0)
		r = error_errno(err, -errno, "userfaultfd");
	if (!r && modes & (USERFAULT_MISSING | USERFAULT_MINOR))
		r = userfault_watch_start(vm, u->fd, connection, hold_ms, &u->watch, err);
	if (r) {
		if (ret >= 0)
			close(ret);
		destroy(u);
		return r;
	}
	if (!u->watch) {
		/* Who protects pages holds the only copies: with him the protection ends. */
		destroy(u);
		return ret;
	}
	vm->userfault = u;
	return ret;
}

void userfault_stop(struct vm *vm)
{
	struct userfault *u = vm->userfault;

	if (!u)
		return;
	vm->userfault = NULL;
	for (unsigned i = 0; i < vm->mem.nregions; i++) {
		struct uffdio_range range = {.start = (uintptr_t)vm->mem.region[i].host,
					     .len = vm->mem.region[i].size};

		ioctl(u->fd, UFFDIO_UNREGISTER, &range);
	}
	memory_want_huge(&vm->mem, true);
	destroy(u);
}
