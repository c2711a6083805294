/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints of jobs: what a manifest may say, damage, failing writes, pruning and kills. */

#include "job/test/made.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "lib/sealed.h"

static char *folder_of(void **state, const char *name)
{
	char *dir = io_format("%s/%s", (char *)*state, name);

	assert_non_null(dir);
	return dir;
}

static void open_new(void **state, const char *name, struct checkpoints *c)
{
	CLEANUP_FREE char *dir = folder_of(state, name);

	ok(checkpoints_open(dir, true, c, &err));
}

static void test_round_trip(void **state)
{
	struct job_vm vm[MADE_VMS];
	struct checkpoints c;
	struct job_manifest m, again;
	struct made made;

	open_new(state, "trip", &c);
	assert_false(checkpoints_are_there(c.path));
	refused(-ENOENT, "has no checkpoint", checkpoints_read(&c, 0, &again, &err));
	made_init(&made, c.path);
	made_epochs(&made, &c, false, vm);
	m = made_manifest(7, vm);
	ok(job_manifest_write(c.dir, &m, &err));
	assert_int_equal(m.skew_ns, 5000);
	ok(checkpoints_read(&c, 0, &again, &err));
	assert_true(checkpoints_are_there(c.path));
	assert_int_equal(again.sequence, 7);
	assert_int_equal(again.parent, 6);
	assert_string_equal(again.digest, m.digest);
	assert_string_equal(again.job, m.job);
	assert_string_equal(again.cluster, "lu");
	assert_string_equal(again.subnet, "10.78.0.0/24");
	assert_true(json_equal(again.environment, m.environment));
	assert_true(json_equal(again.documents, m.documents));
	assert_int_equal(again.vms, MADE_VMS);
	for (unsigned i = 0; i < MADE_VMS; i++) {
		assert_string_equal(again.vm[i].name, vm[i].name);
		assert_string_equal(again.vm[i].address, vm[i].address);
		assert_string_equal(again.vm[i].folder, vm[i].folder);
		assert_string_equal(again.vm[i].digest, vm[i].digest);
		assert_int_equal(again.vm[i].epoch, 1);
		assert_int_equal(again.vm[i].cut_at, vm[i].cut_at);
		assert_int_equal(again.vm[i].pause_ns, 12345678);
	}
	assert_null(again.vm[0].mac);
	assert_string_equal(again.vm[1].mac, vm[1].mac);
	assert_int_equal(again.tasks, 1);
	assert_int_equal(again.task[0].out, 4711);
	assert_string_equal(again.task[0].id, "main");
	job_manifest_done(&again);
	/* It is there: never another one over it. */
	m.cluster = "other";
	refused(-EEXIST, "checkpoint-7.json", job_manifest_write(c.dir, &m, &err));
	ok(checkpoints_read(&c, 7, &again, &err));
	assert_string_equal(again.cluster, "lu");
	job_manifest_done(&again);
	refused(-ENOENT, "checkpoint-8.json", checkpoints_read(&c, 8, &again, &err));
	made_manifest_free(&m);
	made_free(vm);
	made_done(&made);
	checkpoints_close(&c);
}

