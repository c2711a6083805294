/* SPDX-License-Identifier: Apache-2.0 */
/* wispd: the options of a node's daemon, and its life. */

#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <net/if.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "build-config.h"
#include "channel/credential.h"
#include "lib/args.h"
#include "lib/cleanup.h"
#include "lib/command.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/log.h"
#include "lib/loop.h"
#include "lib/parse.h"
#include "lib/paths.h"
#include "node/ask.h"
#include "node/cluster-key.h"
#include "node/daemon.h"
#include "node/nodename.h"
#include "node/pipe.h"
#include "node/topology.h"

#define EXIT_USAGE 2
#define POLICY "/etc/wisp/policy.d"
#define KEYS "/etc/wisp/keys.d"
#define ROOTS_DATABASE "/var/lib/wisp/node.db"
#define VLAN_MAX 4094u
#define SECONDS_MAX 86400u
#define IDLE "60" /* seconds that a daemon stays that was started for a launcher */

enum {
	OPT_STATE = 1,
	OPT_NAME,
	OPT_TYPE,
	OPT_LABEL,
	OPT_POLICY,
	OPT_KEYS,
	OPT_OPERATORS,
	OPT_HOUSEKEEPING,
	OPT_GRACE,
	OPT_CGROUPS,
	OPT_METRICS,
	OPT_OUTSIDE,
	OPT_MACVTAP,
	OPT_TOPOLOGY,
	OPT_LISTEN,
	OPT_KEY,
	OPT_MUNGE,
	OPT_LAUNCHER,
	OPT_PIPE,
	OPT_IDLE,
	OPT_LOG_LEVEL,
	OPT_VERSION,
};

static const struct option_desc options[] = {
	{OPT_STATE, "state", 0, "DIR",
	 "Folder of its socket and database (default: for root /run/wisp/node and /var/lib/wisp, "
	 "else in the user's run and data folders)",
	 COMPLETE_DIR},
	{OPT_NAME, "name", 0, "NAME", "The node's name (default: its host name)", 0},
	{OPT_TYPE, "type", 0, "TYPE", "login, io or compute (default compute)", 0},
	{OPT_LABEL, "label", 0, "LABEL", "A label that environments may ask for (may be repeated)",
	 0},
	{OPT_POLICY, "policy", 0, "DIR",
	 "Folder of the site's documents (default " POLICY " when it is there)", COMPLETE_DIR},
	{OPT_KEYS, "keys", 0, "DIR",
	 "Folder of the keys that waivers and images are signed by (default " KEYS ")",
	 COMPLETE_DIR},
	{OPT_OPERATORS, "operators", 0, "GROUP",
	 "The group whose members may do what root may (default wisp)", 0},
	{OPT_HOUSEKEEPING, "housekeeping", 0, "CPULIST",
	 "CPUs that are kept for the host, with the rest of their cores (default: none)", 0},
	{OPT_GRACE, "grace", 0, "SECONDS",
	 "How long a reservation stays when nobody is there any more (default 30)", 0},
	{OPT_CGROUPS, "cgroups", 0, "DIR",
	 "The folder in which it makes the control groups of clusters, version 2, or none "
	 "(default: "
	 "for root /sys/fs/cgroup, else none)",
	 COMPLETE_DIR},
	{OPT_METRICS, "metrics", 0, "PATH|[ADDRESS:]PORT",
	 "Serve metrics of the node and its clusters at /metrics, over HTTP, on a UNIX socket or "
	 "(without ADDRESS for this machine only) TCP; whoever reaches it may read them (default: "
	 "not at all)",
	 COMPLETE_FILE},
	{OPT_OUTSIDE, "outside", 0, NULL,
	 "Root's: networks of clusters may lead out (network.isolated: no): what this node "
	 "reaches their VMs reach, as an ordinary user of this node would. The node has to forward "
	 "(net.ipv4.ip_forward) and have nft",
	 0},
	{OPT_MACVTAP, "macvtap", 0, "INTERFACE[:VLAN[-VLAN]]",
	 "Root's: VMs of clusters may be machines on the network of this interface (network.kind: "
	 "macvtap), each cluster in a VLAN of its own from this range that its environment names; "
	 "without a range all on the interface itself, which may then be no trunk: guests can tag "
	 "frames",
	 0},
	{OPT_LISTEN, "listen", 0, "ADDRESS[:PORT]",
	 "Let daemons of other nodes call here, over TCP (default: none; port " NODENAME_PORT
	 ", 0 for any)",
	 0},
	{OPT_KEY, "key", 0, "FILE",
	 "The cluster's key, by which daemons know each other: 32 to 4096 random bytes, the same "
	 "on "
	 "all nodes (default /etc/wisp/cluster.key, for users ~/.config/wisp/cluster.key, when it "
	 "is there; else MUNGE)",
	 COMPLETE_FILE},
	{OPT_MUNGE, "munge-socket", 0, "PATH", "Of MUNGE's daemon (default: the usual one)",
	 COMPLETE_FILE},
	{OPT_LAUNCHER, "launcher", 0, "COMMAND",
	 "Reach other nodes by a command instead of TCP, say \"ssh -o BatchMode=yes\": behind it "
	 "go the host and \"wispd --pipe\"; with %h in it, that is the host and what follows is "
	 "how "
	 "wispd is called there",
	 0},
	{OPT_PIPE, "pipe", 0, NULL,
	 "Be no daemon, but a launcher's way to the one of this node: by standard input and "
	 "output. "
	 "A user where there is none starts one, with the other options and --idle 60",
	 0},
	{OPT_IDLE, "idle", 0, "SECONDS",
	 "End when nobody was connected and nothing reserved for so long (default: never)", 0},
	{OPT_TOPOLOGY, "topology", 0, "FILE|WORDS",
	 "For tests and planning: the machine of a file that lstopo wrote (.xml), or made up "
	 "(\"pack:2 core:4 pu:2\"), instead of this one",
	 COMPLETE_FILE},
	{OPT_LOG_LEVEL, "log-level", 0, "LEVEL", "error, warn, info or debug (default info)", 0},
	{OPT_VERSION, "version", 0, NULL, "Print the version", 0},
	{0},
};

