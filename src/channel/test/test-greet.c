/* SPDX-License-Identifier: Apache-2.0 */
/* Greetings by the kernel, by a key and by MUNGE (a daemon of our own), and all that goes wrong. */

#include "channel/test/ends.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "channel/credential.h"
#include "channel/greet.h"
#include "channel/tls.h"
#include "lib/cleanup.h"

static const uint8_t cluster[40] = "a key that is as long as it has to be";
static const uint8_t other[40] = "another one that is as long as it may be";

struct side {
	bool done;
	int code;
	char reason[600];
	struct greet_peer peer;
	struct greet *greet;
};

struct fixture {
	struct loop *loop;
	struct side a, b; /* b is called */
	int fd[2];
	struct credentials *credentials;
	char folder[32], socket[64];
	pid_t munged;
};

static void on_done(void *arg, int code, const char *reason, const struct greet_peer *peer)
{
	struct side *s = arg;

	assert_false(s->done);
	s->done = true;
	s->code = code;
	snprintf(s->reason, sizeof(s->reason), "%s", reason);
	if (peer)
		s->peer = *peer;
	s->greet = NULL;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	signal(SIGPIPE, SIG_IGN);
	f->fd[0] = f->fd[1] = -1;
	*state = f;
	return loop_create(&f->loop);
}

static void hang_up(struct fixture *f)
{
	struct side *sides[2] = {&f->a, &f->b};

	for (unsigned i = 0; i < 2; i++) {
		greet_cancel(sides[i]->greet);
		tls_destroy(sides[i]->peer.tls);
		*sides[i] = (struct side){0};
		if (f->fd[i] >= 0)
			close(f->fd[i]);
		f->fd[i] = -1;
	}
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	char command[64];

	hang_up(f);
	credentials_destroy(f->credentials);
	if (f->munged) {
		kill(f->munged, SIGTERM);
		waitpid(f->munged, NULL, 0);
	}
	if (f->folder[0]) {
		snprintf(command, sizeof(command), "rm -rf %s", f->folder);
		if (system(command))
			fprintf(stderr, "%s is left\n", f->folder);
	}
	loop_destroy(f->loop);
	free(f);
	return 0;
}

static void dial(struct fixture *f)
{
	hang_up(f);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, f->fd), 0);
}

static struct greet_params params(struct fixture *f, bool called, enum greet_way way)
{
	return (struct greet_params){.loop = f->loop,
				     .in = f->fd[called],
				     .out = f->fd[called],
				     .called = called,
				     .way = way,
				     .self = called ? "n7" : "n1",
				     .node = called ? NULL : "n7",
				     .credentials = f->credentials,
				     .daemon = getuid(),
				     .key = cluster,
				     .nkey = sizeof(cluster),
				     .timeout_ms = 3000};
}

static void start(struct side *s, const struct greet_params *p)
{
	struct error err = {{0}};

	if (greet_start(p, on_done, s, &s->greet, &err))
		fail_msg("%s", err.text);
}

static void both(struct fixture *f, struct greet_params a, struct greet_params b)
{
	start(&f->a, &a);
	start(&f->b, &b);
	RUN_UNTIL(f->loop, f->a.done && f->b.done);
}

static void well(const struct fixture *f)
{
	if (f->a.code || f->b.code)
		fail_msg("%s; %s", f->a.reason, f->b.reason);
	assert_string_equal(f->a.peer.node, "n7");
	assert_string_equal(f->b.peer.node, "n1");
}

static void test_local(void **state)
{
	struct fixture *f = *state;

	dial(f);
	both(f, params(f, false, GREET_LOCAL), params(f, true, GREET_LOCAL));
	well(f);
	assert_true(f->b.peer.has_uid && f->b.peer.uid == getuid());
	assert_int_equal(f->b.peer.how, GREET_LOCAL);
	assert_null(f->a.peer.tls);
}

