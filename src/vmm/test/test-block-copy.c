/* SPDX-License-Identifier: Apache-2.0 */
/* A disk that somebody else copies as it was at one moment, while the guest changes it. */

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "lib/cleanup.h"
#include "lib/io.h"
#include "lib/loop.h"
#include "vmm/block/before.h"
#include "vmm/block/store.h"
#include "vmm/device.h"
#include "vmm/test/block-fixture.h"

#define CLUSTERS (DISK_SIZE / BEFORE_CLUSTER)

static const int us, others; /* owners are told apart by their address */

static _Atomic bool hangs; /* as a file system whose server is away */

/* In place of the C library's. */
ssize_t pwrite(int fd, const void *buf, size_t n, off_t at)
{
	while (hangs)
		usleep(1000);
	return syscall(SYS_pwrite64, fd, buf, n, at);
}

struct copy {
	struct store *store;
	int disk, file;
	_Atomic uint8_t *state;
};

static struct store *store_of(struct fixture *f, int *fd)
{
	struct device_disk disk;

	assert_true(f->device->ops->disk(f->device, &disk));
	*fd = disk.fd;
	return disk.store;
}

static int new_file(void)
{
	int fd = memfd_create("copy", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert_true(fd >= 0 && !ftruncate(fd, DISK_SIZE));
	return fd;
}

static struct copy begin_copy(struct fixture *f)
{
	struct copy c = {.file = new_file()};
	struct error err;
	int shared;

	f->device->ops->pause(f->device);
	c.store = store_of(f, &c.disk);
	shared = store_copy_start(c.store, c.file, &us, &err);
	if (shared < 0)
		fail_msg("%s", err.text);
	c.state = mmap(NULL, CLUSTERS + 1, PROT_READ | PROT_WRITE, MAP_SHARED, shared, 0);
	assert_true(c.state != MAP_FAILED);
	f->device->ops->resume(f->device);
	return c;
}

/* What the other process does. */
static void *copy_rest(void *arg)
{
	static _Alignas(BEFORE_CLUSTER) uint8_t buf[BEFORE_CLUSTER];
	struct copy *c = arg;

	for (unsigned i = 0; i < CLUSTERS; i++) {
		off_t at = (off_t)i * BEFORE_CLUSTER;

		guest_require(pread(c->disk, buf, sizeof(buf), at) == sizeof(buf));
		if (c->state[i])
			continue;
		guest_require(pwrite(c->file, buf, sizeof(buf), at) == sizeof(buf));
		c->state[i] = 1;
	}
	return NULL;
}

static void end_copy(struct copy *c)
{
	munmap((void *)c->state, CLUSTERS + 1);
	close(c->file);
}

/* The copy has the pattern, and only it. */
static void assert_original(const struct copy *c)
{
	static uint8_t bytes[DISK_SIZE];

	assert_int_equal(pread(c->file, bytes, DISK_SIZE, 0), DISK_SIZE);
	for (unsigned i = 0; i < DISK_SIZE; i++)
		if (bytes[i] != pattern(i))
			fail_msg("byte %u of the copy is %u", i, bytes[i]);
}

static void write_at(struct fixture *f, uint64_t sector, uint32_t len, uint8_t value)
{
	memset(at(f, f->data), value, len);
	assert_int_equal(request(f, VIRTIO_BLK_T_OUT, sector, len, false), VIRTIO_BLK_S_OK);
}

static uint8_t byte_at(struct fixture *f, uint64_t sector)
{
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, sector, 512, true), VIRTIO_BLK_S_OK);
	return *(uint8_t *)at(f, f->data);
}

/* Whatever changes the disk, what was there is copied before; what only reads it, is not. */
static void keeps(struct fixture *f)
{
	struct copy c = begin_copy(f);
	uint64_t bytes;

	byte_at(f, 5 * 128);
	assert_int_equal(request(f, VIRTIO_BLK_T_FLUSH, 0, 0, false), VIRTIO_BLK_S_OK);
	write_at(f, 127, 1024, 0x5a); /* of two clusters */
	write_at(f, 127, 512, 0x5b);
	if (f->dev.features >> VIRTIO_BLK_F_WRITE_ZEROES & 1) {
		assert_int_equal(range_request(f, VIRTIO_BLK_T_WRITE_ZEROES, 3 * 128, 256, 1),
				 VIRTIO_BLK_S_OK);
		assert_int_equal(range_request(f, VIRTIO_BLK_T_DISCARD, 6 * 128, 8, 0),
				 VIRTIO_BLK_S_OK);
	} else {
		write_at(f, 3 * 128, 2 * BEFORE_CLUSTER, 0);
		write_at(f, 6 * 128, 4096, 0);
	}
	assert_int_equal(byte_at(f, 127), 0x5b);
	assert_int_equal(byte_at(f, 128), 0x5a);
	assert_int_equal(byte_at(f, 3 * 128 + 255), 0);
	for (unsigned i = 0; i < CLUSTERS; i++)
		assert_int_equal(c.state[i], i < 2 || i == 3 || i == 4 || i == 6);
	copy_rest(&c);
	write_at(f, 8 * 128, 512, 0x5c);
	assert_int_equal(store_copy_stop(c.store, &us, &bytes, NULL), 0);
	assert_int_equal(bytes, 5 * BEFORE_CLUSTER);
	write_at(f, 9 * 128, 512, 0x5d);
	assert_original(&c);
	end_copy(&c);
}

