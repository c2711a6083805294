/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A wisp-part that pretends VMs, for tests of the daemon and for the benchmark of many daemons: it
 * speaks the node protocol on descriptor 0 (docs/formats/node.md, "The part"). A VM is a process
 * that sleeps, holds the lock of its state directory and is in its control group; so it outlives
 * its part, and the next one finds it. Every request is done $WISP_STAND_IN_MS milliseconds after
 * it came (default: at once). The agent of each VM is the one at $WISP_STAND_IN_AGENT, an address
 * as agent/client.h has it (default: there is none).
 */

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/client.h"
#include "channel/conn.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/loop.h"
#include "lib/paths.h"
#include "net/state.h"
#include "part/pump.h"

struct part;

struct vm {
	struct vm *next;
	struct part *part;
	char *name, *dir;
	pid_t pid;
	int pidfd;
	struct loop_source *on_end;
	bool stopped; /* it was asked to end */
};

struct late {
	struct part *part;
	json_t *request;
	struct loop_source *timer;
};

struct part {
	struct loop *loop;
	struct conn *conn;
	struct pumps *pumps;
	json_t *setup;
	struct vm *vms;
	uint64_t delay_ns;
};

static void die(const char *what)
{
	fprintf(stderr, "part-stand-in: %s\n", what);
	exit(1);
}

static void say(struct part *p, json_t *message)
{
	conn_send(p->conn, message, NULL);
	json_decref(message);
}

static void answer(struct part *p, const json_t *request, int code, const char *text, json_t *value)
{
	json_t *message = json_pack("{s:O, s:b, s:o*}", "re", json_object_get(request, "id"),
				    "done", 1, "value", value);

	if (code)
		json_object_update_new(message,
				       json_pack("{s:i, s:s}", "errno", -code, "error", text));
	say(p, message);
}

/* -------- VMs -------- */

static struct vm *find(const struct part *p, const char *name)
{
	for (struct vm *vm = p->vms; vm; vm = vm->next)
		if (!strcmp(vm->name, name))
			return vm;
	return NULL;
}

static void vm_free(struct vm *vm)
{
	struct vm **at = &vm->part->vms;

	while (*at != vm)
		at = &(*at)->next;
	*at = vm->next;
	loop_remove(&vm->on_end);
	cleanup_close_fd(&vm->pidfd);
	free(vm->name);
	free(vm->dir);
	free(vm);
}

static void on_end(void *arg, uint32_t events)
{
	struct vm *vm = arg;
	struct part *p = vm->part;
	json_t *event = json_pack("{s:s, s:s, s:{s:s}}", "event", "vm-ended", "vm", vm->name, "end",
				  "reason", vm->stopped ? "stopped" : "killed");

	waitpid(vm->pid, NULL, WNOHANG);
	state_sweep(vm->dir, NULL);
	vm_free(vm);
	say(p, event);
}

/* The process of one that is there, whoever started it. */
static void watch(struct part *p, const char *name, char *dir)
{
	CLEANUP_FREE char *path = io_format("%s/pid", dir);
	CLEANUP_FREE char *text = NULL;
	struct vm *vm = calloc(1, sizeof(*vm));

	if (io_read_file(path, 32, &text, NULL) < 0) {
		free(vm); /* it is being removed */
		free(dir);
		return;
	}
	*vm = (struct vm){.next = p->vms, .part = p, .name = strdup(name), .dir = dir};
	vm->pid = (pid_t)atoi(text);
	vm->pidfd = pidfd_open(vm->pid, 0);
	p->vms = vm;
	if (vm->pidfd < 0) {
		vm_free(vm);
		return;
	}
	if (loop_add_fd(p->loop, vm->pidfd, EPOLLIN, on_end, vm, &vm->on_end))
		die("a VM cannot be watched");
}

static void enter_group(const struct part *p, const char *name, pid_t pid)
{
	const char *group = json_string_value(json_object_get(p->setup, "cgroup"));
	CLEANUP_FREE char *dir = group ? io_format("%s/vm-%s", group, name) : NULL;
	CLEANUP_FREE char *procs = dir ? io_format("%s/cgroup.procs", dir) : NULL;
	FILE *f;

	if (!dir)
		return;
	mkdir(dir, 0755);
	f = fopen(procs, "w");
	if (!f || fprintf(f, "%d", pid) < 0 || fclose(f))
		die("a VM cannot enter its control group");
}

