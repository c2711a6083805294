/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stage prepare: what the program finds in the VMs. A user of the caller's name and number in all
 * of them, and the host files of MPI's launchers in the first.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/proto.h"
#include "job/job.h"
#include "job/mpi.h"
#include "job/talk.h"
#include "lib/cleanup.h"

#define AT_ONCE 32u
#define SAID_MAX 256u

/* A script in one VM. */
struct task {
	struct job *job;
	struct guest *vm;
	struct talk *talk;
	char *script;
	bool exited;
	int code;
	char said[SAID_MAX]; /* the beginning of what it wrote to stderr */
	size_t nsaid;
};

struct prepare {
	struct task *task;
	size_t n, next, running;
};

/* -------- the script -------- */

/* A user directory's users have numbers that images know nothing of. */
static const char user_script[] =
	"u=%s n=%lld g=%lld\n"
	"if ! grep -q \"^[^:]*:[^:]*:$n:\" /etc/passwd; then\n"
	"  if grep -q \"^$u:\" /etc/passwd; then u=u$n; fi\n"
	"  s=/bin/sh; if [ -x /bin/bash ]; then s=/bin/bash; fi\n"
	"  echo \"$u:x:$n:$g::/home/$u:$s\" >>/etc/passwd\n"
	"  grep -q \"^[^:]*:[^:]*:$g:\" /etc/group || echo \"$u:x:$g:\" >>/etc/group\n"
	"  mkdir -p \"/home/$u\"\n"
	"  chown \"$n:$g\" \"/home/$u\"\n"
	"fi\n";

static void write_user(const struct job *j, FILE *out)
{
	if (!j->spec.user && j->spec.uid > 0)
		fprintf(out, user_script, j->spec.user_name, (long long)j->spec.uid,
			(long long)j->spec.gid);
}

static void write_hosts(const struct job *j, FILE *out)
{
	json_t *names = json_array();
	struct mpi mpi = {.environment = j->spec.environment, .vms = names};

	for (size_t i = 0; i < j->nvms; i++)
		json_array_append_new(names, json_string(j->vm[i].name));
	CLEANUP_FREE char *openmpi = mpi_hosts_openmpi(&mpi);
	CLEANUP_FREE char *mpich = mpi_hosts_mpich(&mpi);

	fprintf(out,
		"mkdir -p /etc/wisp\n"
		"cat >" MPI_HOSTS_OPENMPI " <<'END'\n%sEND\n"
		"cat >" MPI_HOSTS_MPICH " <<'END'\n%sEND\n",
		openmpi ? openmpi : "", mpich ? mpich : "");
	json_decref(names);
}

/* NULL: nothing is to be done in this VM. */
static char *script_of(const struct job *j, size_t i)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	write_user(j, out);
	if (!i)
		write_hosts(j, out);
	if (fclose(out) || !*text) {
		free(text);
		return NULL;
	}
	return text;
}

/* -------- one VM -------- */

static void start_some(struct job *j);

static void on_frame(void *arg, unsigned type, const uint8_t *data, size_t n)
{
	struct task *t = arg;
	struct frame frame = {.type = type, .size = n, .data = data};

	switch (type) {
	case FRAME_STARTED:
		for (size_t at = 0, all = strlen(t->script); at < all;) {
			size_t piece = all - at < 32768 ? all - at : 32768;

			talk_say(t->talk, FRAME_STDIN, t->script + at, piece);
			at += piece;
		}
		talk_say(t->talk, FRAME_STDIN, NULL, 0);
		break;
	case FRAME_STDERR:
		n = n < SAID_MAX - 1 - t->nsaid ? n : SAID_MAX - 1 - t->nsaid;
		memcpy(t->said + t->nsaid, data, n);
		t->nsaid += n;
		break;
	case FRAME_EXIT:
		t->exited = true;
		t->code = frame_exit_code(&frame);
		break;
	default:
		break;
	}
}

static void on_over(void *arg, int code, const char *reason)
{
	struct task *t = arg;
	struct job *j = t->job;
	char said[SAID_MAX + 1];

	t->talk = NULL;
	j->prepare->running--;
	if (t->exited && !t->code) {
		start_some(j);
		return;
	}
	t->said[t->nsaid] = 0;
	text_printable(t->said, strcspn(t->said, "\n"), said);
	if (t->exited)
		job_fail(j, "VM %s at node %s cannot be prepared (exit code %d): %s", t->vm->name,
			 j->node[t->vm->place].name, t->code, said);
	else
		job_fail(j, "VM %s at node %s cannot be prepared: %s", t->vm->name,
			 j->node[t->vm->place].name, code ? reason : "its agent has hung up");
}

static const struct talk_ops talk_ops = {.frame = on_frame, .over = on_over};

static int start_one(struct job *j, struct task *t)
{
	t->talk =
		talk_start(j->tubes, json_string_value(json_array_get(j->spec.nodes, t->vm->place)),
			   t->vm->name,
			   json_pack("{s:s, s:[s, s], s:s}", "op", "exec", "argv", "/bin/sh", "-eu",
				     "cwd", "/"),
			   &talk_ops, t);
	return t->talk ? 0 : -ENOMEM;
}

/* -------- all -------- */

static void start_some(struct job *j)
{
	struct prepare *p = j->prepare;

	while (p->running < AT_ONCE && p->next < p->n) {
		p->running++;
		if (start_one(j, &p->task[p->next++])) {
			job_fail(j, "out of memory");
			return;
		}
	}
	if (!p->running)
		job_next(j);
}

static void prepare(struct job *j)
{
	struct prepare *p;

	/* What it would do is in the guests' memory. */
	if (j->spec.restore) {
		job_next(j);
		return;
	}
	p = j->prepare = calloc(1, sizeof(*p));
	if (p)
		p->task = calloc(j->nvms, sizeof(*p->task));
	if (!p || !p->task) {
		job_fail(j, "out of memory");
		return;
	}
	for (size_t i = 0; i < j->nvms; i++) {
		char *script = script_of(j, i);

		if (script)
			p->task[p->n++] =
				(struct task){.job = j, .vm = &j->vm[i], .script = script};
	}
	start_some(j);
}

static void leave(struct job *j)
{
	struct prepare *p = j->prepare;

	for (size_t i = 0; p && i < p->n; i++) {
		talk_end(p->task[i].talk);
		free(p->task[i].script);
	}
	if (p)
		free(p->task);
	free(p);
	j->prepare = NULL;
}

const struct stage stage_prepare = {.name = "prepare", .begin = prepare, .leave = leave};
