/* SPDX-License-Identifier: Apache-2.0 */
/* wisp vm receive: a running VM comes from another machine. */

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cli/cmd-vm-mover.h"
#include "cli/commands.h"
#include "cli/vm-launch.h"
#include "lib/cleanup.h"
#include "lib/io.h"
#include "vms/handover.h"
#include "vms/record.h"
#include "vms/vms.h"

#define BACKLOG 128

struct receipt {
	const struct command *cmd;
	struct vm_place place;
	struct args options; /* of wisp-mover */
	struct vm_errand errand;
	json_t *config;
	char *dir;
	const char *name;
	bool ready; /* its agent answered where it was */
	bool json, arranged, again, token;
	int guard; /* of the machine and its links, or -1 */
};

/*
 * Nothing came: nothing stays, unless a hand-over that was cut off may still come to its end, or
 * the place it comes from does not know. With --again something came: without its record it has
 * come to its end, by another command.
 */
static void give_up(const struct receipt *c)
{
	if (record_exists(c->dir, RECORD_RECEIVE) ? !hand_over_look(c->dir) : !c->again)
		vm_give_up(c->name);
}

static void receipt_done(struct receipt *c)
{
	vms_release(&c->guard);
	json_decref(c->config);
	free(c->dir);
	args_done(&c->options);
}

static int check_description(const json_t *config, const char *reason, struct error *err)
{
	return json_is_object(config) && *record_text(config, "address")
		       ? 0
		       : error_set(err, -EINVAL,
				   "standard input is not the description of a VM (vm.json in its "
				   "state directory): %s",
				   *reason ? reason : "no address");
}

/* Lets it come, or (--again) goes on with that. The token is of no use to anybody afterwards. */
static int hand_over(struct receipt *c)
{
	CLEANUP_FREE char *token = record_path(c->dir, TOKEN_RECEIVE);
	int r;

	c->errand.guard = &c->guard;
	r = vm_hand_over(c->cmd, false, c->dir, &c->options, &c->errand);
	if (!r && token)
		unlink(token);
	if (r && r != EXIT_UNTOLD)
		give_up(c);
	return r;
}

static bool is_here(int code)
{
	return !code || code == EXIT_UNTOLD;
}

/* -------- as a person asks -------- */

/* Its machine, with the record of the hand-over. */
static int find_again(struct receipt *c, struct error *err)
{
	int r = vms_hand_over_dir(c->name, &c->dir, err);

	if (!r && !record_exists(c->dir, RECORD_RECEIVE))
		r = error_set(err, -ENOENT, "no hand-over of VM %s to this machine is unsettled",
			      c->name);
	if (!r)
		r = record_read(c->dir, RECORD_CONFIG, &c->config, err);
	if (!r && !c->token)
		args_add(&c->options, "--token=%s/" TOKEN_RECEIVE, c->dir);
	return r;
}

static int start_machine(struct receipt *c, struct error *err)
{
	json_error_t reason = {.text = ""};
	int r;

	c->config = json_loadf(stdin, JSON_REJECT_DUPLICATES, &reason);
	vm_hold_signals();
	r = check_description(c->config, reason.text, err);
	if (!r)
		r = vm_start_empty(&c->place, c->config, &c->dir, &c->guard, err);
	c->name = record_text(c->config, "name");
	return r;
}

static int receive(struct receipt *c)
{
	struct error err;
	int r;

	r = c->again ? find_again(c, &err) : start_machine(c, &err);
	if (r)
		return cli_fail(c->cmd, r == -ECANCELED ? 130 : EXIT_FAILURE, &err);
	r = hand_over(c);
	if (!is_here(r))
		return r;
	if (vm_wait_here(c->name, true, VM_AGENT_TIMEOUT_S, &err))
		fprintf(stderr, "wisp vm receive: it has come, but %s\n", err.text);
	else if (!c->json)
		printf("%s: runs at %s\n", c->name, record_text(c->config, "address"));
	return r;
}

/* -------- as wisp vm migrate asks -------- */

