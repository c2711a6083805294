/* SPDX-License-Identifier: Apache-2.0 */
/* The command table: option parsing, help, completion and man text from one description. */

#include "lib/command.h"

#include <errno.h>
#include <string.h>

#include "lib/error.h"

static const struct option_desc help_option = {
	.id = OPTION_HELP, .name = "help", .letter = 'h', .help = "Print this help"};

/* Calls are cheap: tables have a few dozen rows. i counts from 0; --help comes last. */
static const struct option_desc *option_at(const struct command *cmd, unsigned i)
{
	for (const struct option_desc *o = cmd->options; o && o->id; o++)
		if (!i--)
			return o;
	return i ? NULL : &help_option;
}

static const struct option_desc *find_long(const struct command *cmd, const char *name, size_t len)
{
	const struct option_desc *o;

	for (unsigned i = 0; (o = option_at(cmd, i)); i++)
		if (strlen(o->name) == len && !strncmp(o->name, name, len))
			return o;
	return NULL;
}

static const struct option_desc *find_letter(const struct command *cmd, char letter)
{
	const struct option_desc *o;

	for (unsigned i = 0; (o = option_at(cmd, i)); i++)
		if (o->letter == letter)
			return o;
	return NULL;
}

void option_start(struct option_parser *parser, const struct command *cmd, int argc, char **argv)
{
	*parser = (struct option_parser){.cmd = cmd, .argc = argc, .argv = argv};
}

static int option_found(struct option_parser *p, const struct option_desc *o)
{
	if (o->id == OPTION_HELP)
		command_help(stdout, NULL, p->cmd);
	return o->id;
}

/* An option that takes a value and has none glued to it: the next word is it. */
static int value_from_next(struct option_parser *p, const struct option_desc *o, const char **value,
			   struct error *err)
{
	if (p->pos >= p->argc)
		return error_set(err, -EINVAL, "option --%s needs a value (%s)", o->name, o->arg);
	*value = p->argv[p->pos++];
	return option_found(p, o);
}

static int parse_long(struct option_parser *p, char *word, const char **value, struct error *err)
{
	const char *equals = strchr(word, '=');
	size_t len = equals ? (size_t)(equals - word) : strlen(word);
	const struct option_desc *o = find_long(p->cmd, word, len);

	*value = NULL;
	if (!o)
		return error_set(err, -EINVAL, "unknown option --%.*s (see --help)", (int)len,
				 word);
	if (!o->arg && equals)
		return error_set(err, -EINVAL, "option --%s takes no value", o->name);
	if (o->arg && !equals)
		return value_from_next(p, o, value, err);
	if (equals)
		*value = equals + 1;
	return option_found(p, o);
}

static int parse_letter(struct option_parser *p, const char **value, struct error *err)
{
	char letter = *p->letters++;
	const struct option_desc *o = find_letter(p->cmd, letter);

	*value = NULL;
	if (!o)
		return error_set(err, -EINVAL, "unknown option -%c (see --help)", letter);
	if (!o->arg) {
		if (!*p->letters)
			p->letters = NULL;
		return option_found(p, o);
	}
	if (*p->letters)
		*value = p->letters;
	p->letters = NULL;
	return *value ? option_found(p, o) : value_from_next(p, o, value, err);
}

int option_next(struct option_parser *p, const char **value, struct error *err)
{
	if (p->letters)
		return parse_letter(p, value, err);
	while (!p->ended && p->pos < p->argc) {
		char *word = p->argv[p->pos++];

		if (!strcmp(word, "--")) {
			p->ended = true;
		} else if (word[0] == '-' && word[1] == '-') {
			return parse_long(p, word + 2, value, err);
		} else if (word[0] == '-' && word[1]) {
			p->letters = word + 1;
			return parse_letter(p, value, err);
		} else {
			p->argv[p->nargs++] = word;
			p->ended = p->cmd->stops_at_args;
			/* A "--" right behind the last own word separates, it is no argument. */
			if (p->ended && p->pos < p->argc && !strcmp(p->argv[p->pos], "--"))
				p->pos++;
		}
	}
	while (p->pos < p->argc)
		p->argv[p->nargs++] = p->argv[p->pos++];
	p->argc = p->nargs;
	return 0;
}

