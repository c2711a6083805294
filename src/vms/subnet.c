/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses of a private network. */

#include "vms/subnet.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "lib/error.h"
#include "lib/parse.h"

static int is_private(uint32_t a)
{
	return a >> 24 == 10 || a >> 20 == 0xac1 || a >> 16 == 0xc0a8;
}

int subnet_parse_ipv4(const char *text, uint32_t *ret)
{
	struct in_addr in;

	if (inet_pton(AF_INET, text, &in) != 1)
		return -EINVAL;
	*ret = ntohl(in.s_addr);
	return 0;
}

int subnet_parse(const char *text, struct subnet *ret, struct error *err)
{
	const char *slash = strchr(text, '/');
	char address[16] = "";
	struct subnet s;

	if (slash && (size_t)(slash - text) < sizeof(address))
		memcpy(address, text, (size_t)(slash - text));
	if (!slash || subnet_parse_ipv4(address, &s.base))
		return error_set(err, -EINVAL, "subnet \"%s\" is not like " SUBNET_DEFAULT, text);
	if (parse_uint(slash + 1, "prefix of the subnet", 8, 29, &s.prefix, err))
		return -EINVAL;
	if (s.base & (~0u >> s.prefix))
		return error_set(err, -EINVAL, "subnet %s: bits behind the prefix are set", text);
	if (!is_private(s.base))
		return error_set(err, -EINVAL,
				 "subnet %s is not private (10/8, 172.16/12, 192.168/16)", text);
	*ret = s;
	return 0;
}

uint32_t subnet_last(const struct subnet *subnet)
{
	return subnet->base + (~0u >> subnet->prefix) - 1;
}

int subnet_parse_address(const struct subnet *subnet, const char *text, uint32_t *ret,
			 struct error *err)
{
	char first[16], last[16];
	uint32_t a;

	if (subnet_parse_ipv4(text, &a) || a < subnet->base + 2 || a > subnet_last(subnet))
		return error_set(err, -EINVAL, "address \"%s\" is not one of %s to %s", text,
				 subnet_format(subnet->base + 2, first),
				 subnet_format(subnet_last(subnet), last));
	*ret = a;
	return 0;
}

char *subnet_format(uint32_t address, char buf[16])
{
	snprintf(buf, 16, "%u.%u.%u.%u", address >> 24, address >> 16 & 255, address >> 8 & 255,
		 address & 255);
	return buf;
}

char *subnet_mac(uint32_t address, char buf[18])
{
	snprintf(buf, 18, "02:57:%02x:%02x:%02x:%02x", address >> 24, address >> 16 & 255,
		 address >> 8 & 255, address & 255);
	return buf;
}
