/* SPDX-License-Identifier: Apache-2.0 */
/* A daemon of a made-up machine in a process of its own, and those who ask it, over its socket. */

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "env/result.h"
#include "env/waiver.h"
#include "lib/error.h"
#include "lib/log.h"
#include "lib/loop.h"
#include "node/ask.h"
#include "node/daemon.h"
#include "node/store.h"
#include "node/test/made.h"
#include "node/topology.h"

#define GRACE 1
#define NOBODY 65534
#define SECRET "a secret of sixteen bytes or more"
#define DOCUMENT "cpus: 2\nmemory: 64M\ndedicated: yes\n"

struct machine {
	char *socket, *database, *policy, *keys;
	pid_t pid;
};

/* -------- the daemon's process -------- */

static void serve(const struct machine *n, int ready)
{
	struct topology_source source = {.synthetic = "pack:1 numa:1 core:4 pu:2"};
	struct daemon_params p = {.socket = n->socket,
				  .database = n->database,
				  .name = "n1",
				  .labels = json_array(),
				  .admit = {.policy = n->policy, .keys = n->keys},
				  .root = "/nowhere",
				  .cgroups = "/nowhere",
				  .everybody = true,
				  .operators = (gid_t)-1,
				  .grace = GRACE};
	struct daemon *d = NULL;
	struct error err = {""};
	struct log log;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGPIPE, SIG_IGN);
	log_init(&log, "n1", STDERR_FILENO, LOG_ERROR);
	p.log = &log;
	if (topology_read(&source, &p.topology, &err) || loop_create(&p.loop) ||
	    daemon_create(&p, &d, &err) || io_write_full(ready, "r", 1)) {
		fprintf(stderr, "%s\n", err.text);
		_exit(1);
	}
	loop_run(p.loop);
	_exit(1);
}

static void start(struct machine *n)
{
	int ready[2];
	char c;

	assert_int_equal(pipe(ready), 0);
	n->pid = fork();
	assert_true(n->pid >= 0);
	if (!n->pid) {
		close(ready[0]);
		serve(n, ready[1]);
	}
	close(ready[1]);
	assert_int_equal(io_read_full(ready[0], &c, 1), 0);
	close(ready[0]);
}

static void kill_it(struct machine *n)
{
	if (n->pid > 0) {
		kill(n->pid, SIGKILL);
		waitpid(n->pid, NULL, 0);
	}
	n->pid = 0;
}

static struct machine *node_new(void **state, const char *policy)
{
	struct machine *n = calloc(1, sizeof(*n));
	const char *root = *state;

	assert_int_equal(chmod(root, 0755), 0);
	n->socket = io_format("%s/socket", root);
	n->database = io_format("%s/node.db", root);
	n->keys = io_format("%s/keys", root);
	unlink(n->database);
	if (policy) {
		made_file(root, "/policy/site.yaml", policy);
		n->policy = io_format("%s/policy", root);
	}
	start(n);
	return n;
}

static void node_end(struct machine *n)
{
	kill_it(n);
	free(n->socket);
	free(n->database);
	free(n->policy);
	free(n->keys);
	free(n);
}

/* -------- asking -------- */

static struct ask *dial(const struct machine *n)
{
	struct ask *a = NULL;
	struct error err;

	if (ask_open(n->socket, &a, &err))
		fail_msg("%s", err.text);
	return a;
}

/* Takes the request. The code; *value may be NULL. */
static int say(struct ask *a, json_t *request, json_t **value, struct error *err)
{
	json_t *answer = NULL;
	int r;

	err->text[0] = 0;
	assert_non_null(request);
	r = ask(a, request, &answer, err);
	json_decref(request);
	if (value)
		*value = answer;
	else
		json_decref(answer);
	return r;
}

static void well(struct ask *a, json_t *request, json_t **value)
{
	struct error err;

	if (say(a, request, value, &err))
		fail_msg("%s", err.text);
}

