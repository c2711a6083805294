/* SPDX-License-Identifier: Apache-2.0 */
/* wisp: finds the command in the table and runs it. */

#include <stdio.h>
#include <string.h>

#include "cli/commands.h"
#include "build-config.h"
#include "lib/io.h"

int main(int argc, char **argv)
{
	const struct command *cmd;
	int used;

	io_open_standard_fds();
	if (argc > 1 && !strcmp(argv[1], "--version")) {
		printf("wisp %s\n", WISP_VERSION);
		return 0;
	}
	cmd = command_find(wisp_commands, argc - 1, argv + 1, &used);
	if (cmd) {
		if (argc > 1 + used &&
		    (!strcmp(argv[1 + used], "--help") || !strcmp(argv[1 + used], "-h"))) {
			command_help(stdout, "wisp", cmd);
			return 0;
		}
		return cmd->run(cmd, argc - 1 - used, argv + 1 + used);
	}
	if (argc < 2 || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
		command_list(argc < 2 ? stderr : stdout, "wisp", wisp_commands, "");
		return argc < 2 ? EXIT_USAGE : 0;
	}
	fprintf(stderr, "wisp: no command \"%s%s%s\" (wisp --help lists them)\n", argv[1],
		argc > 2 ? " " : "", argc > 2 ? argv[2] : "");
	return EXIT_USAGE;
}
