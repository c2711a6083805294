/* SPDX-License-Identifier: Apache-2.0 */
/* Copies: trees arrive whole, and a hostile sender writes nothing elsewhere. */

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "agent/copy.h"
#include "agent/proto.h"
#include "lib/error.h"
#include "lib/io.h"

struct fixture {
	char dir[64]; /* "outside" and "dest" are in it; it is the working directory */
	int fds[2];
};

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	strcpy(f->dir, "/tmp/test-copy.XXXXXX");
	if (!mkdtemp(f->dir) || chdir(f->dir) < 0 || mkdir("dest", 0700) < 0 ||
	    mkdir("outside", 0700) < 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, f->fds) < 0)
		return -1;
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;
	char command[128];

	close(f->fds[0]);
	close(f->fds[1]);
	snprintf(command, sizeof(command), "rm -rf %s", f->dir);
	if (chdir("/") < 0 || system(command))
		return -1;
	free(f);
	return 0;
}

static void put(const char *path, const char *text)
{
	assert_int_equal(io_write_file(path, text, strlen(text), NULL), 0);
}

static void expect_text(const char *path, const char *text)
{
	char *got = NULL;

	assert_true(io_read_file(path, 4096, &got, NULL) >= 0);
	assert_string_equal(got, text);
	free(got);
}

struct sending {
	int fd, result;
	const char *path;
};

static void *send_thread(void *arg)
{
	struct sending *s = arg;
	struct channel ch;
	struct copy copy = {.channel = &ch};

	channel_init(&ch, s->fd);
	s->result = copy_send(&copy, s->path, NULL);
	channel_done(&ch);
	return NULL;
}

static int receive(int fd, const char *dest, const char *name, struct error *err)
{
	struct channel ch;
	struct copy copy = {.channel = &ch};
	int r;

	channel_init(&ch, fd);
	r = copy_receive(&copy, dest, name, err);
	channel_done(&ch);
	return r;
}

static int copy_tree(struct fixture *f, const char *from, const char *dest, const char *name)
{
	struct sending s = {.fd = f->fds[0], .path = from};
	struct error err = {""};
	pthread_t thread;
	int r;

	assert_int_equal(pthread_create(&thread, NULL, send_thread, &s), 0);
	r = receive(f->fds[1], dest, name, &err);
	pthread_join(thread, NULL);
	return r ? r : s.result;
}

static void test_tree(void **state)
{
	struct fixture *f = *state;
	struct timespec t[2] = {{1000000000, 123456789}, {1000000000, 123456789}};
	struct stat st;
	char target[64] = "";

	assert_int_equal(mkdir("src", 0750), 0);
	assert_int_equal(mkdir("src/empty", 0700), 0);
	assert_int_equal(mkdir("src/sub", 0500), 0);
	put("src/file", "text");
	put("src/none", "");
	assert_int_equal(chmod("src/file", 04640), 0);
	assert_int_equal(utimensat(AT_FDCWD, "src/file", t, 0), 0);
	assert_int_equal(symlink("../somewhere", "src/link"), 0);
	assert_int_equal(mkfifo("src/fifo", 0600), 0);
	assert_int_equal(copy_tree(f, "src", "dest", "src"), 0);
	expect_text("dest/src/file", "text");
	expect_text("dest/src/none", "");
	assert_int_equal(stat("dest/src/file", &st), 0);
	assert_int_equal(st.st_mode, S_IFREG | 0640);
	assert_int_equal(st.st_mtim.tv_sec, 1000000000);
	assert_int_equal(st.st_mtim.tv_nsec, 123456789);
	assert_int_equal(stat("dest/src", &st), 0);
	assert_int_equal(st.st_mode, S_IFDIR | 0750);
	assert_int_equal(stat("dest/src/sub", &st), 0);
	assert_int_equal(st.st_mode, S_IFDIR | 0500);
	assert_int_equal(readlink("dest/src/link", target, sizeof(target) - 1), 12);
	assert_string_equal(target, "../somewhere");
	assert_int_equal(access("dest/src/fifo", F_OK), -1);
	chmod("src/sub", 0700);
	chmod("dest/src/sub", 0700);
}

/* Into a directory by the source's name, or to a name of its own; onto what is there. */
/* A directory that was there stays what it is: /tmp keeps its sticky bit. */
static void test_existing_directory(void **state)
{
	struct stat st;

	assert_int_equal(mkdir("src", 0700), 0);
	put("src/file", "x");
	assert_int_equal(mkdir("dest/src", 0700), 0);
	assert_int_equal(chmod("dest/src", 01777), 0);
	assert_int_equal(copy_tree(*state, "src", "dest", "src"), 0);
	expect_text("dest/src/file", "x");
	assert_int_equal(stat("dest/src", &st), 0);
	assert_int_equal(st.st_mode & 07777, 01777);
}

static void test_destinations(void **state)
{
	struct fixture *f = *state;
	struct error err;

	put("a", "1");
	assert_int_equal(copy_tree(f, "a", "dest", "a"), 0);
	expect_text("dest/a", "1");
	put("a", "2");
	assert_int_equal(copy_tree(f, "a", "dest/", "a"), 0);
	expect_text("dest/a", "2");
	assert_int_equal(copy_tree(f, "a", "dest/b", "a"), 0);
	expect_text("dest/b", "2");
	assert_int_equal(receive(f->fds[1], "dest", NULL, &err), -EINVAL);
	assert_int_equal(receive(f->fds[1], "no/where", "a", &err), -ENOENT);
	/* A link that is there is replaced, not followed. */
	put("outside/victim", "safe");
	assert_int_equal(symlink("../outside/victim", "dest/c"), 0);
	assert_int_equal(copy_tree(f, "a", "dest/c", "a"), 0);
	expect_text("dest/c", "2");
	expect_text("outside/victim", "safe");
}

