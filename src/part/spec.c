/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The description of a cluster's VM. Each field of an environment has a row here: what it does to a
 * VM, or whose it is.
 */

#include "part/spec.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "env/able.h"
#include "lib/args.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/parse.h"
#include "part/pin.h"
#include "vms/record.h"
#include "vms/shares.h"

#define CPUS_MAX 254
#define PAGE 4096
#define DISKS_MAX 16 /* volumes; wisp-vmm has room for more devices, but not for many */

struct derivation {
	const struct setup *setup;
	const struct setup_vm *vm;
	const struct spec_host *host;
	json_t *spec;
};

typedef int field_fn(struct derivation *d, const json_t *value, struct error *err);

static int put(struct derivation *d, const char *key, json_t *value, struct error *err)
{
	return json_object_set_new(d->spec, key, value) < 0
		       ? error_set(err, -EINVAL, "%s: not UTF-8 text, or no memory", key)
		       : 0;
}

static const json_t *field(const struct derivation *d, const char *name)
{
	return json_object_get(d->setup->environment, name);
}

static bool is_word(const json_t *value, const char *word)
{
	const char *text = json_string_value(value);

	return text && !strcmp(text, word);
}

/* -------- CPUs and memory -------- */

static unsigned vcpus(const struct derivation *d)
{
	return (unsigned)json_integer_value(field(d, "cpus"));
}

static int set_cpus(struct derivation *d, const json_t *value, struct error *err)
{
	json_int_t n = json_integer_value(value);
	CLEANUP_FREE char *text = io_format("%lld", (long long)n);

	if (n < 1 || n > CPUS_MAX)
		return error_set(err, -EINVAL, "cpus: not a number from 1 to %d", CPUS_MAX);
	return put(d, "cpus", json_string(text), err);
}

static int set_memory(struct derivation *d, const json_t *value, struct error *err)
{
	json_int_t n = json_integer_value(value);
	CLEANUP_FREE char *text = io_format("%lldK", (long long)(n / 1024));

	if (n < 1 << 20 || n % PAGE)
		return error_set(err, -EINVAL, "memory: %lld bytes are not whole pages of 4 KiB",
				 (long long)n);
	return put(d, "memory", json_string(text), err);
}

/* What was granted counts: it is what was set aside. */
static int set_page_size(struct derivation *d, const json_t *value, struct error *err)
{
	json_int_t granted = json_integer_value(json_object_get(d->vm->grant, "page-size"));
	const char *text = granted == 4096	? "4K"
			   : granted == 2 << 20 ? "2M"
			   : granted == 1 << 30 ? "1G"
						: json_string_value(value);

	if (!text)
		return error_set(err, -EINVAL, "page-size: not a text");
	return put(d, "page-size", json_string(text), err);
}

static int set_prefault(struct derivation *d, const json_t *value, struct error *err)
{
	return put(d, "prefault", json_boolean(json_is_true(value)), err);
}

static bool is_dedicated(const struct derivation *d)
{
	return json_is_true(json_object_get(d->vm->grant, "dedicated"));
}

/* What was granted, as far as the kernel lets us have it. */
static int granted_cpus(const struct derivation *d, cpu_set_t *ret, struct error *err)
{
	const char *list = json_string_value(json_object_get(d->vm->grant, "cpus"));
	char have[256];
	int r;

	*ret = d->host->cpus;
	if (!list)
		return 0;
	r = parse_cpulist(list, ret, err);
	if (r)
		return error_prefix(err, r, "grant of %s", d->vm->name);
	CPU_AND(ret, ret, &d->host->cpus);
	return CPU_COUNT(ret) ? 0
			      : error_set(err, -EBUSY,
					  "CPUs %s were granted to %s, and the kernel lets the "
					  "cluster have %s alone",
					  list, d->vm->name,
					  format_cpulist(&d->host->cpus, have, sizeof(have)));
}

static int put_cpus(struct derivation *d, const char *key, const cpu_set_t *cpus, struct error *err)
{
	char list[CPU_SETSIZE * 5];

	return put(d, key, json_string(format_cpulist(cpus, list, sizeof(list))), err);
}