int option_each(struct option_parser *parser, option_set_fn *set, void *arg, struct error *err)
{
	const char *value;
	int id, r = 0;

	while (!r && (id = option_next(parser, &value, err)) > 0)
		r = id == OPTION_HELP ? id : set(arg, id, value, err);
	return r ? r : id;
}

/* The number of words of argv that spell the command's name, 0 when they do not. */
static int words_matching(const char *name, int argc, char **argv)
{
	int n = 0;

	while (*name) {
		size_t len = strcspn(name, " ");

		if (n >= argc || strlen(argv[n]) != len || strncmp(argv[n], name, len))
			return 0;
		n++;
		name += len;
		name += strspn(name, " ");
	}
	return n;
}

const struct command *command_find(const struct command *const *table, int argc, char **argv,
				   int *used)
{
	const struct command *best = NULL;

	*used = 0;
	for (; *table; table++) {
		int n = words_matching((*table)->name, argc, argv);

		if (n > *used) {
			*used = n;
			best = *table;
		}
	}
	return best;
}

void command_help(FILE *out, const char *program, const struct command *cmd)
{
	const struct option_desc *o;

	fprintf(out, "Usage: %s%s%s [OPTIONS]%s%s\n\n%s.\n", program ? program : "",
		program ? " " : "", cmd->name, cmd->args[0] ? " " : "", cmd->args, cmd->summary);
	if (cmd->details)
		fprintf(out, "\n%s\n", cmd->details);
	fprintf(out, "\nOptions:\n");
	for (unsigned i = 0; (o = option_at(cmd, i)); i++) {
		char head[80];
		int n = snprintf(head, sizeof(head), "  %c%c%s --%s%s%s", o->letter ? '-' : ' ',
				 o->letter ? o->letter : ' ', o->letter ? "," : " ", o->name,
				 o->arg ? " " : "", o->arg ? o->arg : "");

		if (n <= 30)
			fprintf(out, "%-31s %s\n", head, o->help);
		else
			fprintf(out, "%s\n%31s %s\n", head, "", o->help);
	}
}

void command_list(FILE *out, const char *program, const struct command *const *table,
		  const char *prefix)
{
	size_t len = strlen(prefix);

	fprintf(out, "Usage: %s COMMAND [OPTIONS] [ARGUMENTS]\n\nCommands:\n", program);
	for (; *table; table++)
		if (!strncmp((*table)->name, prefix, len))
			fprintf(out, "  %-18s %s\n", (*table)->name, (*table)->summary);
	fprintf(out, "\n%s COMMAND --help tells more about one.\n", program);
}

static const char *complete_action(enum complete kind)
{
	switch (kind) {
	case COMPLETE_FILE:
		return "compgen -f -- \"$cur\"";
	case COMPLETE_DIR:
		return "compgen -d -- \"$cur\"";
	case COMPLETE_IMAGE:
		return "compgen -W \"$(wisp image list --names 2>/dev/null)\" -- \"$cur\"";
	case COMPLETE_VM:
		return "compgen -W \"$(wisp vm list --names 2>/dev/null)\" -- \"$cur\"";
	case COMPLETE_NODE:
		return "compgen -W \"$(wisp lab status --names 2>/dev/null)\" -- \"$cur\"";
	case COMPLETE_FIELD:
		return "compgen -W \"$(wisp env fields --names 2>/dev/null)\" -- \"$cur\"";
	case COMPLETE_CLUSTER:
		return "compgen -W \"$(wisp cluster list --names 2>/dev/null)\" -- \"$cur\"";
	case COMPLETE_NONE:
		break;
	}
	return "true";
}

