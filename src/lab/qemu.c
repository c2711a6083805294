/* SPDX-License-Identifier: Apache-2.0 */
/* Command lines of a node: QEMU, its kernel. */

#include "lab/qemu.h"

#include <stdio.h>
#include <string.h>

#include "lib/cleanup.h"

/*
 * What emulation does badly is not offered. Without ERMS kernels copy by words, not bytes: eight
 * times faster. XSETBV of a nested guest does not reach KVM: no XSAVE, nor what needs it. And QEMU
 * runs "lock cmpxchg16b" alone, interrupting the other CPUs; one that is in a nested guest after an
 * injected interrupt then gets that interrupt again, also where the guest masks them, which kills
 * it (helper_vmrun leaves exception_index set, QEMU 7.2): no CX16.
 */
#define EMULATED_CPU "max,+svm,-la57,-erms,-fsrm,-cx16,-xsave,-avx,-avx2,-fma,-f16c,-vaes,-mpx,-pku"

#define MIB (1024 * 1024)

char *node_name(unsigned node, char *buf)
{
	snprintf(buf, 16, "node%u", node + 1);
	return buf;
}

char *node_address(unsigned node, char *buf)
{
	snprintf(buf, 16, "10.77.0.%u", (node + 2) & 0xff);
	return buf;
}

static char *node_mac(unsigned node, char *buf)
{
	snprintf(buf, 18, "52:54:00:77:00:%02x", (node + 2) & 0xff);
	return buf;
}

/*
 * Emulated: SVM with nested paging, which is what makes /dev/kvm in the node complete; 5-level
 * paging would only cost walks. With hardware: nested virtualization of what the host has.
 */
static void add_machine(const struct lab_config *c, struct args *a)
{
	args_add(a, "-machine");
	args_add(a, "q35,kernel-irqchip=split");
	args_add(a, "-accel");
	args_add(a, c->kvm ? "kvm" : "tcg,thread=multi");
	args_add(a, "-cpu");
	args_add(a, c->kvm ? "host" : EMULATED_CPU);
	args_add(a, "-smp");
	args_add(a, "%u", c->cpus);
	/* An IOMMU, for VFIO in the node. */
	args_add(a, "-device");
	args_add(a, "intel-iommu,intremap=on,caching-mode=on");
	/* Shared memory, for virtiofsd. Untouched pages take no host memory. */
	args_add(a, "-m");
	args_add(a, "%llu", (unsigned long long)(c->memory / MIB));
	args_add(a, "-object");
	args_add(a, "memory-backend-memfd,id=mem,size=%lluM,share=on",
		 (unsigned long long)(c->memory / MIB));
	args_add(a, "-numa");
	args_add(a, "node,memdev=mem");
}

static void add_fs(const char *tag, unsigned index, struct args *a)
{
	args_add(a, "-chardev");
	args_add(a, "socket,id=fs%u,fd=%u", index, QEMU_FD_FS + index);
	args_add(a, "-device");
	args_add(a, "vhost-user-fs-pci,chardev=fs%u,tag=%s", index, tag);
}

/* A comma ends an option's value in QEMU; two of them stand for one. */
static void extend_escaped(struct args *a, const char *text)
{
	for (; *text; text++)
		args_extend(a, *text == ',' ? ",," : "%c", *text);
}

static void add_disks(const struct lab_config *c, unsigned node, struct args *a)
{
	for (unsigned i = 0; i < c->ndisks; i++) {
		if (c->disks[i].node != node)
			continue;
		args_add(a, "-drive");
		args_add(a, "if=virtio,format=raw,cache=writeback,file=");
		extend_escaped(a, c->disks[i].path);
	}
}

