/* SPDX-License-Identifier: Apache-2.0 */
/* wisp vm cp, wisp cluster cp: files into and out of virtual machines. */

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/client.h"
#include "agent/proto.h"
#include "cli/cluster-agent.h"
#include "cli/commands.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "vms/vms.h"

enum { OPT_USER = 1, OPT_QUIET };

/* A session with the agent of a VM. */
typedef int agent_fn(const char *vm, struct error *err);

struct cp {
	agent_fn *agent;
	const char *user;
	bool quiet;
	uint64_t files, bytes;
};

/* "NAME:PATH" cut in two: the path is returned; NULL: it is a path here. */
static const char *split_remote(const char *text, char name[64])
{
	size_t n = strcspn(text, ":/");

	if (text[n] != ':' || !n || n > 63)
		return NULL;
	memcpy(name, text, n);
	name[n] = 0;
	return text[n + 1] ? text + n + 1 : ".";
}

static void show_progress(void *arg, const char *name, const struct copy *copy)
{
	const struct cp *cp = arg;
	char shown[41];

	text_printable(name, strnlen(name, sizeof(shown) - 1), shown);
	fprintf(stderr, "\r%9.1f MiB, %llu files  %-40s",
		(double)(cp->bytes + copy->bytes) / (1 << 20),
		(unsigned long long)(cp->files + copy->files), shown);
}

static int copy_one(struct cp *cp, const char *src, const char *dest, struct error *err)
{
	char from[64], to[64];
	const char *there = split_remote(src, from), *target = split_remote(dest, to);
	struct copy copy = {.progress = cp->quiet ? NULL : show_progress, .arg = cp};
	CLEANUP_CLOSE int fd = -1;
	int r = fd = cp->agent(there ? from : to, err);

	if (r >= 0)
		r = there ? client_copy_out(fd, there, dest, cp->user, &copy, err)
			  : client_copy_in(fd, src, target, cp->user, &copy, err);
	cp->files += copy.files;
	cp->bytes += copy.bytes;
	return r < 0 ? error_prefix(err, r, "%s", src) : 0;
}

/* One side is a VM's. Several sources need a directory: "/." behind it makes sure of that. */
static int check_sides(char **words, int n, char **dest, struct error *err)
{
	char name[64];
	bool to_vm;

	if (n < 2)
		return error_set(err, -EINVAL, "give a source and a destination");
	to_vm = split_remote(words[n - 1], name);
	for (int i = 0; i < n - 1; i++)
		if (to_vm == (split_remote(words[i], name) != NULL))
			return error_set(err, -EINVAL,
					 "%s and %s: one side is NAME:PATH in a VM, the other a "
					 "path here",
					 words[i], words[n - 1]);
	*dest = io_format("%s%s", words[n - 1], n > 2 ? "/." : "");
	return *dest ? 0 : error_errno(err, -ENOMEM, "cannot copy");
}

static int run(const struct command *cmd, int argc, char **argv, agent_fn *agent)
{
	struct cp cp = {.agent = agent, .quiet = !isatty(STDERR_FILENO)};
	CLEANUP_FREE char *dest = NULL;
	struct option_parser parser;
	const char *value;
	struct error err;
	int code = 0, r;

	option_start(&parser, cmd, argc, argv);
	while ((r = option_next(&parser, &value, &err)) > 0) {
		if (r == OPTION_HELP)
			return 0;
		cp.quiet |= r == OPT_QUIET;
		if (r == OPT_USER)
			cp.user = value;
	}
	if (!r)
		r = check_sides(parser.argv, parser.argc, &dest, &err);
	if (r)
		return cli_fail(cmd, EXIT_USAGE, &err);
	for (int i = 0; i < parser.argc - 1; i++) {
		r = copy_one(&cp, parser.argv[i], dest, &err);
		if (!cp.quiet)
			fprintf(stderr, "\r%*s\r", 70, "");
		if (r)
			code = cli_fail(cmd, EXIT_FAILURE, &err);
	}
	if (!cp.quiet)
		fprintf(stderr, "%llu files, %.1f MiB\n", (unsigned long long)cp.files,
			(double)cp.bytes / (1 << 20));
	return code;
}

static const struct option_desc options[] = {
	{OPT_USER, "user", 'u', "USER", "Copy as this user of the guest (default root)", 0},
	{OPT_QUIET, "quiet", 'q', NULL, "Show no progress", 0},
	{0}};

#define DETAILS                                                                      \
	"One side is NAME:PATH in a VM; a path here that has a colon is written as " \
	"./PATH. Permissions and times are kept; files appear whole."

static int run_vm(const struct command *cmd, int argc, char **argv)
{
	return run(cmd, argc, argv, vms_agent);
}

const struct command cmd_vm_cp = {
	.name = "vm cp",
	.args = "SOURCE... DESTINATION",
	.summary = "Copy files and trees into and out of a virtual machine",
	.details = DETAILS,
	.options = options,
	.complete = COMPLETE_FILE,
	.run = run_vm,
};

static int run_cluster(const struct command *cmd, int argc, char **argv)
{
	return run(cmd, argc, argv, cluster_agent);
}

const struct command cmd_cluster_cp = {
	.name = "cluster cp",
	.args = "SOURCE... DESTINATION",
	.summary = "Copy files and trees into and out of a VM of a cluster",
	.details = DETAILS " NAME is that of a VM (lu-1), or of a cluster: its first VM.",
	.options = options,
	.complete = COMPLETE_FILE,
	.run = run_cluster,
};
