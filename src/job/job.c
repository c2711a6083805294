/* SPDX-License-Identifier: Apache-2.0 */
/* The life of a cluster: from stage to stage, and to its end. */

#include "job/job.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "job/checkpoints.h"
#include "job/folder.h"
#include "job/migrate.h"
#include "job/nodelist.h"
#include "job/save.h"
#include "job/walltime.h"
#include "lib/cleanup.h"
#include "lib/io.h"
#include "lib/loop.h"
#include "vms/subnet.h"

#define ENDING_NS (30ull * 1000000000)
#define FAILURES_TOLD 16u /* nodes of which terminals hear what failed there */

static const struct stage *const stages[] = {
	&stage_resolve, &stage_place, &stage_reserve, &stage_network, &stage_image,
	&stage_start,	&stage_ready, &stage_prepare, &stage_run,     &stage_end,
};

/* -------- stages -------- */

/* why: of one that has failed, or NULL. */
static void tell_stage(struct job *j, const char *state, uint64_t ms, const char *why)
{
	terminals_tell(j->terminals,
		       json_pack("{s:s, s:s, s:s, s:I, s:s*}", "event", "stage", "stage",
				 j->stage->name, "state", state, "ms", (json_int_t)ms, "why", why));
}

static void begin_stage(struct job *j, const struct stage *stage)
{
	j->stage = stage;
	j->since = io_now_ns();
	j->waits = 0;
	log_info(&j->log, "job", "stage %s", stage->name);
	tell_stage(j, "begins", 0, NULL);
	job_changed(j);
	stage->begin(j);
}

/* What the stage still waits for comes to nobody. */
static void leave_stage(struct job *j)
{
	loop_set_timer(j->timer, 0, 0);
	nodes_forget(j->nodes, j);
	if (j->stage->leave)
		j->stage->leave(j);
}

void job_next(struct job *j)
{
	uint64_t ms = (io_now_ns() - j->since) / 1000000;
	size_t i = 0;

	while (stages[i] != j->stage)
		i++;
	leave_stage(j);
	json_array_append_new(
		j->past, json_pack("{s:s, s:I}", "stage", j->stage->name, "ms", (json_int_t)ms));
	tell_stage(j, "done", ms, NULL);
	begin_stage(j, stages[i + 1]);
}

void job_end(struct job *j, int code, const char *why)
{
	if (j->ending)
		return;
	j->ending = true;
	j->code = code;
	snprintf(j->why.text, sizeof(j->why.text), "%s", why ? why : "");
	save_cancel(j);
	migrate_cancel(j);
	log_info(&j->log, "job", "ends with %d%s%s", code, why ? ": " : "", why ? why : "");
	leave_stage(j);
	begin_stage(j, &stage_end);
}

void job_fail(struct job *j, const char *fmt, ...)
{
	struct error why;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why.text, sizeof(why.text), fmt, ap);
	va_end(ap);
	if (!j->ending)
		tell_stage(j, "failed", (io_now_ns() - j->since) / 1000000, why.text);
	job_end(j, EXIT_FAILURE, why.text);
}

/* -------- what people should know -------- */

void job_note(struct job *j, const char *fmt, ...)
{
	struct error text;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text.text, sizeof(text.text), fmt, ap);
	va_end(ap);
	log_warn(&j->log, "job", "%s", text.text);
	terminals_tell(j->terminals, json_pack("{s:s, s:s}", "event", "note", "text", text.text));
}

void job_changed(struct job *j)
{
	json_t *state = job_describe(j);
	struct error err;

	if (j->lock >= 0 && folder_write_state(j->folder, state, &err))
		log_error(&j->log, "job", "%s", err.text);
	json_decref(state);
}

const char *job_name_of(const struct job *j, const json_t *error)
{
	json_int_t place = json_integer_value(json_object_get(error, "node"));

	return place >= 0 && (size_t)place < j->nnodes ? j->node[place].name : "?";
}

