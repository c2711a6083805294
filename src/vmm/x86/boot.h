/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_BOOT_H
#define WISP_VMM_BOOT_H

/*
 * Loading a kernel: a Linux bzImage by its 64-bit entry (Linux Documentation/arch/x86/boot.rst,
 * "64-bit Boot Protocol") or an uncompressed ELF64 executable. Checking comes first and needs
 * no VM: a kernel that cannot work is refused with the reason before anything exists.
 */

#include <stddef.h>
#include <stdint.h>

struct error;
struct memory;

enum kernel_kind { KERNEL_BZIMAGE, KERNEL_ELF };

#define KERNEL_SEGMENTS_MAX 16

/* Where file bytes go in guest memory; bytes from file_size to mem_size are zero. */
struct kernel_segment {
	uint64_t offset, file_size;
	uint64_t gpa, mem_size;
};

/* What was found out about a kernel file. */
struct kernel {
	enum kernel_kind kind;
	uint64_t entry; /* guest physical */
	uint64_t end;	/* first byte behind everything it uses until it manages memory itself */
	uint64_t initrd_max;  /* highest address an initrd may touch */
	uint32_t cmdline_max; /* bytes without the NUL */
	struct kernel_segment segment[KERNEL_SEGMENTS_MAX];
	unsigned nsegments;
	uint8_t setup_header[128]; /* bzImage: bytes from 0x1f1 */
	unsigned setup_header_size;
};

/* The first bytes of a file, enough to hold every header we read. */
#define KERNEL_HEAD_SIZE 4096

/*
 * Checks a kernel of file_size bytes whose first head_size bytes are in head. Pure: for fuzzing.
 * 0 or -ENOEXEC with what is wrong.
 */
int kernel_parse(const uint8_t *head, size_t head_size, uint64_t file_size, struct kernel *ret,
		 struct error *err);

/* Opens and checks a kernel and an initrd (path or NULL) for RAM of ram bytes. */
struct boot_files {
	struct kernel kernel;
	int kernel_fd, initrd_fd; /* owned; -1: none */
	uint64_t initrd_size, initrd_gpa;
	const char *cmdline;
};
int boot_open(const char *kernel, const char *initrd, const char *cmdline, uint64_t ram,
	      struct boot_files *ret, struct error *err);
void boot_close(struct boot_files *files);

/* Puts everything in guest memory: kernel, initrd, command line, zero page, page tables, GDT. */
int boot_load(struct memory *mem, const struct boot_files *files, struct error *err);

/* Guest addresses that the first vCPU starts with. */
#define BOOT_GDT 0x500
#define BOOT_ZERO_PAGE 0x7000
#define BOOT_STACK 0x8ff0
#define BOOT_PML4 0x9000
#define BOOT_CMDLINE 0x20000
#define BOOT_CMDLINE_MAX 0x10000
#define BOOT_RESET_VECTOR 0xffff0 /* f000:fff0, where a real-mode reset jumps */

#endif
