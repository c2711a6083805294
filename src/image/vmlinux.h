/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_IMAGE_VMLINUX_H
#define WISP_IMAGE_VMLINUX_H

/*
 * The uncompressed kernel (ELF) inside a bzImage: what a VM boots fastest, unpacked once
 * when an image is made and not at every boot.
 */

#include <stddef.h>
#include <stdint.h>

struct error;

/*
 * Finds and decompresses the ELF kernel of a bzImage (boot protocol 2.08 or later). An ELF
 * kernel is copied as it is. Returns 0 and a new buffer the caller frees, or -ENOEXEC or
 * -EBADMSG with the reason. Any thread.
 */
int vmlinux_extract(const uint8_t *image, size_t size, uint8_t **ret, size_t *ret_size,
		    struct error *err);

/* The same from file to file, for example from /boot/vmlinuz. */
int vmlinux_extract_file(const char *vmlinuz, const char *vmlinux, struct error *err);

#endif
