/* SPDX-License-Identifier: Apache-2.0 */
/* The block device: data, each kind of request, each kind of bad one, both ways of doing I/O. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/loop.h"
#include "vmm/devices.h"
#include "vmm/test/block-fixture.h"

static void assert_pattern(struct fixture *f, uint64_t gpa, uint64_t offset, unsigned len)
{
	const uint8_t *p = at(f, gpa);

	for (unsigned i = 0; i < len; i++)
		if (p[i] != pattern(offset + i))
			fail_msg("byte %u of disk offset %llu is %u", i, (unsigned long long)offset,
				 p[i]);
}

static int broken(struct fixture *f)
{
	return guest_status(&f->dev) & VIRTIO_CONFIG_S_NEEDS_RESET;
}

static void read_write_flush(struct fixture *f)
{
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, 8, 128 << 10, true), VIRTIO_BLK_S_OK);
	assert_pattern(f, f->data, 4096, 128 << 10);
	memset(at(f, f->data), 0x5a, 8192);
	assert_int_equal(request(f, VIRTIO_BLK_T_OUT, 3, 8192, false), VIRTIO_BLK_S_OK);
	assert_int_equal(request(f, VIRTIO_BLK_T_FLUSH, 0, 0, false), VIRTIO_BLK_S_OK);
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, 0, 16384, true), VIRTIO_BLK_S_OK);
	assert_pattern(f, f->data, 0, 3 * 512);
	for (unsigned i = 0; i < 8192; i++)
		assert_int_equal(((uint8_t *)at(f, f->data))[3 * 512 + i], 0x5a);
	assert_pattern(f, f->data + 3 * 512 + 8192, 3 * 512 + 8192, 16384 - 8192 - 3 * 512);
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, DISK_SECTORS - 1, 512, true), VIRTIO_BLK_S_OK);
	assert_pattern(f, f->data, DISK_SIZE - 512, 512);
}

static void test_data(void **state)
{
	struct fixture *f = begin("");

	read_write_flush(f);
	end(f);
}

static void test_data_direct(void **state)
{
	struct fixture *f = begin_in(".", ",cache=none", ~0ULL);
	struct guest_buf odd[] = {
		{f->header, 16, false}, {f->data + 3, 1024, true}, {f->status, 1, true}};

	read_write_flush(f); /* has parts of blocks as well */
	/* Memory that O_DIRECT does not take. */
	put_header(f, VIRTIO_BLK_T_IN, 100);
	guest_request(f->q, odd, 3);
	assert_int_equal(*(uint8_t *)at(f, f->status), VIRTIO_BLK_S_OK);
	assert_pattern(f, f->data + 3, 51200, 1024);
	end(f);
}

/* Descriptors cut anywhere, header and status included (specification 2.7.4). */
static void test_any_layout(void **state)
{
	struct fixture *f = begin("");
	struct guest_buf bufs[] = {{f->header, 7, false},
				   {f->header + 7, 9, false},
				   {f->data, 100, true},
				   {f->data + 100, 412, true},
				   {f->data + 512, 1024 + 1, true}};
	struct guest_buf out[] = {{f->data - 16, 16 + 512, false}, {f->status, 1, true}};
	struct virtio_blk_outhdr hdr = {.type = VIRTIO_BLK_T_OUT, .sector = 9};

	put_header(f, VIRTIO_BLK_T_IN, 1);
	assert_int_equal(guest_request(f->q, bufs, 5), 1536 + 1);
	assert_pattern(f, f->data, 512, 1536);
	assert_int_equal(((uint8_t *)at(f, f->data))[1536], VIRTIO_BLK_S_OK);
	memcpy(at(f, f->data - 16), &hdr, 16);
	memset(at(f, f->data), 7, 512);
	guest_request(f->q, out, 2);
	assert_int_equal(*(uint8_t *)at(f, f->status), VIRTIO_BLK_S_OK);
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, 9, 512, true), VIRTIO_BLK_S_OK);
	assert_int_equal(((uint8_t *)at(f, f->data))[511], 7);
	end(f);
}

