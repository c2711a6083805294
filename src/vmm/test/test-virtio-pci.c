/* SPDX-License-Identifier: Apache-2.0 */
/* The virtio transport: registers, the order of things, kicks, reset, saved state. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "vmm/pci/msix.h"
#include "vmm/test/echo.h"
#include "vmm/test/guest-driver.h"

#define OURS                                                            \
	(1ULL << VIRTIO_F_VERSION_1 | 1ULL << VIRTIO_RING_F_EVENT_IDX | \
	 1ULL << VIRTIO_RING_F_INDIRECT_DESC | ECHO_FEATURES)
#define ACK VIRTIO_CONFIG_S_ACKNOWLEDGE
#define DRIVER VIRTIO_CONFIG_S_DRIVER
#define FEATURES_OK VIRTIO_CONFIG_S_FEATURES_OK
#define DRIVER_OK VIRTIO_CONFIG_S_DRIVER_OK
#define NEEDS_RESET VIRTIO_CONFIG_S_NEEDS_RESET

struct fixture {
	struct guest guest;
	struct echo *echo;
	struct guest_device dev;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	guest_create(&f->guest);
	f->echo = echo_create(&f->guest.vm);
	guest_probe(&f->guest, ECHO_ID, 0, &f->dev);
	f->guest.vm.log.level = -1; /* the tests break things on purpose */
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	guest_destroy(&f->guest);
	free(f);
	return 0;
}

static void put(struct fixture *f, unsigned reg, uint64_t value, unsigned len)
{
	guest_write(&f->guest, f->dev.common + reg, value, len);
}

static uint64_t get(struct fixture *f, unsigned reg, unsigned len)
{
	return guest_read(&f->guest, f->dev.common + reg, len);
}

static void add_echo(struct fixture *f, unsigned queue)
{
	struct guest_buf bufs[] = {{guest_alloc(&f->guest, 4, 1), 4, false},
				   {guest_alloc(&f->guest, 4, 1), 4, true}};

	guest_add(&f->dev.queue[queue], bufs, 2);
}

static void test_identity(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(guest_config_read(&f->guest, 1, PCI_VENDOR_ID, 4),
			 0x1af4 | (0x1040 + ECHO_ID) << 16);
	assert_int_equal(guest_config_read(&f->guest, 1, PCI_REVISION_ID, 1), 1);
	assert_int_equal(f->dev.nvectors, 3);
	assert_int_equal(f->dev.nqueues, 2);
	assert_int_equal(f->dev.notify_multiplier, 4);
	assert_int_equal(f->dev.config_size, 12);
	assert_true(f->dev.window);
	assert_int_equal(get(f, VIRTIO_PCI_COMMON_NUMQ, 2), 2);
}

static void test_features(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(guest_offered(&f->dev), OURS);
	put(f, VIRTIO_PCI_COMMON_DFSELECT, 2, 4);
	assert_int_equal(get(f, VIRTIO_PCI_COMMON_DF, 4), 0);
	put(f, VIRTIO_PCI_COMMON_DFSELECT, 0xffffffff, 4);
	assert_int_equal(get(f, VIRTIO_PCI_COMMON_DF, 4), 0);
	put(f, VIRTIO_PCI_COMMON_GFSELECT, 2, 4);
	put(f, VIRTIO_PCI_COMMON_GF, 0xffffffff, 4);
	assert_int_equal(get(f, VIRTIO_PCI_COMMON_GF, 4), 0);
	assert_int_equal(f->echo->virtio.features, 0);
	assert_true(guest_negotiate(&f->dev, ~0ULL));
	assert_int_equal(f->echo->virtio.features, OURS);
	/* Final now. */
	put(f, VIRTIO_PCI_COMMON_GFSELECT, 0, 4);
	put(f, VIRTIO_PCI_COMMON_GF, 0, 4);
	assert_int_equal(f->echo->virtio.features, OURS);
}

static bool try_features(struct fixture *f, uint64_t features)
{
	guest_set_status(&f->dev, 0);
	guest_set_status(&f->dev, ACK);
	guest_set_status(&f->dev, ACK | DRIVER);
	for (unsigned i = 0; i < 2; i++) {
		put(f, VIRTIO_PCI_COMMON_GFSELECT, i, 4);
		put(f, VIRTIO_PCI_COMMON_GF, (uint32_t)(features >> 32 * i), 4);
	}
	guest_set_status(&f->dev, ACK | DRIVER | FEATURES_OK);
	return guest_status(&f->dev) & FEATURES_OK;
}

