/* SPDX-License-Identifier: Apache-2.0 */
/* Name, addresses and clock of the machine: at boot and by request. */

#include "agent/agent.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <net/if.h>
#include <net/route.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "agent/hosts.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/parse.h"

int configure_hostname(const char *name, struct error *err)
{
	CLEANUP_FREE char *line = io_format("%s\n", name);

	if (!*name || strlen(name) > 64 || strpbrk(name, " \t\n/#"))
		return error_set(err, -EINVAL, "\"%s\" is not a host name", name);
	if (sethostname(name, strlen(name)) < 0)
		return error_errno(err, -errno, "cannot set the host name %s", name);
	return line ? io_write_file("/etc/hostname", line, strlen(line), err) : -ENOMEM;
}

int configure_names(const char *path, const char *servers, struct error *err)
{
	CLEANUP_FREE char *copy = strdup(servers), *text = strdup("");
	char *rest = copy, *server;
	struct in_addr address;

	while (text && copy && (server = strsep(&rest, ","))) {
		char *more;

		if (inet_pton(AF_INET, server, &address) != 1)
			return error_set(err, -EINVAL, "\"%s\" is not a name server's address",
					 server);
		more = io_format("%snameserver %s\n", text, server);
		free(text);
		text = more;
	}
	if (!text || !copy)
		return error_errno(err, -ENOMEM, "cannot write %s", path);
	/* A link into /run of a resolver that is not there. */
	unlink(path);
	return io_write_file(path, text, strlen(text), err);
}

/* The interface with this MAC address, or the name itself. */
static int find_interface(const char *text, char name[IFNAMSIZ], struct error *err)
{
	CLEANUP_DIR DIR *dir = NULL;
	struct dirent *e;
	uint8_t mac[6];

	if (parse_mac(text, mac, NULL)) {
		if (strlen(text) >= IFNAMSIZ || !if_nametoindex(text))
			return error_set(err, -ENODEV, "no network interface \"%s\"", text);
		strcpy(name, text);
		return 0;
	}
	dir = opendir("/sys/class/net");
	while (dir && (e = readdir(dir))) {
		CLEANUP_FREE char *path = io_format("/sys/class/net/%s/address", e->d_name);
		CLEANUP_FREE char *address = NULL;

		if (path && strlen(e->d_name) < IFNAMSIZ &&
		    io_read_file(path, 64, &address, NULL) > 0 &&
		    !strncasecmp(address, text, strlen(text))) {
			strcpy(name, e->d_name);
			return 0;
		}
	}
	return error_set(err, -ENODEV, "no network interface with MAC address %s", text);
}

struct net_config {
	char name[IFNAMSIZ];
	struct in_addr address, mask, gateway;
};

static int parse_net(const char *text, struct net_config *ret, struct error *err)
{
	CLEANUP_FREE char *copy = strdup(text);
	char *rest = copy, *iface = strsep(&rest, ","), *address = strsep(&rest, ",");
	char *slash = address ? strchr(address, '/') : NULL;
	struct net_config c = {0};
	unsigned prefix = 0;
	int r;

	if (slash)
		*slash++ = 0;
	if (!slash || inet_pton(AF_INET, address, &c.address) != 1 ||
	    parse_uint(slash, "prefix", 1, 32, &prefix, NULL) ||
	    (rest && inet_pton(AF_INET, rest, &c.gateway) != 1))
		return error_set(err, -EINVAL,
				 "\"%s\" is not INTERFACE,ADDRESS/PREFIX[,GATEWAY] (IPv4)", text);
	c.mask.s_addr = htonl(prefix ? ~0u << (32 - prefix) : 0);
	r = find_interface(iface, c.name, err);
	if (!r)
		*ret = c;
	return r;
}

static struct sockaddr inet_address(struct in_addr a)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr = a};
	struct sockaddr generic;

	memcpy(&generic, &in, sizeof(generic));
	return generic;
}

static int interface_up(int fd, const char *name)
{
	struct ifreq ifr = {0};

	strcpy(ifr.ifr_name, name);
	if (ioctl(fd, SIOCGIFFLAGS, &ifr) < 0)
		return -errno;
	ifr.ifr_flags |= IFF_UP;
	return ioctl(fd, SIOCSIFFLAGS, &ifr) < 0 ? -errno : 0;
}

static int set_address(int fd, const struct net_config *c)
{
	struct ifreq ifr = {0};

	strcpy(ifr.ifr_name, c->name);
	ifr.ifr_addr = inet_address(c->address);
	if (ioctl(fd, SIOCSIFADDR, &ifr) < 0)
		return -errno;
	ifr.ifr_netmask = inet_address(c->mask);
	if (ioctl(fd, SIOCSIFNETMASK, &ifr) < 0)
		return -errno;
	return interface_up(fd, c->name);
}

static int set_gateway(int fd, const struct net_config *c)
{
	struct rtentry route = {.rt_dst = inet_address((struct in_addr){0}),
				.rt_genmask = inet_address((struct in_addr){0}),
				.rt_gateway = inet_address(c->gateway),
				.rt_flags = RTF_UP | RTF_GATEWAY,
				.rt_dev = (char *)c->name};

	if (!c->gateway.s_addr)
		return 0;
	return ioctl(fd, SIOCADDRT, &route) < 0 && errno != EEXIST ? -errno : 0;
}

int configure_net(const char *text, struct error *err)
{
	CLEANUP_CLOSE int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct net_config c;
	int r = parse_net(text, &c, err);

	if (r)
		return r;
	r = fd < 0 ? -errno : set_address(fd, &c);
	if (!r)
		r = set_gateway(fd, &c);
	return r ? error_errno(err, r, "cannot configure %s as %s", c.name, text) : 0;
}

int configure_loopback(struct error *err)
{
	CLEANUP_CLOSE int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int r = fd < 0 ? -errno : interface_up(fd, "lo");

	return r ? error_errno(err, r, "cannot start the loopback interface") : 0;
}

static int configure_nets(const json_t *nets, struct error *err)
{
	size_t i;
	json_t *net;

	json_array_foreach ((json_t *)nets, i, net) {
		int r = json_is_string(net)
				? configure_net(json_string_value(net), err)
				: error_set(err, -EINVAL, "\"net\" is not an array of strings");

		if (r)
			return r;
	}
	return 0;
}

static int configure_clock(const json_t *clock, struct error *err)
{
	json_int_t ns = json_integer_value(clock);
	struct timespec t = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};

	if (!json_is_integer(clock) || ns <= 0)
		return error_set(err, -EINVAL, "\"clock\" is not a number of ns since 1970");
	return clock_settime(CLOCK_REALTIME, &t) < 0
		       ? error_errno(err, -errno, "cannot set the clock")
		       : 0;
}

int configure_apply(const json_t *request, struct error *err)
{
	const json_t *hostname = json_object_get(request, "hostname");
	const json_t *hosts = json_object_get(request, "hosts");
	const json_t *clock = json_object_get(request, "clock");
	int r = 0;

	if (hostname && !json_is_string(hostname))
		return error_set(err, -EINVAL, "\"hostname\" is not a string");
	if (hostname)
		r = configure_hostname(json_string_value(hostname), err);
	if (!r && hosts)
		r = hosts_set(HOSTS_PATH, hosts, err);
	if (!r)
		r = configure_nets(json_object_get(request, "net"), err);
	if (!r && clock)
		r = configure_clock(clock, err);
	return r;
}
