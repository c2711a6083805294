/* SPDX-License-Identifier: Apache-2.0 */
/* Parses image specifications: one table row a field. */

#include "image/spec.h"

#include <errno.h>
#include <string.h>
#include <yaml.h>

#include "image/kernel.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/parse.h"
#include "lib/paths.h"

#define MAX_SPEC (1u << 20)
#define MAX_ITEMS 4096 /* in a list */
#define MAX_TEXT 16384u
#define LOWER "abcdefghijklmnopqrstuvwxyz"
#define DIGITS "0123456789"
#define LETTERS LOWER "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

struct parser {
	const char *where;
	yaml_document_t *doc;
	struct error *err;
};

static int fail_at(const struct parser *p, const yaml_node_t *node, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static int fail_at(const struct parser *p, const yaml_node_t *node, const char *fmt, ...)
{
	char text[400];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	return error_set(p->err, -EINVAL, "%s:%zu:%zu: %s", p->where, node->start_mark.line + 1,
			 node->start_mark.column + 1, text);
}

/* What a value may be; NULL when it is good, else what it should be. */
typedef const char *check_fn(const char *text);

static const char *check_name(const char *text)
{
	return paths_check_name(text, "image", NULL)
		       ? "a name (letters, digits, \".\", \"_\", \"-\")"
		       : NULL;
}

static const char *check_release(const char *text)
{
	return !*text || text[strspn(text, LOWER DIGITS)] ? "a Debian code name, like bookworm"
							  : NULL;
}

static const char *check_kernel(const char *text)
{
	return strncmp(text, "linux-image-", 12) || text[strspn(text, LOWER DIGITS "+.-")]
		       ? "a kernel package, like " KERNEL_DEFAULT
		       : NULL;
}

static const char *check_compression(const char *text)
{
	static const char *const known[] = {"lz4", "zstd", "gzip", "xz"};

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (!strcmp(text, known[i]))
			return NULL;
	return "lz4, zstd, gzip or xz";
}

/* NAME[=VERSION]; "NAME-" would tell apt to remove it. */
static const char *check_package(const char *text)
{
	size_t n = strspn(text, LOWER DIGITS "+.-");

	if (n < 2 || !strchr(LOWER DIGITS, text[0]) || text[n - 1] == '-' ||
	    (text[n] && (text[n] != '=' || !text[n + 1] ||
			 text[n + 1 + strspn(text + n + 1, LETTERS DIGITS "+.~:-")])))
		return "a Debian package, PACKAGE or PACKAGE=VERSION";
	return NULL;
}

static const char *check_module(const char *text)
{
	return !*text || text[strspn(text, LETTERS DIGITS "_-")] ? "a kernel module's name" : NULL;
}

static const char *check_step(const char *text)
{
	return *text ? NULL : "a shell command";
}

static bool is_plain_path(const char *path)
{
	for (const char *p = path; *p;) {
		size_t len = strcspn(p, "/");

		if (!len || (len <= 2 && !strncmp(p, "..", len)))
			return false;
		p += len;
		if (*p && !*++p)
			return false;
	}
	return *path;
}

static const char *check_from(const char *text)
{
	return is_plain_path(text) ? NULL : "a path beside the specification, without \"..\"";
}

static const char *check_to(const char *text)
{
	return text[0] == '/' && is_plain_path(text + 1) ? NULL : "an absolute path without \"..\"";
}

/* How to read a field. */
struct field {
	const char *name;
	int (*read)(const struct parser *p, const yaml_node_t *node, const struct field *field,
		    void *out);
	size_t offset; /* of what it fills, in its structure */
	check_fn *check;
};

static int read_text(const struct parser *p, const yaml_node_t *node, const struct field *field,
		     void *out)
{
	const char *text = (const char *)node->data.scalar.value, *wanted;

	if (node->type != YAML_SCALAR_NODE)
		return fail_at(p, node, "%s must be a single value", field->name);
	if (node->data.scalar.length > MAX_TEXT)
		return fail_at(p, node, "%s is longer than %u bytes", field->name, MAX_TEXT);
	if (strlen(text) != node->data.scalar.length)
		return fail_at(p, node, "%s contains a NUL byte", field->name);
	wanted = field->check(text);
	if (wanted)
		return fail_at(p, node, "%s: \"%s\" is not %s", field->name, text, wanted);
	*(char **)out = strdup(text);
	return *(char **)out ? 0 : error_set(p->err, -ENOMEM, "out of memory");
}

static int read_flag(const struct parser *p, const yaml_node_t *node, const struct field *field,
		     void *out)
{
	struct error reason;

	if (node->type != YAML_SCALAR_NODE ||
	    parse_bool((const char *)node->data.scalar.value, field->name, out, &reason) < 0)
		return fail_at(p, node, "%s must be yes or no", field->name);
	return 0;
}

static int read_mode(const struct parser *p, const yaml_node_t *node, const struct field *field,
		     void *out)
{
	const char *text = (const char *)node->data.scalar.value;
	size_t n = node->type == YAML_SCALAR_NODE ? strspn(text, "01234567") : 0;

	if (n < 3 || n > 4 || text[n])
		return fail_at(p, node, "%s must be an octal number, like 0755", field->name);
	*(unsigned *)out = (unsigned)strtoul(text, NULL, 8);
	return 0;
}

static size_t item_count(const yaml_node_t *node)
{
	return (size_t)(node->data.sequence.items.top - node->data.sequence.items.start);
}

static int check_list(const struct parser *p, const yaml_node_t *node, const struct field *field)
{
	if (node->type != YAML_SEQUENCE_NODE)
		return fail_at(p, node, "%s must be a list", field->name);
	if (item_count(node) > MAX_ITEMS)
		return fail_at(p, node, "%s has more than %u items", field->name, MAX_ITEMS);
	return 0;
}

static yaml_node_t *list_item(const struct parser *p, const yaml_node_t *node, size_t i)
{
	return yaml_document_get_node(p->doc, node->data.sequence.items.start[i]);
}

static int read_list(const struct parser *p, const yaml_node_t *node, const struct field *field,
		     void *out)
{
	int rc = check_list(p, node, field);
	char **list;

	if (rc < 0)
		return rc;
	list = calloc(item_count(node) + 1, sizeof(*list));
	if (!list)
		return error_set(p->err, -ENOMEM, "out of memory");
	free(*(char ***)out);
	*(char ***)out = list;
	for (size_t i = 0; rc == 0 && i < item_count(node); i++)
		rc = read_text(p, list_item(p, node, i), field, &list[i]);
	return rc;
}

/* Levenshtein distance of two short words. */
static unsigned word_distance(const char *a, const char *b)
{
	unsigned row[33], n = (unsigned)strlen(b);

	if (strlen(a) > 32 || n > 32)
		return 100;
	for (unsigned j = 0; j <= n; j++)
		row[j] = j;
	for (unsigned i = 1; *a; i++, a++) {
		unsigned diagonal = row[0];

		row[0] = i;
		for (unsigned j = 1; j <= n; j++) {
			unsigned best = diagonal + (*a != b[j - 1]);

			diagonal = row[j];
			best = best < row[j] + 1 ? best : row[j] + 1;
			row[j] = best < row[j - 1] + 1 ? best : row[j - 1] + 1;
		}
	}
	return row[n];
}

static int fail_unknown(const struct parser *p, const yaml_node_t *key, const struct field *fields)
{
	const char *name = (const char *)key->data.scalar.value, *nearest = NULL;
	unsigned best = 4;

	for (const struct field *f = fields; f->name; f++) {
		unsigned distance = word_distance(name, f->name);

		if (distance < best) {
			best = distance;
			nearest = f->name;
		}
	}
	if (nearest)
		return fail_at(p, key, "unknown field \"%s\" (did you mean \"%s\"?)", name,
			       nearest);
	return fail_at(p, key, "unknown field \"%s\"", name);
}

/* Reads a mapping into the structure at out. */
static int read_fields(const struct parser *p, const yaml_node_t *node, const struct field *fields,
		       void *out)
{
	uint64_t seen = 0;

	if (node->type != YAML_MAPPING_NODE)
		return fail_at(p, node, "must be fields: \"%s: ...\"", fields->name);
	for (yaml_node_pair_t *pair = node->data.mapping.pairs.start;
	     pair < node->data.mapping.pairs.top; pair++) {
		const yaml_node_t *key = yaml_document_get_node(p->doc, pair->key);
		const yaml_node_t *value = yaml_document_get_node(p->doc, pair->value);
		const struct field *f = fields;
		int rc;

		if (key->type != YAML_SCALAR_NODE)
			return fail_at(p, key, "a field's name must be a word");
		while (f->name && strcmp(f->name, (const char *)key->data.scalar.value))
			f++;
		if (!f->name)
			return fail_unknown(p, key, fields);
		if (seen & 1ull << (f - fields))
			return fail_at(p, key, "%s is there twice", f->name);
		seen |= 1ull << (f - fields);
		rc = f->read(p, value, f, (char *)out + f->offset);
		if (rc < 0)
			return rc;
	}
	return 0;
}

#define AT(type, member) __builtin_offsetof(struct type, member)

static int read_files(const struct parser *p, const yaml_node_t *node, const struct field *field,
		      void *out)
{
	static const struct field fields[] = {
		{"from", read_text, AT(spec_file, from), check_from},
		{"to", read_text, AT(spec_file, to), check_to},
		{"mode", read_mode, AT(spec_file, mode), NULL},
		{0},
	};
	struct spec *spec = out;
	int rc = check_list(p, node, field);

	if (rc < 0)
		return rc;
	spec->files = calloc(item_count(node) + 1, sizeof(*spec->files));
	if (!spec->files)
		return error_set(p->err, -ENOMEM, "out of memory");
	for (size_t i = 0; rc == 0 && i < item_count(node); i++) {
		const yaml_node_t *item = list_item(p, node, i);

		spec->nfiles++;
		rc = read_fields(p, item, fields, &spec->files[i]);
		if (rc == 0 && (!spec->files[i].from || !spec->files[i].to))
			rc = fail_at(p, item, "a file needs \"from\" and \"to\"");
	}
	return rc;
}

static const struct field spec_fields[] = {
	{"name", read_text, AT(spec, name), check_name},
	{"release", read_text, AT(spec, release), check_release},
	{"kernel", read_text, AT(spec, kernel), check_kernel},
	{"packages", read_list, AT(spec, packages), check_package},
	{"modules", read_list, AT(spec, modules), check_module},
	{"files", read_files, 0, NULL},
	{"run", read_list, AT(spec, run), check_step},
	{"compression", read_text, AT(spec, compression), check_compression},
	{"trim", read_flag, AT(spec, trim), NULL},
	{0},
};

static int set_defaults(struct spec *s)
{
	if (!s->kernel)
		s->kernel = strdup(KERNEL_DEFAULT);
	if (!s->compression)
		s->compression = strdup("lz4");
	if (!s->packages)
		s->packages = calloc(1, sizeof(char *));
	if (!s->modules)
		s->modules = calloc(1, sizeof(char *));
	if (!s->run)
		s->run = calloc(1, sizeof(char *));
	return s->kernel && s->compression && s->packages && s->modules && s->run ? 0 : -ENOMEM;
}

static int parse_document(const struct parser *p, struct spec *spec)
{
	const yaml_node_t *root = yaml_document_get_root_node(p->doc);
	int rc;

	if (!root)
		return error_set(p->err, -EINVAL, "%s: is empty", p->where);
	rc = read_fields(p, root, spec_fields, spec);
	return rc < 0 ? rc : set_defaults(spec);
}

int spec_parse(const char *text, size_t size, const char *where, struct spec *ret,
	       struct error *err)
{
	yaml_parser_t yaml;
	yaml_document_t doc;
	struct spec spec = {.trim = true};
	int rc;

	if (!yaml_parser_initialize(&yaml))
		return error_set(err, -ENOMEM, "out of memory");
	yaml_parser_set_input_string(&yaml, (const unsigned char *)text, size);
	if (yaml_parser_load(&yaml, &doc)) {
		rc = parse_document(&(struct parser){.where = where, .doc = &doc, .err = err},
				    &spec);
		yaml_document_delete(&doc);
	} else {
		const yaml_mark_t *at = yaml.problem_mark.line ? &yaml.problem_mark : &yaml.mark;

		rc = error_set(err, -EINVAL, "%s:%zu:%zu: %s", where, at->line + 1, at->column + 1,
			       yaml.problem ? yaml.problem : "bad YAML");
	}
	yaml_parser_delete(&yaml);
	if (rc < 0) {
		spec_done(&spec);
		return rc;
	}
	*ret = spec;
	return 0;
}

int spec_load(const char *path, struct spec *ret, struct error *err)
{
	CLEANUP_FREE char *text = NULL;
	ssize_t size = io_read_file(path, MAX_SPEC, &text, err);

	return size < 0 ? (int)size : spec_parse(text, (size_t)size, path, ret, err);
}

static void list_done(char **list)
{
	for (char **item = list; item && *item; item++)
		free(*item);
	free(list);
}

void spec_done(struct spec *s)
{
	free(s->name);
	free(s->release);
	free(s->kernel);
	free(s->compression);
	list_done(s->packages);
	list_done(s->modules);
	list_done(s->run);
	for (unsigned i = 0; i < s->nfiles; i++) {
		free(s->files[i].from);
		free(s->files[i].to);
	}
	free(s->files);
	*s = (struct spec){0};
}

static json_t *list_json(char **list)
{
	json_t *array = json_array();

	for (; *list; list++)
		json_array_append_new(array, json_string(*list));
	return array;
}

static json_t *files_json(const struct spec *s)
{
	json_t *array = json_array();

	for (unsigned i = 0; i < s->nfiles; i++)
		json_array_append_new(array,
				      json_pack("{s:s, s:s, s:i}", "from", s->files[i].from, "to",
						s->files[i].to, "mode", (int)s->files[i].mode));
	return array;
}

json_t *spec_json(const struct spec *s)
{
	return json_pack("{s:s?, s:s, s:s, s:b, s:o, s:o, s:o, s:o}", "release", s->release,
			 "kernel", s->kernel, "compression", s->compression, "trim", s->trim,
			 "packages", list_json(s->packages), "modules", list_json(s->modules),
			 "run", list_json(s->run), "files", files_json(s));
}
