/* SPDX-License-Identifier: Apache-2.0 */
/* The way out of a cluster's network: a pair of devices, and the rules for what takes it. */

#include "net/outside.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/route.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/process.h"
#include "net/link.h"
#include "net/vxlan.h"

/*
 * Pairs have addresses of a range for networks behind a translation (RFC 6598): four each of
 * 100.64.0.0/17. The kernel's names of the devices say which are taken.
 */
#define PAIRS 0x64400000u
#define PAIRS_TEXT "100.64.0.0/17"
#define PAIRS_MAX (1u << 13)

#define DEVICE "wispout"
#define FORWARDS "/proc/sys/net/ipv4/ip_forward"

/*
 * In the node's namespace, of all clusters. What is not of ours is as before. Clusters do not reach
 * each other this way, and nobody begins anything with one.
 */
static const char node_rules[] = "table ip wisp\n"
				 "delete table ip wisp\n"
				 "table ip wisp {\n"
				 " chain forward {\n"
				 "  type filter hook forward priority 0; policy accept;\n"
				 "  iifname \"" DEVICE "*\" oifname \"" DEVICE "*\" drop\n"
				 "  oifname \"" DEVICE "*\" ct state established,related accept\n"
				 "  oifname \"" DEVICE "*\" drop\n"
				 " }\n"
				 " chain leaving {\n"
				 "  type nat hook postrouting priority 100;\n"
				 "  ip saddr " PAIRS_TEXT " oifname != \"" DEVICE "*\" masquerade\n"
				 " }\n"
				 "}\n";

/*
 * In the cluster's. A port below 1024 says elsewhere that root of this node asks, and a datagram to
 * VXLAN's port that the node itself sends a frame: a guest may say neither. The gateway is each
 * node's own: no frame from or for it goes to another node, nor does a VM's pass for one. What goes
 * from port to port of the bridge is here as well where br_netfilter is loaded.
 */
static const char cluster_rules[] =
	"table ip wisp {\n"
	" chain input {\n"
	"  type filter hook input priority 0; policy drop;\n"
	"  iifname \"%1$s\" icmp type echo-request accept\n"
	"  ct state established,related accept\n"
	" }\n"
	" chain forward {\n"
	"  type filter hook forward priority 0; policy drop;\n"
	"  iifname \"" OUTSIDE_DEVICE "\" oifname \"%1$s\" ct state established,related accept\n"
	"  iifname \"%1$s\" oifname \"%1$s\" accept\n"
	"  iifname != \"%1$s\" drop\n"
	"  oifname != \"" OUTSIDE_DEVICE "\" drop\n"
	"  ip saddr != %2$s/%3$u drop\n"
	"  udp dport %4$u drop\n"
	"  meta l4proto { tcp, udp } accept\n"
	"  icmp type echo-request accept\n"
	"  ct state established,related accept\n"
	" }\n"
	" chain leaving {\n"
	"  type nat hook postrouting priority 100;\n"
	"  oifname \"" OUTSIDE_DEVICE "\" meta l4proto { tcp, udp } masquerade to :1024-65535\n"
	"  oifname \"" OUTSIDE_DEVICE "\" masquerade\n"
	" }\n"
	"}\n"
	"table bridge wisp {\n"
	" chain prerouting {\n"
	"  type filter hook prerouting priority -300; policy accept;\n"
	"  ether saddr %5$s drop\n"
	"  ether type arp arp saddr ip %2$s drop\n"
	" }\n"
	" chain forward {\n"
	"  type filter hook forward priority 0; policy accept;\n"
	"  oifname \"%6$s\" ether daddr %5$s drop\n"
	"  oifname \"%6$s\" ether type arp arp daddr ip %2$s drop\n"
	" }\n"
	" chain output {\n"
	"  type filter hook output priority 0; policy accept;\n"
	"  oifname \"%6$s\" ether saddr %5$s drop\n"
	" }\n"
	"}\n";

static int set_rules(const char *rules, struct error *err)
{
	const char *const argv[] = {"nft", rules, NULL};
	int r = process_run(&(struct process){.argv = argv}, NULL, NULL, err);

	return r == -ENOENT ? error_set(err, r,
					"a way out of a network takes nft (Debian's package "
					"nftables), which is not on this node")
			    : r;
}

static void format(uint32_t address, char ret[INET_ADDRSTRLEN])
{
	struct in_addr in = {htonl(address)};

	inet_ntop(AF_INET, &in, ret, INET_ADDRSTRLEN);
}

