/* SPDX-License-Identifier: Apache-2.0 */
/* The entropy device. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <linux/virtio_ids.h>

#include "vmm/devices.h"
#include "vmm/test/guest-driver.h"

struct fixture {
	struct guest guest;
	struct guest_device dev;
};

static void begin(struct fixture *f)
{
	const struct device_config cfg = {.desc = &rng_desc};
	struct device *dev;

	guest_create(&f->guest);
	guest_require(!rng_desc.create(&f->guest.vm, &cfg, &dev, NULL));
	guest_probe(&f->guest, VIRTIO_ID_RNG, 0, &f->dev);
	guest_start(&f->dev, ~0ULL, 0);
}

static void test_fill(void **state)
{
	struct fixture f;
	struct guest_buf bufs[2];
	uint8_t first[100];

	begin(&f);
	assert_int_equal(f.dev.config_size, 0);
	bufs[0] = (struct guest_buf){guest_alloc(&f.guest, 64, 1), 64, true};
	bufs[1] = (struct guest_buf){guest_alloc(&f.guest, 36, 1), 36, true};
	assert_int_equal(guest_request(&f.dev.queue[0], bufs, 2), 100);
	memcpy(first, guest_at(&f.guest, bufs[0].gpa, 100), 100);
	assert_int_equal(guest_request(&f.dev.queue[0], bufs, 2), 100);
	assert_memory_not_equal(first, guest_at(&f.guest, bufs[0].gpa, 100), 100);
	assert_int_equal(guest_interrupts(&f.dev, 1), 2);
	guest_destroy(&f.guest);
}

/* One request gives at most 64 KiB; many large ones are served in turns. */
static void test_large(void **state)
{
	struct fixture f;
	struct guest_queue *q = &f.dev.queue[0];
	struct guest_buf buf = {0, 1 << 20, true};
	struct virtq_used used;

	begin(&f);
	buf.gpa = guest_alloc(&f.guest, buf.len, 4096);
	for (unsigned i = 0; i < 8; i++)
		guest_add(q, &buf, 1);
	guest_kick(q);
	for (unsigned i = 0; i < 8; i++) {
		assert_true(guest_wait(q, &used));
		assert_int_equal(used.written, 64 << 10);
	}
	/* A readable buffer is answered with nothing. */
	buf.write = false;
	assert_int_equal(guest_request(q, &buf, 1), 0);
	guest_destroy(&f.guest);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fill),
		cmocka_unit_test(test_large),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
