/* SPDX-License-Identifier: Apache-2.0 */
/* Names of CPU features, and which of them a machine lacks. */

#include "vmm/x86/features.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "vmm/x86/cpuid.h"

#define BIT(n) (1u << (n))
#define NAME_MAX_ 48

enum reg { EAX, EBX, ECX, EDX };

/* Names by bit from 0, "-" for none; ignore: bits that follow what the guest does. */
static const struct {
	uint32_t leaf, subleaf;
	enum reg reg;
	const char *prefix, *names;
	uint32_t ignore;
} registers[] = {
	{0x1, 0, EDX, "",
	 "fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 pn clflush - "
	 "dts acpi mmx fxsr sse sse2 ss ht tm ia64 pbe",
	 0},
	{0x1, 0, ECX, "",
	 "pni pclmulqdq dtes64 monitor ds_cpl vmx smx est tm2 ssse3 cid sdbg fma cx16 xtpr pdcm - "
	 "pcid dca sse4_1 sse4_2 x2apic movbe popcnt tsc_deadline_timer aes xsave osxsave avx f16c "
	 "rdrand hypervisor",
	 BIT(27)},
	{0x7, 0, EBX, "",
	 "fsgsbase tsc_adjust sgx bmi1 hle avx2 fdp_excptn_only smep bmi2 erms invpcid rtm cqm "
	 "zero_fcs_fds mpx rdt_a avx512f avx512dq rdseed adx smap avx512ifma - clflushopt clwb "
	 "intel_pt avx512pf avx512er avx512cd sha_ni avx512bw avx512vl",
	 0},
	{0x7, 0, ECX, "",
	 "prefetchwt1 avx512vbmi umip pku ospke waitpkg avx512_vbmi2 shstk gfni vaes vpclmulqdq "
	 "avx512_vnni avx512_bitalg tme avx512_vpopcntdq - la57 - - - - - rdpid kl bus_lock_detect "
	 "cldemote - movdiri movdir64b enqcmd sgx_lc pks",
	 BIT(4)},
	{0x7, 0, EDX, "",
	 "- sgx_keys avx512_4vnniw avx512_4fmaps fsrm uintr - - avx512_vp2intersect srbds_ctrl "
	 "md_clear rtm_always_abort - tsx_force_abort serialize hybrid_cpu tsxldtrk - pconfig "
	 "arch_lbr ibt - amx_bf16 avx512_fp16 amx_tile amx_int8 spec_ctrl intel_stibp flush_l1d "
	 "arch_capabilities core_capabilities spec_ctrl_ssbd",
	 0},
	{0x7, 1, EAX, "",
	 "sha512 sm3 sm4 rao_int avx_vnni avx512_bf16 lass cmpccxadd arch_perfmon_ext - fzrm fsrs "
	 "fsrc - - - - fred lkgs wrmsrns - amx_fp16 hreset avx_ifma - - lam",
	 0},
	{0x7, 1, EDX, "",
	 "- - - - avx_vnni_int8 avx_ne_convert - - amx_complex - - - - - prefetchiti", 0},
	{0xd, 0, EAX, "xcr0.",
	 "x87 sse avx bndregs bndcsr opmask zmm_hi256 hi16_zmm - pkru - - - - - - - xtilecfg "
	 "xtiledata",
	 0},
	{0xd, 1, EAX, "", "xsaveopt xsavec xgetbv1 xsaves xfd", 0},
	{0x80000001, 0, EDX, "",
	 "- - - - - - - - - - - syscall - - - - - - - mp nx - mmxext - - fxsr_opt pdpe1gb rdtscp - "
	 "lm 3dnowext 3dnow",
	 0},
	{0x80000001, 0, ECX, "",
	 "lahf_lm cmp_legacy svm extapic cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw ibs "
	 "xop "
	 "skinit wdt - lwp fma4 tce - nodeid_msr - tbm topoext perfctr_core perfctr_nb - bpext "
	 "ptsc "
	 "perfctr_llc mwaitx",
	 0},
	{0x80000007, 0, EDX, "", "- - - - - - - - invariant_tsc", 0},
	{0x80000008, 0, EBX, "",
	 "clzero irperf xsaveerptr - rdpru - - - - wbnoinvd - - amd_ibpb - amd_ibrs amd_stibp - - "
	 "- "
	 "- - - - - amd_ssbd virt_ssbd amd_ssb_no",
	 0},
	{0x80000021, 0, EAX, "", "", 0},
	{0x40000001, 0, EAX, "kvm.",
	 "clock nop_io_delay mmu_op clock2 async_pf steal_time pv_eoi pv_unhalt - tlb_flush "
	 "async_pf_vmexit send_ipi poll_control sched_yield async_pf_int msi_ext_dest_id "
	 "map_gpa_range migration_control - - - - - - clock_stable",
	 0},
};

