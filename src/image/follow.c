/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether an image is what an administrator's rules for environments leave. What a manifest says
 * counts when somebody who is trusted stands for it: by a signature, or since it is in a place of
 * those who ask.
 */

#include <errno.h>
#include <string.h>

#include "env/result.h"
#include "image/image.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

#define IMAGE "image:"
#define SHA256 "@sha256:"

/* An environment, and the image that is to run in it. */
struct candidate {
	const struct meet *meet;
	json_t *environment; /* closed */
	const char *base;
	const char *name, *digest; /* as they are said to be */
	json_t *manifest;	   /* NULL: nobody who is trusted stands for it */
	char *known;		   /* as who stands for it calls it */
};

static int no_memory(struct error *err)
{
	return error_set(err, -ENOMEM, "out of memory");
}

/* -------- as it is -------- */

static bool is_empty(const json_t *value)
{
	return !value || (json_is_array(value) && !json_array_size(value)) ||
	       (json_is_object(value) && !json_object_size(value));
}

static bool adds_nothing(const struct meet *meet, const json_t *environment)
{
	static const char *const added[] = {"modules", "packages", "files", "steps"};
	static const char *const made[] = {"kernel", "compression", "trim"};

	for (size_t i = 0; i < ARRAY_SIZE(added); i++)
		if (!is_empty(json_object_get(environment, added[i])))
			return false;
	for (size_t i = 0; i < ARRAY_SIZE(made); i++) {
		const struct decision *d = meet_find(meet, made[i]);

		if (d && d->by != BY_BUILTIN && d->by != BY_NOBODY)
			return false;
	}
	return true;
}

static const char *base_of(const json_t *environment)
{
	return json_string_value(json_object_get(environment, "base")) ?: "";
}

static bool is_image(const char *base)
{
	return !strncmp(base, IMAGE, strlen(IMAGE));
}

int image_as_it_is(const struct meet *meet, char **ret, struct error *err)
{
	json_t *environment = result_json(meet);
	const char *base = base_of(environment);
	bool as_it_is = is_image(base) && adds_nothing(meet, environment);

	*ret = as_it_is ? strdup(base + strlen(IMAGE)) : NULL;
	json_decref(environment);
	return environment && (*ret || !as_it_is) ? 0 : no_memory(err);
}

/* -------- rules -------- */

/* Those that say what an image is. */
static const char *const fields[] = {"base", "kernel", "modules", "packages", "files", "steps"};

/* "files" has "files.*.from". */
static bool is_of(const struct field *field, const char *name)
{
	size_t n = strlen(name);

	return !strncmp(field->path, name, n) && (!field->path[n] || field->path[n] == '.');
}

/* The first of an administrator's that says something of a field; NULL: none does. */
static const struct claim *rule_of(const struct meet *meet, const char *name)
{
	for (size_t i = 0; i < meet->n; i++)
		for (size_t k = 0; is_of(meet->d[i].field, name) && k < meet->d[i].n; k++)
			if (meet->d[i].claim[k]->doc->level != LEVEL_USER)
				return meet->d[i].claim[k];
	return NULL;
}

static const struct claim *any_rule(const struct meet *meet)
{
	const struct claim *rule = NULL;

	for (size_t i = 0; !rule && i < ARRAY_SIZE(fields); i++)
		rule = rule_of(meet, fields[i]);
	return rule;
}

/* Whether a rule has just this base, and no pattern that it fits. */
static bool is_named_by_rule(const struct candidate *c)
{
	const struct decision *d = meet_find(c->meet, "base");

	for (size_t i = 0; d && i < d->n; i++)
		if (d->claim[i]->doc->level != LEVEL_USER &&
		    texts_contain(d->claim[i]->want, c->base))
			return true;
	return false;
}

static int refuse(const struct candidate *c, const struct claim *rule, const char *why,
		  struct error *err)
{
	CLEANUP_FREE char *place = claim_place(rule);

	return error_set(
		err, -EACCES, "rule %s of this site (%s: %s) does not let image %s run: %s",
		rule->doc->rule, place ? place : rule->doc->file, rule->field->path, c->name, why);
}

/* -------- what follows -------- */

/* Whether it is the base itself: under its name, and with its digest where that is said. */
static bool is_base(const struct candidate *c)
{
	const char *name = c->base + strlen(IMAGE), *at = strchr(c->base, '@');
	size_t n = at ? (size_t)(at - name) : strlen(name);

	if (!is_image(c->base) || !adds_nothing(c->meet, c->environment) ||
	    (at && strcmp(at + strlen(SHA256), c->digest)))
		return false;
	if (at && is_named_by_rule(c))
		return true;
	return c->manifest && (!n || (strlen(c->known) == n && !strncmp(c->known, name, n)));
}