/* Who shares CPUs leaves those that the cluster's VMs before it are pinned to. */
static unsigned places_before(const struct derivation *d)
{
	return is_dedicated(d) ? 0 : (unsigned)(d->vm - d->setup->vms) * vcpus(d);
}

static int set_pinning(struct derivation *d, const json_t *value, struct error *err)
{
	struct pin_request request = {.vcpus = vcpus(d),
				      .cores = is_word(value, "cores"),
				      .skip = places_before(d),
				      .sys = d->host->sys};
	cpu_set_t pin;
	int r;

	if (is_word(value, "none"))
		return 0;
	if (!request.cores && !is_word(value, "threads"))
		return error_set(err, -EINVAL, "pinning is none, cores or threads");
	r = granted_cpus(d, &request.allowed, err);
	if (!r)
		r = pin_choose(&request, &pin, err);
	return r ? r : put_cpus(d, "pin", &pin, err);
}

/* All threads of its VMM stay on the cores that nobody else has. */
static int set_dedicated(struct derivation *d, const json_t *value, struct error *err)
{
	cpu_set_t cpus;
	int r;

	if (json_is_true(value) && !is_dedicated(d))
		return error_set(err, -EINVAL, "dedicated: the grant of %s is of shared CPUs",
				 d->vm->name);
	if (!is_dedicated(d))
		return 0;
	r = granted_cpus(d, &cpus, err);
	return r ? r : put_cpus(d, "affinity", &cpus, err);
}

/* Its memory is in one node, and its threads are there. */
static int bind_to_node(struct derivation *d, const json_t *node, struct error *err)
{
	CLEANUP_FREE char *text =
		io_format("%lld", (long long)json_integer_value(json_object_get(node, "node")));
	cpu_set_t cpus;
	int r = granted_cpus(d, &cpus, err);

	if (!r)
		r = put_cpus(d, "affinity", &cpus, err);
	return r ? r : put(d, "mems", json_string(text), err);
}

static int set_numa(struct derivation *d, const json_t *value, struct error *err)
{
	const json_t *nodes = json_object_get(d->vm->grant, "nodes");

	if (is_word(value, "none"))
		return 0;
	if (!is_word(value, "one") && !is_word(value, "mirror"))
		return error_set(err, -EINVAL, "numa is none, one or mirror");
	if (json_array_size(nodes) > 1)
		return error_set(
			err, -EOPNOTSUPP,
			"numa: mirror: this Wisp cannot give a VM more than one NUMA node");
	/* A user's daemon may not know of nodes. */
	return json_array_size(nodes) ? bind_to_node(d, json_array_get(nodes, 0), err) : 0;
}

/* -------- kernel, network -------- */

static int set_cmdline(struct derivation *d, const json_t *value, struct error *err)
{
	struct args line = {0};
	const json_t *word;
	size_t i;
	int r = 0;

	args_add(&line, "%s", "");
	json_array_foreach (value, i, word) {
		const char *text = json_string_value(word);

		if (!r && (!text || text[strcspn(text, " \t\n\"")]))
			r = error_set(err, -EINVAL, "cmdline: item %zu is not a word", i + 1);
		args_extend(&line, "%s%s", i ? " " : "", text ? text : "");
	}
	if (!r && line.failed)
		r = error_set(err, -ENOMEM, "out of memory");
	if (!r && *line.v[0])
		r = put(d, "cmdline", json_string(line.v[0]), err);
	args_done(&line);
	return r;
}

static int set_network(struct derivation *d, const json_t *value, struct error *err)
{
	char gateway[16];
	int r;

	if (!d->setup->made && !strcmp(record_text(value, "kind"), "macvtap"))
		return error_set(
			err, -EPERM,
			"network.kind: macvtap takes a network that root's wispd has made");
	if (!json_is_false(json_object_get(value, "isolated")))
		return 0;
	if (!d->setup->made)
		return error_set(err, -EPERM,
				 "network.isolated: no takes a network that root's wispd has made");
	subnet_format(d->setup->subnet.base + 1, gateway);
	r = put(d, "gateway", json_string(gateway), err);
	return r || !d->host->names ? r : put(d, "dns", json_string(d->host->names), err);
}

