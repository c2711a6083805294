/* SPDX-License-Identifier: Apache-2.0 */
/* The control socket: every command, and clients that misbehave. */

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/jsonline.h"
#include "lib/loop.h"
#include "vmm/config.h"
#include "vmm/control.h"
#include "vmm/dev/power.h"
#include "vmm/dev/serial.h"
#include "vmm/test/guest-driver.h"
#include "vmm/vcpu.h"

struct fixture {
	struct guest guest;
	struct vm_config config;
	struct vcpu vcpu[2];
	struct control *control;
	char dir[32], path[64];
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct vm *vm = &f->guest.vm;
	struct error err;

	*state = f;
	guest_create(&f->guest);
	log_init(&vm->log, "vm7", open("/dev/null", O_WRONLY | O_CLOEXEC), LOG_WARN);
	f->config.serial = "none";
	vm->config = &f->config;
	vm->vcpus = f->vcpu;
	vm->nvcpus = 2;
	f->vcpu[0].vm = f->vcpu[1].vm = vm;
	f->vcpu[0].stats_fd = f->vcpu[1].stats_fd = -1;
	f->vcpu[1].exits[EXIT_MMIO] = 42;
	strcpy(f->dir, "/tmp/wisp-test-XXXXXX");
	if (!mkdtemp(f->dir) || chmod(f->dir, 0755))
		return -1;
	snprintf(f->path, sizeof(f->path), "%s/control", f->dir);
	return serial_create(vm, "none", &err) || power_create(vm, &err) ||
	       control_create(vm, f->path, &f->control, &err);
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	int log = f->guest.vm.log.fd;

	control_destroy(f->control);
	control_destroy(NULL);
	if (!access(f->path, F_OK) || rmdir(f->dir))
		return -1;
	guest_destroy(&f->guest);
	close(log);
	free(f);
	return 0;
}

static int client(struct fixture *f)
{
	int fd = io_unix_connect_nonblock(f->path, NULL);

	assert_true(fd >= 0);
	guest_run(&f->guest);
	return fd;
}

/* The next answer on the socket; NULL when the server hung up. */
static json_t *answer(struct fixture *f, int fd)
{
	struct jsonline line = {0};
	json_t *value = NULL;
	char byte;
	int r = 0;

	guest_run(&f->guest);
	/* A byte at a time: what is behind the line belongs to the next. */
	while (!line.used || line.buf[line.used - 1] != '\n') {
		if (read(fd, &byte, 1) != 1)
			break;
		if (line.used == line.room) {
			line.room = line.room * 2 + 512;
			line.buf = realloc(line.buf, line.room);
		}
		line.buf[line.used++] = byte;
	}
	if (line.used)
		r = jsonline_take(&line, &value, NULL);
	assert_int_equal(r, 0);
	jsonline_done(&line);
	return value;
}

static void send_text(int fd, const char *text)
{
	assert_int_equal(io_write_full(fd, text, strlen(text)), 0);
}

/* The result of a request that succeeds; borrowed from *whole. */
static json_t *call(struct fixture *f, int fd, const char *request, json_t **whole)
{
	send_text(fd, request);
	send_text(fd, "\n");
	*whole = answer(f, fd);
	assert_int_equal(json_integer_value(json_object_get(*whole, "version")), 1);
	assert_true(json_is_true(json_object_get(*whole, "ok")));
	assert_null(json_object_get(*whole, "error"));
	return json_object_get(*whole, "result");
}

static void ok(struct fixture *f, int fd, const char *request)
{
	json_t *whole, *result = call(f, fd, request, &whole);

	assert_true(json_is_object(result));
	json_decref(whole);
}