/* What a base was closed to follows from what was asked for. */
static bool base_follows(const char *asked, const char *built)
{
	const char *at = strchr(built, '@');
	size_t n = strlen(asked);

	if (!strcmp(asked, built))
		return true;
	if (!strcmp(asked, "debian"))
		return !strncmp(built, "debian:", strlen("debian:"));
	if (!is_image(asked) || !is_image(built) || !at)
		return false;
	return strchr(asked, '@') ? !strcmp(asked + strlen(IMAGE), at)
				  : !strncmp(asked, built, n) && built + n == at;
}

static bool field_follows(const struct candidate *c, const char *field)
{
	const json_t *built = json_object_get(c->manifest, "environment");
	const json_t *a = json_object_get(c->environment, field),
		     *b = json_object_get(built, field);

	if (!strcmp(field, "base"))
		return base_follows(c->base, base_of(built));
	return json_equal(a, b) || (is_empty(a) && is_empty(b));
}

/* Whether it was built as each field that has a rule says. */
static int is_built_so(const struct candidate *c, struct error *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
		const struct claim *rule = rule_of(c->meet, fields[i]);
		char why[256];

		if (!rule || field_follows(c, fields[i]))
			continue;
		snprintf(why, sizeof(why),
			 "it was not built with the %s of this environment%s%.120s: build it anew, "
			 "and "
			 "have it signed",
			 fields[i], i ? "" : ", ", i ? "" : c->base);
		return refuse(c, rule, why, err);
	}
	return 0;
}

/* -------- who stands for it -------- */

/* One that is in a place of ours. */
static bool find_here(struct candidate *c)
{
	CLEANUP_FREE char *reference = io_format("%s" SHA256 "%s", c->name, c->digest);
	struct image image;

	if (!reference || image_open(reference, &image, NULL))
		return false;
	c->manifest = json_incref(image.manifest);
	c->known = strdup(image.name);
	image_close(&image);
	return true;
}

/* Who has signed it; or, where no signature is asked for, a place of ours. */
static int find_guarantor(struct candidate *c, const json_t *proof, const char *keys,
			  struct error *err)
{
	int rc = image_check_proof(proof, c->name, c->digest, keys, &c->manifest, err);

	if (rc == 0)
		c->known =
			strdup(json_string_value(json_object_get(c->manifest, "name")) ?: c->name);
	else if (json_is_true(json_object_get(c->environment, "signed")))
		return error_prefix(err, -EACCES, "the environment says signed: yes");
	else if (find_here(c))
		rc = 0;
	return rc == 0 && !c->known ? no_memory(err) : rc;
}

/* reason: why nobody stands for it. */
static int check(const struct candidate *c, const struct claim *rule, const struct error *reason,
		 struct error *err)
{
	struct error why;

	if (!rule || is_base(c))
		return 0;
	if (c->manifest)
		return is_built_so(c, err);
	error_set(
		&why, 0,
		"%s, and it is none of this node's own: have an administrator sign it, or take one "
		"of the site's",
		reason->text);
	return refuse(c, rule, why.text, err);
}

static int take(const json_t *image, struct candidate *c, struct error *err)
{
	c->name = json_string_value(json_object_get(image, "name"));
	c->digest = json_string_value(json_object_get(image, "digest"));
	if (c->name && c->digest && strlen(c->digest) == DIGEST_TEXT - 1 &&
	    !c->digest[strspn(c->digest, "0123456789abcdef")])
		return 0;
	return error_set(err, -EINVAL, "\"image\" has to have a \"name\" and a \"digest\"%s",
			 image ? "" : ": the environment is under rules for images");
}

int image_follows(const struct meet *meet, const json_t *image, const json_t *proof,
		  const char *keys, struct error *err)
{
	const struct claim *rule = any_rule(meet);
	struct candidate c = {.meet = meet, .environment = result_json(meet)};
	bool is_signed = json_is_true(json_object_get(c.environment, "signed"));
	struct error reason = {""};
	int rc = !c.environment		      ? no_memory(err)
		 : image || rule || is_signed ? take(image, &c, err)
					      : 0;

	c.base = base_of(c.environment);
	if (rc == 0 && (rule || is_signed)) {
		rc = find_guarantor(&c, proof, keys, &reason);
		if (rc < 0 && is_signed)
			*err = reason;
		else
			rc = check(&c, rule, &reason, err);
	}
	json_decref(c.manifest);
	json_decref(c.environment);
	free(c.known);
	return rc;
}
