/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_STORE_H
#define WISP_VMM_STORE_H

/*
 * Where the bytes of a virtual disk are: the back end of dev/block.c. Requests are
 * asynchronous; a batch is submitted one by one and started with one commit. Everything is
 * called with the VM's lock held, and so are done and batch_done, from store_commit(),
 * store_drain() or the event loop, never from store_submit().
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

struct error;
struct log;
struct loop;
struct store;

enum store_op {
	STORE_READ,
	STORE_WRITE,
	STORE_FLUSH,
	STORE_DISCARD,	 /* the range's content does not matter any more; a hint */
	STORE_ZERO,	 /* the range reads as zeros; space may be given back */
	STORE_ZERO_KEEP, /* likewise, and space stays allocated */
};

/* One request; belongs to the store between submit and done, iov and its array included. */
struct store_io {
	enum store_op op;
	bool durable;		 /* a change is on stable storage before done */
	uint64_t offset, length; /* bytes; inside the store. 0 for STORE_FLUSH */
	struct iovec *iov;	 /* READ, WRITE: length bytes; consumed */
	unsigned niov;
	/* 0, -EOPNOTSUPP (the store cannot do that) or another -errno. May free io. */
	void (*done)(struct store_io *io, int result);
	struct store_io *next; /* the store's */
	uint64_t held_ns;      /* likewise: since when it waits for a copy (io_now_ns()) */
};

struct store_ops {
	void (*submit)(struct store *store, struct store_io *io);
	void (*commit)(struct store *store);
	void (*drain)(struct store *store);
	/* See store_claim(). */
	int (*claim)(struct store *store, bool claim, struct error *err);
	/* See store_file(). */
	int (*file)(struct store *store, const char **path);
	/* See store_copy_start() and so on. */
	int (*copy_start)(struct store *store, int file, const void *owner, struct error *err);
	int (*copy_stop)(struct store *store, const void *owner, uint64_t *bytes,
			 struct error *err);
	void (*copy_gone)(struct store *store, const void *owner);
	void (*destroy)(struct store *store);
};

struct store {
	const struct store_ops *ops;
	uint64_t size;		/* bytes, a multiple of 512 */
	uint32_t block_size;	/* logical block: the unit the guest should use; power of two */
	uint32_t physical_size; /* physical block; power of two >= block_size */
	bool can_discard, can_zero;
	/* Called after a batch of done calls; set by the owner. */
	void (*batch_done)(void *arg);
	void *arg;
};

struct store_options {
	bool readonly;	/* others may read it at the same time; else it is locked for us alone */
	bool direct;	/* O_DIRECT: past the host's page cache */
	bool unlocked;	/* not locked before store_claim() */
	unsigned depth; /* how many requests will be in flight at most */
};

/*
 * Opens a raw file or a block device. *ret is the caller's, to end with store_destroy().
 * path lives as long as the store. Uses io_uring, or one blocking call after the other where
 * the kernel refuses that (logged).
 */
int store_open_file(const char *path, const struct store_options *opt, struct loop *loop,
		    const struct log *log, struct store **ret, struct error *err);

static inline void store_submit(struct store *store, struct store_io *io)
{
	store->ops->submit(store, io);
}

static inline void store_commit(struct store *store)
{
	store->ops->commit(store);
}

/* Commits and waits until every request is done. */
static inline void store_drain(struct store *store)
{
	store->ops->drain(store);
}

/*
 * Locks the store for us, or lets another process, perhaps on another host, have it while nothing
 * is written here: all of it is on stable storage then. Idempotent; -EBUSY when another has it.
 */
static inline int store_claim(struct store *store, bool claim, struct error *err)
{
	return store->ops->claim(store, claim, err);
}

/* The store's descriptor and the path it was opened by, for who copies all of it. */
static inline int store_file(struct store *store, const char **path)
{
	return store->ops->file(store, path);
}

/*
 * Somebody else copies the store as it is now, with nothing in flight, to the file (a regular one
 * of its size, full of zeros; stays the caller's): what requests change from now on is copied
 * there before, if he has not (block/before.h). Returns the descriptor of what is shared with him,
 * the store's, or -EBUSY, -EINVAL.
 */
static inline int store_copy_start(struct store *store, int file, const void *owner,
				   struct error *err)
{
	return store->ops->copy_start(store, file, owner, err);
}

/*
 * Ends the copy that the owner asked for. 0 and how many bytes were copied here, -ENOENT, or why
 * the copy is not whole.
 */
static inline int store_copy_stop(struct store *store, const void *owner, uint64_t *bytes,
				  struct error *err)
{
	return store->ops->copy_stop(store, owner, bytes, err);
}

/* The owner is gone, and nobody wants the copy that he asked for, if he did. */
static inline void store_copy_gone(struct store *store, const void *owner)
{
	store->ops->copy_gone(store, owner);
}

/* Nothing may be in flight. Accepts NULL. */
static inline void store_destroy(struct store *store)
{
	if (store)
		store->ops->destroy(store);
}

#endif
