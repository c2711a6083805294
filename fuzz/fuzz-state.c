/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Saved state from a hostile file: the input is restored into a device that runs afterwards, if
 * it was accepted. What is saved then is what was restored.
 */

#include <string.h>

#include "vmm/test/echo.h"
#include "vmm/test/guest-driver.h"

#define SIZE_MAX_STATE 8192

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct wire_reader r = wire_reader(data, size);
	uint8_t again[SIZE_MAX_STATE];
	struct wire_writer w = wire_writer(again, sizeof(again));
	struct guest g;
	struct device *dev;
	struct echo *echo;

	guest_create(&g);
	g.vm.log.level = -1;
	echo = echo_create(&g.vm);
	dev = &echo->virtio.device;
	dev->ops->pause(dev);
	if (!state_restore_parts(&r, dev->part, dev->nparts, NULL)) {
		state_save_parts(&w, dev->part, dev->nparts);
		guest_require(!w.failed && w.pos == r.pos && !memcmp(again, data, w.pos));
		if (!dev->ops->restored(dev, NULL)) {
			dev->ops->resume(dev);
			guest_run(&g);
			echo_serve(echo, &echo->virtio.queue[1]);
			virtio_config_changed(&echo->virtio);
		}
	}
	guest_destroy(&g);
	return 0;
}
