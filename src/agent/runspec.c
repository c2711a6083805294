/* SPDX-License-Identifier: Apache-2.0 */
/* An exec request turned into arguments, environment and user. */

#include "agent/runspec.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

#define RSH "/usr/bin/wisp-rsh"
#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

static void strings_free(char **v)
{
	for (char **p = v; p && *p; p++)
		free(*p);
	free(v);
}

void runspec_done(struct runspec *spec)
{
	free(spec->path);
	free(spec->cwd);
	strings_free(spec->argv);
	strings_free(spec->env);
	*spec = (struct runspec){0};
}

static int check_strings(const json_t *argv, struct error *err)
{
	size_t i;
	json_t *value;

	if (argv && !json_is_array(argv))
		return error_set(err, -EINVAL, "\"argv\" is not an array");
	json_array_foreach ((json_t *)argv, i, value) {
		if (!json_is_string(value))
			return error_set(err, -EINVAL, "argument %zu is not a string", i);
	}
	return 0;
}

static char *join_words(const json_t *argv)
{
	char *text = strdup("");
	size_t i;
	json_t *value;

	json_array_foreach ((json_t *)argv, i, value) {
		char *longer =
			text ? io_format("%s%s%s", text, i ? " " : "", json_string_value(value))
			     : NULL;

		free(text);
		text = longer;
	}
	return text;
}

/* SHELL -c "words", or a login shell, whose name begins with a dash. */
static int parse_shell(const json_t *argv, struct runspec *spec)
{
	const char *base = strrchr(spec->user.shell, '/');

	spec->path = strdup(spec->user.shell);
	spec->argv = calloc(4, sizeof(char *));
	if (!spec->path || !spec->argv)
		return -ENOMEM;
	base = base ? base + 1 : spec->user.shell;
	if (!json_array_size(argv)) {
		spec->argv[0] = io_format("-%s", base);
		return spec->argv[0] ? 0 : -ENOMEM;
	}
	spec->argv[0] = strdup(base);
	spec->argv[1] = strdup("-c");
	spec->argv[2] = join_words(argv);
	return spec->argv[0] && spec->argv[1] && spec->argv[2] ? 0 : -ENOMEM;
}

static int parse_argv(const json_t *argv, struct runspec *spec, struct error *err)
{
	size_t i;
	json_t *value;

	if (!json_array_size(argv) || !json_string_length(json_array_get(argv, 0)))
		return error_set(err, -EINVAL, "\"argv\" names no program");
	spec->argv = calloc(json_array_size(argv) + 1, sizeof(char *));
	spec->path = strdup(json_string_value(json_array_get(argv, 0)));
	if (!spec->argv || !spec->path)
		return -ENOMEM;
	json_array_foreach ((json_t *)argv, i, value) {
		spec->argv[i] = strdup(json_string_value(value));
		if (!spec->argv[i])
			return -ENOMEM;
	}
	return 0;
}

/* NAME=VALUE lines, the values perhaps in quotes; what PAM gives to those who log in by ssh. */
static void add_environment_file(json_t *env)
{
	CLEANUP_FILE FILE *f = fopen("/etc/environment", "re");
	char line[4096];

	while (f && fgets(line, sizeof(line), f)) {
		char *equals = strchr(line, '=');
		char *value = equals ? equals + 1 : NULL;
		size_t n;

		if (!equals || line[0] == '#')
			continue;
		*equals = 0;
		value[strcspn(value, "\n")] = 0;
		n = strlen(value);
		if (n > 1 && (*value == '"' || *value == '\'') && value[n - 1] == *value) {
			value[n - 1] = 0;
			value++;
		}
		/* A line that is not UTF-8 is left out. */
		json_object_set_new(env, line, json_string(value));
	}
}

/*
 * Where wisp-rsh is, MPI's launchers use it: plain mpirun then works across VMs. Root is the user
 * that small images have, so OpenMPI need not be asked twice whether it may.
 */
static void add_launchers(json_t *env)
{
	static const char *const variables[][2] = {
		{"OMPI_MCA_plm_rsh_agent", RSH}, /* OpenMPI up to 4 */
		{"PRTE_MCA_plm_ssh_agent", RSH}, /* OpenMPI 5 */
		/* A VM that moves loses the connection by which its daemon was started. */
		{"OMPI_MCA_orte_launch_agent", "orted --daemonize"},
		{"OMPI_ALLOW_RUN_AS_ROOT", "1"},
		{"OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"},
		{"HYDRA_LAUNCHER", "ssh"}, /* MPICH */
		{"HYDRA_LAUNCHER_EXEC", RSH},
	};

	for (unsigned i = 0; !access(RSH, X_OK) && i < ARRAY_SIZE(variables); i++)
		json_object_set_new(env, variables[i][0], json_string(variables[i][1]));
}

