/* SPDX-License-Identifier: Apache-2.0 */
/* Kernel modules by name: finding, reading and ordering them. */

#include "image/modules.h"

#include <elf.h>
#include <errno.h>
#include <fts.h>
#include <string.h>

#include "image/unpack.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

#define MAX_MODULE (64u << 20)
#define MAX_LIST (4u << 20) /* modules.builtin */
#define MAX_MODULES 256	    /* in one initrd */

/* One row a module file of the kernel, sorted by name. */
struct index_row {
	char *name, *path;
};

struct index {
	struct index_row *rows;
	size_t n, room;
	char *builtin; /* modules.builtin, names with "_" */
};

static void index_done(struct index *index)
{
	for (size_t i = 0; i < index->n; i++) {
		free(index->rows[i].name);
		free(index->rows[i].path);
	}
	free(index->rows);
	free(index->builtin);
}
#define CLEANUP_INDEX __attribute__((cleanup(index_done)))

static void underscores(char *name)
{
	for (; *name; name++)
		if (*name == '-')
			*name = '_';
}

/* "crc32c-intel.ko.xz" to "crc32c_intel"; NULL when it is no module. The caller frees. */
static char *module_name(const char *file)
{
	const char *end = strstr(file, ".ko");
	char *name;

	if (!end || (end[3] && end[3] != '.'))
		return NULL;
	name = strndup(file, (size_t)(end - file));
	if (name)
		underscores(name);
	return name;
}

static int index_add(struct index *index, const char *file, const char *path)
{
	struct index_row row = {.name = module_name(file)};

	if (!row.name)
		return 0;
	if (index->n == index->room) {
		size_t room = index->room ? 2 * index->room : 256;
		void *more = reallocarray(index->rows, room, sizeof(row));

		if (!more)
			goto nomem;
		index->rows = more;
		index->room = room;
	}
	row.path = strdup(path);
	if (!row.path)
		goto nomem;
	index->rows[index->n++] = row;
	return 0;
nomem:
	free(row.name);
	return -ENOMEM;
}

static int compare_rows(const void *a, const void *b)
{
	return strcmp(((const struct index_row *)a)->name, ((const struct index_row *)b)->name);
}

static int index_make(struct index *index, const char *folder, struct error *err)
{
	CLEANUP_FREE char *builtin = io_format("%s/modules.builtin", folder);
	char *const roots[] = {(char *)folder, NULL};
	FTS *fts;
	FTSENT *entry;
	int rc = 0;

	if (!builtin)
		return error_set(err, -ENOMEM, "out of memory");
	rc = (int)io_read_file(builtin, MAX_LIST, &index->builtin, err);
	if (rc < 0)
		return rc;
	underscores(index->builtin);
	fts = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR | FTS_NOSTAT, NULL);
	if (!fts)
		return error_errno(err, -errno, "cannot read %s", folder);
	for (rc = 0; rc == 0 && (entry = fts_read(fts));)
		if (entry->fts_info == FTS_F || entry->fts_info == FTS_NSOK)
			rc = index_add(index, entry->fts_name, entry->fts_path);
	fts_close(fts);
	if (rc < 0)
		return error_set(err, rc, "out of memory");
	if (index->n)
		qsort(index->rows, index->n, sizeof(*index->rows), compare_rows);
	return 0;
}

static const char *index_find(const struct index *index, const char *name)
{
	struct index_row key = {.name = (char *)name};
	const struct index_row *row =
		index->n ? bsearch(&key, index->rows, index->n, sizeof(key), compare_rows) : NULL;

	return row ? row->path : NULL;
}

/* Lines of modules.builtin are paths: "kernel/fs/ext4/ext4.ko". */
static bool is_builtin(const struct index *index, const char *name)
{
	size_t len = strlen(name);

	for (const char *p = index->builtin; (p = strstr(p, name)); p += len)
		if (p > index->builtin && p[-1] == '/' && !strncmp(p + len, ".ko", 3))
			return true;
	return false;
}

/* The ELF section .modinfo: NUL-terminated "key=value" strings. */
static const char *find_modinfo(const uint8_t *module, size_t size, size_t *ret_size)
{
	Elf64_Ehdr e;
	Elf64_Shdr s, names;

	if (size < sizeof(e) || memcmp(module, ELFMAG, SELFMAG))
		return NULL;
	memcpy(&e, module, sizeof(e));
	if (e.e_ident[EI_CLASS] != ELFCLASS64 || e.e_shentsize != sizeof(s) || e.e_shoff > size ||
	    (size - e.e_shoff) / sizeof(s) < e.e_shnum || e.e_shstrndx >= e.e_shnum)
		return NULL;
	memcpy(&names, module + e.e_shoff + e.e_shstrndx * sizeof(s), sizeof(s));
	if (names.sh_offset > size || names.sh_size > size - names.sh_offset)
		return NULL;
	for (unsigned i = 0; i < e.e_shnum; i++) {
		memcpy(&s, module + e.e_shoff + i * sizeof(s), sizeof(s));
		if (s.sh_name >= names.sh_size || names.sh_size - s.sh_name < sizeof(".modinfo") ||
		    memcmp(module + names.sh_offset + s.sh_name, ".modinfo", sizeof(".modinfo")))
			continue;
		if (s.sh_type == SHT_NOBITS || s.sh_offset > size ||
		    s.sh_size > size - s.sh_offset || !s.sh_size ||
		    module[s.sh_offset + s.sh_size - 1])
			return NULL;
		*ret_size = s.sh_size;
		return (const char *)module + s.sh_offset;
	}
	return NULL;
}

