/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_LAB_FRESH_H
#define WISP_LAB_FRESH_H

/*
 * A node remembers the files of this machine that it has seen, and would not notice that they
 * change: asking each time makes everything in it ten times slower. So before a program is run we
 * look whether what it will use has changed, and make the node forget all it remembers if so.
 */

#include <stdbool.h>

struct error;

/* Notes that the node has seen nothing older than now. dir: the lab's state directory. */
int fresh_mark(const char *dir, const char *node, struct error *err);

/*
 * Has the program, a file among its arguments (relative to cwd), one of our own programs or the
 * folder of images changed since the mark?
 */
bool fresh_stale(const char *dir, const char *node, const char *cwd, const char *const *argv);

#endif
