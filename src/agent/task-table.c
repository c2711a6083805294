/* SPDX-License-Identifier: Apache-2.0 */
/* The table of tasks: whose they are, how many, and what is told of them. */

#include "agent/task.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>

#include "agent/agent.h"
#include "agent/program.h"
#include "lib/error.h"

#define WINDOW_MAX (8u << 20)
#define WINDOW_MIN (64u << 10) /* also what it is a multiple of */
#define WINDOW_SHARE 256       /* of the memory: with both windows of all tasks a quarter */

static size_t window_size(const struct agent *agent)
{
	struct sysinfo info;
	uint64_t share = sysinfo(&info) < 0 ? 0 : info.totalram / WINDOW_SHARE * info.mem_unit;

	if (agent->task_window)
		return agent->task_window;
	share -= share % WINDOW_MIN;
	return share > WINDOW_MAX ? WINDOW_MAX : share < WINDOW_MIN ? WINDOW_MIN : (size_t)share;
}

static bool id_valid(const char *id)
{
	size_t n = strspn(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-");

	return n && !id[n] && n <= TASK_ID_MAX && isalnum((unsigned char)id[0]);
}

static struct task *lookup(const struct agent *agent, const char *id, uid_t owner)
{
	struct task *t = agent->tasks;

	while (t && (t->owner != owner || strcmp(t->id, id)))
		t = t->next;
	return t;
}

static int exists(const struct task *t, struct error *err)
{
	if (!t->started)
		return error_set(err, -EEXIST, "task %s exists already: it is being started",
				 t->id);
	if (t->program)
		return error_set(err, -EEXIST, "task %s exists already: it runs as process %d",
				 t->id, t->pid);
	if (WIFSIGNALED(t->status))
		return error_set(err, -EEXIST, "task %s exists already: it was ended by signal %d",
				 t->id, WTERMSIG(t->status));
	return error_set(err, -EEXIST, "task %s exists already: it has ended with exit code %d",
			 t->id, WEXITSTATUS(t->status));
}

static int check_room(const struct agent *agent, uid_t caller, struct error *err)
{
	unsigned all = 0, others = 0;

	for (const struct task *t = agent->tasks; t; t = t->next) {
		all++;
		others += t->owner != 0;
	}
	if (all < TASKS_MAX && (!caller || others < TASKS_MAX_OTHERS))
		return 0;
	return error_set(err, -ENOSPC,
			 "there are %u tasks: remove some that have ended (task-remove)", all);
}

int task_create(struct agent *agent, const char *id, uid_t caller, struct task **ret,
		struct error *err)
{
	struct task *t;
	int r;

	if (!id || !id_valid(id))
		return error_set(err, -EINVAL,
				 "\"id\" is not 1 to %d letters, digits, dots, underscores and "
				 "dashes, the first a letter or digit",
				 TASK_ID_MAX);
	t = lookup(agent, id, caller);
	if (t)
		return exists(t, err);
	r = check_room(agent, caller, err);
	if (r)
		return r;
	t = calloc(1, sizeof(*t));
	if (!t)
		return error_errno(err, -ENOMEM, "cannot start task %s", id);
	t->agent = agent;
	t->owner = caller;
	snprintf(t->id, sizeof(t->id), "%s", id);
	t->next = agent->tasks;
	agent->tasks = t;
	if (window_init(&t->out[0], window_size(agent)) ||
	    window_init(&t->out[1], window_size(agent))) {
		task_destroy(t);
		return error_errno(err, -ENOMEM, "cannot start task %s", id);
	}
	*ret = t;
	return 0;
}

void task_destroy(struct task *t)
{
	struct task **at = &t->agent->tasks;

	while (*at != t)
		at = &(*at)->next;
	*at = t->next;
	window_done(&t->out[0]);
	window_done(&t->out[1]);
	free(t->path);
	free(t);
}

void tasks_done(struct agent *agent)
{
	while (agent->tasks)
		task_destroy(agent->tasks);
}

int task_find(struct agent *agent, uid_t caller, const json_t *request, struct task **ret,
	      struct error *err)
{
	const char *id = json_string_value(json_object_get(request, "id"));
	const json_t *owner = json_object_get(request, "owner");

	if (!id)
		return error_set(err, -EINVAL, "\"id\" names no task");
	if (owner && (!json_is_integer(owner) || json_integer_value(owner) < 0 ||
		      json_integer_value(owner) >= UINT32_MAX))
		return error_set(err, -EINVAL, "\"owner\" is no user number");
	if (owner && caller && json_integer_value(owner) != caller)
		return error_set(err, -EACCES, "user %u has no rights in tasks of user %lld",
				 caller, (long long)json_integer_value(owner));
	*ret = lookup(agent, id, owner ? (uid_t)json_integer_value(owner) : caller);
	return *ret ? 0 : error_set(err, -ENOENT, "there is no task %.80s", id);
}

static const char *state(const struct task *t)
{
	return !t->program ? "ended" : t->started ? "running" : "starting";
}

static json_t *describe_window(const struct window *w)
{
	return json_pack("{s:I,s:I}", "from", (json_int_t)w->start, "to", (json_int_t)w->end);
}

json_t *task_describe(const struct task *t)
{
	bool ended = t->input_ended;
	uint64_t received = t->program ? program_received(t->program, &ended) : t->received;
	json_t *value =
		json_pack("{s:s,s:I,s:s,s:s,s:I,s:s,s:b,s:b,s:I,s:{s:I,s:b},s:o,s:o}", "id", t->id,
			  "owner", (json_int_t)t->owner, "user", t->user, "program", t->path, "pid",
			  (json_int_t)t->pid, "state", state(t), "attached", t->session != NULL,
			  "terminal", (int)t->terminal, "window", (json_int_t)t->out[0].size,
			  "stdin", "received", (json_int_t)received, "ended", (int)ended, "stdout",
			  describe_window(&t->out[0]), "stderr", describe_window(&t->out[1]));

	if (value && !t->program)
		json_object_set_new(value, WIFSIGNALED(t->status) ? "signal" : "exit_code",
				    json_integer(WIFSIGNALED(t->status) ? WTERMSIG(t->status)
									: WEXITSTATUS(t->status)));
	return value;
}

json_t *task_list(const struct agent *agent, uid_t caller)
{
	json_t *list = json_array();

	for (const struct task *t = agent->tasks; t; t = t->next)
		if (!caller || t->owner == caller)
			json_array_insert_new(list, 0, task_describe(t));
	return json_pack("{s:o}", "tasks", list);
}