bool job_failed(struct job *j, const struct gather *answer, const char *what)
{
	size_t n = json_array_size(answer->errors), i;
	const json_t *one;

	if (gather_is_good(answer))
		return false;
	if (answer->code) {
		job_fail(j, "%s: %s", what, answer->why.text);
		return true;
	}
	json_array_foreach (answer->errors, i, one)
		if (n > 1 && i < FAILURES_TOLD)
			job_note(j, "%s: node %s: %s", what, job_name_of(j, one),
				 json_string_value(json_object_get(one, "error")));
	one = json_array_get(answer->errors, 0);
	job_fail(j, "%s: node %s: %s%s", what, job_name_of(j, one),
		 json_string_value(json_object_get(one, "error")), n > 1 ? " (and others)" : "");
	return true;
}

/* -------- asking -------- */

char *job_holders(const struct job *j)
{
	struct nodeset set = {0};
	char *text;

	for (size_t i = 0; i < j->nnodes; i++)
		if (j->node[i].holds)
			nodeset_add(&set, (uint32_t)i, (uint32_t)i);
	text = nodeset_format(&set);
	nodeset_done(&set);
	return text;
}

void job_ask(struct job *j, json_t *request, const char *to, unsigned timeout_ms, nodes_fn *fn)
{
	CLEANUP_FREE char *holders = to ? NULL : job_holders(j);

	json_object_set_new(request, "cluster", json_string(j->id));
	nodes_ask(j->nodes, request, to ? to : holders, timeout_ms, fn, j);
}

struct guest *job_find_vm(const struct job *j, const char *name)
{
	for (size_t i = 0; name && i < j->nvms; i++)
		if (!strcmp(j->vm[i].name, name))
			return &j->vm[i];
	return NULL;
}

/* -------- the nodes -------- */

static void on_up(void *arg, const struct gather *answer)
{
	struct job *j = arg;
	const json_t *one;
	size_t i;

	j->joined = true;
	for (i = 0; i < j->nnodes; i++)
		j->node[i].gone.text[0] = 0;
	json_array_foreach (answer->errors, i, one) {
		size_t place = (size_t)json_integer_value(json_object_get(one, "node"));
		const char *reason = json_string_value(json_object_get(one, "error"));

		if (place < j->nnodes)
			snprintf(j->node[place].gone.text, sizeof(j->node[place].gone.text), "%s",
				 reason && *reason ? reason : "it cannot be reached");
	}
	log_info(&j->log, "job", "%u nodes are there", nodeset_count(&answer->ok));
	save_rejoined(j);
	job_recount(j);
	if (j->stage && j->stage->joined)
		j->stage->joined(j);
}

static void on_down(void *arg, const char *reason)
{
	struct job *j = arg;

	if (j->joined)
		job_note(j, "the daemon of this node is gone: %s; calling it again", reason);
	for (size_t i = 0; j->joined && i < j->nnodes; i++)
		error_set(&j->node[i].gone, 0, "the daemon of the first node is gone");
	j->joined = false;
}

static void on_event(void *arg, const json_t *event)
{
	job_hear(arg, event);
}

static const struct nodes_ops nodes_ops = {on_up, on_down, on_event};

static void on_timer(void *arg)
{
	struct job *j = arg;

	if (j->stage && j->stage->timeout)
		j->stage->timeout(j);
}

static void on_walltime(void *arg)
{
	job_end(arg, 124, "its walltime is over");
}

/* -------- its making -------- */

static int make_names(struct job *j, struct error *err)
{
	uint8_t random[16];

	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		return error_errno(err, -errno, "no random numbers");
	for (size_t i = 0; i < sizeof(random); i++)
		snprintf(j->session + 2 * i, 3, "%02x", random[i]);
	if (getrandom(random, 4, 0) != 4)
		return error_errno(err, -errno, "no random numbers");
	snprintf(j->id, sizeof(j->id), "%s-%02x%02x%02x%02x", j->spec.name, random[0], random[1],
		 random[2], random[3]);
	if (!j->spec.job)
		return job_id_make(j->job, err);
	memcpy(j->job, j->spec.job, sizeof(j->job));
	return 0;
}

