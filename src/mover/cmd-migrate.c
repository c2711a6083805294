/* SPDX-License-Identifier: Apache-2.0 */
/* wisp-mover send, wisp-mover receive: a running VM goes to another VMM. */

#include <errno.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/log.h"
#include "lib/parse.h"
#include "mover/address.h"
#include "mover/commands.h"
#include "mover/head.h"
#include "mover/migrate-note.h"
#include "mover/migrate.h"
#include "mover/outcome.h"
#include "mover/pace.h"

enum {
	OPT_ADDRESS = HEAD_OPTIONS,
	OPT_RECORD,
	OPT_TOKEN,
	OPT_TLS,
	OPT_NO_TLS,
	OPT_STREAMS,
	OPT_BANDWIDTH,
	OPT_DOWNTIME,
	OPT_ROUNDS,
	OPT_COMPRESS,
	OPT_THROTTLE,
	OPT_DRY_RUN,
	OPT_CLOCK,
	OPT_TIMEOUT,
	OPT_PRECOPY,
	OPT_HYBRID,
	OPT_POSTCOPY,
	OPT_PATIENCE,
	OPT_AGAIN,
};

struct request {
	struct migrate_options o;
	const char *token;
	bool again, tls, no_tls;
	unsigned refused;
	struct head head;
};

static int parse_bandwidth(const char *value, uint64_t *ret, struct error *err)
{
	uint64_t rate = 0;
	int rc = parse_size(value, 0, &rate, err);

	if (rc < 0)
		return rc;
	if (rate < PACE_MIN)
		return error_set(err, -ERANGE, "--bandwidth is %u KiB a second at least",
				 PACE_MIN >> 10);
	*ret = rate;
	return 0;
}

static int parse_patience(const char *value, unsigned *ret, struct error *err)
{
	unsigned seconds;
	int rc = parse_uint(value, "patience", 1, 86400, &seconds, err);

	if (rc == 0)
		*ret = seconds * 1000;
	return rc;
}

static int parse_number(struct request *r, int opt, const char *value, struct error *err)
{
	switch (opt) {
	case OPT_STREAMS:
		return parse_uint(value, "streams", 1, MIGRATE_STREAMS, &r->o.streams, err);
	case OPT_BANDWIDTH:
		return parse_bandwidth(value, &r->o.bandwidth, err);
	case OPT_PATIENCE:
		return parse_patience(value, &r->o.patience_ms, err);
	case OPT_DOWNTIME:
		return parse_uint(value, "max-downtime", 1, 3600000, &r->o.max_downtime_ms, err);
	case OPT_ROUNDS:
		return parse_uint(value, "rounds", 1, 1000000, &r->o.max_rounds, err);
	default:
		return parse_uint(value, "timeout", 1, 3600000, &r->o.timeout_ms, err);
	}
}

/* Where an option's text goes, or NULL. */
static const char **text_of(struct request *r, int opt)
{
	switch (opt) {
	case OPT_ADDRESS:
		return &r->o.address;
	case OPT_RECORD:
		return &r->o.note;
	case OPT_TOKEN:
		return &r->token;
	default:
		return NULL;
	}
}

/* What an option without a value turns on, or NULL. */
static bool *flag_of(struct request *r, int opt)
{
	switch (opt) {
	case OPT_THROTTLE:
		return &r->o.throttle;
	case OPT_DRY_RUN:
		return &r->o.dry_run;
	case OPT_AGAIN:
		return &r->again;
	default:
		return NULL;
	}
}

