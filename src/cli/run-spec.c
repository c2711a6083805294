/* SPDX-License-Identifier: Apache-2.0 */
/* From documents and options to the description of a cluster (docs/formats/job.md). */

#include "cli/run-spec.h"

#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/run-nodes.h"
#include "image/image.h"
#include "job/checkpoints.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

#define DOCUMENT_MAX (1u << 20)
#define OURS "command line" /* the document that options make */

int run_options_init(struct run_options *o, struct error *err)
{
	*o = (struct run_options){.facts = json_object(),
				  .waivers = json_array(),
				  .asked = json_object(),
				  .variables = json_object(),
				  .nodes = json_array()};
	o->request.facts = json_object();
	return o->facts && o->waivers && o->asked && o->variables && o->nodes && o->request.facts
		       ? 0
		       : error_set(err, -ENOMEM, "out of memory");
}

void run_options_done(struct run_options *o)
{
	env_request_done(&o->request);
	args_done(&o->documents);
	json_decref(o->facts);
	json_decref(o->waivers);
	json_decref(o->asked);
	json_decref(o->variables);
	json_decref(o->nodes);
}

/* -------- facts -------- */

/* A fact that nobody has given, for the meet here (and the daemons', if they do not know it). */
static int add_fact(struct run_options *o, const char *name, const char *value, bool known_there,
		    struct error *err)
{
	int r = 0;

	if (!json_object_get(o->request.facts, name))
		r = facts_add(o->request.facts, name, value, err);
	if (!r && !known_there && !json_object_get(o->facts, name))
		json_object_set_new(o->facts, name, json_string(value));
	return r;
}

/* The nodes of a cluster are not those that people log in at. */
static int complete_facts(struct run_options *o, const json_t *node, struct error *err)
{
	const char *type = json_string_value(json_object_get(node, "type"));
	char text[32];
	int r = 0;

	if (type && json_array_size(o->nodes) > 1 && !strcmp(type, "login"))
		type = "compute";
	if (type)
		r = add_fact(o, "node-type", type, true, err);
	snprintf(text, sizeof(text), "%zu", json_array_size(o->nodes));
	return r ? r : add_fact(o, "nodes", text, false, err);
}

/* -------- documents -------- */

static int add_file(json_t *list, const char *path, struct error *err)
{
	CLEANUP_FREE char *text = NULL;
	ssize_t n = io_read_file(path, DOCUMENT_MAX, &text, err);

	if (n < 0)
		return (int)n;
	return json_array_append_new(list, json_pack("{s:s, s:s}", "name", path, "text", text))
		       ? error_set(err, -EINVAL, "%s is not UTF-8 text", path)
		       : 0;
}

/* All that the daemons are to meet; a document of our own is in the request already. */
static int gather_documents(struct run_options *o, char **files, int n, json_t **ret,
			    struct error *err)
{
	CLEANUP_FREE char *ours = json_dumps(o->asked, JSON_COMPACT | JSON_SORT_KEYS);
	json_t *list = json_array();
	int r = ours ? 0 : error_set(err, -ENOMEM, "out of memory");

	for (int i = 0; !r && i < n; i++)
		r = add_file(list, files[i], err);
	if (!r && json_object_size(o->asked)) {
		documents_parse(&o->request.docs, ours, strlen(ours), OURS, false);
		json_array_append_new(list, json_pack("{s:s, s:s}", "name", OURS, "text", ours));
	}
	if (r)
		json_decref(list);
	else
		*ret = list;
	return r;
}

/* -------- the image -------- */

static const char *keys_of(const struct run_options *o)
{
	return o->request.keys ? o->request.keys : ENV_KEYS;
}

/* The one that was named, or is the environment's base as it is; else it is built. */
static int image_of(const struct run_options *o, const struct meet *meet, const char *file,
		    char **ret, struct error *err)
{
	struct image_build build = {
		.environment = meet, .file = file, .keys = keys_of(o), .quiet = o->quiet};
	int r = 0;

	*ret = o->image ? strdup(o->image) : NULL;
	if (!*ret && !o->image)
		r = image_as_it_is(meet, ret, err);
	if (!r && !*ret)
		r = o->image ? error_set(err, -ENOMEM, "out of memory")
			     : image_build(&build, ret, err);
	return r;
}

/* Of an image that may run here: {"name", "digest"}, and what proves that it is signed. */
static int describe_image(const struct image *image, json_t **ret, json_t **proof,
			  struct error *err)
{
	char digest[DIGEST_TEXT];
	int r = image_digest(image->manifest, digest, err);

	if (!r)
		r = image_proof(image, proof, err);
	if (!r)
		*ret = json_pack("{s:s, s:s}", "name", image->name, "digest", digest);
	return r;
}

static int find_image(const struct run_options *o, const struct meet *meet,
		      const json_t *environment, const char *file, json_t **ret, json_t **proof,
		      struct error *err)
{
	const struct image_demand demand = {.environment = environment, .keys = keys_of(o)};
	CLEANUP_FREE char *name = NULL;
	struct image image;
	int r = image_of(o, meet, file, &name, err);

	if (!r)
		r = image_admit(name, &demand, &image, err);
	if (r)
		return r;
	r = describe_image(&image, ret, proof, err);
	image_close(&image);
	return r;
}

/* -------- the description -------- */