/* An answer that refuses with the error and a text that contains text. */
static void expect_error(struct fixture *f, int fd, int code, const char *text)
{
	json_t *whole = answer(f, fd), *error = json_object_get(whole, "error");
	const char *got = json_string_value(json_object_get(error, "text"));

	assert_true(json_is_false(json_object_get(whole, "ok")));
	assert_null(json_object_get(whole, "result"));
	assert_int_equal(json_integer_value(json_object_get(error, "errno")), code);
	assert_non_null(got);
	if (!strstr(got, text))
		fail_msg("\"%s\" does not say \"%s\"", got, text);
	json_decref(whole);
}

static void refused(struct fixture *f, int fd, const char *request, int code, const char *text)
{
	send_text(fd, request);
	send_text(fd, "\n");
	expect_error(f, fd, code, text);
}

static const char *text_of(json_t *result, const char *key)
{
	return json_string_value(json_object_get(result, key));
}

static void test_status(void **state)
{
	struct fixture *f = *state;
	int fd = client(f);
	json_t *whole, *result = call(f, fd, "{\"command\":\"status\"}", &whole);
	struct stat st;

	assert_string_equal(text_of(result, "name"), "vm7");
	assert_string_equal(text_of(result, "state"), "running");
	assert_string_equal(text_of(result, "log_level"), "warn");
	assert_non_null(text_of(result, "version"));
	assert_int_equal(json_integer_value(json_object_get(result, "pid")), getpid());
	assert_int_equal(json_integer_value(json_object_get(result, "vcpus")), 2);
	assert_int_equal(json_integer_value(json_object_get(result, "memory")), GUEST_RAM);
	assert_int_equal(json_integer_value(json_object_get(result, "page_size")), 4096);
	assert_true(json_is_integer(json_object_get(result, "uptime_ms")));
	json_decref(whole);
	assert_int_equal(stat(f->path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	close(fd);
}

static void test_pause(void **state)
{
	struct fixture *f = *state;
	int fd = client(f);
	json_t *whole;

	ok(f, fd, "{\"command\":\"pause\"}");
	assert_true(f->guest.paused);
	assert_string_equal(text_of(call(f, fd, "{\"command\":\"status\"}", &whole), "state"),
			    "paused");
	json_decref(whole);
	ok(f, fd, "{\"command\":\"pause\"}");
	ok(f, fd, "{\"command\":\"resume\"}");
	assert_false(f->guest.paused);
	f->guest.pause_result = -EIO;
	refused(f, fd, "{\"command\":\"pause\"}", EIO, "cannot pause: Input/output error");
	close(fd);
}

static void test_stop(void **state)
{
	struct fixture *f = *state;
	int fd = client(f);

	ok(f, fd, "{\"command\":\"power-button\"}");
	assert_int_equal(f->guest.pulses[POWER_IRQ], 1);
	assert_int_equal(f->guest.vm.end, VM_RUNNING);
	ok(f, fd, "{\"command\":\"stop\"}");
	assert_int_equal(f->guest.vm.end, VM_STOPPED);
	close(fd);
}

static const char *why_stays(const struct device *dev)
{
	return "wisp vm detach it";
}

/* What another VMM has to have, while the VM runs. */
static void test_describe(void **state)
{
	static struct cpuid cpuid = {
		.count = 1,
		.entry = {
			{.function = 0, .ebx = 0x756e6547, .edx = 0x49656e69, .ecx = 0x6c65746e}}};
	struct fixture *f = *state;
	struct vm *vm = &f->guest.vm;
	const struct device_ops *before = vm->devices[0]->ops;
	struct device_ops ops = *before;
	int fd = client(f);
	json_t *whole, *result, *device;

	refused(f, fd, "{\"command\":\"describe\"}", EBUSY, "no vCPUs");
	vm->cpuid = &cpuid;
	vm->tsc_khz = 2000000;
	ops.stays = why_stays;
	vm->devices[0]->ops = &ops;
	result = call(f, fd, "{\"command\":\"describe\"}", &whole);
	assert_int_equal(json_integer_value(json_object_get(result, "state_version")), 1);
	assert_string_equal(
		json_string_value(json_object_get(json_object_get(result, "cpu"), "vendor")),
		"GenuineIntel");
	assert_int_equal(
		json_integer_value(json_object_get(json_object_get(result, "cpu"), "tsc_khz")),
		2000000);
	assert_true(json_is_array(json_object_get(json_object_get(result, "offer"), "features")));
	assert_int_equal(json_array_size(json_object_get(result, "devices")), vm->ndevices);
	device = json_array_get(json_object_get(result, "devices"), 0);
	assert_string_equal(json_string_value(json_object_get(device, "id")), vm->devices[0]->id);
	assert_string_equal(json_string_value(json_object_get(device, "stays")),
			    "wisp vm detach it");
	json_decref(whole);
	vm->cpuid = NULL;
	vm->devices[0]->ops = before;
	close(fd);
}

static void test_stats(void **state)
{
	struct fixture *f = *state;
	int fd = client(f);
	json_t *whole, *result = call(f, fd, "{\"command\":\"stats\"}", &whole);
	json_t *vcpus = json_object_get(result, "vcpu_exits");

	assert_int_equal(json_array_size(vcpus), 2);
	assert_int_equal(json_integer_value(json_object_get(json_array_get(vcpus, 1), "mmio")), 42);
	assert_true(json_is_object(json_object_get(json_object_get(result, "devices"), "serial0")));
	assert_true(json_is_object(json_object_get(json_object_get(result, "devices"), "power0")));
	assert_true(json_integer_value(json_object_get(result, "event_loop_wakeups")) > 0);
	json_decref(whole);
	close(fd);
}

static void test_log_level(void **state)
{
	struct fixture *f = *state;
	int fd = client(f);

	ok(f, fd, "{\"command\":\"log-level\",\"level\":\"debug\"}");
	assert_int_equal(f->guest.vm.log.level, LOG_DEBUG);
	refused(f, fd, "{\"command\":\"log-level\",\"level\":\"loud\"}", EINVAL,
		"log level \"loud\"");
	refused(f, fd, "{\"command\":\"log-level\",\"level\":3}", EINVAL, "needs \"level\"");
	refused(f, fd, "{\"command\":\"log-level\"}", EINVAL, "needs \"level\"");
	assert_int_equal(f->guest.vm.log.level, LOG_DEBUG);
	close(fd);
}

static void test_envelope(void **state)
{
	struct fixture *f = *state;
	int fd = client(f);
	json_t *whole;

	call(f, fd, "{\"version\":1,\"id\":[7,{}],\"command\":\"resume\",\"more\":0}", &whole);
	assert_int_equal(json_integer_value(json_array_get(json_object_get(whole, "id"), 0)), 7);
	json_decref(whole);
	refused(f, fd, "{\"version\":2,\"command\":\"stop\"}", EPROTONOSUPPORT,
		"protocol version 2 is not spoken here, 1 is");
	refused(f, fd, "{\"version\":\"1\",\"command\":\"stop\"}", EPROTONOSUPPORT, "version");
	refused(f, fd, "{\"command\":\"explode\"}", ENOSYS, "there is no command \"explode\"");
	refused(f, fd, "{\"command\":1}", EINVAL, "the request has no \"command\"");
	refused(f, fd, "{}", EINVAL, "the request has no \"command\"");
	assert_int_equal(f->guest.vm.end, VM_RUNNING);
	close(fd);
}

/* Garbage is answered, and the connection goes on. */
static void test_garbage(void **state)
{
	static const char *const bad[] = {
		"",    "hello", "[]", "{\"command\":", "\xff\xfe\xfd", "{\"command\":\"\xc3\"}",
		"null"};
	struct fixture *f = *state;
	CLEANUP_FREE char *name = malloc(3000);
	CLEANUP_FREE char *request = NULL;
	int fd = client(f);

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		refused(f, fd, bad[i], EBADMSG, "not ");
	/* The text is cut inside a character, wherever it begins. */
	for (unsigned shift = 0; shift < 2; shift++) {
		memset(name, 'x', 3000);
		for (unsigned i = shift; i + 2 < 2999; i += 2)
			memcpy(name + i, "\xc3\xa4", 2);
		name[2998 + shift] = 0;
		free(take_ptr(request));
		request = io_format("{\"command\":\"%s\"}", name);
		refused(f, fd, request, ENOSYS, "there is no command");
	}
	ok(f, fd, "{\"command\":\"status\"}");
	close(fd);
}

/* Several requests in one piece, and one in many. */
static void test_framing(void **state)
{
	struct fixture *f = *state;
	int fd = client(f);

	send_text(fd,
		  "{\"id\":1,\"command\":\"status\"}\n{\"id\":2,\"command\":\"status\"}\n{\"id\"");
	for (int id = 1; id <= 2; id++) {
		json_t *whole = answer(f, fd);

		assert_int_equal(json_integer_value(json_object_get(whole, "id")), id);
		json_decref(whole);
	}
	for (const char *p = ":3,\"command\":\"status\"}\n"; *p; p++) {
		assert_null(answer(f, fd));
		assert_int_equal(io_write_full(fd, p, 1), 0);
	}
	json_decref(answer(f, fd));
	/* Gone in the middle of a request: nothing happens. */
	send_text(fd, "{\"command\":\"stop\"}");
	close(fd);
	guest_run(&f->guest);
	assert_int_equal(f->guest.vm.end, VM_RUNNING);
}

static void test_oversize(void **state)
{
	struct fixture *f = *state;
	CLEANUP_FREE char *spaces = malloc(8192);
	int fd = client(f), other = client(f);
	char byte;

	memset(spaces, ' ', 8192);
	for (unsigned i = 0; i < 9 && send(fd, spaces, 8192, MSG_NOSIGNAL) == 8192; i++)
		guest_run(&f->guest);
	assert_int_not_equal(read(fd, &byte, 1), 1);
	assert_int_equal(send(fd, "x", 1, MSG_NOSIGNAL), -1);
	ok(f, other, "{\"command\":\"status\"}");
	close(fd);
	close(other);
}

/* A client that does not read its answers is sent away; nobody waits for it. */
static void test_slow_reader(void **state)
{
	static const char request[] = "{\"command\":\"stats\"}\n";
	struct fixture *f = *state;
	int fd = client(f), other = client(f);
	unsigned sent = 0;

	while (send(fd, request, sizeof(request) - 1, MSG_NOSIGNAL) > 0 && sent < 100000) {
		guest_run(&f->guest);
		sent++;
	}
	assert_in_range(sent, 10, 99999);
	ok(f, other, "{\"command\":\"status\"}");
	close(fd);
	close(other);
}

static void test_many_clients(void **state)
{
	struct fixture *f = *state;
	int fd[17];

	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < 17; i++)
			fd[i] = client(f);
		expect_error(f, fd[16], EBUSY, "too many connections");
		assert_null(answer(f, fd[16]));
		for (unsigned i = 0; i < 16; i++)
			ok(f, fd[i], "{\"command\":\"status\"}");
		for (unsigned i = 0; i < 17; i++)
			close(fd[i]);
		guest_run(&f->guest);
	}
}

