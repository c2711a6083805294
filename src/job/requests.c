/* SPDX-License-Identifier: Apache-2.0 */
/* What terminals ask a coordinator for (docs/formats/job.md). */

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "job/migrate.h"
#include "job/save.h"
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
		return program_signal(j, (int)signo)
			       ? error_set(err, -EAGAIN, "the way to the program is lost just now")
			       : 0;
	if (ends((int)signo))
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

static int give_up_save(struct job *j, const json_t *message, json_t **value, struct error *err)
{
	return save_give_up(j, err);
}

static int give_up_migrate(struct job *j, const json_t *message, json_t **value, struct error *err)
{
	return migrate_give_up(j, err);
}

/* -------- what is answered later -------- */

/* Who waits for an answer. */
struct waiting {
	struct job *job;
	struct terminal *terminal;
	json_int_t id;
};

static struct waiting *wait_for(struct job *j, struct terminal *terminal, json_int_t id)
{
	struct waiting *w = calloc(1, sizeof(*w));

	if (w)
		*w = (struct waiting){j, terminal, id};
	else
		terminal_answer(terminal, id, -ENOMEM, "out of memory", NULL);
	return w;
}

static void on_over(void *arg, int code, const char *reason, const json_t *value)
{
	struct waiting *w = arg;

	terminal_answer(w->terminal, w->id, code, reason, value);
	free(w);
}

static void on_save_step(void *arg, const char *step)
{
	const struct waiting *w = arg;
	json_t *event = json_pack("{s:s, s:s}", "event", "checkpoint", "step", step);

	terminal_tell(w->terminal, event);
	json_decref(event);
}

static void save(struct job *j, struct terminal *terminal, json_int_t id, const json_t *message)
{
	static const struct save_ops ops = {on_save_step, on_over};
	struct waiting *w = wait_for(j, terminal, id);
	struct error err;
	int r = w ? save_begin(j, message, &ops, w, &err) : 0;

	if (!r)
		return;
	terminal_answer(terminal, id, r, err.text, NULL);
	free(w);
}

static void on_move(void *arg, const json_t *event)
{
	const struct waiting *w = arg;

	terminal_tell(w->terminal, event);
}

static void migrate(struct job *j, struct terminal *terminal, json_int_t id, const json_t *message)
{
	static const struct migrate_ops ops = {on_move, on_over};
	struct waiting *w = wait_for(j, terminal, id);
	struct error err;
	int r = w ? migrate_begin(j, message, &ops, w, &err) : 0;

	if (!r)
		return;
	terminal_answer(terminal, id, r, err.text, NULL);
	free(w);
}

static void on_resumed(void *arg, const struct gather *answer)
{
	struct waiting *w = arg;
	struct job *j = w->job;
	const json_t *one = json_array_get(answer->errors, 0);
	struct error err = {""};
	int r = answer->code ? answer->code : 0;

	if (r)
		err = answer->why;
	else if (one)
		r = error_set(&err, -EIO, "node %s: %s", job_name_of(j, one),
			      json_string_value(json_object_get(one, "error")));
	for (size_t i = 0; !r && i < j->nvms; i++)
		if (j->vm[i].state == VM_PAUSED)
			j->vm[i].state = VM_READY;
	job_changed(j);
	terminal_answer(w->terminal, w->id, r, err.text, NULL);
	free(w);
}

static void ask_resume(struct waiting *w)
{
	CLEANUP_FREE char *to = job_holders(w->job);

	nodes_ask(w->job->nodes, json_pack("{s:s, s:s}", "op", "resume", "cluster", w->job->id), to,
		  0, on_resumed, w);
}

static void resume(struct job *j, struct terminal *terminal, json_int_t id, const json_t *message)
{
	struct waiting *w;
	struct error err;
	int r = 0;

	if (j->ending || j->stage != &stage_run)
		r = error_set(&err, -EAGAIN, "cluster %s does not run (stage %s)", j->spec.name,
			      j->stage ? j->stage->name : "end");
	else if (save_is_under_way(j))
		r = error_set(&err, -EBUSY, "a checkpoint of cluster %s is under way",
			      j->spec.name);
	if (r) {
		terminal_answer(terminal, id, r, err.text, NULL);
		return;
	}
	w = wait_for(j, terminal, id);
	if (w)
		ask_resume(w);
}

static const struct {
	const char *op;
	void (*fn)(struct job *j, struct terminal *terminal, json_int_t id, const json_t *message);
} later[] = {
	{"checkpoint", save},
	{"migrate", migrate},
	{"resume", resume},
};

/* -------- all -------- */

static const struct {
	const char *op;
	request_fn *fn;
} requests[] = {
	{"status", status},
	{"exec-info", exec_info},
	{"detach", detach},
	{"signal", signal_program},
	{"stop", stop},
	{"checkpoint-abort", give_up_save},
	{"migrate-abort", give_up_migrate},
};

static void on_request(void *arg, struct terminal *terminal, json_int_t id, const char *op,
		       const json_t *message)
{
	struct error err = {""};
	json_t *value = NULL;
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(later); i++)
		if (!strcmp(later[i].op, op)) {
			later[i].fn(arg, terminal, id, message);
			return;
		}
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
