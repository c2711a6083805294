/* SPDX-License-Identifier: Apache-2.0 */
/* Places kernel, initrd and the boot structures in guest memory. */

#include "vmm/x86/boot.h"

#include <asm/bootparam.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "vmm/dev/power.h"
#include "vmm/memory.h"
#include "vmm/pci/pci.h"
#include "vmm/x86/acpi.h"

#define LOADER_UNDEFINED 0xff
#define EBDA_START 0x9fc00
#define PAGE 4096ULL

static int open_regular(const char *path, const char *what, uint64_t *size, struct error *err)
{
	/* Without waiting for the writer of a FIFO. */
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return error_errno(err, -errno, "cannot open %s %s", what, path);
	if (!S_ISREG(st.st_mode) || !st.st_size)
		return error_set(err, -EINVAL, "%s %s is %s", what, path,
				 S_ISREG(st.st_mode) ? "empty" : "no regular file");
	*size = (uint64_t)st.st_size;
	return take_fd(&fd);
}

static int check_fits(const struct kernel *k, uint64_t low, struct error *err)
{
	for (unsigned i = 0; i < k->nsegments; i++)
		if (k->segment[i].gpa + k->segment[i].mem_size > low)
			break;
		else if (i + 1 == k->nsegments && k->end <= low)
			return 0;
	return error_set(err, -ENOEXEC,
			 "kernel is too large for the guest's memory: it needs %" PRIu64
			 " MiB, there are %" PRIu64 " MiB (below the PCI hole)",
			 (k->end >> 20) + 1, low >> 20);
}

static int open_kernel(const char *path, uint64_t low, struct boot_files *f, struct error *err)
{
	CLEANUP_FREE uint8_t *head = malloc(KERNEL_HEAD_SIZE);
	uint64_t size = 0;
	size_t n;
	int r;

	if (!head)
		return -ENOMEM;
	f->kernel_fd = open_regular(path, "kernel", &size, err);
	if (f->kernel_fd < 0)
		return f->kernel_fd;
	n = size < KERNEL_HEAD_SIZE ? size : KERNEL_HEAD_SIZE;
	r = io_pread_full(f->kernel_fd, head, n, 0);
	if (r)
		return error_errno(err, r, "cannot read kernel %s", path);
	r = kernel_parse(head, n, size, &f->kernel, err);
	if (!r)
		r = check_fits(&f->kernel, low, err);
	return r ? error_prefix(err, r, "kernel %s", path) : 0;
}

/* As high as it may be: the kernel's own early allocations then stay together below. */
static int place_initrd(const char *path, uint64_t low, struct boot_files *f, struct error *err)
{
	uint64_t top = f->kernel.initrd_max + 1 < low ? f->kernel.initrd_max + 1 : low;
	uint64_t kernel_end = (f->kernel.end + PAGE - 1) & ~(PAGE - 1);

	f->initrd_fd = open_regular(path, "initrd", &f->initrd_size, err);
	if (f->initrd_fd < 0)
		return f->initrd_fd;
	if (f->initrd_size > top || top - f->initrd_size < kernel_end)
		return error_set(
			err, -ENOMEM,
			"initrd %s (%" PRIu64 " MiB) does not fit between the kernel's end "
			"(%" PRIu64 " MiB) and %" PRIu64 " MiB: give the guest more memory",
			path, (f->initrd_size >> 20) + 1, kernel_end >> 20, top >> 20);
	f->initrd_gpa = (top - f->initrd_size) & ~(PAGE - 1);
	return 0;
}

int boot_open(const char *kernel, const char *initrd, const char *cmdline, uint64_t ram,
	      struct boot_files *ret, struct error *err)
{
	struct boot_files f = {.kernel_fd = -1, .initrd_fd = -1, .cmdline = cmdline};
	uint64_t low = ram < MEMORY_LOW_MAX ? ram : MEMORY_LOW_MAX;
	int r = open_kernel(kernel, low, &f, err);

	if (!r && initrd)
		r = place_initrd(initrd, low, &f, err);
	if (!r && (strlen(cmdline) > f.kernel.cmdline_max || strlen(cmdline) >= BOOT_CMDLINE_MAX))
		r = error_set(err, -E2BIG,
			      "kernel command line of %zu bytes is too long, the kernel "
			      "takes %u",
			      strlen(cmdline), f.kernel.cmdline_max);
	if (r) {
		boot_close(&f);
		return r;
	}
	*ret = f;
	return 0;
}

void boot_close(struct boot_files *f)
{
	if (f->kernel_fd >= 0)
		close(f->kernel_fd);
	if (f->initrd_fd >= 0)
		close(f->initrd_fd);
	f->kernel_fd = f->initrd_fd = -1;
}

static int load_bytes(struct memory *mem, int fd, uint64_t offset, uint64_t gpa, uint64_t size,
		      const char *what, struct error *err)
{
	void *p = memory_at(mem, gpa, size);
	int r = p ? io_pread_full(fd, p, size, (off_t)offset) : -EFAULT;

	return r ? error_errno(err, r, "cannot load the %s", what) : 0;
}

