/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_TELL_H
#define WISP_MOVER_TELL_H

/* What a checkpoint or a restore took, from its report, for people. */

#include <jansson.h>

/* A few lines on standard output. */
void tell_checkpoint(const json_t *report);
void tell_restore(const json_t *report);

/* On standard error, what whoever made the checkpoint or restores it ought to know. */
void tell_warnings(const json_t *report);

#endif