/* A socket that listens at this address of ours, on any port. */
static int open_listener(const char *host, char **address, int *ret, struct error *err)
{
	CLEANUP_CLOSE int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in in = {.sin_family = AF_INET};
	socklen_t size = sizeof(in);

	if (inet_pton(AF_INET, host, &in.sin_addr) != 1)
		return error_set(err, -EINVAL, "\"%s\" is not an IPv4 address", host);
	if (fd < 0 || bind(fd, (struct sockaddr *)&in, sizeof(in)) < 0 || listen(fd, BACKLOG) < 0 ||
	    getsockname(fd, (struct sockaddr *)&in, &size) < 0)
		return error_errno(err, -errno,
				   "cannot listen at %s (--host gives another address)", host);
	*address = io_format("tcp:%s:%u", host, (unsigned)ntohs(in.sin_port));
	if (!*address)
		return error_errno(err, -ENOMEM, "cannot listen at %s", host);
	*ret = take_fd(&fd);
	return 0;
}

static int write_token(struct receipt *c, const char *token, struct error *err)
{
	CLEANUP_FREE char *path = record_path(c->dir, TOKEN_RECEIVE);

	args_add(&c->options, "--token=%s", path ? path : "");
	return path ? io_write_file(path, token, strlen(token), err)
		    : error_errno(err, -ENOMEM, "cannot keep the token");
}

/* What is new of the links has to be taken back with the machine. */
static int link_here(struct receipt *c, const char *local, struct error *err)
{
	const char *network = record_text(c->config, "network");
	json_t *added = NULL;
	int guard = -1,
	    r = vms_link(network, local, json_object_get(c->config, "nodes"), &added, err);

	if (!r)
		r = vms_guard(network, c->name, true, added, &guard, err);
	if (!r) {
		vms_release(&c->guard);
		c->guard = guard;
	}
	json_decref(added);
	return r;
}

/* Everything that can be refused before anything has moved. */
static int prepare(struct receipt *c, const json_t *message, char **address, struct error *err)
{
	const char *listen = record_text(message, "listen");
	int r = 0;

	if (json_integer_value(json_object_get(message, "version")) != 1)
		return error_set(err, -EPROTO, "wisp there and here are of different versions");
	c->config = json_deep_copy(json_object_get(message, "vm"));
	r = check_description(c->config, "", err);
	if (!r)
		r = open_listener(listen, address, &c->errand.listen, err);
	if (!r)
		r = vm_start_empty(&c->place, c->config, &c->dir, &c->guard, err);
	if (r)
		return r;
	c->name = record_text(c->config, "name");
	if (json_is_true(json_object_get(message, "link")))
		r = link_here(c, listen, err);
	if (!r)
		r = write_token(c, record_text(message, "token"), err);
	c->ready = json_is_true(json_object_get(message, "ready"));
	if (!json_is_true(json_object_get(message, "tls")))
		args_add(&c->options, "--no-tls");
	if (*record_text(message, "timeout"))
		args_add(&c->options, "--timeout=%s", record_text(message, "timeout"));
	args_add(&c->options, "--listen=tcp:fd=3");
	return r;
}

static void say(json_t *answer)
{
	jsonline_write(STDOUT_FILENO, answer);
	json_decref(answer);
}

/* The same ends, told to the other side. */
static int refuse(const struct error *err)
{
	say(json_pack("{sbss}", "ok", 0, "error", err->text));
	return EXIT_FAILURE;
}

static int settle(struct receipt *c)
{
	struct error err;
	int r = hand_over(c);

	if (!is_here(r))
		return r;
	if (c->ready && vm_wait_here(c->name, true, VM_AGENT_TIMEOUT_S, &err))
		return refuse(&err);
	say(json_pack("{sb,ss}", "ok", 1, "running", c->name));
	return r;
}

static int receive_arranged(struct receipt *c)
{
	CLEANUP_FREE char *address = NULL;
	struct jsonline line = {0};
	json_t *message = NULL;
	struct error err;
	int r;

	vm_hold_signals();
	r = launch_read(&line, STDIN_FILENO, &message, &err);
	jsonline_done(&line);
	if (!r)
		r = prepare(c, message, &address, &err);
	json_decref(message);
	if (!r) {
		say(json_pack("{sb,ss}", "ok", 1, "listening", address));
		r = settle(c);
	} else {
		r = refuse(&err);
		if (c->dir)
			give_up(c);
	}
	cleanup_close_fd(&c->errand.listen);
	return r;
}

