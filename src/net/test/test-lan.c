/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Networks of clusters on the nodes' own: two nodes' interfaces are the ends of a cable. Who hears
 * whom by the descriptors that root opens for a user, what is refused, what is left. Needs root.
 */

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "net/fabric.h"
#include "net/held.h"
#include "net/lan.h"
#include "net/link.h"

#define USER 54321
#define HEADER 12

struct fixture {
	char dir[64], path[3][96]; /* of clusters, on nodes */
	int home;
};

static void good(int r, const struct error *err)
{
	if (r)
		print_error("%s\n", err->text);
	assert_int_equal(r, 0);
}

/* The test is in a namespace of its own: no device of the machine is touched. */
static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct error err;
	int space;

	strcpy(f->dir, "/tmp/test-lan.XXXXXX");
	if (!mkdtemp(f->dir))
		return -1;
	for (int i = 0; i < 3; i++)
		snprintf(f->path[i], sizeof(f->path[i]), "%s/%d", f->dir, i);
	f->home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	if (unshare(CLONE_NEWNET))
		return -1;
	space = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	good(link_add_pair("node0", "node1", space, &err), &err);
	close(space);
	good(link_up("node0", &err), &err);
	good(link_up("node1", &err), &err);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i < 3; i++)
		fabric_destroy(f->path[i], NULL);
	assert_int_equal(rmdir(f->dir), 0);
	assert_int_equal(setns(f->home, CLONE_NEWNET), 0);
	close(f->home);
	free(f);
	return 0;
}

static int make(const char *path, const char *parent, unsigned vlan, const char *const *taps,
		struct error *err)
{
	struct lan lan = {.parent = parent, .vlan = vlan};
	int r;

	good(fabric_create(path, 77, 0, err), err);
	r = fabric_join_lan(path, &lan, err);
	for (; !r && *taps; taps++)
		r = fabric_add_macvtap(path, &lan, *taps, err);
	return r;
}

/* As the keeper gets it: root opens it inside. */
static int open_tap(const char *path, const char *name)
{
	CLEANUP_CLOSE int here = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	struct error err;
	int fd = -1, size = HEADER;

	good(fabric_enter(path, &err), &err);
	good(lan_open_tap(name, &fd, &err), &err);
	good(lan_tap_check(fd, name, &err), &err);
	assert_int_equal(ioctl(fd, TUNSETVNETHDRSZ, &size), 0);
	assert_int_equal(lan_tap_check(fd, "vm99", &err), -EINVAL);
	assert_int_equal(setns(here, CLONE_NEWNET), 0);
	return fd;
}

/* As wisp-vmm does. */
static int claim(int fd, uint8_t last)
{
	struct ifreq ifr = {.ifr_hwaddr = {ARPHRD_ETHER, {2, 0x57, 10, 78, 0, (char)last}}};

	return ioctl(fd, SIOCSIFHWADDR, &ifr) < 0 ? -errno : 0;
}

/* A frame from one address to another; 255: to all. */
static void say(int fd, uint8_t from, uint8_t to)
{
	uint8_t frame[HEADER + 60] = {0}, *p = frame + HEADER;
	const uint8_t mac[] = {2, 0x57, 10, 78, 0, 0};

	memcpy(p, mac, 5);
	memcpy(p + 6, mac, 5);
	p[5] = to;
	p[11] = from;
	p[12] = 0x88;
	p[13] = 0xb5;
	if (to == 255)
		memset(p, 0xff, 6);
	assert_int_equal(write(fd, frame, sizeof(frame)), sizeof(frame));
}

/* Whether a frame from there comes, of those that wait. */
static bool hears(int fd, uint8_t from)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	uint8_t got[2048];
	bool heard = false;

	while (poll(&p, 1, 200) == 1 && read(fd, got, sizeof(got)) > HEADER + 14)
		heard |= got[HEADER + 12] == 0x88 && got[HEADER + 13] == 0xb5 &&
			 got[HEADER + 11] == from;
	return heard;
}

static const char *const two[] = {"vm2", "vm3", NULL}, *const one[] = {"vm4", NULL};

/* Three machines on two nodes, with tags or without. */
static void talk(struct fixture *f, unsigned vlan)
{
	int a, b, c;
	struct error err;

	good(make(f->path[0], "node0", vlan, two, &err), &err);
	good(make(f->path[1], "node1", vlan, one, &err), &err);
	a = open_tap(f->path[0], "vm2");
	b = open_tap(f->path[0], "vm3");
	c = open_tap(f->path[1], "vm4");
	/* From here on without any right. */
	assert_int_equal(seteuid(USER), 0);
	/* Nothing before it is attached. */
	say(a, 2, 255);
	assert_false(hears(b, 2));
	lan_tap_attach(a);
	lan_tap_attach(b);
	lan_tap_attach(c);
	assert_int_equal(claim(a, 2), 0);
	assert_int_equal(claim(b, 3), 0);
	assert_int_equal(claim(c, 4), 0);
	say(a, 2, 255);
	assert_true(hears(b, 2));
	assert_true(hears(c, 2));
	say(c, 4, 2);
	assert_true(hears(a, 4));
	assert_false(hears(b, 4));
	say(b, 3, 2);
	assert_true(hears(a, 3));
	/* Two machines of one address on a node. */
	assert_int_equal(claim(b, 2), -EADDRINUSE);
	/* The machine moves: frames go where it is, also those of its old neighbour. */
	lan_tap_rest(b);
	assert_int_equal(claim(c, 3), 0);
	say(a, 2, 3);
	assert_true(hears(c, 2));
	assert_false(hears(b, 2));
	assert_int_equal(seteuid(0), 0);
	/* Its end leaves descriptors that lead nowhere. */
	good(fabric_destroy(f->path[0], &err), &err);
	assert_true(write(a, "x", 1) < 0);
	assert_int_equal(claim(a, 2), -ENOLINK);
	close(a);
	close(b);
	close(c);
}