/* Changes to a good manifest, each with a member and what is said of it. Values are JSON. */
static const struct change {
	const char *place, *value, *words; /* place: "vms.0.name"; no value: it is taken away */
} changes[] = {
	{"format", "2", "is not of format 1"},
	{"sequence", "0", "sequence is no number from 1"},
	{"sequence", "\"3\"", "sequence is no number"},
	{"sequence", NULL, "sequence is no number"},
	{"job", "\"0123\"", "job is not 32 hexadecimal digits"},
	{"job", "\"0123456789ABCDEF0123456789abcdef\"", "job is not 32"},
	{"parent", "{\"sequence\": 3, \"digest\": \"x\"}", "parent.digest is not 64"},
	{"parent", "3", "parent.sequence is no number"},
	{"parent.sequence", "3", "parent.sequence is not before"},
	{"created", NULL, "created is no text"},
	{"version", "[]", "version is no text"},
	{"cluster", "\"../lu\"", "cluster is not 1 to 63"},
	{"environment", "[]", "environment is no object"},
	{"environment.digest", "\"1\"", "environment.digest is not 64"},
	{"environment.closed", "\"lu\"", "environment.closed is no object"},
	{"environment.documents", "{}", "environment.documents is no list"},
	{"environment.documents.0.text", "1", "documents[0].text is no text"},
	{"environment.documents.0.name", NULL, "documents[0].name is no text"},
	{"network", NULL, "network is no object"},
	{"network.subnet", "\"8.8.8.0/24\"", "network.subnet subnet 8.8.8.0/24 is not private"},
	{"network.subnet", "\"10.78.0.0/99\"", "network.subnet"},
	{"vms", "[]", "vms has none"},
	{"vms", "{}", "vms is no list"},
	{"vms.0", "1", "vms[0].name is no text"},
	{"vms.1.name", "\".hidden\"", "vms[1].name is not 1 to 63"},
	{"vms.1.name", "\"lu-0\"", "two VMs have the name lu-0"},
	{"vms.1.address", "\"10.78.0.2\"", "two VMs have the address 10.78.0.2"},
	{"vms.0.address", "\"10.79.0.2\"", "vms[0].address is no address"},
	{"vms.0.address", "\"10.78.0.1\"", "vms[0].address is no address"},
	{"vms.0.mac", "\"ff:ff:ff:ff:ff:ff\"", "vms[0].mac is no address"},
	{"vms.0.node", "7", "vms[0].node is no text"},
	{"vms.0.folder", "\"/etc\"", "vms[0].folder is not vm/ and a name"},
	{"vms.0.folder", "\"vm/../..\"", "vms[0].folder is not vm/"},
	{"vms.0.folder", "\"vm/..\"", "vms[0].folder is not vm/"},
	{"vms.0.folder", "\"vm/\"", "vms[0].folder is not vm/"},
	{"vms.0.folder", "\"vm/a/b\"", "vms[0].folder is not vm/"},
	{"vms.1.folder", "\"vm/lu-0\"", "two VMs have the folder vm/lu-0"},
	{"vms.0.epoch", "0", "vms[0].epoch is no number from 1"},
	{"vms.0.epoch", "-1", "vms[0].epoch is no number"},
	{"vms.0.epoch", "1.5", "vms[0].epoch is no number"},
	{"vms.0.digest", "\"sha256:12\"", "vms[0].digest is not sha256:"},
	{"vms.0.digest", "\"md5:12\"", "vms[0].digest is not sha256:"},
	{"vms.0.cut_at", "-5", "vms[0].cut_at is no number from 0"},
	{"vms.0.pause_ns", "null", "vms[0].pause_ns is no number"},
	{"skew_ns", "4999", "skew_ns is not between"},
	{"tasks", NULL, "tasks is no list"},
	{"tasks.0.vm", "\"lu-9\"", "tasks[0].vm is none of the VMs"},
	{"tasks.0.stdout", "-1", "tasks[0].stdout is no number"},
	{"tasks.0.id", "4", "tasks[0].id is no text"},
	{"report", NULL, "report is no object"},
};

static void change(json_t *root, const struct change *how)
{
	CLEANUP_FREE char *place = strdup(how->place);
	json_t *value = how->value ? json_loads(how->value, JSON_DECODE_ANY, NULL) : NULL;
	char *dot;

	for (char *at = place;; at = dot + 1) {
		dot = strchr(at, '.');
		if (dot)
			*dot = 0;
		if (!dot && json_is_array(root))
			json_array_set_new(root, (size_t)atoi(at), value);
		else if (!dot && value)
			json_object_set_new(root, at, value);
		else if (!dot)
			json_object_del(root, at);
		if (!dot)
			return;
		root = json_is_array(root) ? json_array_get(root, (size_t)atoi(at))
					   : json_object_get(root, at);
	}
}

