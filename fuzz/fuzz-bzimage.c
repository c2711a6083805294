/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a bzImage, and as a kernel module. */

#include <stdlib.h>

#include "image/modules.h"
#include "image/vmlinux.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *kernel = NULL;
	size_t kernel_size;

	if (!vmlinux_extract(data, size, &kernel, &kernel_size, NULL))
		free(kernel);
	module_info(data, size, "depends", 0);
	return 0;
}
