/* SPDX-License-Identifier: Apache-2.0 */
/* Kernel files: what is accepted, why the others are refused, and what lands in guest memory. */

#include <asm/bootparam.h>
#include <elf.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "vmm/memory.h"
#include "vmm/pci/pci.h"
#include "vmm/x86/acpi.h"
#include "vmm/x86/boot.h"

#define MIB (1ULL << 20)
#define SETUP_SECTS 4
#define SETUP_SIZE ((SETUP_SECTS + 1) * 512)
#define PAYLOAD 4096

/* A file under construction; small enough to be all head. */
struct image {
	uint8_t data[8192];
	size_t size;
};

static void put(struct image *i, size_t at, uint64_t value, unsigned len)
{
	memcpy(i->data + at, &value, len);
}

/* A bzImage like Debian's, with a payload of bytes 'k'. */
static struct image bzimage(void)
{
	struct image i = {.size = SETUP_SIZE + PAYLOAD};

	put(&i, 0x1f1, SETUP_SECTS, 1);
	put(&i, 0x1fe, 0xaa55, 2);
	put(&i, 0x200, 0x6aeb, 2); /* jump over the header, which ends at 0x26c */
	memcpy(i.data + 0x202, "HdrS", 4);
	put(&i, 0x206, 0x020f, 2);
	put(&i, 0x22c, 0x7fffffff, 4); /* initrd_addr_max */
	put(&i, 0x234, 1, 1);	       /* relocatable */
	put(&i, 0x236, 0x3f, 2);       /* xloadflags */
	put(&i, 0x238, 2047, 4);       /* cmdline_size */
	put(&i, 0x258, 16 * MIB, 8);   /* pref_address */
	put(&i, 0x260, 4 * MIB, 4);    /* init_size */
	memset(i.data + SETUP_SIZE, 'k', PAYLOAD);
	return i;
}

static Elf64_Phdr *program_header(struct image *i, unsigned n)
{
	return (Elf64_Phdr *)(i->data + sizeof(Elf64_Ehdr)) + n;
}

static Elf64_Ehdr *elf_header(struct image *i)
{
	return (Elf64_Ehdr *)i->data;
}

/* An ELF kernel of a code segment ('c') and a data segment ('d') that is longer in memory. */
static struct image elf(void)
{
	struct image i = {.size = sizeof(i.data)};
	Elf64_Phdr *p = program_header(&i, 0);

	*elf_header(&i) = (Elf64_Ehdr){
		.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
		.e_type = ET_EXEC,
		.e_machine = EM_X86_64,
		.e_version = EV_CURRENT,
		.e_entry = MIB + 0x10,
		.e_phoff = sizeof(Elf64_Ehdr),
		.e_phentsize = sizeof(Elf64_Phdr),
		.e_phnum = 3,
	};
	p[0] = (Elf64_Phdr){.p_type = PT_LOAD,
			    .p_offset = 4096,
			    .p_paddr = MIB,
			    .p_filesz = 2048,
			    .p_memsz = 2048};
	p[1] = (Elf64_Phdr){.p_type = PT_NOTE, .p_offset = UINT64_MAX, .p_filesz = 7};
	p[2] = (Elf64_Phdr){.p_type = PT_LOAD,
			    .p_offset = 6144,
			    .p_paddr = 3 * MIB,
			    .p_filesz = 2048,
			    .p_memsz = 8192};
	memset(i.data + 4096, 'c', 2048);
	memset(i.data + 6144, 'd', 2048);
	return i;
}

/* As boot_open() does it, with an exact copy so that the sanitizers see reads behind it. */
static int parse_sized(const struct image *i, uint64_t file_size, struct kernel *k,
		       struct error *err)
{
	size_t n = i->size < KERNEL_HEAD_SIZE ? i->size : KERNEL_HEAD_SIZE;
	CLEANUP_FREE uint8_t *head = malloc(n ? n : 1);

	memcpy(head, i->data, n);
	return kernel_parse(head, n, file_size, k, err);
}

static int parse(const struct image *i, struct kernel *k, struct error *err)
{
	return parse_sized(i, i->size, k, err);
}

static void refused(const struct image *i, const char *why)
{
	struct kernel k = {.nsegments = 77};
	struct error err = {0};

	assert_int_equal(parse(i, &k, &err), -ENOEXEC);
	if (!strstr(err.text, why))
		fail_msg("\"%s\" does not say \"%s\"", err.text, why);
	assert_int_equal(k.nsegments, 77);
}

