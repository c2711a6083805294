/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a program to the agent of another VM, both halves: what gets through, what is refused, who
 * waits for whom. In a network of its own, whose VMs are addresses of the loopback interface.
 */

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "agent/peers.h"
#include "agent/proto.h"
#include "agent/relay.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/loop.h"

#define SELF "127.0.0.3"

struct session {
	int fd;
	uid_t uid;
};

struct fixture {
	char dir[64], path[96], hosts[96];
	struct loop *loop;
	struct relay *relay;
	struct peers *peers;
	pthread_t thread;
	int sessions[2]; /* a pipe: what the peers' half hands over */
};

static void on_session(void *arg, int fd, uid_t uid)
{
	struct fixture *f = arg;
	struct session s = {.fd = fd, .uid = uid};

	if (fcntl(fd, F_SETFL, 0) || write(f->sessions[1], &s, sizeof(s)) != sizeof(s))
		abort();
}

static void *run(void *arg)
{
	struct fixture *f = arg;

	loop_run(f->loop);
	return NULL;
}

static int set_up(void **state)
{
	static const char hosts[] = "127.0.0.9\tforeign\n127.0.0.2\tnobody\t# wisp\n" SELF
				    "\tb\t# wisp\n127.0.0.4\tmute\t# wisp\n";
	struct fixture *f = calloc(1, sizeof(*f));
	struct in_addr self;
	struct error err;

	strcpy(f->dir, "/tmp/test-relay.XXXXXX");
	if (!mkdtemp(f->dir) || pipe(f->sessions))
		return -1;
	inet_pton(AF_INET, SELF, &self);
	snprintf(f->path, sizeof(f->path), "%s/relay", f->dir);
	snprintf(f->hosts, sizeof(f->hosts), "%s/hosts", f->dir);
	if (io_write_file(f->hosts, hosts, strlen(hosts), &err) || loop_create(&f->loop) ||
	    relay_create(f->loop, NULL, f->path, f->hosts, &f->relay, &err) ||
	    peers_create(f->loop, NULL, self, f->hosts, on_session, f, &f->peers, &err)) {
		print_error("%s\n", err.text);
		return -1;
	}
	relay_set_address(f->relay, self);
	*state = f;
	return pthread_create(&f->thread, NULL, run, f);
}

static int tear_down(void **state)
{
	struct fixture *f = *state;
	char command[128];

	loop_stop(f->loop);
	pthread_join(f->thread, NULL);
	relay_destroy(f->relay);
	peers_destroy(f->peers);
	assert_int_equal(access(f->path, F_OK), -1);
	loop_destroy(f->loop);
	close(f->sessions[0]);
	close(f->sessions[1]);
	snprintf(command, sizeof(command), "rm -rf %s", f->dir);
	free(f);
	return system(command);
}

static void put(int fd, const char *text)
{
	assert_int_equal(io_write_full(fd, text, strlen(text)), 0);
}

static void expect(int fd, const char *text)
{
	char got[256] = "";

	assert_int_equal(io_read_full(fd, got, strlen(text)), 0);
	assert_string_equal(got, text);
}

static void expect_end(int fd)
{
	char c;

	assert_true(read(fd, &c, 1) <= 0);
}

static int ask(struct fixture *f, const char *host)
{
	int program = io_unix_connect(f->path, NULL);
	char line[128];

	assert_true(program >= 0);
	snprintf(line, sizeof(line), "{\"version\":1,\"host\":\"%s\"}\n", host);
	put(program, line);
	return program;
}

/* A program's connection that was let through, and the session at the other agent. */
static int through(struct fixture *f, int *session)
{
	int program = ask(f, "b");
	struct session s;

	assert_int_equal(read(f->sessions[0], &s, sizeof(s)), sizeof(s));
	assert_int_equal(s.uid, geteuid());
	*session = s.fd;
	put(s.fd, "hello"); /* the agent speaks at once */
	expect(program, "OK\nhello");
	return program;
}

static void test_through(void **state)
{
	int session, program = through(*state, &session);

	put(program, "question");
	expect(session, "question");
	/* Half-close goes through, the other direction lives on. */
	shutdown(program, SHUT_WR);
	expect_end(session);
	put(session, "answer");
	expect(program, "answer");
	close(session);
	expect_end(program);
	close(program);
}

