/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_FILE_H
#define WISP_VMM_FILE_H

/* The private half of the file store: file.c opens, file-io.c runs requests. */

#include <liburing.h>

#include "vmm/block/store.h"

struct file_store {
	struct store store;
	const char *path;
	const struct log *log;
	int fd;
	bool readonly;
	/* O_DIRECT: what offset, length and buffers must be multiples of; 1 without it. */
	uint32_t align, mem_align;
	void *bounce; /* for requests that are not; allocated when the first one comes */

	bool uring; /* the ring exists; else every request is run where it is submitted */
	bool ring_set;
	struct io_uring ring;
	struct loop_source *source;
	unsigned inflight;	/* in the ring, not done */
	struct store_io *ready; /* done, to be told at the next commit */
	struct store_io **ready_tail;
};

extern const struct store_ops file_store_ops;

int file_file(struct store *store, const char **path);
int file_claim(struct store *store, bool claim, struct error *err);

/* Sets up io_uring for depth requests, or logs why it cannot and how to get it. */
int file_io_init(struct file_store *f, struct loop *loop, unsigned depth, struct error *err);
void file_io_done(struct file_store *f);

#endif
