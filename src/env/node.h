/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_ENV_NODE_H
#define WISP_ENV_NODE_H

/*
 * YAML as a tree of texts, lists and maps that know where they stand. What makes one place mean
 * another (anchors, aliases, tags, merge keys) is refused, so a tree is as large as its file.
 * Any thread.
 */

#include <stdbool.h>
#include <stddef.h>

#include "lib/args.h"

enum node_kind { NODE_TEXT, NODE_LIST, NODE_MAP };

struct node {
	enum node_kind kind;
	unsigned line, column; /* from 1 */
	char *text;	       /* of a text */
	bool plain;	       /* of a text: not in quotation marks, which JSON's always are */
	struct node **item;    /* of a list; of a map key, value, key, value ... */
	size_t n;	       /* of item */
};

/* A file that is read: problems are collected as lines that begin with its name. */
struct source {
	const char *where;
	struct args *problems;
};

/* Tells a problem at a node (NULL: of the file). Returns false, for the sake of its callers. */
bool source_problem(const struct source *source, const struct node *at, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/*
 * Reads all documents of a text. Returns a new list whose items are the documents' roots, those
 * before the first error also when there is one. Empty documents are left out. NULL: no memory.
 */
struct node *node_parse(const struct source *source, const char *text, size_t size);
void node_free(struct node *node);

/* Whether the node is a text, and this one. */
bool node_is(const struct node *node, const char *text);

#endif
