/* SPDX-License-Identifier: Apache-2.0 */
/* Checks kernel files: bzImage setup headers and ELF64 program headers, both hostile. */

#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "lib/error.h"
#include "lib/wire.h"
#include "vmm/x86/boot.h"

/* Offsets in the setup header (boot.rst, "The Real-Mode Kernel Header"). */
#define SETUP_SECTS 0x1f1
#define BOOT_FLAG 0x1fe
#define HEADER_END 0x201 /* the byte that tells how long the header is */
#define HEADER_MAGIC 0x202
#define VERSION 0x206
#define RELOCATABLE 0x234
#define XLOADFLAGS 0x236
#define CMDLINE_SIZE 0x238
#define INITRD_MAX 0x22c
#define PREF_ADDRESS 0x258
#define INIT_SIZE 0x260
#define XLF_KERNEL_64 1
#define ENTRY_64 0x200

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t get32(const uint8_t *p)
{
	return get16(p) | (uint32_t)get16(p + 2) << 16;
}

static uint64_t get64(const uint8_t *p)
{
	return get32(p) | (uint64_t)get32(p + 4) << 32;
}

static int check_header(const uint8_t *head, size_t size, struct error *err)
{
	if (size < SETUP_SECTS + sizeof(((struct kernel *)0)->setup_header))
		return error_set(err, -ENOEXEC, "bzImage is truncated in its header");
	if (get16(head + BOOT_FLAG) != 0xaa55)
		return error_set(err, -ENOEXEC, "bzImage has no boot flag 0xaa55");
	if (get16(head + VERSION) < 0x020c)
		return error_set(err, -ENOEXEC,
				 "boot protocol %u.%02u is too old, 2.12 (Linux 3.8) is needed",
				 head[VERSION + 1], head[VERSION]);
	if (!(get16(head + XLOADFLAGS) & XLF_KERNEL_64))
		return error_set(err, -ENOEXEC, "kernel has no 64-bit entry (a 32-bit kernel?)");
	return 0;
}

static int parse_bzimage(const uint8_t *head, size_t size, uint64_t file_size, struct kernel *k,
			 struct error *err)
{
	unsigned sects = head[SETUP_SECTS] ? head[SETUP_SECTS] : 4;
	uint64_t setup_size = (sects + 1) * 512;
	uint64_t base, init_size;
	int r = check_header(head, size, err);

	if (r)
		return r;
	if (file_size <= setup_size + ENTRY_64)
		return error_set(err, -ENOEXEC,
				 "bzImage is truncated: %" PRIu64 " bytes, %" PRIu64
				 " of them set-up code",
				 file_size, setup_size);
	base = get64(head + PREF_ADDRESS);
	init_size = get32(head + INIT_SIZE);
	/* pref_address is 16 MiB in every kernel built so far; refuse what would wrap or clobber.
	 */
	if (base < 0x100000 || base >= 1ULL << 32 || init_size < file_size - setup_size)
		return error_set(err, -ENOEXEC,
				 "bzImage header is damaged (load address 0x%" PRIx64
				 ", init_size %" PRIu64 ")",
				 base, init_size);
	*k = (struct kernel){
		.kind = KERNEL_BZIMAGE,
		.entry = base + ENTRY_64,
		.end = base + init_size,
		.initrd_max = get32(head + INITRD_MAX),
		.cmdline_max = get32(head + CMDLINE_SIZE),
		.segment = {{.offset = setup_size,
			     .file_size = file_size - setup_size,
			     .gpa = base,
			     .mem_size = file_size - setup_size}},
		.nsegments = 1,
	};
	k->setup_header_size = HEADER_MAGIC + head[HEADER_END] - SETUP_SECTS;
	if (k->setup_header_size > sizeof(k->setup_header))
		k->setup_header_size = sizeof(k->setup_header);
	memcpy(k->setup_header, head + SETUP_SECTS, k->setup_header_size);
	return 0;
}

