/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_IMAGE_REUSE_H
#define WISP_IMAGE_REUSE_H

/* What is here of images that come: parts of others, rests of earlier tries. Any thread. */

#include <stdbool.h>

struct chunks;

/*
 * Fills the open file of part p from an image that has the same part, if there is one. What was
 * copied is not checked.
 */
bool reuse_part(const struct chunks *chunks, unsigned p, int out);

/* Removes arrivals of a store but one that nobody has gone on with for a week. */
void reuse_sweep(const char *store, const char *but);

/* Copies what a file has, sharing its blocks where the file system can. 0 or -errno. */
int reuse_copy(int in, int out);

#endif
