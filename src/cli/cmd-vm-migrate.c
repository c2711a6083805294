/* SPDX-License-Identifier: Apache-2.0 */
/* wisp vm migrate: a running VM goes to another machine. */

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "cli/cmd-vm-mover.h"
#include "cli/commands.h"
#include "cli/vm-launch.h"
#include "lib/cleanup.h"
#include "lib/io.h"
#include "vms/handover.h"
#include "vms/record.h"
#include "vms/shares-agent.h"
#include "vms/vms.h"

#define TOKEN_BYTES 32

struct migration {
	const struct command *cmd;
	const char *name, *to;
	char *dir;	     /* the VM's state directory */
	struct args options; /* of wisp-mover */
	const char *launcher, *remote_wisp, *host, *timeout;
	bool token, tls, no_tls, dry_run, again, no_link, json, rest_later;
	/* To a node: */
	struct launch launch;
	json_t *config, *added; /* vm.json; nodes that are linked for this */
	int guard;		/* of those links and the token, or -1 */
	char *token_file, host_address[INET_ADDRSTRLEN];
};

/* -------- to where somebody receives already -------- */

/* What has left is forgotten here. */
static int forget(const struct migration *m)
{
	struct vms_stop stop = {.kill = true};
	struct error err;
	int r = vms_stop(m->name, &stop, &err);

	vms_leave_networks();
	return r ? cli_fail(m->cmd, EXIT_FAILURE, &err) : 0;
}

/* What the guest has open in its shares cannot move with it. */
static int detach_shares(struct migration *m, struct error *err)
{
	if (!m->config && record_read(m->dir, RECORD_CONFIG, &m->config, err))
		return m->again ? 0 : -ENOENT;
	if (!json_array_size(json_object_get(m->config, "shares")) || m->again || m->dry_run)
		return 0;
	if (m->rest_later)
		return error_set(err, -EOPNOTSUPP,
				 "VM %s has shares, whose program reads its memory: only --precopy "
				 "moves it",
				 m->name);
	return shares_detach(m->dir, m->config, err);
}

/* It has stayed. */
static void attach_shares(const struct migration *m)
{
	struct error err;

	if (!m->again && !m->dry_run && shares_attach(m->dir, m->config, &err))
		fprintf(stderr, "wisp vm migrate: the VM is without its shares: %s\n", err.text);
}

static int send_to(struct migration *m, const char *address)
{
	const struct vm_errand errand = {
		.listen = -1, .hangup = -1, .dry_run = m->dry_run, .guard = &m->guard};

	struct error err;
	int r = detach_shares(m, &err);

	if (r)
		return cli_fail(m->cmd, EXIT_FAILURE, &err);
	args_add(&m->options, "--to=%s", address);
	r = vm_hand_over(m->cmd, true, m->dir, &m->options, &errand);
	if (r && r != EXIT_UNDECIDED)
		attach_shares(m);
	return r;
}

static int to_address(struct migration *m)
{
	int r = send_to(m, m->to);

	return r || m->dry_run ? r : forget(m);
}

/* -------- to a node -------- */

/* The IPv4 address by which the node is reached. */
static int find_host(struct migration *m, struct error *err)
{
	const struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};
	const char *at = strrchr(m->to, '@'), *host = m->host ? m->host : at ? at + 1 : m->to;
	struct addrinfo *list = NULL;
	struct sockaddr_in in;
	int r = getaddrinfo(host, NULL, &hints, &list);

	if (r)
		return error_set(err, -ENOENT, "no address of node %s: %s (--host gives one)", host,
				 gai_strerror(r));
	memcpy(&in, list->ai_addr, sizeof(in));
	freeaddrinfo(list);
	inet_ntop(AF_INET, &in.sin_addr, m->host_address, sizeof(m->host_address));
	return 0;
}

/* Made for this migration; wisp-mover wants a file, and a hand-over that is cut off wants it again.
 */
static int make_token(struct migration *m, char text[2 * TOKEN_BYTES + 1], struct error *err)
{
	uint8_t bytes[TOKEN_BYTES];

	if (getrandom(bytes, sizeof(bytes), 0) != sizeof(bytes))
		return error_errno(err, -errno, "no random numbers");
	for (unsigned i = 0; i < TOKEN_BYTES; i++)
		snprintf(text + 2 * i, 3, "%02x", bytes[i]);
	m->token_file = record_path(m->dir, TOKEN_SEND);
	args_add(&m->options, "--token=%s", m->token_file ? m->token_file : "");
	return m->token_file ? io_write_file(m->token_file, text, 2 * TOKEN_BYTES, err)
			     : error_errno(err, -ENOMEM, "cannot make a token");
}