static int make_nodes(struct job *j)
{
	j->nnodes = json_array_size(j->spec.nodes);
	j->node = calloc(j->nnodes, sizeof(*j->node));
	if (!j->node)
		return -ENOMEM;
	for (size_t i = 0; i < j->nnodes; i++)
		nodelist_name(json_string_value(json_array_get(j->spec.nodes, i)), j->node[i].name,
			      sizeof(j->node[i].name));
	return 0;
}

static int make_vms(struct job *j)
{
	struct subnet subnet;

	j->nvms = j->spec.vms;
	j->vm = calloc(j->nvms, sizeof(*j->vm));
	if (!j->vm || subnet_parse(j->spec.subnet, &subnet, NULL))
		return -ENOMEM;
	for (size_t i = 0; i < j->nvms; i++) {
		struct guest *vm = &j->vm[i];

		snprintf(vm->name, sizeof(vm->name), "%s-%zu", j->spec.name, i);
		subnet_format(subnet.base + 2 + (uint32_t)i, vm->address);
	}
	j->hosts = json_pack("[{s:s, s:s, s:I}]", "name", j->vm->name, "address", j->vm->address,
			     "count", (json_int_t)j->nvms);
	return j->hosts ? 0 : -ENOMEM;
}

static int open_log(struct job *j, const char *path, struct error *err)
{
	j->log_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (j->log_fd < 0)
		return error_errno(err, -errno, "cannot make %s", path);
	log_init(&j->log, j->spec.name, j->log_fd, LOG_INFO);
	return 0;
}

static int make_files(struct job *j, struct error *err)
{
	CLEANUP_FREE char *out = folder_file(j->folder, FOLDER_OUT);
	CLEANUP_FREE char *errors = folder_file(j->folder, FOLDER_ERR);
	CLEANUP_FREE char *log = folder_file(j->folder, FOLDER_LOG);
	int r = out && errors && log ? 0 : error_set(err, -ENOMEM, "out of memory");

	if (!r)
		r = open_log(j, log, err);
	if (!r)
		r = output_create(&j->output[0], out, err);
	return r ? r : output_create(&j->output[1], errors, err);
}

/* What its nodes still have of it is in the way: they end it only after their grace time. */
static void look_back(struct job *j, const json_t *state)
{
	const char *id = json_string_value(json_object_get(state, "id"));

	if (id && strlen(id) < sizeof(j->before))
		strcpy(j->before, id);
}

/* One of that name that is ending just now is soon over. */
static int take_folder(struct job *j, struct error *err)
{
	uint64_t until = io_now_ns() + ENDING_NS;
	bool ending = true;
	int r = -EBUSY;

	while (r == -EBUSY && ending && io_now_ns() < until) {
		json_t *state = folder_state(j->folder);

		ending = json_object_get(state, "end");
		look_back(j, state);
		json_decref(state);
		r = folder_take(j->spec.name, j->folder, err);
	}
	return r;
}

static int make_folder(struct job *j, struct error *err)
{
	int r = folder_path(j->spec.name, &j->folder, err);

	if (!r)
		r = j->lock = take_folder(j, err);
	if (r < 0)
		return r;
	j->socket = folder_file(j->folder, FOLDER_SOCKET);
	return j->socket ? make_files(j, err) : error_set(err, -ENOMEM, "out of memory");
}

static int make_links(struct job *j, struct error *err)
{
	struct terminals_params terminals = {.loop = j->loop,
					     .path = j->socket,
					     .name = j->spec.name,
					     .output = {&j->output[0], &j->output[1]},
					     .ops = &job_terminals_ops,
					     .arg = j};
	struct nodes_params nodes = {.loop = j->loop,
				     .socket = j->spec.socket,
				     .session = j->session,
				     .names = (json_t *)j->spec.nodes,
				     .ops = &nodes_ops,
				     .arg = j};
	struct tubes_params tubes = {
		.loop = j->loop, .socket = j->spec.socket, .session = j->session, .cluster = j->id};
	int r = terminals_create(&terminals, &j->terminals, err);

	if (!r)
		r = nodes_create(&nodes, &j->nodes, err);
	return r ? r : tubes_create(&tubes, &j->tubes, err);
}

