/* SPDX-License-Identifier: Apache-2.0 */
/* wisp: finds the command in the table and runs it. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/commands.h"
#include "build-config.h"
#include "lib/error.h"
#include "lib/io.h"

static bool is_help(const char *word)
{
	return !strcmp(word, "--help") || !strcmp(word, "-h");
}

/* The first words of commands that belong together, "vm " for "vm"; "" for another word. */
static void group_of(const char *word, char *ret, size_t size)
{
	int n = snprintf(ret, size, "%s ", word);

	for (const struct command *const *c = wisp_commands; *c; c++)
		if (n > 0 && (size_t)n < size && !strncmp((*c)->name, ret, (size_t)n))
			return;
	ret[0] = 0;
}

/* No command has these words: all are listed, or those of the group, or it is said where. */
static int explain(int argc, char **argv)
{
	char group[32] = "";
	bool whole;

	if (argc > 1)
		group_of(argv[1], group, sizeof(group));
	whole = argc == (*group ? 2 : 1);
	if (whole || is_help(argv[*group ? 2 : 1])) {
		command_list(whole ? stderr : stdout, "wisp", wisp_commands, group);
		return whole ? EXIT_USAGE : 0;
	}
	fprintf(stderr, "wisp: no command \"%s%s\" (wisp %s--help lists them)\n", group,
		argv[*group ? 2 : 1], group);
	return EXIT_USAGE;
}

/* Whoever keeps what was printed has to know that it is not all there: the disk was full, say. */
static int check_output(const struct command *cmd, int code)
{
	struct error err;

	errno = 0;
	if (!fflush(stdout) && !ferror(stdout))
		return code;
	if (errno)
		error_errno(&err, -errno, "cannot write to standard output");
	else
		error_set(&err, -EIO, "not all could be written to standard output");
	return cli_fail(cmd, code ? code : EXIT_FAILURE, &err);
}

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
	if (!cmd)
		return explain(argc, argv);
	if (argc > 1 + used && is_help(argv[1 + used])) {
		command_help(stdout, "wisp", cmd);
		return 0;
	}
	return check_output(cmd, cmd->run(cmd, argc - 1 - used, argv + 1 + used));
}
