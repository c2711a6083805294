/* SPDX-License-Identifier: Apache-2.0 */
/* Networks of clusters: made by root inside a network namespace that a file keeps. */

#include "net/fabric.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "net/lan.h"
#include "net/link.h"
#include "net/netlink.h"
#include "net/outside.h"
#include "net/vxlan-guard.h"
#include "net/vxlan.h"

#define OWN_NAMESPACE "/proc/thread-self/ns/net"
#define BRIDGE "wisp0"
#define NODES "nodes"

/* -------- going in and coming back -------- */

static int open_namespace(const char *path, struct error *err)
{
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct statfs fs;

	if (fd < 0)
		return error_errno(err, -errno, "cannot open network %s", path);
	/* One whose making was cut off is an empty file. */
	if (fstatfs(fd, &fs) < 0 || fs.f_type != NSFS_MAGIC)
		return error_set(err, -ENOENT, "%s is no network", path);
	return take_fd(&fd);
}

int fabric_enter(const char *path, struct error *err)
{
	CLEANUP_CLOSE int fd = open_namespace(path, err);

	if (fd < 0)
		return fd;
	return setns(fd, CLONE_NEWNET) < 0
		       ? error_errno(err, -errno, "cannot enter network %s", path)
		       : 0;
}

/* Where we come from; what is done elsewhere by mistake would be done to the host. */
static int leave(int home)
{
	if (setns(home, CLONE_NEWNET) < 0)
		abort();
	return 0;
}

struct action {
	int (*run)(const struct action *a, struct error *err);
	const char *name;
	uid_t uid;
	const uint32_t *nodes;
	size_t n;
	const struct outside *outside;
	const struct lan *lan;
};

static int inside(const char *path, const struct action *a, struct error *err)
{
	CLEANUP_CLOSE int home = open(OWN_NAMESPACE, O_RDONLY | O_CLOEXEC);
	int r;

	if (home < 0)
		return error_errno(err, -errno, "cannot open our network namespace");
	r = fabric_enter(path, err);
	if (r)
		return r;
	r = a->run(a, err);
	leave(home);
	return r;
}

/* -------- what is done there -------- */

static int add_tap(const struct action *a, struct error *err)
{
	int r;

	/* A VM may have it open: it is not touched. */
	if (if_nametoindex(a->name))
		return 0;
	r = link_make_tap(a->name, a->uid, err);

	if (!r)
		r = link_join(a->name, BRIDGE, err);
	if (r)
		link_remove(a->name, NULL);
	return r;
}

static int remove_tap(const struct action *a, struct error *err)
{
	return link_remove(a->name, err);
}

static int add_nodes(const struct action *a, struct error *err)
{
	int r = 0;

	for (size_t i = 0; !r && i < a->n; i++)
		r = vxlan_add_peer(NODES, a->nodes[i], err);
	return r;
}

static int remove_nodes(const struct action *a, struct error *err)
{
	int r = 0;

	for (size_t i = 0; !r && i < a->n; i++)
		r = vxlan_remove_peer(NODES, a->nodes[i], err);
	return r;
}

static int lead_out(const struct action *a, struct error *err)
{
	return outside_enter(a->outside, BRIDGE, NODES, err);
}

static int join_lan(const struct action *a, struct error *err)
{
	return lan_join(a->lan, err);
}

static int add_macvtap(const struct action *a, struct error *err)
{
	return if_nametoindex(a->name) ? 0 : lan_add_tap(a->lan, a->name, err);
}

/* What leads to others; taps that are still open lead nowhere then. */
static int take_down(const struct action *a, struct error *err)
{
	static const char *const devices[] = {NODES, BRIDGE, OUTSIDE_DEVICE};
	int r = lan_leave(err);

	for (unsigned i = 0; i < ARRAY_SIZE(devices); i++) {
		int now = link_remove(devices[i], err);

		r = now == -ENODEV ? r : now;
	}
	return r;
}

int fabric_add_tap(const char *path, const char *name, uid_t uid, struct error *err)
{
	const struct action a = {.run = add_tap, .name = name, .uid = uid};

	return inside(path, &a, err);
}

int fabric_remove_tap(const char *path, const char *name, struct error *err)
{
	const struct action a = {.run = remove_tap, .name = name};

	return inside(path, &a, err);
}

