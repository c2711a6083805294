/* SPDX-License-Identifier: Apache-2.0 */
/* The control socket: connections, and a table of commands with one handler each. */

#include "vmm/control.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "build-config.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/jsonline.h"
#include "lib/loop.h"
#include "lib/process.h"
#include "vmm/call.h"
#include "vmm/chardev.h"
#include "vmm/config.h"
#include "vmm/dev/power.h"
#include "vmm/dev/serial.h"
#include "vmm/device.h"
#include "vmm/vcpu.h"
#include "vmm/kvmstats.h"
#include "vmm/vcpustats.h"
#include "vmm/vm.h"

#define CLIENTS_MAX 16

struct client {
	struct control *control;
	int fd;
	struct loop_source *source;
	struct jsonline line;
};

struct control {
	struct vm *vm;
	char *path;
	int fd;
	struct loop_source *source;
	struct client client[CLIENTS_MAX];
	const void *holder; /* the connection that a pause belongs to */
	bool found_paused;  /* by the holder: it stays so afterwards */
	uint64_t started_ns;
	char instance[PROCESS_INSTANCE];
};

static const char *state_name(const struct vm *vm)
{
	if (vm->phase != VM_BOOTED)
		return vm->phase == VM_INCOMING ? "incoming" : "failed";
	return vcpus_paused(vm) ? "paused" : "running";
}

static int cmd_status(struct call *call, struct error *err)
{
	json_t *result = call->result;
	struct vm *vm = call->vm;

	json_object_set_new(result, "name", json_string(vm->log.name));
	json_object_set_new(result, "version", json_string(WISP_VERSION));
	json_object_set_new(result, "state", json_string(state_name(vm)));
	json_object_set_new(result, "loaded", json_boolean(vm->clock_plan));
	json_object_set_new(result, "pid", json_integer(getpid()));
	json_object_set_new(result, "instance", json_string(call->control->instance));
	json_object_set_new(result, "vcpus", json_integer(vm->nvcpus));
	json_object_set_new(result, "memory", json_integer((json_int_t)vm->mem.size));
	json_object_set_new(result, "page_size", json_integer((json_int_t)vm->mem.page_size));
	json_object_set_new(
		result, "uptime_ms",
		json_integer((json_int_t)((io_now_ns() - call->control->started_ns) / 1000000)));
	json_object_set_new(result, "log_level",
			    json_string(log_level_name((enum log_level)vm->log.level)));
	return 0;
}

/* What a mover saved in its pause must not be older than what the VM did. */
static int check_holder(const struct call *call, struct error *err)
{
	const void *holder = call->control->holder;

	if (!holder || holder == call->owner)
		return 0;
	return error_set(
		err, -EBUSY,
		"another client holds the VM paused, as a migration or a checkpoint does: it runs "
		"on when that ends");
}

/* A pause that is held ends with the connection; any other lasts until somebody resumes. */
static int cmd_pause(struct call *call, struct error *err)
{
	bool hold = json_is_true(json_object_get(call->args, "hold"));
	bool was_paused = vcpus_paused(call->vm);
	int r = check_holder(call, err);

	if (r)
		return r;
	r = vm_pause(call->vm);
	if (r)
		return error_errno(err, r, "cannot pause");
	if (hold && !call->control->holder)
		call->control->found_paused = was_paused;
	call->control->holder = hold ? call->owner : NULL;
	return 0;
}

static int cmd_resume(struct call *call, struct error *err)
{
	int r = check_holder(call, err);

	if (!r)
		r = vm_resume(call->vm, err);
	if (!r)
		call->control->holder = NULL;
	return r;
}

static int cmd_stop(struct call *call, struct error *err)
{
	vm_end(call->vm, VM_STOPPED);
	return 0;
}

static int cmd_power_button(struct call *call, struct error *err)
{
	power_button(call->vm);
	return 0;
}

static json_t *vcpu_stats(const struct vcpu *v)
{
	static const char *const names[EXIT_KINDS] = {"pio", "mmio", "interrupted", "other"};
	json_t *object = json_object();
	uint64_t faults;

	for (unsigned i = 0; i < EXIT_KINDS; i++)
		json_object_set_new(object, names[i], json_integer((json_int_t)v->exits[i]));
	if (vcpustats_faults(v, &faults) == 0)
		json_object_set_new(object, "faults", json_integer((json_int_t)faults));
	return object;
}

/* By pages of which size KVM has the guest's memory mapped now. */
static void add_mappings(const struct vm *vm, json_t *result)
{
	static const char *const names[] = {"pages_4k", "pages_2m", "pages_1g"};
	CLEANUP_CLOSE int fd = kvmstats_open(vm->fd);
	uint64_t count[ARRAY_SIZE(names)];
	json_t *object;

	if (kvmstats_read(fd, ARRAY_SIZE(names), names, count) < 0)
		return;
	object = json_object();
	for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
		json_object_set_new(object, names[i], json_integer((json_int_t)count[i]));
	json_object_set_new(result, "mappings", object);
}