static json_t *program_of(const json_t *environment, int argc, char **argv)
{
	json_t *list = json_array();

	for (int i = 0; i < argc; i++)
		if (i || strcmp(argv[0], "--"))
			json_array_append_new(list, json_string(argv[i]));
	if (!json_array_size(list))
		json_array_extend(list, json_object_get(environment, "program"));
	return list;
}

/* The user's choice, the environment's name, or that of its file. */
static char *name_of(const struct run_options *o, const json_t *environment, const char *file)
{
	const char *name = json_string_value(json_object_get(environment, "name"));
	const char *slash = strrchr(file, '/');

	if (o->name || name)
		return strdup(o->name ? o->name : name);
	file = slash ? slash + 1 : file;
	return strndup(file, strcspn(file, "."));
}

static void add_caller(json_t *spec)
{
	const struct passwd *user = getpwuid(geteuid());

	json_object_set_new(spec, "uid", json_integer(geteuid()));
	json_object_set_new(spec, "gid", json_integer(getegid()));
	json_object_set_new(spec, "user-name", json_string(user ? user->pw_name : "user"));
}

/*
 * Checkpoints by the clock would all be refused where an earlier job has its own: that is told now,
 * not when the first one is due.
 */
static int check_checkpoints(const json_t *environment, const char *name, struct error *err)
{
	const json_t *rules = json_object_get(environment, "checkpoint");
	struct checkpoints c = {.dir = -1, .lock = -1};
	CLEANUP_FREE char *path = NULL;
	struct job_manifest last;
	int r;

	if (!json_is_integer(json_object_get(rules, "interval")))
		return 0;
	r = checkpoints_path(environment, name, &path, err);
	if (r || access(path, F_OK))
		return r;
	r = checkpoints_open(path, false, &c, err);
	if (!r)
		r = checkpoints_read(&c, 0, &last, err);
	checkpoints_close(&c);
	if (r)
		return r == -ENOENT ? 0 : error_prefix(err, r, "checkpoint.interval");
	error_set(err, -EEXIST,
		  "checkpoint.interval: %s has checkpoints of an earlier job of cluster %s (the "
		  "last is of %s): go on with that job (wisp cluster restart %s), or give another "
		  "--name or checkpoint.directory, or remove that folder",
		  path, last.cluster, last.created, path);
	job_manifest_done(&last);
	return -EEXIST;
}

static int describe(struct run_options *o, const struct meet *meet, json_t *documents, bool self,
		    int argc, char **argv, json_t **ret, struct error *err)
{
	json_t *environment = result_json(meet), *image = NULL, *proof = NULL;
	json_t *addresses = NULL;
	CLEANUP_FREE char *name = name_of(o, environment, argv[0]);
	char digest[DIGEST_TEXT];
	int r = name ? result_digest(environment, digest, err)
		     : error_set(err, -ENOMEM, "out of memory");

	if (!r)
		r = check_checkpoints(environment, name, err);
	if (!r)
		r = run_nodes_addresses(o->nodes, &addresses, err);
	if (!r)
		r = find_image(o, meet, environment, argv[0], &image, &proof, err);
	if (r) {
		json_decref(addresses);
		json_decref(environment);
		return r;
	}
	*ret = json_pack("{s:s, s:O, s:O, s:O, s:s, s:O, s:o, s:o*, s:O, s:o, s:o, s:O, s:b, s:b, "
			 "s:b, s:i}",
			 "name", name, "documents", documents, "waivers", o->waivers, "facts",
			 o->facts, "digest", digest, "environment", environment, "image", image,
			 "proof", proof, "nodes", o->nodes, "addresses", addresses, "program",
			 program_of(environment, argc - 1, argv + 1), "variables", o->variables,
			 "self", self, "label", o->label, "detach", o->detach, "ready-s",
			 (int)o->ready_s);
	json_decref(environment);
	if (!*ret)
		return error_set(err, -EINVAL, "the program's words are not UTF-8 text");
	add_caller(*ret);
	return 0;
}

int run_spec_make(const struct command *cmd, struct run_options *o, const json_t *facts, int argc,
		  char **argv, json_t **ret)
{
	CLEANUP_FREE char **files = calloc(o->documents.n + 1, sizeof(*files));
	int n = (int)o->documents.n + 1, code, r;
	json_t *documents = NULL;
	struct meet meet = {0};
	struct error err;
	bool self = true;

	r = files ? run_nodes_complete(o->nodes, facts, &self, &err)
		  : error_set(&err, -ENOMEM, "no memory");
	if (!r)
		r = complete_facts(o, facts, &err);
	for (int i = 0; !r && i < n; i++)
		files[i] = i ? o->documents.v[i - 1] : argv[0];
	if (!r)
		r = gather_documents(o, files, n, &documents, &err);
	if (r)
		return cli_fail(cmd, EXIT_FAILURE, &err);
	code = env_request_meet(cmd, &o->request, files, n, &meet);
	if (!code && meet.conflicts)
		code = env_tell_conflicts(cmd, &meet);
	if (!code) {
		result_print_notes(stderr, &meet);
		r = describe(o, &meet, documents, self, argc, argv, ret, &err);
		code = r ? cli_fail(cmd, r == -EINTR ? 130 : EXIT_FAILURE, &err) : 0;
	}
	meet_done(&meet);
	json_decref(documents);
	return code;
}
