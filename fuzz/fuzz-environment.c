/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as documents of a user and of a site, met; what comes out is a document that comes to
 * itself, and what an image is made of. And any bytes as a waiver, and as a list of packages.
 */

#include <stdlib.h>
#include <string.h>

#include "env/result.h"
#include "env/waiver.h"
#include "image/root.h"
#include "image/spec.h"
#include "lib/cleanup.h"
#include "lib/error.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The canonical form when there are no errors and no conflicts, else NULL. */
static char *close_documents(const struct documents *docs, const json_t *facts)
{
	struct spec spec;
	struct meet m;
	json_t *closed;
	char *text;

	if (docs->problems.n)
		return NULL;
	meet_documents(docs, facts, NULL, &m);
	json_decref(result_report(&m));
	closed = result_json(&m);
	text = m.conflicts ? NULL : result_canonical(closed);
	json_decref(closed);
	if (text && !spec_from_meet(&m, &spec, NULL)) {
		json_decref(spec_environment(&m, "debian:x"));
		spec_done(&spec);
	}
	meet_done(&m);
	return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	json_t *facts = json_pack("{s:[s], s:[s]}", "user", "ann", "queue", "long");
	CLEANUP_FREE char *text = strndup((const char *)data, size), *a = NULL, *b = NULL;
	struct documents docs = {0}, again = {0};
	struct waiver waiver;

	if (!text || !facts)
		abort();
	documents_parse(&docs, (const char *)data, size, "user.yaml", false);
	free(close_documents(&docs, facts));
	documents_parse(&docs, (const char *)data, size, "site.yaml", true);
	a = close_documents(&docs, facts);
	if (a) {
		documents_parse(&again, a, strlen(a), "closed", false);
		b = close_documents(&again, facts);
		if (!b || strcmp(a, b))
			abort();
	}
	documents_done(&docs);
	documents_done(&again);
	if (waiver_check(text, "waiver", "/nowhere", facts, 0, &waiver, NULL) == 0)
		abort(); /* there are no keys */
	json_decref(root_packages(text));
	json_decref(facts);
	return 0;
}
