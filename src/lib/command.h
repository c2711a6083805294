/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_LIB_COMMAND_H
#define WISP_LIB_COMMAND_H

/*
 * One table describes a program's commands and their options; parsing, --help, the shell
 * completion and the OPTIONS sections of the man pages all come from it. Options are long
 * ("--name VALUE" or "--name=VALUE"), some with a letter; "--" ends them; for commands
 * that run another program they end at the first word that is not one.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct error;

/* What the shell completes behind an option or as positional argument. */
enum complete {
	COMPLETE_NONE,
	COMPLETE_FILE,
	COMPLETE_DIR,
	COMPLETE_IMAGE,	  /* `wisp image list --names` */
	COMPLETE_VM,	  /* `wisp vm list --names` */
	COMPLETE_NODE,	  /* `wisp lab status --names` */
	COMPLETE_FIELD,	  /* `wisp env fields --names` */
	COMPLETE_CLUSTER, /* `wisp cluster list --names` */
};

struct option_desc {
	int id;		  /* returned by option_next(); > 0, unique in its table */
	const char *name; /* without the dashes */
	char letter;	  /* short form or 0 */
	const char *arg;  /* placeholder of the value ("SIZE"), NULL for a flag */
	const char *help; /* one sentence without the full stop; names the default */
	enum complete complete;
};

struct command {
	const char *name;		   /* "lab up": the words that choose it */
	const char *args;		   /* synopsis of the positional arguments, "" when none */
	const char *summary;		   /* one line */
	const char *details;		   /* further paragraphs for --help and man, or NULL */
	const struct option_desc *options; /* ends with {0}; NULL when none */
	bool stops_at_args;		   /* options end at the first positional argument */
	enum complete complete;
	/*
	 * argv holds what is behind the command's words. Returns the exit code of the program.
	 */
	int (*run)(const struct command *cmd, int argc, char **argv);
};

struct option_parser {
	const struct command *cmd;
	int argc; /* after the last option_next(): the positional arguments */
	char **argv;
	int pos; /* private from here */
	char *letters;
	bool ended;
	int nargs;
};

/* Starts parsing. argv is reordered: positional arguments end up in parser->argv. */
void option_start(struct option_parser *parser, const struct command *cmd, int argc, char **argv);

/*
 * The next option's id with its value in *value (NULL for flags), 0 at the end, -EINVAL for
 * an unknown option, a missing or an unwanted value (err says which). --help is answered
 * here: OPTION_HELP is returned after the help was printed to standard output.
 */
#define OPTION_HELP 0x10000
int option_next(struct option_parser *parser, const char **value, struct error *err);

/* Takes an option for arg: 0 or -errno. */
typedef int option_set_fn(void *arg, int id, const char *value, struct error *err);

/* All options to set, up to the first that it does not take. 0, OPTION_HELP or -errno. */
int option_each(struct option_parser *parser, option_set_fn *set, void *arg, struct error *err);

/* Finds the command that the words of argv name; *used is the number of words. Or NULL. */
const struct command *command_find(const struct command *const *table, int argc, char **argv,
				   int *used);

/* Help of one command ("program" is the name it is called by), and the list of all. */
void command_help(FILE *out, const char *program, const struct command *cmd);
void command_list(FILE *out, const char *program, const struct command *const *table,
		  const char *prefix);

/* Writes a bash completion script, and the scdoc OPTIONS text, for the table. */
void command_completion(FILE *out, const char *program, const struct command *const *table);
void command_man_text(FILE *out, const char *text); /* escapes scdoc's marks */
void command_man(FILE *out, const char *program, const struct command *const *table);

#endif