static int set_address(const char *device, uint32_t address, unsigned prefix, struct error *err)
{
	char text[INET_ADDRSTRLEN];
	CLEANUP_FREE char *with_prefix = NULL;

	format(address, text);
	with_prefix = io_format("%s/%u", text, prefix);
	return with_prefix ? link_set_address(device, with_prefix, err) : -ENOMEM;
}

static int set_gateway(uint32_t address, struct error *err)
{
	CLEANUP_CLOSE int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	const struct sockaddr_in any = {.sin_family = AF_INET};
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(address)};
	struct rtentry route = {.rt_flags = RTF_UP | RTF_GATEWAY};

	memcpy(&route.rt_dst, &any, sizeof(any));
	memcpy(&route.rt_genmask, &any, sizeof(any));
	memcpy(&route.rt_gateway, &to, sizeof(to));
	return fd < 0 || ioctl(fd, SIOCADDRT, &route) < 0
		       ? error_errno(err, -errno, "cannot set the route out of a network")
		       : 0;
}

/* -------- the node's side -------- */

/* Who decides that a node forwards is its administrator: it does so for others as well. */
static int check_forwards(struct error *err)
{
	CLEANUP_FREE char *text = NULL;

	if (io_read_file(FORWARDS, 16, &text, NULL) > 0 && *text == '1')
		return 0;
	return error_set(err, -EPERM,
			 "this node forwards nothing, so no network can lead out of it (its "
			 "administrator: sysctl net.ipv4.ip_forward=1)");
}

static int add_pair(int space, struct outside *way, struct error *err)
{
	int r = -EEXIST;

	for (unsigned i = 0; r == -EEXIST && i < PAIRS_MAX; i++) {
		snprintf(way->device, sizeof(way->device), DEVICE "%u", i);
		way->near = PAIRS + 4 * i + 1;
		way->far = PAIRS + 4 * i + 2;
		r = link_add_pair(way->device, OUTSIDE_DEVICE, space, err);
	}
	return r;
}

int outside_leave(int space, struct outside *way, struct error *err)
{
	int r = check_forwards(err);

	if (!r)
		r = set_rules(node_rules, err);
	if (!r)
		r = add_pair(space, way, err);
	if (r)
		return r;
	r = set_address(way->device, way->near, 30, err);
	if (!r)
		r = link_up(way->device, err);
	if (r)
		link_remove(way->device, NULL);
	return r;
}

/* -------- the cluster's side -------- */

static int set_cluster_rules(const struct outside *way, const char *bridge, const char *nodes,
			     struct error *err)
{
	const uint32_t g = way->gateway;
	CLEANUP_FREE char *mac = io_format("02:57:%02x:%02x:%02x:%02x", g >> 24, g >> 16 & 255,
					   g >> 8 & 255, g & 255);
	CLEANUP_FREE char *rules = NULL;
	char gateway[INET_ADDRSTRLEN];

	format(g, gateway);
	if (mac)
		rules = io_format(cluster_rules, bridge, gateway, way->prefix, VXLAN_PORT, mac,
				  nodes);
	return rules ? set_rules(rules, err) : error_set(err, -ENOMEM, "out of memory");
}

/* The same on all nodes: a VM that moves to another one finds it under the address it knows. */
static int make_gateway(const struct outside *way, const char *bridge, struct error *err)
{
	const uint32_t g = way->gateway;
	const uint8_t mac[6] = {2, 0x57, g >> 24, g >> 16 & 255, g >> 8 & 255, g & 255};
	int r = link_set_mac(bridge, mac, err);

	return r ? r : set_address(bridge, g, way->prefix, err);
}

static int forward(struct error *err)
{
	CLEANUP_CLOSE int fd = open(FORWARDS, O_WRONLY | O_CLOEXEC);
	int r = fd < 0 ? -errno : io_write_full(fd, "1\n", 2);

	return r ? error_errno(err, r, "cannot write " FORWARDS) : 0;
}

int outside_enter(const struct outside *way, const char *bridge, const char *nodes,
		  struct error *err)
{
	/* The rules first: nothing gets through before. */
	int r = set_cluster_rules(way, bridge, nodes, err);

	if (!r)
		r = make_gateway(way, bridge, err);
	if (!r)
		r = set_address(OUTSIDE_DEVICE, way->far, 30, err);
	if (!r)
		r = link_up(OUTSIDE_DEVICE, err);
	if (!r)
		r = set_gateway(way->near, err);
	return r ? r : forward(err);
}
