/* SPDX-License-Identifier: Apache-2.0 */
/* wisp image: as streams to and from other machines. */

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/commands.h"
#include "image/image.h"
#include "image/progress.h"
#include "image/transfer.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/parse.h"
#include "lib/process.h"

enum { OPT_NAME = 1, OPT_INTO, OPT_REPLACE, OPT_QUIET, OPT_JSON, OPT_WAIT };

struct request {
	struct image_wish wish;
	bool quiet, json;
	unsigned wait_s;
	char **argv;
	int argc;
};

static int take_option(struct request *r, int opt, const char *value, struct error *err)
{
	switch (opt) {
	case OPT_NAME:
		r->wish.name = value;
		return 0;
	case OPT_INTO:
		r->wish.into = value;
		return 0;
	case OPT_REPLACE:
		r->wish.replace = true;
		return 0;
	case OPT_WAIT:
		return parse_uint(value, "--wait", 0, 86400, &r->wait_s, err);
	case OPT_QUIET:
		r->quiet = true;
		return 0;
	default:
		r->json = true;
		return 0;
	}
}

/* 0, or 1 + the exit code when nothing is to be done. */
static int parse(const struct command *cmd, int argc, char **argv, int least, int most,
		 struct request *ret)
{
	struct option_parser options;
	struct error err;
	const char *value;
	int opt, rc = 0;

	*ret = (struct request){0};
	option_start(&options, cmd, argc, argv);
	while (!rc && (opt = option_next(&options, &value, &err)) > 0) {
		if (opt == OPTION_HELP)
			return 1;
		rc = take_option(ret, opt, value, &err);
	}
	if (!rc)
		rc = opt;
	if (!rc && (options.argc < least || options.argc > most))
		rc = error_set(&err, -EINVAL, "give %s", *cmd->args ? cmd->args : "no arguments");
	if (rc)
		return 1 + cli_fail(cmd, EXIT_USAGE, &err);
	ret->argv = options.argv;
	ret->argc = options.argc;
	ret->argv[ret->argc] = NULL; /* what is behind them are options that moved */
	/* Who reads or writes a pipe hears of its end by an error. */
	signal(SIGPIPE, SIG_IGN);
	return 0;
}

static int fail(const struct command *cmd, int rc, const struct error *err)
{
	return cli_fail(cmd, rc == -EINTR ? 130 : EXIT_FAILURE, err);
}

static int tell_arrived(const struct request *r, const struct image_arrived *a)
{
	if (r->json)
		return cli_print_json(json_pack("{s:s, s:s, s:b, s:I, s:I}", "name", a->name,
						"digest", a->digest, "was_there", a->was_there,
						"size", (json_int_t)a->bytes, "brought",
						(json_int_t)a->brought));
	if (!r->quiet && a->was_there)
		printf("%s: is there already\n", a->name);
	else if (!r->quiet)
		printf("%s: %.1f MiB, of which %.1f MiB came\n", a->name,
		       (double)a->bytes / (1 << 20), (double)a->brought / (1 << 20));
	return 0;
}

/* Into a file that gets its name when it is whole; "-": standard output. */
static int export_to(const struct image *image, const char *file, struct progress *progress,
		     struct error *err)
{
	CLEANUP_FREE char *part = io_format("%s.part", file);
	CLEANUP_CLOSE int fd = -1;
	int rc;

	if (!strcmp(file, "-"))
		return image_export(image, STDOUT_FILENO, progress, err);
	if (!part)
		return error_set(err, -ENOMEM, "out of memory");
	fd = open(part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0)
		return error_errno(err, -errno, "cannot make %s", part);
	rc = image_export(image, fd, progress, err);
	if (rc == 0 && (fsync(fd) < 0 || rename(part, file) < 0))
		rc = error_errno(err, -errno, "cannot write %s", file);
	if (rc < 0)
		unlink(part);
	return rc;
}

