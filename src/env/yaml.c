/* SPDX-License-Identifier: Apache-2.0 */
/* Reads YAML into nodes, by libyaml's events. */

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "env/node.h"
#include "lib/cleanup.h"

#define MAX_DEPTH 16
#define MAX_ITEMS 4096 /* of a list or map */
#define MAX_KEYS 1024
#define MAX_PROBLEMS 100

struct reader {
	const struct source *source;
	yaml_parser_t parser;
	bool failed; /* nothing more can be read */
};

bool source_problem(const struct source *source, const struct node *at, const char *fmt, ...)
{
	CLEANUP_FREE char *text = NULL;
	va_list args;

	if (source->problems->n >= MAX_PROBLEMS)
		return false;
	va_start(args, fmt);
	if (vasprintf(&text, fmt, args) < 0)
		source->problems->failed = true;
	else if (at)
		args_add(source->problems, "%s:%u:%u: %s", source->where, at->line, at->column,
			 text);
	else
		args_add(source->problems, "%s: %s", source->where, text);
	va_end(args);
	return false;
}

bool node_is(const struct node *node, const char *text)
{
	return node && node->kind == NODE_TEXT && !strcmp(node->text, text);
}

void node_free(struct node *node)
{
	if (!node)
		return;
	for (size_t i = 0; i < node->n; i++)
		node_free(node->item[i]);
	free(node->item);
	free(node->text);
	free(node);
}

static struct node *node_create(enum node_kind kind, const yaml_mark_t *mark)
{
	struct node *node = calloc(1, sizeof(*node));

	if (node) {
		node->kind = kind;
		node->line = (unsigned)mark->line + 1;
		node->column = (unsigned)mark->column + 1;
	}
	return node;
}

/* Takes the item. */
static bool node_add(struct node *list, struct node *item)
{
	struct node **grown = list->item;

	if (!item)
		return false;
	if (!(list->n & (list->n - 1)))
		grown = realloc(list->item, (list->n ? 2 * list->n : 1) * sizeof(*grown));
	if (!grown) {
		node_free(item);
		return false;
	}
	list->item = grown;
	list->item[list->n++] = item;
	return true;
}

static bool next_event(struct reader *r, yaml_event_t *event)
{
	const yaml_mark_t *at = &r->parser.problem_mark;

	if (!r->failed && yaml_parser_parse(&r->parser, event))
		return true;
	if (!r->failed) {
		if (!at->line && !at->column)
			at = &r->parser.mark;
		source_problem(r->source,
			       &(struct node){.line = (unsigned)at->line + 1,
					      .column = (unsigned)at->column + 1},
			       "%s", r->parser.problem ? r->parser.problem : "bad YAML");
	}
	r->failed = true;
	return false;
}

/* What makes YAML more than texts, lists and maps; NULL: nothing. */
static const char *extra_of(const yaml_event_t *e)
{
	if (e->type == YAML_ALIAS_EVENT)
		return "an alias";
	if (e->type == YAML_SCALAR_EVENT)
		return e->data.scalar.anchor ? "an anchor" : e->data.scalar.tag ? "a tag" : NULL;
	if (e->type == YAML_SEQUENCE_START_EVENT)
		return e->data.sequence_start.anchor ? "an anchor"
		       : e->data.sequence_start.tag  ? "a tag"
						     : NULL;
	if (e->type == YAML_MAPPING_START_EVENT)
		return e->data.mapping_start.anchor ? "an anchor"
		       : e->data.mapping_start.tag  ? "a tag"
						    : NULL;
	return NULL;
}

static struct node *read_text(struct reader *r, const yaml_event_t *e)
{
	struct node *node = node_create(NODE_TEXT, &e->start_mark);
	const char *value = e->type == YAML_SCALAR_EVENT ? (const char *)e->data.scalar.value : "";