static void test_bzimage(void **state)
{
	struct image i = bzimage();
	struct kernel k;
	struct error err;

	assert_int_equal(parse(&i, &k, &err), 0);
	assert_int_equal(k.kind, KERNEL_BZIMAGE);
	assert_int_equal(k.entry, 16 * MIB + 0x200);
	assert_int_equal(k.end, 20 * MIB);
	assert_int_equal(k.initrd_max, 0x7fffffff);
	assert_int_equal(k.cmdline_max, 2047);
	assert_int_equal(k.nsegments, 1);
	assert_int_equal(k.segment[0].offset, SETUP_SIZE);
	assert_int_equal(k.segment[0].file_size, PAYLOAD);
	assert_int_equal(k.setup_header_size, 0x26c - 0x1f1);
	assert_memory_equal(k.setup_header, i.data + 0x1f1, k.setup_header_size);
	/* 0 sectors mean 4; a header length that lies is cut. */
	put(&i, 0x1f1, 0, 1);
	put(&i, 0x201, 0xff, 1);
	assert_int_equal(parse(&i, &k, &err), 0);
	assert_int_equal(k.segment[0].offset, SETUP_SIZE);
	assert_int_equal(k.setup_header_size, sizeof(k.setup_header));
}

static void test_bad_bzimage(void **state)
{
	static const struct {
		size_t at;
		uint64_t value;
		unsigned len;
		const char *why;
	} cases[] = {
		{0x202, 0, 1, "neither a bzImage (no \"HdrS\" at 0x202) nor an ELF executable"},
		{0x1fe, 0, 2, "no boot flag 0xaa55"},
		{0x206, 0x020b, 2, "boot protocol 2.11 is too old, 2.12 (Linux 3.8) is needed"},
		{0x206, 0, 2, "boot protocol 0.00 is too old"},
		{0x236, 0x3e, 2, "no 64-bit entry (a 32-bit kernel?)"},
		{0x258, 0xfffff, 8, "damaged (load address 0xfffff, init_size 4194304)"},
		{0x258, 0, 8, "damaged"},
		{0x258, UINT64_MAX, 8, "damaged (load address 0xffffffffffffffff"},
		{0x258, 1ULL << 32, 8, "damaged"},
		{0x260, PAYLOAD - 1, 4, "init_size 4095)"},
		{0x260, 0, 4, "damaged"},
		{0x1f1, 200, 1, "truncated: 6656 bytes, 102912 of them set-up code"},
	};

	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
		struct image i = bzimage();

		put(&i, cases[n].at, cases[n].value, cases[n].len);
		refused(&i, cases[n].why);
	}
}

/* Every length of a file that ends too early. */
static void test_truncated_bzimage(void **state)
{
	struct image i = bzimage();

	for (i.size = 0; i.size <= SETUP_SIZE + 0x200; i.size++)
		refused(&i, i.size < 0x206	   ? "neither"
			    : i.size < 0x1f1 + 128 ? "bzImage is truncated in its header"
						   : "bzImage is truncated: ");
}

static void test_elf(void **state)
{
	struct image i = elf();
	struct kernel k;
	struct error err;

	assert_int_equal(parse(&i, &k, &err), 0);
	assert_int_equal(k.kind, KERNEL_ELF);
	assert_int_equal(k.entry, MIB + 0x10);
	assert_int_equal(k.end, 3 * MIB + 8192);
	assert_int_equal(k.nsegments, 2);
	assert_int_equal(k.segment[1].gpa, 3 * MIB);
	assert_int_equal(k.segment[1].file_size, 2048);
	assert_int_equal(k.segment[1].mem_size, 8192);
	elf_header(&i)->e_entry = 3 * MIB + 8191;
	assert_int_equal(parse(&i, &k, &err), 0);
}