/* What the VM is. The lock is of the open file, which it keeps. */
static void __attribute__((noreturn)) vm_run(int lock, int ready)
{
	int kept = dup2(lock, 3);

	setsid();
	prctl(PR_SET_NAME, "stand-in-vm");
	if (write(ready, "r", 1) != 1)
		_exit(1);
	close_range(4, ~0u, 0);
	for (int i = 0; i < 3; i++)
		close(i);
	while (kept == 3)
		pause();
	_exit(1);
}

static int start_vm(struct part *p, const char *name, struct error *err)
{
	char *dir = NULL, text[16];
	CLEANUP_FREE char *path = NULL;
	CLEANUP_CLOSE int lock = -1;
	int r = find(p, name) ? error_set(err, -EBUSY, "VM %s runs already", name)
			      : paths_run("vm", name, &dir, err);
	int ready[2];
	char c;
	pid_t pid;

	if (!r)
		r = state_lock(dir, &lock, err);
	if (r) {
		free(dir);
		return r;
	}
	if (pipe(ready))
		die("no pipe");
	pid = fork();
	if (!pid)
		vm_run(lock, ready[1]);
	close(ready[1]);
	if (io_read_full(ready[0], &c, 1))
		die("a VM has ended at once");
	close(ready[0]);
	enter_group(p, name, pid);
	snprintf(text, sizeof(text), "%d", pid);
	path = io_format("%s/pid", dir);
	if (io_write_file(path, text, strlen(text), NULL))
		die("cannot write a VM's pid");
	watch(p, name, dir);
	return 0;
}

static void find_vms(struct part *p)
{
	json_t *vm;
	size_t i;

	json_array_foreach (json_object_get(p->setup, "vms"), i, vm) {
		const char *name = json_string_value(json_object_get(vm, "name"));
		char *dir = NULL;

		if (!paths_run("vm", name, &dir, NULL) && state_alive(dir))
			watch(p, name, dir);
		else
			free(dir);
	}
}

/* -------- requests -------- */

static json_t *names_of(const struct part *p, const json_t *request)
{
	json_t *list = json_object_get(request, "vms"), *vm;
	size_t i;

	if (list)
		return json_incref(list);
	list = json_array();
	json_array_foreach (json_object_get(p->setup, "vms"), i, vm)
		json_array_append(list, json_object_get(vm, "name"));
	return list;
}

static void op_start(struct part *p, const json_t *request)
{
	json_t *names = names_of(p, request), *name;
	struct error err = {""};
	size_t i;
	int r = 0;

	json_array_foreach (names, i, name)
		if (!r)
			r = start_vm(p, json_string_value(name), &err);
	answer(p, request, r, err.text, NULL);
	json_array_foreach (names, i, name)
		if (!r)
			say(p, json_pack("{s:s, s:O}", "event", "ready", "vm", name));
	json_decref(names);
}

static void op_stop(struct part *p, const json_t *request)
{
	json_t *names = names_of(p, request), *name;
	size_t i;

	json_array_foreach (names, i, name) {
		struct vm *vm = find(p, json_string_value(name));

		if (!vm)
			continue;
		vm->stopped = true;
		kill(vm->pid, SIGKILL);
		while (state_alive(vm->dir))
			usleep(1000);
	}
	json_decref(names);
	answer(p, request, 0, NULL, NULL);
}

/* As much as it has lived: figures that grow. */
static void op_usage(struct part *p, const json_t *request)
{
	json_t *all = json_object();

	for (const struct vm *vm = p->vms; vm; vm = vm->next)
		json_object_set_new(all, vm->name,
				    json_pack("{s:[{s:i}], s:{s:{s:i}}}", "vcpu_exits", "pio", 1000,
					      "devices", "net0", "rx_bytes", 4096));
	answer(p, request, 0, NULL, all);
}