/* The digest that a user's own wisp comes to, without policy. */
static void digest_of(const char *text, char ret[DIGEST_TEXT])
{
	struct documents docs = {0};
	struct args waived = {0};
	json_t *facts = json_object(), *closed;
	struct meet meet;

	documents_parse(&docs, text, strlen(text), "test", false);
	meet_documents(&docs, facts, &waived, &meet);
	closed = result_json(&meet);
	assert_int_equal(result_digest(closed, ret, NULL), 0);
	json_decref(closed);
	json_decref(facts);
	meet_done(&meet);
	documents_done(&docs);
}

static json_t *reserve(const char *cluster, const char *document, unsigned vms)
{
	json_t *list = json_array();
	char digest[DIGEST_TEXT];

	for (unsigned i = 0; i < vms; i++)
		json_array_append_new(list, json_pack("{s:o}", "name", json_sprintf("v%u", i)));
	digest_of(document, digest);
	return json_pack("{s:s, s:s, s:[{s:s, s:s}], s:s, s:o}", "op", "reserve", "cluster",
			 cluster, "documents", "name", "test", "text", document, "digest", digest,
			 "vms", list);
}

static void name_vms(json_t *request, const char *name)
{
	json_t *vm;
	size_t i;

	json_array_foreach (json_object_get(request, "vms"), i, vm)
		json_object_set_new(vm, "name", json_string(name));
}

/* Two documents that are too long together. */
static json_t *large(const char *cluster)
{
	json_t *request = reserve(cluster, DOCUMENT, 1);
	json_t *documents = json_object_get(request, "documents"), *document = json_object();
	char *text = malloc(600000);

	assert_non_null(text);
	memset(text, '#', 600000);
	json_object_set_new(document, "name", json_string("comments"));
	json_object_set_new(document, "text", json_stringn(text, 600000));
	json_array_append(documents, document);
	json_array_append_new(documents, document);
	free(text);
	return request;
}

static json_t *release(const char *cluster)
{
	return json_pack("{s:s, s:s}", "op", "release", "cluster", cluster);
}

static size_t listed(struct ask *a, bool all)
{
	json_t *list = NULL;
	size_t n;

	well(a, json_pack("{s:s, s:b}", "op", "list", "all", all), &list);
	n = json_array_size(json_object_get(list, "clusters"));
	json_decref(list);
	return n;
}

/* -------- tests -------- */

static void test_dispatch(void **state)
{
	struct machine *n = node_new(state, NULL);
	struct ask *a = dial(n);
	struct error err;
	json_t *v;

	well(a, json_pack("{s:s}", "op", "facts"), &v);
	assert_string_equal(json_string_value(json_object_get(v, "name")), "n1");
	assert_int_equal(
		json_integer_value(json_object_get(json_object_get(v, "topology"), "threads")), 8);
	json_decref(v);
	assert_int_equal(say(a, json_pack("{s:s}", "op", "fly"), NULL, &err), -ENOSYS);
	assert_non_null(strstr(err.text, "\"fly\""));
	assert_int_equal(say(a, json_pack("{s:i}", "op", 7), NULL, &err), -ENOSYS);
	assert_int_equal(say(a, json_pack("{s:s}", "op", "release"), NULL, &err), -EINVAL);
	assert_int_equal(say(a, json_pack("{s:s}", "op", "reserve"), NULL, &err), -EINVAL);
	well(a, json_pack("{s:s}", "op", "account"), NULL);
	well(a, json_pack("{s:s}", "op", "metrics"), &v);
	assert_non_null(strstr(json_string_value(json_object_get(v, "text")), "wisp_vms 0\n"));
	json_decref(v);
	ask_close(a);
	node_end(n);
}

