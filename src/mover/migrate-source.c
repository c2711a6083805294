/* SPDX-License-Identifier: Apache-2.0 */
/* The source of a migration up to the hand-over: check, copy while the VM runs, switch. */

#include "mover/address.h"
#include "mover/migrate.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "mover/migrate-obstacle.h"
#include "mover/migrate-source.h"

#define ENOUGH (16u << 20)   /* bytes in a round that tell the bandwidth */
#define FEW (64u << 20)	     /* bytes left that are collected at once */
#define LITTLE (1u << 20)    /* bytes left that no more round is worth */
#define GUESS (256ull << 20) /* bytes a second, before anything was sent */

int source_at(struct source *s, enum migrate_step step)
{
	s->now.step = step;
	s->step_ns[step] = io_now_ns();
	watch_set(&s->watch, &s->now);
	return s->o.at && s->o.at(s->o.arg, &s->now) ? MIGRATE_KILLED : 0;
}

void source_init(struct source *s, const struct migrate_options *o)
{
	*s = (struct source){.o = *o, .control = {.fd = -1}, .report = json_object()};
	s->flusher.vmm = o->vmm;
	s->start = io_now_ns();
	if (!s->o.timeout_ms)
		s->o.timeout_ms = 10000;
	if (!s->o.load_ms)
		s->o.load_ms = 60000;
	if (!s->o.streams)
		s->o.streams = 2;
	if (!s->o.max_downtime_ms)
		s->o.max_downtime_ms = 300;
	if (!s->o.max_rounds)
		s->o.max_rounds = 30;
	pace_init(&s->pace, o->bandwidth);
	s->sender.memfd = s->sender.bitmap_fd = -1;
	memcpy(s->note.token, o->secret.token, TOKEN_SIZE);
}

void source_done(struct source *s)
{
	flusher_stop(&s->flusher);
	channel_close(&s->control);
	source_rest_done(s);
	sender_done(&s->sender);
	pace_done(&s->pace);
	if (s->sender.memfd >= 0)
		close(s->sender.memfd);
	s->sender.memfd = -1;
	json_decref(s->config);
	json_decref(s->obstacles);
	s->obstacles = NULL;
	brake_done(&s->brake);
	json_decref(s->report);
	s->config = s->report = NULL;
}

int source_connect(struct source *s, uint32_t kind, uint32_t stream, struct channel *ret,
		   struct error *err)
{
	struct hello hello = {.kind = kind,
			      .stream = stream,
			      .streams = kind == HELLO_REST ? s->rest_streams : s->o.streams};
	struct channel ch = {.timeout_ms = s->o.timeout_ms, .cancel = {s->cancel}};
	struct secret secret = s->o.secret;
	int rc;

	memcpy(hello.session, s->note.session, SESSION_SIZE);
	memcpy(secret.token, s->note.token, TOKEN_SIZE);
	ch.fd = address_connect(s->o.address, s->o.timeout_ms, ch.cancel, err);
	if (ch.fd < 0)
		return ch.fd;
	rc = hello_say(&ch, &secret, &hello, err);
	if (rc < 0)
		channel_close(&ch);
	else
		*ret = ch;
	return rc;
}

/* What this side knows of its VM. */
static int look_at_vm(struct source *s, struct error *err)
{
	static const char *const modes[] = {[MIGRATE_PRECOPY] = "precopy",
					    [MIGRATE_HYBRID] = "hybrid",
					    [MIGRATE_POSTCOPY] = "postcopy"};
	enum machine_state state;
	json_t *vm = NULL, *memory;
	struct stat st;
	int rc = s->o.vmm->ops->state(s->o.vmm, &state, err);

	if (rc == 0 && state != MACHINE_RUNNING)
		rc = error_set(err, -EINVAL, "the VM does not run: resume it first");
	if (rc == 0)
		rc = note_name(&s->note, s->o.vmm, s->o.control, err);
	if (rc == 0)
		rc = s->o.vmm->ops->describe(s->o.vmm, &vm, err);
	if (rc == 0)
		rc = s->o.vmm->ops->flush(s->o.vmm, s->cancel, err);
	if (rc == 0)
		rc = s->o.vmm->ops->sample(s->o.vmm, vm, err);
	if (rc < 0) {
		json_decref(vm);
		return rc;
	}
	memory = json_object_get(vm, "memory");
	s->obstacles = obstacle_at_source(vm);
	s->sender.memory = (uint64_t)json_integer_value(json_object_get(memory, "size"));
	s->config = json_pack("{s:b,s:s,s:b,s:o}", "dry_run",
			      s->o.dry_run || json_array_size(s->obstacles), "mode",
			      modes[s->o.mode], "units", 1, "vm", vm);
	if (!s->config)
		return error_set(err, -ENOMEM, "out of memory");
	if (!s->sender.memory || s->sender.memory > INDEX_MAX_MEMORY ||
	    s->sender.memory % PAGE_BYTES)
		return error_set(err, -EINVAL, "the VM has no memory that could move");
	rc = s->o.vmm->ops->memory(s->o.vmm, &s->sender.memfd, err);
	if (rc == 0 && fstat(s->sender.memfd, &st) == 0)
		json_object_set_new(memory, "used", json_integer((json_int_t)st.st_blocks * 512));
	return rc;
}

