/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_LIB_PARSE_H
#define WISP_LIB_PARSE_H

/*
 * Checked parsing of the values people type. Every function takes the whole string (no
 * trailing text, no sign, no leading space), leaves *ret alone on failure, and returns
 * 0, -EINVAL (not a number of that kind) or -ERANGE with the reason in err. Any thread.
 */

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>

struct error;

/* Decimal, or hexadecimal with 0x; min <= value <= max. what names the value in errors. */
int parse_u64(const char *text, const char *what, uint64_t min, uint64_t max, uint64_t *ret,
	      struct error *err);
int parse_uint(const char *text, const char *what, unsigned min, unsigned max, unsigned *ret,
	       struct error *err);

/* "on"/"off", "yes"/"no", "true"/"false", "1"/"0". */
int parse_bool(const char *text, const char *what, bool *ret, struct error *err);

/*
 * Bytes: a decimal number with an optional binary unit K, M, G or T (also KiB, MiB, GiB,
 * TiB, and KB... which mean the same); no unit means bytes, except that default_unit (say
 * 1 << 20) multiplies a bare number when it is not 0.
 */
int parse_size(const char *text, uint64_t default_unit, uint64_t *ret, struct error *err);

/* Writes bytes with the largest unit that divides them ("256 MiB"); returns buf. */
const char *format_size(uint64_t bytes, char *buf, size_t size);

/* CPU list as the kernel writes it: "0-3,8,10-14:2". At least one CPU, ids < CPU_SETSIZE. */
int parse_cpulist(const char *text, cpu_set_t *ret, struct error *err);

/* The list of a set, in the same syntax ("0-3,8"); cut with "..." if it does not fit. */
const char *format_cpulist(const cpu_set_t *set, char *buf, size_t size);

/* PCI address: [domain:]bus:device.function in hexadecimal, domain 0 when left out. */
struct pci_address {
	uint32_t domain; /* 0..0xffffffff; firmware uses 16 bits, VMD more */
	uint8_t bus;
	uint8_t device;	  /* 0..31 */
	uint8_t function; /* 0..7 */
};
int parse_pci_address(const char *text, struct pci_address *ret, struct error *err);

/* MAC address aa:bb:cc:dd:ee:ff; multicast addresses and zero are refused. */
int parse_mac(const char *text, uint8_t ret[6], struct error *err);

#endif