static void test_reserve(void **state)
{
	struct machine *n = node_new(state, NULL);
	struct ask *a = dial(n);
	struct error err;
	json_t *v, *wrong;

	well(a, reserve("a-1", DOCUMENT, 1), &v);
	assert_string_equal(json_string_value(json_object_get(
				    json_object_get(json_object_get(v, "grants"), "v0"), "cpus")),
			    "0-1");
	json_decref(v);
	assert_int_equal(say(a, reserve("a-1", DOCUMENT, 1), NULL, &err), -EEXIST);
	/* One VM on one node is what the environment says when nobody says more. */
	assert_int_equal(say(a, reserve("a-2", DOCUMENT, 2), NULL, &err), -EPERM);
	assert_non_null(strstr(err.text, "vms-per-node"));
	/* Also one after the other, and whatever may be on each node there are no more in all. */
	wrong = reserve("a-1", DOCUMENT, 1);
	name_vms(wrong, "v7");
	assert_int_equal(say(a, wrong, NULL, &err), -EPERM);
	assert_non_null(strstr(err.text, "2 VMs on one node"));
	assert_int_equal(say(a, reserve("a-2", DOCUMENT "vms-per-node: 2\n", 2), NULL, &err),
			 -EPERM);
	assert_non_null(strstr(err.text, "more than vms (1)"));
	assert_int_equal(say(a, reserve("a-2", DOCUMENT "node: {type: io}\n", 1), NULL, &err),
			 -EPERM);
	assert_non_null(strstr(err.text, "node.type is io, and this node's is not known"));
	assert_int_equal(say(a, reserve("a-2", DOCUMENT "node: {labels: [gpu]}\n", 1), NULL, &err),
			 -EPERM);
	assert_non_null(strstr(err.text, "has no label gpu"));
	assert_int_equal(
		say(a, reserve("a-2", "cpus: 8\ndedicated: yes\nmemory: 64M\n", 1), &v, &err),
		-EBUSY);
	assert_int_equal(json_array_size(json_object_get(v, "missing")), 1);
	json_decref(v);
	/* Two vCPUs that are pinned to cores get two of them, with all their threads. */
	well(a, reserve("a-2", DOCUMENT "pinning: cores\n", 1), &v);
	assert_string_equal(json_string_value(json_object_get(
				    json_object_get(json_object_get(v, "grants"), "v0"), "cpus")),
			    "2-5");
	json_decref(v);
	well(a, release("a-2"), NULL);
	wrong = reserve("a-3", DOCUMENT, 1);
	json_object_set_new(wrong, "digest", json_string("0123456789abcdef"));
	assert_int_equal(say(a, wrong, NULL, &err), -ESTALE);
	assert_non_null(strstr(err.text, "0123456789ab"));
	wrong = reserve("a-3", DOCUMENT, 1);
	json_object_set_new(wrong, "facts", json_pack("{s:s}", "user", "root"));
	assert_int_equal(say(a, wrong, NULL, &err), -EPERM);
	assert_int_equal(say(a, reserve("a-3", "cpus: many\n", 1), NULL, &err), -EINVAL);
	assert_int_equal(say(a, large("a-3"), NULL, &err), -E2BIG);
	assert_int_equal(say(a, reserve("a-3", "network: {isolated: no}\n", 1), NULL, &err),
			 -EPERM);
	assert_non_null(strstr(err.text, "root's wispd"));
	assert_int_equal(say(a, reserve("a-3", "network: {kind: macvtap}\n", 1), NULL, &err),
			 -EPERM);
	assert_non_null(strstr(err.text, "network.kind: macvtap takes root's wispd"));
	/* What this Wisp cannot do is refused before anything is reserved. */
	assert_int_equal(say(a, reserve("a-3", "network: {vlan: 7}\n", 1), NULL, &err), -EBADE);
	assert_non_null(strstr(err.text, "network.vlan: it is of network.kind: macvtap alone"));
	assert_int_equal(
		say(a, reserve("a-3", "network: {kind: macvtap, isolated: no}\n", 1), NULL, &err),
		-EOPNOTSUPP);
	assert_non_null(strstr(err.text, "network.isolated: no is"));
	assert_int_equal(say(a, reserve("a-3", "devices: [\"vf:none0\"]\n", 1), NULL, &err),
			 -ENODEV);
	assert_non_null(strstr(err.text, "vf:none0"));
	assert_int_equal(listed(a, false), 1);
	well(a, release("a-1"), NULL);
	well(a, release("a-1"), NULL);
	assert_int_equal(listed(a, false), 0);
	ask_close(a);
	node_end(n);
}

