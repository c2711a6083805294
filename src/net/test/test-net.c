/* SPDX-License-Identifier: Apache-2.0 */
/* Private networks: state directories, the keeper, what it leaves. */

#include <arpa/inet.h>
#include <errno.h>
#include <grp.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/capability.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <cmocka.h>

#include "lib/args.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/process.h"
#include "net/client.h"
#include "net/keeper.h"
#include "net/message.h"
#include "net/namespace.h"
#include "net/state.h"
#include "net/virtiofsd.h"

struct fixture {
	atomic_bool done;
	char folder[32], dir[64];
};

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	strcpy(f->folder, "/tmp/wisp-net-XXXXXX");
	if (!mkdtemp(f->folder))
		return -1;
	snprintf(f->dir, sizeof(f->dir), "%s/one", f->folder);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;
	int r = rmdir(f->folder); /* fails when a test left something */

	free(f);
	return r;
}

static void test_state(void **state)
{
	struct fixture *f = *state;
	CLEANUP_FREE char *sub = io_format("%s/a/b", f->dir);
	char **names;
	int lock, second;

	assert_int_equal(state_sweep(f->dir, NULL), 0);
	assert_false(state_alive(f->dir));
	assert_int_equal(state_lock(f->dir, &lock, NULL), 0);
	assert_true(state_alive(f->dir));
	assert_int_equal(state_lock(f->dir, &second, NULL), -EBUSY);
	assert_int_equal(state_sweep(f->dir, NULL), -EBUSY);
	assert_int_equal(state_list(f->folder, &names, NULL), 0);
	assert_string_equal(names[0], "one");
	assert_null(names[1]);
	state_list_free(names);

	/* Its owner dies; the next takes over and finds it empty. */
	assert_int_equal(io_make_dirs(sub, 0700, NULL), 0);
	close(lock);
	assert_false(state_alive(f->dir));
	assert_int_equal(state_lock(f->dir, &lock, NULL), 0);
	assert_int_equal(access(sub, F_OK), -1);
	close(lock);
	assert_int_equal(state_sweep(f->dir, NULL), 1);
	assert_int_equal(access(f->dir, F_OK), -1);
}

static void *sweep_often(void *arg)
{
	struct fixture *f = arg;

	/* With a nap: who sweeps without end lets nobody start. */
	while (!atomic_load(&f->done)) {
		state_sweep(f->dir, NULL);
		usleep(200);
	}
	return NULL;
}

/* Who starts while others remove what was left keeps its files and its lock. */
static void test_state_race(void **state)
{
	struct fixture *f = *state;
	CLEANUP_FREE char *file = io_format("%s/file", f->dir);
	pthread_t thread;
	int lock;

	assert_int_equal(pthread_create(&thread, NULL, sweep_often, f), 0);
	for (unsigned i = 0; i < 300; i++) {
		assert_int_equal(state_lock(f->dir, &lock, NULL), 0);
		assert_int_equal(io_write_file(file, "x", 1, NULL), 0);
		sched_yield();
		assert_int_equal(access(file, F_OK), 0);
		assert_true(state_alive(f->dir));
		if (i % 2)
			assert_int_equal(state_remove(f->dir, NULL), 0);
		close(lock);
	}
	atomic_store(&f->done, true);
	pthread_join(thread, NULL);
	state_sweep(f->dir, NULL);
}

static int request(struct net_keeper *keeper, void *arg, const char *op, const json_t *request,
		   json_t *answer, int *fd, struct error *err)
{
	if (!strcmp(op, "end")) {
		net_keeper_stop(keeper);
		return 0;
	}
	if (strcmp(op, "echo"))
		return -ENOSYS;
	return json_object_set(answer, "text", json_object_get(request, "text"));
}

/* Starts a keeper, or skips where that is not allowed. */
static int start_keeper(const struct fixture *f, int *leash)
{
	static const struct net_hooks hooks = {.request = request};
	const struct net_config config = {
		.dir = f->dir, .name = "test", .address = "10.99.0.1/24", .hooks = &hooks};
	struct error err;
	int r = net_keeper_start(&config, leash, &err);

	if (r)
		print_message("# %s\n", err.text);
	return r;
}

