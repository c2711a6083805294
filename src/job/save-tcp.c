/* SPDX-License-Identifier: Apache-2.0 */
/* Counters of TCP around a cut. */

#include "job/save-tcp.h"

#include <stdbool.h>

#include "job/gather.h"
#include "lib/cleanup.h"
#include "lib/io.h"

/* One VM's. False: they are not of one kernel's life, or none. */
static bool subtract(const json_t *before, const json_t *after, json_t **ret)
{
	static const char *const names[] = {"sent", "retransmitted", "timeouts"};
	json_t *difference = json_object();

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		const json_t *from = json_object_get(before, names[i]);
		const json_t *to = json_object_get(after, names[i]);

		if (!json_is_integer(from) || !json_is_integer(to) ||
		    json_integer_value(to) < json_integer_value(from)) {
			json_decref(difference);
			return false;
		}
		json_object_set_new(
			difference, names[i],
			json_integer(json_integer_value(to) - json_integer_value(from)));
	}
	*ret = difference;
	return true;
}

void save_tcp_before(struct save_tcp *tcp, const struct gather *answer)
{
	const char *place;
	json_t *node;

	json_decref(tcp->before);
	tcp->before = json_object();
	tcp->since = io_now_ns();
	json_object_foreach (answer->values, place, node)
		json_object_update(tcp->before, node);
}

void save_tcp_after(struct save_tcp *tcp, const struct gather *answer)
{
	const char *place, *vm;
	json_t *node, *value, *difference;

	json_decref(tcp->vms);
	tcp->vms = json_object();
	tcp->ms = (io_now_ns() - tcp->since) / 1000000;
	json_object_foreach (answer->values, place, node)
		json_object_foreach (node, vm, value)
			if (subtract(json_object_get(tcp->before, vm), value, &difference))
				json_object_set_new(tcp->vms, vm, difference);
}

json_t *save_tcp_describe(const struct save_tcp *tcp)
{
	return json_object_size(tcp->vms)
		       ? json_pack("{s:I, s:O}", "ms", (json_int_t)tcp->ms, "vms", tcp->vms)
		       : NULL;
}

void save_tcp_done(struct save_tcp *tcp)
{
	json_decref(tcp->before);
	json_decref(tcp->vms);
	*tcp = (struct save_tcp){0};
}