static int run_daemon(const struct command *cmd, int argc, char **argv);

static const struct command command = {
	.name = "wispd",
	.args = "",
	.summary = "Share a node's cores, memory and devices between virtual clusters",
	.details = "It stays in the foreground. SIGTERM and SIGINT end it; virtual machines run "
		   "on, and the next one finds them.",
	.options = options,
	.run = run_daemon,
};

struct settings {
	const char *state, *name, *policy, *keys, *operators, *topology, *cgroups, *key, *munge;
	uint8_t secret[CLUSTER_KEY_MAX];
	bool pipe;
	char parent[IFNAMSIZ];
	struct daemon_params params;
	enum log_level level;
};

/* -------- options -------- */

static int set_type(struct settings *s, const char *value, struct error *err)
{
	static const char *const types[] = {"login", "io", "compute"};

	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		if (!strcmp(value, types[i])) {
			s->params.admit.type = value;
			return 0;
		}
	return error_set(err, -EINVAL, "--type %s: there are login, io and compute", value);
}

static int set_seconds(const char *option, const char *value, unsigned *ret, struct error *err)
{
	if (!parse_uint(value, option, 1, SECONDS_MAX, ret, NULL))
		return 0;
	return error_set(err, -EINVAL, "--%s %s: give seconds, 1 to %u", option, value,
			 SECONDS_MAX);
}

/* "100", "100-199" */
static int parse_vlans(const char *text, unsigned *first, unsigned *last)
{
	const char *dash = strchr(text, '-');
	CLEANUP_FREE char *from = strndup(text, strcspn(text, "-"));
	int r = from ? parse_uint(from, "VLAN", 1, VLAN_MAX, first, NULL) : -ENOMEM;

	return r ? r : parse_uint(dash ? dash + 1 : from, "VLAN", *first, VLAN_MAX, last, NULL);
}

/* "eth1", "eth1:100", "eth1:100-199" */
static int set_macvtap(struct settings *s, const char *value, struct error *err)
{
	size_t n = strcspn(value, ":");

	if (!n || n >= sizeof(s->parent) ||
	    (value[n] && parse_vlans(value + n + 1, &s->params.lan.first, &s->params.lan.last)))
		return error_set(err, -EINVAL,
				 "--macvtap %s: give an interface, and VLANs from 1 to %u (as "
				 "eth1:100-199) or none",
				 value, VLAN_MAX);
	memcpy(s->parent, value, n);
	s->parent[n] = 0;
	s->params.lan.parent = s->parent;
	return 0;
}