static int refuse(const json_t *obstacles, struct error *err)
{
	CLEANUP_FREE char *first = obstacle_text(json_array_get(obstacles, 0));

	return error_set(err, -EBUSY, "the VM cannot move (obstacles: %zu): %.350s",
			 json_array_size(obstacles), first ? first : "?");
}

/* Before the obstacles the target may say how large its pages are. */
static int hear_obstacles(struct source *s, struct message *m, struct error *err)
{
	int rc = message_receive(&s->control, m, err);

	if (rc == 0 && m->type == MESSAGE_UNIT) {
		rc = source_rest_unit(s, m, err);
		message_done(m);
		return rc < 0 ? rc : message_expect(&s->control, MESSAGE_OBSTACLES, m, err);
	}
	return rc < 0 ? rc : message_is(m, MESSAGE_OBSTACLES, err);
}

/* Asks the target whether it could. */
static int check(struct source *s, struct migrate_result *ret, struct error *err)
{
	struct message m = {0};
	enum session_state state;
	json_t *list = NULL;
	int rc;

	ret->obstacles = json_incref(s->obstacles);
	rc = source_connect(s, HELLO_NEW, 0, &s->control, err);
	if (rc == 0)
		rc = welcome_receive(&s->control, &state, err);
	if (rc == 0 && state != SESSION_NEW)
		rc = error_set(err, -EBADMSG, "the target knows this session already");
	if (rc == 0)
		rc = source_at(s, STEP_CONNECTED);
	if (rc == 0)
		rc = message_send_json(&s->control, MESSAGE_CONFIG, s->config, err);
	if (rc == 0)
		rc = hear_obstacles(s, &m, err);
	if (rc == 0)
		rc = message_json(&m, &list, err);
	message_done(&m);
	if (rc < 0)
		return rc;
	if (!json_is_array(list)) {
		json_decref(list);
		return error_set(err, -EBADMSG, "the target sent no list of obstacles");
	}
	json_array_extend(s->obstacles, list);
	json_decref(list);
	return json_array_size(s->obstacles) ? refuse(s->obstacles, err)
					     : source_at(s, STEP_CHECKED);
}

static unsigned vcpus(const struct source *s)
{
	return (unsigned)json_integer_value(
		json_object_get(json_object_get(s->config, "vm"), "vcpus"));
}

static int start_copy(struct source *s, struct error *err)
{
	int rc = 0;

	s->sender.vmm = s->o.vmm;
	s->sender.compression = s->o.compression;
	s->sender.streams = s->o.streams;
	for (unsigned i = 0; i < s->o.streams; i++)
		s->sender.channel[i].fd = -1;
	for (unsigned i = 0; rc == 0 && i < s->o.streams; i++) {
		rc = source_connect(s, HELLO_DATA, i, &s->sender.channel[i], err);
		s->sender.channel[i].cancel[1] = &s->sender.failed;
		s->sender.channel[i].pace = s->o.bandwidth ? &s->pace : NULL;
	}
	if (rc == 0 && s->o.mode != MIGRATE_PRECOPY)
		rc = source_rest_connect(s, err);
	if (rc == 0)
		rc = sender_init(&s->sender, err);
	if (rc == 0)
		rc = brake_init(&s->brake, s->o.vmm, vcpus(s), err);
	if (rc == 0)
		rc = s->o.vmm->ops->dirty_start(s->o.vmm, s->sender.bitmap_fd, err);
	if (rc < 0)
		return rc;
	s->logging = true;
	brake_look(&s->brake);
	return source_at(s, STEP_LOGGING);
}

