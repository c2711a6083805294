/* SPDX-License-Identifier: Apache-2.0 */
/* Names of nodes taken apart. */

#include "node/nodename.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "lib/error.h"
#include "lib/parse.h"
#include "lib/paths.h"

#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

static int set_host(const char *host, size_t n, bool bracketed, struct nodename *ret,
		    struct error *err)
{
	const char *allowed = bracketed ? LETTERS ".:%-_" : LETTERS ".-_";

	/* The host is a word of a launcher's command as well, and must not look like an option. */
	if (!n || n >= sizeof(ret->host) || *host == '-' || strspn(host, allowed) < n)
		return error_set(err, -EINVAL, "\"%.*s\" is no name or address of a host", (int)n,
				 host);
	memcpy(ret->host, host, n);
	ret->host[n] = 0;
	return 0;
}

static int set_port(const char *text, unsigned least, struct nodename *ret, struct error *err)
{
	unsigned port;
	int r = parse_uint(text, "port", least, 65535, &port, err);

	if (r)
		return r;
	snprintf(ret->port, sizeof(ret->port), "%u", port);
	ret->has_port = true;
	return 0;
}

/* HOST[:PORT] */
static int parse_host(const char *text, unsigned least, struct nodename *ret, struct error *err)
{
	bool bracketed = *text == '[';
	const char *host = text + bracketed;
	size_t n = strcspn(host, bracketed ? "]" : ":");
	const char *rest = host + n + (bracketed && host[n]);
	int r;

	if ((bracketed && !host[n]) || (*rest && (*rest != ':' || strchr(rest + 1, ':'))))
		return error_set(err, -EINVAL,
				 "\"%s\" is not HOST[:PORT]; an IPv6 address is in brackets", text);
	r = set_host(host, n, bracketed, ret, err);
	if (!r && *rest)
		r = set_port(rest + 1, least, ret, err);
	return r;
}

int nodename_parse_address(const char *text, struct nodename *ret, struct error *err)
{
	struct nodename n = {.port = NODENAME_PORT};
	int r = parse_host(text, 0, &n, err);

	if (!r)
		*ret = n;
	return r;
}

int nodename_parse(const char *text, struct nodename *ret, struct error *err)
{
	struct nodename n = {.port = NODENAME_PORT};
	size_t name = strcspn(text, "@");
	int r;

	if (name >= sizeof(n.name))
		return error_set(err, -EINVAL, "\"%.80s\" is no name of a node: it is too long",
				 text);
	memcpy(n.name, text, name);
	r = paths_check_name(n.name, "node", err);
	if (!r)
		r = parse_host(text[name] ? text + name + 1 : n.name, 1, &n, err);
	if (!r)
		*ret = n;
	return r;
}
