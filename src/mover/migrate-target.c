/* SPDX-License-Identifier: Apache-2.0 */
/* The target of a migration up to the hand-over: check, receive, load. */

#include "mover/migrate.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "mover/migrate-obstacle.h"
#include "mover/migrate-target.h"

int target_at(struct target *t, enum migrate_step step)
{
	t->now.step = step;
	t->step_ns[step] = io_now_ns();
	watch_set(&t->watch, &t->now);
	return t->o.at && t->o.at(t->o.arg, &t->now) ? MIGRATE_KILLED : 0;
}

static void target_init(struct target *t, const struct migrate_options *o)
{
	*t = (struct target){.o = *o, .control = {.fd = -1}, .start = io_now_ns()};
	if (!t->o.timeout_ms)
		t->o.timeout_ms = 10000;
	if (!t->o.load_ms)
		t->o.load_ms = 60000;
	t->receiver.memfd = -1;
	memcpy(t->note.token, o->secret.token, TOKEN_SIZE);
}

static void stop_receiving(struct target *t)
{
	if (t->receiving)
		receiver_done(&t->receiver);
	else
		for (unsigned i = 0; i < t->receiver.streams; i++)
			channel_close(&t->receiver.channel[i]);
	if (t->receiver.memfd >= 0)
		close(t->receiver.memfd);
	t->receiver.memfd = -1;
	t->receiver.streams = 0;
	t->receiving = false;
}

static void target_done(struct target *t)
{
	greeter_done(&t->greeter);
	channel_close(&t->control);
	target_rest_done(t);
	stop_receiving(t);
	json_decref(t->vm);
	t->vm = NULL;
}

/* What a connection is to come for. */
struct due {
	const struct target *t;
	uint32_t kind;
};

static bool is_stream(uint32_t kind)
{
	return kind == HELLO_DATA || kind == HELLO_REST;
}

static int check_hello(void *arg, const struct hello *hello, struct error *err)
{
	const struct due *due = arg;

	if (hello->kind != HELLO_NEW &&
	    memcmp(hello->session, due->t->note.session, SESSION_SIZE) != 0)
		return error_set(err, -EPROTO, "it belongs to another migration");
	if (hello->kind == due->kind)
		return 0;
	/* Connections are not heard in the order in which they were made. */
	return is_stream(hello->kind) && is_stream(due->kind)
		       ? -EAGAIN
		       : error_set(err, -EPROTO, "it comes for another step of a migration");
}

int target_accept(struct target *t, uint32_t kind, unsigned timeout_ms, struct channel *ret,
		  struct hello *hello, struct error *err)
{
	struct due due = {t, kind};

	t->greeter.listen = t->o.listen;
	t->greeter.secret = &t->secret;
	t->greeter.timeout_ms = t->o.timeout_ms;
	t->greeter.cancel = t->o.cancel;
	t->greeter.refused = t->o.refused;
	t->greeter.arg = t->o.arg;
	t->secret = t->o.secret;
	memcpy(t->secret.token, t->note.token, TOKEN_SIZE);
	return greeter_next(&t->greeter, timeout_ms, check_hello, &due, ret, hello, err);
}

static int look_at_vm(struct target *t, struct error *err)
{
	const struct machine_ops *ops = t->o.vmm->ops;
	const json_t *memory;
	enum machine_state state;
	int rc = ops->state(t->o.vmm, &state, err);

	if (rc == 0 && state != MACHINE_INCOMING)
		rc = error_set(err, -EINVAL, "the VM was not started with --incoming");
	if (rc == 0)
		rc = note_name(&t->note, t->o.vmm, t->o.control, err);
	if (rc == 0)
		rc = ops->describe(t->o.vmm, &t->vm, err);
	if (rc < 0)
		return rc;
	memory = json_object_get(t->vm, "memory");
	t->receiver.memory = (uint64_t)json_integer_value(json_object_get(memory, "size"));
	t->receiver.page_size = (uint64_t)json_integer_value(json_object_get(memory, "page_size"));
	if (!t->receiver.memory || t->receiver.memory % PAGE_BYTES ||
	    t->receiver.memory > INDEX_MAX_MEMORY)
		return error_set(err, -EINVAL, "the VM has no memory to move into");
	return 0;
}

/* What this machine can give the VM beside what it has already. Huge pages are set aside. */
static uint64_t room(struct target *t)
{
	CLEANUP_CLOSE int fd = -1;
	struct stat st;

	if (t->receiver.page_size != PAGE_BYTES || t->o.vmm->ops->memory(t->o.vmm, &fd, NULL) < 0 ||
	    fstat(fd, &st))
		return UINT64_MAX;
	return obstacle_free_memory() + (uint64_t)st.st_blocks * 512;
}

