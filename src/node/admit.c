/* SPDX-License-Identifier: Apache-2.0 */
/* The meet of a request with this node's policy. */

#include "node/admit.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "env/result.h"
#include "env/type.h"
#include "env/waiver.h"
#include "image/image.h"
#include "lib/cleanup.h"
#include "lib/error.h"

#define MAX_DOCUMENTS 64
#define MAX_TEXT_ALL (64u << 10) /* of all documents: everybody waits while they are met */
#define MAX_WAIVERS 64

/* All that a meet is made of. */
struct gathered {
	struct documents docs;
	struct args waived; /* rules */
	json_t *facts, *used;
};

/* -------- facts -------- */

/* What nobody has to be believed. */
static int own_facts(const struct admit *a, const json_t *user, json_t *facts, struct error *err)
{
	const json_t *group;
	size_t i;
	int r;

	if (!user)
		return error_set(err, -ENOENT,
				 "this node's user database does not know you, or does not answer");
	r = facts_add(facts, "user", json_string_value(json_object_get(user, "user")), err);
	json_array_foreach (json_object_get(user, "groups"), i, group)
		if (!r)
			r = facts_add(facts, "group", json_string_value(group), err);
	if (!r && a->type)
		r = facts_add(facts, "node-type", a->type, err);
	return r;
}

static int add_fact(json_t *facts, const char *name, const json_t *value, struct error *err)
{
	char number[32];

	if (!strcmp(name, "user") || !strcmp(name, "group") || !strcmp(name, "node-type"))
		return error_set(err, -EPERM, "fact %s is what the node knows, leave it out", name);
	if (json_is_string(value))
		return facts_add(facts, name, json_string_value(value), err);
	if (!json_is_integer(value))
		return error_set(err, -EINVAL, "fact %s has to be a text or a number", name);
	snprintf(number, sizeof(number), "%" JSON_INTEGER_FORMAT, json_integer_value(value));
	return facts_add(facts, name, number, err);
}

static int callers_facts(json_t *facts, const json_t *given, struct error *err)
{
	const json_t *value;
	const char *name;
	int r = 0;

	if (given && !json_is_object(given))
		return error_set(err, -EINVAL, "\"facts\" has to be an object");
	json_object_foreach ((json_t *)given, name, value) {
		r = add_fact(facts, name, value, err);
		if (r)
			break;
	}
	return r;
}

/* -------- documents -------- */

static int add_documents(struct documents *docs, const json_t *list, struct error *err)
{
	const json_t *item;
	size_t i, all = 0;

	if (!json_is_array(list) || json_array_size(list) > MAX_DOCUMENTS)
		return error_set(err, -EINVAL, "\"documents\" has to be a list of at most %d",
				 MAX_DOCUMENTS);
	json_array_foreach (list, i, item) {
		const char *name = json_string_value(json_object_get(item, "name"));
		const json_t *text = json_object_get(item, "text");

		if (!name || !json_is_string(text))
			return error_set(err, -EINVAL,
					 "document %zu has to have a \"name\" and a \"text\"", i);
		all += json_string_length(text);
		if (all > MAX_TEXT_ALL)
			return error_set(err, -E2BIG,
					 "the documents have more than %u bytes together",
					 MAX_TEXT_ALL);
		documents_parse(docs, json_string_value(text), json_string_length(text), name,
				false);
	}
	return 0;
}

static int use_waiver(struct gathered *m, const struct waiver *waiver, const char *where,
		      struct error *err)
{
	int r = documents_check_rule(&m->docs, waiver->rule, where, err);

	if (r)
		return r;
	args_add(&m->waived, "%s", waiver->rule);
	json_array_append_new(m->used,
			      json_pack("{s:s, s:s, s:I, s:s*}", "rule", waiver->rule, "user",
					waiver->user, "until", (json_int_t)waiver->until, "because",
					waiver->because));
	return 0;
}

static int add_waivers(const struct admit *a, struct gathered *m, const json_t *list, int64_t now,
		       struct error *err)
{
	const json_t *item;
	size_t i;

