/* SPDX-License-Identifier: Apache-2.0 */
/* Builds the guest's CPUID from KVM's, leaf by leaf. */

#include "vmm/x86/cpuid.h"

#include <cpuid.h>
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "lib/cleanup.h"
#include "lib/error.h"

#define BIT(n) (1u << (n))
#define LEAF1_ECX_X2APIC BIT(21)
#define LEAF1_ECX_TSC_DEADLINE BIT(24)
#define LEAF1_ECX_HYPERVISOR BIT(31)
#define LEAF1_EDX_HTT BIT(28)
#define EXT1_ECX_CMP_LEGACY BIT(1)
#define EXT1_ECX_TOPOEXT BIT(22)
#define EXT7_EDX_INVARIANT_TSC BIT(8)
#define KVM_SIGNATURE 0x40000000
#define KVM_FEATURES 0x40000001
#define HYPERVISOR_CLOCK 0x40000010 /* TSC and bus kHz, first seen with VMware */
#define LAPIC_KHZ 1000000	    /* KVM's LAPIC timer counts nanoseconds */

/*
 * Asynchronous page faults leave tasks waiting for an event that a restored VM never
 * gets, and our memory is not swapped: not offered.
 */
#define KVM_FEATURES_HIDDEN (BIT(4) | BIT(10) | BIT(14))
#define KVM_FEATURE_PV_EOI_BIT BIT(6)
#define KVM_FEATURE_MSI_EXT_DEST_ID_BIT BIT(15)

struct kvm_cpuid_entry2 *cpuid_find(struct cpuid *c, uint32_t leaf, uint32_t subleaf)
{
	for (uint32_t i = 0; i < c->count; i++) {
		struct kvm_cpuid_entry2 *e = &c->entry[i];

		if (e->function == leaf &&
		    (!(e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) || e->index == subleaf))
			return e;
	}
	return NULL;
}

/* The entry, made if it is not there; NULL when the table is full (it holds far more). */
static struct kvm_cpuid_entry2 *get(struct cpuid *c, uint32_t leaf, uint32_t subleaf, bool indexed)
{
	struct kvm_cpuid_entry2 *e = cpuid_find(c, leaf, subleaf);

	if (e || c->count == CPUID_ENTRIES_MAX)
		return e;
	e = &c->entry[c->count++];
	*e = (struct kvm_cpuid_entry2){.function = leaf,
				       .index = subleaf,
				       .flags = indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0};
	return e;
}

static void drop(struct cpuid *c, uint32_t leaf)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < c->count; i++)
		if (c->entry[i].function != leaf)
			c->entry[kept++] = c->entry[i];
	c->count = kept;
}

int cpuid_supported(int kvm_fd, struct cpuid *ret, struct error *err)
{
	ret->count = CPUID_ENTRIES_MAX;
	if (ioctl(kvm_fd, KVM_GET_SUPPORTED_CPUID, ret) < 0)
		return error_errno(err, -errno, "cannot read the CPUID that KVM supports");
	return 0;
}

static bool is_amd(struct cpuid *c)
{
	const struct kvm_cpuid_entry2 *e = cpuid_find(c, 0, 0);

	return e && (!memcmp(&e->ebx, "Auth", 4) || !memcmp(&e->ebx, "Hygo", 4));
}

/* A leaf above the maximum does not exist for the guest. */
static void raise_max(struct cpuid *c, uint32_t base, uint32_t leaf)
{
	struct kvm_cpuid_entry2 *e = get(c, base, 0, false);

	if (e && e->eax < leaf)
		e->eax = leaf;
}

static unsigned logical_per_package(const struct topology *t)
{
	return 1u << topology_package_shift(t);
}

static void set_features(struct cpuid *c, const struct cpuid_params *p)
{
	struct kvm_cpuid_entry2 *e = get(c, 1, 0, false);
	unsigned logical = logical_per_package(p->topology);

	if (!e)
		return;
	e->ecx |= LEAF1_ECX_HYPERVISOR | LEAF1_ECX_X2APIC;
	e->ecx &= ~LEAF1_ECX_TSC_DEADLINE;
	if (p->tsc_deadline)
		e->ecx |= LEAF1_ECX_TSC_DEADLINE;
	e->ebx = (e->ebx & 0xff00) | (logical > 255 ? 255 : logical) << 16;
	e->edx &= ~LEAF1_EDX_HTT;
	if (p->topology->cores * p->topology->threads > 1)
		e->edx |= LEAF1_EDX_HTT;
}

/*
 * Which vCPUs share a cache of the level: the threads of a core, or the whole package from level 3
 * up. The field holds the width of the APIC id range less one.
 */
static uint32_t sharing(const struct topology *t, unsigned level)
{
	return level >= 3 ? logical_per_package(t) - 1 : (1u << topology_thread_bits(t)) - 1;
}

