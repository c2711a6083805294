/* SPDX-License-Identifier: Apache-2.0 */
/* Whole reads and writes, files that are replaced whole or not at all, UNIX sockets. */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

/* Every test gets an empty folder and works in it. */
static int setup(void **state)
{
	char *dir = strdup("/tmp/wisp-test-io-XXXXXX");

	*state = dir;
	return mkdtemp(dir) && !chdir(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf '%s'", (char *)*state);
	free(*state);
	return chdir("/") || system(command);
}

static void *write_slowly(void *arg)
{
	int fd = *(int *)arg;

	for (unsigned i = 0; i < 10; i++) {
		usleep(1000);
		io_write_full(fd, "0123456789", 10);
	}
	close(fd);
	return NULL;
}

static void test_full(void **state)
{
	char buf[101] = {0};
	pthread_t thread;
	int p[2], fd;

	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	pthread_create(&thread, NULL, write_slowly, &p[1]);
	assert_int_equal(io_read_full(p[0], buf, 95), 0);
	assert_int_equal(io_read_full(p[0], buf, 6), -EPIPE);
	assert_int_equal(io_read_full(p[0], buf, 0), 0);
	pthread_join(thread, NULL);
	close(p[0]);
	assert_int_equal(io_read_full(-1, buf, 1), -EBADF);
	assert_int_equal(io_write_full(-1, buf, 1), -EBADF);

	fd = open("f", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(io_write_full(fd, "0123456789", 10), 0);
	assert_int_equal(io_pread_full(fd, buf, 4, 3), 0);
	assert_memory_equal(buf, "3456", 4);
	assert_int_equal(io_pread_full(fd, buf, 4, 7), -EPIPE);
	close(fd);
}

/* A peer that went away is an error, not a signal. */
static void test_no_sigpipe(void **state)
{
	int s[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s), 0);
	close(s[1]);
	assert_int_equal(io_write_full(s[0], "x", 1), -EPIPE);
	close(s[0]);
}

static void test_read_file(void **state)
{
	char big[10000];
	char *text = NULL;
	struct error err;

	memset(big, 'b', sizeof(big));
	assert_int_equal(io_write_file("f", big, sizeof(big), &err), 0);
	assert_int_equal(io_read_file("f", sizeof(big), &text, &err), sizeof(big));
	assert_memory_equal(text, big, sizeof(big));
	assert_int_equal(text[sizeof(big)], 0);
	free(take_ptr(text));
	assert_int_equal(io_read_file("f", sizeof(big) - 1, &text, &err), -EFBIG);
	assert_string_equal(err.text, "f is larger than 9999 bytes");
	assert_int_equal(io_read_file("f", 0, &text, &err), -EFBIG);
	assert_int_equal(io_write_file("empty", "", 0, &err), 0);
	assert_int_equal(io_read_file("empty", 0, &text, &err), 0);
	assert_string_equal(text, "");
	free(take_ptr(text));
	assert_int_equal(io_read_file("none", 10, &text, &err), -ENOENT);
	assert_string_equal(err.text, "cannot open none: No such file or directory");
	assert_int_equal(io_read_file(".", 10, &text, &err), -EISDIR);
	assert_null(text);
	/* Files whose size is not known before. */
	assert_true(io_read_file("/proc/self/status", 65536, &text, &err) > 100);
	free(text);
}

static unsigned entries(void)
{
	CLEANUP_DIR DIR *dir = opendir(".");
	unsigned n = 0;

	while (readdir(dir))
		n++;
	return n - 2;
}

static void test_replace_file(void **state)
{
	CLEANUP_FREE char *text = NULL;
	struct error err;
	struct stat st;

	assert_int_equal(io_write_file("f", "old", 3, &err), 0);
	assert_int_equal(stat("f", &st), 0);
	assert_int_equal(st.st_mode & 0777, 0644);
	assert_int_equal(io_write_file("f", "new", 3, &err), 0);
	assert_int_equal(io_read_file("f", 10, &text, &err), 3);
	assert_string_equal(text, "new");
	assert_int_equal(io_write_file("no/f", "x", 1, &err), -ENOENT);
	assert_non_null(strstr(err.text, "no/f"));
	assert_int_equal(mkdir("dir", 0700), 0);
	assert_int_equal(io_write_file("dir", "x", 1, &err), -EISDIR);
	assert_int_equal(entries(), 2);
}

/* No room: the old file stays and nothing else is left. */
static void test_replace_without_room(void **state)
{
	struct rlimit none = {.rlim_cur = 100, .rlim_max = RLIM_INFINITY}, old;
	CLEANUP_FREE char *text = NULL;
	char big[200] = {0};
	struct error err;

	getrlimit(RLIMIT_FSIZE, &old);
	none.rlim_max = old.rlim_max;
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(io_write_file("f", "old", 3, &err), 0);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
	assert_int_equal(io_write_file("f", big, sizeof(big), &err), -EFBIG);
	setrlimit(RLIMIT_FSIZE, &old);
	signal(SIGXFSZ, SIG_DFL);
	assert_string_equal(err.text, "cannot write f: File too large");
	assert_int_equal(io_read_file("f", 10, &text, &err), 3);
	assert_string_equal(text, "old");
	assert_int_equal(entries(), 1);
}

static void talk(int client, int server)
{
	char byte;
	int fd = accept4(server, NULL, NULL, SOCK_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(io_write_full(client, "x", 1), 0);
	assert_int_equal(io_read_full(fd, &byte, 1), 0);
	close(fd);
}

static void test_socket(void **state)
{
	struct error err;
	struct stat st;
	uid_t uid = 12345;
	pid_t pid = 0;
	int server = io_unix_listen("s", &err), client;

	assert_true(server >= 0);
	assert_int_equal(stat("s", &st), 0);
	assert_true(S_ISSOCK(st.st_mode));
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(fcntl(server, F_GETFD), FD_CLOEXEC);
	client = io_unix_connect("s", &err);
	assert_true(client >= 0);
	assert_int_equal(fcntl(client, F_GETFD), FD_CLOEXEC);
	talk(client, server);
	assert_int_equal(io_peer_uid(client, &uid, &pid), 0);
	assert_int_equal(uid, geteuid());
	assert_int_equal(pid, getpid());
	assert_int_equal(io_peer_uid(client, &uid, NULL), 0);
	assert_int_equal(io_peer_uid(0, &uid, NULL), -ENOTSOCK);
	close(client);
	/* Somebody answers there. */
	assert_int_equal(io_unix_listen("s", &err), -EADDRINUSE);
	assert_string_equal(err.text, "cannot listen on s: Address already in use");
	close(server);
}

static void test_stale_socket(void **state)
{
	struct error err;
	int server = io_unix_listen("s", &err);

	close(server); /* as if killed: the file stays */
	assert_int_equal(io_unix_connect("s", &err), -ECONNREFUSED);
	server = io_unix_listen("s", &err);
	assert_true(server >= 0);
	close(server);
	/* What is no socket is not ours to remove. */
	assert_int_equal(io_write_file("f", "x", 1, &err), 0);
	assert_int_equal(io_unix_listen("f", &err), -EADDRINUSE);
	assert_int_equal(symlink("s", "link"), 0);
	assert_int_equal(io_unix_listen("link", &err), -EADDRINUSE);
	assert_int_equal(access("f", F_OK), 0);
	assert_int_equal(access("link", F_OK), 0);
	assert_int_equal(io_unix_listen("none/s", &err), -ENOENT);
	assert_int_equal(io_unix_connect("none", &err), -ENOENT);
	assert_string_equal(err.text, "cannot connect to none: No such file or directory");
}

/* A hung server is a server: neither waited for nor replaced. */
static void test_full_backlog(void **state)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX, .sun_path = "s"};
	int server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct error err;
	int first, second;

	assert_int_equal(bind(server, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(server, 0), 0);
	first = io_unix_connect_nonblock("s", &err);
	assert_true(first >= 0);
	second = io_unix_connect_nonblock("s", &err);
	assert_int_equal(second, -EAGAIN);
	assert_int_equal(io_unix_listen("s", &err), -EADDRINUSE);
	close(first);
	close(server);
}

static void test_lock(void **state)
{
	int first = open("l", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	int second = open("l", O_RDWR | O_CLOEXEC), path = open("l", O_PATH | O_CLOEXEC);
	struct error err;

	assert_int_equal(io_lock(first, "l", &err), 0);
	assert_int_equal(io_lock(first, "l", &err), 0);
	assert_int_equal(io_lock(second, "l", &err), -EBUSY);
	close(first);
	assert_int_equal(io_lock(second, "l", &err), 0);
	close(second);
	assert_int_equal(io_lock(path, "l", &err), -EBADF);
	assert_string_equal(err.text, "cannot lock l: Bad file descriptor");
	close(path);
}

static void *listen_once(void *arg)
{
	*(int *)arg = io_unix_listen("s", NULL);
	return NULL;
}

/* Of servers that start together on a stale socket exactly one gets it, and keeps it. */
static void test_listen_race(void **state)
{
	for (unsigned round = 0; round < 50; round++) {
		pthread_t thread[4];
		int fd[4], won = 0, client;

		for (unsigned i = 0; i < 4; i++)
			assert_int_equal(pthread_create(&thread[i], NULL, listen_once, &fd[i]), 0);
		for (unsigned i = 0; i < 4; i++) {
			pthread_join(thread[i], NULL);
			won += fd[i] >= 0;
		}
		assert_int_equal(won, 1);
		client = io_unix_connect("s", NULL);
		assert_true(client >= 0);
		close(client);
		for (unsigned i = 0; i < 4; i++)
			if (fd[i] >= 0)
				close(fd[i]);
	}
}

static void test_long_path(void **state)
{
	CLEANUP_FREE char *path = NULL;
	char part[61] = {0}, name[200] = {0};
	struct error err;
	int server, client;

	memset(part, 'd', 60);
	path = io_format("%s/%s/%s/%s/s", (char *)*state, part, part, part);
	*strrchr(path, '/') = 0;
	assert_int_equal(io_make_dirs(path, 0700, &err), 0);
	path[strlen(path)] = '/';
	server = io_unix_listen(path, &err);
	assert_true(server >= 0);
	client = io_unix_connect(path, &err);
	assert_true(client >= 0);
	talk(client, server);
	close(client);
	assert_int_equal(io_unix_listen(path, &err), -EADDRINUSE);
	close(server);
	server = io_unix_listen(path, &err);
	assert_true(server >= 0);
	close(server);
	/* A name that does not fit itself, and a path that no file can have. */
	memset(name, 'n', 150);
	assert_int_equal(io_unix_listen(name, &err), -ENAMETOOLONG);
	free(path);
	path = calloc(1, PATH_MAX + 10);
	memset(path, 'p', PATH_MAX + 5);
	assert_int_equal(io_unix_listen(path, &err), -ENAMETOOLONG);
	assert_int_equal(io_make_dirs(path, 0700, &err), -ENAMETOOLONG);
	/* No file, no permissions: not an address we use. */
	assert_int_equal(io_unix_listen("", &err), -ENOENT);
	assert_int_equal(io_unix_connect("", &err), -ENOENT);
}

static void test_make_dirs(void **state)
{
	CLEANUP_FREE char *absolute = io_format("%s/x/y", (char *)*state);
	struct error err;
	struct stat st;

	assert_int_equal(io_make_dirs("a/b//c", 0700, &err), 0);
	assert_int_equal(stat("a/b/c", &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	assert_int_equal(io_make_dirs("a/b/c/", 0700, &err), 0);
	assert_int_equal(io_make_dirs(absolute, 0700, &err), 0);
	assert_int_equal(io_make_dirs("/", 0700, &err), 0);
	assert_int_equal(io_make_dirs(".", 0700, &err), 0);
	assert_int_equal(io_make_dirs("", 0700, &err), -ENOENT);
	assert_int_equal(io_write_file("f", "x", 1, &err), 0);
	assert_int_equal(io_make_dirs("f/g", 0700, &err), -ENOTDIR);
	assert_int_equal(io_make_dirs("f", 0700, &err), -ENOTDIR);
	assert_string_equal(err.text, "cannot create directory f: Not a directory");
}

static void test_format(void **state)
{
	CLEANUP_FREE char *text = io_format("%s-%d", "a", 5);
	uint64_t before = io_now_ns();

	assert_string_equal(text, "a-5");
	usleep(1000);
	assert_true(io_now_ns() - before >= 1000000);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(full),
		TEST(no_sigpipe),
		TEST(read_file),
		TEST(replace_file),
		TEST(replace_without_room),
		TEST(socket),
		TEST(stale_socket),
		TEST(full_backlog),
		TEST(lock),
		TEST(listen_race),
		TEST(long_path),
		TEST(make_dirs),
		TEST(format),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
