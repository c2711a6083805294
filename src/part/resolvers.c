/* SPDX-License-Identifier: Apache-2.0 */
/* Name servers in resolv.conf(5). */

#include "part/resolvers.h"

#include <arpa/inet.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/io.h"

#define MOST 3 /* resolvers ask no more */
#define FILE_MAX 65536

/* One that listens on the loopback device is this machine's alone. */
static bool is_of_use(const char *text)
{
	struct in_addr in;

	return inet_pton(AF_INET, text, &in) == 1 && ntohl(in.s_addr) >> 24 != 127 && in.s_addr;
}

char *resolvers_parse(const char *text)
{
	CLEANUP_FREE char *copy = strdup(text);
	char all[MOST * 16 + 1] = "", *rest = copy, *line;
	unsigned n = 0;

	while (n < MOST && (line = strsep(&rest, "\n"))) {
		char word[16], server[64];

		if (sscanf(line, " %15s %63s", word, server) == 2 && !strcmp(word, "nameserver") &&
		    is_of_use(server)) {
			strcat(all, n++ ? "," : "");
			strcat(all, server);
		}
	}
	return n ? strdup(all) : NULL;
}

/* systemd-resolved has those that it asks itself in a file of its own. */
char *resolvers_read(void)
{
	static const char *const files[] = {"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"};
	char *found = NULL;

	for (unsigned i = 0; !found && i < ARRAY_SIZE(files); i++) {
		CLEANUP_FREE char *text = NULL;

		if (io_read_file(files[i], FILE_MAX, &text, NULL) > 0)
			found = resolvers_parse(text);
	}
	return found;
}
