/* SPDX-License-Identifier: Apache-2.0 */
/* Modules, initrds, APT sources, and folders that appear whole. */

#include <archive.h>
#include <archive_entry.h>
#include <elf.h>
#include <sys/stat.h>

#include "image/initrd.h"
#include "image/modules.h"
#include "image/root.h"
#include "image/sources.h"
#include "image/test/fixture.h"

/* A module: an ELF file with .shstrtab and .modinfo. */
static size_t make_module(const char *info, size_t info_size, uint8_t *out)
{
	static const char names[] = "\0.shstrtab\0.modinfo";
	Elf64_Ehdr e = {.e_shoff = sizeof(e),
			.e_shentsize = sizeof(Elf64_Shdr),
			.e_shnum = 3,
			.e_shstrndx = 1};
	size_t data = sizeof(e) + 3 * sizeof(Elf64_Shdr);
	Elf64_Shdr s[3] = {
		{0},
		{.sh_name = 1, .sh_type = SHT_STRTAB, .sh_offset = data, .sh_size = sizeof(names)},
		{.sh_name = 11,
		 .sh_type = SHT_PROGBITS,
		 .sh_offset = data + sizeof(names),
		 .sh_size = info_size}};

	memcpy(e.e_ident, ELFMAG, SELFMAG);
	e.e_ident[EI_CLASS] = ELFCLASS64;
	memcpy(out, &e, sizeof(e));
	memcpy(out + sizeof(e), s, sizeof(s));
	memcpy(out + data, names, sizeof(names));
	memcpy(out + data + sizeof(names), info, info_size);
	return data + sizeof(names) + info_size;
}

static void write_module(struct fixture *f, const char *name, const char *info, size_t info_size)
{
	uint8_t module[1024];

	write_file(f, name, module, make_module(info, info_size, module));
}

#define INFO(text) text, sizeof(text)

static void write_modules(struct fixture *f)
{
	write_text(f, "m/modules.builtin", "kernel/fs/ext4/ext4.ko\nkernel/a/crc-t.ko\n");
	write_module(f, "m/kernel/a/top-one.ko", INFO("license=GPL\0depends=mid,ext4,low"));
	write_module(f, "m/kernel/b/mid.ko",
		     INFO("depends=low\0softdep=pre: soft none post: late"));
	write_module(f, "m/kernel/b/low.ko", INFO("depends="));
	write_module(f, "m/kernel/soft.ko", INFO("license=GPL"));
	write_module(f, "m/kernel/late.ko", INFO("depends="));
	write_module(f, "m/kernel/loop1.ko", INFO("depends=loop2"));
	write_module(f, "m/kernel/loop2.ko", INFO("depends=loop1"));
	write_text(f, "m/kernel/junk.ko",
		   "\x7f"
		   "ELF but nothing behind");
}

static void test_modules(void **state)
{
	struct fixture *f = *state;
	CLEANUP_FREE char *folder = below(f, "m");
	struct modules m;

	write_modules(f);
	assert_int_equal(modules_load(folder,
				      (const char *const[]){"top_one", "crc-t", "low", NULL}, &m,
				      &f->err),
			 0);
	assert_int_equal(m.n, 4);
	assert_string_equal(m.list[0].name, "low");
	assert_string_equal(m.list[1].name, "soft");
	assert_string_equal(m.list[2].name, "mid");
	assert_string_equal(m.list[3].name, "top_one");
	modules_done(&m);
	assert_int_equal(
		modules_load(folder, (const char *const[]){"?nope", "?low", NULL}, &m, &f->err), 0);
	assert_int_equal(m.n, 1);
	modules_done(&m);
	/* For some machines only: the module, and of what it needs that which others do not. */
	assert_int_equal(modules_load(folder,
				      (const char *const[]){"top_one@1af4:105a", "soft", NULL}, &m,
				      &f->err),
			 0);
	assert_int_equal(m.n, 4);
	assert_string_equal(m.list[0].name, "soft");
	assert_string_equal(m.list[0].device, "");
	for (unsigned i = 1; i < m.n; i++)
		assert_string_equal(m.list[i].device, "1af4:105a");
	assert_string_equal(m.list[3].name, "top_one");
	modules_done(&m);
	assert_int_equal(modules_load(folder, (const char *const[]){"nope", NULL}, &m, &f->err),
			 -ENOENT);
	assert_non_null(strstr(f->err.text, "no kernel module nope"));
	assert_int_equal(modules_load(folder, (const char *const[]){"loop1", NULL}, &m, &f->err),
			 -ELOOP);
	assert_int_equal(modules_load(folder, (const char *const[]){"junk", NULL}, &m, &f->err),
			 -ENOEXEC);
}