/* Sends what was written and waits until the target has it. */
static int send_round(struct source *s, struct error *err)
{
	uint64_t before = s->sender.count.pages, start = io_now_ns(), bytes, rate, round;
	struct message m = {0};
	int rc;

	s->now.round++;
	watch_round(&s->watch, &s->now, s->now.round > 1 ? s->now.left : s->sender.memory);
	rc = sender_round(&s->sender, s->now.round,
			  s->now.round > 1 && (s->may_be_paused || s->now.left <= FEW), err);
	if (rc == 0)
		rc = message_send_u64(&s->control, MESSAGE_ROUND, s->now.round, err);
	if (rc == 0)
		rc = message_expect(&s->control, MESSAGE_ACK, &m, err);
	if (rc == 0)
		rc = message_u64(&m, &round, err);
	message_done(&m);
	if (rc == 0 && round != s->now.round)
		rc = error_set(err, -EBADMSG, "the target acknowledged another round");
	if (rc < 0)
		return rc;
	s->round_ns = io_now_ns() - start + 1;
	bytes = (s->sender.count.pages - before) * PAGE_BYTES;
	rate = (uint64_t)((double)bytes * 1e9 / (double)s->round_ns);
	if (bytes >= ENOUGH || rate > s->now.rate)
		s->now.rate = rate;
	s->now.bytes = s->sender.count.bytes;
	return 0;
}

/* After a round: what is left, and how long the VM would stop for it. */
static int look_ahead(struct source *s, struct error *err)
{
	uint64_t pages = 0, rate = s->now.rate ? s->now.rate : GUESS;
	uint64_t start = io_now_ns(), flushed;
	int rc = flusher_go(&s->flusher, s->o.timeout_ms / 4, s->cancel, err);

	flushed = io_now_ns() - start;
	if (rc >= 0)
		rc = sender_left(&s->sender, &pages, err);
	if (rc < 0)
		return rc;
	brake_look(&s->brake);
	s->now.left = pages * PAGE_BYTES;
	s->now.dirty_rate = (uint64_t)((double)s->now.left * 1e9 / (double)(s->round_ns + flushed));
	s->now.downtime_ms = (uint64_t)((double)s->now.left * 1e3 / (double)rate);
	json_array_append_new(s->rounds,
			      json_pack("{s:I,s:I,s:I,s:I,s:I}", "ns", (json_int_t)s->round_ns,
					"flush_ns", (json_int_t)flushed, "bytes",
					(json_int_t)s->now.bytes, "left", (json_int_t)s->now.left,
					"dirty_rate", (json_int_t)s->now.dirty_rate));
	return source_at(s, STEP_ROUND);
}

static int no_convergence(const struct source *s, struct error *err)
{
	return error_set(err, -EAGAIN,
			 "after %" PRIu64 " rounds the VM writes %" PRIu64 " MiB/s and %" PRIu64
			 " MiB/s can be sent: allow throttling or a longer downtime than %u ms",
			 s->now.round, s->now.dirty_rate >> 20, s->now.rate >> 20,
			 s->o.max_downtime_ms);
}

/*
 * The vCPUs that write faster than we send get slower, if we may. When they cannot be slower it is
 * enough that less is left than before.
 */
static int slow_down(struct source *s, bool less, struct error *err)
{
	int rc = s->o.throttle ? brake_more(&s->brake, s->now.left / PAGE_BYTES, err) : -EAGAIN;

	s->now.throttle = brake_most(&s->brake);
	if (rc == -EAGAIN && s->o.throttle && less)
		return 0;
	return rc == -EAGAIN ? no_convergence(s, err) : rc;
}

/*
 * The pause would be as short as it should be, and another round, which is short as well, would not
 * make it much shorter.
 */
static bool is_short_enough(const struct source *s, uint64_t before)
{
	bool shrinks = s->now.left > LITTLE && s->now.left / 7 <= before / 10;

	return s->now.downtime_ms <= s->o.max_downtime_ms &&
	       (!shrinks || s->now.round >= s->o.max_rounds);
}

/* The target is to find all of the disks: in the pause there is only so much to write out. */
static bool is_written_out(const struct source *s)
{
	return s->now.round >= s->o.max_rounds ||
	       (!s->flusher.runs && flusher_is_short(&s->flusher, s->o.max_downtime_ms));
}

/* Rounds do not come to an end. */
static int no_end(struct source *s, bool less, struct error *err)
{
	if (s->o.mode == MIGRATE_HYBRID) {
		s->follows = true;
		return 0;
	}
	return s->now.round < s->o.max_rounds ? slow_down(s, less, err) : no_convergence(s, err);
}