/* -------- shares and volumes -------- */

static int add_share(struct derivation *d, const char *tag, const json_t *share, struct error *err)
{
	const char *source = record_text(share, "source"), *target = record_text(share, "target");

	if (*source != '/')
		return error_set(err, -EINVAL, "shares[%s].source is not an absolute path", tag);
	return json_array_append_new(json_object_get(d->spec, "shares"),
				     json_pack("{ss,ss,ss,sb}", "tag", tag, "source", source,
					       "target", *target ? target : source, "readonly",
					       json_is_true(json_object_get(share, "readonly")))) <
			       0
		       ? error_set(err, -ENOMEM, "out of memory")
		       : 0;
}

/* Which they are the grant says. */
static int set_devices(struct derivation *d, const json_t *value, struct error *err)
{
	json_t *granted = json_object_get(d->vm->grant, "devices");

	if (json_array_size(granted) < json_array_size(value))
		return error_set(err, -EINVAL, "devices: the grant of %s has %zu of %zu",
				 d->vm->name, json_array_size(granted), json_array_size(value));
	return put(d, "devices", json_incref(granted), err);
}

/* -EINVAL when it has nothing to say where it is. */
static int add_volume(struct derivation *d, const char *name, const json_t *volume,
		      struct error *err)
{
	const char *given = record_text(volume, "path");
	const json_t *size = json_object_get(volume, "size");
	const char *filesystem = record_text(volume, "filesystem");
	CLEANUP_FREE char *own = io_format("%s/%s/%s", d->host->volumes, d->vm->name, name);
	json_t *disk;

	if (*given ? *given != '/' : json_integer_value(size) <= 0)
		return error_set(err, -EINVAL, "volumes[%s] has neither a path nor a size", name);
	if (size && json_integer_value(size) % PAGE)
		return error_set(err, -EINVAL, "volumes[%s].size is not whole pages of 4 KiB",
				 name);
	disk = json_pack("{ss,ss,sb,sb,sO*}", "name", name, "path",
			 *given ? given
			 : own	? own
				: "",
			 "readonly", json_is_true(json_object_get(volume, "readonly")), "own",
			 !*given, "size", size);
	if (disk && *filesystem && strcmp(filesystem, "none"))
		json_object_set_new(disk, "filesystem", json_string(filesystem));
	if (disk && *record_text(volume, "target"))
		json_object_set(disk, "target", json_object_get(volume, "target"));
	return json_array_append_new(json_object_get(d->spec, "disks"), disk) < 0
		       ? error_set(err, -ENOMEM, "out of memory")
		       : 0;
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The entries of a map by their names: that is the order of the devices. */
static int each_entry(struct derivation *d, const char *what, const json_t *map, size_t most,
		      int (*add)(struct derivation *d, const char *name, const json_t *entry,
				 struct error *err),
		      struct error *err)
{
	CLEANUP_FREE const char **names = calloc(json_object_size(map) + 1, sizeof(*names));
	const char *name;
	const json_t *entry;
	size_t n = 0;
	int r = 0;