/* What the other side is to know (docs/formats/receive.md). */
static json_t *describe(const struct migration *m, const char *token)
{
	return json_pack("{si,sO,ss,ss,sb,sb,sb,ss*}", "version", 1, "vm", m->config, "token",
			 token, "listen", m->host_address, "link", !m->no_link, "tls", !m->no_tls,
			 "ready", record_exists(m->dir, RECORD_READY), "timeout", m->timeout);
}

/*
 * The nodes of the network with ours: an own address is first, which is that of the links, or the
 * one that leads to the other node.
 */
static int add_own_node(struct migration *m, struct error *err)
{
	json_t *nodes = json_object_get(m->config, "nodes");
	char own[16];
	int r;

	if (json_array_size(nodes))
		return 0;
	r = vms_address_towards(m->host_address, own, err);
	if (!r && json_object_set_new(m->config, "nodes", json_pack("[s]", own)) < 0)
		r = error_errno(err, -ENOMEM, "cannot link");
	return r;
}

static int link_here(struct migration *m, struct error *err)
{
	const char *own = json_string_value(json_array_get(json_object_get(m->config, "nodes"), 0));
	json_t *nodes = json_pack("[s]", m->host_address);
	int r = nodes ? vms_link(record_text(m->config, "network"), own, nodes, &m->added, err)
		      : -ENOMEM;

	json_decref(nodes);
	return r;
}

/*
 * When we are killed, the network's keeper takes back what is new here. It also settles now what a
 * command before us began, so this comes before the first of that, and again when more is new.
 */
static int watch_over(struct migration *m, struct error *err)
{
	int before = m->guard, r;

	m->guard = -1;
	r = vms_guard(record_text(m->config, "network"), m->name, false, m->added, &m->guard, err);
	vms_release(&before);
	return r;
}

/* The network is not always what it was when the VM was started. */
static int ask_network(struct migration *m, struct error *err)
{
	const struct vms_network net = {.name = record_text(m->config, "network")};
	json_t *request = json_pack("{ss}", "op", "network"), *answer = NULL;
	int r = request ? vms_network_call(&net, false, request, &answer, err) : -ENOMEM;

	if (!r && (json_object_set(m->config, "nodes", json_object_get(answer, "nodes")) < 0 ||
		   json_object_set(m->config, "hosts", json_object_get(answer, "vms")) < 0))
		r = error_errno(err, -ENOMEM, "cannot describe the network");
	json_decref(answer);
	json_decref(request);
	return r;
}

/* The other VMs of the network go on to know its name. */
static void tell_left(const struct migration *m)
{
	const struct vms_network net = {.name = record_text(m->config, "network")};
	json_t *request = json_pack("{ss,ss}", "op", "left", "name", m->name);

	if (request)
		vms_network_call(&net, false, request, NULL, NULL);
	json_decref(request);
}

/* The other side starts an empty machine and says where it listens. */
static int arrange(struct migration *m, char **ret, struct error *err)
{
	char token[2 * TOKEN_BYTES + 1];
	json_t *message = NULL, *answer = NULL;
	int r = record_read(m->dir, RECORD_CONFIG, &m->config, err);

	if (!r)
		r = ask_network(m, err);
	if (!r)
		r = find_host(m, err);
	if (!r && !m->no_link)
		r = add_own_node(m, err);
	if (!r)
		r = watch_over(m, err);
	if (!r)
		r = make_token(m, token, err);
	if (!r)
		r = launch_start(m->launcher, m->to, m->remote_wisp, &m->launch, err);
	if (!r) {
		message = describe(m, token);
		r = message ? launch_send(&m->launch, message, err)
			    : error_errno(err, -ENOMEM, "cannot describe the VM");
	}
	if (!r)
		r = launch_receive(&m->launch, &answer, err);
	if (!r && !m->no_link)
		r = link_here(m, err);
	if (!r)
		r = watch_over(m, err);
	if (!r) {
		*ret = strdup(record_text(answer, "listening"));
		r = *ret ? 0 : error_errno(err, -ENOMEM, "cannot migrate");
	}
	json_decref(answer);
	json_decref(message);
	return r;
}

/* As if it had not begun. */
static void undo(struct migration *m)
{
	if (m->added && json_array_size(m->added))
		vms_unlink(record_text(m->config, "network"), m->added, true, NULL);
	if (m->token_file)
		unlink(m->token_file);
}

