/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_NET_NETLINK_H
#define WISP_NET_NETLINK_H

/*
 * Requests to the kernel's rtnetlink(7): begin one, put attributes, send it and wait for the
 * verdict. A socket speaks for the network namespace it was made in.
 */

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stddef.h>
#include <stdint.h>

/* Far larger than any we make. */
struct netlink_request {
	struct nlmsghdr head;
	uint8_t body[512];
};

/* info: the fixed part of this type of message (struct ifinfomsg, struct ndmsg). */
void netlink_begin(struct netlink_request *r, uint16_t type, uint16_t flags, const void *info,
		   size_t size);

/* Adds an attribute. */
struct rtattr *netlink_put(struct netlink_request *r, uint16_t type, const void *data, size_t size);

/* Everything put since belongs to the attribute, which was put empty. */
void netlink_nest_end(struct netlink_request *r, struct rtattr *a);

/* A socket of the calling thread's network namespace (CLOEXEC); groups: RTMGRP_*. Or -errno. */
int netlink_open(uint32_t groups);

/* Sends the request and waits for the kernel's verdict: 0 or -errno. */
int netlink_transact(int fd, const struct netlink_request *r);

/* The same on a socket made for it. */
int netlink_call(const struct netlink_request *r);

#endif