static void test_talk(void **state)
{
	talk(*state, 0);
}

static void test_talk_tagged(void **state)
{
	talk(*state, 7);
}

/* A cluster of another VLAN hears nothing; a VLAN is one cluster's on a node. */
static void test_vlans(void **state)
{
	struct fixture *f = *state;
	struct error err;
	int a, b;

	good(make(f->path[0], "node0", 7, two, &err), &err);
	good(make(f->path[1], "node1", 8, one, &err), &err);
	assert_int_equal(make(f->path[2], "node0", 7, one, &err), -EBUSY);
	assert_non_null(strstr(err.text, "VLAN 7 of node0 is in use"));
	a = open_tap(f->path[0], "vm2");
	b = open_tap(f->path[1], "vm4");
	lan_tap_attach(a);
	lan_tap_attach(b);
	assert_int_equal(claim(a, 2), 0);
	/* The same address in another VLAN: clusters have the same. */
	assert_int_equal(claim(b, 2), 0);
	say(a, 2, 255);
	say(a, 2, 4);
	assert_false(hears(b, 2));
	good(fabric_destroy(f->path[2], &err), &err);
	good(fabric_destroy(f->path[0], &err), &err);
	good(make(f->path[2], "node0", 7, one, &err), &err);
	close(a);
	close(b);
}

static void test_refused(void **state)
{
	struct fixture *f = *state;
	struct lan lan = {.parent = "node0"};
	struct error err;

	assert_int_equal(make(f->path[0], "node9", 0, two, &err), -ENODEV);
	assert_non_null(strstr(err.text, "no interface node9"));
	good(fabric_destroy(f->path[0], &err), &err);
	good(make(f->path[0], "node0", 0, two, &err), &err);
	/* What is there stays; what is taken away is. */
	good(fabric_add_macvtap(f->path[0], &lan, "vm2", &err), &err);
	good(fabric_remove_tap(f->path[0], "vm2", &err), &err);
	assert_int_equal(fabric_remove_tap(f->path[0], "vm2", &err), -ENODEV);
	/* Who is inside without rights makes and opens none. */
	if (!fork()) {
		int fd;

		if (fabric_enter(f->path[0], NULL) || setgid(USER) || setuid(USER))
			_exit(9);
		_exit(!lan_open_tap("vm3", &fd, NULL) || !lan_begin(&lan, NULL));
	} else {
		int status;

		wait(&status);
		assert_int_equal(status, 0);
	}
}

/* A tap that is given twice: the one that a machine may have stays the one that hears. */
static void test_held(void **state)
{
	struct fixture *f = *state;
	struct held held = {0};
	struct error err;
	int fd, other, more;

	good(make(f->path[0], "node0", 0, two, &err), &err);
	other = open_tap(f->path[0], "vm3");
	assert_int_equal(held_open(&held, "vm2", &fd), -ENOENT);
	assert_int_equal(held_add(&held, "vm2", dup(other), &err), -EINVAL);
	good(held_add(&held, "vm2", open_tap(f->path[0], "vm2"), &err), &err);
	assert_int_equal(held_open(&held, "vm2", &fd), 0);
	assert_int_equal(claim(fd, 2), 0);
	more = open_tap(f->path[0], "vm2");
	for (unsigned i = 0; i < 8; i++)
		say(other, i, 255);
	for (unsigned i = 0; i < 8; i++)
		say(other, 8, 2);
	assert_true(hears(fd, 8));
	assert_false(hears(more, 8));
	good(held_add(&held, "vm2", more, &err), &err);
	/* It ends with frames in it, and starts again without. */
	say(other, 9, 2);
	close(fd);
	held_rest(&held, "vm2");
	held_rest(&held, "vm9");
	say(other, 9, 255);
	assert_int_equal(held_open(&held, "vm2", &fd), 0);
	assert_false(hears(fd, 9));
	say(other, 10, 255);
	assert_true(hears(fd, 10));
	close(fd);
	close(other);
	held_done(&held);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

/* Whether the kernel has macvtap, on a device with tags. The reason is told else. */
static bool can(unsigned vlan)
{
	struct fixture *f;
	struct error err;
	int r;

	if (set_up((void **)&f))
		return false;
	r = make(f->path[0], "node0", vlan, two, &err);
	tear_down((void **)&f);
	if (r == -EOPNOTSUPP)
		printf("# %s\n", err.text);
	return r != -EOPNOTSUPP;
}

int main(void)
{
	const struct CMUnitTest tests[] = {TEST(test_talk), TEST(test_refused), TEST(test_held)};
	const struct CMUnitTest tagged[] = {TEST(test_talk), TEST(test_refused), TEST(test_held),
					    TEST(test_talk_tagged), TEST(test_vlans)};

	if (geteuid()) {
		printf("1..0 # SKIP needs root\n");
		return 0;
	}
	/* The machine's own mounts are not in the way. */
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    !can(0)) {
		printf("1..0 # SKIP no mount namespace, or no macvtap\n");
		return 0;
	}
	return can(7) ? cmocka_run_group_tests(tagged, NULL, NULL)
		      : cmocka_run_group_tests(tests, NULL, NULL);
}
