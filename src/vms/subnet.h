/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMS_SUBNET_H
#define WISP_VMS_SUBNET_H

/* The IPv4 addresses of a private network. Addresses are in host byte order. */

#include <stdint.h>

struct error;

#define SUBNET_DEFAULT "10.78.0.0/24"

struct subnet {
	uint32_t base; /* the network's own address; base + 1 is the bridge */
	unsigned prefix;
};

/* "10.78.0.0/24", prefix 8 to 29, from a private range (RFC 1918). */
int subnet_parse(const char *text, struct subnet *ret, struct error *err);

/* The last address for a VM; the first is base + 2. */
uint32_t subnet_last(const struct subnet *subnet);

/* An address that a VM can have there. */
int subnet_parse_address(const struct subnet *subnet, const char *text, uint32_t *ret,
			 struct error *err);

/* An IPv4 address, or -EINVAL. */
int subnet_parse_ipv4(const char *text, uint32_t *ret);

/* "10.78.0.2"; room for 16 characters; returns buf. */
char *subnet_format(uint32_t address, char buf[16]);

/* A locally administered MAC address made of the address: no two VMs of a network share it. */
char *subnet_mac(uint32_t address, char buf[18]);

#endif
