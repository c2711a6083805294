/* SPDX-License-Identifier: Apache-2.0 */
/* agent-initrd OUTPUT AGENT: an initrd for the agent's test as init; prints its kernel's file. */

#include <stdio.h>

#include "image/initrd.h"
#include "image/kernel.h"
#include "lib/error.h"

int main(int argc, char **argv)
{
	static const char *const names[] = {"virtio_pci", "virtio_blk", "virtio_net",
					    "squashfs",	  "overlay",	NULL};
	struct kernel kernel = {0};
	struct initrd initrd = {.names = names, .lz4 = true};
	struct error err = {"usage: agent-initrd OUTPUT AGENT"};
	int r = argc == 3 ? kernel_get(KERNEL_DEFAULT, &kernel, &err) : -1;

	if (!r) {
		initrd.modules = kernel.modules;
		initrd.agent = argv[2];
		r = initrd_build(&initrd, argv[1], &err);
	}
	if (r)
		fprintf(stderr, "agent-initrd: %s\n", err.text);
	else
		puts(kernel.vmlinuz);
	kernel_done(&kernel);
	return r ? 1 : 0;
}
