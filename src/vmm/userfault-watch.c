/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who brings guest memory that is missing: when he is gone nobody else can, and to let go of the
 * faults would hand the guest zeros. So the VM ends, or is held until another takes his place.
 */

#include "vmm/userfault-watch.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/jsonline.h"
#include "vmm/call.h"
#include "vmm/config.h"
#include "vmm/control.h"
#include "vmm/mapped.h"
#include "vmm/vm.h"

#define STACK_SIZE (256 * 1024)
#define PATIENCE_S 1 /* with a connection that says nothing */

/*
 * Any other thread of the VMM may be waiting in a fault, the one that serves the control socket
 * too. This one touches no guest memory, and has a socket of its own.
 */
struct userfault_watch {
	struct vm *vm;
	int uffd;	/* the caller's */
	int connection; /* whose end is that of the memory; -1: nobody's */
	bool taken;	/* it is one of our socket: commands come on it */
	struct jsonline line;
	int stop_fd, listen_fd;
	int mapped_fd; /* of one answer */
	char *path;
	unsigned hold_ms;
	uint64_t deadline; /* without a connection */
	pthread_t thread;
	bool started;
};

static void end_vm(const struct userfault_watch *w, const char *why)
{
	log_error(&w->vm->log, "userfault", "%s: the VM ends", why);
	if (w->path)
		unlink(w->path);
	_exit(EXIT_MEMORY_LOST);
}

static void drop(struct userfault_watch *w)
{
	jsonline_done(&w->line);
	w->line = (struct jsonline){0};
	cleanup_close_fd(&w->connection);
	w->connection = -1;
	w->taken = false;
}

static void lost(struct userfault_watch *w)
{
	drop(w);
	if (!w->hold_ms)
		end_vm(w, "who brings the guest's memory is gone before all of it was there");
	log_warn(&w->vm->log, "userfault",
		 "who brings the guest's memory is gone: the VM waits %u s for another",
		 w->hold_ms / 1000);
	w->deadline = io_now_ns() + w->hold_ms * 1000000ull;
}

/* Which pages the guest can see, in a new memfd. */
static int see_mapped(const struct memory *mem, struct error *err)
{
	CLEANUP_CLOSE int table = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	return table < 0 ? error_errno(err, -errno, "cannot look which memory is mapped")
			 : mapped_pages(table, mem, err);
}

/* One command; *pass is the descriptor of its answer, or -1. */
static int obey(struct userfault_watch *w, const json_t *request, bool allowed, json_t *result,
		int *pass, struct error *err)
{
	const char *name = json_string_value(json_object_get(request, "command"));
	const char *why = json_string_value(json_object_get(request, "reason"));

	if (name && !strcmp(name, "userfault-end"))
		end_vm(w, why ? why : "the rest of the guest's memory will not come");
	if (!allowed)
		return error_set(err, -EBUSY, "somebody brings the guest's memory already");
	if (name && !strcmp(name, "userfault-take")) {
		call_faults(w->vm, result);
		*pass = w->uffd;
		return 0;
	}
	if (name && !strcmp(name, "memory")) {
		call_memory(w->vm, result);
		*pass = w->vm->mem.fd;
		return 0;
	}
	if (name && !strcmp(name, "mapped")) {
		*pass = w->mapped_fd = see_mapped(&w->vm->mem, err);
		return *pass < 0 ? *pass : 0;
	}
	return error_set(err, -ENOSYS,
			 "this socket is for userfault-take, memory, mapped, userfault-end");
}

/* Answers the lines that are whole. Whether the faults have been taken. */
static bool answer(struct userfault_watch *w, int fd, struct jsonline *line)
{
	bool took = false, allowed = w->connection < 0 || w->connection == fd;
	int rc = 0;

	for (;;) {
		json_t *request = NULL, *result = json_object(), *reply;
		struct error err = {{0}};
		int pass = -1;

		rc = jsonline_take(line, &request, &err);
		if (rc == -EAGAIN) {
			json_decref(result);
			return took;
		}
		if (rc == 0)
			rc = obey(w, request, allowed, result, &pass, &err);
		reply = rc < 0 ? json_pack("{s:i,s:b,s:{s:i,s:s}}", "version", CONTROL_VERSION,
					   "ok", 0, "error", "errno", -rc, "text", err.text)
			       : json_pack("{s:i,s:b,s:O}", "version", CONTROL_VERSION, "ok", 1,
					   "result", result);
		took |= jsonline_write_fd(fd, reply, pass) == 0 && rc == 0 && pass == w->uffd;
		cleanup_close_fd(&w->mapped_fd);
		w->mapped_fd = -1;
		json_decref(reply);
		json_decref(request);
		json_decref(result);
	}
}