/* One source asks. 1: it can come; 0: it has its answer, and went. */
static int check(struct target *t, struct error *err)
{
	struct message m = {0};
	json_t *config = NULL, *list = NULL;
	bool comes = false;
	int rc = welcome_send(&t->control, SESSION_NEW, err);

	if (rc == 0)
		rc = target_at(t, STEP_CONNECTED);
	if (rc == 0)
		rc = message_expect(&t->control, MESSAGE_CONFIG, &m, err);
	if (rc == 0)
		rc = message_json(&m, &config, err);
	if (rc == 0) {
		/* The source has written out what its disks have, and looked: now it is seen here.
		 */
		t->o.vmm->ops->sample(t->o.vmm, t->vm, NULL);
		list = obstacle_at_target(json_object_get(config, "vm"), t->vm, room(t));
		target_rest_mode(t, config, list);
		comes = !json_array_size(list) && !json_is_true(json_object_get(config, "dry_run"));
		rc = target_rest_unit(t, config, err);
	}
	if (rc == 0)
		rc = message_send_json(&t->control, MESSAGE_OBSTACLES, list, err);
	message_done(&m);
	json_decref(config);
	json_decref(list);
	return rc < 0 ? rc : comes;
}

/* Waits for a source that can come. Those that only ask, or go away, change nothing. */
static int wait_for_source(struct target *t, struct error *err)
{
	struct hello hello;
	int rc;

	for (;;) {
		rc = target_accept(t, HELLO_NEW, 0, &t->control, &hello, err);
		if (rc < 0)
			return rc;
		memcpy(t->note.session, hello.session, SESSION_SIZE);
		t->streams = hello.streams;
		t->start = io_now_ns();
		rc = check(t, err);
		if (rc > 0)
			return target_at(t, STEP_CHECKED);
		channel_close(&t->control);
		if (rc == -ECANCELED || rc == MIGRATE_KILLED)
			return rc;
	}
}

static int open_streams(struct target *t, struct error *err)
{
	struct receiver *r = &t->receiver;
	int rc = t->o.vmm->ops->memory(t->o.vmm, &r->memfd, err);

	while (rc == 0 && r->streams < t->streams) {
		struct hello hello;

		rc = target_accept(t, HELLO_DATA, t->o.timeout_ms, &r->channel[r->streams], &hello,
				   err);
		if (rc == 0)
			r->streams++;
	}
	if (rc < 0)
		return rc;
	if (t->may_follow)
		rc = target_rest_accept(t, err);
	if (rc < 0)
		return rc;
	t->receiving = true;
	watch_round(&t->watch, &t->now, r->memory);
	rc = receiver_init(r, err);
	if (rc == 0)
		rc = receiver_start(r, err);
	return rc < 0 ? rc : target_at(t, STEP_LOGGING);
}

/* What the source says next; it may be silent as long as pages come. */
static int listen_to_source(struct target *t, struct message *m, struct error *err)
{
	const struct copy_count *n = &t->receiver.count;

	for (;;) {
		uint64_t before = n->pages + n->zero;
		int rc = channel_wait(&t->control, err);

		if (rc == 0)
			return message_receive(&t->control, m, err);
		if (t->receiver.failed)
			return receiver_wait(&t->receiver, UINT64_MAX, 0, err);
		if (rc != -ETIMEDOUT || n->pages + n->zero == before)
			return rc;
	}
}

static int finish_round(struct target *t, const struct message *m, struct error *err)
{
	uint64_t round;
	int rc = message_u64(m, &round, err);

	if (rc == 0 && round != t->now.round + 1)
		rc = error_set(err, -EBADMSG, "round %" PRIu64 " after %" PRIu64, round,
			       t->now.round);
	if (rc == 0)
		rc = receiver_wait(&t->receiver, round, t->o.timeout_ms, err);
	if (rc < 0)
		return rc;
	t->now.round = round;
	t->now.bytes = t->receiver.count.bytes;
	rc = target_at(t, STEP_ROUND);
	watch_round(&t->watch, &t->now, 0);
	return rc < 0 ? rc : message_send_u64(&t->control, MESSAGE_ACK, round, err);
}

/* All rounds, to the saved state. */
static int receive(struct target *t, struct message *state, struct error *err)
{
	t->control.cancel[1] = &t->receiver.failed;
	for (;;) {
		struct message m = {0};
		int rc = listen_to_source(t, &m, err);

		bool known = target_rest_known(t);

		if (rc == 0 && m.type == MESSAGE_STATE && (known || (t->now.round && !t->sets))) {
			*state = m;
			return 0;
		}
		if (rc == 0 && m.type == MESSAGE_MISSING && !known)
			rc = target_rest_sets(t, &m, err);
		else if (rc == 0 && m.type == MESSAGE_ROUND && !t->sets)
			rc = finish_round(t, &m, err);
		else if (rc == 0 && m.type == MESSAGE_ABORT)
			rc = error_set(err, -ECONNABORTED, "the source gave up: %.400s",
				       message_text(&m));
		else if (rc == 0)
			rc = error_set(err, -EBADMSG, "type %" PRIu32 " between rounds", m.type);
		message_done(&m);
		if (rc < 0)
			return rc;
	}
}