/* Every cut of a module, and every byte of its tables changed: nothing is read out of it. */
static void test_bad_modules(void **state)
{
	uint8_t module[1024];
	size_t size = make_module(INFO("depends=a,b"), module);

	assert_string_equal(module_info(module, size, "depends", 0), "a,b");
	assert_null(module_info(module, size, "depends", 1));
	for (size_t n = 0; n < size; n++) {
		uint8_t *copy = malloc(n ? n : 1);

		memcpy(copy, module, n);
		assert_null(module_info(copy, n, "depends", 0));
		free(copy);
	}
	for (size_t i = 0; i < size; i++) {
		uint8_t *copy = malloc(size);

		for (unsigned v = 0; v < 256; v += 51) {
			memcpy(copy, module, size);
			copy[i] = (uint8_t)v;
			module_info(copy, size, "depends", 0);
		}
		free(copy);
	}
}

static void check_initrd(const char *path, const char *list)
{
	struct archive *a = archive_read_new();
	struct archive_entry *entry;
	char text[256];
	bool init = false, modules = false;

	archive_read_support_filter_all(a);
	archive_read_support_format_cpio(a);
	assert_int_equal(archive_read_open_filename(a, path, 4096), ARCHIVE_OK);
	while (archive_read_next_header(a, &entry) == ARCHIVE_OK) {
		const char *name = archive_entry_pathname(entry);

		assert_int_equal(archive_entry_mtime(entry), 0);
		assert_int_equal(archive_entry_uid(entry), 0);
		if (!strcmp(name, "init")) {
			init = true;
			assert_int_equal(archive_entry_mode(entry), S_IFREG | 0755);
			assert_int_equal(archive_read_data(a, text, sizeof(text)), 5);
			assert_memory_equal(text, "agent", 5);
		} else if (!strcmp(name, "etc/wisp/modules")) {
			modules = true;
			assert_int_equal(archive_read_data(a, text, sizeof(text)), strlen(list));
			assert_memory_equal(text, list, strlen(list));
		}
	}
	archive_read_free(a);
	assert_true(init && modules);
}

static void test_initrd(void **state)
{
	struct fixture *f = *state;
	CLEANUP_FREE char *folder = below(f, "m"), *agent = below(f, "agent");
	CLEANUP_FREE char *plain = below(f, "plain"), *again = below(f, "again");
	CLEANUP_FREE char *packed = below(f, "packed"), *one = NULL, *two = NULL;
	struct initrd initrd = {.modules = folder,
				.names = (const char *const[]){"mid", NULL},
				.agent = agent,
				.rsh = agent};
	ssize_t n;

	write_modules(f);
	write_text(f, "agent", "agent");
	assert_int_equal(initrd_build(&initrd, plain, &f->err), 0);
	assert_int_equal(initrd_build(&initrd, again, &f->err), 0);
	n = io_read_file(plain, 1 << 20, &one, &f->err);
	assert_true(n > 0);
	assert_int_equal(io_read_file(again, 1 << 20, &two, &f->err), n);
	assert_memory_equal(one, two, (size_t)n);
	check_initrd(plain, "/lib/modules/low.ko\n/lib/modules/soft.ko\n/lib/modules/mid.ko\n");
	initrd.lz4 = true;
	assert_int_equal(initrd_build(&initrd, packed, &f->err), 0);
	check_initrd(packed, "/lib/modules/low.ko\n/lib/modules/soft.ko\n/lib/modules/mid.ko\n");
	initrd.agent = "/nonexistent";
	assert_int_equal(initrd_build(&initrd, packed, &f->err), -ENOENT);
}

