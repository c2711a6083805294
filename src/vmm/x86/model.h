/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_MODEL_H
#define WISP_VMM_MODEL_H

/*
 * CPU models: feature masks that make unlike machines look alike to a guest, so that it can
 * move between them. "host" masks nothing; x86-64-v2, -v3 and -v4 are the levels of the x86-64
 * psABI, plus what a kernel alone uses; a file has lines "LEAF SUBLEAF REGISTER MASK"
 * (0x7 0 ebx 0x200, # comments), registers that no line names stay as they are.
 */

struct cpuid;
struct error;

#define MODEL_HELP "host, x86-64-v2, x86-64-v3, x86-64-v4 or a mask file"

/* Reduces cpuid to the model. -EINVAL with file and line for a bad file or name. */
int model_apply(struct cpuid *cpuid, const char *model, struct error *err);

/* Applies the lines of a mask file; path is for errors alone. */
int model_apply_text(struct cpuid *cpuid, const char *path, const char *text, struct error *err);

#endif
