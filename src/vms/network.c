/* SPDX-License-Identifier: Apache-2.0 */
/* The VMs of a network, from the keeper's point of view. */

#include "vms/network.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

#include "agent/relay.h"
#include "lib/args.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/log.h"
#include "lib/loop.h"
#include "lib/paths.h"
#include "lib/process.h"
#include "net/state.h"
#include "vms/greet.h"
#include "vms/guard.h"
#include "vms/handover.h"
#include "vms/links.h"
#include "vms/record.h"
#include "vms/vmmargs.h"

#define IDLE_NS 3000000000ULL /* a network without VMs ends after this */
#define EXIT_REBOOT 10	      /* of wisp-vmm */
#define SAID_MAX (64 * 1024)
#define HOSTS_MAX 1000 /* names that a VM brings along */

struct vm {
	struct vm *next;
	struct network *network;
	char *name, *dir;
	json_t *config; /* RECORD_CONFIG */
	uint32_t address;
	int lock;	/* of its directory; -1 once it has ended: then only its address is kept */
	bool incoming;	/* starts with a saved state instead of a kernel; a reboot does not */
	bool abandoned; /* killed because nothing came into it: leaves nothing */
	bool elsewhere; /* on another node, or about to be: its name and address are kept */
	int tap;
	pid_t vmm, greeter; /* 0: none */
};

struct network {
	const struct network_config *config;
	struct net_keeper *keeper;
	struct vm *vms;
	struct relay *relay;
	struct loop_source *idle;
	struct links *links;
	struct guards *guards;
};

static const struct log *log_of(const struct network *n)
{
	return net_keeper_log(n->keeper);
}

static struct vm *find_vm(const struct network *n, const char *name)
{
	for (struct vm *vm = n->vms; vm; vm = vm->next)
		if (!strcmp(vm->name, name))
			return vm;
	return NULL;
}

static bool is_live(const struct vm *vm)
{
	return vm->lock >= 0;
}

static bool any_live(const struct network *n)
{
	for (const struct vm *vm = n->vms; vm; vm = vm->next)
		if (is_live(vm))
			return true;
	return false;
}

/* Whether others may talk to it. */
static bool is_known(const struct vm *vm)
{
	return is_live(vm) || vm->elsewhere;
}

static void remove_vm(struct vm *vm)
{
	struct vm **at = &vm->network->vms;

	while (*at && *at != vm)
		at = &(*at)->next;
	if (*at)
		*at = vm->next;
	cleanup_close_fd(&vm->lock);
	cleanup_close_fd(&vm->tap);
	json_decref(vm->config);
	free(vm->name);
	free(vm->dir);
	free(vm);
}

/* -------- starting -------- */

static const struct vm *holder_of(const struct network *n, uint32_t address)
{
	for (const struct vm *vm = n->vms; vm; vm = vm->next)
		if (vm->address == address)
			return vm;
	return NULL;
}

/*
 * A free address, best one that no ended VM had: should that come back, it is found where
 * it was. 0: none.
 */
static uint32_t free_address(const struct network *n)
{
	uint32_t second_best = 0;

	for (uint32_t a = n->config->subnet.base + 2; a <= subnet_last(&n->config->subnet); a++) {
		const struct vm *holder = holder_of(n, a);

		if (!holder)
			return a;
		if (!is_known(holder) && !second_best)
			second_best = a;
	}
	return second_best;
}

static bool is_incoming(const json_t *spec)
{
	return json_is_true(json_object_get(spec, "incoming"));
}

static int choose_address(const struct network *n, const char *name, const char *wanted,
			  uint32_t *ret, struct error *err)
{
	const struct vm *before = find_vm(n, name), *holder;
	int r;

	if (!*wanted) {
		*ret = before ? before->address : free_address(n);
		return *ret ? 0
			    : error_set(err, -ENOSPC, "network %s has no free address: stop a VM",
					n->config->name);
	}
	r = subnet_parse_address(&n->config->subnet, wanted, ret, err);
	holder = r ? NULL : holder_of(n, *ret);
	if (holder && is_known(holder) && holder != before)
		return error_set(err, -EADDRINUSE, "address %s belongs to VM %s%s", wanted,
				 holder->name, holder->elsewhere ? " on another node" : "");
	return r;
}

