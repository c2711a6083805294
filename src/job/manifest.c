/* SPDX-License-Identifier: Apache-2.0 */
/* Manifests of checkpoints of whole jobs. */

#include "job/manifest.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "build-config.h"
#include "job/checkpoints.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/parse.h"
#include "lib/paths.h"
#include "lib/sealed.h"
#include "mover/manifest.h"
#include "vms/subnet.h"

#define JOB_MAX_SIZE (64u << 20)
#define TEXT_MAX 4096 /* of what has no limit of its own */
#define DOCUMENT_MAX (1u << 20)

/* Where we are in the file, for errors: NAME: PLACE + member. */
struct where {
	const char *name;
	char place[48]; /* "vms[3]." */
	struct error *err;
};

static int refuse(const struct where *at, const char *member, const char *what)
{
	return error_set(at->err, -EBADMSG, "%s: %s%s %s", at->name, at->place, member, what);
}

static int get_text(const struct where *at, const json_t *object, const char *member, size_t max,
		    const char **ret)
{
	const json_t *value = json_object_get(object, member);
	const char *text = json_string_value(value);

	if (!text || strlen(text) != json_string_length(value) || strlen(text) > max)
		return refuse(at, member, "is no text, or too long");
	*ret = text;
	return 0;
}

/* A name as those of VMs: also a good name of a file. */
static int get_name(const struct where *at, const json_t *object, const char *member,
		    const char **ret)
{
	int rc = get_text(at, object, member, TEXT_MAX, ret);

	if (rc == 0 && paths_check_name(*ret, "", NULL) < 0)
		rc = refuse(at, member,
			    "is not 1 to 63 letters, digits, \".\", \"_\" or \"-\", the first a "
			    "letter or digit");
	return rc;
}

static int get_number(const struct where *at, const json_t *object, const char *member,
		      uint64_t least, uint64_t *ret)
{
	const json_t *value = json_object_get(object, member);

	*ret = (uint64_t)json_integer_value(value);
	if (!json_is_integer(value) || json_integer_value(value) < 0 || *ret < least)
		return refuse(at, member, least ? "is no number from 1" : "is no number from 0");
	return 0;
}

static bool is_hex(const char *text, size_t digits)
{
	return strlen(text) == digits && strspn(text, "0123456789abcdef") == digits;
}

static int get_hex(const struct where *at, const json_t *object, const char *member, char *ret,
		   size_t size)
{
	const char *text = "";
	int rc = get_text(at, object, member, TEXT_MAX, &text);

	if (rc == 0 && !is_hex(text, size - 1))
		rc = refuse(at, member,
			    size == JOB_ID ? "is not 32 hexadecimal digits"
					   : "is not 64 hexadecimal digits");
	if (rc == 0)
		memcpy(ret, text, size);
	return rc;
}

/* A list of at most so many. */
static int get_list(const struct where *at, const json_t *object, const char *member, size_t max,
		    const json_t **ret, size_t *n)
{
	*ret = json_object_get(object, member);
	*n = json_array_size(*ret);
	return json_is_array(*ret) && *n <= max ? 0 : refuse(at, member, "is no list, or too long");
}

static int get_object(const struct where *at, const json_t *object, const char *member,
		      const json_t **ret)
{
	*ret = json_object_get(object, member);
	return json_is_object(*ret) ? 0 : refuse(at, member, "is no object");
}

static int get_parent(struct where *at, struct job_manifest *m)
{
	const json_t *parent = json_object_get(m->json, "parent");
	int rc;

	if (json_is_null(parent))
		return 0;
	strcpy(at->place, "parent.");
	rc = get_number(at, parent, "sequence", 1, &m->parent);
	if (rc == 0)
		rc = get_hex(at, parent, "digest", m->parent_digest, sizeof(m->parent_digest));
	if (rc == 0 && m->parent >= m->sequence)
		rc = refuse(at, "sequence", "is not before this one");
	at->place[0] = 0;
	return rc;
}

static int get_environment(struct where *at, struct job_manifest *m)
{
	const json_t *environment = NULL;
	const char *text;
	size_t n = 0;
	int rc = get_object(at, m->json, "environment", &environment);

	if (rc < 0)
		return rc;
	strcpy(at->place, "environment.");
	rc = get_hex(at, environment, "digest", m->environment_digest,
		     sizeof(m->environment_digest));
	if (rc == 0)
		rc = get_object(at, environment, "closed", &m->environment);
	if (rc == 0)
		rc = get_list(at, environment, "documents", JOB_MAX_DOCUMENTS, &m->documents, &n);
	for (size_t i = 0; rc == 0 && i < n; i++) {
		const json_t *document = json_array_get(m->documents, i);

		snprintf(at->place, sizeof(at->place), "documents[%zu].", i);
		rc = get_text(at, document, "name", TEXT_MAX, &text);
		if (rc == 0)
			rc = get_text(at, document, "text", DOCUMENT_MAX, &text);
	}
	at->place[0] = 0;
	return rc;
}

