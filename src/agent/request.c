/* SPDX-License-Identifier: Apache-2.0 */
/* Requests as JSON objects. */

#include "agent/request.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "agent/client.h"
#include "lib/error.h"
#include "lib/parse.h"

static int set_string(json_t *object, const char *key, const char *value, struct error *err)
{
	if (value && json_object_set_new(object, key, json_string(value)))
		return error_set(err, -EINVAL, "%s \"%s\" is not UTF-8", key, value);
	return 0;
}

int request_set_user(json_t *request, const char *key, const char *user, struct error *err)
{
	uint64_t number;

	if (!user || parse_u64(user, key, 0, UINT32_MAX - 1, &number, NULL))
		return set_string(request, key, user, err);
	return json_object_set_new(request, key, json_integer((json_int_t)number))
		       ? error_errno(err, -ENOMEM, "request")
		       : 0;
}

static int set_argv(json_t *request, const char *const *argv, struct error *err)
{
	json_t *list = json_array();

	for (unsigned i = 0; argv && argv[i]; i++)
		if (json_array_append_new(list, json_string(argv[i]))) {
			json_decref(list);
			return error_set(err, -EINVAL, "argument %u is not UTF-8", i);
		}
	return json_object_set_new(request, "argv", list) ? error_errno(err, -ENOMEM, "request")
							  : 0;
}

static int set_env(json_t *request, const char *const *env, struct error *err)
{
	json_t *object = json_object();
	int r = 0;

	for (unsigned i = 0; !r && env && env[i]; i++) {
		const char *equals = strchr(env[i], '=');
		size_t n = equals ? (size_t)(equals - env[i]) : 0;

		if (!n || json_object_setn_new(object, env[i], n, json_string(equals + 1)))
			r = error_set(err, -EINVAL, "\"%s\" is not NAME=VALUE in UTF-8", env[i]);
	}
	if (!r && json_object_set(request, "env", object))
		r = error_errno(err, -ENOMEM, "request");
	json_decref(object);
	return r;
}

static int set_terminal(json_t *request, const struct client_exec *exec, struct error *err)
{
	struct winsize ws = {.ws_row = 24, .ws_col = 80};
	const char *term = getenv("TERM");

	if (!exec->terminal)
		return 0;
	if (ioctl(exec->in_fd, TIOCGWINSZ, &ws) < 0)
		ioctl(exec->out_fd, TIOCGWINSZ, &ws);
	return json_object_set_new(request, "terminal",
				   json_pack("{s:i,s:i,s:s}", "rows", (int)ws.ws_row, "cols",
					     (int)ws.ws_col, "term", term ? term : "dumb"))
		       ? error_errno(err, -ENOMEM, "request")
		       : 0;
}

int request_exec(const struct client_exec *exec, json_t **ret, struct error *err)
{
	json_t *request = json_pack("{s:s,s:b}", "op", "exec", "shell", (int)exec->shell);
	int r = request ? 0 : error_errno(err, -ENOMEM, "request");

	if (!r)
		r = set_argv(request, exec->argv, err);
	if (!r)
		r = set_env(request, exec->env, err);
	if (!r)
		r = set_string(request, "cwd", exec->cwd, err);
	if (!r)
		r = request_set_user(request, "user", exec->user, err);
	if (!r)
		r = request_set_user(request, "group", exec->group, err);
	if (!r)
		r = set_terminal(request, exec, err);
	if (r)
		json_decref(request);
	else
		*ret = request;
	return r;
}

int request_task_start(const char *id, const struct client_exec *exec, json_t **ret,
		       struct error *err)
{
	int r = request_exec(exec, ret, err);

	if (r)
		return r;
	if (json_object_set_new(*ret, "op", json_string("task-start")) ||
	    json_object_set_new(*ret, "id", json_string(id)) ||
	    (exec->in_fd < 0 && json_object_set_new(*ret, "stdin", json_false()))) {
		json_decref(*ret);
		return error_set(err, -EINVAL, "the id of a task is not UTF-8");
	}
	return 0;
}
