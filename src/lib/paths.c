/* SPDX-License-Identifier: Apache-2.0 */
/* The folders of Wisp and the names that may be put behind them. */

#include "lib/paths.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include "build-config.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

#define SITE_IMAGES "/var/lib/wisp/images"

int paths_check_name(const char *name, const char *what, struct error *err)
{
	size_t n = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				"0123456789._-");

	if (!n || name[n] || n > 63 || !isalnum((unsigned char)name[0]))
		return error_set(err, -EINVAL,
				 "%s name \"%s\" is not 1 to 63 letters, digits, \".\", \"_\" or "
				 "\"-\" beginning with a letter or digit",
				 what, name);
	return 0;
}

/* $var, when it is set and not empty; relative paths would mean another folder in each cwd. */
static int from_env(const char *var, const char *below, char **ret, struct error *err)
{
	const char *value = getenv(var);

	if (!value || !*value)
		return 0;
	if (value[0] != '/')
		return error_set(err, -EINVAL, "$%s is \"%s\", not an absolute path", var, value);
	*ret = io_format("%s%s", value, below);
	return *ret ? 1 : -ENOMEM;
}

/* Tries $own, then $xdg/wisp, then $HOME/home. */
static int base_of_user(const char *own, const char *xdg, const char *home, char **ret,
			struct error *err)
{
	int r = from_env(own, "", ret, err);

	if (!r)
		r = from_env(xdg, "/wisp", ret, err);
	if (!r)
		r = from_env("HOME", home, ret, err);
	if (!r)
		r = error_set(err, -ENOENT, "neither $%s, $%s nor $HOME is set: set one", own, xdg);
	return r < 0 ? r : 0;
}

/*
 * The sockets in the run folder give control over VMs, and /tmp is open to everybody: the
 * folder must be a real directory of ours that nobody else can write to.
 */
static int check_private(const char *path, struct error *err)
{
	struct stat st;

	if (lstat(path, &st) < 0)
		return error_errno(err, -errno, "cannot look at %s", path);
	if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 022))
		return error_set(err, -EPERM,
				 "%s is not a directory that only you can write to: remove it or "
				 "set $WISP_RUN to another",
				 path);
	return 0;
}

/* The folder that root's wispd made for the user: its clusters' VMs are there. NULL: none. */
static char *made_by_root(void)
{
	CLEANUP_FREE char *path = io_format("/run/wisp/user/%u", (unsigned)geteuid());
	struct stat st;

	if (!path || lstat(path, &st) || !S_ISDIR(st.st_mode) || st.st_uid != geteuid())
		return NULL;
	return take_ptr(path);
}

int paths_give_run(const char *path, uid_t uid, gid_t gid, struct error *err)
{
	struct stat st;

	if (!mkdir(path, 0700) && lchown(path, uid, gid)) {
		int r = -errno;

		rmdir(path);
		return error_errno(err, r, "cannot give %s to user %u", path, uid);
	}
	if (lstat(path, &st))
		return error_errno(err, -errno, "cannot make %s", path);
	if (!S_ISDIR(st.st_mode) || st.st_uid != uid)
		return error_set(err, -EEXIST,
				 "%s is there, and is no folder of user %u: remove it", path, uid);
	return 0;
}

static int base_of_run(char **ret, struct error *err)
{
	int r = from_env("WISP_RUN", "", ret, err);

	if (r)
		return r < 0 ? r : 0;
	if (geteuid() == 0) {
		*ret = strdup("/run/wisp");
		return *ret ? 0 : -ENOMEM;
	}
	*ret = made_by_root();
	if (*ret)
		return 0;
	r = from_env("XDG_RUNTIME_DIR", "/wisp", ret, err);
	if (!r) {
		*ret = io_format("/tmp/wisp-%u", (unsigned)geteuid());
		r = *ret ? 1 : -ENOMEM;
	}
	return r < 0 ? r : 0;
}

/* base/kind/name or, made here, base/kind. */
static int join(const char *base, const char *kind, mode_t mode, const char *name, char **ret,
		struct error *err)
{
	CLEANUP_FREE char *folder = io_format("%s/%s", base, kind);
	int r;

	if (!folder)
		return -ENOMEM;
	r = name ? paths_check_name(name, kind, err) : 0;
	if (!r)
		r = io_make_dirs(folder, mode, err);
	if (r < 0)
		return r;
	*ret = name ? io_format("%s/%s", folder, name) : take_ptr(folder);
	return *ret ? 0 : -ENOMEM;
}

