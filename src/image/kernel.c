/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels from Debian packages: finding, downloading, unpacking, caching. */

#include "image/kernel.h"

#include <errno.h>
#include <glob.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image/tree.h"
#include "image/unpack.h"
#include "image/vmlinux.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/paths.h"
#include "lib/process.h"

#define PREFIX "linux-image-"
#define MAX_STEPS 4 /* from a meta-package to the real one */

/* It becomes an argument of apt and a file name. */
static int check_package(const char *name, struct error *err)
{
	size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789+.-");

	if (strncmp(name, PREFIX, strlen(PREFIX)) || name[n] || n > 128)
		return error_set(err, -EINVAL, "\"%s\" is no kernel package (%s...)", name, PREFIX);
	return 0;
}

static int run(const char *const *argv, const char *cwd, char **out, struct error *err)
{
	const int no_input[] = {-1};

	return process_run(&(struct process){.argv = argv,
					     .cwd = cwd,
					     .fds = no_input,
					     .nfds = 1,
					     .die_with_parent = true},
			   out, NULL, err);
}

/* The value of "Field: value" in a package's record, up to one of the end characters. */
static char *field(const char *record, const char *name, const char *inside, const char *end)
{
	size_t len = strlen(name);

	for (const char *line = record; line; line = strchr(line, '\n')) {
		const char *value, *stop;

		line += *line == '\n';
		if (strncmp(line, name, len) || line[len] != ':')
			continue;
		stop = line + strcspn(line, "\n");
		value = strstr(line + len, inside);
		if (!value || value >= stop)
			return NULL;
		value += strspn(value, ": ");
		return strndup(value, strcspn(value, end));
	}
	return NULL;
}

/* Follows a meta-package to the package that has the files, as apt's index knows it. */
static int resolve(const char *package, char **ret_package, char **ret_version, struct error *err)
{
	CLEANUP_FREE char *name = strdup(package);

	for (unsigned step = 0; name && step < MAX_STEPS; step++) {
		const char *const argv[] = {"apt-cache", "show", "--no-all-versions", name, NULL};
		CLEANUP_FREE char *record = NULL, *version = NULL;
		char *next;
		int rc = run(argv, NULL, &record, err);

		if (rc < 0)
			return error_prefix(err, rc,
					    "cannot find %s (does \"apt-get update\" help?)", name);
		version = field(record, "Version", ":", " \n");
		if (!version || strchr(version, '/'))
			return error_set(err, -ENOENT, "apt knows no package %s", name);
		next = field(record, "Depends", PREFIX, " ,|(\n");
		if (!next) {
			*ret_package = take_ptr(name);
			*ret_version = take_ptr(version);
			return 0;
		}
		free(name);
		name = next;
		rc = check_package(name, err);
		if (rc < 0)
			return rc;
	}
	return name ? error_set(err, -ELOOP, "%s leads to no kernel", package)
		    : error_set(err, -ENOMEM, "out of memory");
}

static bool wanted(const char *path)
{
	return !strncmp(path, "boot/vmlinuz-", 13) || !strncmp(path, "lib/modules/", 12) ||
	       !strncmp(path, "usr/lib/modules/", 16);
}

/* The only file that matches, or NULL. The caller frees it. */
static char *find_one(const char *folder, const char *pattern)
{
	CLEANUP_FREE char *path = io_format("%s/%s", folder, pattern);
	char *found = NULL;
	glob_t g;

	if (!path || glob(path, 0, NULL, &g))
		return NULL;
	if (g.gl_pathc == 1)
		found = strdup(g.gl_pathv[0]);
	globfree(&g);
	return found;
}

static int download(const char *package, const char *version, const char *to, struct error *err)
{
	CLEANUP_FREE char *what = io_format("%s=%s", package, version);
	/* As root apt would drop to a user who cannot write to our folder. */
	const char *const argv[] = {"apt-get",	"-q", "-o", "APT::Sandbox::User=root",
				    "download", what, NULL};
	CLEANUP_FREE char *progress = NULL;
	int rc = what ? run(argv, to, &progress, err) : -ENOMEM;

	return rc < 0 ? error_prefix(err, rc, "cannot download %s", package) : 0;
}

/* Fills a new folder with the kernel of a package file that lies in it. */
static int unpack(const char *folder, struct error *err)
{
	CLEANUP_FREE char *deb = find_one(folder, "*.deb"), *vmlinuz = NULL, *vmlinux = NULL;
	int rc;

	if (!deb)
		return error_set(err, -ENOENT, "apt-get download left no package");
	rc = unpack_deb(deb, folder, wanted, err);
	if (rc < 0)
		return rc;
	vmlinuz = find_one(folder, "boot/vmlinuz-*");
	vmlinux = io_format("%s/vmlinux", folder);
	if (!vmlinuz || !vmlinux)
		return error_set(err, -ENOENT, "%s holds no kernel", deb);
	rc = vmlinux_extract_file(vmlinuz, vmlinux, err);
	if (rc == 0 && unlink(deb) < 0)
		rc = error_errno(err, -errno, "cannot remove %s", deb);
	return rc;
}

