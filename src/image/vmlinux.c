/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Takes the ELF kernel out of a bzImage. The places are those of Linux,
 * Documentation/arch/x86/boot.rst: the set-up header at 0x1f1, in it payload_offset
 * (counted from the protected-mode code) and payload_length since protocol 2.08.
 */

#include "image/vmlinux.h"

#include <elf.h>
#include <errno.h>
#include <string.h>

#include "image/unpack.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

#define SECTOR 512u
#define SETUP_SECTS 0x1f1
#define HEADER_MAGIC 0x202
#define VERSION 0x206
#define PAYLOAD_OFFSET 0x248
#define HEADER_END 0x250
#define PROTOCOL_WITH_PAYLOAD 0x0208
#define MAX_FILE (256u << 20)
#define MAX_KERNEL (512u << 20)
#define MAX_SEGMENTS 64 /* Linux has 5 */

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t get32(const uint8_t *p)
{
	return get16(p) | (uint32_t)get16(p + 2) << 16;
}

static int check_elf(const uint8_t *image, size_t size, struct error *err)
{
	Elf64_Ehdr e;

	if (size < sizeof(e) || memcmp(image, ELFMAG, SELFMAG))
		return error_set(err, -ENOEXEC, "the kernel inside is not an ELF file");
	memcpy(&e, image, sizeof(e));
	if (e.e_ident[EI_CLASS] != ELFCLASS64 || e.e_ident[EI_DATA] != ELFDATA2LSB ||
	    e.e_machine != EM_X86_64)
		return error_set(err, -ENOEXEC, "the kernel is not for 64-bit x86");
	/* The headers must not overlap: trim_zeros() changes one and relies on the other. */
	if (e.e_phentsize != sizeof(Elf64_Phdr) || !e.e_phnum || e.e_phoff < sizeof(e) ||
	    e.e_phoff > size || (size - e.e_phoff) / sizeof(Elf64_Phdr) < e.e_phnum)
		return error_set(err, -ENOEXEC,
				 "the kernel's ELF program headers are cut off or overlap");
	if (e.e_phnum > MAX_SEGMENTS)
		return error_set(err, -ENOEXEC, "the kernel has %u ELF segments (at most %u)",
				 e.e_phnum, MAX_SEGMENTS);
	for (unsigned i = 0; i < e.e_phnum; i++) {
		Elf64_Phdr p;

		memcpy(&p, image + e.e_phoff + i * sizeof(p), sizeof(p));
		if (p.p_type == PT_LOAD && (p.p_offset > size || p.p_filesz > size - p.p_offset))
			return error_set(err, -ENOEXEC, "the kernel's ELF segment %u is cut off",
					 i);
	}
	return 0;
}

/* Where the compressed kernel is. */
static int find_payload(const uint8_t *image, size_t size, const uint8_t **ret, size_t *ret_size,
			struct error *err)
{
	uint64_t offset;
	uint32_t length;

	if (size < HEADER_END || memcmp(image + HEADER_MAGIC, "HdrS", 4))
		return error_set(err, -ENOEXEC,
				 "not a Linux kernel: neither ELF nor a bzImage (no \"HdrS\")");
	if (get16(image + VERSION) < PROTOCOL_WITH_PAYLOAD)
		return error_set(err, -ENOEXEC, "boot protocol %u.%02u is too old (2.08 is needed)",
				 image[VERSION + 1], image[VERSION]);
	offset = ((image[SETUP_SECTS] ? image[SETUP_SECTS] : 4u) + 1u) * SECTOR +
		 (uint64_t)get32(image + PAYLOAD_OFFSET);
	length = get32(image + PAYLOAD_OFFSET + 4);
	if (length < 8 || offset > size || length > size - offset)
		return error_set(err, -ENOEXEC,
				 "truncated: its header places %u bytes at %llu, the file has %zu",
				 length, (unsigned long long)offset, size);
	*ret = image + offset;
	*ret_size = length;
	return 0;
}