static int export_image(const struct request *r, struct error *err)
{
	struct progress progress;
	struct image image;
	int rc = image_open(r->argv[0], &image, err);

	if (rc < 0)
		return rc;
	rc = progress_init(&progress, r->quiet, err);
	if (rc == 0) {
		progress_step(&progress, "export");
		rc = export_to(&image, r->argv[1], &progress, err);
		if (rc == 0)
			progress_end(&progress, "%s, %.1f MiB", image.name,
				     (double)image_size(&image) / (1 << 20));
		progress_done(&progress);
	}
	image_close(&image);
	return rc;
}

static int run_export(const struct command *cmd, int argc, char **argv)
{
	struct request r;
	struct error err;
	int rc = parse(cmd, argc, argv, 2, 2, &r);

	if (rc)
		return rc - 1;
	if (!strcmp(r.argv[1], "-") && isatty(STDOUT_FILENO)) {
		error_set(&err, -EINVAL,
			  "an image is nothing for a terminal: name a file, or use a pipe");
		return cli_fail(cmd, EXIT_USAGE, &err);
	}
	rc = export_image(&r, &err);
	return rc < 0 ? fail(cmd, rc, &err) : 0;
}

#define QUIET_OPTION                                                 \
	{                                                            \
		OPT_QUIET, "quiet", 'q', NULL, "Show no progress", 0 \
	}

const struct command cmd_image_export = {
	.name = "image export",
	.args = "IMAGE FILE|-",
	.summary = "Write a guest image as one stream of bytes",
	.details = "Into a file, or to standard output for a pipe: wisp image export mpi - | ssh "
		   "node2 "
		   "wisp image import -. Every byte is checked.",
	.options = (const struct option_desc[]){QUIET_OPTION, {0}},
	.complete = COMPLETE_IMAGE,
	.run = run_export,
};

static int import_image(const struct request *r, struct image_arrived *ret, struct error *err)
{
	struct image_wish wish = r->wish;
	struct progress progress;
	CLEANUP_CLOSE int file = -1;
	int rc, in = STDIN_FILENO;

	if (strcmp(r->argv[0], "-")) {
		in = file = open(r->argv[0], O_RDONLY | O_CLOEXEC);
		if (in < 0)
			return error_errno(err, -errno, "cannot open %s", r->argv[0]);
	}
	rc = progress_init(&progress, r->quiet, err);
	if (rc < 0)
		return rc;
	wish.progress = &progress;
	progress_step(&progress, "import");
	rc = image_import(in, &wish, ret, err);
	progress_done(&progress);
	return rc < 0 ? error_prefix(err, rc, "%s", r->argv[0]) : 0;
}

static int run_import(const struct command *cmd, int argc, char **argv)
{
	struct image_arrived arrived = {0};
	struct request r;
	struct error err;
	int rc = parse(cmd, argc, argv, 1, 1, &r);

	if (rc)
		return rc - 1;
	rc = import_image(&r, &arrived, &err);
	return rc < 0 ? fail(cmd, rc, &err) : tell_arrived(&r, &arrived);
}

#define ARRIVAL_OPTIONS                                                                \
	{OPT_NAME, "name", 'n', "NAME", "Its name here (default: the one it had)", 0}, \
		{OPT_INTO,                                                             \
		 "into",                                                               \
		 0,                                                                    \
		 "DIR",                                                                \
		 "Folder it comes to, say one of $WISP_STORE (default: yours)",        \
		 COMPLETE_DIR},                                                        \
		{OPT_REPLACE,                                                          \
		 "replace",                                                            \
		 0,                                                                    \
		 NULL,                                                                 \
		 "Put it in place of another image of the name",                       \
		 0},                                                                   \
		QUIET_OPTION,                                                          \
	{                                                                              \
		OPT_JSON, "json", 0, NULL, "Print JSON", 0                             \
	}