/* -------- the command -------- */

static void set_option(struct receipt *c, int id, const char *value)
{
	c->token |= id == OPT_TOKEN;
	c->arranged |= id == OPT_ARRANGED;
	c->again |= id == OPT_AGAIN;
	c->json |= id == OPT_JSON;
	if (id == OPT_NAME)
		c->place.name = value;
	else if (id == OPT_NET)
		c->place.net = value;
	else if (id != OPT_ARRANGED)
		vm_pass_option(c->cmd, id, value, &c->options);
}

static int check(const struct receipt *c, int argc, struct error *err)
{
	if (argc != c->again)
		return c->again ? error_set(err, -EINVAL, "--again wants the name of one VM")
				: error_set(err, -EINVAL, "only --again goes with a name");
	if (c->again && (c->place.name || c->place.net))
		return error_set(err, -EINVAL, "--again goes without --name and --net");
	if (c->arranged && c->options.n)
		return error_set(err, -EINVAL, "--arranged goes without %s", c->options.v[0]);
	if (!c->token && !c->arranged && !c->again)
		return error_set(err, -EINVAL,
				 "give --token FILE: 64 hexadecimal digits that both sides know, "
				 "made for this migration");
	return 0;
}

static int run_receive(const struct command *cmd, int argc, char **argv)
{
	struct receipt c = {.cmd = cmd, .errand = {.listen = -1, .hangup = -1}, .guard = -1};
	struct option_parser parser;
	struct error err;
	const char *value;
	int r;

	option_start(&parser, cmd, argc, argv);
	while ((r = option_next(&parser, &value, &err)) > 0 && r != OPTION_HELP)
		set_option(&c, r, value);
	if (!r)
		r = check(&c, parser.argc, &err);
	if (r) {
		r = r > 0 ? 0 : cli_fail(cmd, EXIT_USAGE, &err);
	} else if (c.arranged) {
		c.errand.hangup = STDIN_FILENO;
		c.errand.quiet = true;
		r = receive_arranged(&c);
	} else {
		c.name = c.again ? parser.argv[0] : NULL;
		r = receive(&c);
	}
	receipt_done(&c);
	return r;
}

const struct command cmd_vm_receive = {
	.name = "vm receive",
	.args = "[NAME]",
	.summary = "Take a virtual machine that migrates to this machine",
	.details =
		"Reads the VM's description (vm.json of its state directory) from standard input, "
		"starts an empty machine like it, waits for a wisp vm migrate, and ends when the "
		"VM runs here or never will.\n\n"
		"Exit code 3: the hand-over was cut off; 4: the VM runs here, 5: it never will, "
		"but where it comes from has not heard that. --again NAME goes on with it, or "
		"tells it.",
	.options =
		(const struct option_desc[]){
			{.id = OPT_ARRANGED,
			 .name = "arranged",
			 .help = "Read description, token and address from standard input, as wisp "
				 "vm "
				 "migrate NAME NODE sends them, and answer on standard output"},
			{.id = OPT_LISTEN,
			 .name = "listen",
			 .arg = "ADDRESS",
			 .help = "tcp:HOST:PORT or unix:PATH; needed"},
			{.id = OPT_TOKEN,
			 .name = "token",
			 .arg = "FILE",
			 .complete = COMPLETE_FILE,
			 .help = "64 hexadecimal digits that the sender knows too; needed"},
			VM_TLS_OPTIONS,
			VM_PLACE_OPTIONS,
			{.id = OPT_PATIENCE,
			 .name = "patience",
			 .arg = "S",
			 .help = "How long it waits for memory that is to follow it, before it "
				 "ends "
				 "(default 600)"},
			{.id = OPT_TIMEOUT_MS,
			 .name = "timeout",
			 .arg = "MS",
			 .help = "How long the other side may be silent (default 10000)"},
			{.id = OPT_AGAIN,
			 .name = "again",
			 .help = "Go on with a hand-over that was cut off"},
			VM_PROGRESS_OPTION,
			{.id = OPT_JSON, .name = "json", .help = "Print the report as JSON"},
			{0}},
	.complete = COMPLETE_VM,
	.run = run_receive,
};
