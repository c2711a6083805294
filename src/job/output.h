/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_JOB_OUTPUT_H
#define WISP_JOB_OUTPUT_H

/*
 * What a program has written, in a file by its position since its start. Of a long output the file
 * keeps the end alone: its beginning becomes a hole. One thread.
 */

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct error;

#define OUTPUT_KEEP (64u << 20) /* bytes that are kept at least */

struct output {
	int fd;
	uint64_t start; /* what is before is gone */
	uint64_t end;
};

/* Makes the file. Returns 0 or -errno. */
int output_create(struct output *o, const char *path, struct error *err);
void output_done(struct output *o);

int output_append(struct output *o, const void *data, size_t n);

/* At most n bytes from a position on; 0: it is at the end. Positions that are gone are skipped. */
ssize_t output_read(const struct output *o, uint64_t *position, void *buf, size_t n);

/* The program is back at an earlier position, or at one that it has not come to here. */
int output_set(struct output *o, uint64_t position);

#endif