static void test_features_refused(void **state)
{
	struct fixture *f = *state;

	assert_false(try_features(f, 0)); /* no VERSION_1 */
	assert_false(try_features(f, OURS | 2));
	assert_false(try_features(f, OURS | 1ULL << 63));
	assert_false(try_features(f, OURS | 1ULL << VIRTIO_F_RING_PACKED));
	/* Not by going on, either. */
	guest_set_status(&f->dev, ACK | DRIVER | FEATURES_OK | DRIVER_OK);
	assert_int_equal(guest_status(&f->dev), ACK | DRIVER);
	assert_int_equal(f->echo->activations, 0);
	assert_true(try_features(f, 1ULL << VIRTIO_F_VERSION_1));
}

static void test_status_order(void **state)
{
	struct fixture *f = *state;

	guest_set_status(&f->dev, 0);
	guest_set_status(&f->dev, DRIVER);
	assert_int_equal(guest_status(&f->dev), 0);
	guest_set_status(&f->dev, DRIVER_OK);
	assert_int_equal(guest_status(&f->dev), 0);
	guest_set_status(&f->dev, ACK);
	guest_set_status(&f->dev, ACK | FEATURES_OK);
	assert_int_equal(guest_status(&f->dev), ACK);
	guest_set_status(&f->dev, ACK | DRIVER | NEEDS_RESET);
	assert_int_equal(guest_status(&f->dev), ACK | DRIVER);
	/* Bits do not go away one by one. */
	guest_set_status(&f->dev, ACK);
	assert_int_equal(guest_status(&f->dev), ACK | DRIVER);
	guest_set_status(&f->dev, VIRTIO_CONFIG_S_FAILED);
	assert_int_equal(guest_status(&f->dev), ACK | DRIVER | VIRTIO_CONFIG_S_FAILED);
	guest_set_status(&f->dev, 0);
	assert_int_equal(guest_status(&f->dev), 0);
	assert_int_equal(f->echo->activations + f->echo->deactivations, 0);
}

