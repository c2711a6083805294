/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as an image specification, and as a list of installed packages. */

#include <stdlib.h>
#include <string.h>

#include "image/root.h"
#include "image/spec.h"
#include "lib/error.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);
	struct spec spec;
	struct error err;

	if (!text)
		abort();
	memcpy(text, data, size);
	text[size] = '\0';
	if (!spec_parse(text, size, "spec", &spec, &err)) {
		json_decref(spec_json(&spec));
		spec_done(&spec);
	}
	json_decref(root_packages(text));
	free(text);
	return 0;
}