static void listen_inside(int control, int *ret)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(7)};
	json_t *ask = json_pack("{ss}", "op", "socket");

	assert_int_equal(inet_pton(AF_INET, "10.99.0.1", &at.sin_addr), 1);
	assert_int_equal(message_call(control, ask, NULL, ret, NULL), 0);
	json_decref(ask);
	assert_int_equal(bind(*ret, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(listen(*ret, 1), 0);
}

static void test_keeper(void **state)
{
	struct fixture *f = *state;
	struct ifreq ifr;
	struct error err;
	int leash, control, listener, client, tap, size = 0;
	json_t *ask = json_pack("{ssss}", "op", "echo", "text", "hi"), *answer;
	json_t *bad = json_pack("{ss}", "op", "nonsense");

	if (start_keeper(f, &leash))
		skip();
	assert_int_equal(start_keeper(f, &leash), -EBUSY);
	assert_int_equal(net_keeper_release(&leash), 0);
	control = net_connect(f->dir, &err);
	assert_true(control >= 0);
	assert_int_equal(message_call(control, ask, &answer, NULL, &err), 0);
	assert_string_equal(json_string_value(json_object_get(answer, "text")), "hi");
	json_decref(answer);
	assert_int_equal(message_call(control, bad, NULL, NULL, &err), -EREMOTEIO);
	assert_non_null(strstr(err.text, "nonsense"));

	listen_inside(control, &listener);
	assert_int_equal(net_connect_tcp(control, "10.99.0.1", 7, 1000, &client, &err), 0);
	close(client);
	assert_int_equal(net_connect_tcp(control, "10.99.0.1", 8, 1000, &client, &err),
			 -ECONNREFUSED);
	close(listener);

	assert_int_equal(net_tap(control, "vm1", &tap, &err), 0);
	assert_int_equal(ioctl(tap, TUNGETIFF, &ifr), 0);
	assert_string_equal(ifr.ifr_name, "vm1");
	assert_true(ifr.ifr_flags & IFF_VNET_HDR);
	assert_int_equal(ioctl(tap, TUNGETVNETHDRSZ, &size), 0);
	assert_int_equal(size, 12);
	close(tap);

	close(control);
	assert_int_equal(net_stop(f->dir, &err), 1);
	assert_int_equal(net_stop(f->dir, &err), 0);
	json_decref(ask);
	json_decref(bad);
}

/* Without release the keeper ends with its starter. */
static void test_leash(void **state)
{
	struct fixture *f = *state;
	int leash;

	if (start_keeper(f, &leash))
		skip();
	close(leash);
	for (int i = 0; i < 1000 && !access(f->dir, F_OK); i++)
		poll(NULL, 0, 10);
	assert_int_equal(access(f->dir, F_OK), -1);
}

/* What is asked of one that is about to end is not done, to be lost with it: it is gone. */
static void test_stops(void **state)
{
	static const char both[] = "{\"op\":\"end\"}\n{\"op\":\"echo\",\"text\":\"x\"}\n";
	struct fixture *f = *state;
	int leash, control;
	struct error err;

	if (start_keeper(f, &leash))
		skip();
	net_keeper_release(&leash);
	control = net_connect(f->dir, &err);
	assert_int_equal(write(control, both, strlen(both)), strlen(both));
	assert_int_equal(message_receive(control, NULL, NULL, &err), 0);
	assert_int_equal(message_receive(control, NULL, NULL, &err), -EPIPE);
	close(control);
	net_stop(f->dir, NULL);
}

/* Killed hard: nothing but the directory stays, and the next start takes it. */
static void test_killed(void **state)
{
	struct fixture *f = *state;
	int leash, control, pidfd;
	struct error err;
	uid_t uid;
	pid_t pid;

	if (start_keeper(f, &leash))
		skip();
	net_keeper_release(&leash);
	control = net_connect(f->dir, &err);
	assert_int_equal(io_peer_uid(control, &uid, &pid), 0);
	pidfd = pidfd_open(pid, 0);
	assert_int_equal(pidfd_send_signal(pidfd, SIGKILL, NULL, 0), 0);
	assert_int_equal(poll(&(struct pollfd){.fd = pidfd, .events = POLLIN}, 1, 5000), 1);
	close(pidfd);
	close(control);
	assert_false(state_alive(f->dir));
	assert_int_equal(start_keeper(f, &leash), 0);
	assert_int_equal(net_stop(f->dir, &err), 1);
	close(leash);
}

/* In a child: 0, or the line that is not so. */
static int look_at_own_user(void)
{
	const uid_t nobody = 65534;
	uid_t r, e, s;

	if (!geteuid() && (setresgid(nobody, nobody, nobody) || setresuid(nobody, nobody, nobody)))
		return __LINE__;
	e = geteuid();
	prctl(PR_SET_DUMPABLE, 1);
	if (namespace_own_user())
		return -1;
	if (geteuid() != e || !prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_SYS_CHROOT, 0, 0))
		return __LINE__;
	if (chroot("/") || !setresuid(0, 0, 0) || !access("/proc/1/root/etc", F_OK))
		return __LINE__;
	if (namespace_stay_user() || setresuid(0, 0, 0) || setgroups(0, NULL))
		return __LINE__;
	if (getresuid(&r, &e, &s) || !r || r != e || e != s)
		return __LINE__;
	return 0;
}

static void test_own_user(void **state)
{
	int status, line;
	pid_t pid = fork();

	if (!pid) {
		line = look_at_own_user();
		_exit(line < 0 ? 77 : line && line % 256 == 77 ? 1 : line % 256);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_virtiofsd(void **state)
{
	const struct virtiofsd fs = {.program = "/fs", .source = "/a,b", .cached = true};
	__attribute__((cleanup(args_done))) struct args args = {0};
	unsigned found = 0;

	virtiofsd_args(&fs, &args);
	assert_string_equal(args.v[0], "/fs");
	for (size_t i = 0; i < args.n; i++)
		found += !strcmp(args.v[i], "source=/a\\,b") || !strcmp(args.v[i], "cache=always");
	assert_int_equal(found, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_state, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_state_race, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_keeper, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_leash, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_stops, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_killed, set_up, tear_down),
		cmocka_unit_test(test_own_user),
		cmocka_unit_test(test_virtiofsd),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