static int set(struct settings *s, int id, const char *value, struct error *err)
{
	int level;

	switch (id) {
	case OPT_STATE:
		s->state = value;
		return 0;
	case OPT_NAME:
		s->name = value;
		return paths_check_name(value, "node", err);
	case OPT_TYPE:
		return set_type(s, value, err);
	case OPT_LABEL:
		json_array_append_new(s->params.labels, json_string(value));
		return paths_check_name(value, "label", err);
	case OPT_POLICY:
		s->policy = value;
		return 0;
	case OPT_KEYS:
		s->keys = value;
		return 0;
	case OPT_OPERATORS:
		s->operators = value;
		return 0;
	case OPT_HOUSEKEEPING:
		return parse_cpulist(value, &s->params.host, err);
	case OPT_GRACE:
		return set_seconds("grace", value, &s->params.grace, err);
	case OPT_METRICS:
		s->params.metrics = value;
		return 0;
	case OPT_CGROUPS:
		s->cgroups = value;
		return 0;
	case OPT_OUTSIDE:
		s->params.outside = true;
		return 0;
	case OPT_MACVTAP:
		return set_macvtap(s, value, err);
	case OPT_TOPOLOGY:
		s->topology = value;
		return 0;
	case OPT_LISTEN:
		s->params.listen = value;
		return 0;
	case OPT_KEY:
		s->key = value;
		return 0;
	case OPT_MUNGE:
		s->munge = value;
		return 0;
	case OPT_LAUNCHER:
		s->params.launcher = value;
		return 0;
	case OPT_PIPE:
		s->pipe = true;
		return 0;
	case OPT_IDLE:
		return set_seconds("idle", value, &s->params.idle, err);
	default:
		level = log_level_parse(value, err);
		s->level = level < 0 ? LOG_INFO : (enum log_level)level;
		return level < 0 ? level : 0;
	}
}

/* 0, an id that was answered here, or -errno. */
static int parse(struct settings *s, struct option_parser *parser, struct error *err)
{
	const char *value;
	int id, r;

	while ((id = option_next(parser, &value, err)) > 0) {
		if (id == OPTION_HELP)
			return id;
		if (id == OPT_VERSION) {
			printf("wispd %s\n", WISP_VERSION);
			return id;
		}
		r = set(s, id, value, err);
		if (r)
			return r;
	}
	if (!id && parser->argc)
		return error_set(err, -EINVAL, "unexpected argument \"%s\"", parser->argv[0]);
	return id;
}

/* -------- where things are -------- */

/* Of root's: others pass through to the socket, and see nothing else. */
static int open_run(char **socket, struct error *err)
{
	CLEANUP_FREE char *folder = NULL;
	int r = paths_run("node", NULL, &folder, err);
	char *slash;

	if (!r)
		r = paths_run("node", "socket", socket, err);
	if (r || geteuid())
		return r;
	if (chmod(folder, 0711))
		return error_errno(err, -errno, "cannot open %s", folder);
	slash = strrchr(folder, '/');
	*slash = 0;
	return chmod(folder, 0711) ? error_errno(err, -errno, "cannot open %s", folder) : 0;
}

/* A user's folders may be the same on all nodes. */
static int find_paths(const char *state, const char *name, char **socket, char **database,
		      struct error *err)
{
	CLEANUP_FREE char *file = io_format("node-%s.db", name);
	int r;

	if (state) {
		*socket = io_format("%s/socket", state);
		*database = io_format("%s/node.db", state);
		return *socket && *database ? io_make_dirs(state, geteuid() ? 0700 : 0711, err)
					    : error_set(err, -ENOMEM, "out of memory");
	}
	r = open_run(socket, err);
	if (!r && geteuid() == 0) {
		*database = strdup(ROOTS_DATABASE);
		return io_make_dirs("/var/lib/wisp", 0755, err);
	}
	if (!r && !file)
		r = error_set(err, -ENOMEM, "out of memory");
	return r ? r : paths_data(file, database, err);
}

