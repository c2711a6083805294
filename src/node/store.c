/* SPDX-License-Identifier: Apache-2.0 */
/* The way into the daemon's database. */

#include "node/store.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "node/store-schema.h"

#define EVENTS_KEPT 10000

struct store {
	sqlite3 *db;
	char *path;
	int lock;
};

struct store_row {
	sqlite3_stmt *statement;
};

static int error_code(int code)
{
	static const struct {
		int sqlite, code;
	} codes[] = {
		{SQLITE_FULL, -ENOSPC},	   {SQLITE_CORRUPT, -EBADMSG},	{SQLITE_NOTADB, -EBADMSG},
		{SQLITE_BUSY, -EBUSY},	   {SQLITE_LOCKED, -EBUSY},	{SQLITE_NOMEM, -ENOMEM},
		{SQLITE_READONLY, -EROFS}, {SQLITE_PERM, -EACCES},	{SQLITE_CANTOPEN, -EACCES},
		{SQLITE_TOOBIG, -E2BIG},   {SQLITE_CONSTRAINT, -EEXIST}};

	for (unsigned i = 0; i < ARRAY_SIZE(codes); i++)
		if (codes[i].sqlite == (code & 0xff))
			return codes[i].code;
	return -EIO;
}

static int damaged(const char *path, const char *what, struct error *err)
{
	return error_set(
		err, -EBADMSG,
		"the node's database %s is damaged (%s): stop the VMs of this node and move it "
		"away, a new one is made; `sqlite3 %s .recover` may save its records of usage",
		path, what, path);
}

static int failed(const struct store *s, int code, struct error *err)
{
	int r = error_code(code);

	if (r == -EBADMSG)
		return damaged(s->path, sqlite3_errmsg(s->db), err);
	if (r == -ENOSPC)
		return error_set(err, r,
				 "no space left for the node's database %s: nothing was changed, "
				 "free some and try again",
				 s->path);
	return error_set(err, r, "the node's database %s: %s", s->path, sqlite3_errmsg(s->db));
}

static void bind(sqlite3_stmt *statement, const char *kinds, va_list args)
{
	for (int i = 0; kinds[i]; i++)
		if (kinds[i] == 'i')
			sqlite3_bind_int64(statement, i + 1, va_arg(args, int64_t));
		else
			sqlite3_bind_text(statement, i + 1, va_arg(args, const char *), -1,
					  SQLITE_TRANSIENT);
}

static int each(struct store *s, store_fn fn, void *arg, struct error *err, const char *sql,
		const char *kinds, va_list args)
{
	struct store_row row = {NULL};
	int r = sqlite3_prepare_v2(s->db, sql, -1, &row.statement, NULL);
	int result = 0;

	if (r != SQLITE_OK)
		return failed(s, r, err);
	bind(row.statement, kinds, args);
	while (!result && (r = sqlite3_step(row.statement)) == SQLITE_ROW)
		result = fn ? fn(&row, arg) : 0;
	if (!result && r != SQLITE_DONE)
		result = failed(s, r, err);
	sqlite3_finalize(row.statement);
	return result;
}

int store_each(struct store *s, store_fn fn, void *arg, struct error *err, const char *sql,
	       const char *kinds, ...)
{
	va_list args;
	int r;

	va_start(args, kinds);
	r = each(s, fn, arg, err, sql, kinds, args);
	va_end(args);
	return r;
}

int store_run(struct store *s, struct error *err, const char *sql, const char *kinds, ...)
{
	va_list args;
	int r;

	va_start(args, kinds);
	r = each(s, NULL, NULL, err, sql, kinds, args);
	va_end(args);
	return r;
}

int64_t store_int(const struct store_row *row, unsigned column)
{
	return sqlite3_column_int64(row->statement, column);
}

const char *store_text(const struct store_row *row, unsigned column)
{
	return (const char *)sqlite3_column_text(row->statement, column);
}

int64_t store_last_id(const struct store *s)
{
	return sqlite3_last_insert_rowid(s->db);
}

int64_t store_changes(const struct store *s)
{
	return sqlite3_changes64(s->db);
}

struct sqlite3 *store_handle(struct store *s)
{
	return s->db;
}

int store_begin(struct store *s, struct error *err)
{
	return store_run(s, err, "BEGIN IMMEDIATE", "");
}

int store_end(struct store *s, int result, struct error *err)
{
	if (!result)
		result = store_run(s, err, "COMMIT", "");
	/* Some errors have rolled it back already. */
	if (result && !sqlite3_get_autocommit(s->db))
		store_run(s, NULL, "ROLLBACK", "");
	return result;
}

int store_event(struct store *s, int64_t at, const char *cluster, const char *vm, const char *what,
		const char *text, struct error *err)
{
	int r = store_run(s, err,
			  "INSERT INTO event (at, cluster, vm, what, text) VALUES (?, ?, ?, ?, ?)",
			  "itttt", at, cluster, vm, what, text);

	if (r)
		return r;
	return store_run(s, err, "DELETE FROM event WHERE id <= ?", "i",
			 store_last_id(s) - EVENTS_KEPT);
}