/* It has left; the other side tells when its agent answers there. */
static int finish(struct migration *m)
{
	json_t *answer = NULL;
	struct error err;
	int r;

	if (m->token_file)
		unlink(m->token_file);
	if (!m->no_link)
		tell_left(m);
	r = forget(m);
	if (r)
		return r;
	if (launch_receive(&m->launch, &answer, &err))
		fprintf(stderr, "wisp vm migrate: it has moved, but %s\n", err.text);
	else if (!m->json)
		printf("%s: runs on %s at %s\n", m->name, m->to, record_text(m->config, "address"));
	json_decref(answer);
	return 0;
}

static int to_node(struct migration *m)
{
	CLEANUP_FREE char *listening = NULL;
	struct error err;
	int r;

	m->launch.fd = -1;
	vm_hold_signals();
	r = arrange(m, &listening, &err);
	if (r) {
		r = cli_fail(m->cmd, r == -ECANCELED ? 130 : EXIT_FAILURE, &err);
		undo(m);
	} else {
		r = send_to(m, listening);
		/* A mover that could not say how it ended leaves its record. */
		if (r == EXIT_UNDECIDED || (r && record_exists(m->dir, RECORD_SEND)))
			fprintf(stderr,
				"wisp vm migrate: to go on: wisp vm migrate %s %s --token %s "
				"--again\n",
				m->name, listening, m->token_file);
		else if (r || m->dry_run)
			undo(m);
		else
			r = finish(m);
	}
	vms_release(&m->guard);
	launch_end(&m->launch);
	json_decref(m->added);
	free(m->token_file);
	return r;
}

/* -------- the command -------- */

static bool is_address(const char *to)
{
	return !strncmp(to, "tcp:", 4) || !strncmp(to, "unix:", 5);
}

static void set_option(struct migration *m, int id, const char *value)
{
	m->token |= id == OPT_TOKEN;
	m->tls |= id == OPT_TLS;
	m->no_tls |= id == OPT_NO_TLS;
	m->dry_run |= id == OPT_DRY_RUN;
	m->again |= id == OPT_AGAIN;
	m->no_link |= id == OPT_NO_LINK;
	m->json |= id == OPT_JSON;
	m->rest_later |= id == OPT_POSTCOPY || id == OPT_HYBRID;
	if (id == OPT_LAUNCHER)
		m->launcher = value;
	else if (id == OPT_REMOTE_WISP)
		m->remote_wisp = value;
	else if (id == OPT_HOST)
		m->host = value;
	else if (id != OPT_NO_LINK)
		vm_pass_option(m->cmd, id, value, &m->options);
	if (id == OPT_TIMEOUT_MS)
		m->timeout = value;
}

static int check(const struct migration *m, int argc, struct error *err)
{
	if (argc != 2)
		return error_set(err, -EINVAL, "give the name of a VM and where it is to go");
	if (is_address(m->to) && !m->token)
		return error_set(err, -EINVAL,
				 "give --token FILE: 64 hexadecimal digits that both sides know, "
				 "made for this migration");
	if (!is_address(m->to) && (m->token || m->again))
		return error_set(err, -EINVAL,
				 "--token and --again are for an address (tcp:HOST:PORT), not a "
				 "node");
	return 0;
}

/* Its state directory; of one that is to leave, or that may have left. */
static int find_vm(struct migration *m, struct error *err)
{
	int r = m->again ? vms_hand_over_dir(m->name, &m->dir, err)
			 : vms_dir(m->name, &m->dir, err);

	if (!r && m->again && !record_exists(m->dir, RECORD_SEND))
		r = error_set(err, -ENOENT,
			      "no hand-over of VM %s from this machine is unsettled: it is here",
			      m->name);
	/* Another machine there would wipe what is known of the first hand-over. */
	if (!r && !m->again && !m->dry_run)
		r = hand_over_check(m->name, m->dir, HAND_OVER_UNDECIDED,
				    "forget that with wisp vm stop --kill", err);
	return r;
}

static int run_migrate(const struct command *cmd, int argc, char **argv)
{
	const char *launcher = getenv("WISP_LAUNCHER"), *value;
	struct migration m = {
		.cmd = cmd, .launcher = launcher && *launcher ? launcher : "ssh", .guard = -1};
	struct option_parser parser;
	struct error err;
	int r;

	option_start(&parser, cmd, argc, argv);
	while ((r = option_next(&parser, &value, &err)) > 0 && r != OPTION_HELP)
		set_option(&m, r, value);
	m.name = parser.argc > 0 ? parser.argv[0] : "";
	m.to = parser.argc > 1 ? parser.argv[1] : "";
	if (!r)
		r = check(&m, parser.argc, &err);
	if (r) {
		r = r > 0 ? 0 : cli_fail(cmd, EXIT_USAGE, &err);
	} else {
		r = find_vm(&m, &err);
		r = r		       ? cli_fail(cmd, EXIT_FAILURE, &err)
		    : is_address(m.to) ? to_address(&m)
				       : to_node(&m);
	}
	json_decref(m.config);
	args_done(&m.options);
	free(m.dir);
	return r;
}