static void completion_of(FILE *out, const struct command *cmd)
{
	const struct option_desc *o;

	fprintf(out, "\t\"%s \"*)\n\t\tcase \"$prev\" in\n", cmd->name);
	for (unsigned i = 0; (o = option_at(cmd, i)); i++) {
		if (!o->arg)
			continue;
		fprintf(out, "\t\t--%s", o->name);
		if (o->letter)
			fprintf(out, "|-%c", o->letter);
		fprintf(out, ") mapfile -t COMPREPLY < <(%s); return ;;\n",
			complete_action(o->complete));
	}
	fprintf(out, "\t\tesac\n\t\tif [[ $cur == -* ]]; then\n\t\t\tCOMPREPLY=($(compgen -W \"");
	for (unsigned i = 0; (o = option_at(cmd, i)); i++)
		fprintf(out, "%s--%s", i ? " " : "", o->name);
	fprintf(out,
		"\" -- \"$cur\"))\n\t\telse\n\t\t\tmapfile -t COMPREPLY < <(%s)\n\t\tfi\n"
		"\t\treturn ;;\n",
		complete_action(cmd->complete));
}

void command_completion(FILE *out, const char *program, const struct command *const *table)
{
	fprintf(out,
		"# bash completion for %s, generated by `%s completion`\n_%s()\n{\n"
		"\tlocal cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}\n"
		"\tlocal line=\"${COMP_WORDS[*]:1:COMP_CWORD-1} \"\n"
		"\tCOMPREPLY=()\n\tcase \"$line\" in\n",
		program, program, program);
	/* Longer names first would matter if one name began another; none does. */
	for (const struct command *const *c = table; *c; c++)
		completion_of(out, *c);
	fprintf(out, "\tesac\n\tcase \"$line\" in\n");
	for (const struct command *const *c = table; *c; c++) {
		const char *space = strchr((*c)->name, ' ');

		if (space)
			fprintf(out,
				"\t\"%.*s \") COMPREPLY+=($(compgen -W \"%s\" -- \"$cur\")) ;;&\n",
				(int)(space - (*c)->name), (*c)->name, space + 1);
		fprintf(out, "\t\" \") COMPREPLY+=($(compgen -W \"%.*s\" -- \"$cur\")) ;;&\n",
			(int)strcspn((*c)->name, " "), (*c)->name);
	}
	fprintf(out, "\tesac\n}\ncomplete -F _%s %s\n", program, program);
}

void command_man_text(FILE *out, const char *text)
{
	for (; text && *text; text++) {
		if (strchr("_*\\~#", *text))
			fputc('\\', out);
		fputc(*text, out);
	}
}

/* Text as it is, every line set off: details have lists and examples. */
static void man_details(FILE *out, const char *text)
{
	for (const char *line = text; line && *line;) {
		size_t len = strcspn(line, "\n");

		fprintf(out, "\t%.*s\n", (int)len, line);
		line += len + (line[len] == '\n');
	}
}

static void man_option(FILE *out, const struct option_desc *o)
{
	if (o->letter)
		fprintf(out, "*-%c*, ", o->letter);
	fprintf(out, "*--%s*", o->name);
	if (o->arg) {
		fprintf(out, " ");
		command_man_text(out, o->arg);
	}
	fprintf(out, "\n\t");
	command_man_text(out, o->help);
	fprintf(out, ".\n\n");
}

void command_man(FILE *out, const char *program, const struct command *const *table)
{
	for (; *table; table++) {
		const struct command *cmd = *table;
		const struct option_desc *o;

		if (program) {
			fprintf(out, "## %s %s ", program, cmd->name);
			command_man_text(out, cmd->args);
			fprintf(out, "\n\n");
			command_man_text(out, cmd->summary);
			fprintf(out, ".\n\n");
		}
		if (cmd->details) {
			fprintf(out, "```\n");
			man_details(out, cmd->details);
			fprintf(out, "```\n\n");
		}
		for (unsigned i = 0; (o = option_at(cmd, i)); i++)
			man_option(out, o);
	}
}
