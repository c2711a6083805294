/* SPDX-License-Identifier: Apache-2.0 */
/* The file system device, served by a thread that plays the vhost-user program. */

#include <errno.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/error.h"
#include "lib/io.h"
#include "vmm/devices.h"
#include "vmm/test/guest-driver.h"

#define NEEDED (1ULL << 32 | 1ULL << 29 | 1ULL << 28)
#define PROTOCOL (1ULL << 30)
#define ACK (1ULL << 3)

/* How the program misbehaves. */
enum vice {
	NO_VICE,
	NO_FEATURES,
	NO_ACKS,
	CLOSES,	     /* at once */
	REFUSES,     /* memory */
	WRONG_REPLY, /* to the question for features */
};

struct head {
	uint32_t request, flags, size;
};

struct ring {
	uint16_t size, base;
	uint64_t desc, used, avail; /* addresses of the front end */
	int kick, call;
	bool enabled;
};

struct program {
	enum vice vice;
	int listener, fd;
	pthread_t thread;
	struct {
		uint64_t gpa, size, host, offset;
		uint8_t *map;
	} region[2];
	unsigned nregions;
	struct ring ring[2];
	uint64_t features;
	unsigned served;
};

struct fixture {
	struct guest guest;
	struct guest_device dev;
	struct program program;
	char path[64];
};

/* -------- the program -------- */

static void *at(struct program *p, uint64_t host, uint64_t n)
{
	for (unsigned i = 0; i < p->nregions; i++)
		if (host >= p->region[i].host && host - p->region[i].host + n <= p->region[i].size)
			return p->region[i].map + (host - p->region[i].host);
	return NULL;
}

static void *at_gpa(struct program *p, uint64_t gpa, uint64_t n)
{
	for (unsigned i = 0; i < p->nregions; i++)
		if (gpa >= p->region[i].gpa && gpa - p->region[i].gpa + n <= p->region[i].size)
			return p->region[i].map + (gpa - p->region[i].gpa);
	return NULL;
}

/* Each request: copies its first buffer to the second, upper case. */
static void serve(struct program *p, struct ring *r)
{
	struct vring_desc *desc = at(p, r->desc, r->size * sizeof(*desc));
	struct vring_avail *avail = at(p, r->avail, 4);
	struct vring_used *used = at(p, r->used, 4);
	eventfd_t count;

	eventfd_read(r->kick, &count);
	while (r->base != __atomic_load_n(&avail->idx, __ATOMIC_ACQUIRE)) {
		uint16_t head = avail->ring[r->base++ % r->size];
		struct vring_desc *in = &desc[head], *out = &desc[in->next];
		const char *from = at_gpa(p, in->addr, in->len);
		char *to = at_gpa(p, out->addr, out->len);

		for (uint32_t i = 0; i < in->len; i++)
			to[i] = from[i] >= 'a' && from[i] <= 'z' ? (char)(from[i] - 32) : from[i];
		used->ring[used->idx % r->size] =
			(struct vring_used_elem){.id = head, .len = in->len};
		__atomic_store_n(&used->idx, used->idx + 1, __ATOMIC_RELEASE);
		eventfd_write(r->call, 1);
		p->served++;
	}
}

static bool take(struct program *p, struct head *h, uint8_t body[256], int fds[2])
{
	struct iovec iov = {h, sizeof(*h)};
	char control[CMSG_SPACE(2 * sizeof(int))];
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = sizeof(control)};
	struct cmsghdr *c;

	fds[0] = fds[1] = -1;
	if (recvmsg(p->fd, &msg, MSG_WAITALL) != sizeof(*h) || h->size > 256)
		return false;
	c = CMSG_FIRSTHDR(&msg);
	if (c)
		memcpy(fds, CMSG_DATA(c), c->cmsg_len - CMSG_LEN(0));
	return !h->size || recv(p->fd, body, h->size, MSG_WAITALL) == (ssize_t)h->size;
}

static void reply(struct program *p, uint32_t request, const void *data, uint32_t n)
{
	struct head h = {request, 1 | 4, n};
	uint8_t out[64];

	memcpy(out, &h, sizeof(h));
	memcpy(out + sizeof(h), data, n);
	if (send(p->fd, out, sizeof(h) + n, MSG_NOSIGNAL) < 0)
		return;
}

static void set_memory(struct program *p, const uint8_t *body, const int fds[2])
{
	memcpy(&p->nregions, body, 4);
	for (unsigned i = 0; i < p->nregions; i++) {
		if (p->region[i].map)
			munmap(p->region[i].map, p->region[i].size);
		memcpy(&p->region[i], body + 8 + i * 32, 32);
		p->region[i].map = mmap(NULL, p->region[i].size, PROT_READ | PROT_WRITE, MAP_SHARED,
					fds[i], (off_t)p->region[i].offset);
		close(fds[i]);
	}
}