/* By its address a VM is reached as well. */
static void test_by_address(void **state)
{
	struct fixture *f = *state;
	int program = ask(f, SELF);
	struct session s;

	assert_int_equal(read(f->sessions[0], &s, sizeof(s)), sizeof(s));
	expect(program, "OK\n");
	close(s.fd);
	close(program);
}

static void test_program_dies(void **state)
{
	int session, program = through(*state, &session);

	close(program);
	expect_end(session);
	close(session);
}

static void test_refused(void **state)
{
	struct fixture *f = *state;
	static const struct {
		const char *request, *answer;
	} rows[] = {
		{"{\"version\":1,\"host\":\"c\"}\n", "ERROR no VM c is in this network"},
		{"{\"version\":1,\"host\":\"foreign\"}\n", "ERROR no VM foreign is in this"},
		{"{\"version\":1,\"host\":\"127.0.0.9\"}\n", "ERROR no VM 127.0.0.9 is in this"},
		{"{\"version\":1,\"host\":\"nobody\"}\n",
		 "ERROR cannot connect to the agent of the VM: Connection refused\n"},
		{"{\"version\":2,\"host\":\"b\"}\n", "ERROR the request is not"},
		{"GET / HTTP/1.0\n", "ERROR the request is not"},
		{"{\"version\":1,\"host\":7}\n", "ERROR the request is not"},
	};

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		int program = io_unix_connect(f->path, NULL);

		put(program, rows[i].request);
		expect(program, rows[i].answer);
		close(program);
	}
}

static void test_long_line(void **state)
{
	struct fixture *f = *state;
	int program = io_unix_connect(f->path, NULL);
	char line[600];

	memset(line, 'x', sizeof(line));
	assert_int_equal(io_write_full(program, line, sizeof(line)), 0);
	expect(program, "ERROR no request line\n");
	close(program);
}

/* A socket of an address and port, which listens or connects to the peers' half. */
static int tcp_socket(const char *address, uint16_t port, bool listens)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(PROTO_RELAY_PORT)};
	int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;

	inet_pton(AF_INET, address, &at.sin_addr);
	inet_pton(AF_INET, SELF, &to.sin_addr);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	if (listens)
		assert_int_equal(listen(fd, 8), 0);
	else
		assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
	return fd;
}

/* What a VM answers that is no agent, or one that refuses. */
static void test_hostile_target(void **state)
{
	static const struct {
		const char *answer, *told;
	} rows[] = {
		{"", "ERROR the agent of the VM does not answer\n"},
		{"SSH-2.0-x\n", "ERROR the agent of the VM does not answer\n"},
		{"ERROR go \033[2Jaway\n", "ERROR go ?[2Jaway\n"},
	};
	int target = tcp_socket("127.0.0.4", PROTO_RELAY_PORT, true);

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		int program = ask(*state, "mute"), fd = accept(target, NULL, NULL);
		char line[64];

		snprintf(line, sizeof(line), "{\"version\":1,\"user\":%u}\n", geteuid());
		expect(fd, line);
		put(fd, rows[i].answer);
		close(fd);
		expect(program, rows[i].told);
		expect_end(program);
		close(program);
	}
	close(target);
}

/* Who is neither root of a VM of this network nor speaks as one is not heard. */
static void test_hostile_peer(void **state)
{
	static const struct {
		const char *from;
		uint16_t port;
		const char *line, *answer;
	} rows[] = {
		{"127.0.0.2", 40000, NULL, "ERROR port 40000 is not one of root's\n"},
		{"127.0.0.9", 999, NULL, "ERROR 127.0.0.9 is no VM of this network\n"},
		{"127.0.0.2", 999, "GET / HTTP/1.0\n", "ERROR the first line is not"},
		{"127.0.0.2", 998, "{\"version\":2,\"user\":0}\n", "ERROR the first line is not"},
		{"127.0.0.2", 997, "{\"version\":1}\n", "ERROR the first line is not"},
		{"127.0.0.2", 996, "{\"version\":1,\"user\":-1}\n", "ERROR the first line is not"},
		{"127.0.0.2", 995, "{\"version\":1,\"user\":4294967295}\n",
		 "ERROR the first line is not"},
		{"127.0.0.2", 994, "{\"version\":1,\"user\":0}\nmore",
		 "ERROR the first line is none"},
	};

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		int fd = tcp_socket(rows[i].from, rows[i].port, false);

		if (rows[i].line)
			put(fd, rows[i].line);
		expect(fd, rows[i].answer);
		close(fd);
	}
	test_through(state);
}

