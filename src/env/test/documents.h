/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_ENV_TEST_DOCUMENTS_H
#define WISP_ENV_TEST_DOCUMENTS_H

/* For the tests: documents from texts, met. */

#include <string.h>

#include "env/result.h"
#include "lib/cleanup.h"
#include "lib/error.h"

static inline void parse(struct documents *docs, const char *text, const char *where, bool policy)
{
	documents_parse(docs, text, strlen(text), where, policy);
}

/* The closed environment, or {"FIELD": why} of the conflicts, as text; the caller frees it. */
static inline char *outcome(const struct meet *m)
{
	json_t *json = m->conflicts ? json_object() : result_json(m);
	char *text;

	for (size_t i = 0; i < m->n; i++)
		if (m->d[i].why)
			json_object_set_new(json, m->d[i].name, json_string(m->d[i].why));
	text = result_canonical(json);
	json_decref(json);
	return text;
}

#endif
