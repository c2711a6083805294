/* SPDX-License-Identifier: Apache-2.0 */
/* The database of a daemon that is killed, whose disk is full, whose file is damaged. */

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "lib/error.h"
#include "node/store-schema.h"
#include "node/store.h"
#include "node/test/made.h"

static char *file_of(void **state)
{
	return io_format("%s/node.db", (char *)*state);
}

static struct store *open_ok(const char *path)
{
	struct store *s = NULL;
	struct error err = {0};

	if (store_open(path, &s, &err))
		fail_msg("%s", err.text);
	return s;
}

static int take(const struct store_row *row, void *arg)
{
	*(int64_t *)arg = store_int(row, 0);
	return 0;
}

static int64_t ask(struct store *s, const char *sql)
{
	struct error err = {0};
	int64_t n = -1;

	if (store_each(s, take, &n, &err, sql, ""))
		fail_msg("%s: %s", sql, err.text);
	return n;
}

#define CPUS 6

/* A VM with CPUS threads, a device and memory, or nothing of it. */
static int add_vm(struct store *s, int64_t n, struct error *err)
{
	CLEANUP_FREE char *name = io_format("v%d", (int)n);
	int64_t vm;
	int r = store_begin(s, err);

	if (r)
		return r;
	r = store_run(s, err,
		      "INSERT OR IGNORE INTO cluster (id, user, state, since, until) VALUES ('c', "
		      "7, 'running', 1, NULL)",
		      "");
	if (!r)
		r = store_run(s, err,
			      "INSERT INTO vm (cluster, name, since, cpus, dedicated) "
			      "VALUES ('c', ?, 1, 6, 1)",
			      "t", name);
	vm = store_last_id(s);
	for (int64_t i = 0; !r && i < CPUS; i++)
		r = store_run(s, err, "INSERT INTO cpu VALUES (?, ?)", "ii", n * CPUS + i, vm);
	if (!r)
		r = store_run(s, err, "INSERT INTO device VALUES (?, ?)", "ti", name, vm);
	if (!r)
		r = store_run(s, err, "INSERT INTO memory VALUES (?, 0, 4096, 4096)", "i", vm);
	return store_end(s, r, err);
}

static int remove_vm(struct store *s, int64_t n, struct error *err)
{
	CLEANUP_FREE char *name = io_format("v%d", (int)n);

	return store_run(s, err, "DELETE FROM vm WHERE cluster = 'c' AND name = ?", "t", name);
}

/* All of a VM is there or nothing. Returns how many. */
static int64_t check_invariants(struct store *s)
{
	int64_t vms = ask(s, "SELECT count(*) FROM vm");

	assert_int_equal(ask(s, "SELECT count(*) FROM cpu"), vms * CPUS);
	assert_int_equal(ask(s, "SELECT count(*) FROM device"), vms);
	assert_int_equal(ask(s, "SELECT count(*) FROM memory"), vms);
	assert_int_equal(ask(s, "SELECT count(*) FROM pragma_foreign_key_check"), 0);
	return vms;
}

static void test_open(void **state)
{
	CLEANUP_FREE char *path = file_of(state);
	struct store *s = open_ok(path);
	struct stat st;

	assert_int_equal(ask(s, "PRAGMA user_version"), store_schema_version);
	assert_int_equal(add_vm(s, 3, NULL), 0);
	store_close(s);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	s = open_ok(path);
	assert_int_equal(check_invariants(s), 1);
	store_close(s);
	store_close(NULL);
}

/* A second owner is refused, and takes its whole claim with it. */
static void test_one_owner(void **state)
{
	CLEANUP_FREE char *path = file_of(state);
	struct store *s = open_ok(path);
	struct error err;

	assert_int_equal(add_vm(s, 1, NULL), 0);
	assert_int_equal(add_vm(s, 1, &err), -EEXIST);
	assert_int_equal(store_begin(s, &err), 0);
	assert_int_equal(store_run(s, &err,
				   "INSERT INTO vm (cluster, name, since, cpus, dedicated) "
				   "VALUES ('c', 'thief', 1, 1, 1)",
				   ""),
			 0);
	assert_int_equal(store_run(s, &err, "INSERT INTO cpu VALUES (6, ?)", "i", store_last_id(s)),
			 -EEXIST);
	assert_int_equal(store_end(s, -EEXIST, &err), -EEXIST);
	assert_int_equal(check_invariants(s), 1);
	assert_int_equal(remove_vm(s, 1, &err), 0);
	assert_int_equal(store_changes(s), 1);
	assert_int_equal(remove_vm(s, 1, &err), 0);
	assert_int_equal(check_invariants(s), 0);
	store_close(s);
}

