/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_NET_STATE_H
#define WISP_NET_STATE_H

/*
 * The state directory of a running thing: everything it leaves in the file system is in
 * there, and the file "lock" in it is locked (F_OFD_SETLK) exactly as long as it lives. What
 * crashed leaves an unlocked directory, which the next start or stop sweeps away.
 */

#include <stdbool.h>

struct error;

/*
 * Makes the directory or takes over what a dead owner left, emptied, and locks it. Returns 0
 * and the lock's descriptor (close it to unlock), or -EBUSY when its owner still lives after
 * 200 ms (who removes it is done by then), or -errno.
 */
int state_lock(const char *dir, int *ret, struct error *err);

/* Is there a directory with a living owner? */
bool state_alive(const char *dir);

/*
 * Removes a directory that the caller has locked, the lock file last: who starts anew meanwhile
 * keeps what is new. The descriptor of the lock stays with the caller.
 */
int state_remove(const char *dir, struct error *err);

/*
 * Removes what a dead owner left. Returns 1 when there was something, 0 when nothing, -EBUSY
 * when the owner lives, or -errno.
 */
int state_sweep(const char *dir, struct error *err);

/*
 * The names in a folder of state directories, dead or alive, sorted: a new array ending with NULL,
 * to be freed with state_list_free(). 0 or -errno.
 */
int state_list(const char *folder, char ***ret, struct error *err);
void state_list_free(char **names);

#endif
