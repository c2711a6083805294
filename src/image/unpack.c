/* SPDX-License-Identifier: Apache-2.0 */
/* Decompressing bytes and unpacking Debian packages. */

#include "image/unpack.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

#define CHUNK (1u << 20)

static void cleanup_archive(struct archive **a)
{
	archive_read_free(*a);
}
#define CLEANUP_ARCHIVE __attribute__((cleanup(cleanup_archive)))

static int archive_error(struct error *err, int code, const char *what, struct archive *a)
{
	const char *text = archive_error_string(a);

	return error_set(err, code, "%s: %s", what, text ? text : "bad data");
}

/* Only those that are in the library: the others would start programs. */
static struct archive *reader_new(void)
{
	struct archive *a = archive_read_new();

	if (!a)
		return NULL;
	archive_read_support_filter_gzip(a);
	archive_read_support_filter_bzip2(a);
	archive_read_support_filter_xz(a);
	archive_read_support_filter_lzma(a);
	archive_read_support_filter_lz4(a);
	archive_read_support_filter_zstd(a);
	return a;
}

int unpack_bytes(const void *data, size_t size, size_t max, const char *what, uint8_t **ret,
		 size_t *ret_size, struct error *err)
{
	CLEANUP_ARCHIVE struct archive *a = reader_new();
	CLEANUP_FREE uint8_t *buf = NULL;
	struct archive_entry *entry;
	size_t used = 0, room = 0;

	if (!a)
		return error_set(err, -ENOMEM, "%s: out of memory", what);
	archive_read_support_format_raw(a);
	if (archive_read_open_memory(a, data, size) != ARCHIVE_OK ||
	    archive_read_next_header(a, &entry) != ARCHIVE_OK)
		return archive_error(err, -EBADMSG, what, a);
	/* The last filter is "none": alone, it means that no format was recognised. */
	if (archive_filter_count(a) < 2)
		return error_set(err, -EBADMSG,
				 "%s: not compressed by gzip, bzip2, xz, lzma, lz4 or zstd", what);
	for (;;) {
		ssize_t n;

		if (used == room) {
			uint8_t *more;

			room = room > max / 2 ? max + 1 : room ? 2 * room : CHUNK;
			more = realloc(buf, room);
			if (!more)
				return error_set(err, -ENOMEM, "%s: out of memory", what);
			buf = more;
		}
		n = archive_read_data(a, buf + used, room - used);
		if (n < 0)
			return archive_error(err, -EBADMSG, what, a);
		if (n == 0)
			break;
		used += (size_t)n;
		if (used > max)
			return error_set(err, -EFBIG, "%s: more than %zu bytes when unpacked", what,
					 max);
	}
	*ret = take_ptr(buf);
	*ret_size = used;
	return 0;
}

/* Hands the data of an archive's current entry to a second archive. */
struct inner {
	struct archive *outer;
	uint8_t buf[CHUNK];
};

static ssize_t inner_read(struct archive *a, void *arg, const void **buf)
{
	struct inner *inner = arg;
	ssize_t n = archive_read_data(inner->outer, inner->buf, sizeof(inner->buf));

	*buf = inner->buf;
	if (n < 0)
		archive_set_error(a, EBADMSG, "%s", archive_error_string(inner->outer));
	return n;
}

static bool path_is_safe(const char *path)
{
	for (const char *p = path; *p;) {
		size_t len = strcspn(p, "/");

		if (len == 0 || (len <= 2 && !strncmp(p, "..", len)))
			return false;
		p += len;
		if (*p && !*++p)
			return false;
	}
	return *path;
}

static int write_entry(struct archive *a, const char *path, struct error *err)
{
	CLEANUP_FREE char *folder = strdup(path);
	CLEANUP_CLOSE int fd = -1;
	int rc;

	if (!folder)
		return error_set(err, -ENOMEM, "out of memory");
	*strrchr(folder, '/') = '\0';
	rc = io_make_dirs(folder, 0755, err);
	if (rc < 0)
		return rc;
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (fd < 0)
		return error_errno(err, -errno, "cannot make %s", path);
	if (archive_read_data_into_fd(a, fd) != ARCHIVE_OK)
		return archive_error(err, -EIO, path, a);
	return 0;
}

static int unpack_entries(struct archive *a, const char *to, bool (*want)(const char *path),
			  struct error *err)
{
	struct archive_entry *entry;
	int rc;

	while ((rc = archive_read_next_header(a, &entry)) == ARCHIVE_OK) {
		const char *name = archive_entry_pathname(entry);
		CLEANUP_FREE char *path = NULL;

		if (!name || archive_entry_filetype(entry) != AE_IFREG)
			continue;
		name += strncmp(name, "./", 2) ? 0 : 2;
		if (!want(name))
			continue;
		if (!path_is_safe(name))
			return error_set(err, -EBADMSG, "refused the path %s", name);
		path = io_format("%s/%s", to, name);
		if (!path)
			return error_set(err, -ENOMEM, "out of memory");
		rc = write_entry(a, path, err);
		if (rc < 0)
			return rc;
	}
	return rc == ARCHIVE_EOF ? 0 : archive_error(err, -EBADMSG, "data.tar", a);
}

static int unpack_data_tar(struct archive *outer, const char *to, bool (*want)(const char *path),
			   struct error *err)
{
	CLEANUP_ARCHIVE struct archive *a = reader_new();
	CLEANUP_FREE struct inner *inner = malloc(sizeof(*inner));

	if (!a || !inner)
		return error_set(err, -ENOMEM, "out of memory");
	inner->outer = outer;
	archive_read_support_format_tar(a);
	if (archive_read_open(a, inner, NULL, inner_read, NULL) != ARCHIVE_OK)
		return archive_error(err, -EBADMSG, "data.tar", a);
	return unpack_entries(a, to, want, err);
}

int unpack_deb(const char *deb, const char *to, bool (*want)(const char *path), struct error *err)
{
	CLEANUP_ARCHIVE struct archive *a = archive_read_new();
	struct archive_entry *entry;
	int rc;

	if (!a)
		return error_set(err, -ENOMEM, "out of memory");
	archive_read_support_format_ar(a);
	if (archive_read_open_filename(a, deb, CHUNK) != ARCHIVE_OK)
		return archive_error(err, -EBADMSG, deb, a);
	while ((rc = archive_read_next_header(a, &entry)) == ARCHIVE_OK) {
		const char *name = archive_entry_pathname(entry);

		if (!name || strncmp(name, "data.tar", 8))
			continue;
		rc = unpack_data_tar(a, to, want, err);
		return rc < 0 ? error_prefix(err, rc, "%s", deb) : 0;
	}
	if (rc != ARCHIVE_EOF)
		return archive_error(err, -EBADMSG, deb, a);
	return error_set(err, -EBADMSG, "%s holds no data.tar: not a Debian package", deb);
}