static int cmd_stats(struct call *call, struct error *err)
{
	json_t *vcpus = json_array(), *devices = json_object();

	for (unsigned i = 0; i < call->vm->nvcpus; i++)
		json_array_append_new(vcpus, vcpu_stats(&call->vm->vcpus[i]));
	for (unsigned i = 0; i < call->vm->ndevices; i++) {
		struct device *dev = call->vm->devices[i];
		json_t *object = json_object();

		if (dev->ops->stats)
			dev->ops->stats(dev, object);
		json_object_set_new(devices, dev->id, object);
	}
	add_mappings(call->vm, call->result);
	json_object_set_new(call->result, "vcpu_exits", vcpus);
	json_object_set_new(call->result, "devices", devices);
	json_object_set_new(call->result, "event_loop_wakeups",
			    json_integer((json_int_t)loop_wakeups(call->vm->loop)));
	return 0;
}

static int cmd_log_level(struct call *call, struct error *err)
{
	const char *text = json_string_value(json_object_get(call->args, "level"));
	int level = text ? log_level_parse(text, err)
			 : error_set(err, -EINVAL, "log-level needs \"level\"");

	if (level < 0)
		return level;
	call->vm->log.level = level;
	return 0;
}

static int cmd_console(struct call *call, struct error *err)
{
	if (!strcmp(call->vm->config->serial, "stdio"))
		return error_set(err, -EBUSY,
				 "the console is on the VMM's standard input and output");
	return HAND_OVER;
}

static const struct {
	const char *name;
	control_fn *fn;
} commands[] = {
	{"status", cmd_status},
	{"pause", cmd_pause},
	{"resume", cmd_resume},
	{"stop", cmd_stop},
	{"power-button", cmd_power_button},
	{"stats", cmd_stats},
	{"log-level", cmd_log_level},
	{"console", cmd_console},
	{"describe", cmd_describe},
	{"memory", cmd_memory},
	{"disks", cmd_disks},
	{"disk", cmd_disk},
	{"disk-copy-start", cmd_disk_copy_start},
	{"disk-copy-stop", cmd_disk_copy_stop},
	{"save", cmd_save},
	{"load", cmd_load},
	{"dirty-start", cmd_dirty_start},
	{"dirty-collect", cmd_dirty_collect},
	{"dirty-stop", cmd_dirty_stop},
	{"dirty-keep", cmd_dirty_keep},
	{"dirty-take", cmd_dirty_take},
	{"userfault", cmd_userfault},
	{"userfault-stop", cmd_userfault_stop},
	{"throttle", cmd_throttle},
};

static int run_command(struct call *call, struct error *err)
{
	const char *name = json_string_value(json_object_get(call->args, "command"));
	const json_t *version = json_object_get(call->args, "version");

	if (!name)
		return error_set(err, -EINVAL, "the request has no \"command\"");
	if (version && json_integer_value(version) != CONTROL_VERSION)
		return error_set(err, -EPROTONOSUPPORT,
				 "protocol version %lld is not spoken here, %d is",
				 (long long)json_integer_value(version), CONTROL_VERSION);
	for (unsigned i = 0; i < ARRAY_SIZE(commands); i++)
		if (!strcmp(name, commands[i].name))
			return commands[i].fn(call, err);
	return error_set(err, -ENOSYS, "there is no command \"%s\"", name);
}

static void close_client(struct client *client)
{
	loop_remove(&client->source);
	if (client->fd >= 0)
		close(client->fd);
	client->fd = -1;
	jsonline_done(&client->line);
}

/* What belonged to a connection ends with it. */
static void let_go(struct client *client)
{
	struct control *c = client->control;
	struct error err;

	control_track_gone(c->vm, client);
	control_disk_gone(c->vm, client);
	if (c->holder != client)
		return;
	c->holder = NULL;
	if (c->found_paused)
		return;
	log_info(&c->vm->log, "control", "who paused the VM is gone: it runs on");
	if (vm_resume(c->vm, &err))
		log_error(&c->vm->log, "control", "%s", err.text);
}

static void drop_client(struct client *client)
{
	close_client(client);
	let_go(client);
}

/* A text made from a peer's bytes may have been cut inside a character, which JSON cannot hold. */
static json_t *text_value(const char *text)
{
	json_t *value = json_string(text);
	char ascii[sizeof(((struct error *)0)->text)];
	size_t n = 0;

	if (value)
		return value;
	for (; n < sizeof(ascii) - 1 && text[n]; n++)
		ascii[n] = text[n] < 0 ? '?' : text[n];
	ascii[n] = 0;
	return json_string(ascii);
}

