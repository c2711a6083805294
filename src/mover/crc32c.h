/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_CRC32C_H
#define WISP_MOVER_CRC32C_H

/* CRC-32C (Castagnoli), the sum of iSCSI and of our checkpoints. Any thread. */

#include <stddef.h>
#include <stdint.h>

/*
 * The sum of data behind what crc is the sum of; crc is 0 to begin with:
 * crc32c(crc32c(0, a), b) == crc32c(0, ab).
 */
uint32_t crc32c(uint32_t crc, const void *data, size_t size);

#endif