static int check_elf(const Elf64_Ehdr *e, size_t size, struct error *err)
{
	if (e->e_ident[EI_CLASS] != ELFCLASS64 || e->e_ident[EI_DATA] != ELFDATA2LSB ||
	    e->e_machine != EM_X86_64)
		return error_set(err, -ENOEXEC, "ELF kernel is not for x86-64");
	if (e->e_type != ET_EXEC)
		return error_set(err, -ENOEXEC, "ELF kernel is not an executable (type %u)",
				 e->e_type);
	if (e->e_phentsize != sizeof(Elf64_Phdr) || !e->e_phnum || e->e_phoff > size ||
	    e->e_phnum > (size - e->e_phoff) / sizeof(Elf64_Phdr))
		return error_set(err, -ENOEXEC,
				 "ELF kernel is damaged: %u program headers at %" PRIu64
				 " are not in its first %zu bytes",
				 e->e_phnum, (uint64_t)e->e_phoff, size);
	return 0;
}

static int add_segment(struct kernel *k, const Elf64_Phdr *p, uint64_t file_size, struct error *err)
{
	uint64_t end;

	if (p->p_type != PT_LOAD || !p->p_memsz)
		return 0;
	if (p->p_filesz > p->p_memsz || p->p_offset > file_size ||
	    p->p_filesz > file_size - p->p_offset)
		return error_set(err, -ENOEXEC,
				 "ELF kernel is truncated: a segment needs bytes %" PRIu64
				 " to %" PRIu64 ", the file has %" PRIu64,
				 (uint64_t)p->p_offset, (uint64_t)(p->p_offset + p->p_filesz),
				 file_size);
	if (__builtin_add_overflow(p->p_paddr, p->p_memsz, &end))
		return error_set(err, -ENOEXEC,
				 "ELF kernel is damaged: a segment of %" PRIu64
				 " bytes at 0x%" PRIx64 " goes beyond all addresses",
				 (uint64_t)p->p_memsz, (uint64_t)p->p_paddr);
	/* Below 1 MiB are our own tables. */
	if (p->p_paddr < 0x100000)
		return error_set(err, -ENOEXEC,
				 "ELF kernel wants to be loaded at 0x%" PRIx64 ", below 1 MiB",
				 (uint64_t)p->p_paddr);
	if (k->nsegments == KERNEL_SEGMENTS_MAX)
		return error_set(err, -ENOEXEC, "ELF kernel has more than %d segments",
				 KERNEL_SEGMENTS_MAX);
	k->segment[k->nsegments++] = (struct kernel_segment){.offset = p->p_offset,
							     .file_size = p->p_filesz,
							     .gpa = p->p_paddr,
							     .mem_size = p->p_memsz};
	if (end > k->end)
		k->end = end;
	return 0;
}

static int parse_elf(const uint8_t *head, size_t size, uint64_t file_size, struct kernel *k,
		     struct error *err)
{
	Elf64_Ehdr e;
	int r;

	if (size < sizeof(e))
		return error_set(err, -ENOEXEC, "ELF kernel is truncated in its header");
	memcpy(&e, head, sizeof(e));
	r = check_elf(&e, size, err);
	*k = (struct kernel){.kind = KERNEL_ELF,
			     .entry = e.e_entry,
			     .initrd_max = 0x7fffffff,
			     .cmdline_max = 2047};
	for (unsigned i = 0; !r && i < e.e_phnum; i++) {
		Elf64_Phdr p;

		memcpy(&p, head + e.e_phoff + i * sizeof(p), sizeof(p));
		r = add_segment(k, &p, file_size, err);
	}
	if (r)
		return r;
	for (unsigned i = 0; i < k->nsegments; i++)
		if (k->entry - k->segment[i].gpa < k->segment[i].mem_size)
			return 0;
	return error_set(err, -ENOEXEC,
			 "ELF kernel's entry 0x%" PRIx64 " is in none of its segments", k->entry);
}

int kernel_parse(const uint8_t *head, size_t head_size, uint64_t file_size, struct kernel *ret,
		 struct error *err)
{
	struct kernel k;
	int r;

	if (head_size >= 4 && !memcmp(head, ELFMAG, SELFMAG))
		r = parse_elf(head, head_size, file_size, &k, err);
	else if (head_size >= HEADER_MAGIC + 4 && !memcmp(head + HEADER_MAGIC, "HdrS", 4))
		r = parse_bzimage(head, head_size, file_size, &k, err);
	else
		r = error_set(err, -ENOEXEC,
			      "neither a bzImage (no \"HdrS\" at 0x202) nor an ELF executable");
	if (!r)
		*ret = k;
	return r;
}
