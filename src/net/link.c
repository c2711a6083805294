/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bridges and taps. Making a bridge and keeping IPv6 quiet takes rtnetlink(7); the rest are
 * the ioctls of netdevice(7) and the tun driver (Documentation/networking/tuntap.rst).
 */

#include "net/link.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <linux/veth.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/parse.h"
#include "net/netlink.h"

#ifndef IFLA_BR_FDB_MAX_LEARNED
#define IFLA_BR_FDB_MAX_LEARNED 49 /* Linux 6.8; an older one does not look at it */
#endif

/* MAC addresses: each costs memory, and whoever sends frames can send them from any. */
#define LEARNED_MAX 16384

#define VNET_HEADER_SIZE 12 /* struct virtio_net_hdr_v1: what virtio 1.x devices use */

static struct netlink_request new_link(uint16_t flags)
{
	const struct ifinfomsg info = {.ifi_family = AF_UNSPEC};
	struct netlink_request r;

	netlink_begin(&r, RTM_NEWLINK, flags, &info, sizeof(info));
	return r;
}

static int create_bridge(const char *name)
{
	struct netlink_request r = new_link(NLM_F_CREATE | NLM_F_EXCL);
	struct rtattr *info, *data;
	uint32_t limit = LEARNED_MAX;
	uint8_t off = 0;

	netlink_put(&r, IFLA_IFNAME, name, strlen(name) + 1);
	info = netlink_put(&r, IFLA_LINKINFO, NULL, 0);
	netlink_put(&r, IFLA_INFO_KIND, "bridge", sizeof("bridge"));
	data = netlink_put(&r, IFLA_INFO_DATA, NULL, 0);
	netlink_put(&r, IFLA_BR_MCAST_SNOOPING, &off, sizeof(off));
	netlink_put(&r, IFLA_BR_FDB_MAX_LEARNED, &limit, sizeof(limit));
	netlink_nest_end(&r, data);
	netlink_nest_end(&r, info);
	return netlink_call(&r);
}

/* No link-local address: without one IPv6 sends nothing. Fine when the kernel has no IPv6. */
static int silence_ipv6(const char *name)
{
	struct netlink_request r = new_link(0);
	uint8_t mode = IN6_ADDR_GEN_MODE_NONE;
	struct rtattr *spec, *inet6;
	int e;

	netlink_put(&r, IFLA_IFNAME, name, strlen(name) + 1);
	spec = netlink_put(&r, IFLA_AF_SPEC, NULL, 0);
	inet6 = netlink_put(&r, AF_INET6, NULL, 0);
	netlink_put(&r, IFLA_INET6_ADDR_GEN_MODE, &mode, sizeof(mode));
	netlink_nest_end(&r, inet6);
	netlink_nest_end(&r, spec);
	e = netlink_call(&r);
	return e == -EAFNOSUPPORT ? 0 : e;
}

int link_silence(const char *name, struct error *err)
{
	int r = silence_ipv6(name);

	return r ? error_errno(err, r, "cannot set up device %s", name) : 0;
}

static int request_init(struct ifreq *ifr, const char *name, struct error *err)
{
	*ifr = (struct ifreq){0};
	if (!*name || strlen(name) >= sizeof(ifr->ifr_name))
		return error_set(err, -EINVAL, "device name \"%s\" is not 1 to %zu characters",
				 name, sizeof(ifr->ifr_name) - 1);
	strcpy(ifr->ifr_name, name);
	return 0;
}

/* One ioctl of netdevice(7) on a throw-away socket. */
static int device_ioctl(unsigned long op, struct ifreq *ifr, const char *what, struct error *err)
{
	CLEANUP_CLOSE int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || ioctl(fd, op, ifr) < 0)
		return error_errno(err, -errno, "cannot %s device %s", what, ifr->ifr_name);
	return 0;
}

int link_up(const char *name, struct error *err)
{
	struct ifreq ifr;
	int r = request_init(&ifr, name, err);

	if (!r)
		r = device_ioctl(SIOCGIFFLAGS, &ifr, "look at", err);
	if (r)
		return r;
	ifr.ifr_flags = (short)((ifr.ifr_flags | IFF_UP) & ~IFF_MULTICAST);
	return device_ioctl(SIOCSIFFLAGS, &ifr, "bring up", err);
}

int link_set_address(const char *name, const char *address, struct error *err)
{
	const char *slash = strchr(address, '/');
	char text[INET_ADDRSTRLEN] = "";
	struct sockaddr_in in = {.sin_family = AF_INET};
	struct ifreq ifr;
	unsigned bits;
	int r = request_init(&ifr, name, err);

	if (r)
		return r;
	if (slash && (size_t)(slash - address) < sizeof(text))
		memcpy(text, address, (size_t)(slash - address));
	if (!slash || inet_pton(AF_INET, text, &in.sin_addr) != 1)
		return error_set(err, -EINVAL, "address \"%s\" is not like 10.77.0.1/24", address);
	r = parse_uint(slash + 1, "prefix length", 1, 30, &bits, err);
	if (r)
		return r;
	memcpy(&ifr.ifr_addr, &in, sizeof(in));
	r = device_ioctl(SIOCSIFADDR, &ifr, "set the address of", err);
	if (r)
		return r;
	in.sin_addr.s_addr = htonl(~0u << (32 - bits));
	memcpy(&ifr.ifr_netmask, &in, sizeof(in));
	return device_ioctl(SIOCSIFNETMASK, &ifr, "set the netmask of", err);
}

