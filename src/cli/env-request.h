/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_CLI_ENV_REQUEST_H
#define WISP_CLI_ENV_REQUEST_H

/* What the commands of wisp env have in common: documents, policy, facts and waivers. */

#include "cli/commands.h"
#include "env/result.h"

#define ENV_POLICY "/etc/wisp/policy.d"
#define ENV_KEYS "/etc/wisp/keys.d"

enum { ENV_OPT_POLICY = 1, ENV_OPT_KEYS, ENV_OPT_FACT, ENV_OPT_WAIVER, ENV_OPT_JSON, ENV_OPT_OWN };

/* Rows of the option tables. */
#define ENV_OPTIONS                                                                             \
	{ENV_OPT_POLICY,                                                                        \
	 "policy",                                                                              \
	 0,                                                                                     \
	 "DIR",                                                                                 \
	 "Folder of the site's documents (default " ENV_POLICY " when it is there)",            \
	 COMPLETE_DIR},                                                                         \
		{ENV_OPT_FACT,                                                                  \
		 "fact",                                                                        \
		 0,                                                                             \
		 "NAME=VALUE",                                                                  \
		 "A fact of the request (may be repeated; user and group default to yours)",    \
		 0},                                                                            \
		{ENV_OPT_WAIVER, "waiver", 0, "FILE", "A waiver of one rule (may be repeated)", \
		 COMPLETE_FILE},                                                                \
		{ENV_OPT_KEYS,                                                                  \
		 "keys",                                                                        \
		 0,                                                                             \
		 "DIR",                                                                         \
		 "Folder of the keys that waivers are signed by (default " ENV_KEYS ")",        \
		 COMPLETE_DIR},                                                                 \
	{                                                                                       \
		ENV_OPT_JSON, "json", 0, NULL, "Print JSON", 0                                  \
	}

struct env_request {
	struct documents docs;
	json_t *facts;
	struct args waiver_files, waived; /* waived: rules */
	const char *policy, *keys;	  /* NULL: the default */
	bool json;
};

/* Takes one of the common options. 0, or -EINVAL. */
int env_request_option(struct env_request *r, int id, const char *value, struct error *err);

/*
 * Loads the user's files, policy and waivers and completes the facts. 0, or -EINVAL: either err is
 * set, or there are problems in docs (err->text is empty then).
 */
int env_request_load(struct env_request *r, char **files, int n, struct error *err);
void env_request_done(struct env_request *r);

/* Tells what env_request_load() failed of, as text or JSON; the exit code. */
int env_request_fail(const struct command *cmd, const struct env_request *r,
		     const struct error *err);

#endif