static uint32_t value(const struct cpuid *c, unsigned row)
{
	const struct kvm_cpuid_entry2 *e =
		cpuid_find((struct cpuid *)c, registers[row].leaf, registers[row].subleaf);

	if (!e)
		return 0;
	switch (registers[row].reg) {
	case EAX:
		return e->eax;
	case EBX:
		return e->ebx;
	case ECX:
		return e->ecx;
	default:
		return e->edx;
	}
}

static void name(unsigned row, unsigned bit, char buf[NAME_MAX_])
{
	static const char *const regs[] = {"eax", "ebx", "ecx", "edx"};
	const char *p = registers[row].names;

	for (unsigned i = 0; i < bit && *p; i++) {
		p += strcspn(p, " ");
		p += strspn(p, " ");
	}
	if (*p && *p != '-')
		snprintf(buf, NAME_MAX_, "%s%.*s", registers[row].prefix, (int)strcspn(p, " "), p);
	else
		snprintf(buf, NAME_MAX_, "cpuid.0x%x.%u.%s.%u", registers[row].leaf,
			 registers[row].subleaf, regs[registers[row].reg], bit);
}

void features_each(const struct cpuid *c, feature_fn *fn, void *arg)
{
	char buf[NAME_MAX_];

	for (unsigned row = 0; row < ARRAY_SIZE(registers); row++) {
		uint32_t bits = value(c, row) & ~registers[row].ignore;

		for (unsigned bit = 0; bit < 32; bit++) {
			if (!(bits & BIT(bit)))
				continue;
			name(row, bit, buf);
			fn(arg, buf);
		}
	}
}

static int check_vendor(const struct cpuid *saved, const struct cpuid *here, struct error *err)
{
	const struct kvm_cpuid_entry2 *a = cpuid_find((struct cpuid *)saved, 0, 0);
	const struct kvm_cpuid_entry2 *b = cpuid_find((struct cpuid *)here, 0, 0);

	if (!a || !b)
		return error_set(err, -EBADMSG, "the saved CPUID has no leaf 0");
	if (a->ebx == b->ebx && a->ecx == b->ecx && a->edx == b->edx)
		return 0;
	return error_set(err, -EOPNOTSUPP,
			 "the VM was saved on a CPU of another vendor (CPUID 0x%08x, here 0x%08x)",
			 a->ebx, b->ebx);
}

int features_check(const struct cpuid *saved, const struct cpuid *here, struct error *err)
{
	char text[400] = "", one[NAME_MAX_];
	size_t used = 0;
	int r = check_vendor(saved, here, err);

	if (r)
		return r;
	for (unsigned row = 0; row < ARRAY_SIZE(registers); row++) {
		uint32_t lost = value(saved, row) & ~value(here, row) & ~registers[row].ignore;

		for (unsigned bit = 0; bit < 32; bit++) {
			if (!(lost & BIT(bit)))
				continue;
			name(row, bit, one);
			r = -EOPNOTSUPP;
			if (used + strlen(one) + 6 < sizeof(text))
				used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%s",
							 used ? ", " : "", one);
		}
	}
	return r ? error_set(err, r, "this machine's CPU or KVM lacks what the guest has: %s", text)
		 : 0;
}
