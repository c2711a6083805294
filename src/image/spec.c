/* SPDX-License-Identifier: Apache-2.0 */
/* Takes what an image is made of out of an environment. */

#include "image/spec.h"

#include <errno.h>
#include <string.h>

#include "env/result.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

static int no_memory(struct error *err)
{
	return error_set(err, -ENOMEM, "out of memory");
}

/* A copy of a field's text; NULL: it is left out. */
static char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? strdup(text) : NULL;
}

static void list_done(char **list)
{
	for (char **item = list; item && *item; item++)
		free(*item);
	free(list);
}

/* The texts of an array, or those under a key of its objects. NULL: no memory. */
static char **list_of(const json_t *array, const char *key)
{
	char **list = calloc(json_array_size(array) + 1, sizeof(*list));
	const json_t *item;
	size_t i;

	json_array_foreach (array, i, item) {
		const json_t *text = key ? json_object_get(item, key) : item;

		if (list && !(list[i] = strdup(json_string_value(text)))) {
			list_done(list);
			return NULL;
		}
	}
	return list;
}

/* Who says where a file comes from: of several the site, whose document must not be shadowed. */
static const struct claim *claim_of_source(const struct decision *d)
{
	const struct claim *claim = d->from;

	for (size_t i = 0; i < d->n; i++) {
		const json_t *choice = json_array_get(d->claim[i]->want, 0);

		if (json_array_size(d->claim[i]->want) == 1 && json_equal(choice, d->value))
			claim = d->claim[i];
	}
	return claim ?: d->claim[0];
}

/* The path of a file that is named in a document. */
static char *source_path(const struct decision *d)
{
	const char *file = claim_of_source(d)->doc->file, *slash = strrchr(file, '/');
	const char *from = json_string_value(d->value);

	return slash ? io_format("%.*s/%s", (int)(slash - file), file, from)
		     : io_format("./%s", from);
}

static int take_files(const struct meet *meet, struct spec *s, struct error *err)
{
	s->files = calloc(meet->n + 1, sizeof(*s->files));
	for (size_t i = 0; s->files && i < meet->n; i++) {
		const struct decision *d = &meet->d[i], *mode;
		struct spec_file *f = &s->files[s->nfiles];
		CLEANUP_FREE char *name = NULL;

		if (strcmp(d->field->path, "files.*.from") || !d->value)
			continue;
		s->nfiles++;
		name = io_format("files[%s].mode", d->key);
		mode = name ? meet_find(meet, name) : NULL;
		if (mode && mode->value)
			f->mode = (unsigned)strtoul(json_string_value(mode->value), NULL, 8);
		f->from = source_path(d);
		f->to = strdup(d->key);
		if (!name || !f->from || !f->to)
			return no_memory(err);
	}
	return s->files ? 0 : no_memory(err);
}

/* "debian", or a kind and which one. */
static int take_base(const json_t *environment, struct spec *s, struct error *err)
{
	static const char *const kinds[] = {
		[SPEC_DEBIAN] = "debian:", [SPEC_IMAGE] = "image:", [SPEC_OCI] = "oci:"};
	const char *base = json_string_value(json_object_get(environment, "base"));

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		char **which = i == SPEC_DEBIAN ? &s->release : &s->from;

		if (strncmp(base, kinds[i], strlen(kinds[i])))
			continue;
		s->base = (enum spec_base)i;
		*which = strdup(base + strlen(kinds[i]));
		return *which ? 0 : no_memory(err);
	}
	return 0;
}

static int take_fields(const json_t *environment, struct spec *s, struct error *err)
{
	s->name = text_of(environment, "name");
	s->kernel = text_of(environment, "kernel");
	s->compression = text_of(environment, "compression");
	s->packages = list_of(json_object_get(environment, "packages"), NULL);
	s->modules = list_of(json_object_get(environment, "modules"), NULL);
	s->run = list_of(json_object_get(environment, "steps"), "run");
	s->only_signed = json_is_true(json_object_get(environment, "signed"));
	s->trim = json_is_true(json_object_get(environment, "trim"));
	return s->kernel && s->compression && s->packages && s->modules && s->run
		       ? take_base(environment, s, err)
		       : no_memory(err);
}

int spec_from_meet(const struct meet *meet, struct spec *ret, struct error *err)
{
	json_t *environment = result_json(meet);
	struct spec spec = {0};
	int rc = environment ? take_fields(environment, &spec, err) : no_memory(err);

	json_decref(environment);
	if (rc == 0)
		rc = take_files(meet, &spec, err);
	if (rc < 0)
		spec_done(&spec);
	else
		*ret = spec;
	return rc;
}

void spec_done(struct spec *s)
{
	free(s->name);
	free(s->from);
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

json_t *spec_environment(const struct meet *meet, const char *base)
{
	static const char *const fields[] = {"kernel", "packages",    "modules", "files",
					     "steps",  "compression", "trim"};
	json_t *all = result_json(meet), *own = json_pack("{s:s}", "base", base);

	for (size_t i = 0; own && i < ARRAY_SIZE(fields); i++) {
		json_t *value = json_object_get(all, fields[i]);

		if (value)
			json_object_set(own, fields[i], value);
	}
	/* It is asked for where the image is used, too. */
	if (own && json_is_true(json_object_get(all, "signed")))
		json_object_set_new(own, "signed", json_true());
	json_decref(all);
	return own;
}