static void test_pipes(void **state)
{
	struct fixture *f = *state;
	int down[2], up[2];
	struct greet_params a, b;

	assert_int_equal(pipe(down), 0);
	assert_int_equal(pipe(up), 0);
	a = params(f, false, GREET_LAUNCHED);
	b = params(f, true, GREET_LAUNCHED);
	a.in = up[0];
	a.out = down[1];
	b.in = down[0];
	b.out = up[1];
	both(f, a, b);
	well(f);
	assert_false(f->b.peer.has_uid);
	for (unsigned i = 0; i < 2; i++) {
		close(up[i]);
		close(down[i]);
	}
}

/* What follows a greeting goes by its TLS, also what was sent at once. */
static void test_key(void **state)
{
	struct fixture *f = *state;
	struct end a = {0}, b = {0};
	struct conn_params p = {.loop = f->loop, .ops = &end_ops};
	json_t *m = json_pack("{s:s}", "op", "x");

	dial(f);
	both(f, params(f, false, GREET_KEY), params(f, true, GREET_REMOTE));
	well(f);
	assert_int_equal(f->b.peer.how, GREET_KEY);
	assert_non_null(f->a.peer.tls);
	p.arg = &a;
	p.in = p.out = f->fd[0];
	p.tls = f->a.peer.tls;
	assert_int_equal(conn_create(&p, &a.conn, NULL), 0);
	assert_int_equal(conn_send(a.conn, m, NULL), 0);
	p.arg = &b;
	p.in = p.out = f->fd[1];
	p.tls = f->b.peer.tls;
	assert_int_equal(conn_create(&p, &b.conn, NULL), 0);
	RUN_UNTIL(f->loop, b.messages == 1);
	json_decref(m);
	end_done(&a);
	end_done(&b);
	f->fd[0] = f->fd[1] = -1;
	f->a.peer.tls = f->b.peer.tls = NULL;
}

static void test_wrong_key(void **state)
{
	struct fixture *f = *state;
	struct greet_params a, b;

	dial(f);
	a = params(f, false, GREET_KEY);
	b = params(f, true, GREET_REMOTE);
	b.key = other;
	both(f, a, b);
	assert_int_equal(f->a.code, -EACCES);
	assert_int_equal(f->b.code, -EACCES);
	assert_non_null(strstr(f->a.reason, "not the same key"));
}

/* Nothing is known of the key of a daemon that is killed meanwhile. */
static void test_hung_up(void **state)
{
	static const char hello[] = "{\"wisp\": 1, \"node\": \"n7\", \"nonce\": \""
				    "00112233445566778899aabbccddeeff"
				    "00112233445566778899aabbccddeeff\"}";
	const uint8_t head[] = {0, 0, 0, sizeof(hello), 1};
	struct fixture *f = *state;
	struct greet_params a;

	dial(f);
	a = params(f, false, GREET_KEY);
	start(&f->a, &a);
	assert_int_equal(write(f->fd[1], head, sizeof(head)), sizeof(head));
	assert_int_equal(write(f->fd[1], hello, sizeof(hello) - 1), sizeof(hello) - 1);
	assert_int_equal(shutdown(f->fd[1], SHUT_WR), 0);
	RUN_UNTIL(f->loop, f->a.done);
	assert_int_equal(f->a.code, -ECONNRESET);
	assert_non_null(strstr(f->a.reason, "it hung up"));
	assert_null(strstr(f->a.reason, "same key"));
}

static void test_no_key(void **state)
{
	struct fixture *f = *state;
	struct greet_params a, b;

	dial(f);
	a = params(f, false, GREET_KEY);
	b = params(f, true, GREET_REMOTE);
	b.nkey = 0;
	both(f, a, b);
	assert_int_equal(f->a.code, -ENOTSUP);
	assert_int_equal(f->b.code, -ENOTSUP);
	assert_non_null(strstr(f->a.reason, "no key of a cluster"));
}