uint64_t job_used_ms(const struct job *j)
{
	return j->spec.used_ms + (io_now_ns() - j->born) / 1000000;
}

static int make_timers(struct job *j, struct error *err)
{
	uint64_t left;
	int r = walltime_left(j->spec.environment, j->spec.used_ms, &left, err);

	if (r)
		return r;
	r = loop_add_timer(j->loop, on_timer, j, &j->timer);
	if (!r)
		r = loop_add_timer(j->loop, on_walltime, j, &j->walltime);
	if (!r && left != UINT64_MAX)
		r = loop_set_timer(j->walltime, left * 1000000, 0);
	return r ? error_errno(err, r, "cannot make timers") : 0;
}

/* Two clusters of one checkpoint would write to the same volumes and files. */
static int claim_former(struct job *j, struct error *err)
{
	const char *folder = json_string_value(json_object_get(j->spec.former, "folder"));

	return folder ? checkpoints_claim(folder, &j->claim, err) : 0;
}

static int make(struct job *j, struct error *err)
{
	int r = make_names(j, err);

	if (!r)
		r = make_folder(j, err);
	if (!r)
		r = claim_former(j, err);
	if (!r && (program_create(j) || make_nodes(j) || make_vms(j) || !(j->past = json_array())))
		r = error_set(err, -ENOMEM, "out of memory");
	if (!r)
		r = make_timers(j, err);
	return r ? r : make_links(j, err);
}

int job_create(struct loop *loop, struct spec *spec, struct job **ret, struct error *err)
{
	struct job *j = calloc(1, sizeof(*j));
	int r;

	if (!j) {
		spec_done(spec);
		return error_set(err, -ENOMEM, "out of memory");
	}
	*j = (struct job){.loop = loop,
			  .spec = *spec,
			  .lock = -1,
			  .log_fd = -1,
			  .claim = -1,
			  .output = {{.fd = -1}, {.fd = -1}},
			  .detached = spec->detach,
			  .started = time(NULL),
			  .born = io_now_ns()};
	*spec = (struct spec){0};
	r = make(j, err);
	if (r) {
		job_destroy(j);
		return r;
	}
	begin_stage(j, stages[0]);
	*ret = j;
	return 0;
}

/* -------- its end -------- */

static void free_lists(struct job *j)
{
	for (size_t i = 0; i < j->nnodes && j->node; i++)
		json_decref(j->node[i].facts);
	for (size_t i = 0; i < j->nvms && j->vm; i++)
		json_decref(j->vm[i].times);
	free(j->node);
	free(j->vm);
	json_decref(j->hosts);
	json_decref(j->past);
}

static bool is_held(const struct job *j)
{
	for (size_t i = 0; i < j->nnodes && j->node; i++)
		if (j->node[i].holds)
			return true;
	return false;
}

/*
 * Whoever was not there when it ended can ask for that until the name is used again; and who uses
 * it has nodes that were away then end what they have of it.
 */
void job_leave_folder(struct job *j)
{
	if (j->lock < 0)
		return;
	if (j->terminals)
		terminals_close(j->terminals);
	if ((j->detached || is_held(j)) && j->ending)
		job_changed(j);
	else
		folder_remove(j->folder);
	cleanup_close_fd(&j->claim);
	close(take_fd(&j->lock));
}

void job_destroy(struct job *j)
{
	if (!j)
		return;
	if (j->stage && j->stage->leave)
		j->stage->leave(j);
	save_cancel(j);
	migrate_cancel(j);
	job_leave_folder(j);
	terminals_destroy(j->terminals);
	tubes_destroy(j->tubes);
	nodes_destroy(j->nodes);
	loop_remove(&j->timer);
	loop_remove(&j->walltime);
	output_done(&j->output[0]);
	output_done(&j->output[1]);
	program_destroy(j);
	if (j->log_fd >= 0)
		close(j->log_fd);
	free_lists(j);
	spec_done(&j->spec);
	free(j->folder);
	free(j->socket);
	free(j);
}