	if ((list && !json_is_array(list)) || json_array_size(list) > MAX_WAIVERS)
		return error_set(err, -EINVAL, "\"waivers\" has to be a list of at most %d texts",
				 MAX_WAIVERS);
	json_array_foreach (list, i, item) {
		struct waiver waiver;
		char where[32];
		int r;

		snprintf(where, sizeof(where), "waiver %zu", i + 1);
		if (!json_is_string(item))
			return error_set(err, -EINVAL, "%s has to be a text", where);
		r = waiver_check(json_string_value(item), where, a->keys, m->facts, now, &waiver,
				 err);
		if (!r) {
			r = use_waiver(m, &waiver, where, err);
			waiver_done(&waiver);
		}
		if (r)
			return r;
	}
	return 0;
}

static int gather(const struct admit *a, const json_t *user, const json_t *request, int64_t now,
		  struct gathered *m, struct error *err)
{
	int r;

	m->facts = json_object();
	m->used = json_array();
	r = own_facts(a, user, m->facts, err);
	if (!r)
		r = callers_facts(m->facts, json_object_get(request, "facts"), err);
	if (!r)
		r = add_documents(&m->docs, json_object_get(request, "documents"), err);
	if (!r && a->policy)
		documents_load_policy(&m->docs, a->policy);
	if (!r)
		r = add_waivers(a, m, json_object_get(request, "waivers"), now, err);
	if (!r && (m->docs.problems.failed || m->waived.failed))
		r = error_set(err, -ENOMEM, "out of memory");
	if (!r && m->docs.problems.n)
		r = error_set(err, -EINVAL, "%s%s", m->docs.problems.v[0],
			      m->docs.problems.n > 1 ? " (and more)" : "");
	return r;
}

/* -------- the result -------- */

/* The first field in which two environments differ, as a path in a new string. */
static char *first_difference(const json_t *ours, const json_t *theirs)
{
	CLEANUP_FREE char *a = json_dumps(ours, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY);
	CLEANUP_FREE char *b = json_dumps(theirs, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY);
	size_t n = 0;
	char *text;

	while (a && b && a[n] && a[n] == b[n])
		n++;
	while (a && n && a[n - 1] != ',' && a[n - 1] != '{')
		n--;
	if (!a || !b || asprintf(&text, "%.80s here, %.80s there", a + n, b + n) < 0)
		return NULL;
	return text;
}

/* The digest that the others came to; what they came to may be there as well. */
static int compare(const json_t *closed, const json_t *request, struct error *err)
{
	const char *wanted = json_string_value(json_object_get(request, "digest"));
	const json_t *theirs = json_object_get(request, "environment");
	CLEANUP_FREE char *field = NULL;
	char digest[DIGEST_TEXT];
	int r = result_digest(closed, digest, err);

	if (r || (wanted && !strcmp(wanted, digest)))
		return r;
	if (!wanted)
		return error_set(err, -EINVAL, "\"digest\" of the environment is missing");
	field = json_is_object(theirs) ? first_difference(closed, theirs) : NULL;
	return error_set(err, -ESTALE,
			 "this node's policy comes to the environment %.12s, not %.12s%s%s", digest,
			 wanted, field ? ": " : "", field ? field : "");
}

static int refuse(const struct meet *m, json_t **conflicts, struct error *err)
{
	json_t *report = result_report(m);

	*conflicts = json_incref(json_object_get(report, "conflicts"));
	json_decref(report);
	for (size_t i = 0; i < m->n; i++)
		if (m->d[i].why)
			return error_set(err, -EBADE, "%s: %s%s", m->d[i].name, m->d[i].why,
					 m->conflicts > 1 ? " (and more conflicts)" : "");
	return error_set(err, -EBADE, "the documents conflict");
}

/* Where it was the user alone who wanted them nobody else minds if there are none. */
static int64_t policys_interval(const struct meet *meet)
{
	const struct decision *d = meet_find(meet, "checkpoint.interval");
	bool rule = false;

	for (size_t i = 0; d && i < d->n; i++)
		rule = rule || d->claim[i]->doc->level != LEVEL_USER;
	return rule ? (int64_t)json_integer_value(d->value) / 1000 : 0;
}