static void test_sources(void **state)
{
	struct fixture *f = *state;
	CLEANUP_FREE char *list = NULL, *deb822 = NULL, *text = NULL;

	assert_int_equal(sources_write(f->dir, f->dir, "old", "new", &list, &deb822, &f->err),
			 -ENOENT);
	write_text(f, "etc/apt/sources.list", "# comment\n");
	write_text(f, "etc/apt/sources.list.d/a.sources",
		   "URIs: http://older.example/old/\nSuites: old old-updates old2");
	write_text(f, "etc/apt/sources.list.d/b.sources", "Suites: old");
	write_text(f, "etc/apt/sources.list.d/c.sources.disabled", "Suites: no");
	assert_int_equal(sources_write(f->dir, f->dir, "old", "new", &list, &deb822, &f->err), 0);
	assert_non_null(list);
	assert_true(io_read_file(deb822, 4096, &text, &f->err) > 0);
	assert_string_equal(text, "URIs: http://older.example/new/\n"
				  "Suites: new new-updates old2\n\nSuites: new\n\n");
}

static void test_packages(void **state)
{
	static const char status[] = "Package: bash\nStatus: install ok installed\n"
				     "Architecture: amd64\nVersion: 5.2-1\nDescription: x\n more\n"
				     "\nPackage: gone\nStatus: deinstall ok config-files\n"
				     "Version: 1\n\nPackage: last\nVersion: 2:3\n"
				     "Architecture: all\nStatus: install ok installed";
	json_t *packages = root_packages(status);
	CLEANUP_FREE char *dump = json_dumps(packages, JSON_COMPACT | JSON_SORT_KEYS);

	assert_string_equal(dump,
			    "[{\"architecture\":\"amd64\",\"name\":\"bash\",\"version\":\"5.2-1\"},"
			    "{\"architecture\":\"all\",\"name\":\"last\",\"version\":\"2:3\"}]");
	json_decref(packages);
}

static void test_tree(void **state)
{
	struct fixture *f = *state;
	CLEANUP_FREE char *tmp = NULL, *scratch = NULL, *file = below(f, "one/file");
	CLEANUP_FREE char *text = NULL, *one = below(f, "one"), *old = below(f, ".old-one");
	int lock = tree_lock(f->dir, &f->err);

	assert_true(lock >= 0);
	/* Killed half way: the next one to lock removes it, with what is elsewhere. */
	assert_int_equal(tree_begin(f->dir, "one", &tmp, &f->err), 0);
	assert_int_equal(tree_scratch(tmp, &scratch, &f->err), 0);
	assert_int_equal(access(scratch, F_OK), 0);
	close(lock);
	lock = tree_lock(f->dir, &f->err);
	assert_true(lock >= 0);
	assert_int_equal(access(tmp, F_OK), -1);
	assert_int_equal(access(scratch, F_OK), -1);

	for (unsigned i = 1; i <= 2; i++) {
		free(take_ptr(tmp));
		assert_int_equal(tree_begin(f->dir, "one", &tmp, &f->err), 0);
		write_text(f, ".tmp-one/file", i == 1 ? "first" : "second");
		assert_int_equal(tree_commit(f->dir, "one", tmp, &f->err), 0);
		assert_int_equal(access(tmp, F_OK), -1);
		free(take_ptr(text));
		assert_true(io_read_file(file, 100, &text, &f->err) > 0);
		assert_string_equal(text, i == 1 ? "first" : "second");
	}
	/* Killed between the two renames of a file system that cannot exchange: it comes back. */
	assert_int_equal(rename(one, old), 0);
	close(lock);
	lock = tree_lock(f->dir, &f->err);
	assert_true(lock >= 0);
	assert_int_equal(access(file, F_OK), 0);
	/* Killed behind both: the new one stays. */
	assert_int_equal(mkdir(old, 0700), 0);
	close(lock);
	lock = tree_lock(f->dir, &f->err);
	assert_true(lock >= 0);
	assert_int_equal(access(file, F_OK), 0);
	assert_int_equal(access(old, F_OK), -1);

	assert_int_equal(tree_discard(f->dir, "one", &f->err), 0);
	assert_int_equal(access(file, F_OK), -1);
	assert_int_equal(tree_remove(file, &f->err), 0);
	close(lock);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_FOLDER(test_modules), cmocka_unit_test(test_bad_modules),
		WITH_FOLDER(test_initrd),  WITH_FOLDER(test_sources),
		WITH_FOLDER(test_tree),	   cmocka_unit_test(test_packages),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
