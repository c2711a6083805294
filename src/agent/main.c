/* SPDX-License-Identifier: Apache-2.0 */
/* wisp-agent: process 1 of small images, or a service of a distribution. */

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/agent.h"
#include "agent/init.h"
#include "agent/program.h"
#include "agent/relay.h"
#include "agent/task.h"
#include "build-config.h"
#include "lib/cleanup.h"
#include "lib/command.h"
#include "lib/error.h"
#include "lib/io.h"

#define EXIT_USAGE 2
#define MAX_LISTEN 16

enum { OPT_LISTEN = 1, OPT_RELAY, OPT_LOG_LEVEL, OPT_VERSION };

static const struct option_desc options[] = {
	{OPT_LISTEN, "listen", 'l', "ADDRESS",
	 "Serve vsock:PORT, tcp:ADDRESS:PORT[,from=ADDRESS] or unix:PATH; may be repeated", 0},
	{OPT_RELAY, "relay", 0, "PATH",
	 "Where wisp-rsh finds it, once it is in a network of VMs (default " RELAY_PATH ")",
	 COMPLETE_FILE},
	{OPT_LOG_LEVEL, "log-level", 0, "LEVEL", "error, warn, info or debug (default warn)", 0},
	{OPT_VERSION, "version", 0, NULL, "Print the version", 0},
	{0},
};

static int run_service(const struct command *cmd, int argc, char **argv);

static const struct command command = {
	.name = "",
	.args = "",
	.summary = "Run programs and copy files for the host",
	.details = "Started by the kernel as /init, it is configured by wisp.* on the kernel's "
		   "command line instead.",
	.options = options,
	.run = run_service,
};

static void on_child(void *arg, int signo)
{
	programs_reap(arg);
}

/* As init, SIGINT is Ctrl-Alt-Del. */
static void on_stop(void *arg, int signo)
{
	struct agent *agent = arg;

	agent->stop_how = signo == SIGINT ? SHUTDOWN_REBOOT : SHUTDOWN_POWEROFF;
	loop_stop(agent->loop);
}

static int agent_setup(struct agent *agent, struct error *err)
{
	static const int stops[] = {SIGTERM, SIGINT, SIGUSR2};
	struct loop_source *source;
	struct rlimit files;
	int r;

	signal(SIGPIPE, SIG_IGN);
	if (!agent->is_init && !getrlimit(RLIMIT_NOFILE, &files)) {
		agent->child_nofile = files;
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	r = loop_create(&agent->loop);
	if (!r)
		r = loop_add_signal(agent->loop, SIGCHLD, on_child, agent, &source);
	for (unsigned i = 0; !r && i < ARRAY_SIZE(stops); i++)
		r = loop_add_signal(agent->loop, stops[i], on_stop, agent, &source);
	return r ? error_errno(err, r, "cannot set up the event loop") : 0;
}

static void agent_done(struct agent *agent)
{
	network_leave(agent);
	json_decref(agent->shares);
	sessions_done(agent);
	tasks_done(agent);
	programs_done(agent);
	listeners_done(agent);
	loop_destroy(agent->loop);
}

static int run_init(void)
{
	struct agent agent = {.is_init = true};
	struct init_config config = {0};
	struct error err;
	int r;

	log_init(&agent.log, "wisp-agent", STDERR_FILENO, LOG_INFO);
	r = init_boot(&agent, &config, &err);
	if (!r)
		r = agent_setup(&agent, &err);
	if (!r) {
		power_button_watch(&agent);
		if (init_ready(&agent, &config, &err))
			log_error(&agent.log, "init", "%s", err.text);
		loop_run(agent.loop);
		network_leave(&agent);
		listeners_done(&agent);
		shutdown_machine(&agent);
	} else {
		/* The kernel panics when process 1 ends, and the VMM reports that. */
		log_error(&agent.log, "init", "%s", err.text);
	}
	return 1;
}

static int parse_options(struct agent *agent, const char **listens, unsigned *count,
			 struct option_parser *parser, struct error *err)
{
	const char *value;
	int id, level;

	while ((id = option_next(parser, &value, err)) > 0) {
		switch (id) {
		case OPT_LISTEN:
			if (*count == MAX_LISTEN)
				return error_set(err, -E2BIG, "more than %d times --listen",
						 MAX_LISTEN);
			listens[(*count)++] = value;
			break;
		case OPT_RELAY:
			agent->relay_path = value;
			break;
		case OPT_LOG_LEVEL:
			level = log_level_parse(value, err);
			if (level < 0)
				return level;
			agent->log.level = level;
			break;
		case OPT_VERSION:
			printf("wisp-agent %s\n", WISP_VERSION);
			return OPT_VERSION;
		default:
			return id;
		}
	}
	if (id)
		return id;
	if (parser->argc)
		return error_set(err, -EINVAL, "unexpected argument \"%s\"", parser->argv[0]);
	return *count ? 0 : error_set(err, -EINVAL, "--listen is missing (see --help)");
}

static int run_service(const struct command *cmd, int argc, char **argv)
{
	const char *listens[MAX_LISTEN];
	struct agent agent = {0};
	struct option_parser parser;
	unsigned count = 0;
	struct error err;
	int r;

	io_open_standard_fds();
	log_init(&agent.log, "wisp-agent", STDERR_FILENO, LOG_WARN);
	option_start(&parser, cmd, argc, argv);
	r = parse_options(&agent, listens, &count, &parser, &err);
	if (r > 0)
		return 0;
	if (r) {
		fprintf(stderr, "wisp-agent: %s\n", err.text);
		return EXIT_USAGE;
	}
	r = agent_setup(&agent, &err);
	for (unsigned i = 0; !r && i < count; i++)
		r = listener_add(&agent, listens[i], &err);
	if (r)
		log_error(&agent.log, "agent", "%s", err.text);
	else
		r = loop_run(agent.loop);
	agent_done(&agent);
	return r ? 1 : 0;
}

int main(int argc, char **argv)
{
	const char *base = strrchr(argv[0], '/');

	/* The name tells a machine's init from a container's only process. */
	if (getpid() == 1 && !strcmp(base ? base + 1 : argv[0], "init")) {
		init_announce();
		return run_init();
	}
	return run_service(&command, argc - 1, argv + 1);
}
