/* SPDX-License-Identifier: Apache-2.0 */
/* Has a VM's agent mount its shares and volumes, or let go of the shares. */

#include "vms/shares-agent.h"

#include <errno.h>
#include <stdlib.h>

#include "agent/client.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "vms/agent.h"
#include "vms/record.h"

/* What the agent needs to know of each. */
static json_t *for_agent(const json_t *shares)
{
	json_t *list = json_array();
	const json_t *share;
	size_t i;

	json_array_foreach (shares, i, share)
		json_array_append_new(list,
				      json_pack("{ss,ss,sb}", "tag", record_text(share, "tag"),
						"target", record_text(share, "target"), "readonly",
						json_is_true(json_object_get(share, "readonly"))));
	return list;
}

static int tell(const char *dir, const char *what, json_t *list, struct error *err)
{
	json_t *settings = json_pack("{so}", what, list);
	CLEANUP_CLOSE int fd =
		settings ? vm_agent_connect(dir, err) : error_errno(err, -ENOMEM, "%s", what);
	int r = fd;

	if (r >= 0)
		r = client_configure(fd, settings, err);
	json_decref(settings);
	return r;
}

int shares_attach(const char *dir, const json_t *config, struct error *err)
{
	const json_t *shares = json_object_get(config, "shares");

	return json_array_size(shares) ? tell(dir, "shares", for_agent(shares), err) : 0;
}

int shares_detach(const char *dir, const json_t *config, struct error *err)
{
	int r;

	if (!json_array_size(json_object_get(config, "shares")))
		return 0;
	r = tell(dir, "shares", json_array(), err);
	if (r)
		shares_attach(dir, config, NULL);
	return r;
}

int volumes_attach(const char *dir, const json_t *config, struct error *err)
{
	json_t *list = json_array();
	const json_t *disk;
	size_t i;

	json_array_foreach (json_object_get(config, "disks"), i, disk)
		if (*record_text(disk, "target"))
			json_array_append_new(
				list, json_pack("{ss,ss,sb}", "disk", record_text(disk, "name"),
						"target", record_text(disk, "target"), "readonly",
						json_is_true(json_object_get(disk, "readonly"))));
	if (json_array_size(list))
		return tell(dir, "volumes", list, err);
	json_decref(list);
	return 0;
}