/* What root's daemon makes for users. The folder of run folders can be passed through. */
static int make_folders(const char *state, char **users, char **networks, struct error *err)
{
	int r;

	if (geteuid())
		return 0;
	*users = io_format("%s/user", state ? state : "/run/wisp");
	*networks = io_format("%s/net", state ? state : "/run/wisp/node");
	if (!*users || !*networks)
		return error_set(err, -ENOMEM, "out of memory");
	r = io_make_dirs(*users, 0711, err);
	if (!r && chmod(*users, 0711))
		r = error_errno(err, -errno, "cannot open %s", *users);
	return r ? r : io_make_dirs(*networks, 0700, err);
}

/* Where version 2 is: alone, or beside version 1. */
static const char *find_cgroups(const char *wanted)
{
	static const char *const usual[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"};

	if (wanted)
		return strcmp(wanted, "none") ? wanted : NULL;
	for (size_t i = 0; !geteuid() && i < ARRAY_SIZE(usual); i++) {
		char path[64];

		snprintf(path, sizeof(path), "%s/cgroup.controllers", usual[i]);
		if (!access(path, F_OK))
			return usual[i];
	}
	return NULL;
}

static int find_group(const char *name, gid_t *ret, struct error *err)
{
	const struct group *group = getgrnam(name ? name : "wisp");

	*ret = group ? group->gr_gid : (gid_t)-1;
	return group || !name ? 0 : error_set(err, -ENOENT, "there is no group %s", name);
}

static int find_topology(const char *text, struct topology **ret, struct error *err)
{
	struct topology_source source = {0};
	size_t n = text ? strlen(text) : 0;

	if (n > 4 && !strcmp(text + n - 4, ".xml"))
		source.xml = text;
	else
		source.synthetic = text;
	return topology_read(&source, ret, err);
}

/* How daemons of other nodes know it, and it them. */
static int find_credentials(struct settings *s, struct error *err)
{
	int r = cluster_key_read(s->key, s->secret, &s->params.nkey, err);

	if (r)
		return r;
	s->params.key = s->params.nkey ? s->secret : NULL;
	return credentials_known() ? credentials_create(s->munge, &s->params.credentials, err) : 0;
}

/* -------- its life -------- */

/* systemd is told, as sd_notify(3) has it, when it asked for that. */
static void tell_systemd(const char *text)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	size_t n = path ? strlen(path) : 0;
	CLEANUP_CLOSE int fd = -1;

	if (n < 2 || n >= sizeof(address.sun_path) || (path[0] != '/' && path[0] != '@'))
		return;
	memcpy(address.sun_path, path, n);
	if (path[0] == '@')
		address.sun_path[0] = 0;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd >= 0)
		sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&address,
		       (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n));
}

static void on_stop(void *arg, int signo)
{
	loop_stop(arg);
}

/* A descriptor for each connection: what the system allows, not what a shell needs. */
static void raise_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit))
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

static int serve(struct settings *s, const struct log *log, struct error *err)
{
	static const int stops[] = {SIGTERM, SIGINT};
	struct daemon *d = NULL;
	struct loop *loop = NULL;
	struct loop_source *source;
	int r = loop_create(&loop);

	raise_limit();
	signal(SIGPIPE, SIG_IGN);
	for (size_t i = 0; !r && i < ARRAY_SIZE(stops); i++)
		r = loop_add_signal(loop, stops[i], on_stop, loop, &source);
	if (r)
		error_errno(err, r, "cannot set up the event loop");
	s->params.loop = loop;
	s->params.log = log;
	if (!r)
		r = daemon_create(&s->params, &d, err);
	if (!r) {
		log_info(log, "wispd", "%s at %s", s->params.name, s->params.socket);
		tell_systemd("READY=1");
		r = loop_run(loop);
		tell_systemd("STOPPING=1");
	}
	daemon_destroy(d);
	loop_destroy(loop);
	return r;
}

