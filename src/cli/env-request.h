/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_CLI_ENV_REQUEST_H
#define WISP_CLI_ENV_REQUEST_H

/* What the commands of wisp env have in common: documents, policy, facts and waivers. */

#include "cli/commands.h"
#include "env/result.h"

#define ENV_POLICY "/etc/wisp/policy.d"
#define ENV_KEYS "/etc/wisp/keys.d"

enum { ENV_OPT_POLICY = 1, ENV_OPT_KEYS, ENV_OPT_FACT, ENV_OPT_WAIVER, ENV_OPT_JSON, ENV_OPT_OWN };

/* Rows of the option tables: who gathers a request, and who prints JSON besides. */
#define ENV_REQUEST_OPTIONS                                                                     \
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
	{                                                                                       \
		ENV_OPT_KEYS, "keys", 0, "DIR",                                                 \
			"Folder of the keys that waivers are signed by (default " ENV_KEYS ")", \
			COMPLETE_DIR                                                            \
	}
#define ENV_OPTIONS                                            \
	ENV_REQUEST_OPTIONS,                                   \
	{                                                      \
		ENV_OPT_JSON, "json", 0, NULL, "Print JSON", 0 \
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
 * Loads the user's files, policy and waivers, completes the facts, and meets all. Returns 0 (there
 * may be conflicts), or the exit code when there are errors, which it has told. Free with
 * meet_done() and env_request_done() in any case; documents of the meet are the request's.
 */
int env_request_meet(const struct command *cmd, struct env_request *r, char **files, int n,
		     struct meet *ret);
void env_request_done(struct env_request *r);

/* Tells the conflicts of a meet; the exit code. */
int env_tell_conflicts(const struct command *cmd, const struct meet *meet);

#endif