/* True when the answer was given already. */
static bool handle(struct program *p, const struct head *h, const uint8_t *body, const int *fds)
{
	uint64_t number = 0;
	uint32_t pair[2];
	struct ring *r;

	if (h->size >= 8)
		memcpy(&number, body, 8);
	memcpy(pair, &number, 8);
	r = &p->ring[number & 1];
	switch (h->request) {
	case 1:
		number = p->vice == NO_FEATURES ? PROTOCOL : NEEDED | PROTOCOL;
		reply(p, p->vice == WRONG_REPLY ? 2 : 1, &number, 8);
		return true;
	case 15:
		number = p->vice == NO_ACKS ? 0 : ACK;
		reply(p, 15, &number, 8);
		return true;
	case 2:
		p->features = number;
		break;
	case 5:
		set_memory(p, body, fds);
		break;
	case 8:
		p->ring[pair[0]].size = (uint16_t)pair[1];
		break;
	case 9:
		memcpy(&r->desc, body + 8, 8);
		memcpy(&r->used, body + 16, 8);
		memcpy(&r->avail, body + 24, 8);
		break;
	case 10:
		p->ring[pair[0]].base = (uint16_t)pair[1];
		break;
	case 11:
		r = &p->ring[pair[0]];
		pair[1] = r->base;
		r->enabled = false;
		close(r->kick);
		r->kick = -1;
		reply(p, 11, pair, 8);
		return true;
	case 12:
		r->kick = fds[0];
		break;
	case 13:
		if (r->call >= 0)
			close(r->call);
		r->call = fds[0];
		break;
	case 14:
		close(fds[0]);
		break;
	case 18:
		p->ring[pair[0]].enabled = pair[1];
		break;
	}
	return false;
}

static bool on_message(struct program *p)
{
	uint8_t body[256];
	struct head h;
	uint64_t code = 0;
	int fds[2];

	if (!take(p, &h, body, fds))
		return false;
	if (handle(p, &h, body, fds) || !(h.flags & 8))
		return true;
	code = p->vice == REFUSES && h.request == 5;
	reply(p, h.request, &code, 8);
	return true;
}

static void *program_run(void *arg)
{
	struct program *p = arg;

	p->fd = accept(p->listener, NULL, NULL);
	for (bool alive = p->vice != CLOSES; alive;) {
		struct pollfd fds[3] = {{.fd = p->fd, .events = POLLIN}};

		for (unsigned i = 0; i < 2; i++)
			fds[i + 1] = (struct pollfd){
				.fd = p->ring[i].enabled ? p->ring[i].kick : -1, .events = POLLIN};
		poll(fds, 3, -1);
		for (unsigned i = 0; i < 2; i++)
			if (fds[i + 1].revents)
				serve(p, &p->ring[i]);
		if (fds[0].revents)
			alive = on_message(p);
	}
	close(p->fd);
	return NULL;
}

/* -------- the tests -------- */

static int create(struct fixture *f, const char *tag, struct error *err)
{
	struct device_config cfg = {.desc = &fs_desc, .value = {tag, f->path}};
	struct device *dev;

	return fs_desc.create(&f->guest.vm, &cfg, &dev, err);
}

static void begin(struct fixture *f, enum vice vice)
{
	*f = (struct fixture){.program = {.vice = vice, .ring = {{.call = -1}, {.call = -1}}}};
	guest_create(&f->guest);
	snprintf(f->path, sizeof(f->path), "/tmp/test-fs.%d", getpid());
	f->program.listener = io_unix_listen(f->path, NULL);
	guest_require(f->program.listener >= 0);
	guest_require(!pthread_create(&f->program.thread, NULL, program_run, &f->program));
}

static void end(struct fixture *f)
{
	guest_destroy(&f->guest);
	pthread_join(f->program.thread, NULL);
	close(f->program.listener);
	unlink(f->path);
	for (unsigned i = 0; i < f->program.nregions; i++)
		munmap(f->program.region[i].map, f->program.region[i].size);
	for (unsigned i = 0; i < 2; i++)
		if (f->program.ring[i].call >= 0)
			close(f->program.ring[i].call);
}

static void begin_active(struct fixture *f)
{
	begin(f, NO_VICE);
	guest_require(!create(f, "home", NULL));
	guest_probe(&f->guest, VIRTIO_ID_FS, 0, &f->dev);
	guest_start(&f->dev, ~(1ULL << 28 | 1ULL << 29), 8);
}

/* A request and its answer through the program. */
static void ask(struct fixture *f, unsigned queue)
{
	struct guest_buf bufs[2] = {{guest_alloc(&f->guest, 8, 1), 5, false},
				    {guest_alloc(&f->guest, 8, 1), 5, true}};
	char *answer = guest_at(&f->guest, bufs[1].gpa, 5);

	memcpy(guest_at(&f->guest, bufs[0].gpa, 5), "hello", 5);
	memset(answer, 0, 5);
	assert_int_equal(guest_request(&f->dev.queue[queue], bufs, 2), 5);
	assert_memory_equal(answer, "HELLO", 5);
}

