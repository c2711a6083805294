/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_AGENT_USER_H
#define WISP_AGENT_USER_H

/*
 * Who a program runs as. /etc/passwd and /etc/group are read directly: a static program
 * has no name service switch. Users of a directory service are reached by number.
 */

#include <jansson.h>
#include <sys/types.h>

struct error;

#define USER_MAX_GROUPS 64

struct user {
	uid_t uid;
	gid_t gid;
	char name[64], home[256], shell[256];
	gid_t groups[USER_MAX_GROUPS];
	size_t group_count;
};

/* user and group: a JSON string or integer, or NULL (the agent's own). -ENOENT, -EINVAL. */
int user_find(const json_t *user, const json_t *group, struct user *ret, struct error *err);

/* In a child process: becomes the user. Returns 0 or -errno; nothing to do when it is already. */
int user_become(const struct user *user);

#endif