const struct command cmd_vm_migrate = {
	.name = "vm migrate",
	.args = "NAME NODE|ADDRESS",
	.summary = "Move a running virtual machine to another node",
	.details =
		"wisp is started on NODE by the launcher, makes the VM's network there and links "
		"it "
		"with ours, and receives the VM. The VM runs while its memory is sent; when "
		"anything fails before the hand-over it runs on here, and nothing is left there. "
		"NODE must have the same image and disk files at the same paths, and wisp.\n\n"
		"ADDRESS is tcp:HOST:PORT or unix:PATH of a wisp vm receive that somebody "
		"started. Exit code 3: the hand-over was cut off; 5: the VM has stayed here, but "
		"the other place has not heard that. --again goes on with it, or tells it.",
	.options =
		(const struct option_desc[]){
			{.id = OPT_LAUNCHER,
			 .name = "launcher",
			 .arg = "COMMAND",
			 .help = "Runs a command at NODE, which is added to its words, or put in "
				 "place of %n (default $WISP_LAUNCHER, or ssh)"},
			{.id = OPT_REMOTE_WISP,
			 .name = "remote-wisp",
			 .arg = "PATH",
			 .help = "wisp at NODE (default the path of this one)"},
			{.id = OPT_HOST,
			 .name = "host",
			 .arg = "HOST",
			 .help = "Address of NODE for the VM and the links (default NODE)"},
			{.id = OPT_NO_LINK,
			 .name = "no-link",
			 .help = "Do not link its network: it leaves the other VMs behind"},
			{.id = OPT_TOKEN,
			 .name = "token",
			 .arg = "FILE",
			 .complete = COMPLETE_FILE,
			 .help = "64 hexadecimal digits that the receiver knows too; needed for "
				 "ADDRESS"},
			VM_TLS_OPTIONS,
			{.id = OPT_STREAMS,
			 .name = "streams",
			 .arg = "N",
			 .help = "Connections for its memory (default 2)"},
			{.id = OPT_BANDWIDTH,
			 .name = "bandwidth",
			 .arg = "RATE",
			 .help = "Bytes a second (K, M, G) while it runs (default no limit)"},
			{.id = OPT_DOWNTIME,
			 .name = "max-downtime",
			 .arg = "MS",
			 .help = "Pause to aim for, in milliseconds (default 300)"},
			{.id = OPT_ROUNDS,
			 .name = "rounds",
			 .arg = "N",
			 .help = "Give up after so many rounds, or with --hybrid hand it over "
				 "(default 30)"},
			{.id = OPT_PRECOPY,
			 .name = "precopy",
			 .help = "Hand it over with all its memory (default)"},
			{.id = OPT_HYBRID,
			 .name = "hybrid",
			 .help = "The same, but if it writes faster than can be sent hand it over "
				 "before: the rest of its memory follows"},
			{.id = OPT_POSTCOPY,
			 .name = "postcopy",
			 .help = "Hand it over at once: all its memory follows. Both nodes are "
				 "needed until it is there"},
			{.id = OPT_COMPRESS,
			 .name = "compress",
			 .arg = "none|lz4|zstd",
			 .help = "Compression of its memory (default none)"},
			{.id = OPT_THROTTLE,
			 .name = "throttle",
			 .help = "Slow its vCPUs down if they write faster than can be sent"},
			{.id = OPT_CLOCK,
			 .name = "clock",
			 .arg = "frozen|elapsed",
			 .help = "Whether its clocks show the pause (default elapsed)"},
			{.id = OPT_TIMEOUT_MS,
			 .name = "timeout",
			 .arg = "MS",
			 .help = "How long the other side may be silent (default 10000)"},
			{.id = OPT_DRY_RUN,
			 .name = "dry-run",
			 .help = "Only tell what would keep it from moving"},
			{.id = OPT_AGAIN,
			 .name = "again",
			 .help = "Go on with a hand-over that was cut off"},
			VM_PROGRESS_OPTION,
			{.id = OPT_JSON, .name = "json", .help = "Print the report as JSON"},
			{0}},
	.complete = COMPLETE_VM,
	.run = run_migrate,
};