static void test_two_daemons(void **state)
{
	CLEANUP_FREE char *path = file_of(state);
	struct store *s = open_ok(path), *second = NULL;
	struct error err;
	char pid[32];

	assert_int_equal(store_open(path, &second, &err), -EBUSY);
	snprintf(pid, sizeof(pid), "pid %d", getpid());
	assert_non_null(strstr(err.text, pid));
	assert_null(second);
	store_close(s);
	store_close(open_ok(path));
}

/* Kills the process at the statement whose turn it is. */
static int die_at(unsigned type, void *arg, void *statement, void *sql)
{
	int *left = arg;

	if (!(*left)--)
		raise(SIGKILL);
	return 0;
}

static void work(const char *path, int statements)
{
	struct store *s = NULL;

	if (store_open(path, &s, NULL))
		_exit(1);
	sqlite3_trace_v2(store_handle(s), SQLITE_TRACE_STMT, die_at, &statements);
	for (int i = 0; i < 4; i++)
		if (add_vm(s, 10 + i, NULL) || (i && remove_vm(s, 10 + i - 1, NULL)))
			_exit(2);
	_exit(0);
}

/* Returns how the child ended. */
static int child(const char *path, int statements, unsigned delay_us)
{
	pid_t pid = fork();
	int status = 0;

	if (!pid)
		work(path, statements);
	if (delay_us) {
		usleep(delay_us);
		kill(pid, SIGKILL);
	}
	assert_int_equal(process_wait(pid, &status), 0);
	return status;
}

static int check_after_kill(const char *path)
{
	struct store *s = open_ok(path);
	int64_t vms = check_invariants(s);

	assert_true(vms <= 2);
	assert_int_equal(store_run(s, NULL, "DELETE FROM cluster", ""), 0);
	assert_int_equal(check_invariants(s), 0);
	store_close(s);
	return vms;
}

static void test_killed_at_each_statement(void **state)
{
	CLEANUP_FREE char *path = file_of(state);
	unsigned whole = 0, n = 0;
	int status;

	do {
		status = child(path, n++, 0);
		assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
		whole += check_after_kill(path);
	} while (WIFSIGNALED(status));
	assert_true(n > 40 && whole > 10);
}

static void test_killed_any_time(void **state)
{
	CLEANUP_FREE char *path = file_of(state);

	srand(7);
	for (int i = 0; i < 40; i++) {
		child(path, 1000, 1000 + rand() % 20000);
		check_after_kill(path);
	}
}

static void test_full(void **state)
{
	CLEANUP_FREE char *path = file_of(state);
	struct store *s = open_ok(path);
	struct error err;
	int64_t n = 0, before;
	int r;

	ask(s, "PRAGMA max_page_count = 24");
	while (!(r = add_vm(s, n, &err)))
		n++;
	assert_int_equal(r, -ENOSPC);
	assert_non_null(strstr(err.text, "no space left"));
	before = check_invariants(s);
	assert_int_equal(before, n);
	assert_int_equal(add_vm(s, n + 1, &err), -ENOSPC);
	assert_int_equal(check_invariants(s), before);
	/* What is given back can be used. */
	for (int64_t i = 0; i < n; i++)
		assert_int_equal(remove_vm(s, i, &err), 0);
	assert_int_equal(add_vm(s, n + 1, &err), 0);
	store_close(s);
}

static void overwrite(const char *path, long offset, const char *text)
{
	CLEANUP_CLOSE int fd = open(path, O_WRONLY);

	assert_int_equal(pwrite(fd, text, strlen(text), offset), strlen(text));
}

static void test_damaged(void **state)
{
	CLEANUP_FREE char *path = file_of(state);
	char garbage[600];
	struct store *s;
	struct error err;

	for (long offset = 0; offset <= 4096; offset += 4096) {
		s = open_ok(path);
		for (int i = 0; i < 50; i++)
			assert_int_equal(add_vm(s, i, NULL), 0);
		store_close(s);
		s = NULL;
		memset(garbage, 'x', sizeof(garbage));
		garbage[sizeof(garbage) - 1] = 0;
		overwrite(path, offset, garbage);
		assert_int_equal(store_open(path, &s, &err), -EBADMSG);
		assert_null(s);
		assert_non_null(strstr(err.text, "move it away"));
		assert_int_equal(unlink(path), 0);
	}
}