/* The kernel tells who the peer is; only root can play another user. */
static void test_other_user(void **state)
{
	struct fixture *f = *state;
	pid_t child;
	int status, p[2];
	char byte;

	if (geteuid())
		skip();
	assert_int_equal(chmod(f->path, 0666), 0);
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	child = fork();
	assert_true(child >= 0);
	if (!child) {
		char buf[256] = {0};
		int fd = -1;

		if (!setgid(65534) && !setuid(65534))
			fd = io_unix_connect(f->path, NULL);
		io_write_full(p[1], "x", 1);
		if (fd < 0 || read(fd, buf, sizeof(buf) - 1) <= 0)
			_exit(1);
		if (!strstr(buf, "only the VM's own user may control it"))
			_exit(2);
		_exit(read(fd, buf, 1) == 0 ? 0 : 3);
	}
	assert_int_equal(io_read_full(p[0], &byte, 1), 0);
	guest_run(&f->guest);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	close(p[0]);
	close(p[1]);
}

/* The connection becomes the console, in both directions, behind the answer's newline. */
static void test_console(void **state)
{
	struct fixture *f = *state;
	int fd = client(f);
	char buf[64] = {0};
	uint8_t byte = '!';

	bus_write(&f->guest.vm.pio, SERIAL_PORT, &byte, 1);
	ok(f, fd, "{\"command\":\"console\"}");
	assert_int_equal(read(fd, buf, sizeof(buf)), 1);
	assert_int_equal(buf[0], '!');
	bus_write(&f->guest.vm.pio, SERIAL_PORT, &byte, 1);
	assert_int_equal(read(fd, buf, sizeof(buf)), 1);
	send_text(fd, "k");
	guest_run(&f->guest);
	bus_read(&f->guest.vm.pio, SERIAL_PORT, &byte, 1);
	assert_int_equal(byte, 'k');
	close(fd);
	guest_run(&f->guest);
	f->config.serial = "stdio";
	fd = client(f);
	refused(f, fd, "{\"command\":\"console\"}", EBUSY, "standard input and output");
	close(fd);
}