static void test_members(void **state)
{
	struct job_vm vm[MADE_VMS];
	char digest[DIGEST_TEXT];
	struct checkpoints c;
	struct job_manifest m, again;
	struct made made;
	unsigned sequence = 3;

	open_new(state, "members", &c);
	made_init(&made, c.path);
	made_epochs(&made, &c, false, vm);
	m = made_manifest(sequence, vm);
	ok(job_manifest_write(c.dir, &m, &err));
	for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
		json_t *json;

		ok(sealed_read(c.dir, "checkpoint-3.json", 1 << 20, "good", 1, &json, digest,
			       &err));
		change(json, &changes[i]);
		ok(sealed_write(c.dir, "checkpoint-9.json", json, true, digest, &err));
		json_decref(json);
		refused(strstr(changes[i].words, "of format") ? -EPROTONOSUPPORT : -EBADMSG,
			changes[i].words, checkpoints_read(&c, 9, &again, &err));
	}
	/* One that was renamed, and members that nobody knows. */
	{
		json_t *json;

		ok(sealed_read(c.dir, "checkpoint-3.json", 1 << 20, "good", 1, &json, digest,
			       &err));
		ok(sealed_write(c.dir, "checkpoint-9.json", json, true, digest, &err));
		refused(-EBADMSG, "sequence is another", checkpoints_read(&c, 9, &again, &err));
		json_object_set_new(json, "sequence", json_integer(9));
		json_object_set_new(json, "colour", json_string("blue"));
		ok(sealed_write(c.dir, "checkpoint-9.json", json, true, digest, &err));
		ok(checkpoints_read(&c, 9, &again, &err));
		job_manifest_done(&again);
		json_decref(json);
	}
	/* What could not be read is not written. */
	vm[1].address = "10.78.0.2";
	m.sequence = 10;
	refused(-EBADMSG, "checkpoint-10.json: two VMs have the address",
		job_manifest_write(c.dir, &m, &err));
	refused(-ENOENT, "checkpoint-10.json", checkpoints_read(&c, 10, &again, &err));
	made_manifest_free(&m);
	made_free(vm);
	made_done(&made);
	checkpoints_close(&c);
}

/* Any byte, and any end. */
static void test_damage(void **state)
{
	CLEANUP_FREE char *path = NULL;
	CLEANUP_FREE char *text = NULL;
	struct checkpoints c;
	struct job_manifest m;
	struct made made;
	ssize_t n;

	open_new(state, "damage", &c);
	made_init(&made, c.path);
	made_checkpoint(&made, &c, 1, false);
	path = io_format("%s/checkpoint-1.json", c.path);
	n = io_read_file(path, 1 << 20, &text, NULL);
	assert_true(n > 500);
	ok(job_manifest_parse(text, (size_t)n, "m", &m, &err));
	job_manifest_done(&m);
	for (ssize_t i = 0; i < n; i++) {
		struct error err = {""};

		text[i] ^= (char)(1 << i % 8);
		assert_true(job_manifest_parse(text, (size_t)n, "m", &m, &err) < 0);
		assert_true(*err.text);
		text[i] ^= (char)(1 << i % 8);
		assert_true(job_manifest_parse(text, (size_t)i, "m", &m, NULL) < 0);
	}
	made_done(&made);
	checkpoints_close(&c);
}

/* A file that cannot be written leaves nothing, and one that was half written goes. */
static void test_failing(void **state)
{
	struct rlimit before, less;
	struct job_vm vm[MADE_VMS];
	struct checkpoints c, other;
	struct job_manifest m;
	struct made made;
	CLEANUP_FREE char *half = NULL;

	open_new(state, "failing", &c);
	made_init(&made, c.path);
	made_epochs(&made, &c, false, vm);
	m = made_manifest(1, vm);
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	less = (struct rlimit){500, before.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &less), 0);
	refused(-EFBIG, "cannot write checkpoint-1.json", job_manifest_write(c.dir, &m, &err));
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	half = io_format("%s/checkpoint-1.json.tmp", c.path);
	assert_int_equal(access(half, F_OK), -1);
	ok(io_write_file(half, "{", 1, &err));
	refused(-EBUSY, "another process makes or removes a checkpoint",
		checkpoints_open(c.path, true, &other, &err));
	ok(checkpoints_open(c.path, false, &other, &err));
	assert_int_equal(access(half, F_OK), 0);
	checkpoints_close(&c);
	checkpoints_close(&other);
	open_new(state, "failing", &c);
	assert_int_equal(access(half, F_OK), -1);
	ok(job_manifest_write(c.dir, &m, &err));
	made_manifest_free(&m);
	made_free(vm);
	made_done(&made);
	checkpoints_close(&c);
}