/* The name is what the caller wanted, or it ends. */
static void test_wrong_node(void **state)
{
	struct fixture *f = *state;
	struct greet_params a;

	dial(f);
	a = params(f, false, GREET_KEY);
	a.node = "n8";
	start(&f->a, &a);
	a = params(f, true, GREET_REMOTE);
	start(&f->b, &a);
	RUN_UNTIL(f->loop, f->a.done);
	assert_int_equal(f->a.code, -EACCES);
	assert_non_null(strstr(f->a.reason, "n8"));
	shutdown(f->fd[0], SHUT_RDWR);
	RUN_UNTIL(f->loop, f->b.done);
	assert_true(f->b.code < 0);
}

static void test_bad_params(void **state)
{
	struct fixture *f = *state;
	struct greet_params p;
	struct error err;

	dial(f);
	p = params(f, false, GREET_KEY);
	p.node = NULL;
	assert_int_equal(greet_start(&p, on_done, &f->a, &f->a.greet, &err), -EINVAL);
	p = params(f, false, GREET_KEY);
	p.nkey = 31;
	assert_int_equal(greet_start(&p, on_done, &f->a, &f->a.greet, &err), -EINVAL);
	p = params(f, false, GREET_MUNGE);
	assert_int_equal(greet_start(&p, on_done, &f->a, &f->a.greet, &err), -EINVAL);
	p = params(f, false, GREET_LOCAL);
	p.self = "";
	assert_int_equal(greet_start(&p, on_done, &f->a, &f->a.greet, &err), -EINVAL);
}

static void send_raw(struct fixture *f, const void *bytes, size_t n)
{
	assert_int_equal(send(f->fd[0], bytes, n, MSG_NOSIGNAL), n);
}

static uint8_t *frame_of(const char *text, size_t *n)
{
	json_t *m = json_loads(text, 0, NULL);
	uint8_t *p;

	assert_non_null(m);
	assert_int_equal(frame_encode(m, FRAME_MAX, &p, n, NULL), 0);
	json_decref(m);
	return p;
}

#define CALL                                           \
	"{\"wisp\": 1, \"auth\": \"key\", \"nonce\": " \
	"\"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\"}"

/* Cut at each byte, also behind the frame where TLS has to come. */
static void test_cut(void **state)
{
	struct fixture *f = *state;
	size_t n;
	uint8_t *p = frame_of(CALL, &n);
	struct greet_params b;

	for (size_t cut = 0; cut <= n; cut++) {
		dial(f);
		b = params(f, true, GREET_REMOTE);
		start(&f->b, &b);
		send_raw(f, p, cut);
		loop_run_once(f->loop, 0);
		close(take_fd(&f->fd[0]));
		RUN_UNTIL(f->loop, f->b.done);
		assert_true(f->b.code < 0);
		assert_string_not_equal(f->b.reason, "");
	}
	free(p);
}

static void refused(struct fixture *f, const void *bytes, size_t n)
{
	struct greet_params b;

	dial(f);
	b = params(f, true, GREET_REMOTE);
	start(&f->b, &b);
	send_raw(f, bytes, n);
	RUN_UNTIL(f->loop, f->b.done);
	assert_true(f->b.code < 0 && f->b.code != -ETIMEDOUT);
	assert_null(f->b.peer.tls);
}

static void refused_text(struct fixture *f, const char *text)
{
	size_t n;
	uint8_t *p = frame_of(text, &n);

	refused(f, p, n);
	free(p);
}

static void test_nonsense(void **state)
{
	struct fixture *f = *state;
	uint8_t random[512];
	size_t n;
	uint8_t *p = frame_of(CALL, &n);

	refused(f, "GET / HTTP/1.1\r\n\r\n", 18);
	refused(f, "\0\0\x20\x01", 4);
	refused(f, "\0\0\0\0", 4);
	refused(f, "\0\0\0\1\3", 5);
	refused(f, "\0\0\0\6\2\0\0\0\1x", 10);
	refused(f, "\0\0\0\3\1{x", 7);
	refused_text(f, "{\"wisp\": 2, \"auth\": \"key\"}");
	refused_text(f, "{\"auth\": \"key\"}");
	refused_text(f, "{\"wisp\": 1}");
	refused_text(f, "{\"wisp\": 1, \"auth\": \"none\"}");
	refused_text(f, "{\"wisp\": 1, \"auth\": \"key\", \"nonce\": \"00\"}");
	refused_text(f, "{\"wisp\": 1, \"auth\": \"key\", \"nonce\": 5}");
	refused_text(f, "{\"wisp\": 1, \"auth\": \"munge\", \"credential\": \"MUNGE:x\"}");
	refused_text(f, "{\"wisp\": 1, \"errno\": 13, \"error\": \"no\"}");
	refused_text(f, "{\"wisp\": 1, \"errno\": 11, \"error\": \"wait\"}");
	/* No TLS behind a call that was right. */
	memset(random, 0x41, sizeof(random));
	memcpy(random, p, n);
	refused(f, random, sizeof(random));
	free(p);
}