/* Somebody comes to the socket; he has a moment to say what he wants. */
static void admit(struct userfault_watch *w)
{
	const struct timeval patience = {.tv_sec = PATIENCE_S};
	CLEANUP_CLOSE int fd = accept4(w->listen_fd, NULL, NULL, SOCK_CLOEXEC);
	struct jsonline line = {0};
	uid_t uid;
	int rc = 0;

	if (fd < 0 || io_peer_uid(fd, &uid, NULL) || (uid != geteuid() && uid != 0))
		return;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	for (unsigned i = 0; rc == 0 && i < 16; i++)
		rc = jsonline_receive(&line, fd, JSONLINE_MAX);
	if (rc > 0 && answer(w, fd, &line)) {
		log_info(&w->vm->log, "userfault", "another brings the guest's memory now");
		w->line = line;
		w->connection = take_fd(&fd);
		w->taken = true;
		return;
	}
	jsonline_done(&line);
}

/* The connection we watch says something, or hangs up. */
static void hear(struct userfault_watch *w, short events)
{
	if (events & (POLLRDHUP | POLLHUP | POLLERR))
		lost(w);
	else if (jsonline_receive(&w->line, w->connection, JSONLINE_MAX) < 0)
		lost(w);
	else
		answer(w, w->connection, &w->line);
}

static int wait_ms(const struct userfault_watch *w)
{
	uint64_t now = io_now_ns();

	if (w->connection >= 0)
		return -1;
	return now < w->deadline ? (int)((w->deadline - now) / 1000000) + 1 : 0;
}

static void *watch_main(void *arg)
{
	struct userfault_watch *w = arg;

	for (;;) {
		struct pollfd p[] = {{.fd = w->stop_fd, .events = POLLIN},
				     {.fd = w->connection, .events = POLLRDHUP},
				     {.fd = w->listen_fd, .events = POLLIN}};

		if (w->taken)
			p[1].events |= POLLIN;
		if (poll(p, 3, wait_ms(w)) < 0 && errno != EINTR)
			end_vm(w, "no watch on who brings the guest's memory");
		if (p[0].revents)
			return NULL;
		if (p[1].revents)
			hear(w, p[1].revents);
		if (p[2].revents)
			admit(w);
		if (w->connection < 0 && io_now_ns() >= w->deadline)
			end_vm(w, "nobody brings the rest of the guest's memory");
	}
}

static int start(struct userfault_watch *w, int connection, struct error *err)
{
	pthread_attr_t attr;
	int rc;

	w->connection = fcntl(connection, F_DUPFD_CLOEXEC, 0);
	w->stop_fd = eventfd(0, EFD_CLOEXEC);
	if (w->connection < 0 || w->stop_fd < 0)
		return error_errno(err, -errno, "watch on faults");
	if (w->hold_ms) {
		w->path = io_format("%s.faults", w->vm->config->control);
		w->listen_fd = rc = w->path ? io_unix_listen(w->path, err) : -ENOMEM;
		if (rc < 0)
			return rc;
	}
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	rc = -pthread_create(&w->thread, &attr, watch_main, w);
	pthread_attr_destroy(&attr);
	w->started = !rc;
	return rc ? error_errno(err, rc, "watch on faults") : 0;
}

int userfault_watch_start(struct vm *vm, int uffd, int connection, unsigned hold_ms,
			  struct userfault_watch **ret, struct error *err)
{
	struct userfault_watch *w = calloc(1, sizeof(*w));
	int rc;

	if (!w)
		return error_errno(err, -ENOMEM, "watch on faults");
	*w = (struct userfault_watch){.vm = vm,
				      .uffd = uffd,
				      .connection = -1,
				      .stop_fd = -1,
				      .listen_fd = -1,
				      .mapped_fd = -1,
				      .hold_ms = hold_ms};
	rc = start(w, connection, err);
	if (rc < 0)
		userfault_watch_stop(w);
	else
		*ret = w;
	return rc;
}

void userfault_watch_stop(struct userfault_watch *w)
{
	if (!w)
		return;
	if (w->started) {
		eventfd_write(w->stop_fd, 1);
		pthread_join(w->thread, NULL);
	}
	drop(w);
	cleanup_close_fd(&w->stop_fd);
	if (w->listen_fd >= 0)
		unlink(w->path);
	cleanup_close_fd(&w->listen_fd);
	free(w->path);
	free(w);
}
