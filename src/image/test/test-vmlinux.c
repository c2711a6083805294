/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels out of bzImages: made-up ones in each format, and all kinds of damage. */

#include <archive.h>
#include <archive_entry.h>
#include <elf.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "image/vmlinux.h"
#include "lib/cleanup.h"
#include "lib/error.h"

#define KERNEL_SIZE 20000u
#define SETUP_SECTS 3u
#define PAYLOAD_OFFSET 0x100u
#define PAYLOAD_AT ((SETUP_SECTS + 1) * 512 + PAYLOAD_OFFSET)

struct bytes {
	uint8_t data[65536];
	size_t size;
};

static void put32(uint8_t *p, uint32_t v)
{
	for (unsigned i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> 8 * i);
}

static void make_kernel(uint8_t kernel[KERNEL_SIZE])
{
	Elf64_Ehdr e = {.e_machine = EM_X86_64,
			.e_phoff = sizeof(e),
			.e_phentsize = sizeof(Elf64_Phdr),
			.e_phnum = 1};
	Elf64_Phdr p = {.p_type = PT_LOAD, .p_offset = 4096, .p_filesz = KERNEL_SIZE - 4096};

	memcpy(e.e_ident, ELFMAG, SELFMAG);
	e.e_ident[EI_CLASS] = ELFCLASS64;
	e.e_ident[EI_DATA] = ELFDATA2LSB;
	for (size_t i = 0; i < KERNEL_SIZE; i++)
		kernel[i] = (uint8_t)(i * i >> 7);
	memcpy(kernel, &e, sizeof(e));
	memcpy(kernel + sizeof(e), &p, sizeof(p));
}

/* A bzImage with the kernel, packed by a filter of libarchive. */
static void make_image(const uint8_t *kernel, size_t size, int filter, struct bytes *ret)
{
	struct archive *a = archive_write_new();
	struct archive_entry *entry = archive_entry_new();
	size_t packed;
	uint8_t *header = ret->data;

	memset(ret->data, 0, PAYLOAD_AT);
	archive_write_set_format_raw(a);
	assert_int_equal(archive_write_add_filter(a, filter), ARCHIVE_OK);
	archive_write_set_bytes_in_last_block(a, 1);
	assert_int_equal(archive_write_open_memory(a, header + PAYLOAD_AT,
						   sizeof(ret->data) - PAYLOAD_AT - 4, &packed),
			 ARCHIVE_OK);
	archive_entry_set_filetype(entry, AE_IFREG);
	assert_int_equal(archive_write_header(a, entry), ARCHIVE_OK);
	assert_int_equal(archive_write_data(a, kernel, size), (la_ssize_t)size);
	archive_entry_free(entry);
	assert_int_equal(archive_write_close(a), ARCHIVE_OK);
	archive_write_free(a);

	if (filter != ARCHIVE_FILTER_GZIP) {
		put32(header + PAYLOAD_AT + packed, (uint32_t)size);
		packed += 4;
	}
	header[0x1f1] = SETUP_SECTS;
	memcpy(header + 0x202, "HdrS", 4);
	header[0x206] = 0x0f;
	header[0x207] = 0x02;
	put32(header + 0x248, PAYLOAD_OFFSET);
	put32(header + 0x24c, (uint32_t)packed);
	ret->size = PAYLOAD_AT + packed;
}

static void test_formats(void **state)
{
	static const int filters[] = {ARCHIVE_FILTER_GZIP,  ARCHIVE_FILTER_XZ,
				      ARCHIVE_FILTER_ZSTD,  ARCHIVE_FILTER_LZ4,
				      ARCHIVE_FILTER_BZIP2, ARCHIVE_FILTER_LZMA};
	static uint8_t kernel[KERNEL_SIZE];
	static struct bytes image;

	make_kernel(kernel);
	for (size_t i = 0; i < ARRAY_SIZE(filters); i++) {
		CLEANUP_FREE uint8_t *out = NULL;
		size_t size;
		struct error err = {0};

		make_image(kernel, sizeof(kernel), filters[i], &image);
		if (vmlinux_extract(image.data, image.size, &out, &size, &err))
			fail_msg("filter %d: %s", filters[i], err.text);
		assert_int_equal(size, sizeof(kernel));
		assert_memory_equal(out, kernel, sizeof(kernel));
	}
}

