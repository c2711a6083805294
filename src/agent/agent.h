/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_AGENT_AGENT_H
#define WISP_AGENT_AGENT_H

/*
 * Inside wisp-agent: one thread, one event loop. main.c makes a struct agent, listen.c
 * accepts, a session (session.c) belongs to each connection, a program (program.h) to
 * each exec and each task (task.h). As init, init.c runs first and shutdown.c last.
 */

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "agent/proto.h"
#include "lib/log.h"
#include "lib/loop.h"

struct error;
struct listener;
struct peers;
struct program;
struct relay;
struct session;
struct task;

#define AGENT_FACTS_PATH "/run/wisp/facts"

/* Milliseconds since the kernel started. */
struct boot_times {
	uint64_t init, root, ready;
};

struct agent {
	struct loop *loop;
	struct log log;
	bool is_init;
	struct boot_times boot;
	struct rlimit child_nofile; /* the agent raises its own limit, programs get this one */
	struct listener *listeners;
	struct peers *peers; /* of a network: NULL until configured */
	struct relay *relay;
	const char *relay_path; /* NULL: RELAY_PATH */
	json_t *shares;		/* that are mounted: see shares.h */
	struct session *sessions;
	struct program *programs; /* all that were not reaped yet */
	struct task *tasks;
	size_t task_window; /* of each of their streams; 0: by the machine's memory */
	int stop_how;	    /* enum shutdown_how, set once the agent must end */
};

/* listen.c: "vsock:PORT", "tcp:ADDR:PORT[,from=ADDR]" or "unix:PATH". */
int listener_add(struct agent *agent, const char *address, struct error *err);
void listeners_done(struct agent *agent);

/*
 * session.c: takes the fd; on failure it is closed. Root as the caller may ask for everything,
 * others for what they may do themselves.
 */
int session_create(struct agent *agent, int fd, uid_t caller);
void sessions_done(struct agent *agent);
/* Who uses a session once its request was understood. */
struct session_user {
	/* A frame of the client; a negative errno ends the session, after gone(). */
	int (*frame)(void *arg, const struct frame *frame, struct error *err);
	/* The client takes frames again. NULL: nothing waits for that. */
	void (*resume)(void *arg);
	/* The client has gone: forget the session. */
	void (*gone)(void *arg);
};
void session_give(struct session *session, const struct session_user *user, void *arg);
/* Frames for the client go here; when it is full, wait for resume(). */
struct buffer *session_output(struct session *session);
bool session_full(const struct session *session);
/* Starts sending what was put into the output. */
void session_send(struct session *session);
/* The last frame was put into the output. The session is no longer the user's. */
void session_finish(struct session *session);
void session_fail(struct session *session, int code, const char *text); /* ERROR, likewise */
/* RESULT, likewise; takes result. -ENOMEM, -EMSGSIZE: the session is as it was. */
int session_result(struct session *session, json_t *result, struct error *err);

/* session-exec.c: a program of the session's own. */
int session_exec(struct agent *agent, struct session *session, const json_t *request,
		 struct error *err);

/* transfer.c: forks a process that does the copy on the session's fd. */
int transfer_start(struct agent *agent, int fd, const json_t *request, struct error *err);

/* facts.c: a new object. */
json_t *facts_collect(const struct agent *agent);

/* configure.c */
int configure_apply(const json_t *request, struct error *err);
int configure_hostname(const char *name, struct error *err);
/* Name servers, "ADDRESS,ADDRESS" (IPv4), into a file as resolv.conf(5). */
int configure_names(const char *path, const char *servers, struct error *err);
/* "IFACE,ADDRESS/PREFIX[,GATEWAY]"; IFACE may be a MAC address and must exist. */
int configure_net(const char *text, struct error *err);
int configure_loopback(struct error *err);

/* network.c: this machine's address in its network of VMs: serves their agents, and wisp-rsh here.
 */
int network_join(struct agent *agent, const char *address, struct error *err);
void network_leave(struct agent *agent);

/* shutdown.c */
enum shutdown_how { SHUTDOWN_NONE, SHUTDOWN_POWEROFF, SHUTDOWN_REBOOT };
/* As init: the loop stops and main() ends the machine; as a service: runs /sbin/poweroff. */
int shutdown_request(struct agent *agent, enum shutdown_how how, struct error *err);
/* As init: kills programs, unmounts, ends the machine. Returns only if the kernel refuses. */
void shutdown_machine(struct agent *agent);

/* button.c: as init, powers off when the button is pressed; nothing when there is none. */
void power_button_watch(struct agent *agent);

#endif
