/* SPDX-License-Identifier: Apache-2.0 */
/* Finding clusters by their state directories. */

#include "job/folder.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/paths.h"
#include "net/state.h"

#define STATE_MAX (64u << 20)

int folder_path(const char *name, char **ret, struct error *err)
{
	int r = paths_check_name(name, "cluster", err);

	return r ? r : paths_run("job", name, ret, err);
}

char *folder_file(const char *folder, const char *file)
{
	return io_format("%s/%s", folder, file);
}

int folder_take(const char *name, const char *folder, struct error *err)
{
	int lock = -1, r = state_lock(folder, &lock, err);

	if (r == -EBUSY)
		return error_set(err, r,
				 "cluster %s runs already (wisp cluster show %s); --name gives "
				 "another name",
				 name, name);
	return r ? r : lock;
}

bool folder_is_alive(const char *folder)
{
	return state_alive(folder);
}

static bool has_ended(const char *folder)
{
	json_t *state = folder_state(folder);
	bool ended = json_object_get(state, "end");

	json_decref(state);
	return ended;
}

int folder_socket(const char *name, char **ret, struct error *err)
{
	CLEANUP_FREE char *folder = NULL;
	int r = folder_path(name, &folder, err);

	if (r)
		return r;
	if (access(folder, F_OK))
		return error_set(err, -ENOENT,
				 "there is no cluster %s (\"wisp cluster list\" shows all)", name);
	if (!folder_is_alive(folder) && has_ended(folder))
		return error_set(
			err, -ESRCH,
			"cluster %s has ended: \"wisp cluster show %s\" tells how, and \"wisp "
			"cluster stop %s\" forgets it",
			name, name, name);
	if (!folder_is_alive(folder))
		return error_set(err, -ECHILD,
				 "the coordinator of cluster %s has died: its nodes end it, and "
				 "\"wisp cluster stop %s\" forgets it",
				 name, name);
	*ret = folder_file(folder, FOLDER_SOCKET);
	return *ret ? 0 : error_set(err, -ENOMEM, "out of memory");
}

json_t *folder_state(const char *folder)
{
	CLEANUP_FREE char *path = folder_file(folder, FOLDER_STATE);
	CLEANUP_FREE char *text = NULL;

	if (!path || io_read_file(path, STATE_MAX, &text, NULL) < 0)
		return NULL;
	return json_loads(text, JSON_REJECT_DUPLICATES, NULL);
}

int folder_write_state(const char *folder, const json_t *state, struct error *err)
{
	CLEANUP_FREE char *path = folder_file(folder, FOLDER_STATE);
	CLEANUP_FREE char *text = json_dumps(state, JSON_COMPACT);
	CLEANUP_FREE char *new = path ? io_format("%s.new", path) : NULL;
	CLEANUP_FILE FILE *f = new &&text ? fopen(new, "we") : NULL;

	/* Not synced: after a crash of the machine nobody asks for it. */
	if (!f || fputs(text, f) < 0 || fputc('\n', f) < 0 || fflush(f) || rename(new, path))
		return error_errno(err, errno ? -errno : -ENOMEM, "cannot write %s/" FOLDER_STATE,
				   folder);
	return 0;
}

int folder_names(char ***ret, struct error *err)
{
	CLEANUP_FREE char *all = NULL;
	int r = paths_run("job", NULL, &all, err);

	return r ? r : state_list(all, ret, err);
}

void folder_remove(const char *folder)
{
	state_remove(folder, NULL);
}

void folder_sweep(const char *folder)
{
	state_sweep(folder, NULL);
}
