/* SPDX-License-Identifier: Apache-2.0 */
/* A list of places that anybody wrote: what is taken is written the same way and read again. */

#include <stdlib.h>
#include <string.h>

#include "input.h"
#include "lib/error.h"
#include "tree/nodeset.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int ok)
{
	if (!ok)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = strndup((const char *)data, size), *once, *twice;
	struct nodeset set = {0}, copy = {0};
	struct error err = {{0}};
	int rc = nodeset_parse(text, &set, &err);

	free(text);
	if (rc < 0) {
		require(err.text[0] && !set.range);
		return 0;
	}
	once = nodeset_format(&set);
	require(nodeset_parse(once, &copy, &err) == 0);
	twice = nodeset_format(&copy);
	require(!strcmp(once, twice));
	require(nodeset_contains(&set, &copy) && nodeset_contains(&copy, &set));
	require(nodeset_subtract(&copy, &set) == 0 && nodeset_count(&copy) == 0);
	nodeset_done(&set);
	nodeset_done(&copy);
	free(once);
	free(twice);
	return 0;
}