/* An epoch of a checkpoint that failed. */
static void leave_behind(struct made *made, const struct checkpoints *c, bool incremental)
{
	struct job_vm vm[MADE_VMS];

	made_epochs(made, c, incremental, vm);
	made_free(vm);
}

static size_t epochs_of(const struct checkpoints *c, const char *name)
{
	CLEANUP_FREE char *path = io_format("%s/vm/%s", c->path, name);
	CLEANUP_FREE uint64_t *epochs = NULL;
	struct store store;
	size_t n;

	if (access(path, F_OK) < 0)
		return 0;
	ok(store_open(path, false, &store, &err));
	ok(store_epochs(&store, &epochs, &n, &err));
	store_close(&store);
	return n;
}

static void test_prune(void **state)
{
	static const uint64_t all[] = {1, 2, 3, 4}, two[] = {3, 4};
	struct checkpoints_removed removed;
	CLEANUP_FREE char *stray = NULL, *path = NULL;
	struct guest g;
	struct checkpoints c;
	struct made made;

	open_new(state, "prune", &c);
	made_init(&made, c.path);
	made_checkpoint(&made, &c, 1, false);
	made_checkpoint(&made, &c, 2, true);
	leave_behind(&made, &c, true);
	made_checkpoint(&made, &c, 3, true);
	made_checkpoint(&made, &c, 4, true);
	leave_behind(&made, &c, true);
	/* A VM of a checkpoint that came to nothing. */
	stray = io_format("%s/vm/lu-7", c.path);
	guest_init(&g, MADE_MEMORY);
	guest_save(&g, stray, 0, COMPRESSION_NONE);
	guest_done(&g);
	assert_int_equal(epochs_of(&c, "lu-0"), 6);
	/* Epoch 4 (checkpoint 3) is based on 3, which nobody names: it becomes whole by itself. */
	ok(checkpoints_tidy(&c, 0, NULL, NULL, &err));
	made_check(&c, all, 4);
	assert_int_equal(epochs_of(&c, "lu-0"), 4);
	assert_int_equal(access(stray, F_OK), -1);
	refused(-EINVAL, "at least one", checkpoints_prune(&c, 0, NULL, NULL, &err));
	ok(checkpoints_prune(&c, 2, NULL, &removed, &err));
	assert_int_equal(removed.n, 2);
	assert_int_equal(removed.sequence[1], 2);
	assert_int_equal(removed.epochs, 4);
	free(removed.sequence);
	made_check(&c, two, 2);
	assert_int_equal(epochs_of(&c, "lu-1"), 2);
	ok(checkpoints_prune(&c, 1, NULL, &removed, &err));
	assert_int_equal(removed.merged, MADE_VMS);
	free(removed.sequence);
	made_check(&c, two + 1, 1);
	guest_compare(&made.g[0], (path = io_format("%s/vm/lu-0", c.path)), 5);
	made_done(&made);
	checkpoints_close(&c);
}