static int run(struct settings *s, const struct log *log, struct error *err)
{
	CLEANUP_FREE char *socket = NULL, *database = NULL, *users = NULL, *networks = NULL;
	CLEANUP_FREE char *interrupts = NULL;
	char host[HOST_NAME_MAX + 1] = "";
	struct topology *topology = NULL;
	int r;

	gethostname(host, sizeof(host) - 1);
	r = find_paths(s->state, s->name ? s->name : host, &socket, &database, err);
	if (!r)
		r = make_folders(s->state, &users, &networks, err);
	/* Of a machine that is made up none are moved. */
	if (!r && networks && !s->topology)
		interrupts = io_format("%s.interrupts", socket);
	if (!r)
		r = find_group(s->operators, &s->params.operators, err);
	if (!r)
		r = find_topology(s->topology, &topology, err);
	if (!r)
		r = find_credentials(s, err);
	s->params.socket = socket;
	s->params.database = database;
	s->params.name = s->name ? s->name : host;
	s->params.topology = topology;
	s->params.users = users;
	s->params.networks = networks;
	s->params.interrupts = interrupts;
	s->params.cgroups = find_cgroups(s->cgroups);
	s->params.everybody = geteuid() == 0;
	s->params.admit.policy = s->policy ? s->policy : access(POLICY, F_OK) == 0 ? POLICY : NULL;
	s->params.admit.keys = s->keys ? s->keys : KEYS;
	if (!r)
		r = serve(s, log, err);
	credentials_destroy(s->params.credentials);
	topology_destroy(topology);
	return r;
}

/* -------- a launcher's way -------- */

/* Where root has none users start theirs: with the options that were given, but --pipe. */
static int start_args(char *const *given, struct args *ret, struct error *err)
{
	char self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (n < 0)
		return error_errno(err, -errno, "cannot find this program");
	args_add(ret, "%.*s", (int)n, self);
	args_add(ret, "--idle=%s", IDLE);
	for (; *given; given++)
		if (strcmp(*given, "--pipe"))
			args_add(ret, "%s", *given);
	return ret->failed ? error_set(err, -ENOMEM, "out of memory") : 0;
}

static int run_pipe(const char *state, char *const *given, struct error *err)
{
	CLEANUP_FREE char *socket = state ? io_format("%s/socket", state) : NULL, *log = NULL;
	struct args start = {0};
	int r = 0;

	if (!state)
		r = ask_socket(&socket, err);
	if (!r && socket)
		log = io_format("%s.log", socket);
	if (!r && !log)
		r = error_set(err, -ENOMEM, "out of memory");
	if (!r && state)
		r = io_make_dirs(state, 0700, err);
	if (!r)
		r = start_args(given, &start, err);
	if (!r)
		r = pipe_run(socket, geteuid() ? &start : NULL, log, err);
	args_done(&start);
	return r;
}

/* Of the options as they were given; args_done(). */
static struct args copy_of(int argc, char **argv)
{
	struct args copy = {0};

	for (int i = 0; i < argc; i++)
		args_add(&copy, "%s", argv[i]);
	return copy;
}

static int pipe_or_serve(struct settings *s, char *const *given)
{
	struct error err = {""};
	struct log log;
	int r;

	if (s->pipe) {
		r = run_pipe(s->state, given, &err);
		if (r)
			fprintf(stderr, "wispd: %s\n", err.text);
		return r ? 1 : 0;
	}
	log_init(&log, "wispd", STDERR_FILENO, s->level);
	r = run(s, &log, &err);
	if (r)
		log_error(&log, "wispd", "%s", err.text);
	return r ? 1 : 0;
}

static int run_daemon(const struct command *cmd, int argc, char **argv)
{
	struct settings s = {
		.level = LOG_INFO,
		.params = {
			.admit.type = "compute", .labels = json_array(), .root = "", .grace = 30}};
	struct args given = copy_of(argc, argv);
	struct option_parser parser;
	struct error err = {""};
	int r;

	option_start(&parser, cmd, argc, argv);
	r = parse(&s, &parser, &err);
	if (r < 0)
		fprintf(stderr, "wispd: %s\n", err.text);
	if (r)
		r = r < 0 ? EXIT_USAGE : 0;
	else
		r = pipe_or_serve(&s, given.v);
	json_decref(s.params.labels);
	args_done(&given);
	return r;
}

int main(int argc, char **argv)
{
	static const struct command *const table[] = {&command, NULL};

	io_open_standard_fds();
	if (argc == 2 && !strcmp(argv[1], "--man-options")) {
		command_man(stdout, NULL, table);
		return 0;
	}
	return command.run(&command, argc - 1, argv + 1);
}