static void add_e820(struct boot_params *bp, uint64_t start, uint64_t end, uint32_t type)
{
	if (end > start)
		bp->e820_table[bp->e820_entries++] =
			(struct boot_e820_entry){.addr = start, .size = end - start, .type = type};
}

#define E820_RAM 1
#define E820_RESERVED 2

static void fill_e820(struct boot_params *bp, const struct memory *mem)
{
	const struct memory_region *low = &mem->region[0];

	add_e820(bp, 0, EBDA_START, E820_RAM);
	add_e820(bp, EBDA_START, 0x100000, E820_RESERVED);
	add_e820(bp, 0x100000, low->gpa + low->size, E820_RAM);
	/* Linux uses ECAM only where e820 or a motherboard device reserves it. */
	add_e820(bp, PCI_ECAM_BASE, PCI_ECAM_BASE + PCI_ECAM_SIZE, E820_RESERVED);
	for (unsigned i = 1; i < mem->nregions; i++)
		add_e820(bp, mem->region[i].gpa, mem->region[i].gpa + mem->region[i].size,
			 E820_RAM);
}

static void fill_zero_page(struct boot_params *bp, const struct memory *mem,
			   const struct boot_files *f)
{
	memset(bp, 0, sizeof(*bp));
	if (f->kernel.kind == KERNEL_BZIMAGE) {
		memcpy(&bp->hdr, f->kernel.setup_header, f->kernel.setup_header_size);
	} else {
		bp->hdr.boot_flag = 0xaa55;
		bp->hdr.header = 0x53726448; /* "HdrS" */
		bp->hdr.version = 0x020c;
		bp->hdr.kernel_alignment = 0x1000000;
	}
	bp->hdr.type_of_loader = LOADER_UNDEFINED;
	bp->hdr.cmd_line_ptr = BOOT_CMDLINE;
	bp->hdr.ramdisk_image = (uint32_t)f->initrd_gpa;
	bp->hdr.ramdisk_size = (uint32_t)f->initrd_size;
	bp->acpi_rsdp_addr = ACPI_BASE;
	fill_e820(bp, mem);
}

/* Flat 64-bit code at selector 0x10, flat data at 0x18, as the 64-bit boot protocol asks. */
static const uint64_t boot_gdt[] = {0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff};

/*
 * Linux on a hardware-reduced machine without EFI reboots by jumping to the BIOS in real mode, and
 * never tries the reset register. So there is that much BIOS:
 *     mov dx, POWER_RESET; mov al, POWER_RESET_VALUE; out dx, al; 1: hlt; jmp 1b
 */
static const uint8_t reset_code[] = {
	0xba, POWER_RESET & 0xff, POWER_RESET >> 8, 0xb0, POWER_RESET_VALUE, 0xee, 0xf4, 0xeb,
	0xfd};

/* Identity map of the first 4 GiB by 2 MiB pages: PML4, PDPT and four directories in a row. */
static int write_page_tables(struct memory *mem)
{
	uint64_t *table = memory_at(mem, BOOT_PML4, 6 * PAGE);

	if (!table)
		return -EFAULT;
	memset(table, 0, 2 * PAGE);
	table[0] = (BOOT_PML4 + PAGE) | 3; /* present, writable */
	for (unsigned i = 0; i < 4; i++)
		table[512 + i] = (BOOT_PML4 + (2 + i) * PAGE) | 3;
	for (unsigned i = 0; i < 4 * 512; i++)
		table[1024 + i] = (uint64_t)i << 21 | 0x83; /* and large */
	return 0;
}

int boot_load(struct memory *mem, const struct boot_files *f, struct error *err)
{
	struct boot_params *bp = memory_at(mem, BOOT_ZERO_PAGE, sizeof(*bp));
	int r = 0;

	for (unsigned i = 0; !r && i < f->kernel.nsegments; i++) {
		const struct kernel_segment *s = &f->kernel.segment[i];

		/* The rest of the segment is zero already: guest memory is new. */
		r = load_bytes(mem, f->kernel_fd, s->offset, s->gpa, s->file_size, "kernel", err);
	}
	if (!r && f->initrd_fd >= 0)
		r = load_bytes(mem, f->initrd_fd, 0, f->initrd_gpa, f->initrd_size, "initrd", err);
	if (r)
		return r;
	if (!bp || write_page_tables(mem) ||
	    memory_write(mem, BOOT_GDT, boot_gdt, sizeof(boot_gdt)) ||
	    memory_write(mem, BOOT_RESET_VECTOR, reset_code, sizeof(reset_code)) ||
	    memory_write(mem, BOOT_CMDLINE, f->cmdline, strlen(f->cmdline) + 1))
		return error_set(err, -EFAULT, "guest memory is too small for the boot structures");
	fill_zero_page(bp, mem, f);
	return 0;
}