/* Who goes on beside a damaged manifest removes what others named, and nothing that it may name. */
static void test_beside(void **state)
{
	static const uint64_t later[] = {4};
	CLEANUP_FREE char *manifest = NULL;
	json_t *unread = json_array();
	struct checkpoints c;
	struct made made;

	open_new(state, "beside", &c);
	made_init(&made, c.path);
	made_checkpoint(&made, &c, 1, false);
	made_checkpoint(&made, &c, 2, true);
	manifest = io_format("%s/checkpoint-2.json", c.path);
	assert_int_equal(truncate(manifest, 400), 0);
	ok(checkpoints_tidy(&c, 0, NULL, unread, &err));
	assert_int_equal(json_array_size(unread), 1);
	assert_non_null(strstr(json_string_value(json_array_get(unread, 0)), manifest));
	assert_int_equal(epochs_of(&c, "lu-0"), 2);
	made_checkpoint(&made, &c, 3, true);
	made_checkpoint(&made, &c, 4, true);
	ok(checkpoints_tidy(&c, 1, NULL, unread, &err));
	assert_int_equal(json_array_size(unread), 2);
	/* That of the damaged one, and that of the last. */
	assert_int_equal(epochs_of(&c, "lu-0"), 2);
	assert_int_equal(unlink(manifest), 0);
	made_check(&c, later, 1);
	ok(checkpoints_tidy(&c, 0, NULL, unread, &err));
	assert_int_equal(epochs_of(&c, "lu-0"), 1);
	made_check(&c, later, 1);
	json_decref(unread);
	made_done(&made);
	checkpoints_close(&c);
}

/* Who cannot know what is named removes nothing; nobody follows a link. */
static void test_careful(void **state)
{
	CLEANUP_FREE char *manifest = NULL, *vm = NULL, *away = NULL;
	static const uint64_t both[] = {1, 2};
	struct checkpoints_verified verified = {0};
	struct checkpoints c;
	struct job_manifest m;
	struct store store;
	struct made made;
	uint64_t bytes;

	open_new(state, "careful", &c);
	made_init(&made, c.path);
	made_checkpoint(&made, &c, 1, false);
	made_checkpoint(&made, &c, 2, false);
	manifest = io_format("%s/checkpoint-2.json", c.path);
	assert_int_equal(truncate(manifest, 400), 0);
	refused(-EBADMSG, "nothing was removed: ", checkpoints_prune(&c, 1, NULL, NULL, &err));
	assert_int_equal(epochs_of(&c, "lu-0"), 2);
	assert_int_equal(unlink(manifest), 0);
	vm = io_format("%s/vm/lu-0", c.path);
	/* Somebody writes to the folder of a VM. */
	ok(store_open(vm, true, &store, &err));
	refused(-EBUSY, "another process writes", checkpoints_tidy(&c, 0, NULL, NULL, &err));
	store_close(&store);
	ok(checkpoints_read(&c, 1, &m, &err));
	away = io_format("%s/away", (char *)*state);
	assert_int_equal(rename(vm, away), 0);
	assert_int_equal(symlink(away, vm), 0);
	refused(-EBADMSG, "is no folder",
		checkpoints_verify_vm(&c, &m.vm[0], &verified, NULL, &bytes, &err));
	ok(checkpoints_tidy(&c, 0, NULL, NULL, &err));
	assert_int_equal(unlink(vm), 0);
	assert_int_equal(rename(away, vm), 0);
	assert_int_equal(epochs_of(&c, "lu-0"), 2);
	/* The epoch in this place is another one. */
	((struct job_vm *)m.vm)[0].epoch = 2;
	refused(-ESTALE, "is not the epoch that was wanted",
		checkpoints_verify_vm(&c, &m.vm[0], &verified, NULL, &bytes, &err));
	job_manifest_done(&m);
	free(verified.seen);
	made_check(&c, both, 1);
	made_done(&made);
	checkpoints_close(&c);
}

static void prune_in_child(const char *dir, unsigned us)
{
	pid_t child = fork();
	int status;

	assert_true(child >= 0);
	if (!child) {
		struct checkpoints c;

		if (checkpoints_open(dir, true, &c, NULL) == 0)
			checkpoints_prune(&c, 1, NULL, NULL, NULL);
		_exit(0);
	}
	usleep(us);
	kill(child, SIGKILL);
	assert_int_equal(waitpid(child, &status, 0), child);
}