void admitted_done(struct admitted *admitted)
{
	json_decref(admitted->environment);
	json_decref(admitted->waivers);
	json_decref(admitted->conflicts);
	*admitted = (struct admitted){NULL};
}

int admit(const struct admit *a, const json_t *user, const json_t *request, int64_t now,
	  struct admitted *ret, struct error *err)
{
	struct gathered m = {0};
	struct meet meet = {0};
	json_t *closed = NULL;
	int r = gather(a, user, request, now, &m, err);

	if (!r) {
		meet_documents(&m.docs, m.facts, &m.waived, &meet);
		if (meet.failed)
			r = error_set(err, -ENOMEM, "out of memory");
		else if (meet.conflicts)
			r = refuse(&meet, &ret->conflicts, err);
	}
	if (!r) {
		closed = result_json(&meet);
		r = compare(closed, request, err);
	}
	if (!r)
		r = image_follows(&meet, json_object_get(request, "image"),
				  json_object_get(request, "proof"), a->keys, err);
	if (!r) {
		ret->environment = json_incref(closed);
		ret->waivers = json_incref(m.used);
		ret->save_every = policys_interval(&meet);
	}
	meet_done(&meet);
	documents_done(&m.docs);
	args_done(&m.waived);
	json_decref(m.facts);
	json_decref(m.used);
	json_decref(closed);
	return r;
}

/* -------- what it claims -------- */

static json_int_t page_size(const char *text)
{
	return !strcmp(text, "2M") ? 2 << 20 : !strcmp(text, "1G") ? 1 << 30 : 4096;
}

/* "pci:ADDRESS" is the address; "vf:INTERFACE" a function of the interface's device. */
static int device(const char *text, json_t *list, struct error *err)
{
	char path[128], target[PATH_MAX];
	const char *slash;
	ssize_t n;

	if (!strncmp(text, "pci:", 4))
		return json_array_append_new(list, json_string(text + 4)) ? -ENOMEM : 0;
	snprintf(path, sizeof(path), "/sys/class/net/%.32s/device", text + 3);
	n = strchr(text + 3, '/') ? -1 : readlink(path, target, sizeof(target) - 1);
	if (n < 0)
		return error_set(err, -ENODEV, "%s: this node has no such interface of a device",
				 text);
	target[n] = 0;
	slash = strrchr(target, '/');
	return json_array_append_new(list, json_sprintf("vf:%s", slash ? slash + 1 : target))
		       ? -ENOMEM
		       : 0;
}

static int devices(const json_t *wanted, json_t *ret, struct error *err)
{
	const json_t *item;
	size_t i;
	int r = 0;

	json_array_foreach (wanted, i, item) {
		r = device(json_string_value(item), ret, err);
		if (r)
			break;
	}
	return r;
}

static json_t *one_vm(const json_t *environment, const json_t *name, json_t *list)
{
	const char *numa = json_string_value(json_object_get(environment, "numa"));
	const char *pages = json_string_value(json_object_get(environment, "page-size"));

	const char *pinning = json_string_value(json_object_get(environment, "pinning"));

	return json_pack("{s:O, s:O, s:O, s:I, s:b, s:b, s:s, s:O}", "name", name, "cpus",
			 json_object_get(environment, "cpus"), "memory",
			 json_object_get(environment, "memory"), "page-size",
			 page_size(pages ? pages : ""), "dedicated",
			 json_is_true(json_object_get(environment, "dedicated")), "cores",
			 pinning && !strcmp(pinning, "cores"), "numa", numa ? numa : "none",
			 "devices", list);
}

int admit_count(const json_t *environment, size_t vms, struct error *err)
{
	static const char *const limits[] = {"vms-per-node", "vms"};

	for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
		json_int_t most = json_integer_value(json_object_get(environment, limits[i]));

		if (vms > (size_t)most)
			return error_set(err, -EPERM, "%zu VMs on one node are more than %s (%lld)",
					 vms, limits[i], (long long)most);
	}
	return 0;
}

