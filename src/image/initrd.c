/* SPDX-License-Identifier: Apache-2.0 */
/* Writes an initrd: a newc cpio, optionally as legacy lz4, the only lz4 Linux can read. */

#include "image/initrd.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <lz4hc.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include "image/modules.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/wire.h"

#define MAX_PROGRAM (64u << 20)
#define LZ4_LEGACY_MAGIC 0x184c2102u
#define LZ4_LEGACY_BLOCK (8u << 20)

static int add(struct archive *a, const char *path, mode_t mode, const void *data, size_t size,
	       struct error *err)
{
	struct archive_entry *entry = archive_entry_new();
	int rc = 0;

	if (!entry)
		return error_set(err, -ENOMEM, "out of memory");
	archive_entry_set_pathname(entry, path);
	archive_entry_set_mode(entry, mode);
	archive_entry_set_nlink(entry, 1);
	archive_entry_set_mtime(entry, 0, 0);
	archive_entry_set_size(entry, (la_int64_t)size);
	if (archive_write_header(a, entry) != ARCHIVE_OK ||
	    (size && archive_write_data(a, data, size) != (la_ssize_t)size))
		rc = error_set(err, -EIO, "initrd: %s: %s", path, archive_error_string(a));
	archive_entry_free(entry);
	return rc;
}

static int add_modules(struct archive *a, const struct modules *m, struct error *err)
{
	CLEANUP_FREE char *list = NULL;
	size_t list_size;
	FILE *f = open_memstream(&list, &list_size);
	int rc = 0;

	if (!f)
		return error_set(err, -ENOMEM, "out of memory");
	for (unsigned i = 0; rc == 0 && i < m->n; i++) {
		char path[128];

		snprintf(path, sizeof(path), "lib/modules/%s.ko", m->list[i].name);
		fprintf(f, "/%s%s%s\n", path, *m->list[i].device ? " " : "", m->list[i].device);
		rc = add(a, path, S_IFREG | 0644, m->list[i].data, m->list[i].size, err);
	}
	if (fclose(f) && rc == 0)
		rc = error_set(err, -ENOMEM, "out of memory");
	return rc < 0 ? rc : add(a, "etc/wisp/modules", S_IFREG | 0644, list, list_size, err);
}

static int add_program(struct archive *a, const char *path, const char *file, struct error *err)
{
	CLEANUP_FREE char *data = NULL;
	ssize_t size = io_read_file(file, MAX_PROGRAM, &data, err);

	return size < 0 ? (int)size : add(a, path, S_IFREG | 0755, data, (size_t)size, err);
}

static int add_all(struct archive *a, const struct initrd *initrd, const struct modules *m,
		   struct error *err)
{
	static const char *const folders[] = {"dev",  "etc", "etc/wisp", "lib", "lib/modules",
					      "proc", "run", "sys",	 "usr", "usr/bin"};
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < ARRAY_SIZE(folders); i++)
		rc = add(a, folders[i], S_IFDIR | 0755, NULL, 0, err);
	if (rc == 0)
		rc = add_program(a, "init", initrd->agent, err);
	if (rc == 0 && initrd->rsh)
		rc = add_program(a, "usr/bin/wisp-rsh", initrd->rsh, err);
	return rc < 0 ? rc : add_modules(a, m, err);
}

static la_ssize_t write_stream(struct archive *a, void *arg, const void *data, size_t size)
{
	if (fwrite(data, 1, size, arg) == size)
		return (la_ssize_t)size;
	archive_set_error(a, ENOMEM, "out of memory");
	return -1;
}

static int make_cpio(const struct initrd *initrd, const struct modules *m, char **ret,
		     size_t *ret_size, struct error *err)
{
	struct archive *a = archive_write_new();
	FILE *f = open_memstream(ret, ret_size);
	int rc = a && f ? 0 : error_set(err, -ENOMEM, "out of memory");

	if (rc == 0 && (archive_write_set_format_cpio_newc(a) != ARCHIVE_OK ||
			archive_write_open(a, f, NULL, write_stream, NULL) != ARCHIVE_OK))
		rc = error_set(err, -EIO, "initrd: %s", archive_error_string(a));
	if (rc == 0)
		rc = add_all(a, initrd, m, err);
	if (rc == 0 && archive_write_close(a) != ARCHIVE_OK)
		rc = error_set(err, -EIO, "initrd: %s", archive_error_string(a));
	archive_write_free(a);
	if (f && fclose(f) && rc == 0)
		rc = error_set(err, -ENOMEM, "out of memory");
	return rc;
}

/* Legacy format: magic, then blocks of 8 MiB (unpacked) with their packed size before them. */
static int compress_lz4(const char *data, size_t size, uint8_t **ret, size_t *ret_size,
			struct error *err)
{
	size_t blocks = (size + LZ4_LEGACY_BLOCK - 1) / LZ4_LEGACY_BLOCK;
	size_t room = 4 + blocks * (4 + (size_t)LZ4_compressBound(LZ4_LEGACY_BLOCK));
	uint8_t *out = malloc(room);
	struct wire_writer w = wire_writer(out, room);

	if (!out)
		return error_set(err, -ENOMEM, "out of memory");
	wire_put_u32(&w, LZ4_LEGACY_MAGIC);
	for (size_t done = 0; done < size; done += LZ4_LEGACY_BLOCK) {
		size_t left = size - done;
		int n = LZ4_compress_HC(data + done, (char *)out + w.pos + 4,
					(int)(left < LZ4_LEGACY_BLOCK ? left : LZ4_LEGACY_BLOCK),
					(int)(room - w.pos - 4), LZ4HC_CLEVEL_DEFAULT);

		if (n <= 0) {
			free(out);
			return error_set(err, -EIO, "initrd: lz4 failed");
		}
		wire_put_u32(&w, (uint32_t)n);
		w.pos += (size_t)n;
	}
	*ret = out;
	*ret_size = w.pos;
	return 0;
}

int initrd_build(const struct initrd *initrd, const char *output, struct error *err)
{
	CLEANUP_FREE char *cpio = NULL;
	CLEANUP_FREE uint8_t *packed = NULL;
	struct modules modules;
	size_t size;
	int rc = modules_load(initrd->modules, initrd->names, &modules, err);

	if (rc < 0)
		return rc;
	rc = make_cpio(initrd, &modules, &cpio, &size, err);
	modules_done(&modules);
	if (rc < 0 || !initrd->lz4)
		return rc < 0 ? rc : io_write_file(output, cpio, size, err);
	rc = compress_lz4(cpio, size, &packed, &size, err);
	return rc < 0 ? rc : io_write_file(output, packed, size, err);
}