static void test_silent(void **state)
{
	struct fixture *f = *state;
	struct greet_params b;

	dial(f);
	b = params(f, true, GREET_REMOTE);
	b.timeout_ms = 100;
	start(&f->b, &b);
	RUN_UNTIL(f->loop, f->b.done);
	assert_int_equal(f->b.code, -ETIMEDOUT);
}

/* -------- MUNGE -------- */

static void make_folder(struct fixture *f)
{
	strcpy(f->folder, "/tmp/wisp-greet-XXXXXX");
	assert_non_null(mkdtemp(f->folder));
	assert_int_equal(chmod(f->folder, 0755), 0);
	snprintf(f->socket, sizeof(f->socket), "%s/socket", f->folder);
}

/* Its daemon hangs: the greeting ends in its time, and so many threads wait and no more. */
static void test_munge_hangs(void **state)
{
	struct fixture *f = *state;
	struct credential_job *job[CREDENTIAL_JOBS + 1];
	struct greet_params a;
	struct error err;
	unsigned n = 0;
	int fd, rc = 0;

	make_folder(f);
	fd = io_unix_listen(f->socket, &err);
	assert_true(fd >= 0);
	assert_int_equal(credentials_create(f->socket, &f->credentials, NULL), 0);
	dial(f);
	a = params(f, false, GREET_MUNGE);
	a.timeout_ms = 200;
	start(&f->a, &a);
	RUN_UNTIL(f->loop, f->a.done);
	if (f->a.code == -ENOTSUP) {
		close(fd);
		skip();
	}
	assert_int_equal(f->a.code, -ETIMEDOUT);
	while (n <= CREDENTIAL_JOBS && rc == 0) {
		rc = credential_encode(f->credentials, "x", 1, 0, &job[n], &err);
		n += rc == 0;
	}
	assert_int_equal(rc, -EBUSY);
	assert_int_equal(n, CREDENTIAL_JOBS - 1);
	while (n)
		credential_drop(&job[--n]);
	close(fd);
}

static bool start_munged(struct fixture *f)
{
	char key[64], text[6][96];
	FILE *file;

	if (access("/usr/sbin/munged", X_OK))
		return false;
	make_folder(f);
	snprintf(key, sizeof(key), "%s/key", f->folder);
	file = fopen(key, "w");
	for (unsigned i = 0; i < 64; i++)
		fputc('a' + (int)i % 26, file);
	fclose(file);
	chmod(key, 0600);
	snprintf(text[0], sizeof(text[0]), "--socket=%s", f->socket);
	snprintf(text[1], sizeof(text[1]), "--key-file=%s", key);
	snprintf(text[2], sizeof(text[2]), "--pid-file=%s/pid", f->folder);
	snprintf(text[3], sizeof(text[3]), "--seed-file=%s/seed", f->folder);
	snprintf(text[4], sizeof(text[4]), "--log-file=%s/log", f->folder);
	f->munged = fork();
	if (!f->munged) {
		int null = open("/dev/null", O_RDWR);

		dup2(null, 1);
		dup2(null, 2);
		execl("/usr/sbin/munged", "munged", "--foreground", "--force", text[0], text[1],
		      text[2], text[3], text[4], NULL);
		_exit(127);
	}
	for (unsigned i = 0; i < 500 && access(f->socket, F_OK); i++)
		usleep(20000);
	assert_int_equal(credentials_create(f->socket, &f->credentials, NULL), 0);
	return true;
}

