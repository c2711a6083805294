/* SPDX-License-Identifier: Apache-2.0 */
/* Entries that count, one by one. */

#include "vms/hosts.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "lib/error.h"
#include "vms/record.h"
#include "vms/subnet.h"

#define DIGITS_MAX 9 /* of a name's number: it fits in 32 bits, whatever is added */

struct range {
	const char *name;
	size_t stem; /* bytes of the name before its number */
	uint32_t number, address, count;
};

/* A number with zeros before it would not count as people expect. */
static bool split_name(const char *name, struct range *ret)
{
	size_t n = strlen(name), digits = 0;

	while (digits < n && isdigit((unsigned char)name[n - digits - 1]))
		digits++;
	if (!digits || digits > DIGITS_MAX || (digits > 1 && name[n - digits] == '0'))
		return false;
	ret->name = name;
	ret->stem = n - digits;
	ret->number = (uint32_t)strtoul(name + ret->stem, NULL, 10);
	return true;
}

static int parse(const json_t *host, struct range *ret, struct error *err)
{
	const json_t *count = json_object_get(host, "count");
	const char *name = record_text(host, "name"), *address = record_text(host, "address");

	if (!json_is_integer(count) || json_integer_value(count) < 1 ||
	    json_integer_value(count) > HOSTS_ALL_MAX)
		return error_set(err, -EINVAL,
				 "hosts: \"count\" of \"%s\" is no number from 1 to %d", name,
				 HOSTS_ALL_MAX);
	ret->count = (uint32_t)json_integer_value(count);
	if (!split_name(name, ret))
		return error_set(err, -EINVAL,
				 "hosts: no names count up from \"%s\": it ends in no number",
				 name);
	if (subnet_parse_ipv4(address, &ret->address) || ret->address + ret->count < ret->address)
		return error_set(err, -EINVAL, "hosts: no %u addresses count up from \"%s\"",
				 ret->count, address);
	return 0;
}

static void add_range(const struct range *range, json_t *list)
{
	char address[16];

	for (uint32_t i = 0; i < range->count; i++)
		json_array_append_new(list, json_pack("{s:o, s:s}", "name",
						      json_sprintf("%.*s%u", (int)range->stem,
								   range->name, range->number + i),
						      "address",
						      subnet_format(range->address + i, address)));
}

static int add(const json_t *host, json_t *list, struct error *err)
{
	struct range range = {.count = 1};
	bool counts = json_object_get(host, "count");
	int r = counts ? parse(host, &range, err) : 0;

	if (!r && json_array_size(list) + range.count > HOSTS_ALL_MAX)
		r = error_set(err, -E2BIG, "the VMs of a network know %d names, no more",
			      HOSTS_ALL_MAX);
	if (r)
		return r;
	if (counts)
		add_range(&range, list);
	else
		json_array_append_new(list,
				      json_pack("{s:s, s:s}", "name", record_text(host, "name"),
						"address", record_text(host, "address")));
	return 0;
}

int hosts_expand(const json_t *hosts, json_t **ret, struct error *err)
{
	json_t *list = json_array();
	const json_t *host;
	size_t i;
	int r = 0;

	json_array_foreach (hosts, i, host)
		if (!r)
			r = add(host, list, err);
	if (r)
		json_decref(list);
	else
		*ret = list;
	return r;
}
