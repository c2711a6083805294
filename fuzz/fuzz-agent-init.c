/* SPDX-License-Identifier: Apache-2.0 */
/* What the agent reads as init: the kernel's command line, and the start of the root device. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "agent/init.h"
#include "agent/root.h"
#include "lib/error.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = strndup((const char *)data, size);
	struct init_config config;
	struct error err;

	if (!text)
		abort();
	if (!init_config_parse(text, &config, &err))
		init_config_done(&config);
	root_detect(data, size);
	free(text);
	return 0;
}
