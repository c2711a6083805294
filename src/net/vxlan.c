/* SPDX-License-Identifier: Apache-2.0 */
/* VXLAN devices, by rtnetlink(7). */

#include "net/vxlan.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <net/if.h>
#include <string.h>
#include <sys/socket.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "net/link.h"
#include "net/netlink.h"

/*
 * That of the bridge and its guests. With the headers around it a full frame is larger than many
 * underlays take: the kernel then tells senders that set "don't fragment" (TCP) the size that fits,
 * and fragments the datagrams of the others.
 */
#define MTU 1500

/* MAC addresses that are learned: each costs memory, and anybody can send frames from any. */
#define LEARNED_MAX 8192

static void put_data(struct netlink_request *r, uint32_t vni, uint32_t local)
{
	struct rtattr *info = netlink_put(r, IFLA_LINKINFO, NULL, 0), *data;
	struct in_addr address = {htonl(local)};
	uint16_t port = htons(VXLAN_PORT);
	uint32_t limit = LEARNED_MAX;
	uint8_t on = 1;

	netlink_put(r, IFLA_INFO_KIND, "vxlan", sizeof("vxlan"));
	data = netlink_put(r, IFLA_INFO_DATA, NULL, 0);
	netlink_put(r, IFLA_VXLAN_ID, &vni, sizeof(vni));
	netlink_put(r, IFLA_VXLAN_LOCAL, &address, sizeof(address));
	netlink_put(r, IFLA_VXLAN_PORT, &port, sizeof(port));
	netlink_put(r, IFLA_VXLAN_LEARNING, &on, sizeof(on));
	netlink_put(r, IFLA_VXLAN_LIMIT, &limit, sizeof(limit));
	netlink_nest_end(r, data);
	netlink_nest_end(r, info);
}

static int explain(int r, uint32_t vni, struct error *err)
{
	switch (r) {
	case -EPERM:
		return error_set(err, r,
				 "linking a network to other nodes needs CAP_NET_ADMIN on this "
				 "machine: be root");
	case -EEXIST:
	case -EADDRINUSE:
		return error_set(err, r,
				 "VXLAN %u is in use on this machine, by another network or "
				 "another program on UDP port %d",
				 vni, VXLAN_PORT);
	case -EOPNOTSUPP:
		return error_set(err, r, "the kernel has no VXLAN (modprobe vxlan)");
	default:
		return error_errno(err, r, "cannot make VXLAN %u", vni);
	}
}

int vxlan_add(int underlay, const char *name, const char *bridge, uint32_t vni, uint32_t local,
	      struct error *err)
{
	/* Asked there, made here: its datagrams stay there. */
	CLEANUP_CLOSE int here = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	const struct ifinfomsg info = {.ifi_family = AF_UNSPEC};
	struct netlink_request q;
	uint32_t mtu = MTU;
	int r;

	if (here < 0)
		return error_errno(err, -errno, "cannot open our network namespace");
	netlink_begin(&q, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &info, sizeof(info));
	netlink_put(&q, IFLA_IFNAME, name, strlen(name) + 1);
	netlink_put(&q, IFLA_NET_NS_FD, &here, sizeof(here));
	netlink_put(&q, IFLA_MTU, &mtu, sizeof(mtu));
	put_data(&q, vni, local);
	r = netlink_transact(underlay, &q);
	if (r < 0)
		return explain(r, vni, err);
	r = link_join(name, bridge, err);
	if (r == -EADDRINUSE)
		explain(r, vni, err);
	if (r)
		link_remove(name, NULL);
	return r;
}

/* The entry for all that is known no better way: MAC address 0. */
static int change_peer(const char *name, uint16_t type, uint16_t flags, uint32_t peer)
{
	static const uint8_t anybody[6];
	const struct ndmsg info = {.ndm_family = AF_BRIDGE,
				   .ndm_ifindex = (int)if_nametoindex(name),
				   .ndm_state = NUD_PERMANENT | NUD_NOARP,
				   .ndm_flags = NTF_SELF};
	struct in_addr address = {htonl(peer)};
	struct netlink_request q;

	if (!info.ndm_ifindex)
		return -ENODEV;
	netlink_begin(&q, type, flags, &info, sizeof(info));
	netlink_put(&q, NDA_LLADDR, anybody, sizeof(anybody));
	netlink_put(&q, NDA_DST, &address, sizeof(address));
	return netlink_call(&q);
}

int vxlan_add_peer(const char *name, uint32_t peer, struct error *err)
{
	int r = change_peer(name, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_APPEND, peer);

	return r && r != -EEXIST ? error_errno(err, r, "cannot add a peer to %s", name) : 0;
}

int vxlan_remove_peer(const char *name, uint32_t peer, struct error *err)
{
	int r = change_peer(name, RTM_DELNEIGH, 0, peer);

	return r && r != -ENOENT ? error_errno(err, r, "cannot remove a peer of %s", name) : 0;
}

int vxlan_watch(struct error *err)
{
	int fd = netlink_open(RTMGRP_NEIGH);

	if (fd < 0 || fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
		return error_errno(err, -errno, "cannot watch a VXLAN device");
	return fd;
}

/* The node in a message about a forwarding entry of the device, or 0. */
static uint32_t node_of(const struct nlmsghdr *h, int ifindex)
{
	const struct ndmsg *info = NLMSG_DATA(h);
	const struct rtattr *a = (const void *)((const uint8_t *)info + NLMSG_ALIGN(sizeof(*info)));
	int left = (int)h->nlmsg_len - (int)NLMSG_LENGTH(sizeof(*info));
	struct in_addr address;

	if (h->nlmsg_type != RTM_NEWNEIGH || left < 0 || info->ndm_family != AF_BRIDGE ||
	    info->ndm_ifindex != ifindex)
		return 0;
	for (; RTA_OK(a, left); a = RTA_NEXT(a, left)) {
		if (a->rta_type != NDA_DST || RTA_PAYLOAD(a) != sizeof(address))
			continue;
		memcpy(&address, RTA_DATA(a), sizeof(address));
		return ntohl(address.s_addr);
	}
	return 0;
}

int vxlan_heard(int watch, const char *name, uint32_t *ret)
{
	_Alignas(struct nlmsghdr) uint8_t buf[8192];
	ssize_t n = recv(watch, buf, sizeof(buf), 0);

	*ret = 0;
	/* Messages were lost: it will be heard of again. */
	if (n < 0 && errno != ENOBUFS)
		return errno == EWOULDBLOCK || errno == EINTR ? -EAGAIN : -errno;
	/* The kernel sends one notification a message. */
	if (n >= (ssize_t)NLMSG_LENGTH(sizeof(struct ndmsg)) &&
	    NLMSG_OK((const struct nlmsghdr *)buf, (size_t)n))
		*ret = node_of((const struct nlmsghdr *)buf, (int)if_nametoindex(name));
	return 0;
}