static int parse_option(void *arg, int opt, const char *value, struct error *err)
{
	struct request *r = arg;
	const char **text = text_of(r, opt);
	bool *flag = flag_of(r, opt), elapsed = true;
	int rc;

	if (text)
		*text = value;
	if (flag)
		*flag = true;
	if (text || flag)
		return 0;
	switch (opt) {
	case OPT_TLS:
	case OPT_NO_TLS:
		r->tls = opt == OPT_TLS;
		r->no_tls = opt == OPT_NO_TLS;
		return 0;
	case OPT_PRECOPY:
	case OPT_HYBRID:
	case OPT_POSTCOPY:
		r->o.mode = opt == OPT_PRECOPY	? MIGRATE_PRECOPY
			    : opt == OPT_HYBRID ? MIGRATE_HYBRID
						: MIGRATE_POSTCOPY;
		return 0;
	case OPT_COMPRESS:
		return compression_parse(value, &r->o.compression, err);
	case OPT_CLOCK:
		rc = head_clock(value, &elapsed, err);
		r->o.frozen_clock = !elapsed;
		return rc;
	default:
		return parse_number(r, opt, value, err);
	}
}

/* A file with 64 hexadecimal digits. */
static int read_token(const char *path, uint8_t token[TOKEN_SIZE], struct error *err)
{
	CLEANUP_FREE char *text = NULL;
	ssize_t n = io_read_file(path, 4096, &text, err);

	if (n < 0)
		return (int)n;
	n = (ssize_t)strspn(text, "0123456789abcdefABCDEF");
	if (n != 2 * TOKEN_SIZE || strcspn(text + n, " \n"))
		return error_set(err, -EINVAL, "%s has not %d hexadecimal digits", path,
				 2 * TOKEN_SIZE);
	for (unsigned i = 0; i < TOKEN_SIZE; i++) {
		char two[3] = {text[2 * i], text[2 * i + 1], '\0'};

		token[i] = (uint8_t)strtoul(two, NULL, 16);
	}
	return 0;
}

/* From here on a cancel is refused, before anybody waits for it. */
static int at_step(void *arg, const struct migrate_progress *now)
{
	struct request *r = arg;

	if (now->step == STEP_GIVEN)
		busy_decided(&r->head.busy);
	return 0;
}

static void tell(void *arg, const struct migrate_progress *now)
{
	struct request *r = arg;
	const struct show_now show = {.phase = migrate_phase(now->step),
				      .done = now->done,
				      .total = now->total,
				      .rate = now->rate,
				      .round = now->round,
				      .dirty_rate = now->dirty_rate,
				      .downtime_ms = now->downtime_ms,
				      .throttle = now->throttle};

	show_now(&r->head.show, &show);
}

/* Somebody may do that for ever. */
static void say_refused(void *arg, const char *who, const char *why)
{
	struct request *r = arg;

	if (log_due(&r->refused))
		fprintf(stderr, "wisp-mover %s: sent a connection from %s away: %s\n",
			r->head.cmd->name, who, why);
}

/* 0; 1 after --help. */
static int parse(struct request *r, int argc, char **argv, struct error *err)
{
	int rc = head_parse(&r->head, argc, argv, parse_option, r, err);

	r->o.control = r->head.control;
	if (rc == 0 && (!r->o.control || !r->o.address || !r->o.note || !r->token))
		rc = error_set(err, -EINVAL,
			       "--control, the address, --record and --token must be given");
	if (rc == 0)
		rc = read_token(r->token, r->o.secret.token, err);
	if (rc == 0)
		r->o.secret.tls = r->tls || (!r->no_tls && hello_wants_tls(r->o.address));
	r->o.refused = say_refused;
	r->o.tell = tell;
	r->o.at = at_step;
	r->o.arg = r;
	r->o.cancel = &r->head.cancel;
	r->o.switch_now = &r->head.switch_now;
	r->o.listen = -1;
	return rc;
}

/*
 * The file of an old hand-over may be all that is known of a VM; but not of one that has stayed
 * here: if it leaves now, its place is known by the new one.
 */
static int check_record(const struct request *r, struct error *err)
{
	struct note note;

	if (access(r->o.note, F_OK) || r->again || r->o.dry_run)
		return 0;
	if (note_read(r->o.note, &note, NULL) == 0 && note.state == NOTE_BACK) {
		unlink(r->o.note);
		return 0;
	}
	return error_set(err, -EEXIST,
			 "%s is the record of a hand-over: go on with --again, or remove it once "
			 "that is settled",
			 r->o.note);
}

