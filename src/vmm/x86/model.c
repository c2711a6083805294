/* SPDX-License-Identifier: Apache-2.0 */
/* CPU models as masks over CPUID. */

#include "vmm/x86/model.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "vmm/x86/cpuid.h"

#define BIT(n) (1u << (n))
#define ALL 0xffffffffu

enum reg { EAX, EBX, ECX, EDX };

/*
 * What each level may have. Beside the level's own features: what only a kernel uses (PCID, SMEP,
 * x2APIC, ...), which does not change what programs compute. Speculation controls stay, so that
 * a mask never takes a mitigation away.
 */
#define L1_ECX_V2                                                                                \
	(BIT(0) | BIT(9) | BIT(13) | BIT(17) | BIT(19) | BIT(20) | BIT(21) | BIT(23) | BIT(24) | \
	 BIT(31))
#define L1_ECX_V3 (L1_ECX_V2 | BIT(12) | BIT(22) | BIT(26) | BIT(27) | BIT(28) | BIT(29))
#define L7_EBX_V2 (BIT(0) | BIT(1) | BIT(7) | BIT(9) | BIT(10) | BIT(20))
#define L7_EBX_V3 (L7_EBX_V2 | BIT(3) | BIT(5) | BIT(8))
#define L7_EBX_V4 (L7_EBX_V3 | BIT(16) | BIT(17) | BIT(28) | BIT(30) | BIT(31))
#define L7_EDX (BIT(10) | BIT(26) | BIT(27) | BIT(28) | BIT(31))
#define E1_ECX_V2 (BIT(0) | BIT(1) | BIT(4) | BIT(22))
#define E1_ECX_V3 (E1_ECX_V2 | BIT(5))
#define E1_EDX_V2 (ALL & ~(BIT(22) | BIT(30) | BIT(31))) /* no MMXEXT, 3DNow! */
#define E8_EBX (BIT(12) | BIT(14) | BIT(15) | BIT(24))
#define XCR0_V2 0x3u  /* x87, SSE */
#define XCR0_V3 0x7u  /* AVX */
#define XCR0_V4 0xe7u /* opmask, ZMM */

static const struct {
	uint32_t leaf, subleaf;
	enum reg reg;
	uint32_t mask[3]; /* v2, v3, v4 */
} level_masks[] = {
	{0x1, 0, ECX, {L1_ECX_V2, L1_ECX_V3, L1_ECX_V3}},
	{0x7, 0, EAX, {0, 0, 0}}, /* no further subleaves */
	{0x7, 0, EBX, {L7_EBX_V2, L7_EBX_V3, L7_EBX_V4}},
	{0x7, 0, ECX, {0, 0, 0}},
	{0x7, 0, EDX, {L7_EDX, L7_EDX, L7_EDX}},
	{0xd, 0, EAX, {XCR0_V2, XCR0_V3, XCR0_V4}},
	{0xd, 0, EDX, {0, 0, 0}},
	{0xd, 1, EAX, {0, BIT(0), BIT(0)}}, /* XSAVEOPT */
	{0xd, 1, ECX, {0, 0, 0}},
	{0xd, 1, EDX, {0, 0, 0}},
	{0x80000001, 0, ECX, {E1_ECX_V2, E1_ECX_V3, E1_ECX_V3}},
	{0x80000001, 0, EDX, {E1_EDX_V2, E1_EDX_V2, E1_EDX_V2}},
	{0x80000008, 0, EBX, {E8_EBX, E8_EBX, E8_EBX}},
};

static uint32_t *reg_of(struct kvm_cpuid_entry2 *e, enum reg reg)
{
	uint32_t *const regs[] = {&e->eax, &e->ebx, &e->ecx, &e->edx};

	return regs[reg];
}

static void mask_register(struct cpuid *c, uint32_t leaf, uint32_t subleaf, enum reg reg,
			  uint32_t mask)
{
	struct kvm_cpuid_entry2 *e = cpuid_find(c, leaf, subleaf);

	if (e)
		*reg_of(e, reg) &= mask;
}

/* Extended states that XCR0 no longer has must not be described, nor counted in the sizes. */
static void trim_xsave(struct cpuid *c)
{
	struct kvm_cpuid_entry2 *main_leaf = cpuid_find(c, 0xd, 0);
	const struct kvm_cpuid_entry2 *xss = cpuid_find(c, 0xd, 1);
	uint32_t size = 576; /* legacy area and header */

	if (!main_leaf)
		return;
	for (uint32_t i = 2; i < 64; i++) {
		struct kvm_cpuid_entry2 *e = cpuid_find(c, 0xd, i);

		if (!e)
			continue;
		/* States of the supervisor (XSS) count in the compacted format alone. */
		if (i < 32 && xss && xss->ecx & BIT(i))
			continue;
		if (i >= 32 || !(main_leaf->eax & BIT(i)))
			e->eax = e->ebx = e->ecx = e->edx = 0;
		else if (e->eax + e->ebx > size)
			size = e->eax + e->ebx;
	}
	main_leaf->ebx = main_leaf->ecx = size;
}

static void apply_level(struct cpuid *c, unsigned level)
{
	for (unsigned i = 0; i < ARRAY_SIZE(level_masks); i++)
		mask_register(c, level_masks[i].leaf, level_masks[i].subleaf, level_masks[i].reg,
			      level_masks[i].mask[level]);
	trim_xsave(c);
}

static int apply_line(struct cpuid *c, const char *line)
{
	static const char *const names[] = {"eax", "ebx", "ecx", "edx"};
	long long leaf, subleaf, mask;
	char reg[4], rest;

	if (sscanf(line, " %lli %lli %3s %lli %c", &leaf, &subleaf, reg, &mask, &rest) != 4 ||
	    (leaf | subleaf | mask) >> 32)
		return -EINVAL;
	for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
		if (strcmp(reg, names[i]))
			continue;
		mask_register(c, (uint32_t)leaf, (uint32_t)subleaf, (enum reg)i, (uint32_t)mask);
		return 0;
	}
	return -EINVAL;
}

int model_apply_text(struct cpuid *c, const char *path, const char *text, struct error *err)
{
	struct cpuid masked = *c;
	char line[160];

	for (unsigned n = 1; *text; n++) {
		size_t len = strcspn(text, "\n");

		snprintf(line, sizeof(line), "%.*s", (int)(len < 159 ? len : 159), text);
		line[strcspn(line, "#")] = 0;
		if (line[strspn(line, " \t\r")] && apply_line(&masked, line))
			return error_set(err, -EINVAL,
					 "%s:%u: \"%s\" is not like \"0x7 0 ebx 0x200\" (leaf, "
					 "subleaf, register, mask)",
					 path, n, line);
		text += len + (text[len] == '\n');
	}
	trim_xsave(&masked);
	*c = masked;
	return 0;
}

int model_apply(struct cpuid *c, const char *model, struct error *err)
{
	static const char *const levels[] = {"x86-64-v2", "x86-64-v3", "x86-64-v4"};
	CLEANUP_FREE char *text = NULL;
	ssize_t n;

	if (!strcmp(model, "host"))
		return 0;
	for (unsigned i = 0; i < ARRAY_SIZE(levels); i++) {
		if (strcmp(model, levels[i]))
			continue;
		apply_level(c, i);
		return 0;
	}
	n = io_read_file(model, 64 * 1024, &text, err);
	if (n < 0)
		return error_prefix(err, (int)n, "CPU model \"%s\" is none of " MODEL_HELP, model);
	return model_apply_text(c, model, text, err);
}