static void put_entry(int fd, enum entry_kind kind, const char *name, const char *target)
{
	struct entry e = {.kind = kind, .mode = 0755};
	struct buffer b = {0};

	snprintf(e.name, sizeof(e.name), "%s", name);
	snprintf(e.target, sizeof(e.target), "%s", target);
	assert_int_equal(frame_append_entry(&b, &e), 0);
	assert_int_equal(io_write_full(fd, b.data + b.start, buffer_used(&b)), 0);
	buffer_done(&b);
}

static void put_frame(int fd, enum frame_type type, const char *text)
{
	struct channel ch = {.fd = fd};

	assert_int_equal(channel_send(&ch, type, text, strlen(text), NULL), 0);
}

static void test_names(void **state)
{
	static const char *const names[] = {"..", ".", "a/b", "/abs", "../outside/x", ""};

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		struct error err;
		int fds[2];

		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
		put_entry(fds[0], ENTRY_DIR, "", "");
		put_entry(fds[0], ENTRY_FILE, names[i], "");
		assert_int_equal(receive(fds[1], "dest", "src", &err), -EPROTO);
		close(fds[0]);
		close(fds[1]);
	}
}

/* A link to elsewhere, then a directory or a file "below" it. */
static void test_link_then_directory(void **state)
{
	struct fixture *f = *state;
	struct error err;

	put_entry(f->fds[0], ENTRY_DIR, "", "");
	put_entry(f->fds[0], ENTRY_LINK, "x", "../../outside");
	put_entry(f->fds[0], ENTRY_DIR, "x", "");
	put_entry(f->fds[0], ENTRY_FILE, "evil", "");
	put_frame(f->fds[0], FRAME_DATA, "");
	put_frame(f->fds[0], FRAME_LEAVE, "");
	assert_true(receive(f->fds[1], "dest", "src", &err) < 0);
	assert_int_equal(access("outside/evil", F_OK), -1);
}

static void test_link_then_file(void **state)
{
	struct fixture *f = *state;
	struct error err;

	put("outside/victim", "safe");
	put_entry(f->fds[0], ENTRY_DIR, "", "");
	put_entry(f->fds[0], ENTRY_LINK, "x", "../../outside/victim");
	put_entry(f->fds[0], ENTRY_FILE, "x", "");
	put_frame(f->fds[0], FRAME_DATA, "evil");
	put_frame(f->fds[0], FRAME_DATA, "");
	put_frame(f->fds[0], FRAME_LEAVE, "");
	put_frame(f->fds[0], FRAME_DONE, "");
	assert_int_equal(receive(f->fds[1], "dest", "src", &err), 0);
	expect_text("outside/victim", "safe");
	expect_text("dest/src/x", "evil");
}

/* LEAVE more often than entered, entries out of place, no end. */
static void test_disorder(void **state)
{
	static const enum frame_type orders[][3] = {
		{FRAME_LEAVE, FRAME_LEAVE, FRAME_LEAVE},
		{FRAME_DATA, FRAME_DATA, FRAME_DATA},
		{FRAME_DONE, FRAME_DONE, FRAME_DONE},
		{FRAME_STDOUT, FRAME_EXIT, FRAME_EXIT},
	};

	for (unsigned i = 0; i < sizeof(orders) / sizeof(orders[0]); i++) {
		struct error err;
		int fds[2];

		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
		put_entry(fds[0], ENTRY_DIR, "", "");
		for (unsigned k = 0; k < 3; k++)
			put_frame(fds[0], orders[i][k],
				  orders[i][k] == FRAME_EXIT ? "12345678" : "");
		close(fds[0]);
		assert_true(receive(fds[1], "dest", "src", &err) < 0);
		close(fds[1]);
	}
}

static void test_too_deep(void **state)
{
	struct fixture *f = *state;
	struct error err;

	put_entry(f->fds[0], ENTRY_DIR, "", "");
	for (unsigned i = 0; i < PROTO_MAX_DEPTH; i++)
		put_entry(f->fds[0], ENTRY_DIR, "d", "");
	assert_int_equal(receive(f->fds[1], "dest", "src", &err), -ELOOP);
}

/* A connection that breaks leaves no half file and no temporary one. */
static void test_broken(void **state)
{
	struct fixture *f = *state;
	struct error err;

	put("dest/file", "old");
	put_entry(f->fds[0], ENTRY_FILE, "", "");
	put_frame(f->fds[0], FRAME_DATA, "half");
	shutdown(f->fds[0], SHUT_WR);
	assert_int_equal(receive(f->fds[1], "dest/file", "x", &err), -EPIPE);
	expect_text("dest/file", "old");
	assert_int_equal(unlink("dest/file"), 0);
	assert_int_equal(rmdir("dest"), 0);
	assert_int_equal(mkdir("dest", 0700), 0);
}

static void test_base_names(void **state)
{
	static const struct {
		const char *path, *name;
	} rows[] = {{"a", "a"},	    {"/a/b", "b"},  {"a/b//", "b"}, {"", NULL},
		    {"/", NULL},    {"//", NULL},   {".", NULL},    {"..", NULL},
		    {"a/..", NULL}, {"a/./", NULL}, {"..a", "..a"}};

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char *name = copy_base_name(rows[i].path);

		if (rows[i].name)
			assert_string_equal(name, rows[i].name);
		else
			assert_null(name);
		free(name);
	}
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_tree),	   TEST(test_destinations), TEST(test_existing_directory),
		TEST(test_names),	   TEST(test_disorder),	    TEST(test_link_then_directory),
		TEST(test_link_then_file), TEST(test_too_deep),	    TEST(test_broken),
		TEST(test_base_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
