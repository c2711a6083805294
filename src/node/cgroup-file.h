/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_NODE_CGROUP_FILE_H
#define WISP_NODE_CGROUP_FILE_H

/* The files of a control group. For cgroup*.c alone. */

#include <stdint.h>
#include <sys/types.h>

struct error;

/* BASE/wisp.slice[/job-JOB[/PART]], a new string. -EINVAL: bad names. */
int cgroup_path(const char *base, const char *job, const char *part, char **ret, struct error *err);

/* Writes one value at once, as the kernel wants it. Without the file: -EOPNOTSUPP. */
int cgroup_write(const char *dir, const char *file, const char *value, struct error *err);

/* The whole file, a new string; NULL when it cannot be read. */
char *cgroup_read(const char *dir, const char *file);

/* The number behind a word at the beginning of a line ("usage_usec 12"); 0: it is not there. */
uint64_t cgroup_value(const char *text, const char *word);

#endif
