/* SPDX-License-Identifier: Apache-2.0 */
/* Whether a VM may run an image. */

#include <errno.h>

#include "image/image.h"
#include "lib/error.h"

static bool asks(const json_t *environment)
{
	return json_is_true(json_object_get(environment, "signed"));
}

/* Who asks for a signature, for the error; NULL: nobody. */
static const char *who_asks(const struct image *image, const struct image_demand *demand)
{
	if (demand->is_signed)
		return "a signed image is asked for";
	if (asks(demand->environment))
		return "the environment says signed: yes";
	return asks(json_object_get(image->manifest, "environment"))
		       ? "the environment it was built of says signed: yes"
		       : NULL;
}

int image_admit(const char *reference, const struct image_demand *demand, struct image *ret,
		struct error *err)
{
	struct image image;
	const char *who;
	int rc = image_open(reference, &image, err);

	if (rc < 0)
		return rc;
	who = who_asks(&image, demand);
	if (who) {
		rc = image_check_signature(&image, demand->keys, NULL, err);
		if (rc < 0)
			error_prefix(err, rc, "%s", who);
	}
	if (rc == 0 && (who || image.pinned))
		rc = image_verify_once(&image, err);
	if (rc < 0)
		image_close(&image);
	else
		*ret = image;
	return rc;
}
