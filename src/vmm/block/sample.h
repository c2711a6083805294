/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_SAMPLE_H
#define WISP_VMM_SAMPLE_H

/* What a disk has in a few places, to tell whether two paths on two hosts are the same disk. */

#include <stdbool.h>
#include <stdint.h>

#define SAMPLE_BLOCKS 64
#define SAMPLE_DIGITS 8
#define SAMPLE_TEXT (SAMPLE_BLOCKS * SAMPLE_DIGITS + 1)

/*
 * Eight hexadecimal digits for each of SAMPLE_BLOCKS blocks of 4 KiB (docs/formats/control.md),
 * not kept in the host's memory. False: it cannot be read so (O_DIRECT of larger blocks).
 */
bool sample_disk(int fd, uint64_t size, char ret[SAMPLE_TEXT]);

#endif