static void test_bad_elf_header(void **state)
{
	struct image i = elf();

	elf_header(&i)->e_ident[EI_CLASS] = ELFCLASS32;
	refused(&i, "ELF kernel is not for x86-64");
	i = elf();
	elf_header(&i)->e_ident[EI_DATA] = ELFDATA2MSB;
	refused(&i, "ELF kernel is not for x86-64");
	i = elf();
	elf_header(&i)->e_machine = EM_AARCH64;
	refused(&i, "ELF kernel is not for x86-64");
	i = elf();
	elf_header(&i)->e_type = ET_DYN;
	refused(&i, "ELF kernel is not an executable (type 3)");
	i = elf();
	elf_header(&i)->e_phnum = 0;
	refused(&i, "damaged: 0 program headers at 64");
	i = elf();
	elf_header(&i)->e_phnum = UINT16_MAX;
	refused(&i, "damaged: 65535 program headers at 64 are not in its first 4096 bytes");
	i = elf();
	elf_header(&i)->e_phoff = 4096 - 2 * sizeof(Elf64_Phdr);
	refused(&i, "damaged: 3 program headers");
	i = elf();
	elf_header(&i)->e_phoff = UINT64_MAX - 10;
	refused(&i, "damaged");
	i = elf();
	elf_header(&i)->e_phentsize = 32;
	refused(&i, "damaged");
	i = elf();
	for (i.size = 4; i.size < sizeof(Elf64_Ehdr); i.size++)
		refused(&i, "ELF kernel is truncated in its header");
	for (; i.size < sizeof(Elf64_Ehdr) + 3 * sizeof(Elf64_Phdr); i.size++)
		refused(&i, "damaged: 3 program headers");
	for (; i.size < sizeof(i.data); i.size += 64)
		refused(&i, "ELF kernel is truncated: a segment needs bytes ");
}

static void test_bad_segments(void **state)
{
	struct image i = elf();

	program_header(&i, 2)->p_filesz = 2049;
	refused(&i, "truncated: a segment needs bytes 6144 to 8193, the file has 8192");
	i = elf();
	program_header(&i, 2)->p_offset = UINT64_MAX;
	refused(&i, "truncated");
	i = elf();
	program_header(&i, 2)->p_filesz = UINT64_MAX;
	refused(&i, "truncated");
	i = elf();
	program_header(&i, 2)->p_memsz = 2047;
	refused(&i, "truncated");
	i = elf();
	program_header(&i, 0)->p_paddr = MIB - 1;
	refused(&i, "wants to be loaded at 0xfffff, below 1 MiB");
	i = elf();
	program_header(&i, 0)->p_paddr = 0;
	refused(&i, "below 1 MiB");
	i = elf();
	program_header(&i, 2)->p_paddr = UINT64_MAX - 100;
	refused(&i, "a segment of 8192 bytes at 0xffffffffffffff9b goes beyond all addresses");
	i = elf();
	elf_header(&i)->e_entry = 2 * MIB;
	refused(&i, "ELF kernel's entry 0x200000 is in none of its segments");
	i = elf();
	elf_header(&i)->e_entry = MIB - 1;
	refused(&i, "in none of its segments");
	i = elf();
	elf_header(&i)->e_entry = 3 * MIB + 8192;
	refused(&i, "in none of its segments");
	i = elf();
	elf_header(&i)->e_phnum = KERNEL_SEGMENTS_MAX + 1;
	for (unsigned n = 1; n <= KERNEL_SEGMENTS_MAX; n++)
		*program_header(&i, n) = *program_header(&i, 0);
	refused(&i, "ELF kernel has more than 16 segments");
}

struct boot_fixture {
	char dir[32], kernel[64], initrd[64];
};

static int setup(void **state)
{
	struct boot_fixture *f = calloc(1, sizeof(*f));

	strcpy(f->dir, "/tmp/wisp-test-XXXXXX");
	if (!mkdtemp(f->dir))
		return -1;
	snprintf(f->kernel, sizeof(f->kernel), "%s/kernel", f->dir);
	snprintf(f->initrd, sizeof(f->initrd), "%s/initrd", f->dir);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct boot_fixture *f = *state;

	unlink(f->kernel);
	unlink(f->initrd);
	rmdir(f->dir);
	free(f);
	return 0;
}

static void write_image(const char *path, const struct image *i)
{
	assert_int_equal(io_write_file(path, i->data, i->size, NULL), 0);
}

static void not_opened(struct boot_fixture *f, bool initrd, const char *cmdline, uint64_t ram,
		       int r, const char *why)
{
	struct boot_files files;
	struct error err = {0};

	assert_int_equal(
		boot_open(f->kernel, initrd ? f->initrd : NULL, cmdline, ram, &files, &err), r);
	if (!strstr(err.text, why))
		fail_msg("\"%s\" does not say \"%s\"", err.text, why);
}

