/* SPDX-License-Identifier: Apache-2.0 */
/* JSON that carries its own digest. */

#include "lib/sealed.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

#define DUMP_FLAGS (JSON_SORT_KEYS | JSON_INDENT(1))

int sealed_text(json_t *json, char **ret, char digest[DIGEST_TEXT], struct error *err)
{
	CLEANUP_FREE char *text = NULL;
	int rc;

	json_object_del(json, "digest");
	text = json_dumps(json, DUMP_FLAGS);
	if (!text)
		return error_set(err, -ENOMEM, "out of memory for a manifest");
	rc = digest_bytes(text, strlen(text), digest, err);
	if (rc < 0)
		return rc;
	json_object_set_new(json, "digest", json_string(digest));
	*ret = json_dumps(json, DUMP_FLAGS);
	return *ret ? 0 : error_set(err, -ENOMEM, "out of memory for a manifest");
}

static int check(json_t *json, const char *text, size_t size, const char *name,
		 char digest[DIGEST_TEXT], struct error *err)
{
	CLEANUP_FREE char *again = NULL;
	int rc = sealed_text(json, &again, digest, err);

	if (rc == 0 && (strlen(again) != size || memcmp(again, text, size)))
		rc = error_set(err, -EBADMSG, "%s is damaged or was edited (its digest is %s)",
			       name, digest);
	return rc;
}

int sealed_parse(const char *text, size_t size, const char *name, int format, json_t **ret,
		 char digest[DIGEST_TEXT], struct error *err)
{
	json_error_t reason;
	json_t *json = json_loadb(text, size, JSON_REJECT_DUPLICATES, &reason);
	int rc;

	if (!json_is_object(json))
		rc = error_set(err, -EBADMSG, "%s is damaged: %s", name,
			       json ? "it is no object" : reason.text);
	else if (json_integer_value(json_object_get(json, "format")) != format)
		rc = error_set(err, -EPROTONOSUPPORT,
			       "%s is not of format %d: use the version of Wisp that wrote it",
			       name, format);
	else
		rc = check(json, text, size, name, digest, err);
	if (rc < 0)
		json_decref(json);
	else
		*ret = json;
	return rc;
}

int sealed_read(int dir, const char *file, size_t max, const char *name, int format, json_t **ret,
		char digest[DIGEST_TEXT], struct error *err)
{
	CLEANUP_CLOSE int fd = openat(dir, file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	CLEANUP_FREE char *text = NULL;
	struct stat st;
	int rc;

	if (fd < 0 || fstat(fd, &st) < 0)
		return error_errno(err, -errno, "cannot open %s", name);
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size > max)
		return error_set(err, -EBADMSG, "%s is no manifest", name);
	text = malloc((size_t)st.st_size + 1);
	if (!text)
		return error_set(err, -ENOMEM, "%s: out of memory", name);
	rc = io_read_full(fd, text, (size_t)st.st_size);
	if (rc < 0)
		return error_errno(err, rc, "cannot read %s", name);
	return sealed_parse(text, (size_t)st.st_size, name, format, ret, digest, err);
}

/* Never over a file that is there. */
static int rename_new(int dir, const char *from, const char *to)
{
	if (renameat2(dir, from, dir, to, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno != EINVAL && errno != ENOSYS)
		return -errno;
	/* A file system that cannot (NFS). */
	return linkat(dir, from, dir, to, 0) < 0 || unlinkat(dir, from, 0) < 0 ? -errno : 0;
}

static int place(int dir, const char *temporary, const char *file, const char *text, bool replace)
{
	CLEANUP_CLOSE int fd =
		openat(dir, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	int rc = fd < 0 ? -errno : io_write_full(fd, text, strlen(text));

	if (rc == 0 && fsync(fd) < 0)
		rc = -errno;
	if (rc == 0 && !replace)
		rc = rename_new(dir, temporary, file);
	else if (rc == 0 && renameat(dir, temporary, dir, file) < 0)
		rc = -errno;
	if (rc < 0 && fd >= 0)
		unlinkat(dir, temporary, 0);
	return rc;
}

int sealed_write(int dir, const char *file, json_t *json, bool replace, char digest[DIGEST_TEXT],
		 struct error *err)
{
	CLEANUP_FREE char *temporary = io_format("%s.tmp", file);
	CLEANUP_FREE char *text = NULL;
	int rc = temporary ? sealed_text(json, &text, digest, err)
			   : error_set(err, -ENOMEM, "out of memory for a manifest");

	if (rc < 0)
		return rc;
	rc = place(dir, temporary, file, text, replace);
	return rc < 0 ? error_errno(err, rc, "cannot write %s", file) : 0;
}