static void test_policy(void **state)
{
	struct machine *n =
		node_new(state, "rule: small\nbecause: many share this node\ncpus: ..1\n");
	struct ask *a = dial(n);
	struct error err;
	json_t *v, *first;

	assert_int_equal(say(a, reserve("a-1", DOCUMENT, 1), &v, &err), -EBADE);
	assert_non_null(strstr(err.text, "cpus"));
	first = json_array_get(json_object_get(v, "conflicts"), 0);
	assert_string_equal(json_string_value(json_object_get(first, "field")), "cpus");
	assert_int_equal(json_array_size(json_object_get(first, "constraints")), 2);
	json_decref(v);
	assert_int_equal(listed(a, false), 0);
	ask_close(a);
	node_end(n);
}

/* A key in the site's folder and its private half in *ret. */
static void make_key(const char *root, char **ret)
{
	CLEANUP_FREE char *command =
		io_format("mkdir %s/keys && openssl genpkey -algorithm ed25519 "
			  "-out %s/key 2>/dev/null && openssl pkey -in %s/key "
			  "-pubout -out %s/keys/site.pub",
			  root, root, root, root);

	assert_int_equal(system(command), 0);
	*ret = io_format("%s/key", root);
}

static json_t *with_waiver(char *rule, const char *key)
{
	char because[] = "a campaign";
	struct waiver w = {.rule = rule,
			   .user = getpwuid(geteuid())->pw_name,
			   .because = because,
			   .until = 4070908800};
	json_t *request = reserve("a-1", DOCUMENT, 1);
	CLEANUP_FREE char *text = NULL;
	struct error err;

	if (waiver_sign(&w, key, &text, &err))
		fail_msg("%s", err.text);
	json_object_set_new(request, "waivers", json_pack("[s]", text));
	return request;
}

static int take_text(const struct store_row *row, void *arg)
{
	snprintf(arg, 256, "%s", store_text(row, 0));
	return 0;
}

/* Who is let off a rule is written down by the daemon, which looks at the waiver itself. */
static void test_waiver(void **state)
{
	const char *root = *state;
	CLEANUP_FREE char *key = NULL;
	char text[256] = "", other[] = "other", small[] = "small";
	struct machine *n;
	struct store *store = NULL;
	struct error err;
	struct ask *a;
	json_t *wrong;

	make_key(root, &key);
	n = node_new(state, "rule: small\ncpus: ..1\n");
	a = dial(n);
	assert_int_equal(say(a, with_waiver(other, key), NULL, &err), -EINVAL);
	assert_non_null(strstr(err.text, "rule other, which is not in the policy"));
	wrong = reserve("a-1", DOCUMENT, 1);
	json_object_set_new(wrong, "waivers", json_pack("[s]", "wisp-waiver 1\nrule: small\n"));
	assert_true(say(a, wrong, NULL, &err) < 0);
	assert_int_equal(listed(a, false), 0);
	well(a, with_waiver(small, key), NULL);
	ask_close(a);
	kill_it(n);
	assert_int_equal(store_open(n->database, &store, &err), 0);
	assert_int_equal(store_each(store, take_text, text, &err,
				    "SELECT text FROM event WHERE what = 'waived'", ""),
			 0);
	store_close(store);
	assert_non_null(strstr(text, "rule small, for "));
	assert_non_null(strstr(text, "until 4070908800: a campaign"));
	node_end(n);
}

/* What the store has of how often the cluster is to be saved, after it was reserved with that. */
static void expect_every(void **state, const char *policy, const char *wanted)
{
	struct machine *n = node_new(state, policy);
	struct store *store = NULL;
	struct ask *a = dial(n);
	char text[256] = "";
	struct error err;

	well(a, reserve("a-1", DOCUMENT "checkpoint: {interval: 30m}\n", 1), NULL);
	ask_close(a);
	kill_it(n);
	assert_int_equal(store_open(n->database, &store, &err), 0);
	assert_int_equal(store_each(store, take_text, text, &err,
				    "SELECT coalesce(save_every, 'nobody') FROM cluster", ""),
			 0);
	store_close(store);
	assert_string_equal(text, wanted);
	node_end(n);
}

/* Who wants checkpoints alone may do without; whom a rule tells to make them may not. */
static void test_save_every(void **state)
{
	expect_every(state, NULL, "nobody");
	expect_every(state, "rule: often\nwarn: yes\ncheckpoint: {interval: ..1h}\n", "nobody");
	expect_every(state, "rule: often\ncheckpoint: {interval: ..1h}\n", "1800");
}

