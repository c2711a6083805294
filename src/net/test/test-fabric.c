/* SPDX-License-Identifier: Apache-2.0 */
/* Networks of clusters: who may open what, who hears whom, what is left. Needs root. */

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "net/client.h"
#include "net/fabric.h"
#include "net/keeper.h"
#include "net/link.h"

#define USER 54321
#define OTHER 54322

struct fixture {
	char dir[64], a[96], b[96];
};

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	strcpy(f->dir, "/tmp/test-fabric.XXXXXX");
	if (!mkdtemp(f->dir))
		return -1;
	snprintf(f->a, sizeof(f->a), "%s/a", f->dir);
	snprintf(f->b, sizeof(f->b), "%s/b", f->dir);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	fabric_destroy(f->a, NULL);
	fabric_destroy(f->b, NULL);
	assert_int_equal(rmdir(f->dir), 0);
	free(f);
	return 0;
}

static void good(int r, const struct error *err)
{
	if (r)
		print_error("%s\n", err->text);
	assert_int_equal(r, 0);
}

static void make(const char *path, uint32_t vni, uint32_t local)
{
	struct error err;

	good(fabric_create(path, vni, local, &err), &err);
}

static void tap(const char *path, const char *name, uid_t uid)
{
	struct error err;

	good(fabric_add_tap(path, name, uid, &err), &err);
}

/*
 * In a process of the user inside: opens the taps, sends a frame to all by the first and answers
 * by bits which of the others it came out of; or -1, when the first cannot be opened.
 */