const char *module_info(const uint8_t *module, size_t size, const char *key, unsigned index)
{
	size_t left = 0, len = strlen(key);
	const char *p = find_modinfo(module, size, &left);

	while (p && left) {
		size_t n = strlen(p) + 1;

		if (!strncmp(p, key, len) && p[len] == '=' && !index--)
			return p + len + 1;
		p += n;
		left -= n;
	}
	return NULL;
}

static int read_module(const char *path, struct module *ret, struct error *err)
{
	CLEANUP_FREE char *data = NULL;
	ssize_t size = io_read_file(path, MAX_MODULE, &data, err);
	size_t left;

	if (size < 0)
		return (int)size;
	if (size > SELFMAG && !memcmp(data, ELFMAG, SELFMAG)) {
		ret->data = (uint8_t *)take_ptr(data);
		ret->size = (size_t)size;
	} else {
		int rc = unpack_bytes(data, (size_t)size, MAX_MODULE, path, &ret->data, &ret->size,
				      err);

		if (rc < 0)
			return rc;
	}
	if (!find_modinfo(ret->data, ret->size, &left))
		return error_set(err, -ENOEXEC, "%s is not a kernel module (no .modinfo)", path);
	return 0;
}

static bool have_module(const struct modules *m, const char *name)
{
	for (unsigned i = 0; i < m->n; i++)
		if (!strcmp(m->list[i].name, name))
			return true;
	return false;
}

static int add_module(const struct index *index, struct modules *m, const char *name, bool must,
		      unsigned depth, struct error *err);

/* Adds the modules of a list separated by any of separators. */
static int add_list(const struct index *index, struct modules *m, const char *list,
		    const char *separators, bool must, unsigned depth, struct error *err)
{
	while (list && *list) {
		size_t len = strcspn(list, separators);
		char name[64];
		int rc;

		/* "softdep=pre: a b post: c": what is to come later does not concern us. */
		if (len && list[len - 1] == ':' && strncmp(list, "pre:", 4))
			return 0;
		if (len && len < sizeof(name) && list[len - 1] != ':') {
			snprintf(name, sizeof(name), "%.*s", (int)len, list);
			rc = add_module(index, m, name, must, depth, err);
			if (rc < 0)
				return rc;
		}
		list += len;
		list += strspn(list, separators);
	}
	return 0;
}

/* Adds a module behind those it needs. */
static int add_module(const struct index *index, struct modules *m, const char *wanted, bool must,
		      unsigned depth, struct error *err)
{
	CLEANUP_FREE char *name = strdup(wanted);
	struct module module = {0};
	const char *path;
	int rc;

	if (!name)
		return error_set(err, -ENOMEM, "out of memory");
	underscores(name);
	if (have_module(m, name) || is_builtin(index, name))
		return 0;
	path = index_find(index, name);
	if (!path)
		return must ? error_set(err, -ENOENT, "no kernel module %s", wanted) : 0;
	if (depth > 16)
		return error_set(err, -ELOOP, "kernel modules need each other in a circle at %s",
				 wanted);
	rc = read_module(path, &module, err);
	if (rc == 0)
		rc = add_list(index, m, module_info(module.data, module.size, "depends", 0), ",",
			      true, depth + 1, err);
	if (rc == 0)
		/* These may be aliases, and are no more than advice. */
		rc = add_list(index, m, module_info(module.data, module.size, "softdep", 0), " ",
			      false, depth + 1, err);
	if (rc == 0 && m->n == MAX_MODULES)
		rc = error_set(err, -E2BIG, "more than %u kernel modules", MAX_MODULES);
	if (rc < 0) {
		free(module.data);
		return rc;
	}
	module.name = take_ptr(name);
	m->list[m->n++] = module;
	return 0;
}

/* One of the caller's list; what is new with it is needed where it is. */
static int add_named(const struct index *index, struct modules *m, const char *text,
		     struct error *err)
{
	CLEANUP_FREE char *name = strdup(text + (*text == '?'));
	char *device = name ? strchr(name, '@') : NULL;
	unsigned before = m->n;
	int rc;

	if (!name)
		return error_set(err, -ENOMEM, "out of memory");
	if (device)
		*device++ = 0;
	rc = add_module(index, m, name, *text != '?', 0, err);
	for (unsigned i = before; device && i < m->n; i++)
		snprintf(m->list[i].device, sizeof(m->list[i].device), "%s", device);
	return rc;
}

int modules_load(const char *folder, const char *const *names, struct modules *ret,
		 struct error *err)
{
	CLEANUP_INDEX struct index index = {0};
	struct modules m = {.list = calloc(MAX_MODULES, sizeof(*m.list))};
	int rc =
		m.list ? index_make(&index, folder, err) : error_set(err, -ENOMEM, "out of memory");

	/* Those for all machines first: what they need, all machines need. */
	for (int pass = 0; pass < 2; pass++)
		for (const char *const *name = names; rc == 0 && *name; name++)
			if ((strchr(*name, '@') != NULL) == pass)
				rc = add_named(&index, &m, *name, err);
	if (rc < 0) {
		modules_done(&m);
		return error_prefix(err, rc, "%s", folder);
	}
	*ret = m;
	return 0;
}

void modules_done(struct modules *m)
{
	for (unsigned i = 0; i < m->n; i++) {
		free(m->list[i].name);
		free(m->list[i].data);
	}
	free(m->list);
	*m = (struct modules){0};
}