static void test_truncated(void **state)
{
	CLEANUP_FREE char *path = file_of(state);
	struct store *s = open_ok(path);
	struct error err;

	assert_int_equal(add_vm(s, 1, NULL), 0);
	store_close(s);
	assert_int_equal(truncate(path, 5 * 4096 + 11), 0);
	assert_int_equal(store_open(path, &s, &err), -EBADMSG);
}

static void test_others_file(void **state)
{
	CLEANUP_FREE char *path = file_of(state);
	struct store *s = NULL;
	struct error err;
	sqlite3 *db;

	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	sqlite3_exec(db, "CREATE TABLE mine (x)", NULL, NULL, NULL);
	assert_int_equal(store_open(path, &s, &err), -EINVAL);
	sqlite3_exec(db,
		     "DROP TABLE mine; PRAGMA application_id = 0x57697370; "
		     "PRAGMA user_version = 99",
		     NULL, NULL, NULL);
	sqlite3_close(db);
	assert_int_equal(store_open(path, &s, &err), -EPROTONOSUPPORT);
	assert_non_null(strstr(err.text, "version 99"));
	assert_int_equal(store_open("/nonexistent/node.db", &s, &err), -ENOENT);
	assert_null(s);
}

/* A file of the first version gets the tables of this one, and keeps what is in it. */
static void test_migration(void **state)
{
	CLEANUP_FREE char *path = file_of(state);
	struct store *s;
	sqlite3 *db;

	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, store_schema[0], NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(
		sqlite3_exec(db,
			     "PRAGMA application_id = 0x57697370; PRAGMA user_version = 1;"
			     "INSERT INTO usage (cluster, vm, user, started, seen, cpus, cores, "
			     "memory, devices, cpu_us) VALUES ('c', 'v', 1, 1, 2, 1, 1, 1, 0, 77)",
			     NULL, NULL, NULL),
		SQLITE_OK);
	sqlite3_close(db);
	s = open_ok(path);
	assert_int_equal(ask(s, "PRAGMA user_version"), store_schema_version);
	assert_int_equal(ask(s, "SELECT cpu_us FROM usage"), 77);
	assert_int_equal(ask(s, "SELECT cpu_before FROM usage"), 0);
	store_close(s);
}

static void test_events(void **state)
{
	CLEANUP_FREE char *path = file_of(state);
	struct store *s = open_ok(path);

	assert_int_equal(store_begin(s, NULL), 0);
	for (int i = 0; i < 10100; i++)
		assert_int_equal(store_event(s, i, i % 2 ? "c" : NULL, NULL, "test", "x'y", NULL),
				 0);
	assert_int_equal(store_end(s, 0, NULL), 0);
	assert_int_equal(ask(s, "SELECT count(*) FROM event"), 10000);
	assert_int_equal(ask(s, "SELECT min(at) FROM event"), 100);
	assert_int_equal(ask(s, "SELECT count(*) FROM event WHERE cluster IS NULL"), 5000);
	store_close(s);
}

/* What another program counts; it has no other part in the database. */
static int count_elsewhere(const char *path)
{
	CLEANUP_FREE char *command =
		io_format("exec python3 -c \"import sqlite3, sys; d = sqlite3.connect('%s'); "
			  "n, = d.execute('SELECT count(*) FROM event').fetchone(); d.close(); "
			  "sys.exit(n)\"",
			  path);
	int status = system(command);

	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

/* Somebody reads while a daemon has it: what the daemon writes then is not lost. */
static void test_reader(void **state)
{
	CLEANUP_FREE char *path = file_of(state);
	struct store *s = open_ok(path);

	for (int i = 0; i < 3; i++) {
		assert_int_equal(count_elsewhere(path), i);
		assert_int_equal(store_begin(s, NULL), 0);
		assert_int_equal(store_event(s, i, NULL, NULL, "test", "", NULL), 0);
		assert_int_equal(store_end(s, 0, NULL), 0);
	}
	store_close(s);
	s = open_ok(path);
	assert_int_equal(ask(s, "SELECT count(*) FROM event"), 3);
	store_close(s);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, made_set_up, made_tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_open),
		TEST(test_one_owner),
		TEST(test_two_daemons),
		TEST(test_killed_at_each_statement),
		TEST(test_killed_any_time),
		TEST(test_full),
		TEST(test_damaged),
		TEST(test_truncated),
		TEST(test_others_file),
		TEST(test_migration),
		TEST(test_events),
		TEST(test_reader),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