/* Sends a request with a descriptor, which is closed here. */
static void send_with(int fd, const char *request, int pass)
{
	json_t *value = json_loads(request, 0, NULL);

	assert_int_equal(jsonline_write_fd(fd, value, pass), 0);
	json_decref(value);
	close(pass);
}

static int sealed_memfd(size_t size)
{
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
	return fd;
}

/* Tracking ends with its connection; this process's writes are in the bitmap. */
static void test_dirty(void **state)
{
	struct fixture *f = *state;
	struct vm *vm = &f->guest.vm;
	int fd = client(f), other = client(f);
	size_t bytes = GUEST_RAM / 4096 / 8;
	json_t *whole;

	refused(f, fd, "{\"command\":\"dirty-collect\"}", EINVAL, "not tracked");
	refused(f, fd, "{\"command\":\"dirty-start\"}", EINVAL, "no descriptor came");
	send_with(fd, "{\"command\":\"dirty-start\"}", sealed_memfd(bytes - 8));
	expect_error(f, fd, EINVAL, "the dirty bitmap has 504 bytes, not 512");
	send_with(fd, "{\"command\":\"dirty-start\"}", sealed_memfd(bytes));
	whole = answer(f, fd);
	assert_true(json_is_true(json_object_get(whole, "ok")));
	json_decref(whole);
	assert_int_equal(f->guest.memory_flags, KVM_MEM_LOG_DIRTY_PAGES);
	assert_non_null(vm->mem.dirty);
	/* No KVM here: all pages count at first. */
	assert_int_equal(vm->mem.dirty[0], ~0ULL);
	vm->mem.dirty[GUEST_LOW / 4096 / 64] = 0;
	memory_write(&vm->mem, MEMORY_HIGH_START + 4096, "x", 1);
	assert_int_equal(vm->mem.dirty[GUEST_LOW / 4096 / 64], 2);
	send_with(other, "{\"command\":\"dirty-start\"}", sealed_memfd(bytes));
	expect_error(f, other, EBUSY, "tracked already");
	close(other);
	guest_run(&f->guest);
	assert_non_null(vm->dirty);
	close(fd);
	guest_run(&f->guest);
	assert_null(vm->dirty);
	assert_null(vm->mem.dirty);
	assert_int_equal(f->guest.memory_flags, 0);
}