const struct command cmd_image_import = {
	.name = "image import",
	.args = "FILE|-",
	.summary = "Read a guest image from such a stream",
	.details = "What was changed on its way or is not whole is refused, and no image is there. "
		   "What "
		   "came is kept for a week: importing it again goes on with it. Parts of images "
		   "that are here "
		   "already are used.",
	.options = (const struct option_desc[]){ARRIVAL_OPTIONS, {0}},
	.complete = COMPLETE_FILE,
	.run = run_import,
};

static int run_serve(const struct command *cmd, int argc, char **argv)
{
	struct request r;
	struct error err;
	int rc = parse(cmd, argc, argv, 0, 0, &r);

	if (rc)
		return rc - 1;
	rc = image_serve(STDIN_FILENO, STDOUT_FILENO, r.wait_s * 1000, NULL, &err);
	return rc < 0 ? fail(cmd, rc, &err) : 0;
}

const struct command cmd_image_serve = {
	.name = "image serve",
	.args = "",
	.summary = "Give a guest image to who fetches it on standard input and output",
	.details = "Which one is asked for by its digest. One that is arriving here itself is "
		   "served as it "
		   "comes.",
	.options =
		(const struct option_desc[]){
			{OPT_WAIT, "wait", 'w', "SECONDS",
			 "How long to wait for an image that is not there (default 0)", 0},
			{0}},
	.run = run_serve,
};

/* The program whose standard input and output are the stream. */
static int start_source(char **argv, pid_t *ret_pid, int *ret, struct error *err)
{
	struct process process = {.argv = (const char *const *)argv, .nfds = 2};
	int pair[2], fds[2], rc;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return error_errno(err, -errno, "cannot start %s", argv[0]);
	fds[0] = fds[1] = pair[1];
	process.fds = fds;
	rc = process_start(&process, ret_pid, err);
	close(pair[1]);
	if (rc < 0)
		close(pair[0]);
	else
		*ret = pair[0];
	return rc;
}

static int fetch_from(const struct request *r, const char *digest, struct image_arrived *ret,
		      struct error *err)
{
	struct image_wish wish = r->wish;
	struct progress progress;
	int rc, status, fd = -1;
	pid_t pid = 0;

	rc = start_source(r->argv + 1, &pid, &fd, err);
	if (rc < 0)
		return rc;
	rc = progress_init(&progress, r->quiet, err);
	if (rc == 0) {
		wish.progress = &progress;
		progress_step(&progress, "fetch");
		rc = image_fetch(fd, fd, digest, &wish, ret, err);
		progress_done(&progress);
	}
	/* It ends by that, or has ended. */
	close(fd);
	process_wait(pid, &status);
	return rc;
}

static int run_fetch(const struct command *cmd, int argc, char **argv)
{
	static const char prefix[] = "@sha256:";
	struct image_arrived arrived = {0};
	struct request r;
	struct error err;
	int rc = parse(cmd, argc, argv, 2, argc, &r);
	const char *digest;

	if (rc)
		return rc - 1;
	digest = strstr(r.argv[0], prefix);
	if (!digest) {
		error_set(&err, -EINVAL, "\"%s\" names no digest: @sha256:DIGEST", r.argv[0]);
		return cli_fail(cmd, EXIT_USAGE, &err);
	}
	rc = fetch_from(&r, digest + strlen(prefix), &arrived, &err);
	return rc < 0 ? fail(cmd, rc, &err) : tell_arrived(&r, &arrived);
}

const struct command cmd_image_fetch = {
	.name = "image fetch",
	.args = "@sha256:DIGEST COMMAND...",
	.summary = "Fetch a guest image from another machine",
	.details = "The command runs wisp image serve there: wisp image fetch @sha256:DIGEST ssh "
		   "node1 wisp "
		   "image serve. Only what lacks is fetched; what was interrupted goes on, also "
		   "from another "
		   "machine.",
	.options = (const struct option_desc[]){ARRIVAL_OPTIONS, {0}},
	.stops_at_args = true,
	.run = run_fetch,
};