static void set_intel_caches(struct cpuid *c, const struct topology *t)
{
	uint32_t cores = (1u << (topology_package_shift(t) - topology_thread_bits(t))) - 1;

	for (uint32_t i = 0; i < c->count; i++) {
		struct kvm_cpuid_entry2 *e = &c->entry[i];

		if (e->function != 4 || !(e->eax & 0x1f))
			continue;
		e->eax = (e->eax & 0x3fff) | sharing(t, e->eax >> 5 & 7) << 14 |
			 (cores > 63 ? 63 : cores) << 26;
	}
}

/* AMD's associativity codes of leaf 0x80000006. */
static unsigned decode_ways(unsigned code)
{
	static const uint8_t ways[16] = {0, 1, 2, 3, 4, 6, 8, 0, 16, 0, 32, 48, 64, 96, 128, 0};

	return ways[code];
}

/* One subleaf of 0x8000001d from size, line and ways. */
static void put_amd_cache(struct cpuid *c, const struct topology *t, unsigned index, unsigned type,
			  unsigned level, uint64_t size, unsigned line, unsigned ways)
{
	struct kvm_cpuid_entry2 *e = get(c, 0x8000001d, index, true);

	if (!e || !size || !line || !ways)
		return;
	e->eax = type | level << 5 | BIT(8) | sharing(t, level) << 14;
	e->ebx = (line - 1) | (ways - 1) << 22;
	e->ecx = (uint32_t)(size / line / ways) - 1;
	e->edx = 0;
}

/* CPUs without the topology extension describe their caches in 0x80000005 and 6 alone. */
static void make_amd_caches(struct cpuid *c, const struct topology *t)
{
	const struct kvm_cpuid_entry2 *l1 = cpuid_find(c, 0x80000005, 0);
	const struct kvm_cpuid_entry2 *l2 = cpuid_find(c, 0x80000006, 0);
	unsigned next = 2;

	if (!l1 || !l2)
		return;
	put_amd_cache(c, t, 0, 1, 1, (uint64_t)(l1->ecx >> 24) << 10, l1->ecx & 0xff,
		      l1->ecx >> 16 & 0xff);
	put_amd_cache(c, t, 1, 2, 1, (uint64_t)(l1->edx >> 24) << 10, l1->edx & 0xff,
		      l1->edx >> 16 & 0xff);
	put_amd_cache(c, t, next++, 3, 2, (uint64_t)(l2->ecx >> 16) << 10, l2->ecx & 0xff,
		      decode_ways(l2->ecx >> 12 & 0xf));
	if (l2->edx >> 18)
		put_amd_cache(c, t, next++, 3, 3, (uint64_t)(l2->edx >> 18) << 19, l2->edx & 0xff,
			      decode_ways(l2->edx >> 12 & 0xf));
	get(c, 0x8000001d, next, true);
}

static void set_amd_caches(struct cpuid *c, const struct topology *t)
{
	const struct kvm_cpuid_entry2 *first = cpuid_find(c, 0x8000001d, 0);

	if (!first || !(first->eax & 0x1f)) {
		drop(c, 0x8000001d);
		make_amd_caches(c, t);
	}
	for (uint32_t i = 0; i < c->count; i++) {
		struct kvm_cpuid_entry2 *e = &c->entry[i];

		if (e->function == 0x8000001d && (e->eax & 0x1f))
			e->eax = (e->eax & 0x3fff) | sharing(t, e->eax >> 5 & 7) << 14;
	}
}

static void set_amd_topology(struct cpuid *c, const struct topology *t)
{
	struct kvm_cpuid_entry2 *ext1 = get(c, 0x80000001, 0, false);
	struct kvm_cpuid_entry2 *size = get(c, 0x80000008, 0, false);
	struct kvm_cpuid_entry2 *ids = get(c, 0x8000001e, 0, false);
	unsigned logical = t->cores * t->threads;

	if (!ext1 || !size || !ids)
		return;
	raise_max(c, 0x80000000, 0x8000001e);
	ext1->ecx |= EXT1_ECX_TOPOEXT;
	ext1->ecx &= ~EXT1_ECX_CMP_LEGACY;
	if (logical > 1)
		ext1->ecx |= EXT1_ECX_CMP_LEGACY;
	size->ecx = (logical - 1) | topology_package_shift(t) << 12;
	ids->ebx = (t->threads - 1) << 8;
	ids->ecx = 0; /* one node a socket */
	ids->edx = 0;
	set_amd_caches(c, t);
}