static char *list_hosts(const struct network *n)
{
	struct args list = {0};
	char address[16], *text;

	args_add(&list, "%s", "");
	for (const struct vm *vm = n->vms; vm; vm = vm->next)
		if (is_known(vm))
			args_extend(&list, "%s%s=%s", *list.v[0] ? "," : "", vm->name,
				    subnet_format(vm->address, address));
	text = list.failed ? NULL : take_ptr(list.v[0]);
	args_done(&list);
	return text;
}

static int open_output(const struct vm *vm, const char *file, int *ret, struct error *err)
{
	CLEANUP_FREE char *path = io_format("%s/%s", vm->dir, file);

	*ret = path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
	return *ret < 0 ? error_errno(err, -errno, "cannot open %s of VM %s", file, vm->name) : 0;
}

static int start_vmm(struct vm *vm, struct error *err)
{
	CLEANUP_FREE char *program = NULL;
	CLEANUP_FREE char *hosts = list_hosts(vm->network);
	CLEANUP_CLOSE int log = -1;
	struct args args = {0};
	int r = hosts ? paths_program("wisp-vmm", &program, err) : -ENOMEM;

	if (!r)
		r = open_output(vm, VM_LOG, &log, err);
	if (!r)
		r = vmm_args(vm->config, program, vm->dir, hosts, vm->incoming, &args, err);
	if (!r && args.failed)
		r = error_errno(err, -ENOMEM, "cannot start VM %s", vm->name);
	if (!r) {
		int fds[] = {-1, log, log, [VMM_FD_TAP] = vm->tap};
		struct process process = {.argv = (const char *const *)args.v,
					  .cwd = "/",
					  .fds = fds,
					  .nfds = ARRAY_SIZE(fds),
					  .die_with_parent = true};

		r = process_start(&process, &vm->vmm, err);
	}
	args_done(&args);
	return r;
}

/* A process of its own, because it waits; it holds nothing of ours but standard streams. */
static int start_greeter(struct vm *vm, uint64_t started_ns, off_t console)
{
	const struct network_config *c = vm->network->config;
	const struct greeting greeting = {.network_dir = c->dir,
					  .dir = vm->dir,
					  .name = vm->name,
					  .vms = c->vms,
					  .started_ns = started_ns,
					  .console = console,
					  .silent = vm->incoming};
	pid_t pid = fork();

	if (!pid) {
		close_range(3, UINT_MAX, 0);
		_exit(greet(&greeting));
	}
	if (pid < 0)
		return -errno;
	vm->greeter = pid;
	return 0;
}

static int launch(struct vm *vm, struct error *err)
{
	CLEANUP_FREE char *ready = io_format("%s/" RECORD_READY, vm->dir);
	CLEANUP_CLOSE int console = -1;
	uint64_t started_ns;
	off_t size;
	int r = open_output(vm, VM_CONSOLE, &console, err);

	if (r)
		return r;
	if (!ready || (unlink(ready) < 0 && errno != ENOENT))
		return error_errno(err, ready ? -errno : -ENOMEM, "cannot start VM %s", vm->name);
	size = lseek(console, 0, SEEK_END);
	started_ns = io_now_ns();
	r = start_vmm(vm, err);
	if (r)
		return r;
	r = start_greeter(vm, started_ns, size);
	if (r)
		error_errno(err, r, "cannot wait for the agent of VM %s", vm->name);
	return r;
}

/* All VMs whose names are known, a new reference. */
static json_t *list_vms(const struct network *n)
{
	json_t *list = json_array();
	char address[16];

	for (const struct vm *vm = n->vms; vm; vm = vm->next)
		if (is_known(vm))
			json_array_append_new(list,
					      json_pack("{ss,ss,sb}", "name", vm->name, "address",
							subnet_format(vm->address, address), "here",
							is_live(vm)));
	return list;
}

/* Writes the description with the nodes that its network is on now, and the VMs there. */
static int write_config(struct vm *vm, struct error *err)
{
	json_t *more = json_pack("{so,so}", "nodes", links_nodes(vm->network->links), "hosts",
				 list_vms(vm->network));

	if (!more || json_object_update_new(vm->config, more) < 0)
		return error_errno(err, -ENOMEM, "cannot describe VM %s", vm->name);
	return record_write(vm->dir, RECORD_CONFIG, vm->config, err);
}

