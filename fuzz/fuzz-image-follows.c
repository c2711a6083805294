/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a user says of an image, and any bytes as documents of a user and of a site that has a rule
 * for images: nobody has signed anything, and nobody has an image, so that none may run but the one
 * that the rule itself names by its digest.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image/image.h"
#include "env/meet.h"
#include "lib/error.h"

#define DIGEST "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char rule[] =
	"rule: r\nbase: [\"image:a@sha256:" DIGEST "\", \"debian*\", \"oci:*\"]\n";

static bool is_named(const json_t *image)
{
	const char *digest = json_string_value(json_object_get(image, "digest"));

	return digest && !strcmp(digest, DIGEST);
}

static void check(const struct documents *docs, const json_t *said)
{
	const json_t *image = json_object_get(said, "image");
	json_t *facts = json_object();
	struct error err = {""};
	struct meet meet;
	int r;

	meet_documents(docs, facts, NULL, &meet);
	if (!meet.conflicts && !meet.failed) {
		r = image_follows(&meet, image, json_object_get(said, "proof"), "/nonexistent",
				  &err);
		if ((r && !*err.text) || (!r && !is_named(image)))
			abort();
	}
	meet_done(&meet);
	json_decref(facts);
}

/* The first line is what is said, as JSON; the rest the user's document. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *end = memchr(data, '\n', size);
	size_t n = end ? (size_t)(end - data) : size;
	json_t *said = json_loadb((const char *)data, n, JSON_REJECT_DUPLICATES, NULL);
	struct documents docs = {0};

	setenv("WISP_HOME", "/dev/null", 1); /* nothing is made there */
	unsetenv("WISP_STORE");
	documents_parse(&docs, rule, strlen(rule), "site.yaml", true);
	if (end)
		documents_parse(&docs, (const char *)end + 1, size - n - 1, "user.yaml", false);
	if (!docs.problems.n)
		check(&docs, said);
	documents_done(&docs);
	json_decref(said);
	return 0;
}