static void test_requests(void **state)
{
	struct fixture f;
	char tag[36] = "";

	begin_active(&f);
	for (unsigned i = 0; i < sizeof(tag); i++)
		tag[i] = (char)guest_read(&f.guest, f.dev.config + i, 1);
	assert_string_equal(tag, "home");
	assert_int_equal(guest_read(&f.guest, f.dev.config + 36, 4), 1);
	assert_int_equal(f.program.nregions, 2);
	for (unsigned i = 0; i < 20; i++)
		ask(&f, i % 2);
	assert_int_equal(f.program.served, 20);
	end(&f);
}

/* Pauses lose nothing; a driver that begins anew finds it as before. */
static void test_pause_and_reset(void **state)
{
	struct fixture f;
	struct device *dev;

	begin_active(&f);
	dev = f.guest.vm.devices[0];
	for (unsigned i = 0; i < 10; i++) {
		ask(&f, 1);
		assert_int_equal(dev->ops->pause(dev), 0);
		assert_false(f.program.ring[1].enabled);
		dev->ops->resume(dev);
	}
	guest_set_status(&f.dev, 0);
	assert_null(dev->ops->stays(dev));
	guest_start(&f.dev, ~(1ULL << 28 | 1ULL << 29), 16);
	ask(&f, 1);
	end(&f);
}

/* It is not saved while the guest has it: the program knows things that are nowhere else. */
static void test_stays(void **state)
{
	struct fixture f;
	const char *why;

	begin(&f, NO_VICE);
	assert_int_equal(create(&f, "home", NULL), 0);
	assert_null(f.guest.vm.devices[0]->ops->stays(f.guest.vm.devices[0]));
	guest_probe(&f.guest, VIRTIO_ID_FS, 0, &f.dev);
	guest_start(&f.dev, ~(1ULL << 28 | 1ULL << 29), 8);
	why = f.guest.vm.devices[0]->ops->stays(f.guest.vm.devices[0]);
	assert_non_null(why);
	assert_non_null(strstr(why, "share home"));
	end(&f);
}

/* While pages are tracked nobody sees which the program writes: all count. */
static void test_dirty(void **state)
{
	struct fixture f;
	static _Atomic uint64_t bitmap[GUEST_RAM / 4096 / 64];

	begin_active(&f);
	memset(bitmap, 0, sizeof(bitmap));
	f.guest.vm.mem.dirty = bitmap;
	guest_set_status(&f.dev, 0);
	for (unsigned i = 0; i < GUEST_RAM / 4096 / 64; i++)
		assert_int_equal(bitmap[i], UINT64_MAX);
	f.guest.vm.mem.dirty = NULL;
	end(&f);
}

static void test_program_dies(void **state)
{
	struct fixture f;

	begin_active(&f);
	ask(&f, 1);
	shutdown(f.program.fd, SHUT_RDWR);
	pthread_join(f.program.thread, NULL);
	guest_run(&f.guest);
	assert_true(guest_status(&f.dev) & 0x40); /* NEEDS_RESET */
	guest_set_status(&f.dev, 0);
	/* The device is gone for good, the VM is not. */
	assert_true(guest_negotiate(&f.dev, ~0ULL));
	f.program.thread = pthread_self();
	guest_destroy(&f.guest);
	close(f.program.listener);
	unlink(f.path);
}

static void test_refused(void **state)
{
	static const struct {
		enum vice vice;
		const char *why;
	} rows[] = {
		{NO_FEATURES, "lacks features"},
		{NO_ACKS, "does not acknowledge"},
		{CLOSES, "no answer by vhost-user"},
		{WRONG_REPLY, "no answer by vhost-user"},
	};

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct fixture f;
		struct error err;

		begin(&f, rows[i].vice);
		assert_int_not_equal(create(&f, "home", &err), 0);
		assert_non_null(strstr(err.text, rows[i].why));
		end(&f);
	}
}

static void test_refuses_memory(void **state)
{
	struct fixture f;

	begin(&f, REFUSES);
	assert_int_equal(create(&f, "home", NULL), 0);
	guest_probe(&f.guest, VIRTIO_ID_FS, 0, &f.dev);
	guest_start(&f.dev, ~0ULL, 8);
	assert_true(guest_status(&f.dev) & 0x40);
	end(&f);
}

static void test_configuration(void **state)
{
	struct fixture f;
	struct error err;

	begin(&f, NO_VICE);
	assert_int_equal(create(&f, "", &err), -EINVAL);
	assert_int_equal(create(&f, "a-name-that-is-longer-than-36-bytes-is", &err), -EINVAL);
	assert_non_null(strstr(err.text, "1 to 36 bytes"));
	assert_int_equal(create(&f, "a-name-that-has-just-36-bytes-in-it-", &err), 0);
	end(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_requests),       cmocka_unit_test(test_pause_and_reset),
		cmocka_unit_test(test_stays),	       cmocka_unit_test(test_dirty),
		cmocka_unit_test(test_program_dies),   cmocka_unit_test(test_refused),
		cmocka_unit_test(test_refuses_memory), cmocka_unit_test(test_configuration),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
