/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Jobs of the helper: a program of the cluster's user. What takes root (its control group, its
 * network, its groups) comes first, then the user, with no way back. The process that was the
 * helper becomes the program.
 */

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <linux/capability.h>

#include "lib/args.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/paths.h"
#include "net/fabric.h"
#include "net/lan.h"
#include "node/cgroup.h"
#include "node/helper-devices.h"
#include "node/helper.h"

#define PATH_OF_USERS "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define GROUPS_MAX 1024
#define SOCKET 3 /* the program's descriptor 0, when the job says so */

struct become {
	const json_t *job;
	uid_t uid;
	gid_t gid;
	char *name, *home; /* of the user */
	const char *run;   /* the user's run folder, or NULL */
	gid_t groups[GROUPS_MAX];
	int ngroups;
};

/* -------- who that is -------- */

/* Root's own group opens far more than the device: then it has to be open to the user otherwise. */
static void add_owner(struct become *b, const char *device)
{
	struct stat st;

	if (stat(device, &st) || !st.st_gid || (st.st_mode & 060) != 060)
		return;
	for (int i = 0; i < b->ngroups; i++)
		if (b->groups[i] == st.st_gid)
			return;
	if (b->ngroups < GROUPS_MAX)
		b->groups[b->ngroups++] = st.st_gid;
}

static int find_user(struct become *b, struct error *err)
{
	const struct passwd *user;

	errno = 0;
	user = getpwuid(b->uid);
	if (!user)
		return error_set(err, errno ? -errno : -ENOENT,
				 "user %u is not in this node's user database", b->uid);
	b->gid = user->pw_gid;
	b->name = strdup(user->pw_name);
	b->home = strdup(user->pw_dir);
	b->ngroups = GROUPS_MAX;
	if (!b->name || !b->home)
		return error_set(err, -ENOMEM, "out of memory");
	if (getgrouplist(b->name, b->gid, b->groups, &b->ngroups) < 0)
		b->ngroups = GROUPS_MAX;
	add_owner(b, "/dev/kvm");
	add_owner(b, "/dev/vhost-net");
	return 0;
}

/* -------- as root -------- */

static int enter_group(const struct become *b, struct error *err)
{
	const char *base = helper_text(b->job, "cgroups"), *cluster, *part;
	int r = base ? helper_need(b->job, "cluster", &cluster, err) : 0;

	if (r || !base)
		return r;
	r = helper_need(b->job, "part", &part, err);
	if (!r)
		r = cgroup_part(base, cluster, part, b->uid, b->gid, err);
	return r ? r : cgroup_enter(base, cluster, part, getpid(), err);
}

/* The next child is the first process of a PID namespace, as keepers are. */
static int enter_network(const char *path, struct error *err)
{
	int r = path ? fabric_enter(path, err) : 0;

	if (!r && path && unshare(CLONE_NEWPID) < 0)
		r = error_errno(err, -errno, "cannot make a PID namespace");
	return r;
}

/* Which the user could not open: the program is told their numbers behind its own arguments. */
static int open_taps(const json_t *taps, struct args *argv, struct error *err)
{
	const json_t *tap;
	size_t i;
	int r = 0;

	json_array_foreach (taps, i, tap) {
		const char *name = json_string_value(tap);
		int fd;

		r = name ? lan_open_tap(name, &fd, err)
			 : error_set(err, -EINVAL, "a tap's name is no text");
		if (r)
			break;
		args_add(argv, "%s=%d", name, fd);
	}
	return r;
}

/* They are open behind the exec as well. */
static void keep_taps(const json_t *taps, const struct args *argv)
{
	for (size_t i = json_array_size(taps); i; i--)
		fcntl(atoi(strchr(argv->v[argv->n - i], '=') + 1), F_SETFD, 0);
}

static int drop_capabilities(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {0};

	return syscall(SYS_capset, &header, none) ? -errno : 0;
}

/*
 * Not dumpable from before the user owns the process: until its exec the user must not get at it.
 * Root's own clusters stay root's.
 */
static int become_user(const struct become *b, struct error *err)
{
	uid_t r, e, s;

	if (prctl(PR_SET_DUMPABLE, 0) || setgroups((size_t)b->ngroups, b->groups) ||
	    setresgid(b->gid, b->gid, b->gid) || setresuid(b->uid, b->uid, b->uid))
		return error_errno(err, -errno, "cannot become user %s", b->name);
	if (b->uid && drop_capabilities())
		return error_errno(err, -errno, "cannot give up root's capabilities");
	if (getresuid(&r, &e, &s) || r != b->uid || e != b->uid || s != b->uid)
		return error_set(err, -EPERM, "cannot become user %s", b->name);
	return 0;
}

static int take_rights(struct become *b, struct args *argv, struct error *err)
{
	int r = find_user(b, err);

	if (!r && b->run)
		r = paths_give_run(b->run, b->uid, b->gid, err);
	if (!r)
		r = enter_group(b, err);
	if (!r)
		r = enter_network(helper_text(b->job, "network"), err);
	if (!r)
		r = open_taps(json_object_get(b->job, "taps"), argv, err);
	if (!r)
		r = devices_give("", json_object_get(b->job, "devices"), b->uid, b->gid, err);
	return r ? r : become_user(b, err);
}