static void test_throttle(void **state)
{
	struct fixture *f = *state;
	int fd = client(f);

	refused(f, fd, "{\"command\":\"throttle\",\"vcpus\":[1]}", EINVAL, "2 numbers");
	refused(f, fd, "{\"command\":\"throttle\",\"vcpus\":[0,100]}", EINVAL, "vCPU 1: 0 to 99");
	ok(f, fd, "{\"command\":\"throttle\",\"vcpus\":[0,50]}");
	loop_run_once(f->guest.vm.loop, 1000);
	assert_int_equal(f->guest.held_ns, 10000000);
	ok(f, fd, "{\"command\":\"throttle\",\"vcpus\":[0,0]}");
	assert_null(f->guest.vm.throttle);
	ok(f, fd, "{\"command\":\"throttle\",\"vcpus\":[9,9]}");
	close(fd);
	guest_run(&f->guest);
	assert_null(f->guest.vm.throttle);
}

/*
 * A held pause ends with its connection and is nobody else's matter; a plain one of that
 * connection takes it over and stays.
 */
static void test_hold(void **state)
{
	struct fixture *f = *state;
	int fd = client(f), other = client(f);

	ok(f, fd, "{\"command\":\"pause\",\"hold\":true}");
	assert_true(f->guest.paused);
	close(fd);
	guest_run(&f->guest);
	assert_false(f->guest.paused);
	fd = client(f);
	ok(f, fd, "{\"command\":\"pause\",\"hold\":true}");
	refused(f, other, "{\"command\":\"pause\"}", EBUSY, "holds the VM");
	refused(f, other, "{\"command\":\"resume\"}", EBUSY, "holds the VM");
	assert_true(f->guest.paused);
	ok(f, fd, "{\"command\":\"pause\"}");
	close(fd);
	guest_run(&f->guest);
	assert_true(f->guest.paused);
	ok(f, other, "{\"command\":\"resume\"}");
	close(other);
}