static int load(struct target *t, const struct message *state, const char *clock, struct error *err)
{
	CLEANUP_CLOSE int fd = memfd_create("wisp-state", MFD_CLOEXEC);
	enum machine_state now;
	int rc = fd < 0 ? -errno : io_write_full(fd, state->body, state->length);

	if (rc < 0 || lseek(fd, 0, SEEK_SET))
		return error_errno(err, rc, "saved state");
	rc = t->o.vmm->ops->load(t->o.vmm, fd, clock, err);
	if (rc == 0)
		rc = t->o.vmm->ops->state(t->o.vmm, &now, err);
	if (rc == 0 && now != MACHINE_PAUSED)
		rc = error_set(err, -EIO, "the VM is not paused after it was loaded");
	return rc;
}

/* The VM is complete and paused, and that is recorded. */
static int prepare(struct target *t, const struct message *state, struct error *err)
{
	struct message m = {0};
	const char *clock;
	json_t *args = NULL;
	int rc = message_expect(&t->control, MESSAGE_PREPARE, &m, err);

	t->control.cancel[1] = NULL;
	if (rc == 0)
		rc = message_json(&m, &args, err);
	if (rc == 0)
		rc = target_at(t, STEP_SENT);
	clock = json_string_value(json_object_get(args, "clock"));
	if (rc == 0 && (!clock || (strcmp(clock, "elapsed") && strcmp(clock, "frozen"))))
		rc = error_set(err, -EBADMSG, "the source names no clock");
	stop_receiving(t);
	if (rc == 0 && t->missing)
		rc = target_rest_begin(t, err);
	else
		target_rest_close(t);
	if (rc == 0)
		rc = load(t, state, clock, err);
	if (t->catcher)
		rc = target_rest_loaded(t, rc, err);
	message_done(&m);
	json_decref(args);
	t->note.state = NOTE_PREPARED;
	return rc < 0 ? rc : note_write(t->o.note, &t->note, err);
}

/* Nothing has been given to this side: the VM here goes. */
static void give_up(struct target *t, const char *reason)
{
	t->control.cancel[0] = t->control.cancel[1] = NULL;
	if (t->control.fd >= 0)
		message_send(&t->control, MESSAGE_ABORT, reason, strlen(reason), NULL);
	if (t->catcher)
		t->o.vmm->ops->faults_end(t->o.vmm, reason, NULL);
	t->o.vmm->ops->stop(t->o.vmm, NULL);
}

int migrate_receive(const struct migrate_options *o, struct migrate_result *ret, struct error *err)
{
	struct error local = {{0}};
	struct message state = {0};
	struct target t;
	int rc;

	*ret = (struct migrate_result){.outcome = MIGRATE_HERE};
	if (!err)
		err = &local;
	target_init(&t, o);
	watch_start(&t.watch, o, &t.receiver.count);
	rc = look_at_vm(&t, err);
	if (rc == 0)
		rc = wait_for_source(&t, err);
	if (rc == 0) {
		rc = open_streams(&t, err);
		if (rc == 0)
			rc = receive(&t, &state, err);
		if (rc == 0)
			rc = prepare(&t, &state, err);
		message_done(&state);
		if (rc < 0 && rc != MIGRATE_KILLED)
			give_up(&t, err->text);
		if (rc == 0)
			rc = target_take_over(&t, ret, err);
	}
	watch_stop(&t.watch);
	target_report(&t, ret);
	target_done(&t);
	return rc;
}

int migrate_receive_again(const struct migrate_options *o, struct migrate_result *ret,
			  struct error *err)
{
	struct target t;
	int rc;

	*ret = (struct migrate_result){.outcome = MIGRATE_UNDECIDED};
	target_init(&t, o);
	rc = note_read(o->note, &t.note, err);
	if (rc == 0 && t.note.state > NOTE_ABORTED)
		rc = error_set(err, -EINVAL, "%s is the record of a source", o->note);
	if (rc == 0)
		rc = t.note.rest ? target_rest_again(&t, err)
				 : note_check(&t.note, o->vmm, o->control, err);
	if (rc == 0)
		rc = target_take_over(&t, ret, err);
	target_done(&t);
	return rc;
}
