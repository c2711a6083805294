/* SPDX-License-Identifier: Apache-2.0 */
/* wisp-vmm: one process, one virtual machine. */

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/loop.h"
#include "vmm/config.h"
#include "vmm/control.h"
#include "vmm/vcpu.h"
#include "vmm/vm.h"
#include "vmm/x86/boot.h"

/* Exit codes beside 0 (power-off or stopped), 1 (could not start) and 2 (bad arguments). */
static const struct {
	int code;
	const char *text;
} ends[] = {
	[VM_POWER_OFF] = {0, "powered off"},
	[VM_REBOOT] = {10, "rebooted"},
	[VM_STOPPED] = {0, "stopped"},
	[VM_PANIC] = {11, "guest kernel panic"},
	[VM_TRIPLE_FAULT] = {12, "guest triple fault"},
	[VM_ERROR] = {13, "hypervisor error"},
};

static void on_signal(void *arg, int signo)
{
	struct vm *vm = arg;

	log_info(&vm->log, "main", "signal %d (%s)", signo, strsignal(signo));
	vm_end(vm, VM_STOPPED);
}

static int watch_signals(struct vm *vm, struct error *err)
{
	static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
	struct loop_source *source;

	for (unsigned i = 0; i < ARRAY_SIZE(signals); i++) {
		int r = loop_add_signal(vm->loop, signals[i], on_signal, vm, &source);

		if (r)
			return error_errno(err, r, "cannot watch signals");
	}
	return 0;
}

/* Runs the machine to its end. Returns 0 with the reason in vm->end, or -errno. */
static int run(struct vm *vm, const struct vm_config *config, const struct boot_files *files,
	       struct error *err)
{
	struct control *control = NULL;
	uint64_t begin = io_now_ns();
	int r = watch_signals(vm, err);

	if (!r)
		r = vm_create(vm, config, files, err);
	if (!r && config->control)
		r = control_create(vm, config->control, &control, err);
	if (!r && config->incoming) {
		SCOPED_LOCK(&vm->lock);
		r = vm_pause(vm);
		if (r)
			error_errno(err, r, "cannot pause the new VM");
	}
	if (!r)
		r = vcpus_start(vm, err);
	if (!r) {
		log_info(&vm->log, "main", "guest starts after %u ms",
			 (unsigned)((io_now_ns() - begin) / 1000000));
		r = loop_run(vm->loop);
	}
	vcpus_destroy(vm);
	control_destroy(control);
	return r;
}

/* Sockets of the guest's connections may be thousands. Nothing here uses select(). */
static void raise_file_limit(void)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files))
		return;
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
}

static int run_vm(const struct vm_config *config, enum vm_end *why, struct error *err)
{
	struct boot_files files = {.kernel_fd = -1, .initrd_fd = -1};
	CLEANUP_CLOSE int log_fd = -1;
	struct loop *loop;
	struct vm vm;
	int r = config->incoming ? 0
				 : boot_open(config->kernel, config->initrd, config->cmdline,
					     config->memory, &files, err);

	if (r)
		return r;
	raise_file_limit();
	r = loop_create(&loop);
	if (r) {
		boot_close(&files);
		return error_errno(err, r, "event loop");
	}
	vm_init(&vm, config, loop);
	if (config->log_file)
		log_fd = open(config->log_file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	log_init(&vm.log, config->name, log_fd >= 0 ? log_fd : STDERR_FILENO, config->log_level);
	if (config->log_file && log_fd < 0)
		r = error_errno(err, -errno, "cannot open log file %s", config->log_file);
	if (!r)
		r = run(&vm, config, config->incoming ? NULL : &files, err);
	if (!r) {
		*why = (enum vm_end)vm.end;
		log_info(&vm.log, "main", "%s", ends[*why].text);
	}
	vm_destroy(&vm);
	loop_destroy(loop);
	boot_close(&files);
	return r;
}

/*
 * A reboot is a new start of the program: nothing of the old machine can survive in the new.
 * Signals stay blocked, so that one that comes in between waits for the new machine.
 */
static void restart(char **argv)
{
	execv("/proc/self/exe", argv);
	fprintf(stderr, "wisp-vmm: cannot restart after a reboot: %s\n", strerror(errno));
}

int main(int argc, char **argv)
{
	struct vm_config config;
	enum vm_end why = VM_RUNNING;
	struct error err = {0};
	int r;

	io_open_standard_fds();
	/* One heap for all threads: an arena for each would cost more than all our state. */
	mallopt(M_ARENA_MAX, 1);
	io_open_standard_fds();
	signal(SIGPIPE, SIG_IGN);
	r = config_parse(&config, argc, argv, &err);
	if (r <= 0) {
		if (r)
			fprintf(stderr, "wisp-vmm: %s\n", err.text);
		return r ? 2 : 0;
	}
	r = run_vm(&config, &why, &err);
	config_done(&config);
	if (r) {
		fprintf(stderr, "wisp-vmm: %s: %s\n", config.name, err.text);
		return 1;
	}
	if (why == VM_REBOOT && config.restart_on_reboot) {
		restart(argv);
		return 1;
	}
	if (ends[why].code)
		fprintf(stderr, "wisp-vmm: %s: %s\n", config.name, ends[why].text);
	return ends[why].code;
}
