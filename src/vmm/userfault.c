/* SPDX-License-Identifier: Apache-2.0 */
/* userfaultfd on guest RAM (Linux Documentation/admin-guide/mm/userfaultfd.rst). */

#include "vmm/userfault.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "vmm/vm.h"

#define EXIT_MEMORY_LOST 13 /* as any error of the hypervisor */
#define STACK_SIZE (64 * 1024)

struct userfault {
	struct vm *vm;
	int fd;
	/* Of the watch on who serves the faults, with modes that give memory. */
	bool watched;
	int connection, stop_fd;
	pthread_t thread;
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
	for (unsigned i = 0; i < vm->mem.nregions; i++) {
		struct uffdio_register reg = {
			.range = {.start = (uintptr_t)vm->mem.region[i].host,
				  .len = vm->mem.region[i].size},
			.mode = register_modes(modes),
		};

		if (ioctl(fd, UFFDIO_REGISTER, &reg) < 0)
			return error_errno(err, -errno, "cannot register guest memory for faults");
	}
	return 0;
}

/*
 * Any thread of ours may be waiting in a fault, so this one touches no guest memory. Nobody
 * else can bring the memory: to let go of the faults would hand the guest zeros.
 */
static void *watch(void *arg)
{
	struct userfault *u = arg;
	struct pollfd p[] = {{.fd = u->connection, .events = POLLRDHUP},
			     {.fd = u->stop_fd, .events = POLLIN}};

	do {
		p[0].revents = p[1].revents = 0;
		if (poll(p, 2, -1) < 0 && errno != EINTR)
			break;
	} while (!p[0].revents && !p[1].revents);
	if (p[1].revents)
		return NULL;
	log_error(&u->vm->log, "userfault",
		  "who brings the guest's memory is gone before all of it was there: the VM ends");
	_exit(EXIT_MEMORY_LOST);
}

static int start_watch(struct userfault *u, int connection, struct error *err)
{
	pthread_attr_t attr;
	int r;

	u->connection = fcntl(connection, F_DUPFD_CLOEXEC, 0);
	u->stop_fd = eventfd(0, EFD_CLOEXEC);
	if (u->connection < 0 || u->stop_fd < 0)
		return error_errno(err, -errno, "watch on faults");
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	r = -pthread_create(&u->thread, &attr, watch, u);
	pthread_attr_destroy(&attr);
	u->watched = !r;
	return r ? error_errno(err, r, "watch on faults") : 0;
}

static void destroy(struct userfault *u)
{
	if (u->watched) {
		eventfd_write(u->stop_fd, 1);
		pthread_join(u->thread, NULL);
	}
	if (u->connection >= 0)
		close(u->connection);
	if (u->stop_fd >= 0)
		close(u->stop_fd);
	if (u->fd >= 0)
		close(u->fd);
	free(u);
}

int userfault_start(struct vm *vm, unsigned modes, int connection, struct error *err)
{
	struct userfault *u;
	int r, ret;

	if (vm->userfault)
		return error_set(err, -EBUSY, "faults are served already");
	u = calloc(1, sizeof(*u));
	if (!u)
		return error_errno(err, -ENOMEM, "userfault");
	*u = (struct userfault){.vm = vm, .connection = -1, .stop_fd = -1};
	u->fd = r = open_userfault(err);
	if (r >= 0)
		r = register_memory(vm, u->fd, modes, err);
	ret = r ? -1 : fcntl(u->fd, F_DUPFD_CLOEXEC, 0);
	if (!r && ret < 0)
		r = error_errno(err, -errno, "userfaultfd");
	if (!r && modes & (USERFAULT_MISSING | USERFAULT_MINOR))
		r = start_watch(u, connection, err);
	if (r) {
		if (ret >= 0)
			close(ret);
		destroy(u);
		return r;
	}
	if (!u->watched) {
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
	destroy(u);
}
