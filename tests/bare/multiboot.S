/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The way into the bare guest for other hypervisors: the Multiboot specification, version 0.6.96,
 * which QEMU's -kernel knows. From 32-bit mode into the 64-bit boot protocol of entry.S.
 */
	.set	MAGIC, 0x1badb002
	.set	WANTS, 0x00010002	/* memory map; addresses below */
	.set	CODE64, 0x08
	.set	DATA, 0x10

	.section .text.multiboot, "ax"
	.balign	4
header:	.long	MAGIC, WANTS, -(MAGIC + WANTS)
	.long	header, header, data_end, guest_end, multiboot

	.code32
	.globl	multiboot
multiboot:
	movl	%ebx, %esi
	movl	$pml4, %eax
	movl	%eax, %cr3
	movl	$0x620, %eax		/* PAE, OSFXSR, OSXMMEXCPT */
	movl	%eax, %cr4
	movl	$0xc0000080, %ecx	/* EFER.LME */
	rdmsr
	orl	$0x100, %eax
	wrmsr
	movl	$0x80000033, %eax	/* PG, NE, ET, MP, PE */
	movl	%eax, %cr0
	lgdt	way_pointer
	ljmp	$CODE64, $long_mode

	.code64
long_mode:
	movl	$DATA, %eax
	movl	%eax, %ss
	movl	%eax, %ds
	movl	%eax, %es
	movl	$stack_end, %esp
	movl	%esi, %edi
	call	multiboot_params
	movq	%rax, %rsi
	jmp	entry

	.data
	.balign	8
way:	.quad	0
	.quad	0x00af9b000000ffff	/* 64-bit code */
	.quad	0x00cf93000000ffff	/* flat data */
way_pointer:
	.word	. - way - 1
	.long	way

	.section .note.GNU-stack, "", @progbits
