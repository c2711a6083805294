/* SPDX-License-Identifier: Apache-2.0 */
/* The table of fields for people and programs. */

#include <inttypes.h>
#include <string.h>

#include "env/schema.h"
#include "lib/command.h"

/* The type in words: "a size", "openmpi|mpich|none". */
static const char *kind_of(const struct field *f)
{
	if (f->words)
		return f->words;
	if (f->type != &type_number)
		return f->type->name;
	return f->unit == UNIT_SIZE ? "size" : f->unit == UNIT_DURATION ? "duration" : "number";
}

static bool is_wanted(const struct field *f, const char *name)
{
	size_t n = name ? strlen(name) : 0;

	return !name || (!strncmp(f->path, name, n) && (!f->path[n] || f->path[n] == '.'));
}

bool fields_print(FILE *out, const char *name)
{
	bool found = false;

	if (!name)
		fprintf(out, "%-24s %-22s %s\n", "FIELD", "TYPE", "DEFAULT");
	for (size_t i = 0; i < env_nfields; i++) {
		const struct field *f = &env_fields[i];

		if (!is_wanted(f, name))
			continue;
		if (name)
			fprintf(out, "%s%s\n  type     %s\n  default  %s\n  example  %s\n  %s\n",
				found ? "\n" : "", f->path, kind_of(f), f->builtin ?: "-",
				f->example, f->text);
		else
			fprintf(out, "%-24s %-22s %s\n", f->path, kind_of(f), f->builtin ?: "-");
		found = true;
	}
	return found;
}

void fields_man(FILE *out)
{
	for (size_t i = 0; i < env_nfields; i++) {
		const struct field *f = &env_fields[i];

		fprintf(out, "*");
		command_man_text(out, f->path);
		fprintf(out, "* (");
		command_man_text(out, kind_of(f));
		if (f->builtin) {
			fprintf(out, ", default ");
			command_man_text(out, f->builtin);
		}
		fprintf(out, ")\n\t");
		command_man_text(out, f->text);
		fprintf(out, "\n\n\tExample: ");
		command_man_text(out, f->example);
		fprintf(out, "\n\n");
	}
}

json_t *fields_json(const char *name)
{
	json_t *list = json_array();

	for (size_t i = 0; i < env_nfields; i++) {
		const struct field *f = &env_fields[i];

		if (is_wanted(f, name))
			json_array_append_new(list,
					      json_pack("{s:s, s:s, s:s*, s:s*, s:s, s:s}", "field",
							f->path, "type",
							f->type == &type_text ? "text" : kind_of(f),
							"words", f->words, "default", f->builtin,
							"text", f->text, "example", f->example));
	}
	return list;
}