static int fetch(const char *store, const char *entry, const char *package, const char *version,
		 struct error *err)
{
	CLEANUP_FREE char *tmp = NULL;
	int rc = tree_begin(store, entry, &tmp, err);

	if (rc == 0)
		rc = download(package, version, tmp, err);
	if (rc == 0)
		rc = unpack(tmp, err);
	if (rc == 0)
		rc = tree_commit(store, entry, tmp, err);
	if (rc < 0 && tmp)
		tree_remove(tmp, NULL);
	return rc;
}

/* STORE/latest-PACKAGE is a link to the entry that served it last, for use without network. */
static int remember(const char *store, const char *package, const char *entry, struct error *err)
{
	CLEANUP_FREE char *link = io_format("%s/latest-%s", store, package);
	CLEANUP_FREE char *tmp = io_format("%s/.tmp-link", store);

	if (!link || !tmp)
		return error_set(err, -ENOMEM, "out of memory");
	if (symlink(entry, tmp) < 0 || rename(tmp, link) < 0)
		return error_errno(err, -errno, "cannot make %s", link);
	return 0;
}

/* Fills ret from a folder of the cache, whose name is PACKAGE_VERSION. */
static int open_entry(const char *store, const char *entry, struct kernel *ret, struct error *err)
{
	CLEANUP_FREE char *folder = io_format("%s/%s", store, entry);
	const char *split = strchr(entry, '_');
	struct kernel k = {0};

	if (folder && split) {
		k.package = strndup(entry, (size_t)(split - entry));
		k.version = strdup(split + 1);
		k.vmlinuz = find_one(folder, "boot/vmlinuz-*");
		k.vmlinux = find_one(folder, "vmlinux");
	}
	if (k.vmlinuz) {
		k.release = strdup(strstr(k.vmlinuz, "/boot/vmlinuz-") + strlen("/boot/vmlinuz-"));
		k.modules = find_one(folder, "usr/lib/modules/*");
		if (!k.modules)
			k.modules = find_one(folder, "lib/modules/*");
	}
	if (!k.package || !k.version || !k.vmlinux || !k.release || !k.modules) {
		kernel_done(&k);
		return error_set(err, -EIO, "%s/%s is not whole: remove it", store, entry);
	}
	*ret = k;
	return 0;
}

/* The entry that served the package last, or NULL. */
static char *recall(const char *store, const char *package)
{
	CLEANUP_FREE char *link = io_format("%s/latest-%s", store, package);
	char target[512];
	ssize_t n = link ? readlink(link, target, sizeof(target) - 1) : -1;

	return n > 0 ? strndup(target, (size_t)n) : NULL;
}

/* The entry with the newest version, fetched when it is not there. */
static int newest(const char *store, const char *package, char **ret, struct error *err)
{
	CLEANUP_FREE char *real = NULL, *version = NULL, *entry = NULL, *path = NULL;
	int rc = resolve(package, &real, &version, err);

	if (rc < 0)
		return rc;
	entry = io_format("%s_%s", real, version);
	path = io_format("%s/%s", store, entry ? entry : "");
	if (!entry || !path)
		return error_set(err, -ENOMEM, "out of memory");
	if (access(path, F_OK) < 0) {
		rc = fetch(store, entry, real, version, err);
		if (rc < 0)
			return rc;
	}
	rc = remember(store, package, entry, err);
	if (rc < 0)
		return rc;
	*ret = take_ptr(entry);
	return 0;
}

/*
 * Whether apt's index is older than our link: then the link is right, and asking apt would
 * take a second for the same answer.
 */
static bool is_current(const char *store, const char *package)
{
	CLEANUP_FREE char *link = io_format("%s/latest-%s", store, package);
	struct stat index, made;

	return link && !stat("/var/lib/apt/lists", &index) && !lstat(link, &made) &&
	       made.st_mtime > index.st_mtime && !access(link, F_OK);
}

int kernel_get(const char *package, struct kernel *ret, struct error *err)
{
	CLEANUP_FREE char *store = NULL, *entry = NULL, *note = NULL;
	CLEANUP_CLOSE int lock = -1;
	struct error reason;
	int rc = check_package(package, err);

	if (rc == 0)
		rc = paths_cache("kernel", NULL, &store, err);
	if (rc < 0)
		return rc;
	lock = tree_lock(store, err);
	if (lock < 0)
		return lock;
	if (is_current(store, package))
		entry = recall(store, package);
	rc = entry ? 0 : newest(store, package, &entry, &reason);
	if (rc < 0) {
		entry = recall(store, package);
		if (!entry)
			return error_set(err, rc, "%s (and none is in the cache)", reason.text);
		note = io_format("kernel from the cache (%s)", reason.text);
	}
	rc = open_entry(store, entry, ret, err);
	if (rc == 0)
		ret->note = take_ptr(note);
	return rc;
}

void kernel_done(struct kernel *k)
{
	free(k->package);
	free(k->version);
	free(k->release);
	free(k->vmlinuz);
	free(k->vmlinux);
	free(k->modules);
	free(k->note);
	*k = (struct kernel){0};
}