static void test_drain(void **state)
{
	struct machine *n = node_new(state, NULL);
	struct ask *a = dial(n);
	struct error err;

	assert_int_equal(say(a, json_pack("{s:s}", "op", "drain"), NULL, &err), -EINVAL);
	well(a, json_pack("{s:s, s:s}", "op", "drain", "because", "a fan is loud"), NULL);
	ask_close(a);
	kill_it(n);
	start(n);
	a = dial(n);
	assert_int_equal(say(a, reserve("a-1", DOCUMENT, 1), NULL, &err), -EAGAIN);
	assert_non_null(strstr(err.text, "a fan is loud"));
	well(a, json_pack("{s:s}", "op", "undrain"), NULL);
	well(a, reserve("a-1", DOCUMENT, 1), NULL);
	ask_close(a);
	node_end(n);
}

static json_t *session(void)
{
	return json_pack("{s:s, s:s}", "op", "session", "session", SECRET);
}

static void wait_ms(unsigned ms)
{
	usleep(ms * 1000);
}

static void test_grace(void **state)
{
	struct machine *n = node_new(state, NULL);
	struct ask *a = dial(n), *watcher = dial(n);
	struct error err;

	assert_int_equal(
		say(a, json_pack("{s:s, s:s}", "op", "session", "session", "short"), NULL, &err),
		-EINVAL);
	well(a, session(), NULL);
	well(a, reserve("a-1", DOCUMENT, 1), NULL);
	/* Longer than the grace time, but somebody is there. */
	for (unsigned i = 0; i < 5; i++) {
		wait_ms(500);
		assert_int_equal(listed(a, false), 1);
	}
	ask_close(a);
	ask_close(watcher);
	a = dial(n);
	assert_int_equal(listed(a, false), 1);
	well(a, session(), NULL);
	for (unsigned i = 0; i < 5; i++) {
		wait_ms(500);
		assert_int_equal(listed(a, false), 1);
	}
	ask_close(a);
	wait_ms(2500);
	a = dial(n);
	assert_int_equal(listed(a, false), 0);
	ask_close(a);
	node_end(n);
}

