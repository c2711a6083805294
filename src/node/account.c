/* SPDX-License-Identifier: Apache-2.0 */
/* Records of usage. */

#include "node/account.h"

#include <errno.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "node/store.h"

/* What the allocator has given vm, for when it is given to others. */
#define HELD                                                                                       \
	"json_object("                                                                             \
	"'cpus', (SELECT json_group_array(cpu) FROM"                                               \
	"  (SELECT cpu FROM cpu WHERE cpu.vm = vm.id ORDER BY cpu)),"                              \
	"'memory', (SELECT json_group_object(node, bytes) FROM"                                    \
	"  (SELECT node, sum(bytes) AS bytes FROM memory WHERE memory.vm = vm.id GROUP BY node))," \
	"'devices', (SELECT json_group_array(address) FROM device WHERE device.vm = vm.id))"

int64_t account_begin(struct store *s, const struct account_vm *vm, int64_t now, struct error *err)
{
	int r = store_run(
		s, err,
		"INSERT INTO usage (cluster, vm, user, started, seen, cpus, cores, memory, "
		"devices, held) VALUES (?1, ?2, ?3, ?4, ?4, ?5, ?6, ?7, ?8, "
		"(SELECT " HELD " FROM vm WHERE cluster = ?1 AND name = ?2))",
		"ttiiiiii", vm->cluster, vm->vm, (int64_t)vm->user, now, (int64_t)vm->cpus,
		(int64_t)vm->cores, (int64_t)vm->memory, (int64_t)vm->devices);

	return r ? r : store_last_id(s);
}

static int changed(struct store *s, int64_t id, int r, struct error *err)
{
	if (r || store_changes(s))
		return r;
	return error_set(err, -ENOENT, "no record %lld of a VM that runs", (long long)id);
}

/* A counter that is less than it was began anew: what it had is before it. */
#define BEFORE(total, before, now) \
	"CASE WHEN " now " < " total " - " before " THEN " total " ELSE " before " END"
/* What is not known (-1) is what it was. */
#define NOW(total, before, now) "CASE WHEN " now " < 0 THEN " total " - " before " ELSE " now " END"
#define COUNT_KNOWN(total, before, now)                              \
	before " = " BEFORE(total, before, now) ", " total " = " now \
						" + " BEFORE(total, before, now)
#define COUNT(total, before, now) COUNT_KNOWN(total, before, "(" NOW(total, before, now) ")")

int account_update(struct store *s, int64_t id, const struct account_use *use, int64_t now,
		   struct error *err)
{
	int r = store_run(
		s, err,
		"UPDATE usage SET seen = max(seen, ?2), peak_memory = max(peak_memory, ?3), " COUNT(
			"cpu_us", "cpu_before",
			"?4") ", " COUNT("exits", "exits_before",
					 "?5") ", " COUNT("bytes", "bytes_before",
							  "?6") " WHERE id = ?1 AND ended IS NULL",
		"iiiiii", id, now, (int64_t)use->peak_memory, (int64_t)use->cpu_us,
		(int64_t)use->exits, (int64_t)use->bytes);

	return changed(s, id, r, err);
}

static int is_there(const struct store_row *row, void *arg)
{
	return 1;
}

bool account_is_open(struct store *s, const char *cluster, const char *vm)
{
	return store_each(s, is_there, NULL, NULL,
			  "SELECT 1 FROM usage WHERE cluster = ? AND vm = ? AND ended IS NULL",
			  "tt", cluster, vm) == 1;
}

int account_close(struct store *s, const char *cluster, const char *vm, const char *how,
		  int64_t now, struct error *err)
{
	return store_run(s, err,
			 "UPDATE usage SET seen = max(seen, ?4), ended = max(seen, ?4), how = ?3 "
			 "WHERE cluster = ?1 AND (?2 IS NULL OR vm = ?2) AND ended IS NULL",
			 "ttti", cluster, vm, how, now);
}

