/* SPDX-License-Identifier: Apache-2.0 */
/* Why a claim cannot be met: what is missing, and who holds it. */

#include <errno.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/parse.h"
#include "node/alloc-free.h"
#include "node/store.h"

#define HOLDERS "SELECT c.user, c.id, v.name, v.since, "
#define OF_VM " JOIN vm v ON v.id = x.vm JOIN cluster c ON c.id = v.cluster "

struct refusal {
	struct alloc *a;
	const struct claim *claim;
	const struct place_free *f;
	struct place_free whole;
	json_t *missing;
};

static int add_holder(const struct store_row *row, void *arg)
{
	json_t *holder =
		json_pack("{s:I, s:s, s:s, s:I, s:I}", "user", (json_int_t)store_int(row, 0),
			  "cluster", store_text(row, 1), "vm", store_text(row, 2), "since",
			  (json_int_t)store_int(row, 3), "holds", (json_int_t)store_int(row, 4));

	return json_array_append_new(arg, holder) ? -ENOMEM : 0;
}

/* An entry; without a page size or device that is 0 or NULL. Its holders are to be added to *ret.
 */
static int add(struct refusal *r, const char *resource, uint64_t want, uint64_t have,
	       uint64_t total, json_t **ret)
{
	json_t *holders = json_array();
	json_t *entry = json_pack("{s:s, s:I, s:I, s:I, s:o}", "resource", resource, "want",
				  (json_int_t)want, "free", (json_int_t)have, "total",
				  (json_int_t)total, "holders", holders);

	if (json_array_append_new(r->missing, entry))
		return -ENOMEM;
	*ret = entry;
	return 0;
}

/* What all VMs need together: their own, and as much as is kept for the largest of the others. */
static struct place_room wanted(const struct refusal *r)
{
	struct place_room own = {0}, kept = r->f->kept_all;

	for (unsigned i = 0; i < r->claim->nvms; i++) {
		const struct claim_vm *vm = &r->claim->vms[i];

		if (vm->dedicated) {
			own.threads += vm->cpus;
			own.cores += vm->cores ? vm->cpus : 0;
		} else {
			place_keep(&kept, vm->cpus, vm->cores);
		}
	}
	return (struct place_room){own.threads + kept.threads, own.cores + kept.cores};
}

static int check_cpus(struct refusal *r, struct error *err)
{
	struct place_room want = wanted(r), have = place_room(r->f, -1);
	struct place_room total = place_room(&r->whole, -1);
	json_t *entry;
	int code;

	if (want.cores > have.cores)
		code = add(r, "cores", want.cores, have.cores, total.cores, &entry);
	else if (want.threads > have.threads)
		code = add(r, "threads", want.threads, have.threads, total.threads, &entry);
	else
		return 0;
	if (code)
		return code;
	return store_each(r->a->store, add_holder, json_object_get(entry, "holders"), err,
			  HOLDERS "count(*) FROM cpu x" OF_VM "GROUP BY v.id ORDER BY v.id", "");
}

static uint64_t pages_in_all(const struct place_free *f, uint64_t size)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < f->t->nnodes; i++) {
		int k = place_pages(f->t, i, size);

		n += k < 0 ? 0 : f->pages[i][k];
	}
	return n;
}

static int check_memory(struct refusal *r, uint64_t size, struct error *err)
{
	uint64_t want = 0, have = pages_in_all(r->f, size) * size;
	json_t *entry;

	for (unsigned i = 0; i < r->claim->nvms; i++)
		if (r->claim->vms[i].page_size == size &&
		    __builtin_add_overflow(want, r->claim->vms[i].memory, &want))
			want = INT64_MAX;
	want = want < INT64_MAX ? want : INT64_MAX;
	if (want <= have)
		return 0;
	if (add(r, "memory", want, have, pages_in_all(&r->whole, size) * size, &entry) ||
	    json_object_set_new(entry, "page-size", json_integer(size)))
		return -ENOMEM;
	return store_each(r->a->store, add_holder, json_object_get(entry, "holders"), err,
			  HOLDERS "sum(x.bytes) FROM memory x" OF_VM
				  "WHERE x.page_size = ? GROUP BY v.id ORDER BY v.id",
			  "i", (int64_t)size);
}

/* Those who have what would do, or what is tied to it. */
struct device_holders {
	const struct topology *t;
	const char *wanted;
	json_t *list;
};

static int add_device_holder(const struct store_row *row, void *arg)
{
	struct device_holders *h = arg;
	int held = topology_device(h->t, store_text(row, 5));

	for (unsigned i = 0; held >= 0 && i < h->t->ndevices; i++)
		if (place_device_matches(&h->t->devices[i], h->wanted) &&
		    place_device_tied(&h->t->devices[i], &h->t->devices[held]))
			return add_holder(row, h->list);
	return 0;
}

static int check_devices(struct refusal *r, struct error *err)
{
	const struct topology *t = r->a->topology;
	CLEANUP_FREE int *owner = calloc(t->ndevices + 1, sizeof(*owner));
	struct device_holders holders = {.t = t};
	unsigned vm, wanted, total = 0, have = 0;
	json_t *entry;

	if (!owner)
		return -ENOMEM;
	memcpy(owner, r->f->devices, t->ndevices * sizeof(*owner));
	if (!place_devices(t, r->claim, owner, &vm, &wanted))
		return 0;
	holders.wanted = r->claim->vms[vm].devices[wanted];
	for (unsigned i = 0; i < t->ndevices; i++)
		if (place_device_matches(&t->devices[i], holders.wanted)) {
			total++;
			have += owner[i] == PLACE_FREE;
		}
	if (add(r, "device", 1, have, total, &entry) ||
	    json_object_set_new(entry, "device", json_string(holders.wanted)) ||
	    json_object_set_new(entry, "for", json_string(r->claim->vms[vm].name)))
		return -ENOMEM;
	holders.list = json_object_get(entry, "holders");
	return store_each(r->a->store, add_device_holder, &holders, err,
			  HOLDERS "1, x.address FROM device x" OF_VM "ORDER BY x.address", "");
}