/* Whoever is killed while it is answered leaves whole reservations, which end. */
static void test_killed(void **state)
{
	struct machine *n = node_new(state, NULL);
	unsigned *done = mmap(NULL, sizeof(*done), PROT_READ | PROT_WRITE,
			      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct ask *a;

	assert_true(done != MAP_FAILED);
	for (unsigned round = 0; round < 8; round++) {
		pid_t client = fork();

		if (!client) {
			struct error err;

			prctl(PR_SET_PDEATHSIG, SIGKILL);

			a = NULL;
			if (ask_open(n->socket, &a, &err))
				_exit(0);
			for (;;) {
				json_t *end = release("k-1"), *r = reserve("k-1", DOCUMENT, 1);

				int code = ask(a, r, NULL, &err);

				/* There may be one of the daemon that was killed. */
				if ((code && code != -EEXIST) || ask(a, end, NULL, &err))
					_exit(0);
				++*done;
			}
		}
		wait_ms(40 + 13 * round);
		kill_it(n);
		waitpid(client, NULL, 0);
		start(n);
		a = dial(n);
		if (listed(a, true)) {
			json_t *list = NULL, *vms;

			well(a, json_pack("{s:s}", "op", "list"), &list);
			vms = json_object_get(json_array_get(json_object_get(list, "clusters"), 0),
					      "vms");
			assert_int_equal(json_array_size(vms), 1);
			assert_string_equal(
				json_string_value(json_object_get(json_array_get(vms, 0), "cpus")),
				"0-1");
			json_decref(list);
		}
		ask_close(a);
	}
	wait_ms(2500);
	a = dial(n);
	assert_int_equal(listed(a, true), 0);
	assert_true(*done > 8);
	munmap(done, sizeof(*done));
	ask_close(a);
	node_end(n);
}

/* Runs as another user; its exit code says which step went wrong. */
static int stranger(const struct machine *n)
{
	struct error err;
	struct ask *a = NULL;
	json_t *list = NULL;

	if (setgroups(0, NULL) || setgid(NOBODY) || setuid(NOBODY))
		return 1;
	if (ask_open(n->socket, &a, &err))
		return 2;
	if (say(a, json_pack("{s:s}", "op", "list"), &list, &err) ||
	    json_array_size(json_object_get(list, "clusters")))
		return 3;
	if (say(a, json_pack("{s:s, s:b}", "op", "list", "all", 1), NULL, &err) != -EPERM)
		return 4;
	if (say(a, release("r-1"), NULL, &err) != -EPERM)
		return 5;
	if (say(a, json_pack("{s:s, s:i}", "op", "account", "user", 0), NULL, &err) != -EPERM)
		return 6;
	if (say(a, json_pack("{s:s, s:s}", "op", "drain", "because", "I can"), NULL, &err) !=
	    -EPERM)
		return 7;
	/* The other's secret is not enough. */
	if (say(a, session(), NULL, &err) || say(a, reserve("s-1", DOCUMENT, 1), NULL, &err))
		return 8;
	return 0;
}

static void test_users(void **state)
{
	struct machine *n;
	struct ask *a;
	pid_t pid;
	int status;

	if (geteuid())
		skip();
	n = node_new(state, NULL);
	a = dial(n);
	well(a, session(), NULL);
	well(a, reserve("r-1", DOCUMENT, 1), NULL);
	pid = fork();
	if (!pid)
		_exit(stranger(n));
	waitpid(pid, &status, 0);
	assert_int_equal(WEXITSTATUS(status), 0);
	/* It has gone: its session ends, whoever else has a session of that name. */
	wait_ms(2500);
	assert_int_equal(listed(a, true), 1);
	ask_close(a);
	node_end(n);
}

/* Opens what it can, says nothing or nonsense, until it is killed. */
static void pester(const struct machine *n)
{
	struct error err;
	int fds[200];
	if (setgroups(0, NULL) || setgid(NOBODY) || setuid(NOBODY))
		_exit(1);
	prctl(PR_SET_PDEATHSIG, SIGKILL); /* changing the user has undone it */
	for (unsigned round = 0;; round++)
		for (unsigned i = 0; i < ARRAY_SIZE(fds); i++) {
			if (round)
				close(fds[i]);
			fds[i] = io_unix_connect(n->socket, &err);
			if (i % 2 && fds[i] >= 0)
				send(fds[i], "GET / HTTP/1.0\r\n\r\n", 18, MSG_NOSIGNAL);
		}
}

static void test_hostile(void **state)
{
	struct machine *n;
	struct ask *a;
	pid_t pid;

	if (geteuid())
		skip();
	n = node_new(state, NULL);
	pid = fork();
	if (!pid)
		pester(n);
	for (unsigned i = 0; i < 20; i++) {
		uint64_t begin = io_now_ns();

		a = dial(n);
		well(a, json_pack("{s:s}", "op", "facts"), NULL);
		ask_close(a);
		assert_true(io_now_ns() - begin < 5000000000ull);
		wait_ms(20);
	}
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	assert_int_equal(waitpid(n->pid, NULL, WNOHANG), 0);
	node_end(n);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_dispatch, made_set_up, made_tear_down),
		cmocka_unit_test_setup_teardown(test_reserve, made_set_up, made_tear_down),
		cmocka_unit_test_setup_teardown(test_waiver, made_set_up, made_tear_down),
		cmocka_unit_test_setup_teardown(test_save_every, made_set_up, made_tear_down),
		cmocka_unit_test_setup_teardown(test_policy, made_set_up, made_tear_down),
		cmocka_unit_test_setup_teardown(test_drain, made_set_up, made_tear_down),
		cmocka_unit_test_setup_teardown(test_grace, made_set_up, made_tear_down),
		cmocka_unit_test_setup_teardown(test_killed, made_set_up, made_tear_down),
		cmocka_unit_test_setup_teardown(test_users, made_set_up, made_tear_down),
		cmocka_unit_test_setup_teardown(test_hostile, made_set_up, made_tear_down),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
