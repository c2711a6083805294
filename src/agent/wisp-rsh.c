/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wisp-rsh: ssh's command line for MPI launchers, without ssh. Runs a command in another VM:
 * through the relay of this machine's agent to the agent there.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/client.h"
#include "agent/relay.h"
#include "build-config.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

#define EXIT_FAILED 255 /* as ssh: launchers know it */
#define RELAY_VARIABLE "WISP_RELAY"

/* What ssh knows; those with a value take it along when they are ignored. */
static const char letters[] =
	"+1246AaCfGgKkMNnqsTtVvXxYyhB:b:c:D:E:e:F:I:i:J:L:l:m:O:o:p:Q:R:S:W:w:";

struct args {
	const char *user, *host;
	bool no_stdin, terminal;
	char **command;
};

static int usage(FILE *out, int code)
{
	fprintf(out,
		"Usage: wisp-rsh [-l USER] [-n] [-t] [USER@]HOST [COMMAND...]\n\n"
		"Runs COMMAND by the shell of USER in the virtual machine HOST of the same "
		"network.\n"
		"Other options of ssh are accepted and ignored.\n\n"
		"  -l USER  the user there (default: the same number as here)\n"
		"  -n       empty standard input\n"
		"  -t       a terminal\n"
		"  -V       print the version\n\n"
		"Environment: " RELAY_VARIABLE "=unix:PATH reaches the relay at a UNIX socket.\n");
	return code;
}

/* Options may also stand behind the host, up to the command. Returns -1 to go on. */
static int parse_args(int argc, char **argv, struct args *args)
{
	char *at;
	int c;

	for (;;) {
		while ((c = getopt(argc, argv, letters)) != -1) {
			if (c == 'l')
				args->user = optarg;
			else if (c == 'n')
				args->no_stdin = true;
			else if (c == 't')
				args->terminal = true;
			else if (c == 'V')
				return printf("wisp-rsh %s\n", WISP_VERSION) < 0;
			else if (c == '?' || c == 'h')
				return usage(c == 'h' ? stdout : stderr,
					     c == 'h' ? 0 : EXIT_FAILED);
		}
		if (args->host || optind >= argc)
			break;
		args->host = argv[optind++];
	}
	if (!args->host)
		return usage(stderr, EXIT_FAILED);
	at = strrchr(args->host, '@');
	if (at) {
		*at = 0;
		args->user = args->host;
		args->host = at + 1;
	}
	args->command = argv + optind;
	return -1;
}

static int connect_relay(struct error *err)
{
	const char *address = getenv(RELAY_VARIABLE);

	if (!address)
		return io_unix_connect(RELAY_PATH, err);
	if (strncmp(address, "unix:", 5))
		return error_set(err, -EINVAL, RELAY_VARIABLE "=%s is not unix:PATH", address);
	return io_unix_connect(address + 5, err);
}

static int ask_relay(int fd, const char *host, struct error *err)
{
	json_t *request = json_pack("{s:i,s:s}", "version", 1, "host", host);
	CLEANUP_FREE char *text = request ? json_dumps(request, JSON_COMPACT) : NULL;
	CLEANUP_FREE char *line = text ? io_format("%s\n", text) : NULL;
	char answer[512];
	int r = line ? io_write_full(fd, line, strlen(line)) : -EINVAL;

	json_decref(request);
	if (!r)
		r = client_read_line(fd, answer, sizeof(answer));
	if (r)
		return error_errno(err, r, "no answer of the relay");
	if (!strncmp(answer, "ERROR ", 6))
		return error_set(err, -EHOSTUNREACH, "%s", answer + 6);
	return strcmp(answer, "OK") ? error_set(err, -EPROTO, "the relay's answer is none") : 0;
}

static int run(const struct args *args, int *code, struct error *err)
{
	CLEANUP_CLOSE int fd = connect_relay(err);
	char own[16];
	struct client_exec exec = {
		.argv = (const char *const *)args->command,
		.shell = true,
		.user = args->user ? args->user : own,
		.terminal = args->terminal || (!args->command[0] && isatty(0)),
		.in_fd = args->no_stdin ? -1 : 0,
		.out_fd = 1,
		.err_fd = 2,
	};
	int r = fd < 0 ? fd : ask_relay(fd, args->host, err);

	snprintf(own, sizeof(own), "%u", getuid());
	return r ? r : client_exec(fd, &exec, code, err);
}

int main(int argc, char **argv)
{
	struct args args = {0};
	struct error err;
	int code;

	io_open_standard_fds();
	code = parse_args(argc, argv, &args);
	if (code >= 0)
		return code;
	if (run(&args, &code, &err)) {
		fprintf(stderr, "wisp-rsh: %s: %s\n", args.host, err.text);
		return EXIT_FAILED;
	}
	return code;
}
