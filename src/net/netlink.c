/* SPDX-License-Identifier: Apache-2.0 */
/* Requests to rtnetlink(7). */

#include "net/netlink.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "lib/cleanup.h"

static void append(struct netlink_request *r, const void *data, size_t size)
{
	if (size)
		memcpy((uint8_t *)r + r->head.nlmsg_len, data, size);
	r->head.nlmsg_len += (uint32_t)NLMSG_ALIGN(size);
}

void netlink_begin(struct netlink_request *r, uint16_t type, uint16_t flags, const void *info,
		   size_t size)
{
	*r = (struct netlink_request){
		.head = {.nlmsg_len = NLMSG_HDRLEN,
			 .nlmsg_type = type,
			 .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | NLM_F_ACK | flags)}};
	append(r, info, size);
}

struct rtattr *netlink_put(struct netlink_request *r, uint16_t type, const void *data, size_t size)
{
	struct rtattr *a = (struct rtattr *)((uint8_t *)r + r->head.nlmsg_len);
	struct rtattr head = {.rta_type = type, .rta_len = (unsigned short)RTA_LENGTH(size)};

	append(r, &head, sizeof(head));
	append(r, data, size);
	return a;
}

void netlink_nest_end(struct netlink_request *r, struct rtattr *a)
{
	a->rta_len = (unsigned short)((uint8_t *)r + r->head.nlmsg_len - (uint8_t *)a);
}

int netlink_open(uint32_t groups)
{
	CLEANUP_CLOSE int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	struct sockaddr_nl us = {.nl_family = AF_NETLINK, .nl_groups = groups};

	if (fd < 0 || bind(fd, (struct sockaddr *)&us, sizeof(us)) < 0)
		return -errno;
	return take_fd(&fd);
}

int netlink_transact(int fd, const struct netlink_request *r)
{
	struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
	struct {
		struct nlmsghdr head;
		struct nlmsgerr error;
		uint8_t rest[sizeof(*r)]; /* the request is sent back */
	} answer;
	ssize_t n;

	if (sendto(fd, r, r->head.nlmsg_len, 0, (struct sockaddr *)&kernel, sizeof(kernel)) < 0)
		return -errno;
	n = recv(fd, &answer, sizeof(answer), 0);
	if (n < 0)
		return -errno;
	if ((size_t)n < NLMSG_LENGTH(sizeof(struct nlmsgerr)) ||
	    answer.head.nlmsg_type != NLMSG_ERROR)
		return -EPROTO;
	return answer.error.error;
}

int netlink_call(const struct netlink_request *r)
{
	CLEANUP_CLOSE int fd = netlink_open(0);

	return fd < 0 ? fd : netlink_transact(fd, r);
}
