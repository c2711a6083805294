/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_CLI_VM_LAUNCH_H
#define WISP_CLI_VM_LAUNCH_H

/*
 * wisp at another node: started by a launcher (ssh, or another program that runs commands there),
 * and talked to by JSON lines on its standard input and output (docs/formats/receive.md). What it
 * says on standard error is seen by the user.
 */

#include <jansson.h>
#include <sys/types.h>

#include "lib/jsonline.h"

struct error;

struct launch {
	const char *node;
	pid_t pid;
	int fd;
	struct jsonline line;
};

/*
 * Runs "LAUNCHER NODE WISP vm receive --arranged"; the launcher is words, and "%n" in them is
 * replaced by the node instead of it being added. wisp: its path there; NULL: that of this program.
 */
int launch_start(const char *launcher, const char *node, const char *wisp, struct launch *ret,
		 struct error *err);

int launch_send(struct launch *launch, const json_t *message, struct error *err);

/*
 * The other side's next answer, when it says "ok"; its error else. -ECANCELED when the user
 * interrupts us. *ret is a new reference.
 */
int launch_receive(struct launch *launch, json_t **ret, struct error *err);

/* Ends the conversation, at which the other side gives up what is not done, and waits for it. */
void launch_end(struct launch *launch);

/* For both sides: waits for a line on the descriptor. -EPIPE: the other side has ended. */
int launch_read(struct jsonline *line, int fd, json_t **ret, struct error *err);

#endif