/* Adds to the description what only the keeper knows. */
static int complete_config(struct vm *vm, struct error *err)
{
	const struct network_config *c = vm->network->config;
	char address[16], mac[18], id[17];
	json_t *more =
		json_pack("{ss,ss,ss,ss,ss,si,sI}", "name", vm->name, "network", c->name,
			  "network_id", network_format_id(c->id, id), "address",
			  subnet_format(vm->address, address), "mac", subnet_mac(vm->address, mac),
			  "prefix", (int)c->subnet.prefix, "started", (json_int_t)time(NULL));

	if (!more || json_object_update_new(vm->config, more) < 0)
		return error_errno(err, -ENOMEM, "cannot start VM %s", vm->name);
	return write_config(vm, err);
}

static int set_up(struct vm *vm, struct error *err)
{
	CLEANUP_FREE char *vsock = io_format("%s/" VM_VSOCK, vm->dir);
	char tap[16];
	int r;

	vm->incoming = is_incoming(vm->config);
	json_object_del(vm->config, "incoming");
	r = vsock ? complete_config(vm, err) : -ENOMEM;

	snprintf(tap, sizeof(tap), "vm%u", vm->address - vm->network->config->subnet.base);
	if (!r)
		r = net_keeper_tap(vm->network->keeper, tap, &vm->tap, err);
	if (!r)
		r = relay_add(vm->network->relay, vm->name, vsock, err);
	return r ? r : launch(vm, err);
}

/* Without its VMM: what a start that failed leaves, or an end. */
static void let_go(struct vm *vm)
{
	static const char *const sockets[] = {VM_CONTROL, VM_VSOCK};

	relay_remove(vm->network->relay, vm->name);
	if (vm->greeter)
		kill(vm->greeter, SIGKILL);
	for (unsigned i = 0; i < ARRAY_SIZE(sockets); i++) {
		CLEANUP_FREE char *path = io_format("%s/%s", vm->dir, sockets[i]);

		if (path)
			unlink(path);
	}
	cleanup_close_fd(&vm->tap);
	vm->tap = -1;
	close(take_fd(&vm->lock));
	if (!any_live(vm->network))
		loop_set_timer(vm->network->idle, IDLE_NS, 0);
}

static void append_vm(struct network *n, struct vm *vm)
{
	struct vm **at = &n->vms;

	while (*at)
		at = &(*at)->next;
	*at = vm;
}

/* The directory is about to be emptied: what another place waits for stays. */
static int check_left(const struct network *n, const char *name, struct error *err)
{
	CLEANUP_FREE char *dir = io_format("%s/%s", n->config->vms, name);

	if (!dir)
		return error_errno(err, -ENOMEM, "cannot start VM %s", name);
	return hand_over_check(name, dir, HAND_OVER_UNTOLD, "forget that with wisp vm stop --kill",
			       err);
}

/* The entry of a VM, locked; the entry of an ended one of that name is replaced. */
static int add_vm(struct network *n, const char *name, const json_t *spec, struct vm **ret,
		  struct error *err)
{
	CLEANUP_CLOSE int lock = -1;
	struct vm *vm, *before = find_vm(n, name);
	uint32_t address;
	int r = paths_check_name(name, "VM", err);

	guards_settle(n->guards, name);
	if (!r && before && is_live(before))
		r = error_set(err, -EBUSY, "VM %s runs already", name);
	if (!r)
		r = check_left(n, name, err);
	if (!r)
		r = choose_address(n, name, record_text(spec, "address"), &address, err);
	if (r)
		return r;
	vm = calloc(1, sizeof(*vm));
	if (!vm)
		return error_errno(err, -ENOMEM, "cannot start VM %s", name);
	*vm = (struct vm){.network = n,
			  .name = strdup(name),
			  .dir = io_format("%s/%s", n->config->vms, name),
			  .config = json_deep_copy(spec),
			  .address = address,
			  .lock = -1,
			  .tap = -1};
	r = vm->name && vm->dir && vm->config ? state_lock(vm->dir, &vm->lock, NULL) : -ENOMEM;
	if (r) {
		remove_vm(vm);
		return r == -EBUSY ? error_set(err, r, "VM %s runs already", name)
				   : error_errno(err, r, "cannot start VM %s", name);
	}
	if (before)
		remove_vm(before);
	before = (struct vm *)holder_of(n, address);
	if (before)
		remove_vm(before);
	append_vm(n, vm);
	*ret = vm;
	return 0;
}

/* A checkpoint has the description: where it is restored, it is linked again. */
static void on_links(void *arg)
{
	struct network *n = arg;
	struct error err;

	for (struct vm *vm = n->vms; vm; vm = vm->next)
		if (is_live(vm) && write_config(vm, &err))
			log_warn(log_of(n), "links", "%s", err.text);
}