/* The other side may wait to hear how it went. */
static int say_untold(const struct request *r, const struct migrate_result *result, int rc,
		      const struct error *err)
{
	bool came = result->outcome == MIGRATE_MOVED;
	struct error text;

	if (rc < 0)
		head_fail(&r->head, 0, err);
	error_set(&text, 0,
		  "%s, and the other side has not come to hear that: keep %s, and let "
		  "--again tell it",
		  came ? "the VM runs here" : "the VM is where it came from", r->o.note);
	return head_fail(&r->head, came ? EXIT_UNTOLD : EXIT_STAYED, &text);
}

static int finish(struct request *r, int rc, struct migrate_result *result, const struct error *err)
{
	head_end(&r->head, rc);
	if (r->head.json)
		outcome_json(rc, result, err);
	else if (rc == 0)
		outcome_text(result);
	outcome_obstacles(result->obstacles);
	json_decref(result->obstacles);
	json_decref(result->report);
	if (result->untold)
		return say_untold(r, result, rc, err);
	if (rc == 0)
		return 0;
	if (result->outcome == MIGRATE_UNDECIDED)
		return head_fail(&r->head, EXIT_UNDECIDED, err);
	return head_failed(&r->head, rc, err);
}

static int migrate(struct request *r, bool sends, struct migrate_result *result, struct error *err)
{
	struct machine *machine = NULL;
	int rc = check_record(r, err);

	if (rc == 0)
		rc = head_begin(&r->head, err);
	if (rc == 0)
		rc = machine_connect(r->o.control, r->again, &machine, err);
	if (rc < 0)
		return rc;
	r->o.vmm = machine;
	if (!sends)
		rc = r->o.listen = address_listen(r->o.address, err);
	if (rc >= 0 && sends)
		rc = r->again ? migrate_send_again(&r->o, result, err)
			      : migrate_send(&r->o, result, err);
	else if (rc >= 0)
		rc = r->again ? migrate_receive_again(&r->o, result, err)
			      : migrate_receive(&r->o, result, err);
	machine->ops->close(machine);
	cleanup_close_fd(&r->o.listen);
	return rc;
}

static int run(const struct command *cmd, bool sends, int argc, char **argv)
{
	struct migrate_result result = {0};
	struct request r = {.head.cmd = cmd};
	struct error err = {{0}};
	int rc = parse(&r, argc, argv, &err);

	if (rc > 0)
		return 0;
	if (rc < 0)
		return head_fail(&r.head, EXIT_USAGE, &err);
	if (r.again)
		result.outcome = MIGRATE_UNDECIDED;
	rc = migrate(&r, sends, &result, &err);
	return finish(&r, rc, &result, &err);
}

static int run_send(const struct command *cmd, int argc, char **argv)
{
	return run(cmd, true, argc, argv);
}

static int run_receive(const struct command *cmd, int argc, char **argv)
{
	return run(cmd, false, argc, argv);
}

#define TLS_OPTIONS                                                                     \
	{OPT_TLS, "tls", 0, NULL, "Encrypt all connections (default for tcp)", 0},      \
	{                                                                               \
		OPT_NO_TLS, "no-tls", 0, NULL,                                          \
			"Do not: whoever is on the network can read and change the VM " \
			"(default for unix)",                                           \
			0                                                               \
	}