int account_recover(struct store *s, struct error *err)
{
	int r = store_run(
		s, err,
		"UPDATE usage SET ended = seen, how = 'lost' WHERE ended IS NULL AND NOT EXISTS "
		"(SELECT 1 FROM vm WHERE vm.cluster = usage.cluster AND vm.name = usage.vm)",
		"");

	return r ? r : (int)store_changes(s);
}

/* A VMM is its user's: whatever it says, a record stays a record. */
static void add_up(uint64_t *sum, const json_t *value)
{
	const json_int_t most = 1LL << 53;
	json_int_t n = json_integer_value(value);

	n = n < 0 ? 0 : n;
	*sum = n > most || *sum + n > (uint64_t)most ? (uint64_t)most : *sum + n;
}

void account_read(const json_t *stats, struct account_use *ret)
{
	static const char *const kinds[] = {"pio", "mmio", "interrupted", "other"};
	json_t *devices = json_object_get(stats, "devices"), *device, *value;
	const json_t *vcpu;
	const char *id, *key;
	size_t i;

	ret->exits = ret->bytes = 0;
	json_array_foreach (json_object_get(stats, "vcpu_exits"), i, vcpu)
		for (unsigned k = 0; k < ARRAY_SIZE(kinds); k++)
			add_up(&ret->exits, json_object_get(vcpu, kinds[k]));
	json_object_foreach (devices, id, device)
		json_object_foreach (device, key, value)
			if (strstr(key, "bytes"))
				add_up(&ret->bytes, value);
}

static json_t *number_or_null(const struct store_row *row, unsigned column)
{
	return store_text(row, column) ? json_integer(store_int(row, column)) : json_null();
}

/* Of which JSON was kept, or null. */
static json_t *json_or_null(const struct store_row *row, unsigned column)
{
	const char *text = store_text(row, column);
	json_t *value = text ? json_loads(text, 0, NULL) : NULL;

	return value ? value : json_null();
}

static int add_record(const struct store_row *row, void *arg)
{
	json_t *record = json_pack(
		"{s:s, s:s, s:I, s:I, s:I, s:o, s:s?, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, "
		"s:I, s:o}",
		"cluster", store_text(row, 0), "vm", store_text(row, 1), "user",
		(json_int_t)store_int(row, 2), "started", (json_int_t)store_int(row, 3), "seen",
		(json_int_t)store_int(row, 4), "ended", number_or_null(row, 5), "how",
		store_text(row, 6), "cpus", (json_int_t)store_int(row, 7), "cores",
		(json_int_t)store_int(row, 8), "memory", (json_int_t)store_int(row, 9), "devices",
		(json_int_t)store_int(row, 10), "peak_memory", (json_int_t)store_int(row, 12),
		"exits", (json_int_t)store_int(row, 13), "bytes", (json_int_t)store_int(row, 14),
		"seconds", (json_int_t)store_int(row, 15), "cpu_seconds",
		(double)store_int(row, 11) / 1e6, "core_seconds",
		(json_int_t)(store_int(row, 15) * store_int(row, 8)), "held",
		json_or_null(row, 16));

	return json_array_append_new(arg, record) ? -ENOMEM : 0;
}

int account_list(struct store *s, const struct account_query *query, json_t **ret,
		 struct error *err)
{
	json_t *list = json_array();
	int r = store_each(
		s, add_record, list, err,
		"SELECT cluster, vm, user, started, seen, ended, how, cpus, cores, memory, "
		"devices, cpu_us, peak_memory, exits, bytes, "
		"min(seen, ?2) - max(started, ?1), held FROM usage WHERE started < ?2 AND seen >= "
		"?1 "
		"AND (?3 IS NULL OR cluster = ?3) AND (?4 < 0 OR user = ?4) "
		"ORDER BY started, id",
		"iiti", query->from, query->to ? query->to : INT64_MAX, query->cluster,
		query->user);

	if (r) {
		json_decref(list);
		return r == -ENOMEM ? error_set(err, r, "out of memory") : r;
	}
	*ret = list;
	return 0;
}
