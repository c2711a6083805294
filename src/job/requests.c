/* SPDX-License-Identifier: Apache-2.0 */
/* What terminals ask a coordinator for (docs/formats/job.md). */

#include <errno.h>
#include <signal.h>
#include <string.h>

#include "job/job.h"
#include "lib/cleanup.h"

/* Returns 0 and *value (NULL: nothing to say), or -errno. */
typedef int request_fn(struct job *j, const json_t *message, json_t **value, struct error *err);

static int status(struct job *j, const json_t *message, json_t **value, struct error *err)
{
	*value = job_describe(j);
	return 0;
}

/* What a program needs to reach the VMs by itself. */
static int exec_info(struct job *j, const json_t *message, json_t **value, struct error *err)
{
	*value = job_describe(j);
	json_object_set_new(*value, "session", json_string(j->session));
	return 0;
}

static int detach(struct job *j, const json_t *message, json_t **value, struct error *err)
{
	j->detached = true;
	terminals_let_go(j->terminals);
	terminals_tell(j->terminals, json_pack("{s:s}", "event", "detached"));
	job_changed(j);
	return 0;
}

static bool ends(int signo)
{
	return signo == SIGINT || signo == SIGTERM || signo == SIGHUP || signo == SIGQUIT;
}

static int signal_program(struct job *j, const json_t *message, json_t **value, struct error *err)
{
	json_int_t signo = json_integer_value(json_object_get(message, "signal"));

	if (signo < 1 || signo > 64)
		return error_set(err, -EINVAL, "\"signal\" is not the number of one");
	if (program_runs(j))
		program_signal(j, (int)signo);
	else if (ends((int)signo))
		job_end(j, 128 + (int)signo, "interrupted");
	else
		return error_set(err, -ESRCH, "no program runs in cluster %s", j->spec.name);
	return 0;
}

static int stop(struct job *j, const json_t *message, json_t **value, struct error *err)
{
	json_int_t code = json_integer_value(json_object_get(message, "code"));

	job_end(j, code > 0 && code < 256 ? (int)code : 143, "it was stopped");
	return 0;
}

static const struct {
	const char *op;
	request_fn *fn;
} requests[] = {
	{"status", status},	    {"exec-info", exec_info}, {"detach", detach},
	{"signal", signal_program}, {"stop", stop},
};

static void on_request(void *arg, struct terminal *terminal, json_int_t id, const char *op,
		       const json_t *message)
{
	struct error err = {""};
	json_t *value = NULL;
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
		if (strcmp(requests[i].op, op))
			continue;
		r = requests[i].fn(arg, message, &value, &err);
		terminal_answer(terminal, id, r, err.text, value);
		json_decref(value);
		return;
	}
	terminal_answer(terminal, id, -ENOSYS, "there is no such request", NULL);
}

static void on_input(void *arg, struct terminal *terminal, const uint8_t *data, size_t n)
{
	program_input(arg, terminal, data, n);
}

/* Who comes later hears of all stages so far. */
static void on_attached(void *arg, struct terminal *terminal)
{
	struct job *j = arg;
	const json_t *stage;
	json_t *event;
	size_t i;

	json_array_foreach (j->past, i, stage) {
		event = json_copy((json_t *)stage);
		json_object_set_new(event, "event", json_string("stage"));
		json_object_set_new(event, "state", json_string("done"));
		terminal_tell(terminal, event);
		json_decref(event);
	}
	event = json_pack("{s:s, s:s, s:s}", "event", "stage", "stage", j->stage->name, "state",
			  "begins");
	terminal_tell(terminal, event);
	json_decref(event);
	job_attended(j);
}

static void on_lost(void *arg)
{
	struct job *j = arg;

	if (!j->detached)
		job_end(j, 128 + SIGHUP, "its terminal has gone");
}

static void on_drained(void *arg)
{
	program_go_on(arg);
}

const struct terminals_ops job_terminals_ops = {on_request, on_input, on_attached, on_lost,
						on_drained};