int admit_place(const struct admit *a, const json_t *environment, const json_t *labels,
		struct error *err)
{
	const json_t *node = json_object_get(environment, "node"), *label;
	const char *type = json_string_value(json_object_get(node, "type"));
	size_t i;

	if (type && (!a->type || strcmp(type, a->type)))
		return error_set(err, -EPERM, "node.type is %s, and this node's is %s", type,
				 a->type ? a->type : "not known");
	json_array_foreach (json_object_get(node, "labels"), i, label)
		if (!texts_contain(labels, json_string_value(label)))
			return error_set(err, -EPERM, "node.labels: this node has no label %s",
					 json_string_value(label));
	return 0;
}

int admit_claim(const json_t *environment, const char *cluster, const json_t *vms, json_t **ret,
		struct error *err)
{
	json_t *list = json_array(), *claim, *wanted = json_array();
	const json_t *vm;
	size_t i;
	int r = 0;

	r = admit_count(environment, json_array_size(vms), err);
	if (!r)
		r = devices(json_object_get(environment, "devices"), wanted, err);
	json_array_foreach (vms, i, vm) {
		const json_t *name = json_object_get(vm, "name");

		if (!r && (!json_is_string(name) ||
			   json_array_append_new(list, one_vm(environment, name, wanted))))
			r = error_set(err, -EINVAL, "a VM has to have a \"name\"");
	}
	claim = r ? NULL : json_pack("{s:s, s:O}", "cluster", cluster, "vms", list);
	json_decref(list);
	json_decref(wanted);
	if (!r && !claim)
		r = error_set(err, -EINVAL, "the cluster's name is no text");
	if (!r)
		*ret = claim;
	return r;
}

bool admit_leads_out(const json_t *environment)
{
	const json_t *network = json_object_get(environment, "network");

	return json_is_false(json_object_get(network, "isolated"));
}

bool admit_on_lan(const json_t *environment, unsigned *vlan)
{
	const json_t *network = json_object_get(environment, "network");
	const char *kind = json_string_value(json_object_get(network, "kind"));

	*vlan = (unsigned)json_integer_value(json_object_get(network, "vlan"));
	return kind && !strcmp(kind, "macvtap");
}

/* -------- the policy's digest -------- */

static int by_file(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* As it is read: the files' names and digests, sorted. */
static int add_files(const struct documents *docs, struct digest *digest, struct error *err)
{
	CLEANUP_FREE const char **files = calloc(docs->n + 1, sizeof(*files));
	int r = files ? 0 : -ENOMEM;

	for (size_t i = 0; !r && i < docs->n; i++)
		files[i] = docs->doc[i]->file;
	if (!r)
		qsort(files, docs->n, sizeof(*files), by_file);
	for (size_t i = 0; !r && i < docs->n; i++) {
		const char *name = strrchr(files[i], '/');
		char text[DIGEST_TEXT];

		if (i && !strcmp(files[i], files[i - 1]))
			continue;
		name = name ? name + 1 : files[i];
		r = digest_file(files[i], text, NULL, err);
		if (!r)
			r = digest_add(digest, name, strlen(name) + 1, err);
		if (!r)
			r = digest_add(digest, text, sizeof(text), err);
	}
	return r;
}

int admit_policy_digest(const char *folder, char ret[DIGEST_TEXT], struct error *err)
{
	struct documents docs = {0};
	struct digest *digest = NULL;
	int r = digest_begin(&digest, err);

	if (r)
		return r;
	if (folder)
		documents_load_policy(&docs, folder);
	if (docs.problems.n)
		r = error_set(err, -EINVAL, "%s", docs.problems.v[0]);
	if (!r)
		r = add_files(&docs, digest, err);
	documents_done(&docs);
	if (r) {
		digest_drop(digest);
		return r;
	}
	return digest_end(digest, ret, err);
}
