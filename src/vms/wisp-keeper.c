/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wisp-keeper: begins and ends the keeper of a cluster's network, as the cluster's user, for the
 * node's daemon. What came of it is a JSON object on standard output: {} or {"errno", "error"}.
 *
 *     wisp-keeper start NETWORK SUBNET ID [TAP=FD...]
 *                                            in the network that root made and a new PID namespace;
 *                                            with open taps that the keeper is to have
 *     wisp-keeper end NETWORK VM...          and what is left of its VMs
 */

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/jsonline.h"
#include "lib/parse.h"
#include "lib/paths.h"
#include "net/client.h"
#include "net/keeper.h"
#include "net/state.h"
#include "vms/handover.h"
#include "vms/network.h"

#define PATIENCE_NS 2000000000ull
#define LOOK_MS 10

static int keep(struct network_config *config, struct error *err)
{
	struct net_config net = {
		.dir = config->dir, .name = config->name, .hooks = &network_hooks, .entered = true};
	struct network *network = NULL;
	int leash, r = network_create(config, &network);

	if (r)
		return error_errno(err, r, "cannot start network %s", config->name);
	net.arg = network;
	r = net_keeper_start(&net, &leash, err);
	if (!r)
		r = net_keeper_release(&leash);
	network_destroy(network);
	return r;
}

/* Those that it has already it closes. */
static int hand_over(const char *dir, char **taps, struct error *err)
{
	CLEANUP_CLOSE int control = *taps ? net_connect(dir, err) : -1;
	int r = *taps && control < 0 ? control : 0;

	for (; !r && *taps; taps++) {
		const char *equals = strchr(*taps, '=');
		unsigned fd;

		r = parse_uint(equals ? equals + 1 : "", "a tap's descriptor", 3, INT_MAX, &fd,
			       err);
		if (!r)
			r = net_give_tap(control, *taps, (size_t)(equals - *taps), (int)fd, err);
	}
	return r;
}

/* One that runs is what is wanted: its starter was killed before it could tell. */
static int begin(struct network_config *config, struct error *err)
{
	return state_alive(config->dir) ? 0 : keep(config, err);
}

static int start(int argc, char **argv, struct error *err)
{
	CLEANUP_FREE char *dir = NULL, *vms = NULL;
	struct network_config config = {
		.name = argv[0], .ordinary_user = geteuid() != 0, .stays = true};
	int r;

	if (argc < 3)
		return error_set(err, -EINVAL, "start takes NETWORK SUBNET ID [TAP=FD...]");
	r = subnet_parse(argv[1], &config.subnet, err);
	if (!r)
		r = paths_run("net", argv[0], &dir, err);
	if (!r)
		r = paths_run("vm", NULL, &vms, err);
	if (r)
		return r;
	config.id = strtoull(argv[2], NULL, 16);
	config.dir = dir;
	config.vms = vms;
	r = begin(&config, err);
	return r ? r : hand_over(dir, argv + 3, err);
}

/* One that was killed is about to be gone. What another place may still ask for stays. */
static int sweep(const char *vm, struct error *err)
{
	uint64_t limit = io_now_ns() + PATIENCE_NS;
	CLEANUP_FREE char *dir = NULL;
	int r = paths_run("vm", vm, &dir, err);

	while (!r && state_alive(dir) && io_now_ns() < limit)
		poll(NULL, 0, LOOK_MS);
	if (r || state_alive(dir) || hand_over_look(dir) >= HAND_OVER_UNTOLD)
		return r;
	r = state_sweep(dir, err);
	return r < 0 ? r : 0;
}

static int end(int argc, char **argv, struct error *err)
{
	CLEANUP_FREE char *dir = NULL;
	int r = paths_run("net", argv[0], &dir, err);

	if (!r)
		r = net_stop(dir, err);
	for (int i = 1; i < argc && r >= 0; i++)
		r = sweep(argv[i], err);
	return r < 0 ? r : 0;
}

#ifdef __has_feature /* of clang; gcc says it itself */
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
/* Leaks are looked for by a thread of another process, which another PID namespace does not allow.
 */
const char *__asan_default_options(void);

const char *__asan_default_options(void)
{
	return "detect_leaks=0";
}
#endif

int main(int argc, char **argv)
{
	struct error err = {""};
	json_t *said;
	int r = -EINVAL;

	io_open_standard_fds();
	if (argc > 2 && !strcmp(argv[1], "start"))
		r = start(argc - 2, argv + 2, &err);
	else if (argc > 2 && !strcmp(argv[1], "end"))
		r = end(argc - 2, argv + 2, &err);
	else
		error_set(&err, r, "wisp-keeper is run by wispd");
	said = r ? json_pack("{s:i, s:s}", "errno", -r, "error", err.text) : json_object();
	if (jsonline_write(STDOUT_FILENO, said))
		r = -EPIPE;
	json_decref(said);
	return r ? 1 : 0;
}