/* A queue full of requests with one kick; each carries its own sector. */
static void test_many(void **state)
{
	struct fixture *f = begin("");
	struct virtq_used used;

	for (unsigned i = 0; i < 16; i++) {
		uint64_t base = guest_alloc(&f->guest, 8192, 4096);
		struct virtio_blk_outhdr hdr = {.type = VIRTIO_BLK_T_IN, .sector = 8 * i};
		struct guest_buf bufs[] = {
			{base, 16, false}, {base + 4096, 4000 + 96, true}, {base + 16, 1, true}};

		memcpy(at(f, base), &hdr, 16);
		((uint8_t *)at(f, base))[16] = 0xee;
		guest_add(f->q, bufs, 3);
		f->header = i ? f->header : base;
	}
	guest_kick(f->q);
	for (unsigned i = 0; i < 16; i++) {
		assert_true(guest_wait(f->q, &used));
		assert_int_equal(used.written, 4097);
	}
	for (unsigned i = 0; i < 16; i++) {
		assert_int_equal(((uint8_t *)at(f, f->header + 8192 * i))[16], VIRTIO_BLK_S_OK);
		assert_pattern(f, f->header + 8192 * i + 4096, 4096 * i, 4096);
	}
	assert_true(guest_interrupts(&f->dev, 1) >= 1);
	end(f);
}

static void test_bad_requests(void **state)
{
	struct fixture *f = begin("");
	struct guest_buf short_header[] = {{f->header, 15, false}, {f->status, 1, true}};

	assert_int_equal(request(f, VIRTIO_BLK_T_IN, DISK_SECTORS, 512, true), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, DISK_SECTORS - 1, 1024, true),
			 VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, UINT64_MAX, 512, true), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(f, VIRTIO_BLK_T_OUT, UINT64_MAX / 512, 512, false),
			 VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, 0, 511, true), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, 0, 0, true), VIRTIO_BLK_S_OK);
	assert_int_equal(request(f, 99, 0, 512, true), VIRTIO_BLK_S_UNSUPP);
	put_header(f, VIRTIO_BLK_T_IN, 0);
	guest_request(f->q, short_header, 2);
	assert_int_equal(*(uint8_t *)at(f, f->status), VIRTIO_BLK_S_IOERR);
	assert_false(broken(f));
	/* Nothing of that reached the disk. */
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, 0, 256 << 10, true), VIRTIO_BLK_S_OK);
	assert_pattern(f, f->data, 0, 256 << 10);
	end(f);
}

static void test_no_status(void **state)
{
	struct fixture *f = begin("");
	struct guest_buf bufs[] = {{f->header, 16, false}};

	put_header(f, VIRTIO_BLK_T_FLUSH, 0);
	guest_add(f->q, bufs, 1);
	guest_kick(f->q);
	guest_run(&f->guest);
	assert_true(broken(f));
	/* A reset by the driver makes it whole. */
	guest_start(&f->dev, ~0ULL, 64);
	read_write_flush(f);
	end(f);
}

