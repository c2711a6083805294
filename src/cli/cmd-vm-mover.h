/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_CLI_CMD_VM_MOVER_H
#define WISP_CLI_CMD_VM_MOVER_H

/* What the commands that save, restore and move VMs have in common. */

#include <jansson.h>
#include <stdbool.h>

#include "cli/cmd-vm.h"
#include "lib/args.h"
#include "lib/command.h"
#include "lib/error.h"
#include "mover/exit-code.h"

#define VM_AGENT_TIMEOUT_S 60 /* for the agent of a VM that goes on, to answer */

enum {
	OPT_LIVE = OPT_FOLLOW + 1,
	OPT_STOP,
	OPT_INCREMENTAL,
	OPT_COMPRESS,
	OPT_PRECOPY,
	OPT_HYBRID,
	OPT_POSTCOPY,
	OPT_PATIENCE,
	OPT_AT,
	OPT_NAME,
	OPT_CLOCK,
	OPT_LAZY,
	OPT_STREAMS,
	OPT_BANDWIDTH,
	OPT_PROGRESS,
	OPT_DOWNTIME,
	OPT_ROUNDS,
	OPT_THROTTLE,
	OPT_MAX_PAUSE,
	OPT_DRY_RUN,
	OPT_TIMEOUT_MS,
	OPT_AGAIN,
	OPT_TOKEN,
	OPT_TLS,
	OPT_NO_TLS,
	OPT_LISTEN,
	OPT_NET,
	OPT_FORCE,
	OPT_RESTORE_DISK,
	OPT_SET_CLOCK,
	OPT_TRACK,
	OPT_LAUNCHER,
	OPT_REMOTE_WISP,
	OPT_HOST,
	OPT_NO_LINK,
	OPT_ARRANGED,
};

/* Where a VM comes to that was elsewhere, if not as it was there. */
struct vm_place {
	const char *name, *net; /* NULL: as it was */
};

/* clang-format off */
/* Of migrate and receive; both sides have to agree. */
#define VM_TLS_OPTIONS \
	{.id = OPT_TLS, .name = "tls", .help = "Encrypt what is sent (default for tcp)"}, \
	{.id = OPT_NO_TLS, .name = "no-tls", \
	 .help = "Do not: whoever is on the network can read and change the VM (default for unix)"}
#define VM_PLACE_OPTIONS \
	{.id = OPT_NAME, .name = "name", .letter = 'n', .arg = "NAME", \
	 .help = "Under another name (the guest keeps the one it knows)"}, \
	{.id = OPT_NET, .name = "net", .arg = "NETWORK", \
	 .help = "On another network, which is not linked to the nodes of its own"}
/* clang-format on */

#define VM_TRIES 5 /* to go on where a wisp-mover was that was killed */

/* Whether wisp-mover ended so: it has said nothing, and another may go on. */
bool vm_mover_killed(int code);

/* An option that wisp-mover has as well, under the same name. */
void vm_pass_option(const struct command *cmd, int id, const char *value, struct args *options);

/*
 * SIGINT, SIGTERM and SIGHUP wait from now on to the end of the process, so that what was begun is
 * cleaned up; what runs for long looks whether one came. Calling wisp-mover does this too, and
 * passes on what comes meanwhile.
 */
void vm_hold_signals(void);
bool vm_interrupted(void);

/* What a call of wisp-mover may have beside its options. */
struct vm_errand {
	int listen;	    /* its descriptor 3, or -1 */
	int hangup;	    /* wisp-mover gives up when this ends, or -1 */
	bool quiet;	    /* it says nothing but what failed */
	bool dry_run;	    /* it settles nothing */
	const char *record; /* set by vm_hand_over() */
	int *guard;	    /* released when the hand-over is settled; or NULL */
};

/*
 * wisp-mover WHAT --control ... for the VM with this state directory, with the options, which stay
 * the caller's. It runs in our place in the terminal. Returns the exit code.
 */
int vm_run_mover(const struct command *cmd, const char *what, const char *vm_dir,
		 const struct args *options, const struct vm_errand *errand);
int vm_call_mover(const struct command *cmd, const char *what, const char *vm_dir,
		  const struct args *options);

/* The same for "send" and "receive", with a record in the state directory. */
int vm_hand_over(const struct command *cmd, bool sends, const char *vm_dir, struct args *options,
		 const struct vm_errand *errand);

/* As vms_wait(), but -ECANCELED when the user interrupts us. */
int vm_wait_here(const char *name, bool agent, unsigned timeout_s, struct error *err);

/*
 * Starts the empty machine that config (a vm.json) describes, on its network, which is made when
 * it is not there. *ret is its state directory, for free(). Nothing is left after a failure, nor
 * when this process is killed before the guard (see vms_guard()) is released.
 */
int vm_start_empty(const struct vm_place *place, json_t *config, char **ret, int *guard,
		   struct error *err);

/* Ends an empty machine into which nothing came. */
void vm_give_up(const char *name);

/* wisp-mover's own. */
#define VM_PROGRESS_OPTION                                                                         \
	{                                                                                          \
		.id = OPT_PROGRESS, .name = "progress", .arg = "HOW",                              \
		.help = "On standard error: line, text, json, none, or auto (default): a line on " \
			"a "                                                                       \
			"terminal, else none"                                                      \
	}

#endif
