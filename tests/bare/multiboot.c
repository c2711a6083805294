/* SPDX-License-Identifier: Apache-2.0 */
/* What a Multiboot loader tells, as Linux's boot protocol would (multiboot.S). */

#include <asm/bootparam.h>
#include <stdint.h>

/* Multiboot specification 0.6.96, section 3.3. */
struct multiboot_info {
	uint32_t flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr, syms[4],
		mmap_length, mmap_addr;
};

struct multiboot_region {
	uint32_t size; /* of what follows */
	uint64_t address, length;
	uint32_t type; /* as that of the E820 map */
} __attribute__((packed));

struct boot_params *multiboot_params(const struct multiboot_info *info);

struct boot_params *multiboot_params(const struct multiboot_info *info)
{
	static struct boot_params params;
	const char *words = (const char *)(uintptr_t)info->cmdline;
	uint32_t at = 0;

	while (*words && *words != ' ') /* the name of the file */
		words++;
	while (*words == ' ')
		words++;
	params.hdr.cmd_line_ptr = (uint32_t)(uintptr_t)words;
	while (at < info->mmap_length) {
		const struct multiboot_region *r = (const void *)(uintptr_t)(info->mmap_addr + at);

		params.e820_table[params.e820_entries++] = (struct boot_e820_entry){
			.addr = r->address, .size = r->length, .type = r->type};
		at += r->size + 4;
	}
	return &params;
}
