/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_NODE_STORE_H
#define WISP_NODE_STORE_H

/*
 * The daemon's database: one SQLite file that survives the daemon at any moment. This is the way
 * in (opening, transactions, statements); what the tables mean is in store-schema.c. One thread.
 *
 * Errors of all functions: -ENOSPC the disk is full, -EBADMSG the file is damaged, -EIO it cannot
 * be read or written, -EEXIST a row would have two owners. After an error nothing has changed.
 */

#include <stdint.h>

struct error;
struct store;
struct sqlite3;

/*
 * Opens the file, or makes it, mode 0600, and brings its tables to this version. -EBUSY: another
 * daemon has it (its pid is told), -EPROTONOSUPPORT: a newer version made it, -EINVAL: it is
 * something else.
 */
int store_open(const char *path, struct store **ret, struct error *err);
void store_close(struct store *s);

/*
 * A transaction: everything between is done or nothing. store_end() commits when result is 0, else
 * takes all back; it returns result or what went wrong. They do not nest.
 */
int store_begin(struct store *s, struct error *err);
int store_end(struct store *s, int result, struct error *err);

/*
 * Runs one statement. kinds says what follows, for its question marks: 'i' int64_t, 't' a text
 * (NULL: null).
 */
int store_run(struct store *s, struct error *err, const char *sql, const char *kinds, ...);

struct store_row;
int64_t store_int(const struct store_row *row, unsigned column); /* 0: null */
const char *store_text(const struct store_row *row,
		       unsigned column); /* NULL: null; until fn returns */

/*
 * The same for one that gives rows: fn gets each, and ends it by anything but 0, which is returned.
 * fn may run other statements, but not change the tables that are read.
 */
typedef int (*store_fn)(const struct store_row *row, void *arg);
int store_each(struct store *s, store_fn fn, void *arg, struct error *err, const char *sql,
	       const char *kinds, ...);

/* Of the last row that was inserted; how many rows the last statement changed. */
int64_t store_last_id(const struct store *s);
int64_t store_changes(const struct store *s);

/* A line of the event log, of which the last 10,000 are kept. cluster and vm may be NULL. */
int store_event(struct store *s, int64_t at, const char *cluster, const char *vm, const char *what,
		const char *text, struct error *err);

/* For tests: what is below. */
struct sqlite3 *store_handle(struct store *s);

#endif