const struct command command_send = {
	.name = "send",
	.args = "",
	.summary = "Move a running VM to a wisp-mover that receives",
	.details =
		"The VM runs on here when this fails before the hand-over. After it, the record "
		"says whose\nthe VM is: exit code 3 means that this is not decided; go on with "
		"--again; 5 that the VM has stayed here, which\nthe receiver may not know: --again "
		"tells it. SIGUSR1: switch now.",
	.options =
		(const struct option_desc[]){
			{HEAD_CONTROL, "control", 0, "SOCKET",
			 "Control socket of the VM; must be given", COMPLETE_FILE},
			{OPT_ADDRESS, "to", 0, "ADDRESS",
			 "unix:PATH or tcp:HOST:PORT; must be given", 0},
			{OPT_RECORD, "record", 0, "FILE",
			 "Record of the hand-over, on a disk that stays; must be given",
			 COMPLETE_FILE},
			{OPT_TOKEN, "token", 0, "FILE",
			 "64 hexadecimal digits that the receiver knows too; must be given",
			 COMPLETE_FILE},
			TLS_OPTIONS,
			{OPT_STREAMS, "streams", 0, "N", "Data connections (default: 2)", 0},
			{OPT_BANDWIDTH, "bandwidth", 0, "RATE",
			 "Bytes a second (K, M, G) of all connections together while the VM runs; "
			 "what is left when it is paused goes as fast as it can (default: no "
			 "limit)",
			 0},
			{OPT_DOWNTIME, "max-downtime", 0, "MS",
			 "Pause to aim for, in milliseconds (default: 300)", 0},
			{OPT_ROUNDS, "rounds", 0, "N",
			 "Give up after so many, or with --hybrid switch (default: 30)", 0},
			{OPT_PRECOPY, "precopy", 0, NULL,
			 "Hand the VM over with all its memory (default)", 0},
			{OPT_HYBRID, "hybrid", 0, NULL,
			 "The same, but if it writes faster than can be sent hand it over before, "
			 "and let the rest of its memory follow",
			 0},
			{OPT_POSTCOPY, "postcopy", 0, NULL,
			 "Hand the VM over at once, and let its memory follow", 0},
			{OPT_COMPRESS, "compress", 0, "KIND", "none (default), lz4 or zstd", 0},
			{OPT_THROTTLE, "throttle", 0, NULL,
			 "Slow the VM down if it writes faster than can be sent", 0},
			{OPT_CLOCK, "clock", 0, "KIND",
			 "elapsed (default): the guest's clock shows the pause; frozen", 0},
			{OPT_TIMEOUT, "timeout", 0, "MS",
			 "How long the peer may be silent (default: 10000)", 0},
			{OPT_DRY_RUN, "dry-run", 0, NULL, "Only ask whether it could move", 0},
			{OPT_AGAIN, "again", 0, NULL, "Go on with what the record says", 0},
			SHOW_OPTION(HEAD_PROGRESS),
			{HEAD_JSON, "json", 0, NULL, "Print what it took as JSON, or what failed",
			 0},
			{0}},
	.run = run_send,
};

const struct command command_receive = {
	.name = "receive",
	.args = "",
	.summary = "Let a wisp-mover bring a VM into a VMM that was started with --incoming",
	.details =
		"Ends when the VM runs here, or never will. The VMM has the same options as the "
		"one it comes from.\nExit code 3: it is not decided whether it runs here; 4: it "
		"does, but the source has not heard it;\n5: it never will, but the source has not "
		"heard it. The record is kept then, and --again\ngoes on with it.",
	.options =
		(const struct option_desc[]){
			{HEAD_CONTROL, "control", 0, "SOCKET",
			 "Control socket of the VM; must be given", COMPLETE_FILE},
			{OPT_ADDRESS, "listen", 0, "ADDRESS",
			 "unix:PATH or tcp:HOST:PORT; must be given", 0},
			{OPT_RECORD, "record", 0, "FILE",
			 "Record of the hand-over, on a disk that stays; must be given",
			 COMPLETE_FILE},
			{OPT_TOKEN, "token", 0, "FILE",
			 "64 hexadecimal digits that the sender knows too; must be given",
			 COMPLETE_FILE},
			TLS_OPTIONS,
			{OPT_TIMEOUT, "timeout", 0, "MS",
			 "How long the peer may be silent (default: 10000)", 0},
			{OPT_PATIENCE, "patience", 0, "S",
			 "How long a VM that runs here waits for memory that is to follow, before "
			 "it ends, in seconds (default: 600)",
			 0},
			{OPT_AGAIN, "again", 0, NULL, "Go on with what the record says", 0},
			SHOW_OPTION(HEAD_PROGRESS),
			{HEAD_JSON, "json", 0, NULL, "Print what it took as JSON, or what failed",
			 0},
			{0}},
	.run = run_receive,
};