static void test_elf(void **state)
{
	static uint8_t kernel[KERNEL_SIZE];
	CLEANUP_FREE uint8_t *out = NULL;
	size_t size;

	make_kernel(kernel);
	assert_int_equal(vmlinux_extract(kernel, sizeof(kernel), &out, &size, NULL), 0);
	assert_int_equal(size, sizeof(kernel));
	assert_memory_equal(out, kernel, sizeof(kernel));
}

static void refuse(const uint8_t *data, size_t size, const char *text)
{
	/* A copy of exactly this size, for the address sanitizer. */
	uint8_t *copy = malloc(size ? size : 1), *out = NULL;
	size_t out_size;
	struct error err = {0};

	memcpy(copy, data, size);
	assert_true(vmlinux_extract(copy, size, &out, &out_size, &err) < 0);
	assert_null(out);
	if (!strstr(err.text, text))
		fail_msg("\"%s\" instead of \"%s\"", err.text, text);
	free(copy);
}

static void test_headers(void **state)
{
	static uint8_t kernel[KERNEL_SIZE];
	static struct bytes good, bad;

	make_kernel(kernel);
	make_image(kernel, sizeof(kernel), ARCHIVE_FILTER_XZ, &good);
	refuse(good.data, 0, "not a Linux kernel");
	refuse(good.data, 0x24f, "not a Linux kernel");
	refuse(good.data, PAYLOAD_AT + 3, "truncated");
	refuse(good.data, good.size - 1, "truncated");

	bad = good;
	bad.data[0x202] = 'X';
	refuse(bad.data, bad.size, "not a Linux kernel");
	bad = good;
	bad.data[0x206] = 0x07;
	refuse(bad.data, bad.size, "boot protocol 2.07 is too old");
	bad = good;
	put32(bad.data + 0x248, 0xffffffff);
	refuse(bad.data, bad.size, "truncated");
	bad = good;
	put32(bad.data + 0x24c, 7);
	refuse(bad.data, bad.size, "truncated");
	bad = good;
	put32(bad.data + bad.size - 4, 0xffffffff);
	refuse(bad.data, bad.size, "claims a kernel of 4294967295 bytes");
	bad = good;
	put32(bad.data + bad.size - 4, KERNEL_SIZE + 1);
	refuse(bad.data, bad.size, "20000 bytes instead of 20001");
	bad = good;
	put32(bad.data + bad.size - 4, KERNEL_SIZE - 1);
	refuse(bad.data, bad.size, "more than 19999 bytes");
	bad = good;
	memset(bad.data + PAYLOAD_AT, 0x5a, 64);
	refuse(bad.data, bad.size, "compressed kernel: not compressed by");
	bad = good;
	bad.data[PAYLOAD_AT + 200] ^= 0xff;
	refuse(bad.data, bad.size, "compressed kernel");
}

static void test_bad_elf(void **state)
{
	static uint8_t kernel[KERNEL_SIZE];
	Elf64_Ehdr *e = (Elf64_Ehdr *)kernel;
	Elf64_Phdr *p = (Elf64_Phdr *)(kernel + sizeof(*e));
	static struct bytes image;

	make_kernel(kernel);
	make_image(kernel + 1, sizeof(kernel) - 1, ARCHIVE_FILTER_GZIP, &image);
	refuse(image.data, image.size, "not an ELF file");
	refuse(kernel, SELFMAG, "not an ELF file");
	refuse(kernel, KERNEL_SIZE - 1, "segment 0 is cut off");
	refuse(kernel, sizeof(*e) + 1, "headers are cut off");
	p->p_filesz = UINT64_MAX;
	refuse(kernel, KERNEL_SIZE, "segment 0 is cut off");
	make_kernel(kernel);
	e->e_phoff = UINT64_MAX - 8;
	refuse(kernel, KERNEL_SIZE, "headers are cut off");
	make_kernel(kernel);
	e->e_phoff = sizeof(*e) - 5;
	refuse(kernel, KERNEL_SIZE, "overlap");
	make_kernel(kernel);
	e->e_phnum = 65;
	refuse(kernel, KERNEL_SIZE, "65 ELF segments");
	make_kernel(kernel);
	e->e_machine = EM_AARCH64;
	refuse(kernel, KERNEL_SIZE, "not for 64-bit x86");
	make_kernel(kernel);
	e->e_ident[EI_CLASS] = ELFCLASS32;
	refuse(kernel, KERNEL_SIZE, "not for 64-bit x86");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_formats),
		cmocka_unit_test(test_elf),
		cmocka_unit_test(test_headers),
		cmocka_unit_test(test_bad_elf),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