static int get_network(struct where *at, struct job_manifest *m, struct subnet *subnet)
{
	const json_t *network = NULL;
	struct error why;
	int rc = get_object(at, m->json, "network", &network);

	if (rc < 0)
		return rc;
	strcpy(at->place, "network.");
	rc = get_text(at, network, "subnet", TEXT_MAX, &m->subnet);
	if (rc == 0 && subnet_parse(m->subnet, subnet, &why) < 0)
		rc = refuse(at, "subnet", why.text);
	at->place[0] = 0;
	return rc;
}

/* Its epochs are in vm/NAME, and nowhere else. */
static int get_folder(const struct where *at, const json_t *object, const char **ret)
{
	int rc = get_text(at, object, "folder", TEXT_MAX, ret);
	size_t n = strlen(CHECKPOINTS_VMS "/");

	if (rc == 0 &&
	    (strncmp(*ret, CHECKPOINTS_VMS "/", n) || paths_check_name(*ret + n, "", NULL) < 0))
		rc = refuse(at, "folder", "is not " CHECKPOINTS_VMS "/ and a name");
	return rc;
}

static int get_epoch(const struct where *at, const json_t *object, struct job_vm *vm)
{
	size_t n = strlen(MANIFEST_DIGEST);
	int rc = get_folder(at, object, &vm->folder);

	if (rc == 0)
		rc = get_number(at, object, "epoch", 1, &vm->epoch);
	if (rc == 0)
		rc = get_text(at, object, "digest", TEXT_MAX, &vm->digest);
	if (rc == 0 &&
	    (strncmp(vm->digest, MANIFEST_DIGEST, n) || !is_hex(vm->digest + n, DIGEST_TEXT - 1)))
		rc = refuse(at, "digest", "is not " MANIFEST_DIGEST " and 64 hexadecimal digits");
	if (rc == 0)
		rc = get_number(at, object, "cut_at", 0, &vm->cut_at);
	if (rc == 0)
		rc = get_number(at, object, "pause_ns", 0, &vm->pause_ns);
	return rc;
}

static int get_vm(const struct where *at, const json_t *object, const struct subnet *subnet,
		  struct job_vm *vm)
{
	uint8_t mac[6];
	uint32_t address;
	int rc = get_name(at, object, "name", &vm->name);

	if (rc == 0)
		rc = get_text(at, object, "address", TEXT_MAX, &vm->address);
	if (rc == 0 && subnet_parse_address(subnet, vm->address, &address, NULL) < 0)
		rc = refuse(at, "address", "is no address for a VM in the subnet");
	if (rc == 0 && !json_is_null(json_object_get(object, "mac"))) {
		rc = get_text(at, object, "mac", TEXT_MAX, &vm->mac);
		if (rc == 0 && parse_mac(vm->mac, mac, NULL) < 0)
			rc = refuse(at, "mac", "is no address of a network card");
	}
	if (rc == 0)
		rc = get_text(at, object, "node", TEXT_MAX, &vm->node);
	return rc < 0 ? rc : get_epoch(at, object, vm);
}

