/* SPDX-License-Identifier: Apache-2.0 */
/* A throw-away VM that times a loop in ring 0. */

#include "doctor/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "lib/cleanup.h"
#include "lib/io.h"

#define MEMORY_SIZE 0x5000
#define PML4 0x1000
#define PDPT 0x2000
#define PD 0x3000
#define CODE 0x4000

#define SHORT_LOOP 10000 /* turns: 6 ms where each instruction is emulated */
#define LONG_LOOP 300000 /* 0.1 ms on hardware, 1 ms in an emulated machine */
#define SUSPECT_NS 100	 /* a turn */
#define EXITS 50
/* Emulated code measures 100 to 2000 times slower, hardware 1 to 2 times with noise. */
#define EMULATED_RATIO 10

#define EFER_LME (1u << 8)
#define EFER_LMA (1u << 10)
#define CR0_PE (1u << 0)
#define CR0_ET (1u << 4)
#define CR0_NE (1u << 5)
#define CR0_PG (1u << 31)
#define CR4_PAE (1u << 5)

struct machine {
	int kvm, vm, vcpu;
	uint8_t *memory;
	struct kvm_run *run;
	size_t run_size;
};

static void machine_done(struct machine *m)
{
	if (m->run)
		munmap(m->run, m->run_size);
	if (m->memory)
		munmap(m->memory, MEMORY_SIZE);
	cleanup_close_fd(&m->vcpu);
	cleanup_close_fd(&m->vm);
	cleanup_close_fd(&m->kvm);
}

/* The loop turns ECX times; each write to the port exits. Then it begins again. */
static const uint8_t guest_code[] = {
	0xff, 0xc9,	     /* 0: dec %ecx */
	0x75, 0xfc,	     /* jnz 0b */
	0xe6, 0x10,	     /* out %al, $0x10 */
	0xb9, 1,    0, 0, 0, /* mov $1, %ecx */
	0xeb, 0xf3,	     /* jmp 0b */
};

static void put_u64(uint8_t *at, uint64_t value)
{
	memcpy(at, &value, sizeof(value)); /* x86: little-endian */
}

/* Page tables that map the first 2 MiB to themselves, and the code. */
static void fill_memory(uint8_t *memory)
{
	put_u64(memory + PML4, PDPT | 3); /* present, writable */
	put_u64(memory + PDPT, PD | 3);
	put_u64(memory + PD, 0x83); /* and a large page */
	memcpy(memory + CODE, guest_code, sizeof(guest_code));
}

/* Straight into ring 0 of 64-bit mode (SDM volume 3, 9.8.5, done by the host). */
static int set_registers(int vcpu)
{
	struct kvm_segment data = {
		.limit = 0xffffffff, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1};
	struct kvm_regs regs = {.rip = CODE, .rflags = 2, .rcx = 1};
	struct kvm_sregs sregs;

	if (ioctl(vcpu, KVM_GET_SREGS, &sregs) < 0)
		return -errno;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
	sregs.cs = data;
	sregs.cs.type = 11; /* code */
	sregs.cs.selector = 8;
	sregs.cs.l = 1;
	sregs.cs.db = 0;
	sregs.cr0 = CR0_PE | CR0_ET | CR0_NE | CR0_PG;
	sregs.cr3 = PML4;
	sregs.cr4 = CR4_PAE;
	sregs.efer = EFER_LME | EFER_LMA;
	if (ioctl(vcpu, KVM_SET_SREGS, &sregs) < 0 || ioctl(vcpu, KVM_SET_REGS, &regs) < 0)
		return -errno;
	return 0;
}

static int make_vm(struct machine *m)
{
	struct kvm_userspace_memory_region region = {.memory_size = MEMORY_SIZE};
	void *p;

	m->vm = ioctl(m->kvm, KVM_CREATE_VM, 0);
	if (m->vm < 0)
		return -errno;
	p = mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return -errno;
	m->memory = p;
	fill_memory(m->memory);
	region.userspace_addr = (uintptr_t)p;
	/* Intel CPUs without "unrestricted guest" want a place for a TSS; harmless elsewhere. */
	ioctl(m->vm, KVM_SET_TSS_ADDR, 0xfffbd000);
	if (ioctl(m->vm, KVM_SET_USER_MEMORY_REGION, &region) < 0)
		return -errno;
	return 0;
}