	if (!node)
		return NULL;
	if (e->type == YAML_SCALAR_EVENT && strlen(value) != e->data.scalar.length)
		source_problem(r->source, node, "a NUL byte is in this text");
	node->plain =
		e->type == YAML_SCALAR_EVENT && e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
	node->text = strdup(value);
	if (!node->text) {
		node_free(node);
		return NULL;
	}
	return node;
}

static void check_key(const struct reader *r, const struct node *map, const struct node *key)
{
	if (key->kind != NODE_TEXT) {
		source_problem(r->source, key, "a field's name must be a word");
		return;
	}
	if (!strcmp(key->text, "<<"))
		source_problem(r->source, key, "merge keys have no place here");
	for (size_t i = 0; i + 1 < map->n; i += 2)
		if (node_is(map->item[i], key->text)) {
			source_problem(r->source, key, "\"%s\" is here twice (first in line %u)",
				       key->text, map->item[i]->line);
			return;
		}
}

static struct node *read_node(struct reader *r, yaml_event_t *first, unsigned depth);

/* Reads items to the end of a list or map whose first event is given. */
static struct node *read_items(struct reader *r, const yaml_event_t *first, unsigned depth)
{
	bool map = first->type == YAML_MAPPING_START_EVENT;
	struct node *node = node_create(map ? NODE_MAP : NODE_LIST, &first->start_mark);
	yaml_event_t e;

	while (node && next_event(r, &e)) {
		bool end = e.type == YAML_SEQUENCE_END_EVENT || e.type == YAML_MAPPING_END_EVENT;
		struct node *item = end ? NULL : read_node(r, &e, depth);

		yaml_event_delete(&e);
		if (end)
			break;
		if (item && map && node->n % 2 == 0)
			check_key(r, node, item);
		if (!node_add(node, item))
			r->failed = r->source->problems->failed = true;
		else if (node->n > (map ? 2 * MAX_KEYS : MAX_ITEMS))
			r->failed =
				!source_problem(r->source, item, "there are more than %u of these",
						map ? MAX_KEYS : MAX_ITEMS);
	}
	return node;
}

static struct node *read_node(struct reader *r, yaml_event_t *first, unsigned depth)
{
	const struct node at = {.line = (unsigned)first->start_mark.line + 1,
				.column = (unsigned)first->start_mark.column + 1};
	const char *extra = extra_of(first);

	if (extra)
		source_problem(r->source, &at, "%s has no place here: write it out", extra);
	if (first->type == YAML_SCALAR_EVENT || first->type == YAML_ALIAS_EVENT)
		return read_text(r, first);
	if (depth == MAX_DEPTH) {
		source_problem(r->source, &at, "this is nested too deeply");
		r->failed = true;
		return read_text(r, first);
	}
	return read_items(r, first, depth + 1);
}

/* What broke off has errors enough. */
static void add_root(struct reader *r, struct node *list, struct node *root)
{
	if (r->failed)
		node_free(root);
	else if (!node_add(list, root))
		r->failed = r->source->problems->failed = true;
}

static void read_documents(struct reader *r, struct node *list)
{
	yaml_event_t e;
	bool end = false;

	while (!end && next_event(r, &e)) {
		bool content = e.type == YAML_SCALAR_EVENT || e.type == YAML_ALIAS_EVENT ||
			       e.type == YAML_SEQUENCE_START_EVENT ||
			       e.type == YAML_MAPPING_START_EVENT;
		bool empty = e.type == YAML_SCALAR_EVENT && !e.data.scalar.length;

		end = e.type == YAML_STREAM_END_EVENT;
		if (content && !empty)
			add_root(r, list, read_node(r, &e, 0));
		yaml_event_delete(&e);
	}
}

struct node *node_parse(const struct source *source, const char *text, size_t size)
{
	struct reader r = {.source = source};
	struct node *list = node_create(NODE_LIST, &(yaml_mark_t){0});

	if (!list || !yaml_parser_initialize(&r.parser)) {
		node_free(list);
		return NULL;
	}
	yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, size);
	read_documents(&r, list);
	yaml_parser_delete(&r.parser);
	return list;
}
