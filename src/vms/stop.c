/* SPDX-License-Identifier: Apache-2.0 */
/* Ending VMs, gently first. */

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/pidfd.h>

#include "agent/client.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/paths.h"
#include "net/client.h"
#include "net/message.h"
#include "net/state.h"
#include "vms/control.h"
#include "vms/handover.h"
#include "vms/record.h"
#include "vms/vms.h"

#define LOOK_MS 20
#define HARD_MS 5000 /* for steps that no guest can delay */

/* One way of ending a VM. Returns 0 when it was asked for. */
struct step {
	const char *how;
	int (*ask)(const char *name, const char *dir, unsigned timeout_ms);
	bool gentle; /* needs a guest that runs */
};

static int ask_agent(const char *name, const char *dir, unsigned timeout_ms)
{
	CLEANUP_CLOSE int fd = -1;

	if (!record_exists(dir, RECORD_READY))
		return -ENOTCONN;
	fd = vms_agent(name, NULL);
	return fd < 0 ? fd : client_poweroff(fd, false, timeout_ms, NULL);
}

static int ask_button(const char *name, const char *dir, unsigned timeout_ms)
{
	return control_call(dir, "power-button", NULL, NULL, NULL);
}

static int ask_vmm(const char *name, const char *dir, unsigned timeout_ms)
{
	return control_call(dir, "stop", NULL, NULL, NULL);
}

static int ask_keeper(const char *name, const char *dir, unsigned timeout_ms)
{
	CLEANUP_FREE char *network = NULL;
	CLEANUP_CLOSE int control = -1;
	json_t *config = NULL, *request = json_pack("{ssss}", "op", "kill", "name", name);
	int r = request ? record_read(dir, RECORD_CONFIG, &config, NULL) : -ENOMEM;

	if (!r)
		r = paths_run("net", record_text(config, "network"), &network, NULL);
	if (!r)
		r = control = net_connect(network, NULL);
	if (r >= 0)
		r = message_call(control, request, NULL, NULL, NULL);
	json_decref(config);
	json_decref(request);
	return r;
}

static const struct step steps[] = {
	{"powered off by its agent", ask_agent, true},
	{"powered off by its power button", ask_button, true},
	{"stopped by its hypervisor", ask_vmm, false},
	{"killed", ask_keeper, false},
};

static bool wait_end(const char *dir, unsigned timeout_ms)
{
	uint64_t end = io_now_ns() + (uint64_t)timeout_ms * 1000000;

	while (state_alive(dir)) {
		if (io_now_ns() > end)
			return false;
		poll(NULL, 0, LOOK_MS);
	}
	return true;
}

static bool is_paused(const char *dir)
{
	json_t *status = NULL;
	bool paused;

	if (control_call(dir, "status", &status, NULL, NULL))
		return false;
	paused = !strcmp(record_text(status, "state"), "paused");
	json_decref(status);
	return paused;
}

static const char *end_vm(const char *name, const char *dir, const struct vms_stop *stop)
{
	const struct step *last = &steps[ARRAY_SIZE(steps) - 1];
	bool paused = is_paused(dir);

	for (const struct step *step = stop->kill ? last : steps; step <= last; step++) {
		bool asked =
			!(step->gentle && paused) && step->ask(name, dir, stop->timeout_ms) >= 0;

		/* Who cannot be asked any more may be ending by itself. */
		if ((asked || step == last) &&
		    wait_end(dir, step->gentle ? stop->timeout_ms : HARD_MS))
			return asked ? step->how : "ended by itself";
	}
	return NULL;
}

int vms_stop(const char *name, struct vms_stop *stop, struct error *err)
{
	CLEANUP_FREE char *dir = NULL;
	int r = paths_check_name(name, "VM", err);

	if (!r)
		r = paths_run("vm", name, &dir, err);
	if (r)
		return r;
	if (access(dir, F_OK) < 0)
		return error_set(err, -ENOENT, "there is no VM %s (\"wisp vm list\" shows all)",
				 name);
	stop->how = "had ended before";
	if (!stop->kill && !stop->forget)
		r = hand_over_check(name, dir,
				    state_alive(dir) ? HAND_OVER_UNDECIDED : HAND_OVER_UNTOLD,
				    "forget that with --kill", err);
	if (r)
		return r;
	if (state_alive(dir))
		stop->how = end_vm(name, dir, stop);
	if (!stop->how)
		return error_set(err, -ETIMEDOUT,
				 "VM %s cannot be ended: look for its wisp-vmm in D state", name);
	/* A VM that came may be unsettled where it came from, or may have become so meanwhile. */
	if (!stop->forget && hand_over_look(dir) >= HAND_OVER_UNTOLD)
		return 0;
	r = state_sweep(dir, err);
	return r < 0 ? r : 0;
}

/* The keeper is gone once its process is: the kernel then has ended all in its namespace. */
static void leave_network(const char *dir)
{
	CLEANUP_CLOSE int control = net_connect(dir, NULL);
	CLEANUP_CLOSE int pidfd = -1;
	json_t *request = json_pack("{ss}", "op", "leave"), *answer = NULL;
	struct pollfd ended = {.events = POLLIN};
	uid_t uid;
	pid_t pid;

	if (control >= 0 && request && !io_peer_uid(control, &uid, &pid)) {
		pidfd = pidfd_open(pid, 0);
		/* No answer: it is ending already. */
		if (message_call(control, request, &answer, NULL, NULL) ||
		    json_is_true(json_object_get(answer, "ends"))) {
			ended.fd = pidfd;
			poll(&ended, 1, HARD_MS);
		}
	}
	json_decref(answer);
	json_decref(request);
}

void vms_leave_networks(void)
{
	CLEANUP_FREE char *folder = NULL;
	char **names = NULL;

	if (paths_run("net", NULL, &folder, NULL) || state_list(folder, &names, NULL))
		return;
	for (char **name = names; *name; name++) {
		CLEANUP_FREE char *dir = io_format("%s/%s", folder, *name);

		if (dir && state_alive(dir))
			leave_network(dir);
		else if (dir)
			state_sweep(dir, NULL);
	}
	state_list_free(names);
}
