/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_DOCTOR_PROBE_H
#define WISP_DOCTOR_PROBE_H

/*
 * What this machine can do, one fact a row: found out, not guessed. `wisp doctor` prints all
 * rows; other commands ask for the one they need. Probes change nothing on the machine.
 */

#include <stddef.h>
#include <stdint.h>

#include "doctor/kvm.h"

enum probe_state {
	PROBE_OK,
	PROBE_LESS, /* works, but not with everything: see missing and fallback */
	PROBE_MISSING,
};

/* Where probes look. */
struct probe_context {
	const char *root; /* before /sys, /proc, /dev...: "" or a made-up tree */
	const struct kvm_measure *kvm;
};

struct probe_result {
	enum probe_state state;
	char value[256];   /* what there is */
	char missing[256]; /* what there is not and why; "" when all is there */
	char fix[256];	   /* instead of the row's; "" otherwise */
};

struct probe {
	const char *name;  /* one word: "kvm" */
	const char *title; /* "Hardware virtualization" */
	void (*run)(const struct probe_context *context, struct probe_result *ret);
	const char *fallback; /* what Wisp does without */
	const char *fix;      /* the command that helps */
};

/* The rows, ended by one without a name. */
extern const struct probe probes[];

/* The row of that name; NULL when there is none. */
const struct probe *probe_find(const char *name);

/* Runs a probe; ret is filled whole, and fix is that of the row unless the probe set one. */
void probe_run(const struct probe *probe, const struct probe_context *context,
	       struct probe_result *ret);

const char *probe_state_name(enum probe_state state);

/*
 * The verdict on KVM alone. reason (of size bytes; size may be 0) gets a sentence for people who
 * wanted to start a Linux guest, with what to do instead; "" when the verdict is good.
 */
enum kvm_verdict probe_kvm(char *reason, size_t size);

/* MemAvailable of root/proc/meminfo in bytes, 0 when unknown. */
uint64_t probe_available_memory(const char *root);

#endif