/* An NVMe disk that can make two virtual functions, behind a root port of its own. */
static void add_nvme(const struct lab_config *c, const char *name, struct args *a)
{
	args_add(a, "-device");
	args_add(a, "pcie-root-port,id=rp1,slot=1");
	args_add(a, "-device");
	args_add(a, "nvme-subsys,id=nvme0");
	args_add(a, "-device");
	args_add(a, "nvme,serial=wisp,bus=rp1,subsys=nvme0,sriov_max_vfs=2,sriov_vq_flexible=4,"
		    "sriov_vi_flexible=2,max_ioqpairs=8,msix_qsize=9");
	args_add(a, "-drive");
	args_add(a, "if=none,id=nvmedisk,format=raw,file=");
	extend_escaped(a, c->dir);
	args_extend(a, "/%s.nvme", name);
	args_add(a, "-device");
	args_add(a, "nvme-ns,drive=nvmedisk");
}

char *node_cmdline(const struct lab_config *c, unsigned node)
{
	char name[16], address[16], mac[18];
	struct args line = {0};

	args_add(&line,
		 "console=ttyS0 panic=-1 quiet mitigations=off intel_iommu=on "
		 "wisp.root=virtiofs:hostroot wisp.name=%s wisp.net=%s,%s/%d "
		 "wisp.listen=tcp:%s:%d,from=" LAB_BRIDGE_ADDRESS,
		 node_name(node, name), node_mac(node, mac), node_address(node, address),
		 LAB_PREFIX, address, LAB_AGENT_PORT);
	/*
	 * A busy machine delivers an emulated timer late. The kernel then takes it for broken and
	 * panics, or gets the frequency of the TSC wrong; both know better here. The TSC is that of
	 * this machine and the same on all CPUs, which makes it the clock of the node and of its
	 * KVM. A timer interrupt that the emulation loses (docs/design/lab.md) must not be the
	 * last one: a periodic timer comes again by itself.
	 */
	if (!c->kvm)
		args_extend(&line,
			    " no_timer_check tsc=reliable tsc_early_khz=%u cryptomgr.notests"
			    " highres=off nohz=off",
			    c->tsc_khz);
	if (c->hugepages)
		args_extend(&line, " hugepages=%u", c->hugepages);
	for (unsigned i = 0; i < c->nodes; i++)
		args_extend(&line, "%s%s=%s", i ? "," : " wisp.hosts=", node_name(i, name),
			    node_address(i, address));
	if (line.failed) {
		args_done(&line);
		return NULL;
	}
	free(line.v[1]);
	char *text = line.v[0];
	free(line.v);
	return text;
}

void qemu_args(const struct lab_config *c, unsigned node, struct args *a)
{
	CLEANUP_FREE char *cmdline = node_cmdline(c, node);
	char name[16], mac[18];

	node_name(node, name);
	args_add(a, "qemu-system-x86_64");
	args_add(a, "-name");
	args_add(a, "%s", name);
	add_machine(c, a);
	args_add(a, "-nodefaults");
	args_add(a, "-display");
	args_add(a, "none");
	args_add(a, "-no-reboot");
	args_add(a, "-serial");
	args_add(a, "file:%s/%s.console", c->dir, name);
	args_add(a, "-kernel");
	args_add(a, "%s", c->kernel);
	args_add(a, "-initrd");
	args_add(a, "%s/initrd", c->dir);
	args_add(a, "-append");
	args_add(a, "%s", cmdline ? cmdline : "");
	args_add(a, "-netdev");
	args_add(a, "tap,id=net0,fd=%d,vhost=off", QEMU_FD_TAP);
	args_add(a, "-device");
	args_add(a, "virtio-net-pci,netdev=net0,romfile=,mac=%s", node_mac(node, mac));
	args_add(a, "-device");
	args_add(a, "virtio-rng-pci");
	add_fs("hostroot", 0, a);
	for (unsigned i = 0; i < c->nshares; i++) {
		char tag[16];

		snprintf(tag, sizeof(tag), "share%u", i);
		add_fs(tag, i + 1, a);
	}
	add_disks(c, node, a);
	if (c->nvme)
		add_nvme(c, name, a);
	a->failed |= !cmdline;
}