int fabric_add_nodes(const char *path, const uint32_t *nodes, size_t n, struct error *err)
{
	const struct action a = {.run = add_nodes, .nodes = nodes, .n = n};
	int r = vxlan_guard_add(path, nodes, n, err);

	return r ? r : inside(path, &a, err);
}

int fabric_remove_nodes(const char *path, const uint32_t *nodes, size_t n, struct error *err)
{
	const struct action a = {.run = remove_nodes, .nodes = nodes, .n = n};
	int r = inside(path, &a, err);

	return r ? r : vxlan_guard_remove(path, nodes, n, err);
}

int fabric_lead_out(const char *path, uint32_t gateway, unsigned prefix, struct error *err)
{
	CLEANUP_CLOSE int space = open_namespace(path, err);
	struct outside way = {.gateway = gateway, .prefix = prefix};
	const struct action a = {.run = lead_out, .outside = &way};
	int r = space < 0 ? space : outside_leave(space, &way, err);

	if (r)
		return r;
	r = inside(path, &a, err);
	if (r)
		link_remove(way.device, NULL);
	return r;
}

static int on_lan(const char *path, struct action *a, struct lan *lan, struct error *err)
{
	int r = lan_begin(lan, err);

	if (r)
		return r;
	a->lan = lan;
	r = inside(path, a, err);
	lan_done(lan);
	return r;
}

int fabric_join_lan(const char *path, struct lan *lan, struct error *err)
{
	struct action a = {.run = join_lan};

	return on_lan(path, &a, lan, err);
}

int fabric_add_macvtap(const char *path, struct lan *lan, const char *name, struct error *err)
{
	struct action a = {.run = add_macvtap, .name = name};

	return on_lan(path, &a, lan, err);
}

int fabric_open_tap(const char *name, int *ret, struct error *err)
{
	return link_open_tap(name, ret, err);
}

/* -------- its life -------- */

/* In the new namespace. underlay: a netlink socket of the old one. */
static int set_up(int underlay, uint32_t vni, uint32_t local, struct error *err)
{
	int r = link_up("lo", err);

	if (!r)
		r = link_add_bridge(BRIDGE, NULL, err);
	if (!r && local)
		r = vxlan_add(underlay, NODES, BRIDGE, vni, local, err);
	return r;
}

/* Makes the namespace and has the file keep it; we are back when this returns. */
static int make(const char *path, int home, uint32_t vni, uint32_t local, struct error *err)
{
	CLEANUP_CLOSE int underlay = netlink_open(0);
	int r;

	if (underlay < 0)
		return error_errno(err, underlay, "cannot ask for network devices");
	if (unshare(CLONE_NEWNET) < 0)
		return error_errno(err, -errno, "cannot make a network namespace");
	r = mount(OWN_NAMESPACE, path, NULL, MS_BIND, NULL) < 0
		    ? error_errno(err, -errno, "cannot keep a network namespace at %s", path)
		    : set_up(underlay, vni, local, err);
	leave(home);
	return r;
}

int fabric_create(const char *path, uint32_t vni, uint32_t local, struct error *err)
{
	CLEANUP_CLOSE int home = open(OWN_NAMESPACE, O_RDONLY | O_CLOEXEC);
	CLEANUP_CLOSE int file = open(path, O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	int r;

	if (home < 0 || file < 0)
		return error_errno(err, -errno, "cannot make network %s", path);
	/* The rules first: nothing gets through before. */
	r = local ? vxlan_guard_begin(path, vni, err) : 0;
	if (!r)
		r = make(path, home, vni, local, err);
	if (r)
		fabric_destroy(path, NULL);
	return r;
}

int fabric_destroy(const char *path, struct error *err)
{
	const struct action a = {.run = take_down};
	int r = inside(path, &a, err);

	if (r && r != -ENOENT)
		return r;
	vxlan_guard_end(path);
	/* Not mounted: its making was cut off. */
	if (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) < 0 && errno != EINVAL && errno != ENOENT)
		return error_errno(err, -errno, "cannot unmount network %s", path);
	return unlink(path) < 0 && errno != ENOENT
		       ? error_errno(err, -errno, "cannot remove network %s", path)
		       : 0;
}