/* Both ends open the stream, also when it is refused. */
static void op_connect(struct part *p, const json_t *request)
{
	uint32_t stream = (uint32_t)json_integer_value(json_object_get(request, "stream"));
	const char *address = getenv("WISP_STAND_IN_AGENT");
	struct error err = {"the stand-in has no agent"};
	int fd = address ? client_connect(address, &err) : -ENOENT;

	if (pump_open(p->pumps, stream, NULL))
		die("a stream cannot be opened");
	answer(p, request, fd < 0 ? fd : 0, err.text, NULL);
	if (fd < 0)
		pump_close(p->pumps, stream);
	else
		pump_connect(p->pumps, stream, fd);
}

static void op_setup(struct part *p, const json_t *request)
{
	p->setup = json_deep_copy(request);
	find_vms(p);
	answer(p, request, 0, NULL, NULL);
}

static void op_vms(struct part *p, const json_t *request)
{
	json_object_set(p->setup, "vms", json_object_get(request, "vms"));
	answer(p, request, 0, NULL, NULL);
}

static const struct {
	const char *op;
	void (*fn)(struct part *p, const json_t *request); /* NULL: there is nothing to do */
} ops[] = {
	{"setup", op_setup}, {"start", op_start}, {"restore", op_start}, {"stop", op_stop},
	{"usage", op_usage}, {"pause", NULL},	  {"resume", NULL},	 {"save", NULL},
	{"send", NULL},	     {"image", NULL},	  {"receive", op_start}, {"connect", op_connect},
	{"vms", op_vms},
};

static void do_it(struct part *p, const json_t *request)
{
	const char *op = json_string_value(json_object_get(request, "op"));

	for (size_t i = 0; op && i < ARRAY_SIZE(ops); i++) {
		if (strcmp(ops[i].op, op))
			continue;
		if (ops[i].fn)
			ops[i].fn(p, request);
		else
			answer(p, request, 0, NULL, NULL);
		return;
	}
	answer(p, request, -ENOSYS, "the stand-in does not do that", NULL);
}

static void on_late(void *arg)
{
	struct late *late = arg;

	do_it(late->part, late->request);
	json_decref(late->request);
	loop_remove(&late->timer);
	free(late);
}

static void on_message(void *arg, json_t *message)
{
	struct part *p = arg;
	struct late *late;

	if (json_object_get(message, "event")) { /* reset: who was behind a stream has gone */
		pump_close(p->pumps,
			   (uint32_t)json_integer_value(json_object_get(message, "stream")));
		return;
	}
	late = p->delay_ns ? calloc(1, sizeof(*late)) : NULL;
	if (!late) {
		do_it(p, message);
		return;
	}
	*late = (struct late){.part = p, .request = json_incref(message)};
	if (loop_add_timer(p->loop, on_late, late, &late->timer) ||
	    loop_set_timer(late->timer, p->delay_ns, 0))
		die("no timer");
}

static void on_data(void *arg, uint32_t stream, const uint8_t *data, size_t n)
{
	struct part *p = arg;

	pumps_data(p->pumps, stream, data, n);
}

static void on_sent(void *arg, uint32_t stream, size_t n)
{
	struct part *p = arg;

	pumps_sent(p->pumps, stream);
}

static void on_closed(void *arg, int code, const char *reason)
{
	struct part *p = arg;

	loop_stop(p->loop);
}

int main(void)
{
	static const struct conn_ops conn_ops = {on_message, on_data, on_sent, on_closed};
	const char *delay = getenv("WISP_STAND_IN_MS");
	struct part p = {.delay_ns = delay ? strtoull(delay, NULL, 10) * 1000000 : 0};
	struct conn_params params = {.ops = &conn_ops, .arg = &p, .dead_ms = 30000};
	struct error err;

	signal(SIGPIPE, SIG_IGN);
	signal(SIGCHLD, SIG_IGN);
	if (loop_create(&p.loop))
		die("no loop");
	params.loop = p.loop;
	if (conn_create(&params, &p.conn, &err) || pumps_create(p.loop, p.conn, &p.pumps, &err))
		die(err.text);
	return loop_run(p.loop) ? 1 : 0;
}
