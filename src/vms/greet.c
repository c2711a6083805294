/* SPDX-License-Identifier: Apache-2.0 */
/* The first minutes of a VM: is it up, and does everybody know everybody? */

#include "vms/greet.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>

#include "agent/client.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "net/client.h"
#include "net/message.h"
#include "vms/agent.h"
#include "vms/control.h"
#include "vms/record.h"
#include "vms/shares-agent.h"

#define LOOK_MS 1000	       /* without news from the console */
#define BLIND_NS 5000000000ULL /* then the agent is asked even if the console says nothing */
#define PING_MS 2000
#define CARRY 32 /* bytes kept, so that a text cut in two is found */

static const char init_text[] = "wisp-agent: init starts";
static const char ready_text[] = "wisp-agent: ready in";

struct watch {
	int fd, inotify;
	uint64_t init_ns, ready_ns; /* when the texts were seen */
	char buf[4096 + CARRY + 1];
	size_t used;
};

static int watch_open(struct watch *w, const struct greeting *g)
{
	CLEANUP_FREE char *path = io_format("%s/" VM_CONSOLE, g->dir);

	*w = (struct watch){.fd = -1, .inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK)};
	if (path)
		w->fd = open(path, O_RDONLY | O_CLOEXEC);
	if (w->fd < 0 || w->inotify < 0 || inotify_add_watch(w->inotify, path, IN_MODIFY) < 0 ||
	    lseek(w->fd, g->console, SEEK_SET) < 0)
		return -errno;
	return 0;
}

/* Reads what the guest has printed since and notes when the two texts came. */
static void watch_read(struct watch *w)
{
	ssize_t n;

	while ((n = read(w->fd, w->buf + w->used, 4096)) > 0) {
		size_t keep;

		w->used += (size_t)n;
		w->buf[w->used] = 0;
		for (size_t i = 0; i < w->used; i++)
			if (!w->buf[i])
				w->buf[i] = ' ';
		if (!w->init_ns && strstr(w->buf, init_text))
			w->init_ns = io_now_ns();
		if (!w->ready_ns && strstr(w->buf, ready_text))
			w->ready_ns = io_now_ns();
		keep = w->used < CARRY ? w->used : CARRY;
		memmove(w->buf, w->buf + w->used - keep, keep);
		w->used = keep;
	}
}

/* Until something is printed; the wait is short so that a console that is not ours is no trap. */
static void watch_wait(const struct watch *w)
{
	struct pollfd p = {.fd = w->inotify, .events = POLLIN};
	char events[1024];

	poll(&p, 1, LOOK_MS);
	while (read(w->inotify, events, sizeof(events)) > 0)
		continue;
}

/* Returns when the agent answers, the time of that in *ready_ns. */
static int wait_agent(const struct greeting *g, struct watch *w, uint64_t *ready_ns)
{
	CLEANUP_FREE char *address = vm_agent_address(g->dir);
	uint64_t asked = io_now_ns();

	for (;;) {
		watch_read(w);
		if (g->silent || w->ready_ns || io_now_ns() - asked > BLIND_NS) {
			int r = address ? client_wait_ready(address, PING_MS, NULL, NULL, NULL)
					: -ENOMEM;

			asked = io_now_ns();
			if (!r || r == -ENOMEM) {
				*ready_ns = asked;
				return r;
			}
		}
		watch_wait(w);
	}
}

/* The names of all, and by which of the addresses the others reach this one. */
static int configure_one(const char *dir, json_t *hosts, const char *own, struct error *err)
{
	json_t *settings = json_pack("{sO,ss}", "hosts", hosts, "peers", own);
	CLEANUP_CLOSE int fd =
		settings ? vm_agent_connect(dir, err) : error_errno(err, -ENOMEM, "names of VMs");
	int r = fd < 0 ? fd : client_configure(fd, settings, err);

	json_decref(settings);
	return r;
}

/* Others that are not up yet get the names when they are; a paused one keeps what it has. */
static bool wants_names(const struct greeting *g, const char *dir, const char *name)
{
	json_t *status = NULL;
	bool running;

	if (!strcmp(name, g->name))
		return true;
	if (!record_exists(dir, RECORD_READY) || control_call(dir, "status", &status, NULL, NULL))
		return false;
	running = !strcmp(record_text(status, "state"), "running");
	json_decref(status);
	return running;
}

/* Asks the keeper who is there now. */
static int ask_vms(const struct greeting *g, json_t **ret, struct error *err)
{
	CLEANUP_CLOSE int control = net_connect(g->network_dir, err);
	json_t *request = json_pack("{ss}", "op", "vms");
	int r = control;

	if (r >= 0)
		r = request ? message_call(control, request, ret, NULL, err) : -ENOMEM;
	json_decref(request);
	return r;
}

/* One that is silent costs the deadline of a short request, and no more. */
static void tell_names(const struct greeting *g)
{
	json_t *answer = NULL, *vm, *hosts;
	struct error err;
	size_t i;

	if (ask_vms(g, &answer, &err)) {
		fprintf(stderr, "%s: %s\n", g->name, err.text);
		return;
	}
	hosts = json_object_get(answer, "vms");
	json_array_foreach (hosts, i, vm) {
		const char *name = record_text(vm, "name");
		CLEANUP_FREE char *dir = io_format("%s/%s", g->vms, name);

		if (dir && wants_names(g, dir, name) &&
		    configure_one(dir, hosts, record_text(vm, "address"), &err))
			fprintf(stderr, "%s: cannot tell the names of the network: %s\n", name,
				err.text);
	}
	json_decref(answer);
}

/*
 * Has its agent mount its shares and volumes. Why not is in the record: the VM runs without them.
 */
static void mount_all(const struct greeting *g, json_t *record)
{
	json_t *config = NULL;
	struct error err = {"out of memory"};

	if (!record_read(g->dir, RECORD_CONFIG, &config, &err) &&
	    (volumes_attach(g->dir, config, &err) || shares_attach(g->dir, config, &err)))
		json_object_set_new(record, "warning", json_string(err.text));
	json_decref(config);
}

static json_int_t since(const struct greeting *g, uint64_t ns)
{
	return (json_int_t)((ns - g->started_ns) / 1000000);
}

int greet(const struct greeting *g)
{
	json_t *record = NULL;
	struct error err = {""};
	uint64_t ready_ns = 0;
	struct watch w;
	int r = watch_open(&w, g);

	if (!r)
		r = wait_agent(g, &w, &ready_ns);
	if (r) {
		fprintf(stderr, "%s: cannot wait for its agent: %s\n", g->name, strerror(-r));
		return 1;
	}
	tell_names(g);
	record = json_pack("{sI}", "ready_ms", since(g, ready_ns));
	if (record && w.init_ns)
		json_object_set_new(record, "init_ms", json_integer(since(g, w.init_ns)));
	if (record)
		mount_all(g, record);
	r = record ? record_write(g->dir, RECORD_READY, record, &err) : -ENOMEM;
	if (r)
		fprintf(stderr, "%s: %s\n", g->name, err.text);
	json_decref(record);
	return r ? 1 : 0;
}
