/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_COMMANDS_H
#define WISP_MOVER_COMMANDS_H

#include "lib/command.h"

/* Commands of wisp-mover that are not in main.c. */
extern const struct command command_send, command_receive;

#endif