static int add_request_env(json_t *env, const json_t *extra, struct error *err)
{
	const char *key;
	json_t *value;

	if (extra && !json_is_object(extra))
		return error_set(err, -EINVAL, "\"env\" is not an object");
	json_object_foreach ((json_t *)extra, key, value) {
		if (!*key || strchr(key, '=') || !json_is_string(value))
			return error_set(err, -EINVAL,
					 "environment variable \"%s\" has a bad name or value",
					 key);
		if (json_object_set(env, key, value))
			return error_errno(err, -ENOMEM, "environment");
	}
	return 0;
}

static int make_strings(const json_t *env, char ***ret)
{
	char **v = calloc(json_object_size(env) + 1, sizeof(char *));
	const char *key;
	json_t *value;
	size_t n = 0;

	json_object_foreach ((json_t *)env, key, value) {
		if (v)
			v[n] = io_format("%s=%s", key, json_string_value(value));
		if (!v || !v[n++]) {
			strings_free(v);
			return -ENOMEM;
		}
	}
	*ret = v;
	return v ? 0 : -ENOMEM;
}

static int parse_env(const json_t *request, const char *term, struct runspec *spec,
		     struct error *err)
{
	const struct user *u = &spec->user;
	json_t *env = json_pack("{s:s,s:s,s:s,s:s,s:s}", "PATH", DEFAULT_PATH, "HOME", u->home,
				"USER", u->name, "LOGNAME", u->name, "SHELL", u->shell);
	int r;

	if (!env)
		return error_errno(err, -ENOMEM, "environment");
	add_launchers(env);
	add_environment_file(env);
	if (term)
		json_object_set_new(env, "TERM", json_string(term));
	r = add_request_env(env, json_object_get(request, "env"), err);
	if (!r && make_strings(env, &spec->env))
		r = error_errno(err, -ENOMEM, "environment");
	json_decref(env);
	return r;
}

static int parse_terminal(const json_t *terminal, struct runspec *spec, const char **term,
			  struct error *err)
{
	int rows = 24, cols = 80;
	json_error_t jerr;

	*term = "dumb";
	if (json_unpack_ex((json_t *)terminal, &jerr, 0, "{s?i,s?i,s?s}", "rows", &rows, "cols",
			   &cols, "term", term) ||
	    rows < 0 || rows > 65535 || cols < 0 || cols > 65535)
		return error_set(err, -EINVAL,
				 "\"terminal\" is not {\"rows\", \"cols\", \"term\"}");
	spec->terminal = true;
	spec->rows = (unsigned)rows;
	spec->cols = (unsigned)cols;
	return 0;
}

int runspec_parse(const json_t *request, struct runspec *ret, struct error *err)
{
	const json_t *argv = json_object_get(request, "argv");
	const json_t *terminal = json_object_get(request, "terminal");
	const json_t *cwd = json_object_get(request, "cwd");
	const char *term = NULL;
	int r = check_strings(argv, err);

	*ret = (struct runspec){0};
	if (!r)
		r = user_find(json_object_get(request, "user"), json_object_get(request, "group"),
			      &ret->user, err);
	if (!r && terminal)
		r = parse_terminal(terminal, ret, &term, err);
	if (r)
		return r;
	if (json_is_true(json_object_get(request, "shell")))
		r = parse_shell(argv, ret);
	else
		r = parse_argv(argv, ret, err);
	if (!r && json_is_string(cwd) && !(ret->cwd = strdup(json_string_value(cwd))))
		r = -ENOMEM;
	if (r == -ENOMEM)
		error_errno(err, r, "exec request");
	return r ? r : parse_env(request, term, ret, err);
}

enum run_stage runspec_exec(const struct runspec *spec)
{
	int r = user_become(&spec->user);

	if (r) {
		errno = -r;
		return STAGE_USER;
	}
	if (spec->cwd ? chdir(spec->cwd) < 0 : chdir(spec->user.home) < 0 && chdir("/") < 0)
		return STAGE_CWD;
	/* execvp looks PATH up in the environment it will have. */
	environ = spec->env;
	execvp(spec->path, spec->argv);
	return STAGE_EXEC;
}

int runspec_error(const struct runspec *spec, enum run_stage stage, int code, struct error *err)
{
	switch (stage) {
	case STAGE_USER:
		return error_errno(err, code, "cannot become user %s", spec->user.name);
	case STAGE_CWD:
		return error_errno(err, code, "cannot change to directory %s",
				   spec->cwd ? spec->cwd : "/");
	case STAGE_TERMINAL:
		return error_errno(err, code, "cannot set up the terminal");
	case STAGE_EXEC:
		break;
	}
	return error_errno(err, code, "cannot run %s", spec->path);
}
