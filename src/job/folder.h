/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_JOB_FOLDER_H
#define WISP_JOB_FOLDER_H

/*
 * The state directory of a cluster, RUN/job/NAME (docs/formats/job.md): locked by its coordinator
 * as long as that lives. Any thread.
 */

#include <jansson.h>
#include <stdbool.h>

struct error;

#define FOLDER_SOCKET "control"
#define FOLDER_STATE "state.json"
#define FOLDER_LOG "log"
#define FOLDER_OUT "out"
#define FOLDER_ERR "err"

/* The directory of a cluster's name, whether it is there or not; a new string. */
int folder_path(const char *name, char **ret, struct error *err);

/* A file of it; NULL: no memory. */
char *folder_file(const char *folder, const char *file);

/* Takes it for a new cluster: the lock's descriptor. -EBUSY: one of that name runs. */
int folder_take(const char *name, const char *folder, struct error *err);

/*
 * The socket of the coordinator of a cluster that runs, a new string. -ENOENT: there is none of
 * that name; -ESRCH: it has ended; -ECHILD: its coordinator has died.
 */
int folder_socket(const char *name, char **ret, struct error *err);

/* What a cluster's coordinator has written down last, a new reference; or NULL. */
json_t *folder_state(const char *folder);
int folder_write_state(const char *folder, const json_t *state, struct error *err);

/* Names of all clusters of the user, sorted; free with state_list_free() of net/state.h. */
int folder_names(char ***ret, struct error *err);

bool folder_is_alive(const char *folder);

/* Removes the directory that the caller has taken. */
void folder_remove(const char *folder);

/* Removes what a dead coordinator left. */
void folder_sweep(const char *folder);

#endif
