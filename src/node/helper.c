/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wisp-node-helper: does one job for the node's daemon. The job is a JSON object on standard input;
 * what came of it one on standard output: {} or {"errno", "error"}. See docs/formats/node.md.
 */

#include "node/helper.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/jsonline.h"

static const struct {
	const char *op;
	helper_job *fn;
} jobs[] = {
	{"network-make", helper_network_make},
	{"network-nodes", helper_network_nodes},
	{"network-taps", helper_network_taps},
	{"clean", helper_clean},
	{"become", helper_become},
};

const char *helper_text(const json_t *job, const char *key)
{
	return json_string_value(json_object_get(job, key));
}

int helper_need(const json_t *job, const char *key, const char **ret, struct error *err)
{
	*ret = helper_text(job, key);
	return *ret ? 0 : error_set(err, -EINVAL, "the job has no \"%s\"", key);
}

static int run(const json_t *job, struct error *err)
{
	const char *op;
	int r = helper_need(job, "op", &op, err);

	for (size_t i = 0; !r && i < ARRAY_SIZE(jobs); i++)
		if (!strcmp(jobs[i].op, op))
			return jobs[i].fn(job, err);
	return r ? r : error_set(err, -ENOSYS, "there is no job \"%.64s\"", op);
}

int main(int argc, char **argv)
{
	struct error err = {""};
	json_error_t where;
	json_t *job, *said;
	int r;

	io_open_standard_fds();
	if (argc > 1) {
		fprintf(stderr, "wisp-node-helper is run by wispd, with a job on standard input\n");
		return 2;
	}
	job = json_loadfd(STDIN_FILENO, 0, &where);
	r = job ? run(job, &err) : error_set(&err, -EINVAL, "no job: %s", where.text);
	said = r ? json_pack("{s:i, s:s}", "errno", -r, "error", err.text) : json_object();
	if (jsonline_write(STDOUT_FILENO, said))
		r = -EPIPE;
	json_decref(said);
	json_decref(job);
	return r ? 1 : 0;
}
