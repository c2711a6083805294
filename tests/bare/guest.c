/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest without a kernel, for tests of the machine itself: it does what the words of its command
 * line say, one after the other, and tells about it on the serial port.
 *
 *     say=TEXT      prints TEXT and a newline
 *     e820          prints the memory map
 *     initrd        prints place, size and sum of the initrd's bytes
 *     fill=STEP     writes a word to all RAM behind the guest, one each STEP bytes
 *     verify=STEP   checks the words, prints how many there are
 *     dirty=MIB     writes to each page of that much RAM again and again, a '.' each round
 *     watch=MIB     as dirty, without the '.'; at 16 MiB it keeps how many pages it wrote, the TSC
 *                   now, and the most TSC ticks between two pages (0 it to begin anew);
 *                   watch=MIB,TICKS: at most a page every so many ticks
 *     work=STEP     counts in a word of all RAM behind the guest, one each STEP bytes, for ever: a
 *                   '.' each round, "lost" and a panic when a word is not what it was
 *     echo          prints what is typed, up to a 'q'
 *     open-bus      reads addresses that nobody has
 *     spin=N        computes for N million turns; without N for ever
 *     off, reset, panic, triple   ends the machine in that way
 */

#include <asm/bootparam.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SERIAL 0x3f8
#define SERIAL_STATUS (SERIAL + 5)
#define PORT_POWER_OFF 0x600
#define PORT_RESET 0x602
#define PORT_PANIC 0x604
#define POWER_OFF_S5 0x34
#define PAGE 4096
#define WATCH 0x1000000ull
#define E820_RAM 1

extern uint8_t guest_end[];
void guest_main(const struct boot_params *bp);

