/* SPDX-License-Identifier: Apache-2.0 */
/*
 * macvtap devices. They are made by rtnetlink(7); the driver (Linux, drivers/net/tap.c) has a
 * character device for each. Its number is in the sysfs of the device's network namespace. Its node
 * in /dev may be that of another one, since names there are of numbers that each namespace counts
 * by itself, so it is opened by a node of our own, in a file system that nobody else sees.
 */

#include "net/lan.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "net/link.h"
#include "net/netlink.h"

#define VLAN "lan"	 /* the device of the cluster's VLAN */
#define TAPS "vm"	 /* what the names of taps begin with */
#define WAITING_MAX 4096 /* frames that a tap may hold: the driver's limit is 500 */

int lan_begin(struct lan *lan, struct error *err)
{
	lan->index = if_nametoindex(lan->parent);
	if (!lan->index)
		return error_set(err, -ENODEV,
				 "this node has no interface %s, which wispd --macvtap names",
				 lan->parent);
	lan->node = netlink_open(0);
	return lan->node < 0 ? error_errno(err, lan->node, "cannot ask for network devices") : 0;
}

void lan_done(struct lan *lan)
{
	cleanup_close_fd(&lan->node);
	lan->node = -1;
}

/* -------- devices -------- */

/* A device on the lower one of the socket's namespace, here. value: one attribute of the kind's. */
static int add(int socket, unsigned lower, const char *name, const char *kind, uint16_t attribute,
	       const void *value, size_t size)
{
	CLEANUP_CLOSE int here = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	const struct ifinfomsg info = {.ifi_family = AF_UNSPEC};
	struct rtattr *linkinfo, *data;
	struct netlink_request r;

	if (here < 0)
		return -errno;
	netlink_begin(&r, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &info, sizeof(info));
	netlink_put(&r, IFLA_IFNAME, name, strlen(name) + 1);
	netlink_put(&r, IFLA_LINK, &lower, sizeof(lower));
	netlink_put(&r, IFLA_NET_NS_FD, &here, sizeof(here));
	linkinfo = netlink_put(&r, IFLA_LINKINFO, NULL, 0);
	netlink_put(&r, IFLA_INFO_KIND, kind, strlen(kind) + 1);
	data = netlink_put(&r, IFLA_INFO_DATA, NULL, 0);
	netlink_put(&r, attribute, value, size);
	netlink_nest_end(&r, data);
	netlink_nest_end(&r, linkinfo);
	return netlink_transact(socket, &r);
}

/* It sends nothing by itself, and hears all multicast: whose guests have joined it does not know.
 */
static int bring_up(const char *name, struct error *err)
{
	const struct ifinfomsg info = {.ifi_family = AF_UNSPEC,
				       .ifi_index = (int)if_nametoindex(name),
				       .ifi_flags = IFF_UP | IFF_ALLMULTI,
				       .ifi_change = IFF_UP | IFF_ALLMULTI | IFF_MULTICAST};
	struct netlink_request r;
	int e = link_silence(name, err);

	if (e)
		return e;
	netlink_begin(&r, RTM_NEWLINK, 0, &info, sizeof(info));
	e = netlink_call(&r);
	return e ? error_errno(err, e, "cannot bring up %s", name) : 0;
}

static int explain(int r, const struct lan *lan, const char *kind, struct error *err)
{
	switch (r) {
	case -EEXIST:
		return error_set(err, -EBUSY,
				 "VLAN %u of %s is in use on this node, by another cluster or "
				 "something else: network.vlan may name another",
				 lan->vlan, lan->parent);
	case -ENETDOWN:
		return error_set(err, r, "%s is down (its administrator: ip link set %s up)",
				 lan->parent, lan->parent);
	case -EOPNOTSUPP:
		return error_set(err, r, "the kernel of this node has no %s (modprobe %s)", kind,
				 !strcmp(kind, "vlan") ? "8021q" : kind);
	case -EBUSY:
		return error_set(err, r,
				 "%s is used otherwise (as a port of a bridge, say), and cannot "
				 "have a macvtap",
				 lan->parent);
	default:
		return error_errno(err, r, "cannot make a %s on %s", kind, lan->parent);
	}
}

int lan_join(const struct lan *lan, struct error *err)
{
	uint16_t number = (uint16_t)lan->vlan;
	int r;

	if (!lan->vlan)
		return 0;
	r = add(lan->node, lan->index, VLAN, "vlan", IFLA_VLAN_ID, &number, sizeof(number));
	if (r)
		return explain(r, lan, "vlan", err);
	r = bring_up(VLAN, err);
	if (r == -ENETDOWN)
		explain(r, lan, "vlan", err);
	return r;
}

