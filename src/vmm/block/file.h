/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_FILE_H
#define WISP_VMM_FILE_H

/*
 * The private half of the file store: file.c opens, file-io.c runs requests, file-copy.c is for who
 * copies it.
 */

#include <liburing.h>

#include "vmm/block/before.h"
#include "vmm/block/store.h"

struct file_store {
	struct store store;
	const char *path;
	const struct log *log;
	struct loop *loop;
	int fd;
	bool readonly;
	bool waits; /* opened while another may still write it */
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

	struct before *before; /* somebody copies it, or NULL */
	struct loop_source *before_source, *before_timer;
	bool timed; /* the timer is armed */
};

extern const struct store_ops file_store_ops;

int file_file(struct store *store, const char **path);
int file_claim(struct store *store, bool claim, struct error *err);

int file_copy_start(struct store *store, int file, const void *owner, struct error *err);
int file_copy_stop(struct store *store, const void *owner, uint64_t *bytes, struct error *err);
void file_copy_gone(struct store *store, const void *owner);

/* True: a copy holds the request, which is started later. */
bool file_copy_hold(struct file_store *f, struct store_io *io);

/* Waits for the requests that a copy holds, and starts them. */
void file_copy_drain(struct file_store *f);

/* No copy any more. Nothing may be held. */
void file_copy_done(struct file_store *f);

/* Starts a request that nothing holds, or takes its next step. */
void file_start(struct file_store *f, struct store_io *io);

/* Sets up io_uring for depth requests, or logs why it cannot and how to get it. */
int file_io_init(struct file_store *f, unsigned depth, struct error *err);
void file_io_done(struct file_store *f);

#endif