/* -------- as the user -------- */

static int open_log(const char *path, int *ret, struct error *err)
{
	*ret = open(path ? path : "/dev/null",
		    O_WRONLY | O_APPEND | O_CLOEXEC | O_NOFOLLOW | (path ? O_CREAT : 0), 0600);
	return *ret < 0 ? error_errno(err, -errno, "cannot open %s", path ? path : "/dev/null") : 0;
}

/*
 * Standard error goes to the log. The program that has a socket gets it as descriptor 0 and has no
 * standard output; the helper's, in which failures are told, then closes when it runs.
 */
static int place_fds(bool socket, int log, struct error *err)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int said = socket ? fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 10) : STDOUT_FILENO;
	bool ok = null >= 0 && said >= 0 && dup2(socket ? SOCKET : null, STDIN_FILENO) >= 0 &&
		  dup2(log, STDERR_FILENO) >= 0 && (!socket || dup2(log, STDOUT_FILENO) >= 0) &&
		  !close_range(3, UINT_MAX, CLOSE_RANGE_CLOEXEC);

	return ok ? said : error_errno(err, -errno, "cannot hand over descriptors");
}

/*
 * Nothing of root's but where things of the site are; what a user's own daemon has is the user's,
 * and what root's has is root's.
 */
static int make_environment(const struct become *b, struct args *ret)
{
	static const char *const places[] = {"WISP_LIBEXECDIR", "WISP_STORE", "WISP_HOME",
					     "WISP_CACHE"};
	size_t n = b->uid ? 2 : ARRAY_SIZE(places); /* what is root's alone comes last */
	char runtime[64];
	struct stat st;

	args_add(ret, "PATH=" PATH_OF_USERS);
	args_add(ret, "HOME=%s", b->home);
	args_add(ret, "USER=%s", b->name);
	args_add(ret, "LOGNAME=%s", b->name);
	args_add(ret, "LANG=C.UTF-8");
	if (b->run)
		args_add(ret, "WISP_RUN=%s", b->run);
	for (size_t i = 0; i < n; i++)
		if (getenv(places[i]))
			args_add(ret, "%s=%s", places[i], getenv(places[i]));
	snprintf(runtime, sizeof(runtime), "/run/user/%u", b->uid);
	if (!lstat(runtime, &st) && S_ISDIR(st.st_mode) && st.st_uid == b->uid)
		args_add(ret, "XDG_RUNTIME_DIR=%s", runtime);
	return ret->failed ? -ENOMEM : 0;
}

static int read_command(const json_t *job, struct args *ret, struct error *err)
{
	const json_t *item;
	size_t i;

	json_array_foreach (json_object_get(job, "argv"), i, item)
		args_add(ret, "%s", json_is_string(item) ? json_string_value(item) : "");
	if (ret->failed)
		return error_set(err, -ENOMEM, "out of memory");
	return i ? 0 : error_set(err, -EINVAL, "the job has no \"argv\"");
}

/* On failure standard output is where the helper's was. */
static int run(const struct become *b, const struct args *argv, const struct args *env, int log,
	       struct error *err)
{
	bool socket = json_is_true(json_object_get(b->job, "socket"));
	int r, said = place_fds(socket, log, err);

	if (said < 0)
		return said;
	keep_taps(json_object_get(b->job, "taps"), argv);
	umask(022);
	setsid();
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || chdir("/"))
		r = error_errno(err, -errno, "cannot run %s", argv->v[0]);
	else {
		execve(argv->v[0], argv->v, env ? env->v : environ);
		r = error_errno(err, -errno, "cannot run %s", argv->v[0]);
	}
	dup2(said, STDOUT_FILENO);
	return r;
}

int helper_become(const json_t *job, struct error *err)
{
	const json_t *user = json_object_get(job, "user");
	struct become b = {.job = job, .run = helper_text(job, "run")};
	struct args argv = {0}, env = {0};
	CLEANUP_CLOSE int log = -1;
	bool own;
	int r = 0;

	b.uid = json_is_integer(user) ? (uid_t)json_integer_value(user) : (uid_t)-1;
	own = geteuid() && b.uid == geteuid();
	if (!own && (geteuid() || b.uid == (uid_t)-1))
		r = error_set(err, -EPERM, "only root can become user %u", b.uid);
	if (!r)
		r = read_command(job, &argv, err);
	if (!r)
		r = own ? enter_group(&b, err) : take_rights(&b, &argv, err);
	if (!r)
		r = open_log(helper_text(job, "log"), &log, err);
	if (!r && !own)
		r = make_environment(&b, &env);
	if (!r)
		r = run(&b, &argv, own ? NULL : &env, log, err);
	args_done(&argv);
	args_done(&env);
	free(b.name);
	free(b.home);
	return r;
}