/* What was paused is held all the same, and stays paused when that ends. */
static void test_hold_paused(void **state)
{
	struct fixture *f = *state;
	int fd = client(f), other = client(f);

	ok(f, other, "{\"command\":\"pause\"}");
	ok(f, fd, "{\"command\":\"pause\",\"hold\":true}");
	refused(f, other, "{\"command\":\"resume\"}", EBUSY, "holds the VM");
	close(fd);
	guest_run(&f->guest);
	assert_true(f->guest.paused);
	ok(f, other, "{\"command\":\"resume\"}");
	assert_false(f->guest.paused);
	close(other);
}

/* More descriptors than a request can want: the client is dropped. */
static void test_many_descriptors(void **state)
{
	struct fixture *f = *state;
	int fd = client(f);

	for (unsigned i = 0; i < JSONLINE_FDS + 1; i++) {
		send_with(fd, "{\"command\":\"status\"}", dup(fd));
		guest_run(&f->guest);
	}
	for (unsigned i = 0; i < JSONLINE_FDS; i++) {
		json_t *whole = answer(f, fd);

		assert_non_null(whole);
		json_decref(whole);
	}
	assert_null(answer(f, fd));
	close(fd);
}

static void test_listen_errors(void **state)
{
	struct fixture *f = *state;
	struct control *c = NULL;
	struct error err;

	assert_int_equal(control_create(&f->guest.vm, f->path, &c, &err), -EADDRINUSE);
	assert_non_null(strstr(err.text, "Address already in use"));
	assert_int_equal(control_create(&f->guest.vm, "/nonexistent/c", &c, &err), -ENOENT);
	assert_string_equal(err.text, "cannot listen on /nonexistent/c: No such file or directory");
	assert_int_equal(control_create(&f->guest.vm, "", &c, &err), -ENOENT);
	assert_null(c);
	assert_int_equal(access(f->path, F_OK), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(status),	  TEST(pause),	   TEST(stop),		TEST(describe),
		TEST(stats),	  TEST(log_level), TEST(envelope),	TEST(garbage),
		TEST(framing),	  TEST(oversize),  TEST(slow_reader),	TEST(many_clients),
		TEST(other_user), TEST(console),   TEST(listen_errors), TEST(dirty),
		TEST(throttle),	  TEST(hold),	   TEST(hold_paused),	TEST(many_descriptors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
