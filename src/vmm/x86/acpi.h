/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_ACPI_H
#define WISP_VMM_ACPI_H

/* The ACPI tables of the machine (ACPI 6.4): RSDP, XSDT, FADT, MADT, MCFG, DSDT. */

#include <stddef.h>
#include <stdint.h>

#include "vmm/x86/topology.h"

struct error;
struct memory;

#define ACPI_BASE 0xe0000 /* below 1 MiB, in the range that e820 reserves */
#define ACPI_SIZE 0x1ff00
/* 16 random bytes, other ones in each copy of a guest; behind them is BOOT_RESET_VECTOR. */
#define ACPI_GENERATION 0xfff00
#define ACPI_GENERATION_SIZE 16

/*
 * Builds all tables for guest address base into buf (size bytes). Returns the bytes used; the
 * RSDP is first. -ENOSPC when they do not fit.
 */
int acpi_build(uint8_t *buf, size_t size, uint64_t base, const struct topology *topology);

/* Builds them at ACPI_BASE. */
int acpi_load(struct memory *mem, const struct topology *topology, struct error *err);

/* Writes a new generation id. 0 or -errno. */
int acpi_new_generation(struct memory *mem);

#endif