/* Killed at any moment: what is named is there, and the next one finishes. */
static void test_killed(void **state)
{
	static const uint64_t last[] = {4};

	for (unsigned i = 0; i < 24; i++) {
		CLEANUP_FREE char *name = io_format("killed%u", i);
		CLEANUP_FREE uint64_t *found = NULL;
		struct checkpoints c;
		struct made made;
		char dir[256];
		size_t n;

		open_new(state, name, &c);
		made_init(&made, c.path);
		for (unsigned k = 1; k <= 4; k++)
			made_checkpoint(&made, &c, k, k > 1);
		leave_behind(&made, &c, true);
		snprintf(dir, sizeof(dir), "%s", c.path);
		checkpoints_close(&c);
		prune_in_child(dir, i * 400);
		ok(checkpoints_open(dir, true, &c, &err));
		ok(checkpoints_list(&c, &found, &n, &err));
		assert_true(n >= 1 && found[n - 1] == 4);
		made_check(&c, found, n);
		ok(checkpoints_prune(&c, 1, NULL, NULL, &err));
		made_check(&c, last, 1);
		assert_int_equal(epochs_of(&c, "lu-0"), 1);
		made_done(&made);
		checkpoints_close(&c);
	}
}

/* As many VMs and tasks as there may be: checked in no time, and about 200 bytes each. */
static void test_many(void **state)
{
	enum { MANY = JOB_MAX_VMS };
	char digest[] =
		MANIFEST_DIGEST "0000000000000000000000000000000000000000000000000000000000000000";
	struct job_vm *vm = calloc(MANY + 1, sizeof(*vm));
	struct job_task *task = calloc(MANY, sizeof(*task));
	struct job_manifest m, again;
	struct checkpoints c;
	struct stat st;

	assert_true(vm && task);
	for (unsigned i = 0; i <= MANY; i++) {
		vm[i] = (struct job_vm){
			.name = io_format("lu-%u", i),
			.address = io_format("10.%u.%u.%u", i >> 16, (i >> 8) & 255, i & 255),
			.node = "node",
			.folder = io_format("vm/lu-%u", i),
			.epoch = 1,
			.digest = digest};
		if (i < MANY)
			task[i] = (struct job_task){.vm = vm[i].name, .id = "main"};
	}
	open_new(state, "many", &c);
	m = made_manifest(1, vm + 1);
	m.subnet = "10.0.0.0/8";
	m.task = task + 1;
	m.tasks = MANY - 1;
	m.vms = MANY;
	/* The first two addresses are the network's own. */
	refused(-EBADMSG, "vms[0].address is no address", job_manifest_write(c.dir, &m, &err));
	free((char *)vm[1].address);
	vm[1].address = "10.2.0.1";
	ok(job_manifest_write(c.dir, &m, &err));
	ok(checkpoints_read(&c, 1, &again, &err));
	assert_int_equal(again.vms, MANY);
	assert_int_equal(again.tasks, MANY - 1);
	assert_string_equal(again.vm[MANY - 1].name, "lu-65536");
	job_manifest_done(&again);
	assert_int_equal(fstatat(c.dir, "checkpoint-1.json", &st, 0), 0);
	assert_true(st.st_size < MANY * 400);
	m.sequence = 2;
	m.vm = vm;
	m.vms = MANY + 1;
	refused(-EBADMSG, "vms is no list, or too long", job_manifest_write(c.dir, &m, &err));
	made_manifest_free(&m);
	for (unsigned i = 0; i <= MANY; i++) {
		free((char *)vm[i].name);
		if (i != 1)
			free((char *)vm[i].address);
		free((char *)vm[i].folder);
	}
	free(vm);
	free(task);
	checkpoints_close(&c);
}

static void test_id(void **state)
{
	char one[JOB_ID], other[JOB_ID];

	(void)state;
	ok(job_id_make(one, &err));
	ok(job_id_make(other, &err));
	assert_int_equal(strspn(one, "0123456789abcdef"), 32);
	assert_string_not_equal(one, other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip), cmocka_unit_test(test_members),
		cmocka_unit_test(test_damage),	   cmocka_unit_test(test_failing),
		cmocka_unit_test(test_prune),	   cmocka_unit_test(test_careful),
		cmocka_unit_test(test_beside),	   cmocka_unit_test(test_killed),
		cmocka_unit_test(test_many),	   cmocka_unit_test(test_id),
	};

	return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