static void test_open(void **state)
{
	struct boot_fixture *f = *state;
	struct image i = bzimage();
	CLEANUP_FREE char *long_line = calloc(1, BOOT_CMDLINE_MAX + 1);

	not_opened(f, false, "", 64 * MIB, -ENOENT, "cannot open kernel ");
	assert_int_equal(mkfifo(f->kernel, 0600), 0);
	not_opened(f, false, "", 64 * MIB, -EINVAL, " is no regular file");
	unlink(f->kernel);
	assert_int_equal(io_write_file(f->kernel, "", 0, NULL), 0);
	not_opened(f, false, "", 64 * MIB, -EINVAL, "/kernel is empty");
	assert_int_equal(io_write_file(f->kernel, "#!/bin/sh\n", 10, NULL), 0);
	not_opened(f, false, "", 64 * MIB, -ENOEXEC, "/kernel: neither a bzImage");
	write_image(f->kernel, &i);
	not_opened(f, false, "", 20 * MIB - 4096, -ENOEXEC,
		   "too large for the guest's memory: it needs 21 MiB, there are 19 MiB");
	memset(long_line, 'x', 2048);
	not_opened(f, false, long_line, 64 * MIB, -E2BIG,
		   "command line of 2048 bytes is too long, the kernel takes 2047");
	put(&i, 0x238, UINT32_MAX, 4);
	write_image(f->kernel, &i);
	memset(long_line, 'x', BOOT_CMDLINE_MAX);
	not_opened(f, false, long_line, 64 * MIB, -E2BIG, "65536 bytes is too long");
	i = elf();
	program_header(&i, 2)->p_paddr = MEMORY_LOW_MAX - 4096;
	write_image(f->kernel, &i);
	not_opened(f, false, "", 64ULL << 30, -ENOEXEC, "too large for the guest's memory");
}

static void test_open_initrd(void **state)
{
	struct boot_fixture *f = *state;
	struct image i = bzimage();
	struct boot_files files;
	struct error err;

	write_image(f->kernel, &i);
	not_opened(f, true, "", 64 * MIB, -ENOENT, "cannot open initrd ");
	assert_int_equal(mkdir(f->initrd, 0700), 0);
	not_opened(f, true, "", 64 * MIB, -EINVAL, "no regular file");
	rmdir(f->initrd);
	assert_int_equal(io_write_file(f->initrd, "", 0, NULL), 0);
	not_opened(f, true, "", 64 * MIB, -EINVAL, "is empty");
	/* Room from 20 to 64 MiB. */
	assert_int_equal(truncate(f->initrd, 44 * MIB), 0);
	assert_int_equal(boot_open(f->kernel, f->initrd, "", 64 * MIB, &files, &err), 0);
	assert_int_equal(files.initrd_gpa, 20 * MIB);
	boot_close(&files);
	assert_int_equal(truncate(f->initrd, 44 * MIB + 1), 0);
	not_opened(f, true, "", 64 * MIB, -ENOMEM,
		   "(45 MiB) does not fit between the kernel's end (20 MiB) and 64 MiB");
	assert_int_equal(truncate(f->initrd, 5000ULL * MIB), 0);
	not_opened(f, true, "", 64ULL << 30, -ENOMEM, "does not fit");
	/* The kernel says how high it looks. */
	put(&i, 0x22c, 32 * MIB - 1, 4);
	write_image(f->kernel, &i);
	assert_int_equal(truncate(f->initrd, 5000), 0);
	assert_int_equal(boot_open(f->kernel, f->initrd, "", 64 * MIB, &files, &err), 0);
	assert_int_equal(files.initrd_gpa, 32 * MIB - 8192);
	boot_close(&files);
	put(&i, 0x22c, 0, 4);
	write_image(f->kernel, &i);
	not_opened(f, true, "", 64 * MIB, -ENOMEM, "does not fit");
}

static void check_e820(const struct boot_params *bp, uint64_t ram)
{
	uint64_t total = 0, last = 0;

	for (unsigned n = 0; n < bp->e820_entries; n++) {
		const struct boot_e820_entry *e = &bp->e820_table[n];

		assert_true(e->addr >= last && e->size);
		last = e->addr + e->size;
		if (e->type == 1)
			total += e->size;
		/* No RAM where ACPI tables, devices and configuration space are. */
		assert_true(e->type != 1 || last <= ACPI_BASE || e->addr >= ACPI_BASE + ACPI_SIZE);
		assert_true(e->type != 1 || last <= PCI_MMIO_BASE || e->addr >= MEMORY_HIGH_START);
	}
	assert_int_equal(total, ram - (0x100000 - 0x9fc00));
}