static void test_get_id(void **state)
{
	struct fixture *f = begin(",serial=disk-1");

	assert_int_equal(request(f, VIRTIO_BLK_T_GET_ID, 0, 20, true), VIRTIO_BLK_S_OK);
	assert_memory_equal(at(f, f->data), "disk-1\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20);
	memset(at(f, f->data), 1, 20);
	assert_int_equal(request(f, VIRTIO_BLK_T_GET_ID, 0, 4, true), VIRTIO_BLK_S_OK);
	assert_memory_equal(at(f, f->data), "disk\1\1", 6);
	end(f);
}

static void test_ranges(void **state)
{
	struct fixture *f = begin("");
	uint8_t *data = at(f, f->data);
	const uint32_t zero = VIRTIO_BLK_T_WRITE_ZEROES, discard = VIRTIO_BLK_T_DISCARD;
	struct stat before, after;

	if (!(f->dev.features >> VIRTIO_BLK_F_WRITE_ZEROES & 1)) {
		print_message("no holes in files of /tmp\n");
		end(f);
		skip();
		return;
	}
	assert_int_equal(stat(f->path, &before), 0);
	assert_int_equal(range_request(f, zero, 8, 16, 1), VIRTIO_BLK_S_OK);
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, 0, 32 * 512, true), VIRTIO_BLK_S_OK);
	assert_pattern(f, f->data, 0, 8 * 512);
	for (unsigned i = 8 * 512; i < 24 * 512; i++)
		assert_int_equal(data[i], 0);
	assert_pattern(f, f->data + 24 * 512, 24 * 512, 8 * 512);
	assert_int_equal(range_request(f, discard, 1024, 1024, 0), VIRTIO_BLK_S_OK);
	assert_int_equal(stat(f->path, &after), 0);
	assert_true(after.st_blocks <= before.st_blocks - 1024);
	assert_int_equal(after.st_size, DISK_SIZE);

	assert_int_equal(range_request(f, discard, DISK_SECTORS, 1, 0), VIRTIO_BLK_S_IOERR);
	assert_int_equal(range_request(f, discard, UINT64_MAX, 2, 0), VIRTIO_BLK_S_IOERR);
	assert_int_equal(range_request(f, zero, 0, UINT32_MAX, 0), VIRTIO_BLK_S_IOERR);
	assert_int_equal(range_request(f, zero, 0, 0, 0), VIRTIO_BLK_S_IOERR);
	assert_int_equal(range_request(f, discard, 0, 8, 1), VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(range_request(f, zero, 0, 8, 2), VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(request(f, discard, 0, 32, false), VIRTIO_BLK_S_IOERR);
	end(f);
}

/* Ranges are refused by a device whose driver did not negotiate them. */
static void test_ranges_not_negotiated(void **state)
{
	struct fixture *f = begin_in("/tmp", "", 0);

	assert_int_equal(range_request(f, VIRTIO_BLK_T_DISCARD, 0, 8, 0), VIRTIO_BLK_S_UNSUPP);
	read_write_flush(f); /* with durable writes: there is no flush feature either */
	end(f);
}

static void test_readonly(void **state)
{
	struct fixture *f = begin(",readonly");
	struct fixture second = {0};
	struct error err;

	assert_true(f->dev.features >> VIRTIO_BLK_F_RO & 1);
	assert_int_equal(request(f, VIRTIO_BLK_T_OUT, 0, 512, false), VIRTIO_BLK_S_IOERR);
	assert_int_equal(range_request(f, VIRTIO_BLK_T_DISCARD, 0, 8, 0), VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(request(f, VIRTIO_BLK_T_FLUSH, 0, 0, false), VIRTIO_BLK_S_OK);
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, 0, 4096, true), VIRTIO_BLK_S_OK);
	assert_pattern(f, f->data, 0, 4096);

	/* Readers share, a writer does not. */
	guest_create(&second.guest);
	memcpy(second.path, f->path, sizeof(f->path));
	assert_int_equal(create(&second, ",readonly", &err), 0);
	guest_destroy(&second.guest);
	guest_create(&second.guest);
	assert_int_equal(create(&second, "", &err), -EBUSY);
	assert_non_null(strstr(err.text, "used by another process"));
	assert_non_null(strstr(err.text, f->path));
	guest_destroy(&second.guest);
	free(second.cfg.text);
	end(f);
}

static void test_config(void **state)
{
	struct fixture *f = begin(",queues=3");
	uint64_t base = f->dev.config;

	assert_int_equal(guest_read(&f->guest, base, 8), DISK_SECTORS);
	assert_int_equal(
		guest_read(&f->guest, base + offsetof(struct virtio_blk_config, seg_max), 4), 254);
	assert_int_equal(
		guest_read(&f->guest, base + offsetof(struct virtio_blk_config, blk_size), 4), 512);
	assert_int_equal(f->dev.nqueues, 3);
	base += offsetof(struct virtio_blk_config, wce);
	assert_int_equal(guest_read(&f->guest, base, 1), 1);
	guest_write(&f->guest, base, 0, 1);
	assert_int_equal(guest_read(&f->guest, base, 1), 0);
	f->q = &f->dev.queue[2];
	read_write_flush(f); /* written through */
	guest_start(&f->dev, ~0ULL, 64);
	assert_int_equal(guest_read(&f->guest, base, 1), 1);
	end(f);
}

/* Requests in flight are finished by a pause and by a reset. */
static void test_pause(void **state)
{
	struct fixture *f = begin("");
	struct guest_buf bufs[] = {
		{f->header, 16, false}, {f->data, 128 << 10, true}, {f->status, 1, true}};
	struct virtq_used used;

	put_header(f, VIRTIO_BLK_T_IN, 0);
	guest_add(f->q, bufs, 3);
	guest_kick(f->q);
	loop_run_once(f->guest.vm.loop, 0);
	assert_int_equal(f->device->ops->pause(f->device), 0);
	assert_true(guest_used(f->q, &used));
	assert_pattern(f, f->data, 0, 128 << 10);
	guest_add(f->q, bufs, 3);
	guest_kick(f->q);
	guest_run(&f->guest);
	assert_false(guest_used(f->q, &used));
	f->device->ops->resume(f->device);
	assert_true(guest_wait(f->q, &used));
	guest_add(f->q, bufs, 3);
	guest_kick(f->q);
	loop_run_once(f->guest.vm.loop, 0);
	guest_set_status(&f->dev, 0);
	guest_run(&f->guest);
	guest_start(&f->dev, ~0ULL, 64);
	read_write_flush(f);
	end(f);
}