/* On the VLAN's device, which is here, or the parent, which is not. */
static int add_tap(const struct lan *lan, const char *name)
{
	uint32_t mode = MACVLAN_MODE_BRIDGE;
	CLEANUP_CLOSE int own = -1;
	unsigned lower = lan->index;

	if (lan->vlan) {
		lower = if_nametoindex(VLAN);
		own = netlink_open(0);
		if (!lower || own < 0)
			return lower ? own : -ENODEV;
	}
	return add(lan->vlan ? own : lan->node, lower, name, "macvtap", IFLA_MACVLAN_MODE, &mode,
		   sizeof(mode));
}

int lan_add_tap(const struct lan *lan, const char *name, struct error *err)
{
	int r = add_tap(lan, name);

	if (r)
		return explain(r, lan, "macvtap", err);
	r = bring_up(name, err);
	if (r == -ENETDOWN)
		explain(r, lan, "macvtap", err);
	if (r)
		link_remove(name, NULL);
	return r;
}

int lan_leave(struct error *err)
{
	struct if_nameindex *all = if_nameindex();
	int r = all ? 0 : error_errno(err, -errno, "cannot list network devices");

	for (struct if_nameindex *i = all; i && i->if_index; i++)
		if (!strcmp(i->if_name, VLAN) || !strncmp(i->if_name, TAPS, strlen(TAPS))) {
			/* Those of a VLAN go with it. */
			int now = link_remove(i->if_name, err);

			r = now == -ENODEV ? r : now;
		}
	if (all)
		if_freenameindex(all);
	return r;
}

/* -------- their descriptors -------- */

/* A file system in no place of the tree. A sysfs shows the devices of our network namespace. */
static int mount_nowhere(const char *type)
{
	CLEANUP_CLOSE int context = fsopen(type, FSOPEN_CLOEXEC);
	int fd;

	if (context < 0 || fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0))
		return -errno;
	fd = fsmount(context, FSMOUNT_CLOEXEC, 0);
	return fd < 0 ? -errno : fd;
}

static int find_device(const char *name, dev_t *ret)
{
	CLEANUP_FREE char *path = io_format("class/net/%s/tap%u/dev", name, if_nametoindex(name));
	CLEANUP_CLOSE int sys = mount_nowhere("sysfs");
	CLEANUP_CLOSE int file = -1;
	unsigned number[2];
	char text[32] = "";

	if (sys < 0 || !path)
		return sys < 0 ? sys : -ENOMEM;
	file = openat(sys, path, O_RDONLY | O_CLOEXEC);
	if (file < 0 || read(file, text, sizeof(text) - 1) < 0)
		return -errno;
	if (sscanf(text, "%u:%u", &number[0], &number[1]) != 2)
		return -EPROTO;
	*ret = makedev(number[0], number[1]);
	return 0;
}

static int open_device(dev_t device)
{
	CLEANUP_CLOSE int dir = mount_nowhere("tmpfs");
	int fd;

	if (dir < 0)
		return dir;
	if (mknodat(dir, "tap", S_IFCHR | 0600, device))
		return -errno;
	fd = openat(dir, "tap", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int set_queue(int tap, short flags)
{
	struct ifreq ifr = {.ifr_flags = flags};

	return ioctl(tap, TUNSETQUEUE, &ifr) < 0 ? -errno : 0;
}

int lan_open_tap(const char *name, int *ret, struct error *err)
{
	CLEANUP_CLOSE int fd = -1;
	dev_t device = 0;
	int r = find_device(name, &device);

	if (!r)
		r = fd = open_device(device);
	if (r >= 0)
		r = set_queue(fd, IFF_DETACH_QUEUE);
	if (r < 0)
		return error_errno(err, r, "cannot open macvtap %s", name);
	*ret = take_fd(&fd);
	return 0;
}

int lan_tap_check(int tap, const char *name, struct error *err)
{
	struct ifreq ifr = {0};

	if (ioctl(tap, TUNGETIFF, &ifr) < 0 || strncmp(ifr.ifr_name, name, sizeof(ifr.ifr_name)))
		return error_set(err, -EINVAL, "the descriptor is not of tap %s", name);
	return 0;
}

void lan_tap_attach(int tap)
{
	char frame[64];

	for (unsigned i = 0; i < WAITING_MAX && read(tap, frame, sizeof(frame)) > 0;)
		i++;
	set_queue(tap, IFF_ATTACH_QUEUE);
}

void lan_tap_rest(int tap)
{
	struct ifreq ifr = {.ifr_hwaddr.sa_family = ARPHRD_ETHER};
	uint8_t *mac = (uint8_t *)ifr.ifr_hwaddr.sa_data;

	set_queue(tap, IFF_DETACH_QUEUE);
	if (getrandom(mac, 6, 0) != 6)
		return;
	mac[0] = (mac[0] & 0xfc) | 2; /* a locally administered one, not a group's */
	ioctl(tap, SIOCSIFHWADDR, &ifr);
}