/* What the VM that comes knew of others, and we do not, is true as far as we know. */
static void learn_hosts(struct network *n, const json_t *hosts)
{
	json_t *host;
	size_t i;

	json_array_foreach ((json_t *)hosts, i, host) {
		const char *name = record_text(host, "name");
		struct vm *vm;
		uint32_t address;

		if (i == HOSTS_MAX || paths_check_name(name, "VM", NULL) || find_vm(n, name) ||
		    subnet_parse_address(&n->config->subnet, record_text(host, "address"), &address,
					 NULL) ||
		    holder_of(n, address))
			continue;
		vm = calloc(1, sizeof(*vm));
		if (!vm)
			return;
		*vm = (struct vm){.network = n,
				  .name = strdup(name),
				  .address = address,
				  .lock = -1,
				  .tap = -1,
				  .elsewhere = true};
		if (vm->name)
			append_vm(n, vm);
		else
			free(vm);
	}
}

static int op_start(struct network *n, const json_t *request, json_t *answer, struct error *err)
{
	const json_t *spec = json_object_get(request, "vm");
	struct vm *vm = NULL;
	int r = add_vm(n, record_text(spec, "name"), spec, &vm, err);

	if (r)
		return r;
	if (is_incoming(spec) && json_array_size(json_object_get(spec, "nodes")))
		learn_hosts(n, json_object_get(spec, "hosts"));
	r = set_up(vm, err);
	if (r) {
		bool running = vm->vmm;

		/* A VMM without its greeter: its end will do the rest. */
		if (running) {
			kill(vm->vmm, SIGKILL);
			return r;
		}
		state_remove(vm->dir, NULL);
		let_go(vm);
		return r;
	}
	loop_set_timer(n->idle, 0, 0);
	if (links_any(n->links))
		on_links(n);
	log_info(log_of(n), "vms", "%s starts (%s)", vm->name, record_text(vm->config, "address"));
	return json_object_set(answer, "vm", vm->config) < 0 ? -ENOMEM : 0;
}

/* -------- other requests -------- */

static int op_vms(const struct network *n, json_t *answer, struct error *err)
{
	return json_object_set_new(answer, "vms", list_vms(n)) < 0
		       ? error_errno(err, -ENOMEM, "cannot list the VMs")
		       : 0;
}

/* It has ended here, or is about to, because it runs at another node. */
static int op_left(const struct network *n, const json_t *request, struct error *err)
{
	struct vm *vm = find_vm(n, record_text(request, "name"));

	if (!vm)
		return error_set(err, -ESRCH, "VM %s was never here", record_text(request, "name"));
	vm->elsewhere = true;
	return 0;
}

static int op_kill(const struct network *n, const json_t *request, struct error *err)
{
	const char *name = record_text(request, "name");
	const struct vm *vm = find_vm(n, name);

	if (!vm || !is_live(vm))
		return error_set(err, -ESRCH, "VM %s does not run", name);
	return kill(vm->vmm, SIGKILL) < 0 ? error_errno(err, -errno, "cannot kill VM %s", name) : 0;
}

char *network_format_id(uint64_t id, char buf[17])
{
	snprintf(buf, 17, "%016" PRIx64, id);
	return buf;
}

static int op_network(const struct network *n, json_t *answer, struct error *err)
{
	const struct network_config *c = n->config;
	char base[16], id[17];
	json_t *more = json_pack("{ss,ss,sI,ss,si,so}", "name", c->name, "id",
				 network_format_id(c->id, id), "vni", (json_int_t)links_vni(c->id),
				 "base", subnet_format(c->subnet.base, base), "prefix",
				 (int)c->subnet.prefix, "nodes", links_nodes(n->links));

	if (!more || json_object_update_new(answer, more) < 0)
		return error_errno(err, -ENOMEM, "cannot describe the network");
	return op_vms(n, answer, err);
}

static int op_leave(struct network *n, json_t *answer)
{
	/* Whoever stopped the last VM waits for our end. */
	json_object_set_new(answer, "ends", json_boolean(!any_live(n)));
	if (!any_live(n))
		net_keeper_stop(n->keeper);
	return 0;
}

/* Nothing came into it, and nothing will. */
static void abandon(struct vm *vm)
{
	if (!is_live(vm) || !vm->incoming)
		return;
	vm->abandoned = true;
	kill(vm->vmm, SIGKILL);
}

/*
 * A command died that had begun to move a VM. Once its hand-over is recorded this or the other
 * place may have the only copy, and both have to be reached.
 */