/* Leaves 0xb and 0x1f: a thread level and a core level (SDM volume 2, tables of those leaves). */
static void set_extended_topology(struct cpuid *c, const struct topology *t)
{
	static const uint32_t leaves[] = {0xb, 0x1f};

	for (unsigned i = 0; i < ARRAY_SIZE(leaves); i++) {
		struct kvm_cpuid_entry2 *e;

		/* AMD CPUs have no leaf 0x1f; Intel CPUs without one get along with 0xb. */
		if (leaves[i] == 0x1f && !cpuid_find(c, 0x1f, 0))
			continue;
		drop(c, leaves[i]);
		e = get(c, leaves[i], 0, true);
		if (e) {
			e->eax = topology_thread_bits(t);
			e->ebx = t->threads;
			e->ecx = 0 | 1 << 8;
		}
		e = get(c, leaves[i], 1, true);
		if (e) {
			e->eax = topology_package_shift(t);
			e->ebx = t->cores * t->threads;
			e->ecx = 1 | 2 << 8;
		}
		e = get(c, leaves[i], 2, true);
		if (e)
			e->ecx = 2;
	}
	raise_max(c, 0, 0xb);
}

/*
 * The ratio of leaf 0x15 is given against a crystal of 1 GHz, because Linux takes the crystal for
 * the LAPIC timer's clock and that is what KVM's counts at.
 */
static void set_clock(struct cpuid *c, const struct cpuid_params *p)
{
	struct kvm_cpuid_entry2 *e;

	if (!p->tsc_khz)
		return;
	e = get(c, 0x15, 0, false);
	if (e) {
		e->eax = 1000000;
		e->ebx = p->tsc_khz;
		e->ecx = 1000000000;
	}
	e = get(c, 0x16, 0, false);
	if (e) {
		e->eax = e->ebx = p->tsc_khz / 1000;
		e->ecx = 100;
	}
	raise_max(c, 0, 0x16);
	e = get(c, HYPERVISOR_CLOCK, 0, false);
	if (e) {
		e->eax = p->tsc_khz;
		e->ebx = LAPIC_KHZ;
	}
	raise_max(c, KVM_SIGNATURE, HYPERVISOR_CLOCK);
}

static void set_invariant_tsc(struct cpuid *c, const struct cpuid_params *p)
{
	struct kvm_cpuid_entry2 *e;

	if (!p->invariant_tsc)
		return;
	e = get(c, 0x80000007, 0, false);
	if (e)
		e->edx |= EXT7_EDX_INVARIANT_TSC;
	raise_max(c, 0x80000000, 0x80000007);
}

static void set_hypervisor(struct cpuid *c, const struct cpuid_params *p)
{
	struct kvm_cpuid_entry2 *e = cpuid_find(c, KVM_FEATURES, 0);

	if (!e)
		return;
	e->eax &= ~(KVM_FEATURES_HIDDEN | KVM_FEATURE_MSI_EXT_DEST_ID_BIT);
	if (p->ext_dest_id)
		e->eax |= KVM_FEATURE_MSI_EXT_DEST_ID_BIT;
	if (p->eoi_exits)
		e->eax &= ~KVM_FEATURE_PV_EOI_BIT;
}

/* KVM leaves out the brand string and the old cache leaves: they are the host's. */
static void copy_host_leaves(struct cpuid *c)
{
	for (uint32_t leaf = 0x80000002; leaf <= 0x80000006; leaf++) {
		struct kvm_cpuid_entry2 *e = get(c, leaf, 0, false);

		if (e && !(e->eax | e->ebx | e->ecx | e->edx))
			__get_cpuid(leaf, &e->eax, &e->ebx, &e->ecx, &e->edx);
	}
}

void cpuid_configure(struct cpuid *c, const struct cpuid_params *p)
{
	copy_host_leaves(c);
	set_features(c, p);
	set_extended_topology(c, p->topology);
	if (is_amd(c))
		set_amd_topology(c, p->topology);
	else
		set_intel_caches(c, p->topology);
	set_clock(c, p);
	set_invariant_tsc(c, p);
	set_hypervisor(c, p);
}

void cpuid_set_apic_id(struct cpuid *c, const struct topology *t, unsigned index)
{
	uint32_t id = topology_apic_id(t, index);

	for (uint32_t i = 0; i < c->count; i++) {
		struct kvm_cpuid_entry2 *e = &c->entry[i];

		switch (e->function) {
		case 1:
			e->ebx = (e->ebx & 0x00ffffff) | id << 24;
			break;
		case 0xb:
		case 0x1f:
			e->edx = id;
			break;
		case 0x8000001e:
			e->eax = id;
			e->ebx = (e->ebx & 0xff00) | (index / t->threads % t->cores & 0xff);
			e->ecx = index / t->threads / t->cores & 0xff;
			break;
		}
	}
}

bool cpuid_host_invariant_tsc(void)
{
	unsigned a, b, c, d;

	return __get_cpuid(0x80000007, &a, &b, &c, &d) && (d & EXT7_EDX_INVARIANT_TSC);
}

bool cpuid_host_emulated(void)
{
	unsigned a, name[3];

	__cpuid(KVM_SIGNATURE, a, name[0], name[1], name[2]);
	return !memcmp(name, "TCGTCGTCGTCG", sizeof(name));
}