static void test_queue_registers(void **state)
{
	struct fixture *f = *state;

	/* Nothing can be set up before the features are agreed on. */
	put(f, VIRTIO_PCI_COMMON_Q_SELECT, 0, 2);
	put(f, VIRTIO_PCI_COMMON_Q_SIZE, 8, 2);
	put(f, VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
	assert_int_equal(get(f, VIRTIO_PCI_COMMON_Q_SIZE, 2), ECHO_QUEUE_SIZE);
	assert_int_equal(get(f, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
	assert_true(guest_negotiate(&f->dev, ~0ULL));
	for (unsigned bad = 0; bad <= 512; bad += bad ? 171 : 3)
		put(f, VIRTIO_PCI_COMMON_Q_SIZE, bad, 2);
	put(f, VIRTIO_PCI_COMMON_Q_SIZE, 512, 2);
	assert_int_equal(get(f, VIRTIO_PCI_COMMON_Q_SIZE, 2), ECHO_QUEUE_SIZE);
	put(f, VIRTIO_PCI_COMMON_Q_SIZE, 8, 2);
	put(f, VIRTIO_PCI_COMMON_Q_DESCLO, 0x11223344, 4);
	put(f, VIRTIO_PCI_COMMON_Q_DESCHI, 0x55667788, 4);
	assert_int_equal(f->echo->virtio.queue[0].desc, 0x5566778811223344);
	assert_int_equal(get(f, VIRTIO_PCI_COMMON_Q_DESCHI, 4), 0x55667788);
	/* A register has one width. */
	put(f, VIRTIO_PCI_COMMON_Q_DESCLO, 0, 2);
	put(f, VIRTIO_PCI_COMMON_Q_DESCLO, 0, 8);
	put(f, VIRTIO_PCI_COMMON_Q_DESCLO + 1, 0, 4);
	assert_int_equal(get(f, VIRTIO_PCI_COMMON_Q_DESCLO, 4), 0x11223344);
	assert_int_equal(get(f, VIRTIO_PCI_COMMON_Q_DESCLO, 1), 0);
	/* Vectors that do not exist become none. */
	put(f, VIRTIO_PCI_COMMON_Q_MSIX, 3, 2);
	assert_int_equal(get(f, VIRTIO_PCI_COMMON_Q_MSIX, 2), 0xffff);
	put(f, VIRTIO_PCI_COMMON_Q_MSIX, 2, 2);
	assert_int_equal(get(f, VIRTIO_PCI_COMMON_Q_MSIX, 2), 2);
	put(f, VIRTIO_PCI_COMMON_MSIX, 0x1234, 2);
	assert_int_equal(get(f, VIRTIO_PCI_COMMON_MSIX, 2), 0xffff);
	/* Enabled is enabled. */
	put(f, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 2);
	assert_int_equal(get(f, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
	put(f, VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
	put(f, VIRTIO_PCI_COMMON_Q_ENABLE, 0, 2);
	put(f, VIRTIO_PCI_COMMON_Q_SIZE, 16, 2);
	put(f, VIRTIO_PCI_COMMON_Q_DESCLO, 0, 4);
	assert_int_equal(get(f, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 1);
	assert_int_equal(get(f, VIRTIO_PCI_COMMON_Q_SIZE, 2), 8);
	assert_int_equal(get(f, VIRTIO_PCI_COMMON_Q_DESCLO, 4), 0x11223344);
	/* Queues that do not exist. */
	for (unsigned q = 2; q <= 0xffff; q = q * 2 + 1) {
		put(f, VIRTIO_PCI_COMMON_Q_SELECT, q, 2);
		assert_int_equal(get(f, VIRTIO_PCI_COMMON_Q_SIZE, 2), 0);
		put(f, VIRTIO_PCI_COMMON_Q_SIZE, 8, 2);
		put(f, VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
		put(f, VIRTIO_PCI_COMMON_Q_DESCLO, 0x1000, 4);
		put(f, VIRTIO_PCI_COMMON_Q_MSIX, 1, 2);
		assert_int_equal(get(f, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
		assert_int_equal(get(f, VIRTIO_PCI_COMMON_Q_DESCLO, 4), 0);
		guest_write(&f->guest, f->dev.notify + 4 * q % 0x1000, 0, 2);
	}
}

static void test_bad_rings(void **state)
{
	static const struct {
		unsigned reg;
		uint64_t gpa;
	} bad[] = {
		{VIRTIO_PCI_COMMON_Q_DESCLO, 0x1008},
		{VIRTIO_PCI_COMMON_Q_DESCLO, GUEST_LOW - 16},
		{VIRTIO_PCI_COMMON_Q_DESCLO, 0xfffffffffffffff0},
		{VIRTIO_PCI_COMMON_Q_AVAILLO, 0x1001},
		{VIRTIO_PCI_COMMON_Q_AVAILLO, GUEST_LOW - 4},
		{VIRTIO_PCI_COMMON_Q_USEDLO, 0x1002},
		{VIRTIO_PCI_COMMON_Q_USEDLO, 0xfee00000},
	};
	struct fixture *f = *state;

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_true(guest_negotiate(&f->dev, ~0ULL));
		guest_setup_queue(&f->dev, 1, 0);
		put(f, VIRTIO_PCI_COMMON_Q_SELECT, 0, 2);
		for (unsigned reg = VIRTIO_PCI_COMMON_Q_DESCLO; reg <= VIRTIO_PCI_COMMON_Q_USEDLO;
		     reg += 8)
			put(f, reg, 0x10000 * reg, 4);
		put(f, bad[i].reg, (uint32_t)bad[i].gpa, 4);
		put(f, bad[i].reg + 4, bad[i].gpa >> 32, 4);
		put(f, VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
		guest_set_status(&f->dev, ACK | DRIVER | FEATURES_OK | DRIVER_OK);
		assert_int_equal(guest_status(&f->dev),
				 ACK | DRIVER | FEATURES_OK | DRIVER_OK | NEEDS_RESET);
		assert_int_equal(f->echo->activations, 0);
	}
}

static void test_activate_fails(void **state)
{
	struct fixture *f = *state;

	f->echo->fail_activate = true;
	guest_start(&f->dev, ~0ULL, 0);
	assert_true(guest_status(&f->dev) & NEEDS_RESET);
	f->echo->fail_activate = false;
	guest_start(&f->dev, ~0ULL, 0);
	assert_false(guest_status(&f->dev) & NEEDS_RESET);
	assert_int_equal(f->echo->activations, 1);
	assert_int_equal(f->echo->deactivations, 0);
}

static void test_reset(void **state)
{
	struct fixture *f = *state;
	struct virtio *dev = &f->echo->virtio;

	guest_start(&f->dev, ~0ULL, 8);
	assert_true(dev->active);
	add_echo(f, 0);
	guest_kick(&f->dev.queue[0]);
	guest_set_status(&f->dev, 0);
	/* Synchronous, and the kick that was on its way is gone. */
	assert_false(dev->active);
	assert_int_equal(f->echo->deactivations, 1);
	guest_run(&f->guest);
	assert_int_equal(f->echo->kicks, 0);
	assert_int_equal(dev->features, 0);
	assert_int_equal(dev->queue[0].size, ECHO_QUEUE_SIZE);
	assert_int_equal(dev->queue[0].desc, 0);
	assert_int_equal(get(f, VIRTIO_PCI_COMMON_MSIX, 2), 0xffff);
	assert_int_equal(get(f, VIRTIO_PCI_COMMON_Q_MSIX, 2), 0xffff);
	guest_start(&f->dev, ~0ULL, 8);
	add_echo(f, 0);
	guest_kick(&f->dev.queue[0]);
	guest_run(&f->guest);
	assert_int_equal(f->echo->virtio.queue[0].requests, 1);
}

/* A kick before DRIVER_OK is neither lost nor served early. */
static void test_early_kick(void **state)
{
	struct fixture *f = *state;
	struct virtq_used used;

	assert_true(guest_negotiate(&f->dev, ~0ULL));
	guest_setup_queue(&f->dev, 0, 8);
	add_echo(f, 0);
	guest_kick_always(&f->dev.queue[0]);
	guest_run(&f->guest);
	assert_int_equal(f->echo->kicks, 0);
	guest_set_status(&f->dev, ACK | DRIVER | FEATURES_OK | DRIVER_OK);
	assert_true(guest_wait(&f->dev.queue[0], &used));
	assert_int_equal(used.written, 4);
	/* The second queue was not enabled: nothing happens there. */
	guest_write(&f->guest, f->dev.notify + 4, 1, 2);
	guest_run(&f->guest);
	assert_int_equal(f->echo->kicks, 1);
}

/* Without ioeventfds kicks arrive as exits. */
static void test_kick_by_exit(void **state)
{
	struct fixture *f = *state;
	struct virtq_used used;

	guest_config_write(&f->guest, 1, PCI_COMMAND, 0, 2);
	assert_int_equal(f->guest.nioeventfds, 0);
	f->guest.no_ioeventfd = true;
	guest_config_write(&f->guest, 1, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
	guest_start(&f->dev, ~0ULL, 8);
	add_echo(f, 0);
	assert_true(guest_kick(&f->dev.queue[0]));
	assert_true(guest_wait(&f->dev.queue[0], &used));
}

/* ioeventfds follow the BAR. */
static void test_move(void **state)
{
	struct fixture *f = *state;
	uint32_t bar = guest_config_read(&f->guest, 1, PCI_BASE_ADDRESS_0, 4);
	struct virtq_used used;

	guest_start(&f->dev, ~0ULL, 8);
	assert_int_equal(f->guest.nioeventfds, 2);
	guest_config_write(&f->guest, 1, PCI_BASE_ADDRESS_0, bar + 0x100000, 4);
	assert_int_equal(f->guest.nioeventfds, 2);
	assert_int_equal(guest_status(&f->dev), 0xff);
	f->dev.common += 0x100000;
	f->dev.queue[0].doorbell += 0x100000;
	assert_int_equal(guest_status(&f->dev), ACK | DRIVER | FEATURES_OK | DRIVER_OK);
	add_echo(f, 0);
	guest_kick(&f->dev.queue[0]);
	assert_true(guest_wait(&f->dev.queue[0], &used));
}

static void test_config_space(void **state)
{
	struct fixture *f = *state;
	uint8_t generation = (uint8_t)get(f, VIRTIO_PCI_COMMON_CFGGENERATION, 1);

	guest_start(&f->dev, ~0ULL, 8);
	memcpy(f->echo->config, "abcdefghijkl", 12);
	assert_int_equal(guest_read(&f->guest, f->dev.config, 1), 'a');
	assert_int_equal(guest_read(&f->guest, f->dev.config + 4, 8), 0x6c6b6a6968676665);
	/* Across its end, and behind it. */
	assert_int_equal(guest_read(&f->guest, f->dev.config + 10, 4), 0);
	assert_int_equal(guest_read(&f->guest, f->dev.config + 12, 1), 0);
	guest_write(&f->guest, f->dev.config + 10, 0, 4);
	guest_write(&f->guest, f->dev.config + 1, 'B', 1);
	assert_memory_equal(f->echo->config, "aBcdefghijkl", 12);
	virtio_config_changed(&f->echo->virtio);
	assert_int_not_equal(get(f, VIRTIO_PCI_COMMON_CFGGENERATION, 1), generation);
	assert_int_equal(guest_interrupts(&f->dev, 0), 1);
	assert_int_equal(guest_read(&f->guest, f->dev.isr, 1), VIRTIO_PCI_ISR_CONFIG);
	assert_int_equal(guest_read(&f->guest, f->dev.isr, 1), 0);
}

/* Without MSI-X the ISR register tells, for drivers that poll it. */
static void test_isr(void **state)
{
	struct fixture *f = *state;

	guest_start(&f->dev, ~0ULL, 8);
	add_echo(f, 1);
	assert_int_equal(echo_serve(f->echo, &f->echo->virtio.queue[1]), 1);
	assert_int_equal(guest_read(&f->guest, f->dev.isr, 1), 0);
	guest_config_write(&f->guest, 1, msix_control_offset(f->echo->virtio.fn.msix), 0, 2);
	guest_set_used_event(&f->dev.queue[1], 1);
	add_echo(f, 1);
	assert_int_equal(echo_serve(f->echo, &f->echo->virtio.queue[1]), 1);
	assert_int_equal(guest_read(&f->guest, f->dev.isr, 1), 1);
	assert_int_equal(guest_read(&f->guest, f->dev.isr, 1), 0);
}

static void set_window(struct fixture *f, uint8_t bar, uint32_t offset, uint32_t len)
{
	guest_config_write(&f->guest, 1, f->dev.window + VIRTIO_PCI_CAP_BAR, bar, 1);
	guest_config_write(&f->guest, 1, f->dev.window + VIRTIO_PCI_CAP_OFFSET, offset, 4);
	guest_config_write(&f->guest, 1, f->dev.window + VIRTIO_PCI_CAP_LENGTH, len, 4);
}

static uint32_t window_get(struct fixture *f, unsigned len)
{
	return guest_config_read(&f->guest, 1, f->dev.window + 16, len);
}

static void window_put(struct fixture *f, uint32_t value, unsigned len)
{
	guest_config_write(&f->guest, 1, f->dev.window + 16, value, len);
}

/* The whole device can be worked through configuration space, with BARs not even mapped. */
static void test_window(void **state)
{
	struct fixture *f = *state;
	uint64_t base = guest_config_read(&f->guest, 1, PCI_BASE_ADDRESS_0, 4);
	struct virtq_used used;

	guest_start(&f->dev, ~0ULL, 8);
	add_echo(f, 0);
	guest_config_write(&f->guest, 1, PCI_COMMAND, 0, 2);
	set_window(f, 0, (uint32_t)(f->dev.common - base) + VIRTIO_PCI_COMMON_STATUS, 1);
	assert_int_equal(window_get(f, 1), ACK | DRIVER | FEATURES_OK | DRIVER_OK);
	set_window(f, 0, (uint32_t)(f->dev.notify - base), 2);
	window_put(f, 0, 2);
	assert_true(guest_wait(&f->dev.queue[0], &used));
	set_window(f, 0, (uint32_t)(f->dev.common - base) + VIRTIO_PCI_COMMON_Q_SELECT, 2);
	window_put(f, 0x4321, 2);
	assert_int_equal(window_get(f, 2), 0x4321);
	/* What makes no sense does nothing. */
	window_put(f, 0, 4);
	set_window(f, 0, 0xffffffff, 4);
	window_put(f, 0, 4);
	window_get(f, 4);
	set_window(f, 0, 0x1ffc, 8);
	window_put(f, 0, 4);
	set_window(f, 0, 2, 4);
	window_put(f, 0, 4);
	for (unsigned bar = 2; bar < 256; bar += 23) {
		set_window(f, (uint8_t)bar, 0, 4);
		window_put(f, 0, 4);
		window_get(f, 4);
	}
	set_window(f, 1, 4096, 4);
	window_put(f, 0, 4);
	/* The MSI-X table is a BAR like any other. */
	set_window(f, 1, 16 + 8, 4);
	assert_int_equal(window_get(f, 4), 1 << 8 | 1);
	set_window(f, 0, (uint32_t)(f->dev.common - base) + VIRTIO_PCI_COMMON_STATUS, 1);
	window_put(f, 0, 1);
	assert_int_equal(f->echo->virtio.status, 0);
}

static void test_every_width(void **state)
{
	struct fixture *f = *state;
	uint64_t base = guest_config_read(&f->guest, 1, PCI_BASE_ADDRESS_0, 4);

	/* No width at no offset upsets anything; values are all bits set, then none. */
	for (int value = -1; value <= 0; value++)
		for (unsigned len = 1; len <= 8; len *= 2)
			for (unsigned at = 0; at + len <= 0x2000; at++) {
				guest_read(&f->guest, base + at, len);
				guest_write(&f->guest, base + at, (uint64_t)(int64_t)value, len);
			}
	guest_run(&f->guest);
	guest_start(&f->dev, ~0ULL, 8);
	assert_int_equal(guest_status(&f->dev), ACK | DRIVER | FEATURES_OK | DRIVER_OK);
}

static void test_pause(void **state)
{
	struct fixture *f = *state;
	struct device *dev = &f->echo->virtio.device;
	struct virtq_used used;

	guest_start(&f->dev, ~0ULL, 8);
	assert_int_equal(dev->ops->pause(dev), 0);
	add_echo(f, 0);
	guest_kick(&f->dev.queue[0]);
	guest_run(&f->guest);
	assert_false(guest_used(&f->dev.queue[0], &used));
	dev->ops->resume(dev);
	assert_true(guest_wait(&f->dev.queue[0], &used));
	dev->ops->resume(dev);
	assert_int_equal(f->echo->pauses, 1);
	assert_int_equal(f->echo->resumes, 1);
}

/* Saved state: a second guest continues where the first one stopped. */

static size_t save(struct device *dev, uint8_t *buf, size_t size)
{
	struct wire_writer w = wire_writer(buf, size);

	assert_int_equal(dev->ops->pause(dev), 0);
	state_save_parts(&w, dev->part, dev->nparts);
	assert_false(w.failed);
	return w.pos;
}

static int restore(struct device *dev, const uint8_t *buf, size_t size, struct error *err)
{
	struct wire_reader r = wire_reader(buf, size);
	int ret = dev->ops->pause(dev);

	if (!ret)
		ret = state_restore_parts(&r, dev->part, dev->nparts, err);
	if (!ret)
		ret = dev->ops->restored(dev, err);
	return ret;
}

struct twin {
	struct guest guest;
	struct echo *echo;
	struct guest_device dev;
};

/* A second machine with the memory of the first and a device fresh from power-on. */
static void begin_twin(struct twin *t, struct fixture *f)
{
	guest_create(&t->guest);
	t->echo = echo_create(&t->guest.vm);
	t->guest.vm.log.level = -1;
	memcpy(guest_at(&t->guest, 0, 1), guest_at(&f->guest, 0, 1), f->guest.next);
	t->guest.next = f->guest.next;
	t->dev = f->dev;
	t->dev.guest = &t->guest;
	for (unsigned i = 0; i < t->dev.nqueues; i++)
		t->dev.queue[i].dev = &t->dev;
}

/* A running queue keeps its vector, as vhost does. */
static void test_vector_while_running(void **state)
{
	struct fixture *f = *state;

	guest_start(&f->dev, ~0ULL, 8);
	put(f, VIRTIO_PCI_COMMON_Q_SELECT, 0, 2);
	put(f, VIRTIO_PCI_COMMON_Q_MSIX, 2, 2);
	assert_int_equal(get(f, VIRTIO_PCI_COMMON_Q_MSIX, 2), 1);
	guest_set_status(&f->dev, 0);
	put(f, VIRTIO_PCI_COMMON_Q_MSIX, 2, 2);
	assert_int_equal(get(f, VIRTIO_PCI_COMMON_Q_MSIX, 2), 2);
}

/* A broken device waits for its reset, it does not run again after a pause. */
static void test_resume_broken(void **state)
{
	struct fixture *f = *state;
	struct device *device = &f->echo->virtio.device;

	guest_start(&f->dev, ~0ULL, 8);
	virtio_broken(&f->echo->virtio, "told to");
	assert_int_equal(device->ops->pause(device), 0);
	device->ops->resume(device);
	assert_int_equal(f->echo->resumes, 0);
	guest_start(&f->dev, ~0ULL, 8);
	assert_int_equal(device->ops->pause(device), 0);
	device->ops->resume(device);
	assert_int_equal(f->echo->resumes, 1);
}

static void test_save_restore(void **state)
{
	struct fixture *f = *state;
	uint8_t buf[8192], again[8192];
	struct twin t;
	struct error err = {0};
	struct virtq_used used;
	size_t size;

	guest_start(&f->dev, ~0ULL, 8);
	for (unsigned i = 0; i < 13; i++) {
		add_echo(f, 0);
		guest_kick(&f->dev.queue[0]);
		assert_true(guest_wait(&f->dev.queue[0], &used));
	}
	memcpy(f->echo->counter, "abc", 3);
	guest_mask_vector(&f->dev, 2, true);
	msix_signal(f->echo->virtio.fn.msix, 2); /* pending */
	add_echo(f, 0);
	guest_kick(&f->dev.queue[0]); /* on its way */
	size = save(&f->echo->virtio.device, buf, sizeof(buf));

	begin_twin(&t, f);
	assert_int_equal(restore(&t.echo->virtio.device, buf, size, &err), 0);
	assert_memory_equal(t.echo->counter, "abc", 3);
	assert_int_equal(t.echo->activations, 1);
	assert_int_equal(t.echo->restores, 1);
	assert_int_equal(save(&t.echo->virtio.device, again, sizeof(again)), size);
	assert_memory_equal(buf, again, size);
	guest_run(&t.guest);
	assert_false(guest_used(&t.dev.queue[0], &used));
	t.echo->virtio.device.ops->resume(&t.echo->virtio.device);
	assert_true(guest_wait(&t.dev.queue[0], &used));
	/* One more for each queue: one that was on its way is not saved. */
	assert_int_equal(guest_interrupts(&t.dev, 1), 2);
	guest_mask_vector(&t.dev, 2, false);
	assert_int_equal(guest_interrupts(&t.dev, 2), 2);
	guest_destroy(&t.guest);
}

/* Saved state is a file that anybody may have written. */
static void test_restore_damaged(void **state)
{
	struct fixture *f = *state;
	uint8_t buf[8192];
	unsigned accepted = 0;
	size_t size;

	guest_start(&f->dev, ~0ULL, 8);
	size = save(&f->echo->virtio.device, buf, sizeof(buf));
	for (size_t i = 0; i < size; i++) {
		uint8_t old = buf[i];
		struct twin t;
		struct error err = {0};

		buf[i] = (uint8_t)~old;
		begin_twin(&t, f);
		if (restore(&t.echo->virtio.device, buf, size, &err)) {
			assert_true(err.text[0]);
		} else {
			t.echo->virtio.device.ops->resume(&t.echo->virtio.device);
			guest_run(&t.guest);
			accepted++;
		}
		guest_destroy(&t.guest);
		buf[i] = old;
		/* The MSI-X table is long and free text; a sample of it does. */
		if (i > 600 && i < 1600)
			i += 40;
	}
	/* Some fields have no wrong value (configuration bytes, selects, addresses in RAM). */
	assert_true(accepted > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_identity, setup, teardown),
		cmocka_unit_test_setup_teardown(test_features, setup, teardown),
		cmocka_unit_test_setup_teardown(test_features_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_status_order, setup, teardown),
		cmocka_unit_test_setup_teardown(test_queue_registers, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_rings, setup, teardown),
		cmocka_unit_test_setup_teardown(test_activate_fails, setup, teardown),
		cmocka_unit_test_setup_teardown(test_reset, setup, teardown),
		cmocka_unit_test_setup_teardown(test_early_kick, setup, teardown),
		cmocka_unit_test_setup_teardown(test_kick_by_exit, setup, teardown),
		cmocka_unit_test_setup_teardown(test_move, setup, teardown),
		cmocka_unit_test_setup_teardown(test_config_space, setup, teardown),
		cmocka_unit_test_setup_teardown(test_isr, setup, teardown),
		cmocka_unit_test_setup_teardown(test_window, setup, teardown),
		cmocka_unit_test_setup_teardown(test_every_width, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pause, setup, teardown),
		cmocka_unit_test_setup_teardown(test_vector_while_running, setup, teardown),
		cmocka_unit_test_setup_teardown(test_resume_broken, setup, teardown),
		cmocka_unit_test_setup_teardown(test_save_restore, setup, teardown),
		cmocka_unit_test_setup_teardown(test_restore_damaged, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
