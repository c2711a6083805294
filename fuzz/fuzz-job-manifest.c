/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The manifest of a job's checkpoint from a hostile hand. The first byte says whether the rest is
 * taken as it is, or is JSON that gets the format and digest it should have, so that what is behind
 * them is reached. What was accepted is what it has to be.
 */

#include <stdlib.h>
#include <string.h>

#include "job/checkpoints.h"
#include "lib/error.h"
#include "lib/sealed.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int ok)
{
	if (!ok)
		abort();
}

static void try_text(const char *text, size_t size)
{
	struct job_manifest m;
	struct error err = {{0}};

	if (job_manifest_parse(text, size, "manifest", &m, &err) < 0) {
		require(err.text[0]);
		return;
	}
	require(m.sequence && m.parent < m.sequence && m.vms && m.vms <= JOB_MAX_VMS);
	require(strlen(m.job) == JOB_ID - 1 && json_is_object(m.environment));
	for (size_t i = 0; i < m.vms; i++)
		require(!strncmp(m.vm[i].folder, CHECKPOINTS_VMS "/", 3) &&
			!strchr(m.vm[i].folder + 3, '/') && m.vm[i].folder[3] != '.' &&
			strlen(m.vm[i].folder) < 80 && m.vm[i].epoch);
	for (size_t i = 0; i < m.tasks; i++)
		require(m.task[i].vm && m.task[i].id);
	job_manifest_done(&m);
}

static void try_sealed(const char *data, size_t size)
{
	json_t *json = json_loadb(data, size, 0, NULL);
	char digest[DIGEST_TEXT], *text = NULL;

	if (json_is_object(json)) {
		json_object_set_new(json, "format", json_integer(JOB_FORMAT));
		if (sealed_text(json, &text, digest, NULL) == 0)
			try_text(text, strlen(text));
	}
	free(text);
	json_decref(json);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size && data[0] % 4 == 0)
		try_text((const char *)data + 1, size - 1);
	else if (size)
		try_sealed((const char *)data + 1, size - 1);
	return 0;
}