/* The file shrinks under us: an error for the guest, not for the process. */
static void test_truncated(void **state)
{
	struct fixture *f = begin("");

	assert_int_equal(truncate(f->path, 4096), 0);
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, 4, 4096, true), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, 4, 2048, true), VIRTIO_BLK_S_OK);
	end(f);
}

/* n pieces of 1 MiB, all the same memory, from the start of the disk. */
static void add_read(struct fixture *f, unsigned n, uint64_t data)
{
	struct guest_buf bufs[20] = {{f->header, 16, false}};

	put_header(f, VIRTIO_BLK_T_IN, 0);
	for (unsigned i = 1; i <= n; i++)
		bufs[i] = (struct guest_buf){data, 1 << 20, true};
	bufs[n + 1] = (struct guest_buf){f->status, 1, true};
	guest_add(f->q, bufs, n + 2);
}

/* What one turn may copy has an end: a request above 16 MiB is refused, more wait. */
static void test_large(void **state)
{
	struct fixture *f = begin_sized(32 << 20);
	struct virtio *dev = container_of(f->device, struct virtio, device);
	uint64_t data = guest_alloc(&f->guest, 1 << 20, 4096), kicks;
	struct virtq_used used;

	add_read(f, 17, data);
	guest_kick(f->q);
	assert_true(guest_wait(f->q, &used));
	assert_int_equal(*(uint8_t *)at(f, f->status), VIRTIO_BLK_S_IOERR);
	add_read(f, 16, data);
	guest_kick(f->q);
	assert_true(guest_wait(f->q, &used));
	assert_int_equal(*(uint8_t *)at(f, f->status), VIRTIO_BLK_S_OK);
	guest_run(&f->guest);
	kicks = dev->queue[0].kicks;
	add_read(f, 9, data);
	add_read(f, 9, data);
	add_read(f, 9, data);
	guest_kick(f->q);
	for (unsigned i = 0; i < 3; i++)
		assert_true(guest_wait(f->q, &used));
	guest_run(&f->guest);
	assert_int_equal(dev->queue[0].kicks, kicks + 2);
	end(f);
}

static void refused(const char *path, const char *options, const char *reason)
{
	struct fixture f = {0};
	struct error err = {0};

	guest_create(&f.guest);
	snprintf(f.path, sizeof(f.path), "%s", path);
	assert_true(create(&f, options, &err) < 0);
	if (!strstr(err.text, reason))
		fail_msg("\"%s\" does not say \"%s\"", err.text, reason);
	guest_destroy(&f.guest);
	free(f.cfg.text);
}

static void test_refused(void **state)
{
	char path[64];

	close(make_disk("/tmp", path, sizeof(path)));
	assert_int_equal(truncate(path, 1000), 0);
	refused(path, "", "1000 bytes, which is not a multiple of 512");
	assert_int_equal(truncate(path, 0), 0);
	refused(path, "", "0 bytes");
	refused(path, ",cache=unsafe", "cache=unsafe");
	refused(path, ",serial=0123456789012345678901", "longer than 20");
	refused(path, ",queues=9", "queues");
	unlink(path);
	refused(path, "", "No such file");
	refused("/tmp", "", "neither a file nor a block device");
	refused("/dev/null", "", "neither a file nor a block device");
}

/* Takes io_uring away from this process, as containers do. */
static void forbid_io_uring(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {ARRAY_SIZE(filter), filter};

	guest_require(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	guest_require(!prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog));
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_data),
		cmocka_unit_test(test_data_direct),
		cmocka_unit_test(test_any_layout),
		cmocka_unit_test(test_many),
		cmocka_unit_test(test_bad_requests),
		cmocka_unit_test(test_no_status),
		cmocka_unit_test(test_get_id),
		cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_ranges_not_negotiated),
		cmocka_unit_test(test_readonly),
		cmocka_unit_test(test_config),
		cmocka_unit_test(test_pause),
		cmocka_unit_test(test_truncated),
		cmocka_unit_test(test_large),
		cmocka_unit_test(test_refused),
	};

	if (argc > 1 && !strcmp(argv[1], "--no-io-uring"))
		forbid_io_uring();
	return cmocka_run_group_tests_name("block", tests, NULL, NULL);
}