	if (!json_is_object(map))
		return error_set(err, -EINVAL, "%s: not a map", what);
	if (json_object_size(map) > most)
		return error_set(err, -EOPNOTSUPP, "%s: this Wisp cannot have more than %zu yet",
				 what, most);
	if (!names)
		return error_set(err, -ENOMEM, "out of memory");
	json_object_foreach ((json_t *)map, name, entry)
		names[n++] = name;
	qsort(names, n, sizeof(*names), by_text);
	for (size_t i = 0; !r && i < n; i++)
		r = add(d, names[i], json_object_get(map, names[i]), err);
	return r;
}

static int set_shares(struct derivation *d, const json_t *value, struct error *err)
{
	return each_entry(d, "shares", value, SHARES_MAX, add_share, err);
}

static int set_volumes(struct derivation *d, const json_t *value, struct error *err)
{
	return each_entry(d, "volumes", value, DISKS_MAX, add_volume, err);
}

/* -------- all of them -------- */

/* NULL: it concerns others than the VM. */
static const struct {
	const char *name;
	field_fn *fn;
} fields[] = {
	{"name", NULL},
	/* what the image has, and whose signature it must have: image_admit() */
	{"base", NULL},
	{"compression", NULL},
	{"files", NULL},
	{"kernel", NULL},
	{"modules", NULL},
	{"packages", NULL},
	{"signed", NULL},
	{"steps", NULL},
	{"trim", NULL},
	/* the VM's machine */
	{"cpus", set_cpus},
	{"memory", set_memory},
	{"page-size", set_page_size},
	{"prefault", set_prefault},
	{"pinning", set_pinning},
	{"dedicated", set_dedicated},
	{"numa", set_numa},
	{"cmdline", set_cmdline},
	{"network", set_network},
	{"shares", set_shares},
	{"volumes", set_volumes},
	{"devices", set_devices},
	/* the daemon's: where VMs are */
	{"vms", NULL},
	{"vms-per-node", NULL},
	{"node", NULL},
	/* the coordinator's: what runs in them, and for how long */
	{"checkpoint", NULL},
	{"directory", NULL},
	{"environment", NULL},
	{"mpi", NULL},
	{"program", NULL},
	{"ranks", NULL},
	{"ranks-per-vm", NULL},
	{"user", NULL},
	{"walltime", NULL},
};

static size_t find(const char *name)
{
	size_t i = 0;

	while (i < ARRAY_SIZE(fields) && strcmp(fields[i].name, name))
		i++;
	return i;
}

bool spec_knows(const char *name)
{
	return find(name) < ARRAY_SIZE(fields);
}

/* What a newer daemon knows and we do not may be what the VM must have. */
static int check_known(const json_t *environment, struct error *err)
{
	const json_t *value;
	const char *name;

	json_object_foreach ((json_t *)environment, name, value)
		if (!spec_knows(name))
			return error_set(err, -EOPNOTSUPP, "this Wisp does not know the field %s",
					 name);
	return 0;
}

static int apply(struct derivation *d, struct error *err)
{
	static const char *const needed[] = {"cpus", "memory"};
	int r = check_known(d->setup->environment, err);

	if (!r)
		r = env_able(d->setup->environment, err);
	for (size_t i = 0; !r && i < ARRAY_SIZE(needed); i++)
		if (!field(d, needed[i]))
			r = error_set(err, -EINVAL, "the environment does not say %s", needed[i]);
	for (size_t i = 0; !r && i < ARRAY_SIZE(fields); i++)
		if (fields[i].fn && field(d, fields[i].name))
			r = fields[i].fn(d, field(d, fields[i].name), err);
	return r;
}

static json_t *beginning(const struct setup *s, const struct setup_vm *vm,
			 const struct image *image)
{
	CLEANUP_FREE char *group = s->cgroup ? io_format("%s/vm-%s", s->cgroup, vm->name) : NULL;

	return json_pack("{ss,ss,ss,ss,s[],s[],ss,ss,ss,ss,ss*,ss*}", "name", vm->name, "cluster",
			 s->cluster, "address", vm->address, "vhost", "auto", "disks", "shares",
			 "image", image->name, "kernel", image->vmlinux, "initrd", image->initrd,
			 "root", image->root, "image_key",
			 json_string_value(json_object_get(image->manifest, "key")), "cgroup",
			 group);
}

int spec_derive(const struct setup *setup, const struct setup_vm *vm, const struct image *image,
		const struct spec_host *host, json_t **ret, struct error *err)
{
	struct derivation d = {
		.setup = setup, .vm = vm, .host = host, .spec = beginning(setup, vm, image)};
	int r = d.spec ? apply(&d, err) : error_set(err, -EINVAL, "a path is not UTF-8 text");

	if (r)
		json_decref(d.spec);
	else
		*ret = d.spec;
	return r;
}
