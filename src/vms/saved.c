/* SPDX-License-Identifier: Apache-2.0 */
/* Reads what a checkpoint was made of. */

#include "vms/saved.h"

#include <errno.h>
#include <stdlib.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "mover/epoch.h"
#include "vms/record.h"

static int newest(const struct store *store, const char *dir, uint64_t *ret, struct error *err)
{
	CLEANUP_FREE uint64_t *epochs = NULL;
	size_t n = 0;
	int r = store_epochs(store, &epochs, &n, err);

	if (r || !n)
		return r ? r : error_set(err, -ENOENT, "there is no checkpoint in %s", dir);
	*ret = epochs[n - 1];
	return 0;
}

int saved_read(const char *dir, uint64_t *at, json_t **config, json_t **files, struct error *err)
{
	struct manifest manifest;
	struct store store;
	json_t *caller;
	int r = store_open(dir, false, &store, err);

	if (r)
		return r;
	if (!*at)
		r = newest(&store, dir, at, err);
	if (!r)
		r = epoch_manifest(&store, *at, &manifest, err);
	store_close(&store);
	if (r)
		return r;
	/* What wisp-mover was given: vm.json. */
	caller = json_object_get(json_object_get(manifest.json, "config"), "caller");
	if (!config || (json_is_object(caller) && *record_text(caller, "address"))) {
		if (config)
			*config = json_deep_copy(caller);
		*files = json_incref(json_object_get(manifest.json, "files"));
	} else {
		r = error_set(err, -EBADMSG,
			      "%s was not made by wisp vm checkpoint: it does not say how to start "
			      "its VM (wisp-mover restore loads it into one that you start)",
			      dir);
	}
	manifest_done(&manifest);
	return r;
}
