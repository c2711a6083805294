/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_DISK_SAMPLE_H
#define WISP_MOVER_DISK_SAMPLE_H

/* What a disk has in a few places, to tell whether two paths on two hosts are the same disk. */

#include <stdbool.h>
#include <stdint.h>

#define DISK_SAMPLES 64
#define DISK_SAMPLE_DIGITS 8 /* of each */
#define DISK_SAMPLE_TEXT (DISK_SAMPLES * DISK_SAMPLE_DIGITS + 1)

/*
 * Eight hexadecimal digits for each of DISK_SAMPLES blocks of 4 KiB (docs/formats/migration.md),
 * not kept in the host's memory. fd is without O_DIRECT. False: it cannot be read.
 */
bool disk_sample(int fd, uint64_t size, char ret[DISK_SAMPLE_TEXT]);

#endif
