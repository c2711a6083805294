/* SPDX-License-Identifier: Apache-2.0 */
/* How the commands of wisp cluster read their options, and reach coordinators. */

#include <errno.h>
#include <unistd.h>

#include "cli/cmd-cluster.h"
#include "job/folder.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "node/ask.h"

#define LONG_S (4u * 3600)

int cluster_parse(const struct command *cmd, int argc, char **argv, int least, int most,
		  struct option_parser *parser, unsigned *flags)
{
	const char *value;
	struct error err;
	int id;

	*flags = 0;
	option_start(parser, cmd, argc, argv);
	while ((id = option_next(parser, &value, &err)) > 0) {
		if (id == OPTION_HELP)
			return -1;
		*flags |= 1u << id;
	}
	if (!id && parser->argc < least)
		id = error_set(&err, -EINVAL, "give the name of a cluster");
	if (!id && most >= 0 && parser->argc > most)
		id = error_set(&err, -EINVAL, "unexpected argument %s", parser->argv[most]);
	return id ? cli_fail(cmd, EXIT_USAGE, &err) : 0;
}

static int ask_it(const char *name, json_t *request, unsigned seconds,
		  const struct cluster_watch *watch, json_t **ret, struct error *err)
{
	CLEANUP_FREE char *socket = NULL;
	struct ask *coordinator = NULL;
	json_t *value = NULL;
	int r = folder_socket(name, &socket, err);

	if (!r)
		r = ask_open(socket, &coordinator, err);
	if (!r && seconds)
		ask_set_patience(coordinator, seconds);
	if (!r && watch)
		ask_set_events(coordinator, watch->event, watch->arg);
	if (!r && watch && watch->interrupt)
		r = ask_set_interrupt(coordinator, watch->interrupt, err);
	if (!r)
		r = ask(coordinator, request, &value, err);
	ask_close(coordinator);
	json_decref(request);
	if (!r && ret)
		*ret = value;
	else
		json_decref(value);
	return r;
}

int cluster_ask(const char *name, json_t *request, json_t **ret, struct error *err)
{
	return ask_it(name, request, 0, NULL, ret, err);
}

int cluster_ask_long(const char *name, json_t *request, json_t **ret, struct error *err)
{
	return ask_it(name, request, LONG_S, NULL, ret, err);
}

int cluster_ask_watching(const char *name, json_t *request, const struct cluster_watch *watch,
			 json_t **ret, struct error *err)
{
	return ask_it(name, request, LONG_S, watch, ret, err);
}

int cluster_tell(const struct command *cmd, int argc, char **argv, const char *op,
		 cluster_ask_fn *tell)
{
	struct option_parser parser;
	struct error err;
	unsigned flags;
	int r = cluster_parse(cmd, argc, argv, 1, 1, &parser, &flags);

	if (r)
		return r < 0 ? 0 : r;
	r = tell(parser.argv[0], json_pack("{s:s}", "op", op), NULL, &err);
	return r ? cli_fail(cmd, EXIT_FAILURE, &err) : 0;
}

int cluster_find(const char *name, const char *folder, struct error *err)
{
	return access(folder, F_OK)
		       ? error_set(err, -ENOENT,
				   "there is no cluster %s (\"wisp cluster list\" shows all)", name)
		       : 0;
}
