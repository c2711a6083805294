/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_ENV_ABLE_H
#define WISP_ENV_ABLE_H

/* What an environment may say and this Wisp cannot do. Any thread. */

#include <jansson.h>

struct error;

/* environment: a closed one. -EOPNOTSUPP names the field, and what is there instead. */
int env_able(const json_t *environment, struct error *err);

#endif