int paths_run(const char *kind, const char *name, char **ret, struct error *err)
{
	CLEANUP_FREE char *base = NULL;
	int r = base_of_run(&base, err);

	if (!r)
		r = io_make_dirs(base, 0700, err);
	if (!r)
		r = check_private(base, err);
	return r ? r : join(base, kind, 0700, name, ret, err);
}

int paths_config(const char *name, char **ret, struct error *err)
{
	CLEANUP_FREE char *base = NULL;
	int r = geteuid() ? base_of_user("WISP_CONFIG", "XDG_CONFIG_HOME", "/.config/wisp", &base,
					 err)
			  : from_env("WISP_CONFIG", "", &base, err);

	if (r < 0)
		return r;
	*ret = io_format("%s/%s", base ? base : "/etc/wisp", name);
	return *ret ? 0 : error_set(err, -ENOMEM, "out of memory");
}

int paths_image(const char *name, char **ret, struct error *err)
{
	CLEANUP_FREE char *base = NULL;
	int r = base_of_user("WISP_HOME", "XDG_DATA_HOME", "/.local/share/wisp", &base, err);

	return r ? r : join(base, "images", 0755, name, ret, err);
}

static int no_memory(struct error *err)
{
	return error_set(err, -ENOMEM, "out of memory");
}

/* Fills the list with the folders of a text. */
static int split_stores(const char *text, char **list, struct error *err)
{
	for (; *text; text += strcspn(text, ":") + (text[strcspn(text, ":")] == ':')) {
		size_t n = strcspn(text, ":");

		if (!n)
			continue;
		if (*text != '/')
			return error_set(err, -EINVAL,
					 "$WISP_STORE has \"%.*s\", not an absolute path", (int)n,
					 text);
		while (n > 1 && text[n - 1] == '/')
			n--;
		*list = strndup(text, n);
		if (!*list++)
			return no_memory(err);
	}
	*list = strdup(SITE_IMAGES);
	return *list ? 0 : no_memory(err);
}

int paths_stores(char ***ret, struct error *err)
{
	const char *text = getenv("WISP_STORE") ?: "";
	size_t room = 3; /* what has no ":" behind it, the site's, NULL */
	char **list;
	int r;

	for (const char *c = text; *c; c++)
		room += *c == ':';
	list = calloc(room, sizeof(*list));
	r = list ? split_stores(text, list, err) : no_memory(err);
	if (r == 0) {
		*ret = list;
		return 0;
	}
	for (char **s = list; s && *s; s++)
		free(*s);
	free(list);
	return r;
}

int paths_data(const char *name, char **ret, struct error *err)
{
	CLEANUP_FREE char *base = NULL;
	int r = base_of_user("WISP_HOME", "XDG_DATA_HOME", "/.local/share/wisp", &base, err);

	if (!r)
		r = io_make_dirs(base, 0755, err);
	if (r)
		return r;
	*ret = io_format("%s/%s", base, name);
	return *ret ? 0 : error_set(err, -ENOMEM, "out of memory");
}

int paths_cache(const char *kind, const char *name, char **ret, struct error *err)
{
	CLEANUP_FREE char *base = NULL;
	int r = base_of_user("WISP_CACHE", "XDG_CACHE_HOME", "/.cache/wisp", &base, err);

	return r ? r : join(base, kind, 0755, name, ret, err);
}

int paths_program(const char *name, char **ret, struct error *err)
{
	/* Beside src/cli/wisp in a build tree; behind them where `meson install` puts it. */
	static const char *const below[] = {"",		"/../agent", "/../vmm", "/../cli",
					    "/../lab",	"/../mover", "/../vms", "/../node",
					    "/../part", "/../job",   "/../sbin"};
	const char *env = getenv("WISP_LIBEXECDIR");
	char self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	self[n > 0 ? n : 0] = '\0';
	if (strrchr(self, '/'))
		*strrchr(self, '/') = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(below) + 3; i++) {
		CLEANUP_FREE char *path = NULL;

		if (i == 0 && (!env || !*env))
			continue;
		if (i == 0)
			path = io_format("%s/%s", env, name);
		else if (i <= ARRAY_SIZE(below))
			path = io_format("%s%s/%s", self, below[i - 1], name);
		else
			path = io_format("%s/%s",
					 i == ARRAY_SIZE(below) + 1 ? WISP_LIBEXECDIR : WISP_BINDIR,
					 name);
		if (!path)
			return error_set(err, -ENOMEM, "out of memory");
		if (!access(path, X_OK)) {
			*ret = take_ptr(path);
			return 0;
		}
	}
	return error_set(err, -ENOENT,
			 "no program %s in %s, where it was built or in %s and %s (set "
			 "$WISP_LIBEXECDIR)",
			 name, self, WISP_LIBEXECDIR, WISP_BINDIR);
}