static void on_abandoned(void *arg, const json_t *request)
{
	struct network *n = arg;
	const char *name = record_text(request, "name");
	struct vm *vm = find_vm(n, name);
	CLEANUP_FREE char *token = vm && vm->dir ? io_format("%s/" TOKEN_SEND, vm->dir) : NULL;

	if (vm && vm->dir && hand_over_look(vm->dir))
		return;
	log_info(log_of(n), "vms", "%s: what was begun is taken back, wisp was killed", name);
	if (json_array_size(json_object_get(request, "peers")))
		links_drop(n->links, request, NULL);
	if (token)
		unlink(token);
	if (vm && json_is_true(json_object_get(request, "empty")))
		abandon(vm);
}

static int on_request(struct net_keeper *keeper, void *arg, const char *op, const json_t *request,
		      json_t *answer, int *fd, struct error *err)
{
	struct network *n = arg;

	if (!strcmp(op, "start"))
		return op_start(n, request, answer, err);
	if (!strcmp(op, "vms"))
		return op_vms(n, answer, err);
	if (!strcmp(op, "kill"))
		return op_kill(n, request, err);
	if (!strcmp(op, "guard"))
		return guards_add(n->guards, request, fd, err);
	if (!strcmp(op, "left"))
		return op_left(n, request, err);
	if (!strcmp(op, "network"))
		return op_network(n, answer, err);
	if (!strcmp(op, "link"))
		return links_add(n->links, request, answer, err);
	if (!strcmp(op, "unlink"))
		return links_drop(n->links, request, err);
	return strcmp(op, "leave") ? -ENOSYS : op_leave(n, answer);
}

/* -------- ends -------- */

json_t *network_describe_end(int status, const char *said)
{
	static const struct {
		int code;
		const char *text;
	} codes[] = {{0, "powered off"},	 {1, "failed"},
		     {2, "could not start"},	 {EXIT_REBOOT, "rebooted"},
		     {11, "guest kernel panic"}, {12, "guest triple fault"},
		     {13, "hypervisor error"},	 {14, "memory lost"}};
	bool killed = WIFSIGNALED(status);
	int code = killed ? WTERMSIG(status) : WEXITSTATUS(status);
	CLEANUP_FREE char *text = NULL;

	for (unsigned i = 0; !killed && i < ARRAY_SIZE(codes); i++)
		if (codes[i].code == code)
			text = strdup(codes[i].text);
	if (!text)
		text = killed ? io_format("killed by signal %d (%s)", code, strsignal(code))
			      : io_format("wisp-vmm exited with %d", code);
	return json_pack("{ss, si, ss, sI}", "reason", text ? text : "ended",
			 killed ? "signal" : "code", code, "said", status && !killed ? said : "",
			 "time", (json_int_t)time(NULL));
}

/* The last line of the VMM's messages: why it failed, if it did. */
static char *last_words(const struct vm *vm)
{
	CLEANUP_FREE char *path = io_format("%s/" VM_LOG, vm->dir);
	CLEANUP_CLOSE int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	char tail[512] = "", *line;
	struct stat st;
	ssize_t n = -1;

	if (fd >= 0 && !fstat(fd, &st))
		n = pread(fd, tail, sizeof(tail) - 1,
			  st.st_size > (off_t)sizeof(tail) - 1
				  ? st.st_size - (off_t)sizeof(tail) + 1
				  : 0);
	while (n > 0 && tail[n - 1] == '\n')
		tail[--n] = 0;
	line = n > 0 ? strrchr(tail, '\n') : NULL;
	line = line ? line + 1 : tail;
	for (char *c = line; *c; c++) /* JSON takes no broken UTF-8 */
		if (*c < ' ' || *c > '~')
			*c = '?';
	return strdup(line);
}

static void end_vm(struct vm *vm, int status)
{
	CLEANUP_FREE char *said = last_words(vm);
	json_t *end = network_describe_end(status, said ? said : "");
	struct error err = {"out of memory"};

	log_info(log_of(vm->network), "vms", "%s: %s", vm->name, record_text(end, "reason"));
	if (vm->abandoned)
		state_remove(vm->dir, NULL);
	else if (!end || record_write(vm->dir, RECORD_END, end, &err))
		log_warn(log_of(vm->network), "vms", "%s: %s", vm->name, err.text);
	json_decref(end);
	let_go(vm);
}