static void test_keeps(void **state)
{
	struct fixture *f = begin("");

	keeps(f);
	end(f);
}

static void test_keeps_direct(void **state)
{
	struct fixture *f = begin_in(".", ",cache=none", ~0ULL);

	keeps(f);
	end(f);
}

/* Zeros that are overwritten take no room in the copy. */
static void test_zeros(void **state)
{
	struct fixture *f = begin("");
	struct stat st;
	struct copy c;

	write_at(f, 0, BEFORE_CLUSTER, 0);
	c = begin_copy(f);
	write_at(f, 0, 512, 1);
	assert_int_equal(c.state[0], 1);
	assert_int_equal(fstat(c.file, &st), 0);
	assert_int_equal(st.st_blocks, 0);
	store_copy_gone(c.store, &us);
	end_copy(&c);
	end(f);
}

/* The guest writes all over the disk, again and again, while it is copied. */
static void test_race(void **state)
{
	struct fixture *f = begin("");
	pthread_t thread;
	struct copy c;
	uint64_t bytes;

	for (unsigned round = 0; round < 30; round++) {
		for (unsigned i = 0; i < DISK_SIZE / (128 << 10); i++) {
			for (unsigned k = 0; k < 128 << 10; k++)
				((uint8_t *)at(f, f->data))[k] = pattern(i * (128 << 10) + k);
			assert_int_equal(request(f, VIRTIO_BLK_T_OUT, i * 256, 128 << 10, false),
					 VIRTIO_BLK_S_OK);
		}
		c = begin_copy(f);
		assert_int_equal(pthread_create(&thread, NULL, copy_rest, &c), 0);
		for (unsigned i = 0; i < 60; i++)
			write_at(f, (i * 37 + round * 11) % (DISK_SECTORS - 8), 4096, (uint8_t)~i);
		pthread_join(thread, NULL);
		assert_int_equal(store_copy_stop(c.store, &us, &bytes, NULL), 0);
		assert_original(&c);
		end_copy(&c);
	}
	end(f);
}

/* Makes a write available, which is held when this returns. */
static void add_write(struct fixture *f, uint64_t sector)
{
	struct guest_buf bufs[] = {
		{f->header, 16, false}, {f->data, 512, false}, {f->status, 1, true}};

	put_header(f, VIRTIO_BLK_T_OUT, sector);
	memset(at(f, f->data), 0x77, 512);
	guest_add(f->q, bufs, 3);
	guest_kick(f->q);
	loop_run_once(f->guest.vm.loop, 0);
}

/* A pause and the end of who copies let nothing wait. */
static void test_held(void **state)
{
	struct fixture *f = begin("");
	struct copy c = begin_copy(f);
	struct virtq_used used;

	add_write(f, 0);
	f->device->ops->pause(f->device);
	assert_true(guest_used(f->q, &used));
	assert_int_equal(c.state[0], 1);
	f->device->ops->resume(f->device);
	add_write(f, 128);
	store_copy_gone(c.store, &others);
	assert_false(c.state[CLUSTERS]);
	store_copy_gone(c.store, &us);
	assert_true(guest_wait(f->q, &used));
	assert_int_equal(*(uint8_t *)at(f, f->status), VIRTIO_BLK_S_OK);
	assert_true(c.state[CLUSTERS]);
	assert_int_equal(byte_at(f, 128), 0x77);
	end_copy(&c);
	/* The next one may come, and ends with the disk. */
	c = begin_copy(f);
	end_copy(&c);
	end(f);
}

static void assert_written(struct fixture *f)
{
	struct virtq_used used;

	assert_true(guest_used(f->q, &used));
	assert_int_equal(*(uint8_t *)at(f, f->status), VIRTIO_BLK_S_OK);
}

/* The copy was given up, and says why. */
static void assert_late(struct copy *c)
{
	struct error err = {0};
	uint64_t bytes;

	assert_true(c->state[CLUSTERS]);
	assert_int_equal(store_copy_stop(c->store, &us, &bytes, &err), -ETIMEDOUT);
	assert_non_null(strstr(err.text, "waited 10 s"));
	end_copy(c);
}

/*
 * A copy that hangs costs the guest so much time and no more: a write that waits, and a pause of
 * all its disks together.
 */