static int extract_payload(const uint8_t *image, size_t size, uint8_t **ret, size_t *ret_size,
			   struct error *err)
{
	static const uint8_t gzip_magic[] = {0x1f, 0x8b};
	CLEANUP_FREE uint8_t *kernel = NULL;
	const uint8_t *payload = NULL;
	size_t payload_size = 0, kernel_size;
	uint32_t wanted;
	int rc = find_payload(image, size, &payload, &payload_size, err);

	if (rc < 0)
		return rc;
	/* The kernel's size is in the last four bytes; gzip's own trailer has it there. */
	wanted = get32(payload + payload_size - 4);
	if (memcmp(payload, gzip_magic, sizeof(gzip_magic)))
		payload_size -= 4;
	if (wanted > MAX_KERNEL)
		return error_set(err, -ENOEXEC, "claims a kernel of %u bytes", wanted);
	rc = unpack_bytes(payload, payload_size, wanted, "compressed kernel", &kernel, &kernel_size,
			  err);
	if (rc < 0)
		return rc;
	if (kernel_size != wanted)
		return error_set(err, -EBADMSG, "compressed kernel: %zu bytes instead of %u",
				 kernel_size, wanted);
	*ret = take_ptr(kernel);
	*ret_size = kernel_size;
	return 0;
}

/*
 * Segments end in zeros (.bss, .brk) that a loader makes by itself: p_filesz is cut back to what
 * is not zero, and the file to what segments hold. A quarter of Debian's kernel goes. The image
 * is checked; returns its new size.
 */
static size_t trim_zeros(uint8_t *image)
{
	Elf64_Ehdr e;
	size_t end;

	memcpy(&e, image, sizeof(e));
	e.e_shoff = 0;
	e.e_shnum = e.e_shstrndx = 0;
	memcpy(image, &e, sizeof(e));
	end = e.e_phoff + e.e_phnum * sizeof(Elf64_Phdr);
	for (unsigned i = 0; i < e.e_phnum; i++) {
		Elf64_Phdr p;

		memcpy(&p, image + e.e_phoff + i * sizeof(p), sizeof(p));
		if (p.p_type != PT_LOAD)
			continue;
		while (p.p_filesz && !image[p.p_offset + p.p_filesz - 1])
			p.p_filesz--;
		memcpy(image + e.e_phoff + i * sizeof(p), &p, sizeof(p));
		if (p.p_filesz && p.p_offset + p.p_filesz > end)
			end = p.p_offset + p.p_filesz;
	}
	return end;
}

int vmlinux_extract(const uint8_t *image, size_t size, uint8_t **ret, size_t *ret_size,
		    struct error *err)
{
	CLEANUP_FREE uint8_t *kernel = NULL;
	size_t kernel_size = size;
	int rc;

	if (size >= SELFMAG && !memcmp(image, ELFMAG, SELFMAG)) {
		kernel = malloc(size);
		if (!kernel)
			return error_set(err, -ENOMEM, "out of memory");
		memcpy(kernel, image, size);
	} else {
		rc = extract_payload(image, size, &kernel, &kernel_size, err);
		if (rc < 0)
			return rc;
	}
	rc = check_elf(kernel, kernel_size, err);
	if (rc < 0)
		return rc;
	*ret_size = trim_zeros(kernel);
	*ret = take_ptr(kernel);
	return 0;
}

int vmlinux_extract_file(const char *vmlinuz, const char *vmlinux, struct error *err)
{
	CLEANUP_FREE char *image = NULL;
	CLEANUP_FREE uint8_t *kernel = NULL;
	size_t kernel_size;
	ssize_t size = io_read_file(vmlinuz, MAX_FILE, &image, err);
	int rc;

	if (size < 0)
		return (int)size;
	rc = vmlinux_extract((const uint8_t *)image, (size_t)size, &kernel, &kernel_size, err);
	if (rc < 0)
		return error_prefix(err, rc, "%s", vmlinuz);
	return io_write_file(vmlinux, kernel, kernel_size, err);
}
