/* SPDX-License-Identifier: Apache-2.0 */
/* Mask files of CPU models: they only take away, and the XSAVE area stays as large as its states.
 */

#include <stdlib.h>
#include <string.h>

#include "lib/error.h"
#include "vmm/x86/cpuid.h"
#include "vmm/x86/model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void add(struct cpuid *c, uint32_t leaf, uint32_t subleaf, uint32_t eax, uint32_t ebx,
		uint32_t ecx, uint32_t edx)
{
	c->entry[c->count++] =
		(struct kvm_cpuid_entry2){.function = leaf,
					  .index = subleaf,
					  .flags = leaf == 1 ? 0 : KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
					  .eax = eax,
					  .ebx = ebx,
					  .ecx = ecx,
					  .edx = edx};
}

static void check(const struct cpuid *host, struct cpuid *c)
{
	for (uint32_t i = 0; i < c->count; i++) {
		const struct kvm_cpuid_entry2 *e = &c->entry[i], *h = &host->entry[i];

		if ((e->eax & ~h->eax) | (e->edx & ~h->edx) ||
		    (e->function != 0xd && ((e->ebx & ~h->ebx) | (e->ecx & ~h->ecx))))
			abort();
	}
	const struct kvm_cpuid_entry2 *xsave = cpuid_find(c, 0xd, 0);

	if (xsave->ecx < 576 || xsave->ecx > 2688)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cpuid c = {0}, host;
	char *text = malloc(size + 1);
	struct error err;

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = 0;
	add(&c, 1, 0, 0x806f8, 0x12345678, 0x7ffefbff, 0x1fabfbff);
	add(&c, 7, 0, 1, ~0u, ~0u, ~0u);
	add(&c, 0xd, 0, 0xe7, 2688, 2688, 0);
	add(&c, 0xd, 1, 0xf, 0, 1 << 11, 0);
	add(&c, 0xd, 2, 256, 576, 0, 0);
	add(&c, 0xd, 7, 1024, 1664, 0, 0);
	add(&c, 0xd, 11, 16, 0, 1, 0);
	host = c;
	model_apply_text(&c, "mask", text, &err);
	check(&host, &c);
	free(text);
	return 0;
}