static int compare_texts(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Of each VM the text at that offset of a struct job_vm, sorted: a new list. */
static const char **sorted_texts(const struct where *at, const struct job_manifest *m,
				 size_t offset)
{
	const char **text = calloc(m->vms + 1, sizeof(*text));

	if (!text) {
		error_set(at->err, -ENOMEM, "%s: out of memory", at->name);
		return NULL;
	}
	for (size_t i = 0; i < m->vms; i++)
		memcpy(&text[i], (const char *)&m->vm[i] + offset, sizeof(text[i]));
	qsort(text, m->vms, sizeof(*text), compare_texts);
	return text;
}

/* Each VM has one of its own. */
static int check_unique(const struct where *at, const struct job_manifest *m, size_t offset,
			const char *member)
{
	CLEANUP_FREE const char **text = sorted_texts(at, m, offset);

	if (!text)
		return -ENOMEM;
	for (size_t i = 1; i < m->vms; i++)
		if (!strcmp(text[i - 1], text[i]))
			return error_set(at->err, -EBADMSG, "%s: two VMs have the %s %s", at->name,
					 member, text[i]);
	return 0;
}

static uint64_t skew_of(const struct job_vm *vm, size_t n)
{
	uint64_t first = n ? vm[0].cut_at : 0, last = first;

	for (size_t i = 1; i < n; i++) {
		if (vm[i].cut_at < first)
			first = vm[i].cut_at;
		if (vm[i].cut_at > last)
			last = vm[i].cut_at;
	}
	return last - first;
}

static int get_vms(struct where *at, struct job_manifest *m)
{
	struct subnet subnet;
	struct job_vm *vm = NULL;
	const json_t *list = NULL;
	size_t n = 0;
	int rc = get_network(at, m, &subnet);

	if (rc == 0)
		rc = get_list(at, m->json, "vms", JOB_MAX_VMS, &list, &n);
	if (rc == 0 && !n)
		rc = refuse(at, "vms", "has none");
	if (rc == 0) {
		m->vm = vm = calloc(n, sizeof(*vm));
		m->vms = n;
		if (!vm)
			rc = error_set(at->err, -ENOMEM, "%s: out of memory", at->name);
	}
	for (size_t i = 0; rc == 0 && i < n; i++) {
		snprintf(at->place, sizeof(at->place), "vms[%zu].", i);
		rc = get_vm(at, json_array_get(list, i), &subnet, &vm[i]);
	}
	at->place[0] = 0;
	if (rc == 0)
		rc = check_unique(at, m, offsetof(struct job_vm, name), "name");
	if (rc == 0)
		rc = check_unique(at, m, offsetof(struct job_vm, address), "address");
	if (rc == 0)
		rc = check_unique(at, m, offsetof(struct job_vm, folder), "folder");
	if (rc == 0)
		rc = get_number(at, m->json, "skew_ns", 0, &m->skew_ns);
	if (rc == 0 && m->skew_ns != skew_of(m->vm, m->vms))
		rc = refuse(at, "skew_ns", "is not between the first and the last \"cut_at\"");
	return rc;
}

static int get_task(const struct where *at, const json_t *object, const char *const *vm, size_t vms,
		    struct job_task *task)
{
	int rc = get_text(at, object, "vm", TEXT_MAX, &task->vm);

	if (rc == 0 && !bsearch(&task->vm, vm, vms, sizeof(*vm), compare_texts))
		rc = refuse(at, "vm", "is none of the VMs");
	if (rc == 0)
		rc = get_text(at, object, "id", TEXT_MAX, &task->id);
	if (rc == 0)
		rc = get_number(at, object, "stdout", 0, &task->out);
	if (rc == 0)
		rc = get_number(at, object, "stderr", 0, &task->err);
	return rc;
}

static int get_tasks(struct where *at, struct job_manifest *m)
{
	CLEANUP_FREE const char **vm = sorted_texts(at, m, offsetof(struct job_vm, name));
	struct job_task *task;
	const json_t *list = NULL;
	size_t n = 0;
	int rc = vm ? get_list(at, m->json, "tasks", JOB_MAX_TASKS, &list, &n) : -ENOMEM;

	if (rc < 0)
		return rc;
	m->task = task = calloc(n + 1, sizeof(*task));
	m->tasks = n;
	if (!task)
		return error_set(at->err, -ENOMEM, "%s: out of memory", at->name);
	for (size_t i = 0; rc == 0 && i < n; i++) {
		snprintf(at->place, sizeof(at->place), "tasks[%zu].", i);
		rc = get_task(at, json_array_get(list, i), vm, m->vms, &task[i]);
	}
	at->place[0] = 0;
	return rc;
}

static int get_fields(struct job_manifest *m, const char *name, struct error *err)
{
	struct where at = {.name = name, .err = err};
	int rc = get_number(&at, m->json, "sequence", 1, &m->sequence);

	if (rc == 0)
		rc = get_hex(&at, m->json, "job", m->job, sizeof(m->job));
	if (rc == 0)
		rc = get_parent(&at, m);
	if (rc == 0)
		rc = get_text(&at, m->json, "created", TEXT_MAX, &m->created);
	if (rc == 0)
		rc = get_text(&at, m->json, "version", TEXT_MAX, &m->version);
	if (rc == 0)
		rc = get_name(&at, m->json, "cluster", &m->cluster);
	if (rc == 0)
		rc = get_environment(&at, m);
	if (rc == 0)
		rc = get_vms(&at, m);
	if (rc == 0)
		rc = get_tasks(&at, m);
	if (rc == 0)
		rc = get_object(&at, m->json, "report", &m->report);
	return rc;
}

/* Takes over m->json. */
static int take_fields(struct job_manifest *m, const char *name, struct job_manifest *ret,
		       struct error *err)
{
	int rc = get_fields(m, name, err);

	if (rc < 0)
		job_manifest_done(m);
	else
		*ret = *m;
	return rc;
}

int job_manifest_parse(const char *text, size_t size, const char *name, struct job_manifest *ret,
		       struct error *err)
{
	struct job_manifest m = {0};
	int rc = sealed_parse(text, size, name, JOB_FORMAT, &m.json, m.digest, err);

	return rc < 0 ? rc : take_fields(&m, name, ret, err);
}

int job_manifest_read(int dir, const char *path, uint64_t sequence, struct job_manifest *ret,
		      struct error *err)
{
	CLEANUP_FREE char *name = io_format("%s/" CHECKPOINTS_FILE, path, sequence);
	struct job_manifest m = {0};
	int rc = name ? 0 : error_set(err, -ENOMEM, "out of memory");

	if (rc == 0)
		rc = sealed_read(dir, strrchr(name, '/') + 1, JOB_MAX_SIZE, name, JOB_FORMAT,
				 &m.json, m.digest, err);
	if (rc == 0)
		rc = take_fields(&m, name, &m, err);
	if (rc == 0 && m.sequence != sequence) {
		job_manifest_done(&m);
		rc = error_set(err, -EBADMSG, "%s: sequence is another one: it was renamed", name);
	}
	if (rc == 0)
		*ret = m;
	return rc;
}

static json_t *vms_json(const struct job_manifest *m)
{
	json_t *list = json_array();

	for (size_t i = 0; i < m->vms; i++) {
		const struct job_vm *vm = &m->vm[i];

		json_array_append_new(list,
				      json_pack("{s:s, s:s, s:s?, s:s, s:s, s:I, s:s, s:I, s:I}",
						"name", vm->name, "address", vm->address, "mac",
						vm->mac, "node", vm->node, "folder", vm->folder,
						"epoch", (json_int_t)vm->epoch, "digest",
						vm->digest, "cut_at", (json_int_t)vm->cut_at,
						"pause_ns", (json_int_t)vm->pause_ns));
	}
	return list;
}

static json_t *tasks_json(const struct job_manifest *m)
{
	json_t *list = json_array();

	for (size_t i = 0; i < m->tasks; i++) {
		const struct job_task *task = &m->task[i];

		json_array_append_new(list, json_pack("{s:s, s:s, s:I, s:I}", "vm", task->vm, "id",
						      task->id, "stdout", (json_int_t)task->out,
						      "stderr", (json_int_t)task->err));
	}
	return list;
}

static json_t *date_json(void)
{
	time_t now = time(NULL);
	char text[32];
	struct tm tm;

	gmtime_r(&now, &tm);
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
	return json_string(text);
}

static json_t *manifest_json(const struct job_manifest *m)
{
	json_t *parent = json_null();

	if (m->parent)
		parent = json_pack("{s:I, s:s}", "sequence", (json_int_t)m->parent, "digest",
				   m->parent_digest);
	return json_pack(
		"{s:i, s:I, s:s, s:o, s:o, s:s, s:s, s:{s:s, s:O, s:O}, s:{s:s}, s:o, s:o, s:I, "
		"s:O*}",
		"format", JOB_FORMAT, "sequence", (json_int_t)m->sequence, "job", m->job, "parent",
		parent, "created", date_json(), "version", WISP_VERSION, "cluster", m->cluster,
		"environment", "digest", m->environment_digest, "closed", m->environment,
		"documents", m->documents, "network", "subnet", m->subnet, "vms", vms_json(m),
		"tasks", tasks_json(m), "skew_ns", (json_int_t)skew_of(m->vm, m->vms), "report",
		m->report);
}

/* What cannot be read again is not written. */
static int check(const json_t *json, const char *name, struct error *err)
{
	struct job_manifest again = {.json = json_incref((json_t *)json)};
	int rc = get_fields(&again, name, err);

	job_manifest_done(&again);
	return rc;
}

int job_manifest_write(int dir, struct job_manifest *m, struct error *err)
{
	CLEANUP_FREE char *name = io_format(CHECKPOINTS_FILE, m->sequence);
	json_t *json = manifest_json(m);
	char digest[DIGEST_TEXT];
	int rc = name && json
			 ? 0
			 : error_set(err, -EINVAL, "the manifest of a checkpoint lacks a part");

	if (rc == 0 && !m->report)
		json_object_set_new(json, "report", json_object());
	if (rc == 0)
		rc = check(json, name, err);
	if (rc == 0)
		rc = sealed_write(dir, name, json, false, digest, err);
	if (rc == 0 && fsync(dir) < 0)
		rc = error_errno(err, -errno, "cannot sync the folder of %s", name);
	json_decref(json);
	if (rc < 0)
		return rc;
	m->skew_ns = skew_of(m->vm, m->vms);
	memcpy(m->digest, digest, sizeof(digest));
	return 0;
}

void job_manifest_done(struct job_manifest *m)
{
	json_decref(m->json);
	free((void *)m->vm);
	free((void *)m->task);
	*m = (struct job_manifest){0};
}

int job_id_make(char ret[JOB_ID], struct error *err)
{
	uint8_t random[(JOB_ID - 1) / 2];

	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		return error_errno(err, -errno, "cannot make a random id");
	for (unsigned i = 0; i < sizeof(random); i++)
		snprintf(ret + 2 * i, 3, "%02x", random[i]);
	return 0;
}