static int make_vcpu(struct machine *m)
{
	int size = ioctl(m->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	void *p;

	m->vcpu = ioctl(m->vm, KVM_CREATE_VCPU, 0);
	if (m->vcpu < 0 || size < (int)sizeof(struct kvm_run))
		return m->vcpu < 0 ? -errno : -EINVAL;
	p = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, m->vcpu, 0);
	if (p == MAP_FAILED)
		return -errno;
	m->run = p;
	m->run_size = (size_t)size;
	return set_registers(m->vcpu);
}

/* Until the next exit by the port. */
static int run_once(struct machine *m)
{
	while (ioctl(m->vcpu, KVM_RUN, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return m->run->exit_reason == KVM_EXIT_IO ? 0 : -EIO;
}

static int time_guest(struct machine *m, unsigned turns, double *ns)
{
	struct kvm_regs regs;
	uint64_t start;
	int r;

	/* The exit that just was is completed by the next entry: set the registers before it. */
	if (ioctl(m->vcpu, KVM_GET_REGS, &regs) < 0)
		return -errno;
	regs.rip = CODE;
	regs.rcx = turns;
	if (ioctl(m->vcpu, KVM_SET_REGS, &regs) < 0)
		return -errno;
	start = io_now_ns();
	r = run_once(m);
	*ns = (double)(io_now_ns() - start) / turns;
	return r;
}

static double time_host(unsigned turns)
{
	uint64_t start = io_now_ns();
	unsigned left = turns;

	__asm__ volatile("1: dec %0\n\tjnz 1b" : "+r"(left) : : "cc");
	return (double)(io_now_ns() - start) / turns;
}

/* The best of a few: a loop that was preempted says nothing. */
static int compare(struct machine *m, unsigned turns, struct kvm_measure *ret)
{
	double guest = 0;
	int r = 0;

	ret->guest_ns = ret->host_ns = 1e9;
	for (int i = 0; !r && i < 5; i++) {
		double host = time_host(turns);

		r = time_guest(m, turns, &guest);
		if (guest < ret->guest_ns)
			ret->guest_ns = guest;
		if (host < ret->host_ns)
			ret->host_ns = host;
	}
	return r;
}

static int time_exits(struct machine *m, double *ns)
{
	uint64_t start = io_now_ns();
	int r = 0;

	for (int i = 0; !r && i < EXITS; i++)
		r = run_once(m);
	*ns = (double)(io_now_ns() - start) / EXITS;
	return r;
}

static bool looks_emulated(const struct kvm_measure *m)
{
	return m->guest_ns > m->host_ns * EMULATED_RATIO;
}

static int measure(struct machine *m, struct kvm_measure *ret)
{
	int r = make_vm(m);

	if (!r)
		r = make_vcpu(m);
	if (!r)
		r = run_once(m); /* faults its pages in */
	if (!r)
		r = compare(m, SHORT_LOOP, ret);
	/*
	 * In the short loop entry and exit count: 2 us of hardware are 0.2 ns a turn, and a busy
	 * emulated machine takes 0.1 ms, 10 ns. Suspicion is not enough.
	 */
	if (!r && ret->guest_ns < SUSPECT_NS)
		r = compare(m, LONG_LOOP, ret);
	if (!r)
		r = time_exits(m, &ret->exit_ns);
	return r;
}

void kvm_measure(struct kvm_measure *ret)
{
	struct machine m = {.kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), .vm = -1, .vcpu = -1};
	int r;

	*ret = (struct kvm_measure){.verdict = KVM_UNUSABLE};
	if (m.kvm < 0) {
		if (errno == ENOENT || errno == ENODEV || errno == ENXIO)
			ret->verdict = KVM_NONE;
		snprintf(ret->reason, sizeof(ret->reason), "/dev/kvm: %s", strerror(errno));
		return;
	}
	r = measure(&m, ret);
	machine_done(&m);
	if (r)
		snprintf(ret->reason, sizeof(ret->reason), "a test VM failed: %s", strerror(-r));
	else
		ret->verdict = looks_emulated(ret) ? KVM_EMULATED : KVM_HARDWARE;
}

const char *kvm_verdict_name(enum kvm_verdict verdict)
{
	static const char *const names[] = {"none", "unusable", "emulated", "hardware"};

	return names[verdict];
}
