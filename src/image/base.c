/* SPDX-License-Identifier: Apache-2.0 */
/* Finds what a root grows out of. */

#include "image/base.h"

#include <errno.h>
#include <string.h>

#include "image/image.h"
#include "image/oci.h"
#include "image/sources.h"
#include "image/spec.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

static int no_memory(struct error *err)
{
	return error_set(err, -ENOMEM, "out of memory");
}

static int get_debian(const struct spec *spec, struct base *base, struct error *err)
{
	int rc = 0;

	if (spec->release)
		base->release = strdup(spec->release);
	else
		rc = sources_release(&base->release, err);
	if (rc < 0)
		return rc;
	base->text = base->release ? io_format("debian:%s", base->release) : NULL;
	return base->text ? 0 : no_memory(err);
}

/* Debian's release in an image: that of its own environment, or of what it grew out of. */
static const char *release_of(const json_t *manifest)
{
	const char *base = json_string_value(
		json_object_get(json_object_get(manifest, "environment"), "base"));
	const char *grown =
		json_string_value(json_object_get(json_object_get(manifest, "base"), "release"));

	return base && !strncmp(base, "debian:", 7) ? base + 7 : grown;
}

static int take_image(const struct image *image, struct base *base, struct error *err)
{
	const char *release = release_of(image->manifest);
	int rc = image_digest(image->manifest, base->digest, err);

	if (rc < 0)
		return rc;
	base->text = io_format("image:%s@sha256:%s", image->name, base->digest);
	base->tree = strdup(image->root);
	base->release = release ? strdup(release) : NULL;
	return base->text && base->tree && (base->release || !release) ? 0 : no_memory(err);
}

static int get_image(const struct spec *spec, const char *name, const char *keys, struct base *base,
		     struct error *err)
{
	size_t n = strcspn(spec->from, "@");
	struct image image;
	int rc;

	if (strlen(name) == n && !strncmp(spec->from, name, n))
		return error_set(err, -EINVAL, "base: image %s cannot be built of itself", name);
	rc = image_open(spec->from, &image, err);
	if (rc < 0)
		return error_prefix(err, rc, "base");
	rc = image_verify(&image, err);
	if (rc < 0)
		error_prefix(err, rc, "base");
	if (rc == 0)
		rc = take_image(&image, base, err);
	if (rc == 0 && spec->only_signed)
		rc = image_check_signature(&image, keys, NULL, err);
	image_close(&image);
	return rc;
}

static int get_oci(const struct spec *spec, bool refresh, struct base *base, struct error *err)
{
	struct oci oci;
	int rc = oci_get(spec->from, refresh, &oci, err);

	if (rc < 0)
		return rc;
	memcpy(base->digest, oci.digest, sizeof(base->digest));
	base->tree = take_ptr(oci.layout);
	base->note = take_ptr(oci.note);
	base->text = io_format("oci:%s", spec->from);
	oci_done(&oci);
	return base->text ? 0 : no_memory(err);
}

int base_get(const struct spec *spec, const char *name, bool refresh, const char *keys,
	     struct base *ret, struct error *err)
{
	struct base base = {0};
	int rc = spec->base == SPEC_IMAGE ? get_image(spec, name, keys, &base, err)
		 : spec->base == SPEC_OCI ? get_oci(spec, refresh, &base, err)
					  : get_debian(spec, &base, err);

	if (rc < 0)
		base_done(&base);
	else
		*ret = base;
	return rc;
}

void base_done(struct base *base)
{
	free(base->text);
	free(base->tree);
	free(base->release);
	free(base->note);
	*base = (struct base){0};
}