static void test_hangs(void **state)
{
	struct fixture *f[3];
	struct copy c[3];
	uint64_t start = io_now_ns(), took;
	struct virtq_used used;
	unsigned i;

	for (i = 0; i < ARRAY_SIZE(f); i++) {
		f[i] = begin("");
		c[i] = begin_copy(f[i]);
		hangs = true;
		add_write(f[i], 0);
		add_write(f[i], 128 + 128 * i);
	}
	for (i = 1; i < ARRAY_SIZE(f); i++) {
		assert_false(guest_used(f[i]->q, &used));
		f[i]->device->ops->pause(f[i]->device);
		assert_written(f[i]);
		assert_written(f[i]);
	}
	assert_false(guest_used(f[0]->q, &used));
	assert_true(guest_wait(f[0]->q, &used));
	assert_true(guest_wait(f[0]->q, &used));
	took = io_now_ns() - start;
	assert_true(took >= BEFORE_PATIENCE_NS && took < 3 * BEFORE_PATIENCE_NS / 2);
	assert_int_equal(byte_at(f[0], 128), 0x77);
	hangs = false;
	for (i = 0; i < ARRAY_SIZE(f); i++) {
		assert_late(&c[i]);
		end(f[i]);
	}
}

/* A copy that cannot be written costs the guest nothing, and the copy is not taken for whole. */
static void test_fails(void **state)
{
	struct fixture *f = begin("");
	struct copy c = begin_copy(f);
	struct error err = {0};
	uint64_t bytes;

	assert_int_equal(fcntl(c.file, F_ADD_SEALS, F_SEAL_WRITE), 0);
	write_at(f, 0, 512, 0x11);
	assert_int_equal(byte_at(f, 0), 0x11);
	assert_true(c.state[CLUSTERS]);
	write_at(f, 128, 512, 0x12);
	assert_int_equal(store_copy_stop(c.store, &us, &bytes, &err), -EPERM);
	assert_non_null(strstr(err.text, f->path));
	assert_non_null(strstr(err.text, "could not be copied before"));
	end_copy(&c);
	end(f);
}

/* A peer that writes nonsense to what is shared spoils its own copy alone. */
static void test_nonsense(void **state)
{
	struct fixture *f = begin("");
	struct copy c = begin_copy(f);
	uint64_t bytes;

	for (unsigned i = 0; i < 200; i++) {
		for (unsigned k = 0; k <= CLUSTERS; k++)
			c.state[k] = (uint8_t)(i * k);
		write_at(f, i * 8, 4096, (uint8_t)i);
		assert_int_equal(byte_at(f, i * 8), i);
	}
	assert_int_equal(ftruncate(c.file, 0), 0);
	write_at(f, 1000, 512, 1);
	assert_int_equal(store_copy_stop(c.store, &us, &bytes, NULL), 0);
	end_copy(&c);
	end(f);
}

static void refused(struct fixture *f, int fd, const char *reason)
{
	struct error err = {0};
	int disk;

	assert_true(store_copy_start(store_of(f, &disk), fd, &us, &err) < 0);
	if (!strstr(err.text, reason))
		fail_msg("\"%s\" does not say \"%s\"", err.text, reason);
}

static void test_refused(void **state)
{
	struct fixture *f = begin("");
	char path[64];
	uint64_t bytes;
	struct copy c;
	int fd, pipes[2];

	CLEANUP_CLOSE int short_file = new_file();

	assert_int_equal(ftruncate(short_file, DISK_SIZE - 512), 0);
	refused(f, short_file, "no file of 1048576 bytes");
	assert_int_equal(pipe(pipes), 0);
	refused(f, pipes[1], "no file of");
	close(pipes[0]);
	close(pipes[1]);
	refused(f, -1, "Bad file descriptor");
	close(make_disk("/tmp", path, sizeof(path)));
	fd = open(path, O_RDONLY | O_CLOEXEC);
	refused(f, fd, "cannot be written");
	close(fd);
	fd = open(path, O_RDWR | O_APPEND | O_CLOEXEC);
	refused(f, fd, "cannot be written");
	close(fd);
	unlink(path);
	fd = open(f->path, O_RDWR | O_CLOEXEC);
	refused(f, fd, "its copy is the disk");
	close(fd);
	c = begin_copy(f);
	refused(f, c.file, "already");
	assert_int_equal(store_copy_stop(c.store, &others, &bytes, NULL), -ENOENT);
	assert_int_equal(store_copy_stop(c.store, &us, &bytes, NULL), 0);
	assert_int_equal(store_copy_stop(c.store, &us, &bytes, NULL), -ENOENT);
	end_copy(&c);
	end(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_keeps),	cmocka_unit_test(test_keeps_direct),
		cmocka_unit_test(test_zeros),	cmocka_unit_test(test_race),
		cmocka_unit_test(test_held),	cmocka_unit_test(test_hangs),
		cmocka_unit_test(test_fails),	cmocka_unit_test(test_nonsense),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests_name("block-copy", tests, NULL, NULL);
}