int link_add_bridge(const char *name, const char *address, struct error *err)
{
	int r = create_bridge(name);

	if (r < 0)
		return error_errno(err, r, "cannot create bridge %s%s", name,
				   r == -EOPNOTSUPP ? " (is the kernel module bridge loaded?)"
						    : "");
	r = link_silence(name, err);
	if (r)
		return r;
	r = address ? link_set_address(name, address, err) : 0;
	return r ? r : link_up(name, err);
}

int link_set_mac(const char *name, const uint8_t mac[6], struct error *err)
{
	struct ifreq ifr;
	int r = request_init(&ifr, name, err);

	if (r)
		return r;
	ifr.ifr_hwaddr.sa_family = ARPHRD_ETHER;
	memcpy(ifr.ifr_hwaddr.sa_data, mac, 6);
	return device_ioctl(SIOCSIFHWADDR, &ifr, "set the MAC address of", err);
}

int link_add_pair(const char *name, const char *there, int space, struct error *err)
{
	static const struct ifinfomsg peer_info = {.ifi_family = AF_UNSPEC};
	struct netlink_request r = new_link(NLM_F_CREATE | NLM_F_EXCL);
	struct rtattr *info, *data, *peer;
	int e;

	netlink_put(&r, IFLA_IFNAME, name, strlen(name) + 1);
	info = netlink_put(&r, IFLA_LINKINFO, NULL, 0);
	netlink_put(&r, IFLA_INFO_KIND, "veth", sizeof("veth"));
	data = netlink_put(&r, IFLA_INFO_DATA, NULL, 0);
	peer = netlink_put(&r, VETH_INFO_PEER, &peer_info, sizeof(peer_info));
	netlink_put(&r, IFLA_IFNAME, there, strlen(there) + 1);
	netlink_put(&r, IFLA_NET_NS_FD, &space, sizeof(space));
	netlink_nest_end(&r, peer);
	netlink_nest_end(&r, data);
	netlink_nest_end(&r, info);
	e = netlink_call(&r);
	return e < 0 ? error_errno(err, e, "cannot make the pair of devices %s and %s%s", name,
				   there,
				   e == -EOPNOTSUPP ? " (is the kernel module veth loaded?)" : "")
		     : 0;
}

/* Makes it, or opens it where it is already. */
static int open_tap(struct ifreq *ifr, int *ret, struct error *err)
{
	CLEANUP_CLOSE int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	int size = VNET_HEADER_SIZE;

	if (fd < 0)
		return error_errno(err, -errno, "cannot open /dev/net/tun (%s)",
				   errno == EACCES ? "chmod 666 /dev/net/tun allows everybody"
						   : "modprobe tun loads its driver");
	ifr->ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
	if (ioctl(fd, TUNSETIFF, ifr) < 0 || ioctl(fd, TUNSETVNETHDRSZ, &size) < 0)
		return error_errno(err, -errno, "cannot create tap %s", ifr->ifr_name);
	*ret = take_fd(&fd);
	return 0;
}

int link_join(const char *name, const char *bridge, struct error *err)
{
	struct ifreq port;
	int r = link_silence(name, err);

	if (r)
		return r;
	r = request_init(&port, bridge, err);
	if (r)
		return r;
	port.ifr_ifindex = (int)if_nametoindex(name);
	r = device_ioctl(SIOCBRADDIF, &port, "add a port to", err);
	return r ? r : link_up(name, err);
}

int link_add_tap(const char *name, const char *bridge, int *ret, struct error *err)
{
	CLEANUP_CLOSE int fd = -1;
	struct ifreq ifr;
	int r = request_init(&ifr, name, err);

	if (!r)
		r = open_tap(&ifr, &fd, err);
	if (!r)
		r = link_join(name, bridge, err);
	if (!r)
		*ret = take_fd(&fd);
	return r;
}

int link_make_tap(const char *name, uid_t uid, struct error *err)
{
	CLEANUP_CLOSE int fd = -1;
	struct ifreq ifr;
	int r = request_init(&ifr, name, err);

	if (!r)
		r = open_tap(&ifr, &fd, err);
	if (r)
		return r;
	/* The owner first: nobody may open what has none. */
	if (ioctl(fd, TUNSETOWNER, (unsigned long)uid) < 0 || ioctl(fd, TUNSETPERSIST, 1UL) < 0)
		return error_errno(err, -errno, "cannot make tap %s for user %u", name, uid);
	return 0;
}

int link_open_tap(const char *name, int *ret, struct error *err)
{
	struct ifreq ifr;
	int r = request_init(&ifr, name, err);

	if (r)
		return r;
	/* Who has the right to make one would make it, unconnected. */
	if (!if_nametoindex(name))
		return error_set(err, -EPERM, "there is no tap %s for this user", name);
	return open_tap(&ifr, ret, err);
}

int link_remove(const char *name, struct error *err)
{
	const struct ifinfomsg info = {.ifi_index = (int)if_nametoindex(name)};
	struct netlink_request q;
	int r = -ENODEV;

	if (info.ifi_index) {
		netlink_begin(&q, RTM_DELLINK, 0, &info, sizeof(info));
		r = netlink_call(&q);
	}
	return r ? error_errno(err, r, "cannot remove device %s", name) : 0;
}
