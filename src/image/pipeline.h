/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_IMAGE_PIPELINE_H
#define WISP_IMAGE_PIPELINE_H

/*
 * Runs "from | to" and watches both: what they say goes into a log file and, line by line,
 * to progress; when the user interrupts us, or one fails, both are ended.
 */

struct error;
struct progress;

/*
 * Commands end with NULL; name is what errors call the first. 0, -EINTR, or -ECHILD with the first
 * line the programs said that begins with "E:". The log file is created.
 */
int pipeline_run(const char *name, const char *const *from, const char *const *to, const char *log,
		 struct progress *progress, struct error *err);

#endif
