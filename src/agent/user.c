/* SPDX-License-Identifier: Apache-2.0 */
/* Users and groups from /etc/passwd and /etc/group. */

#include "agent/user.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"

static bool copy_string(char *to, size_t size, const char *from)
{
	return from && (size_t)snprintf(to, size, "%s", from) < size;
}

/* Fills user from the line with that name (or, name NULL, that uid); false when there is none. */
static bool passwd_find(const char *name, uid_t uid, struct user *user)
{
	CLEANUP_FILE FILE *f = fopen("/etc/passwd", "re");
	struct passwd *pw;

	while (f && (pw = fgetpwent(f))) {
		if (name ? strcmp(pw->pw_name, name) : pw->pw_uid != uid)
			continue;
		user->uid = pw->pw_uid;
		user->gid = pw->pw_gid;
		return copy_string(user->name, sizeof(user->name), pw->pw_name) &&
		       copy_string(user->home, sizeof(user->home), pw->pw_dir) &&
		       copy_string(user->shell, sizeof(user->shell), pw->pw_shell);
	}
	return false;
}

static bool is_member(const struct group *gr, const char *name)
{
	for (char **m = gr->gr_mem; *m; m++)
		if (!strcmp(*m, name))
			return true;
	return false;
}

static void find_groups(struct user *user)
{
	CLEANUP_FILE FILE *f = fopen("/etc/group", "re");
	struct group *gr;

	user->groups[user->group_count++] = user->gid;
	while (f && user->group_count < USER_MAX_GROUPS && (gr = fgetgrent(f)))
		if (gr->gr_gid != user->gid && is_member(gr, user->name))
			user->groups[user->group_count++] = gr->gr_gid;
}

static int find_group(const json_t *group, gid_t *ret, struct error *err)
{
	CLEANUP_FILE FILE *f = NULL;
	struct group *gr;

	if (json_is_integer(group)) {
		*ret = (gid_t)json_integer_value(group);
		return 0;
	}
	if (!json_is_string(group))
		return error_set(err, -EINVAL, "\"group\" is neither a name nor a number");
	f = fopen("/etc/group", "re");
	while (f && (gr = fgetgrent(f)))
		if (!strcmp(gr->gr_name, json_string_value(group))) {
			*ret = gr->gr_gid;
			return 0;
		}
	return error_set(err, -ENOENT, "no group \"%s\" in /etc/group", json_string_value(group));
}

int user_find(const json_t *user, const json_t *group, struct user *ret, struct error *err)
{
	struct user u = {.uid = geteuid(), .gid = getegid()};

	if (json_is_integer(user)) {
		json_int_t n = json_integer_value(user);

		if (n < 0 || n >= UINT32_MAX)
			return error_set(err, -EINVAL, "user %lld is not a user number",
					 (long long)n);
		u.uid = (uid_t)n;
		u.gid = (gid_t)n;
	} else if (user && !json_is_string(user)) {
		return error_set(err, -EINVAL, "\"user\" is neither a name nor a number");
	}
	if (!passwd_find(json_string_value(user), u.uid, &u)) {
		if (json_is_string(user))
			return error_set(err, -ENOENT, "no user \"%s\" in /etc/passwd",
					 json_string_value(user));
		snprintf(u.name, sizeof(u.name), "%u", u.uid);
	}
	if (!u.home[0])
		strcpy(u.home, "/");
	if (!u.shell[0])
		strcpy(u.shell, "/bin/sh");
	if (group) {
		int r = find_group(group, &u.gid, err);

		if (r)
			return r;
	}
	find_groups(&u);
	*ret = u;
	return 0;
}

int user_become(const struct user *user)
{
	if (geteuid() == user->uid && getegid() == user->gid && geteuid())
		return 0;
	if (setgroups(user->group_count, user->groups) < 0 || setgid(user->gid) < 0 ||
	    setuid(user->uid) < 0)
		return -errno;
	return 0;
}
