/* SPDX-License-Identifier: Apache-2.0 */
/* Samples of a disk: half of them from its first 2 MiB, where file systems and boot loaders begin.
 */

#include "mover/disk-sample.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define BYTES 4096u
#define STEP 65536u
#define HALF (DISK_SAMPLES / 2)

static uint64_t place(unsigned i, uint64_t size)
{
	uint64_t at = i < HALF ? (uint64_t)i * STEP : size / HALF * (i - HALF);

	return at / BYTES * BYTES;
}

/* FNV-1a, of words; 0 for zeros alone and for what is not on the disk. */
static uint32_t hash(const uint8_t *data, size_t n)
{
	uint64_t sum = 0xcbf29ce484222325, all = 0, word;

	for (size_t i = 0; i + sizeof(word) <= n; i += sizeof(word)) {
		memcpy(&word, data + i, sizeof(word));
		all |= word;
		sum = (sum ^ word) * 0x100000001b3;
	}
	return all ? (uint32_t)(sum >> 32) | 1 : 0;
}

bool disk_sample(int fd, uint64_t size, char ret[DISK_SAMPLE_TEXT])
{
	uint8_t buf[BYTES];

	for (unsigned i = 0; i < DISK_SAMPLES; i++) {
		uint64_t at = place(i, size);
		ssize_t n = at < size ? pread(fd, buf, BYTES, (off_t)at) : 0;

		if (n < 0)
			return false;
		/* Elsewhere it may be newer when we are to use it. */
		posix_fadvise(fd, (off_t)at, BYTES, POSIX_FADV_DONTNEED);
		snprintf(ret + i * DISK_SAMPLE_DIGITS, DISK_SAMPLE_DIGITS + 1, "%08x",
			 hash(buf, (size_t)n));
	}
	return true;
}
