/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_OUTCOME_H
#define WISP_MOVER_OUTCOME_H

/* What a migration came to, said to people and programs. */

#include "mover/migrate.h"

struct error;

/* On standard error, a line each; NULL: there are none. */
void outcome_obstacles(const json_t *obstacles);

/* On standard output: all that is known, whatever came of it (rc, and err when that is negative).
 */
void outcome_json(int rc, const struct migrate_result *result, const struct error *err);

/* On standard output, a line about a VM that has moved; nothing about one that has not. */
void outcome_text(const struct migrate_result *result);

#endif
