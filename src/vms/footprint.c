/* SPDX-License-Identifier: Apache-2.0 */
/* Adds up the mappings of a wisp-vmm. */

#include "vms/footprint.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "vmm/ram-file.h"

#define SMAPS_MAX (16u << 20)

/* A mapping's first line begins with its address, the others with "Name:". */
static bool is_mapping(const char *line)
{
	return isxdigit((unsigned char)*line) && strchr(line, '-') &&
	       (!strchr(line, ':') || strchr(line, '-') < strchr(line, ':'));
}

void footprint_parse(char *smaps, struct footprint *ret)
{
	struct footprint f = {0};
	bool guest = false;
	char *rest = smaps, *line;

	while ((line = strsep(&rest, "\n"))) {
		unsigned long long kib;

		if (is_mapping(line)) {
			guest = strstr(line, RAM_FILE_NAME " (deleted)");
		} else if (sscanf(line, "Rss: %llu kB", &kib) == 1 ||
			   sscanf(line, "Shared_Hugetlb: %llu kB", &kib) == 1 ||
			   sscanf(line, "Private_Hugetlb: %llu kB", &kib) == 1) {
			*(guest ? &f.guest : &f.file) += kib << 10;
		} else if (!guest && sscanf(line, "Anonymous: %llu kB", &kib) == 1) {
			f.anonymous += kib << 10;
			f.file -= kib << 10; /* part of Rss above */
		}
	}
	*ret = f;
}

int footprint_read(pid_t pid, struct footprint *ret, struct error *err)
{
	CLEANUP_FREE char *path = io_format("/proc/%d/smaps", pid);
	CLEANUP_FREE char *text = NULL;
	ssize_t n = path ? io_read_file(path, SMAPS_MAX, &text, err) : -ENOMEM;

	if (n < 0)
		return (int)n;
	footprint_parse(text, ret);
	return 0;
}
