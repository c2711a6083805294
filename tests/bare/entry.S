/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the bare guest starts: by the 64-bit boot protocol, zero page in rsi. As little as possible
 * is done in ring 0, because a KVM without VT-x or SVM below it emulates that instruction by
 * instruction; everything else runs in ring 3 with I/O privilege. With a '!' in front of its command
 * line it only halts.
 */
	.set	CMD_LINE_PTR, 0x228	/* of the zero page */
	.set	USER_CODE, 0x20 | 3
	.set	USER_DATA, 0x18 | 3
	.set	FLAGS, 0x3002		/* IOPL 3, interrupts off */

	.section .text.entry, "ax"
	.globl	entry
entry:
	movl	CMD_LINE_PTR(%rsi), %eax
	cmpb	$'!', (%rax)
	je	idle
	lgdt	gdt_pointer(%rip)
	movq	$pml4, %rax
	movq	%rax, %cr3
	pushq	$USER_DATA
	pushq	$stack_end
	pushq	$FLAGS
	pushq	$USER_CODE
	pushq	$user
	iretq
user:
	movl	$USER_DATA, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movq	%rsi, %rdi
	xorl	%ebp, %ebp
	call	guest_main
1:	pause
	jmp	1b

idle:	hlt
	jmp	idle

	.data
	.balign	8
gdt:	.quad	0, 0, 0
	.quad	0x00cff3000000ffff	/* flat data, DPL 3 */
	.quad	0x00affb000000ffff	/* 64-bit code, DPL 3 */
gdt_pointer:
	.word	. - gdt - 1
	.quad	gdt

/* Identity map of the first 16 GiB by 2 MiB pages: present, writable, for ring 3. */
	.balign	4096
	.globl	pml4
pml4:	.quad	pdpt + 7
	.fill	511, 8, 0
pdpt:
	.set	i, 0
	.rept	16
	.quad	directories + i * 4096 + 7
	.set	i, i + 1
	.endr
	.fill	512 - 16, 8, 0
directories:
	.set	i, 0
	.rept	16 * 512
	.quad	i * 0x200000 + 0x87
	.set	i, i + 1
	.endr

	.bss
	.balign	16
	.skip	16384
	.globl	stack_end
stack_end:

	.section .note.GNU-stack, "", @progbits