/* A guest that reboots before it was ever up would do so for ever. */
static bool wants_restart(const struct vm *vm, int status)
{
	return WIFEXITED(status) && WEXITSTATUS(status) == EXIT_REBOOT &&
	       strcmp(record_text(vm->config, "on-reboot"), "exit") != 0 &&
	       record_exists(vm->dir, RECORD_READY);
}

static void on_vmm_end(struct vm *vm, int status)
{
	struct error err;

	vm->vmm = 0;
	if (!wants_restart(vm, status)) {
		end_vm(vm, status);
		return;
	}
	log_info(log_of(vm->network), "vms", "%s reboots", vm->name);
	if (vm->greeter)
		kill(vm->greeter, SIGKILL);
	vm->greeter = 0;
	vm->incoming = false;
	if (!launch(vm, &err))
		return;
	log_error(log_of(vm->network), "vms", "%s: %s", vm->name, err.text);
	if (vm->vmm)
		kill(vm->vmm, SIGKILL);
	else
		end_vm(vm, status);
}

static void on_child(struct net_keeper *keeper, void *arg, pid_t pid, int status)
{
	struct network *n = arg;

	for (struct vm *vm = n->vms; vm; vm = vm->next) {
		if (vm->greeter == pid)
			vm->greeter = 0;
		if (vm->vmm == pid) {
			on_vmm_end(vm, status);
			return;
		}
	}
}

/* -------- the keeper's life -------- */

/* The relay's question: VMs of this network, by name or address. */
static int on_lookup(void *arg, const char *from, const char *name, char **path, struct error *err)
{
	const struct network *n = arg;
	const struct vm *vm = find_vm(n, name);
	char address[16];

	for (const struct vm *v = n->vms; v && !vm; v = v->next)
		if (!strcmp(subnet_format(v->address, address), name))
			vm = v;
	if (vm && !is_live(vm) && vm->elsewhere)
		return error_set(err, -EHOSTUNREACH,
				 "VM %s is on another node, where wisp-rsh does not reach", name);
	if (!vm || !is_live(vm))
		return error_set(err, -EHOSTUNREACH, "no VM %s runs on network %s", name,
				 n->config->name);
	*path = io_format("%s/" VM_VSOCK, vm->dir);
	return *path ? 0 : error_errno(err, -ENOMEM, "cannot reach %s", name);
}

static void on_idle(void *arg)
{
	struct network *n = arg;

	if (!any_live(n))
		net_keeper_stop(n->keeper);
}

static int on_start(struct net_keeper *keeper, void *arg, struct error *err)
{
	struct network *n = arg;
	struct rlimit files;
	int r;

	n->keeper = keeper;
	/* Each link of the relay takes two descriptors. */
	if (!getrlimit(RLIMIT_NOFILE, &files)) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	r = loop_add_timer(net_keeper_loop(keeper), on_idle, n, &n->idle);
	if (!r)
		r = loop_set_timer(n->idle, IDLE_NS, 0);
	if (!r)
		r = links_create(keeper, links_vni(n->config->id), on_links, n, &n->links);
	if (!r)
		r = guards_create(net_keeper_loop(keeper), on_abandoned, n, &n->guards);
	if (!r)
		r = relay_create(net_keeper_loop(keeper), log_of(n), on_lookup, n, &n->relay);
	return r ? error_errno(err, r, "cannot start network %s", n->config->name) : 0;
}

/* In order: the VMs that still run die with the keeper, and somebody wanted that. */
static void on_stop(struct net_keeper *keeper, void *arg)
{
	struct network *n = arg;

	for (struct vm *vm = n->vms; vm; vm = vm->next) {
		int status = SIGKILL;

		if (!is_live(vm))
			continue;
		kill(vm->vmm, SIGKILL);
		waitpid(vm->vmm, &status, 0);
		end_vm(vm, status);
	}
	relay_destroy(n->relay);
	n->relay = NULL;
	guards_destroy(n->guards);
	n->guards = NULL;
	links_destroy(n->links);
	n->links = NULL;
}

const struct net_hooks network_hooks = {
	.start = on_start,
	.request = on_request,
	.child = on_child,
	.stop = on_stop,
};

int network_create(const struct network_config *config, struct network **ret)
{
	struct network *n = calloc(1, sizeof(*n));

	if (!n)
		return -ENOMEM;
	n->config = config;
	*ret = n;
	return 0;
}

void network_destroy(struct network *network)
{
	if (!network)
		return;
	while (network->vms)
		remove_vm(network->vms);
	free(network);
}