static int copy(struct source *s, struct error *err)
{
	uint64_t before = UINT64_MAX;
	unsigned slow = 0;
	bool less, enough;
	int rc = 0;

	json_object_set_new(s->report, "rounds", s->rounds = json_array());
	s->follows = s->o.mode == MIGRATE_POSTCOPY;
	while (!s->follows) {
		rc = send_round(s, err);
		if (rc == 0)
			rc = look_ahead(s, err);
		if (rc < 0)
			return rc;
		enough = is_short_enough(s, before);
		if (enough && is_written_out(s))
			return 0;
		if (s->o.switch_now && *s->o.switch_now) {
			s->follows = s->o.mode == MIGRATE_HYBRID;
			return 0;
		}
		slow = !enough && s->now.left / 7 > before / 10 ? slow + 1 : 0;
		less = s->now.left < before;
		before = s->now.left;
		if (slow >= 2 || s->now.round >= s->o.max_rounds)
			rc = no_end(s, less, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* The saved state into a new buffer. Saving may still write to memory: it comes before the last. */
static int save(struct source *s, char **state, size_t *size, json_t **cpu, struct error *err)
{
	CLEANUP_CLOSE int fd = memfd_create("wisp-state", MFD_CLOEXEC);
	struct stat st;
	int rc;

	if (fd < 0)
		return error_errno(err, -errno, "saved state");
	rc = s->o.vmm->ops->save(s->o.vmm, fd, cpu, err);
	if (rc < 0)
		return rc;
	if (fstat(fd, &st) || !st.st_size)
		return error_set(err, -EPROTO, "the VMM saved no state");
	*size = (size_t)st.st_size;
	*state = malloc(*size);
	rc = *state ? io_pread_full(fd, *state, *size, 0) : -ENOMEM;
	json_object_set_new(s->report, "state", json_integer(st.st_size));
	return rc < 0 ? error_errno(err, rc, "saved state") : 0;
}

static int send_state(struct source *s, const char *state, size_t size, const json_t *cpu,
		      struct error *err)
{
	json_t *prepare =
		json_pack("{s:s,s:O?,s:I}", "clock", s->o.frozen_clock ? "frozen" : "elapsed",
			  "cpu", cpu, "rounds", (json_int_t)s->now.round);
	int rc = prepare ? 0 : error_set(err, -ENOMEM, "out of memory");

	if (rc == 0)
		rc = message_send(&s->control, MESSAGE_STATE, state, size, err);
	s->may_be_prepared = true;
	if (rc == 0)
		rc = message_send_json(&s->control, MESSAGE_PREPARE, prepare, err);
	json_decref(prepare);
	return rc < 0 ? rc : source_at(s, STEP_SENT);
}

/* The VM stops; the target gets the rest. */
static int send_rest(struct source *s, struct error *err)
{
	CLEANUP_FREE char *state = NULL;
	json_t *cpu = NULL;
	size_t size = 0;
	int rc;

	/* Every moment counts now; others have the network to themselves again soon. */
	for (unsigned i = 0; i < s->o.streams; i++)
		s->sender.channel[i].pace = NULL;
	s->may_be_paused = true;
	rc = s->o.vmm->ops->pause(s->o.vmm, true, err);
	if (rc == 0)
		rc = source_at(s, STEP_PAUSED);
	if (rc == 0)
		rc = save(s, &state, &size, &cpu, err);
	if (rc == 0)
		rc = s->follows ? source_rest_begin(s, err) : send_round(s, err);
	if (rc == 0)
		rc = send_state(s, state, size, cpu, err);
	json_decref(cpu);
	return rc;
}

/* Until the target says that it is complete. */
static int switch_over(struct source *s, struct error *err)
{
	struct message m = {0};
	int rc = send_rest(s, err);

	if (rc < 0)
		return rc;
	s->control.timeout_ms = s->o.load_ms;
	rc = message_expect(&s->control, MESSAGE_PREPARED, &m, err);
	s->control.timeout_ms = s->o.timeout_ms;
	message_done(&m);
	/* An answer: it has no record. */
	s->may_be_prepared = rc != -ECONNABORTED;
	return rc < 0 ? rc : source_at(s, STEP_PREPARED);
}

int migrate_send(const struct migrate_options *o, struct migrate_result *ret, struct error *err)
{
	struct source s;
	int rc;

	*ret = (struct migrate_result){.outcome = MIGRATE_HERE};
	source_init(&s, o);
	watch_start(&s.watch, o, &s.sender.count);
	s.cancel = o->cancel;
	if (s.o.streams > MIGRATE_STREAMS)
		rc = error_set(err, -EINVAL, "at most %u connections", MIGRATE_STREAMS);
	else if (getrandom(s.note.session, SESSION_SIZE, 0) != SESSION_SIZE)
		rc = error_errno(err, -errno, "no random numbers");
	else
		rc = look_at_vm(&s, err);
	if (rc == 0)
		rc = check(&s, ret, err);
	if (rc == 0 && !o->dry_run) {
		rc = start_copy(&s, err);
		if (rc == 0)
			rc = copy(&s, err);
		if (rc == 0)
			rc = switch_over(&s, err);
		if (rc == 0)
			rc = source_hand_over(&s, ret, err);
	}
	if (rc < 0 && rc != MIGRATE_KILLED && ret->outcome == MIGRATE_HERE)
		rc = source_take_back(&s, rc, err);
	ret->untold = s.untold;
	watch_stop(&s.watch);
	source_report(&s, ret);
	source_done(&s);
	return rc;
}