static void test_load_bzimage(void **state)
{
	struct boot_fixture *f = *state;
	struct image i = bzimage();
	struct boot_files files;
	struct memory mem;
	struct error err;
	const struct boot_params *bp;
	const uint8_t *kernel;

	write_image(f->kernel, &i);
	assert_int_equal(io_write_file(f->initrd, "initrd here", 11, NULL), 0);
	assert_int_equal(memory_create(&mem, 64 * MIB, 4096, false, &err), 0);
	assert_int_equal(boot_open(f->kernel, f->initrd, "a=b quiet", 64 * MIB, &files, &err), 0);
	assert_int_equal(boot_load(&mem, &files, &err), 0);
	kernel = memory_at(&mem, 16 * MIB, PAYLOAD + 1);
	assert_int_equal(kernel[0] + kernel[PAYLOAD - 1], 'k' + 'k');
	assert_int_equal(kernel[PAYLOAD], 0);
	bp = memory_at(&mem, BOOT_ZERO_PAGE, 4096);
	assert_int_equal(bp->hdr.header, 0x53726448);
	assert_int_equal(bp->hdr.type_of_loader, 0xff);
	assert_int_equal(bp->hdr.init_size, 4 * MIB);
	assert_int_equal(bp->acpi_rsdp_addr, ACPI_BASE);
	assert_string_equal(memory_at(&mem, bp->hdr.cmd_line_ptr, 64), "a=b quiet");
	assert_int_equal(bp->hdr.ramdisk_size, 11);
	assert_memory_equal(memory_at(&mem, bp->hdr.ramdisk_image, 11), "initrd here", 11);
	check_e820(bp, 64 * MIB);
	/* What was checked before may be gone now. */
	assert_int_equal(truncate(f->kernel, 100), 0);
	assert_int_equal(boot_load(&mem, &files, &err), -EPIPE);
	boot_close(&files);
	memory_destroy(&mem);
}

static void test_load_elf(void **state)
{
	struct boot_fixture *f = *state;
	struct image i = elf();
	struct boot_files files;
	struct memory mem;
	struct error err;
	const struct boot_params *bp;
	const uint64_t *pml4;

	write_image(f->kernel, &i);
	if (memory_create(&mem, 3584 * MIB, 4096, false, &err))
		skip();
	assert_int_equal(boot_open(f->kernel, NULL, "", 3584 * MIB, &files, &err), 0);
	assert_int_equal(boot_load(&mem, &files, &err), 0);
	assert_int_equal(*(uint8_t *)memory_at(&mem, MIB, 1), 'c');
	assert_int_equal(*(uint8_t *)memory_at(&mem, 3 * MIB + 2047, 1), 'd');
	assert_int_equal(*(uint8_t *)memory_at(&mem, 3 * MIB + 2048, 1), 0);
	bp = memory_at(&mem, BOOT_ZERO_PAGE, 4096);
	assert_int_equal(bp->hdr.version, 0x020c);
	assert_int_equal(bp->hdr.ramdisk_size, 0);
	check_e820(bp, 3584 * MIB);
	/* The identity map: walk to the last of the 4 GiB. */
	pml4 = memory_at(&mem, BOOT_PML4, 4096);
	assert_int_equal(pml4[0] & 0xfff, 3);
	assert_int_equal(pml4[1], 0);
	const uint64_t *pdpt = memory_at(&mem, pml4[0] & ~0xfffULL, 4096);
	const uint64_t *pd = memory_at(&mem, pdpt[3] & ~0xfffULL, 4096);

	assert_int_equal(pdpt[4], 0);
	assert_int_equal(pd[511], 0xffe00083);
	boot_close(&files);
	memory_destroy(&mem);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bzimage),
		cmocka_unit_test(test_bad_bzimage),
		cmocka_unit_test(test_truncated_bzimage),
		cmocka_unit_test(test_elf),
		cmocka_unit_test(test_bad_elf_header),
		cmocka_unit_test(test_bad_segments),
		cmocka_unit_test_setup_teardown(test_open, setup, teardown),
		cmocka_unit_test_setup_teardown(test_open_initrd, setup, teardown),
		cmocka_unit_test_setup_teardown(test_load_bzimage, setup, teardown),
		cmocka_unit_test_setup_teardown(test_load_elf, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
