/* SPDX-License-Identifier: Apache-2.0 */
/* The wisp.* words of the kernel command line. */

#include "agent/init.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"

/* Cuts the next word off, as the kernel does: blanks separate, double quotes protect and vanish. */
static char *next_word(char **rest)
{
	char *in = *rest + strspn(*rest, " \t\n"), *out = in, *word = in;
	bool quoted = false;

	if (!*in)
		return NULL;
	for (; *in && (quoted || !strchr(" \t\n", *in)); in++) {
		if (*in == '"')
			quoted = !quoted;
		else
			*out++ = *in;
	}
	*rest = *in ? in + 1 : in;
	*out = 0;
	return word;
}

static int add(const char **list, unsigned *count, unsigned room, const char *key,
	       const char *value, struct error *err)
{
	if (*count == room)
		return error_set(err, -E2BIG, "more than %u times %s", room, key);
	list[(*count)++] = value;
	return 0;
}

static int take_word(struct init_config *c, char *word, struct error *err)
{
	char *value = strchr(word, '=');

	if (strncmp(word, "wisp.", 5) || !value)
		return 0;
	*value++ = 0;
	if (!strcmp(word, "wisp.root"))
		c->root = value;
	else if (!strcmp(word, "wisp.name"))
		c->name = value;
	else if (!strcmp(word, "wisp.hosts"))
		c->hosts = value;
	else if (!strcmp(word, "wisp.dns"))
		c->dns = value;
	else if (!strcmp(word, "wisp.exec"))
		c->exec = value;
	else if (!strcmp(word, "wisp.net"))
		return add(c->nets, &c->net_count, ARRAY_SIZE(c->nets), word, value, err);
	else if (!strcmp(word, "wisp.listen"))
		return add(c->listens, &c->listen_count, ARRAY_SIZE(c->listens), word, value, err);
	return 0;
}

int init_config_parse(const char *cmdline, struct init_config *ret, struct error *err)
{
	struct init_config c = {.text = strdup(cmdline)};
	char *rest = c.text, *word;
	int r = c.text ? 0 : error_errno(err, -ENOMEM, "command line");

	while (!r && (word = next_word(&rest)))
		r = take_word(&c, word, err);
	if (r)
		init_config_done(&c);
	else
		*ret = c;
	return r;
}

void init_config_done(struct init_config *config)
{
	free(config->text);
	*config = (struct init_config){0};
}
