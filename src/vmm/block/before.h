/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_BEFORE_H
#define WISP_VMM_BEFORE_H

/*
 * Copy before write: another process copies a disk as it was at one moment, while the guest goes
 * on with it (docs/formats/control.md, disk-copy-start). What a request is about to change and
 * the other has not copied is copied first, by a thread of its own, and the request waits for
 * that alone. A copy that fails, or that a request waited too long for, is given up: the guest
 * comes first.
 *
 * All functions are for the thread that has the VM's lock.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;
struct store_io;
struct before;

#define BEFORE_CLUSTER 65536u /* bytes that are copied or not; part of the protocol */
/* A request is held so long at most; then the copy is given up. */
#define BEFORE_PATIENCE_NS 10000000000ull

/* The file a disk is copied to, and who asked for that. */
struct before_request {
	int disk;	   /* its descriptor, duplicated; with O_DIRECT or without */
	uint64_t size;	   /* of the disk */
	int file;	   /* a regular file of that size, duplicated; reads as zeros at first */
	const void *owner; /* for before_owner() */
};

/* Begins; nothing may be in flight. *ret is the caller's, to end with before_destroy(). */
int before_create(const struct before_request *request, struct before **ret, struct error *err);

/* Gives up what is not done. Accepts NULL. Requests that are held must have been taken. */
void before_destroy(struct before *b);

const void *before_owner(const struct before *b);

/*
 * A sealed memfd that the other process shares: a byte for each cluster, not 0 when the copy has
 * what the disk had there, and one more, not 0 when the copy was given up.
 */
int before_shared(const struct before *b);

/* An eventfd that is readable when before_take() has something. */
int before_event(const struct before *b);

/*
 * True: the request is held, and changes hands by before_take() or before_wait(). before_look() is
 * to be called when BEFORE_PATIENCE_NS are over.
 */
bool before_hold(struct before *b, struct store_io *io);

/* The requests that may go on, linked by next; NULL: none. */
struct store_io *before_take(struct before *b);

/* Waits for all that are held until the patience with one ends, and takes them. */
struct store_io *before_wait(struct before *b);

/*
 * Gives the copy up when the patience with a request is over. Returns after how many ns it will be;
 * 0: nothing is held.
 */
uint64_t before_look(struct before *b);

/* Gives the copy up: what is held may go on. */
void before_give_up(struct before *b, int error);

/* 0 and how many bytes were copied here, or why the copy was given up. */
int before_result(struct before *b, uint64_t *bytes, struct error *err);

#endif