static void out8(uint16_t port, uint8_t value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static uint8_t in8(uint16_t port)
{
	uint8_t value;

	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static uint32_t in32(uint16_t port)
{
	uint32_t value;

	__asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static void print(const char *text, size_t n)
{
	while (n--)
		out8(SERIAL, (uint8_t)*text++);
}

#define PRINT(literal) print(literal, sizeof(literal) - 1)

static void print_hex(uint64_t value)
{
	for (int shift = 60; shift >= 0; shift -= 4)
		if (value >> shift || !shift)
			out8(SERIAL, (uint8_t) "0123456789abcdef"[value >> shift & 15]);
}

static void print_e820(const struct boot_params *bp)
{
	for (unsigned i = 0; i < bp->e820_entries; i++) {
		const struct boot_e820_entry *e = &bp->e820_table[i];

		PRINT("e820 ");
		print_hex(e->addr);
		PRINT(" ");
		print_hex(e->addr + e->size);
		print(e->type == E820_RAM ? " ram\n" : " res\n", 5);
	}
}

static void print_initrd(const struct boot_params *bp)
{
	const uint8_t *p = (const uint8_t *)(uintptr_t)bp->hdr.ramdisk_image;
	uint64_t sum = 0;

	for (uint32_t i = 0; i < bp->hdr.ramdisk_size; i++)
		sum += p[i];
	PRINT("initrd ");
	print_hex(bp->hdr.ramdisk_image);
	PRINT(" ");
	print_hex(bp->hdr.ramdisk_size);
	PRINT(" ");
	print_hex(sum);
	PRINT("\n");
}

static uint64_t pattern(uint64_t gpa)
{
	return (gpa ^ 0x5a5a5a5a5a5a5a5a) * 0x9e3779b97f4a7c15;
}

enum use { FILL, VERIFY, COUNT };

/* Fills, verifies or adds one; the last word of each region is always among them. Number of words.
 */
static uint64_t each_word(const struct boot_params *bp, uint64_t step, enum use use, uint64_t round,
			  uint64_t *bad)
{
	uint64_t words = 0;

	for (unsigned i = 0; i < bp->e820_entries; i++) {
		const struct boot_e820_entry *e = &bp->e820_table[i];
		uint64_t gpa = e->addr, end = e->addr + e->size;

		if (e->type != E820_RAM || end <= (uintptr_t)guest_end)
			continue;
		if (gpa < (uintptr_t)guest_end)
			gpa = ((uintptr_t)guest_end + PAGE - 1) & ~(uint64_t)(PAGE - 1);
		for (; gpa < end; words++) {
			volatile uint64_t *p = (volatile uint64_t *)(uintptr_t)gpa;

			if (use != FILL)
				*bad += *p != pattern(gpa) + round;
			if (use != VERIFY)
				*p = pattern(gpa) + round + (use == COUNT);
			gpa = gpa < end - 8 && gpa + step >= end ? end - 8 : gpa + step;
		}
	}
	return words;
}

static void use_memory(const struct boot_params *bp, uint64_t step, bool fill)
{
	uint64_t bad = 0;
	uint64_t words = each_word(bp, step ? step : PAGE, fill ? FILL : VERIFY, 0, &bad);

	if (fill)
		PRINT("filled ");
	else
		PRINT("verified ");
	print_hex(words);
	PRINT(" bad ");
	print_hex(bad);
	PRINT("\n");
}

_Noreturn static void end_by(uint16_t port, uint8_t value);

_Noreturn static void work(const struct boot_params *bp, uint64_t step)
{
	uint64_t bad = 0;

	each_word(bp, step, FILL, 0, &bad);
	for (uint64_t round = 0;; round++) {
		each_word(bp, step, COUNT, round, &bad);
		if (bad) {
			PRINT("lost ");
			print_hex(bad);
			PRINT("\n");
			end_by(PORT_PANIC, 1);
		}
		PRINT(".");
	}
}

_Noreturn static void dirty_memory(uint64_t mib)
{
	volatile uint8_t *start = (volatile uint8_t *)WATCH;

	for (uint64_t round = 0;; round++) {
		for (uint64_t at = 0; at < mib << 20; at += PAGE)
			*(volatile uint64_t *)(start + at) = round;
		PRINT(".");
	}
}

static uint64_t tsc(void)
{
	uint32_t low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
	return (uint64_t)high << 32 | low;
}

_Noreturn static void watch(uint64_t mib, uint64_t ticks)
{
	volatile struct {
		uint64_t written, now, longest;
	} *const found = (void *)WATCH;
	uint64_t end = WATCH + (mib << 20), before = tsc(), next = before;

	found->written = found->longest = 0;
	for (;;)
		for (uint64_t at = WATCH + PAGE; at < end; at += PAGE) {
			uint64_t now = tsc();

			for (next += ticks; ticks && now < next; now = tsc())
				__asm__ volatile("pause");
			*(volatile uint64_t *)at = now;
			found->written++;
			found->now = now;
			if (now - before > found->longest)
				found->longest = now - before;
			before = now;
		}
}

static void echo(void)
{
	uint8_t byte = 0;

	PRINT("echo\n");
	while (byte != 'q') {
		if (!(in8(SERIAL_STATUS) & 1))
			continue;
		byte = in8(SERIAL);
		out8(SERIAL, byte);
	}
	PRINT("\n");
}

static void read_open_bus(void)
{
	PRINT("open ");
	print_hex(in32(0x8000));
	PRINT(" ");
	print_hex(*(volatile uint32_t *)(uintptr_t)0xdffff000);
	PRINT("\n");
}

static void spin(uint64_t millions)
{
	for (uint64_t n = millions * 1000000; !millions || n; n--)
		__asm__ volatile("");
	PRINT("spun\n");
}

_Noreturn static void end_by(uint16_t port, uint8_t value)
{
	out8(port, value);
	for (;;)
		__asm__ volatile("pause");
}

/* The text behind "name=" or "name" if that is the word, else NULL. */
static const char *value_of(const char *word, const char *end, const char *name)
{
	while (*name && word < end && *word == *name) {
		word++;
		name++;
	}
	if (*name || (word < end && *word != '='))
		return NULL;
	return word < end ? word + 1 : end;
}

/* A decimal number, or hexadecimal with 0x. */
static uint64_t number(const char *p, const char *end)
{
	uint64_t base = 10, n = 0;

	if (end - p > 2 && p[1] == 'x') {
		base = 16;
		p += 2;
	}
	for (; p < end; p++)
		n = n * base + (uint64_t)(*p <= '9' ? *p - '0' : *p - 'a' + 10);
	return n;
}

static const char *comma(const char *p, const char *end)
{
	while (p < end && *p != ',')
		p++;
	return p;
}

static void do_word(const struct boot_params *bp, const char *word, const char *end)
{
	const char *v;

	if ((v = value_of(word, end, "say"))) {
		print(v, (size_t)(end - v));
		PRINT("\n");
	} else if (value_of(word, end, "e820")) {
		print_e820(bp);
	} else if (value_of(word, end, "initrd")) {
		print_initrd(bp);
	} else if ((v = value_of(word, end, "fill"))) {
		use_memory(bp, number(v, end), true);
	} else if ((v = value_of(word, end, "verify"))) {
		use_memory(bp, number(v, end), false);
	} else if ((v = value_of(word, end, "dirty"))) {
		dirty_memory(number(v, end));
	} else if ((v = value_of(word, end, "watch"))) {
		watch(number(v, comma(v, end)), number(comma(v, end) + 1, end));
	} else if ((v = value_of(word, end, "work"))) {
		work(bp, number(v, end));
	} else if (value_of(word, end, "echo")) {
		echo();
	} else if (value_of(word, end, "open-bus")) {
		read_open_bus();
	} else if ((v = value_of(word, end, "spin"))) {
		spin(number(v, end));
	} else if (value_of(word, end, "off")) {
		end_by(PORT_POWER_OFF, POWER_OFF_S5);
	} else if (value_of(word, end, "reset")) {
		end_by(PORT_RESET, 1);
	} else if (value_of(word, end, "panic") == end) { /* panic=SECONDS is for Linux */
		end_by(PORT_PANIC, 1);
	} else if (value_of(word, end, "triple")) {
		__asm__ volatile("ud2"); /* there is no IDT */
	} else {
		PRINT("what is ");
		print(word, (size_t)(end - word));
		PRINT("?\n");
	}
}

void guest_main(const struct boot_params *bp)
{
	const char *p = (const char *)(uintptr_t)bp->hdr.cmd_line_ptr;

	while (*p) {
		const char *end = p;

		while (*end && *end != ' ')
			end++;
		if (end > p)
			do_word(bp, p, end);
		p = *end ? end + 1 : end;
	}
}