/* Builds {"version", "ok", "result"|"error"}; takes result. */
static json_t *make_answer(const json_t *request, int r, json_t *result, const struct error *err)
{
	json_t *answer = json_object();
	json_t *id = json_object_get(request, "id");

	json_object_set_new(answer, "version", json_integer(CONTROL_VERSION));
	if (id)
		json_object_set(answer, "id", id);
	json_object_set_new(answer, "ok", json_boolean(r >= 0));
	if (r >= 0)
		json_object_set(answer, "result", result);
	else
		json_object_set_new(
			answer, "error",
			json_pack("{s:i, s:o}", "errno", -r, "text", text_value(err->text)));
	json_decref(result);
	return answer;
}

/* Answers one request. Returns 0, HAND_OVER, or -errno when the client is to be dropped. */
static int serve(struct client *client, const json_t *request, int r, struct error *err)
{
	struct call call = {.control = client->control,
			    .vm = client->control->vm,
			    .owner = client,
			    .fd = client->fd,
			    .line = &client->line,
			    .args = request,
			    .result = json_object(),
			    .pass = -1};
	json_t *answer;
	int sent;

	if (!r)
		r = run_command(&call, err);
	answer = make_answer(request, r, call.result, err);
	sent = jsonline_write_fd(client->fd, answer, r < 0 ? -1 : call.pass);
	json_decref(answer);
	if (call.close_pass)
		close(call.pass);
	return sent ? sent : r == HAND_OVER ? HAND_OVER : 0;
}

static void hand_over(struct client *client)
{
	int fd = client->fd;

	client->fd = -1;
	drop_client(client);
	chardev_adopt(serial_chardev(client->control->vm), fd);
}

static void on_client(void *arg, uint32_t events)
{
	struct client *client = arg;
	int r = jsonline_receive(&client->line, client->fd, JSONLINE_MAX);

	while (r > 0) {
		struct error err = {0};
		json_t *request = NULL;
		int parsed = jsonline_take(&client->line, &request, &err);

		if (parsed == -EAGAIN)
			return;
		r = serve(client, request, parsed, &err);
		json_decref(request);
		if (r == HAND_OVER) {
			hand_over(client);
			return;
		}
		if (!r)
			r = 1;
	}
	/* A client that is gone, sends without end or does not read its answers. */
	if (r < 0)
		drop_client(client);
}

static int admit(struct control *c, int fd)
{
	struct client *client = NULL;
	uid_t uid = (uid_t)-1;
	int r;

	if (io_peer_uid(fd, &uid, NULL) || (uid != geteuid() && uid != 0)) {
		log_warn(&c->vm->log, "control", "refused a connection of uid %u", (unsigned)uid);
		return -EPERM;
	}
	for (unsigned i = 0; i < CLIENTS_MAX; i++)
		if (c->client[i].fd < 0)
			client = &c->client[i];
	if (!client)
		return -EBUSY;
	r = loop_add_fd(c->vm->loop, fd, EPOLLIN, on_client, client, &client->source);
	if (!r)
		client->fd = fd;
	return r;
}

static void on_connect(void *arg, uint32_t events)
{
	struct control *c = arg;
	int fd = accept4(c->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	int r = fd < 0 ? 0 : admit(c, fd);

	if (r) {
		struct error err;
		json_t *answer;

		error_set(&err, r,
			  r == -EPERM ? "only the VM's own user may control it"
				      : "too many connections");
		answer = make_answer(NULL, r, json_object(), &err);
		jsonline_write(fd, answer);
		json_decref(answer);
		close(fd);
	}
}

int control_create(struct vm *vm, const char *path, struct control **ret, struct error *err)
{
	struct control *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return error_errno(err, -ENOMEM, "control socket");
	c->vm = vm;
	c->started_ns = io_now_ns();
	for (unsigned i = 0; i < CLIENTS_MAX; i++)
		c->client[i] = (struct client){.control = c, .fd = -1};
	c->path = strdup(path);
	c->fd = -1;
	r = process_instance(c->instance, err);
	if (!r)
		r = c->fd = io_unix_listen(path, err);
	if (r >= 0) {
		r = c->path ? loop_add_fd(vm->loop, c->fd, EPOLLIN, on_connect, c, &c->source)
			    : -ENOMEM;
		if (r)
			error_errno(err, r, "control socket %s", path);
	}
	if (r) {
		control_destroy(c);
		return r;
	}
	*ret = c;
	return 0;
}

void control_destroy(struct control *c)
{
	if (!c)
		return;
	for (unsigned i = 0; i < CLIENTS_MAX; i++)
		close_client(&c->client[i]);
	loop_remove(&c->source);
	if (c->fd >= 0) {
		close(c->fd);
		if (c->path)
			unlink(c->path);
	}
	free(c->path);
	free(c);
}
