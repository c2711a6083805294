/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_AGENT_REQUEST_H
#define WISP_AGENT_REQUEST_H

/* Building request objects from C strings, with a reason when they are not UTF-8. */

#include <jansson.h>

struct client_exec;
struct error;

/* Sets key to a name, or to a number when it is all digits; nothing when user is NULL. */
int request_set_user(json_t *request, const char *key, const char *user, struct error *err);

/* The exec request with the size of the caller's terminal; a new object in *ret. */
int request_exec(const struct client_exec *exec, json_t **ret, struct error *err);

/* The same as a task of that id; without an in_fd its input is empty. */
int request_task_start(const char *id, const struct client_exec *exec, json_t **ret,
		       struct error *err);

#endif