static int try_taps(const char *path, uid_t uid, const char *const *names)
{
	static const uint8_t frame[12 + 60] = {[12] = 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2,
					       0,	    0,	  0,	0,    1,    0x88, 0xb5};
	pid_t pid = fork();
	int status;

	if (!pid) {
		int fds[4], heard = 0;
		uint8_t got[2048];

		if (fabric_enter(path, NULL) || setgid(uid) || setuid(uid))
			_exit(99);
		for (int i = 0; names[i]; i++)
			if (fabric_open_tap(names[i], &fds[i], NULL))
				_exit(98);
		usleep(100000); /* carrier */
		if (write(fds[0], frame, sizeof(frame)) != sizeof(frame))
			_exit(97);
		for (int i = 1; names[i]; i++) {
			struct pollfd p = {.fd = fds[i], .events = POLLIN};

			while (poll(&p, 1, 500) == 1 && read(fds[i], got, sizeof(got)) > 0)
				if (!memcmp(got + 12, frame + 12, 14))
					heard |= 1 << (i - 1);
		}
		_exit(heard);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_true(WEXITSTATUS(status) != 99 && WEXITSTATUS(status) != 97);
	return WEXITSTATUS(status) == 98 ? -1 : WEXITSTATUS(status);
}

static void test_taps(void **state)
{
	struct fixture *f = *state;
	const char *const both[] = {"vm2", "vm3", NULL};
	const char *const one[] = {"vm2", NULL}, *const none[] = {"vm9", NULL};

	make(f->a, 77, 0);
	tap(f->a, "vm2", USER);
	tap(f->a, "vm3", USER);
	assert_int_equal(try_taps(f->a, USER, both), 1);
	/* A reboot opens it again. */
	assert_int_equal(try_taps(f->a, USER, both), 1);
	assert_int_equal(try_taps(f->a, OTHER, one), -1);
	assert_int_equal(try_taps(f->a, USER, none), -1);
	assert_int_equal(fabric_remove_tap(f->a, "vm3", NULL), 0);
	assert_int_equal(try_taps(f->a, USER, both), -1);
	assert_int_equal(fabric_remove_tap(f->a, "vm3", NULL), -ENODEV);
	tap(f->a, "vm3", USER);
	assert_int_equal(try_taps(f->a, USER, both), 1);
}

/* The user inside has no right to devices: neither to add nor to change any. */
static void test_no_rights(void **state)
{
	struct fixture *f = *state;
	int status;
	pid_t pid;

	make(f->a, 77, 0x7f000001);
	pid = fork();
	if (!pid) {
		int fd;

		if (fabric_enter(f->a, NULL) || setgid(USER) || setuid(USER))
			_exit(99);
		_exit((link_add_bridge("x", NULL, NULL) != -EPERM) |
		      (link_remove("nodes", NULL) != -EPERM) << 1 |
		      (link_join("nodes", "wisp0", NULL) != -EPERM) << 2 |
		      (link_add_tap("x", "wisp0", &fd, NULL) == 0) << 3);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void test_numbers(void **state)
{
	struct fixture *f = *state;
	const uint32_t nodes[] = {0x7f000002, 0x7f000003};
	struct error err;

	make(f->a, 77, 0x7f000001);
	good(fabric_add_nodes(f->a, nodes, 2, &err), &err);
	good(fabric_add_nodes(f->a, nodes, 2, &err), &err);
	good(fabric_remove_nodes(f->a, nodes, 1, &err), &err);
	good(fabric_remove_nodes(f->a, nodes, 1, &err), &err);
	assert_int_equal(fabric_create(f->b, 77, 0x7f000001, &err), -EEXIST);
	assert_non_null(strstr(err.text, "VXLAN 77 is in use"));
	assert_int_equal(access(f->b, F_OK), -1);
	make(f->b, 78, 0x7f000001);
	assert_int_equal(fabric_create(f->a, 79, 0, &err), -EEXIST);
	/* What is gone is free again. */
	good(fabric_destroy(f->a, &err), &err);
	good(fabric_destroy(f->a, &err), &err);
	make(f->a, 77, 0x7f000001);
}

/* Where no network could be finished there is an empty file. */
static void test_half_made(void **state)
{
	struct fixture *f = *state;
	struct error err;
	FILE *file = fopen(f->a, "w");

	fclose(file);
	assert_int_equal(fabric_add_tap(f->a, "vm2", USER, &err), -ENOENT);
	assert_int_equal(fabric_enter(f->a, &err), -ENOENT);
	good(fabric_destroy(f->a, &err), &err);
	assert_int_equal(access(f->a, F_OK), -1);
}

/* A process that stays inside keeps neither the number nor a way to others. */
static void test_stays_inside(void **state)
{
	struct fixture *f = *state;
	struct error err;
	int pipes[2];
	char c;
	pid_t pid;

	make(f->a, 77, 0x7f000001);
	assert_int_equal(pipe(pipes), 0);
	pid = fork();
	if (!pid) {
		close(pipes[0]);
		if (fabric_enter(f->a, NULL) || write(pipes[1], "x", 1) != 1)
			_exit(1);
		pause();
	}
	close(pipes[1]);
	assert_int_equal(read(pipes[0], &c, 1), 1);
	good(fabric_destroy(f->a, &err), &err);
	make(f->b, 77, 0x7f000001);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	close(pipes[0]);
}

/* What the node's daemon does for a user: namespaces, then the user, then the keeper. */
static _Noreturn void start_keeper(const struct fixture *f, const char *dir)
{
	const struct net_config config = {.name = "test", .dir = dir, .entered = true};
	struct error err = {""};
	int leash, r;

	if (fabric_enter(f->a, &err) || unshare(CLONE_NEWPID) || setgid(USER) || setuid(USER))
		_exit(99);
	r = net_keeper_start(&config, &leash, &err);
	if (!r)
		r = net_keeper_release(&leash);
	if (r)
		fprintf(stderr, "%s\n", err.text);
	_exit(r ? 1 : 0);
}

/* The rest of what the user does: asks the keeper for taps, ends it. */
static _Noreturn void use_keeper(const char *dir)
{
	int control, tap = -1, other = -1, bad;

	if (setgid(USER) || setuid(USER))
		_exit(99);
	control = net_connect(dir, NULL);
	bad = control < 0;
	bad |= (net_tap(control, "vm2", &tap, NULL) != 0) << 1;
	bad |= (net_tap(control, "vm9", &other, NULL) == 0) << 2;
	bad |= (net_stop(dir, NULL) != 1) << 3;
	bad |= (access(dir, F_OK) == 0) << 4;
	_exit(bad);
}

static void test_keeper(void **state)
{
	struct fixture *f = *state;
	char home[80], dir[96];
	int status;
	pid_t pid;

	snprintf(home, sizeof(home), "%s/home", f->dir);
	snprintf(dir, sizeof(dir), "%s/net", home);
	assert_int_equal(chmod(f->dir, 0711), 0);
	assert_int_equal(mkdir(home, 0700), 0);
	assert_int_equal(chown(home, USER, USER), 0);
	make(f->a, 77, 0);
	tap(f->a, "vm2", USER);
	pid = fork();
	if (!pid)
		start_keeper(f, dir);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	pid = fork();
	if (!pid)
		use_keeper(dir);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(rmdir(home), 0);
}

/* As udev makes it; containers may have it for root only. */
static int open_tun(void)
{
	return mount("tmpfs", "/dev/net", "tmpfs", 0, "mode=0755") < 0 ||
	       mknod("/dev/net/tun", S_IFCHR | 0666, makedev(10, 200)) < 0 ||
	       chmod("/dev/net/tun", 0666) < 0;
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_taps),      TEST(test_no_rights),    TEST(test_numbers),
		TEST(test_half_made), TEST(test_stays_inside), TEST(test_keeper),
	};

	if (geteuid()) {
		printf("1..0 # SKIP needs root\n");
		return 0;
	}
	/* The host's own VXLAN numbers and mounts are not in the way. */
	if (unshare(CLONE_NEWNET | CLONE_NEWNS) < 0 ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || open_tun() ||
	    link_up("lo", NULL)) {
		printf("1..0 # SKIP no network namespace: %s\n", strerror(errno));
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