/* In all there is enough, but not together. */
static int check_shape(struct refusal *r, int why, struct error *err)
{
	struct placement *p = NULL;
	json_t *entry;
	int never;

	if (json_array_size(r->missing))
		return 0;
	never = place(&r->whole, r->claim, &p);
	placement_destroy(p);
	if (add(r, "placement", 1, 0, never != -EBUSY, &entry) ||
	    json_object_set_new(entry, "reason",
				json_string(why == -ELOOP
						    ? "none was found in reasonable time"
						    : "nothing fits into NUMA nodes as asked for")))
		return -ENOMEM;
	return store_each(r->a->store, add_holder, json_object_get(entry, "holders"), err,
			  HOLDERS "v.cpus FROM vm v JOIN cluster c ON c.id = v.cluster "
				  "ORDER BY v.id",
			  "");
}

static const char *when(int64_t since, char *buf, size_t size)
{
	time_t t = since;
	struct tm tm;

	if (!localtime_r(&t, &tm) || !strftime(buf, size, "%F %R", &tm))
		buf[0] = 0;
	return buf;
}

static void write_holders(FILE *out, const json_t *list)
{
	const json_t *h;
	size_t i;

	json_array_foreach (list, i, h) {
		json_int_t user = json_integer_value(json_object_get(h, "user"));
		const struct passwd *pw = getpwuid(user);
		char since[32];

		if (pw)
			fprintf(out, "%s%s's ", i ? ", " : " (held: ", pw->pw_name);
		else
			fprintf(out, "%suser %lld's ", i ? ", " : " (held: ", (long long)user);
		fprintf(out, "%s/%s since %s", json_string_value(json_object_get(h, "cluster")),
			json_string_value(json_object_get(h, "vm")),
			when(json_integer_value(json_object_get(h, "since")), since,
			     sizeof(since)));
	}
	if (json_array_size(list))
		fputc(')', out);
}

static void write_amounts(FILE *out, const json_t *entry, const char *resource)
{
	uint64_t want = json_integer_value(json_object_get(entry, "want"));
	uint64_t have = json_integer_value(json_object_get(entry, "free"));
	uint64_t total = json_integer_value(json_object_get(entry, "total"));
	char size[4][32];

	if (!strcmp(resource, "threads") || !strcmp(resource, "cores"))
		fprintf(out, "%d %s wanted, %d of %d are free", (int)want,
			resource[0] == 't' ? "CPUs" : "cores", (int)have, (int)total);
	else if (!strcmp(resource, "memory"))
		fprintf(out, "memory: %s wanted in pages of %s, %s of %s are free",
			format_size(want, size[0], sizeof(size[0])),
			format_size(json_integer_value(json_object_get(entry, "page-size")),
				    size[1], sizeof(size[1])),
			format_size(have, size[2], sizeof(size[2])),
			format_size(total, size[3], sizeof(size[3])));
	else if (!strcmp(resource, "device"))
		fprintf(out, "device %s for %s: %s",
			json_string_value(json_object_get(entry, "device")),
			json_string_value(json_object_get(entry, "for")),
			total ? "none is free" : "the node has none to give");
	else
		fprintf(out, "placement: %s", json_string_value(json_object_get(entry, "reason")));
}

/* The sentence, and whether it can ever be met. */
static int tell(const struct refusal *r, struct error *err)
{
	CLEANUP_FREE char *text = NULL;
	size_t size, i;
	FILE *out = open_memstream(&text, &size);
	const json_t *entry;
	int code = -EBUSY;

	if (!out)
		return -ENOMEM;
	json_array_foreach (r->missing, i, entry) {
		const char *resource = json_string_value(json_object_get(entry, "resource"));

		if (json_integer_value(json_object_get(entry, "want")) >
		    json_integer_value(json_object_get(entry, "total")))
			code = -E2BIG;
		fputs(i ? "; " : "", out);
		write_amounts(out, entry, resource);
		write_holders(out, json_object_get(entry, "holders"));
	}
	fclose(out);
	return error_set(err, code, "%s: %s", r->claim->cluster, text);
}

int alloc_refuse(struct alloc *a, const struct claim *claim, const struct place_free *f, int why,
		 json_t **missing, struct error *err)
{
	static const uint64_t sizes[] = {CLAIM_BASE, 2 << 20, 1 << 30};
	struct refusal r = {.a = a, .claim = claim, .f = f, .missing = json_array()};
	int code = alloc_free(a, true, &r.whole, err);

	if (code) {
		json_decref(r.missing);
		return code;
	}
	code = check_cpus(&r, err);
	for (unsigned i = 0; !code && i < ARRAY_SIZE(sizes); i++)
		code = check_memory(&r, sizes[i], err);
	if (!code)
		code = check_devices(&r, err);
	if (!code)
		code = check_shape(&r, why, err);
	place_free_done(&r.whole);
	if (!code) {
		code = tell(&r, err);
		*missing = json_incref(r.missing);
	}
	json_decref(r.missing);
	return code == -ENOMEM ? error_set(err, code, "out of memory") : code;
}
