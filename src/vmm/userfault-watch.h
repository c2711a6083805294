/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_USERFAULT_WATCH_H
#define WISP_VMM_USERFAULT_WATCH_H

/* The watch on who brings guest memory that is missing (docs/formats/control.md). */

struct error;
struct userfault_watch;
struct vm;

#define EXIT_MEMORY_LOST 14

/*
 * From now on the process ends with EXIT_MEMORY_LOST, without running the guest another
 * instruction, when connection (stays the caller's) is hung up: at once, or, with hold_ms, when
 * nobody has taken uffd (stays the caller's, outlives the watch) over within that time, at the
 * socket CONTROL.faults. Event thread.
 */
int userfault_watch_start(struct vm *vm, int uffd, int connection, unsigned hold_ms,
			  struct userfault_watch **ret, struct error *err);

/* All memory is there. Accepts NULL. */
void userfault_watch_stop(struct userfault_watch *w);

#endif