/* A user's number is believed of root, and handed on. */
static void test_user(void **state)
{
	struct fixture *f = *state;
	int fd = tcp_socket("127.0.0.2", 999, false);
	struct session s;

	put(fd, "{\"version\":1,");
	usleep(10000);
	put(fd, "\"user\":54321}\n");
	assert_int_equal(read(f->sessions[0], &s, sizeof(s)), sizeof(s));
	assert_int_equal(s.uid, 54321);
	expect(fd, "OK\n");
	close(s.fd);
	close(fd);
}

/* A target that reads nothing stops the program, not the relay; then everything arrives. */
static void test_backpressure(void **state)
{
	int session, program = through(*state, &session);
	uint64_t sent = 0, got = 0, wakeups;
	char buf[65536];
	struct fixture *f = *state;
	int session2, program2;
	ssize_t n;

	memset(buf, 'y', sizeof(buf));
	for (;;) {
		struct pollfd p = {.fd = program, .events = POLLOUT};

		if (poll(&p, 1, 200) <= 0)
			break;
		n = send(program, buf, sizeof(buf), MSG_DONTWAIT);
		if (n > 0)
			sent += (uint64_t)n;
		assert_true(sent < 64u << 20);
	}
	program2 = through(f, &session2);
	put(program2, "x");
	expect(session2, "x");
	close(program2);
	close(session2);
	/* The program goes while its bytes still wait: nobody spins over that. */
	close(program);
	usleep(50000);
	wakeups = loop_wakeups(f->loop);
	usleep(200000);
	assert_true(loop_wakeups(f->loop) - wakeups < 10);
	for (;;) {
		struct pollfd p = {.fd = session, .events = POLLIN};

		assert_int_equal(poll(&p, 1, 10000), 1);
		n = recv(session, buf, sizeof(buf), MSG_DONTWAIT);
		if (n < 0 && errno == EAGAIN)
			continue;
		if (n <= 0)
			break;
		got += (uint64_t)n;
	}
	assert_int_equal(got, sent);
	close(session);
}

/* A quarter of the descriptors, as other things need some too. */
static void test_too_many(void **state)
{
	struct rlimit old, few = {.rlim_cur = 256, .rlim_max = RLIM_INFINITY};
	struct fixture *f = *state;
	int programs[65];

	getrlimit(RLIMIT_NOFILE, &old);
	few.rlim_max = old.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	for (unsigned i = 0; i < 65; i++) {
		programs[i] = io_unix_connect(f->path, NULL);
		assert_true(programs[i] >= 0);
	}
	expect(programs[64], "ERROR too many connections\n");
	for (unsigned i = 0; i < 65; i++)
		close(programs[i]);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	usleep(100000);
	test_through(state);
}

/* Many at once by one port each: ports are not used up by other VMs' connections. */
static void test_many_sessions(void **state)
{
	enum { COUNT = 300 };
	int programs[COUNT], sessions[COUNT];

	for (unsigned i = 0; i < COUNT; i++)
		programs[i] = through(*state, &sessions[i]);
	for (unsigned i = 0; i < COUNT; i++) {
		close(programs[i]);
		close(sessions[i]);
	}
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

/* A network of its own, in which this process is root. */
static int enter_network(void)
{
	struct ifreq ifr = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	int fd;

	if (unshare(geteuid() ? CLONE_NEWUSER | CLONE_NEWNET : CLONE_NEWNET) < 0)
		return -errno;
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &ifr) < 0)
		return -errno;
	return close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_through),	 TEST(test_by_address),	   TEST(test_program_dies),
		TEST(test_refused),	 TEST(test_long_line),	   TEST(test_hostile_target),
		TEST(test_hostile_peer), TEST(test_user),	   TEST(test_backpressure),
		TEST(test_too_many),	 TEST(test_many_sessions),
	};
	int r = enter_network();

	if (r) {
		printf("1..0 # SKIP no network namespace: %s\n", strerror(-r));
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