/* The lock is the kernel's, so a daemon that died has none; its pid is there to be read. */
static int lock(struct store *s, struct error *err)
{
	CLEANUP_FREE char *path = io_format("%s.lock", s->path);
	char pid[32] = "";
	int n, r;

	if (!path)
		return error_set(err, -ENOMEM, "out of memory");
	s->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (s->lock < 0)
		return error_errno(err, -errno, "cannot open %s", path);
	r = io_lock(s->lock, path, err);
	if (r == -EBUSY) {
		n = pread(s->lock, pid, sizeof(pid) - 1, 0);
		pid[n > 0 ? n : 0] = 0;
		error_set(err, r, "another wispd (pid %s) has the node's database %s",
			  pid[0] ? pid : "unknown", s->path);
	}
	if (r)
		return r;
	n = snprintf(pid, sizeof(pid), "%d", getpid());
	if (ftruncate(s->lock, 0) || pwrite(s->lock, pid, n, 0) != n)
		return error_errno(err, -errno, "cannot write %s", path);
	return 0;
}

static int take_int(const struct store_row *row, void *arg)
{
	*(int64_t *)arg = store_int(row, 0);
	return 0;
}

static int ask(struct store *s, const char *sql, int64_t *ret, struct error *err)
{
	return store_each(s, take_int, ret, err, sql, "");
}

static int upgrade(struct store *s, unsigned version, struct error *err)
{
	char pragma[64];
	int r = store_begin(s, err);

	if (r)
		return r;
	r = sqlite3_exec(s->db, store_schema[version], NULL, NULL, NULL);
	r = r ? failed(s, r, err) : 0;
	snprintf(pragma, sizeof(pragma), "PRAGMA user_version = %u", version + 1);
	if (!r)
		r = store_run(s, err, pragma, "");
	snprintf(pragma, sizeof(pragma), "PRAGMA application_id = %d", STORE_APPLICATION);
	if (!r)
		r = store_run(s, err, pragma, "");
	return store_end(s, r, err);
}

/* What the file is, before it is written to. */
static int check_kind(struct store *s, int64_t *version, struct error *err)
{
	int64_t application = 0, tables = 0;
	int r = ask(s, "PRAGMA application_id", &application, err);

	if (!r)
		r = ask(s, "PRAGMA user_version", version, err);
	if (!r)
		r = ask(s, "SELECT count(*) FROM sqlite_schema", &tables, err);
	if (r)
		return r;
	if (application != STORE_APPLICATION && (application || *version || tables))
		return error_set(err, -EINVAL, "%s is no database of wispd: name another file",
				 s->path);
	if (*version > store_schema_version)
		return error_set(err, -EPROTONOSUPPORT,
				 "the node's database %s is of version %d, this wispd knows %u: "
				 "run the newer one",
				 s->path, (int)*version, store_schema_version);
	return 0;
}

static int take_check(const struct store_row *row, void *arg)
{
	const char *said = store_text(row, 0);

	if (said && strcmp(said, "ok"))
		snprintf(arg, 128, "%s", said);
	return 0;
}

static int check_whole(struct store *s, struct error *err)
{
	char said[128] = "";
	int r = store_each(s, take_check, said, err, "PRAGMA quick_check(1)", "");

	return r || !said[0] ? r : damaged(s->path, said, err);
}

/* WAL: readers (sqlite3, wisp) never wait for the daemon. FULL: a commit survives a power cut. */
static int prepare(struct store *s, struct error *err)
{
	static const char *const pragmas[] = {"PRAGMA journal_mode = WAL",
					      "PRAGMA synchronous = FULL",
					      "PRAGMA foreign_keys = ON"};
	int64_t version = 0;
	int r = check_kind(s, &version, err);

	if (!r)
		r = check_whole(s, err);
	for (unsigned i = 0; !r && i < ARRAY_SIZE(pragmas); i++)
		r = store_run(s, err, pragmas[i], "");
	for (; !r && version < store_schema_version; version++)
		r = upgrade(s, version, err);
	return r;
}

/*
 * As ours alone. Closed before SQLite has it: closing any descriptor of a file drops what locks the
 * process has of it (fcntl(2)), and who reads the database then takes himself for the last one
 * there, and removes its log.
 */
static int make_file(const char *path, struct error *err)
{
	CLEANUP_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	return fd < 0 ? error_errno(err, -errno, "cannot open the node's database %s", path) : 0;
}

static int open_file(struct store *s, struct error *err)
{
	int r = make_file(s->path, err);

	if (r)
		return r;
	r = sqlite3_open_v2(s->path, &s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
	if (r != SQLITE_OK)
		return failed(s, r, err);
	sqlite3_busy_timeout(s->db, 5000); /* somebody's sqlite3 writes */
	return prepare(s, err);
}

int store_open(const char *path, struct store **ret, struct error *err)
{
	struct store *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return error_set(err, -ENOMEM, "out of memory");
	s->lock = -1;
	s->path = strdup(path);
	r = s->path ? lock(s, err) : error_set(err, -ENOMEM, "out of memory");
	if (!r)
		r = open_file(s, err);
	if (r) {
		store_close(s);
		return r;
	}
	*ret = s;
	return 0;
}

void store_close(struct store *s)
{
	if (!s)
		return;
	sqlite3_close(s->db);
	if (s->lock >= 0)
		close(s->lock);
	free(s->path);
	free(s);
}