/* NULL: this Wisp knows no MUNGE. */
static char *credential_of(struct fixture *f, const char *payload, size_t n)
{
	const struct credential *c;
	struct credential_job *job;
	struct error err = {{0}};
	char *text;
	int rc;

	assert_int_equal(credential_encode(f->credentials, payload, n, getuid(), &job, &err), 0);
	while ((rc = credential_result(job, &c, &err)) == -EAGAIN)
		usleep(1000);
	if (rc < 0 && rc != -ENOTSUP)
		fail_msg("%s", err.text);
	text = rc < 0 ? NULL
		      : io_format("{\"wisp\": 1, \"auth\": \"munge\", \"credential\": \"%s\"}",
				  c->text);
	credential_drop(&job);
	return text;
}

static void expect_refusal(struct fixture *f, const char *text, const char *why)
{
	refused_text(f, text);
	if (!strstr(f->b.reason, why))
		fail_msg("%s", f->b.reason);
}

static void test_munge(void **state)
{
	static const char right[] = "wisp node 1\nn7\n0123456789abcdef0123456789abcdef";
	static const char wrong[] = "wisp node 1\nn8\n0123456789abcdef0123456789abcdef";
	static const char foreign[] = "0123456789abcdef0123456789abcdef0123456789abcdef";
	struct fixture *f = *state;
	struct greet_params b;
	char *text, *bad;
	size_t n;
	uint8_t *p;

	if (!start_munged(f))
		skip();
	text = credential_of(f, right, sizeof(right) - 1);
	if (!text)
		skip();
	dial(f);
	both(f, params(f, false, GREET_MUNGE), params(f, true, GREET_REMOTE));
	well(f);
	assert_int_equal(f->b.peer.how, GREET_MUNGE);
	assert_true(f->b.peer.has_uid && f->b.peer.uid == getuid());
	/* Once it is taken, and then it wants TLS; the second time it is not. */
	dial(f);
	b = params(f, true, GREET_REMOTE);
	start(&f->b, &b);
	p = frame_of(text, &n);
	send_raw(f, p, n);
	run_for(f->loop, 300);
	assert_false(f->b.done);
	free(p);
	expect_refusal(f, text, "eplayed");
	free(text);
	bad = credential_of(f, wrong, sizeof(wrong) - 1);
	expect_refusal(f, bad, "another node");
	free(bad);
	bad = credential_of(f, foreign, sizeof(foreign) - 1);
	expect_refusal(f, bad, "not for Wisp's nodes");
	free(bad);
	expect_refusal(f, "{\"wisp\": 1, \"auth\": \"munge\", \"credential\": \"MUNGE:AAAA:\"}",
		       "MUNGE");
	expect_refusal(f, "{\"wisp\": 1, \"auth\": \"munge\"}", "MUNGE");
}

/* There is none: the caller hears what to do. */
static void test_no_munged(void **state)
{
	struct fixture *f = *state;
	struct greet_params a;

	make_folder(f);
	assert_int_equal(credentials_create(f->socket, &f->credentials, NULL), 0);
	dial(f);
	a = params(f, false, GREET_MUNGE);
	a.timeout_ms = 15000;
	start(&f->a, &a);
	RUN_UNTIL(f->loop, f->a.done);
	assert_true(f->a.code == -ENOTCONN || f->a.code == -ENOTSUP);
	assert_non_null(strstr(f->a.reason, "key of the cluster"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_local),      TEST(test_pipes),      TEST(test_key),
		TEST(test_hung_up),    TEST(test_wrong_key),  TEST(test_no_key),
		TEST(test_wrong_node), TEST(test_bad_params), TEST(test_cut),
		TEST(test_nonsense),   TEST(test_silent),     TEST(test_munge_hangs),
		TEST(test_munge),      TEST(test_no_munged),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
