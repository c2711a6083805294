/* SPDX-License-Identifier: Apache-2.0 */
/* The table of fields, and what a text of each may be. */

#include "env/schema.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "image/kernel.h"
#include "lib/cleanup.h"
#include "lib/paths.h"
#include "vms/subnet.h"

#define LOWER "abcdefghijklmnopqrstuvwxyz"
#define DIGITS "0123456789"
#define LETTERS LOWER "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define MAX_COUNT 1000000000
#define KIB 1024ll
#define TIB (KIB * KIB * KIB * KIB)
#define SECOND 1000ll
#define DAY (86400 * SECOND)

static bool consists_of(const char *text, const char *characters)
{
	const char *c = text;

	while (*c && strchr(characters, *c))
		c++;
	return c > text && !*c;
}

static const char *check_name(const char *text)
{
	return paths_check_name(text, "environment", NULL)
		       ? "a name (letters, digits, \".\", \"_\", \"-\")"
		       : NULL;
}

static bool is_digest(const char *text)
{
	return !strncmp(text, "sha256:", 7) && strlen(text) == 7 + 64 &&
	       consists_of(text + 7, "0123456789abcdef");
}

static bool is_image(const char *text)
{
	size_t n = strcspn(text, "@");
	CLEANUP_FREE char *name = strndup(text, n);

	return name && (!n || !paths_check_name(name, "image", NULL)) &&
	       (text[n] ? is_digest(text + n + 1) : n);
}

static const char *check_base(const char *text)
{
	bool good = !strcmp(text, "debian") ||
		    (!strncmp(text, "debian:", 7) && consists_of(text + 7, LOWER DIGITS)) ||
		    (!strncmp(text, "oci:", 4) && consists_of(text + 4, LETTERS DIGITS "._-/:@")) ||
		    (!strncmp(text, "image:", 6) && is_image(text + 6));

	return good ? NULL : "debian, debian:CODENAME, oci:REFERENCE or image:NAME[@sha256:DIGEST]";
}

static const char *check_kernel(const char *text)
{
	return strncmp(text, "linux-image-", 12) || text[strspn(text, LOWER DIGITS "+.-")]
		       ? "a kernel package, like " KERNEL_DEFAULT
		       : NULL;
}

/* "NAME-" would tell apt to remove it. */
static const char *check_package(const char *text)
{
	size_t n = strspn(text, LOWER DIGITS "+.-");

	if (n < 2 || !strchr(LOWER DIGITS, text[0]) || text[n - 1] == '-' ||
	    (text[n] && (text[n] != '=' || !consists_of(text + n + 1, LETTERS DIGITS "+.~:-"))))
		return "a Debian package, PACKAGE or PACKAGE=VERSION";
	return NULL;
}

static const char *check_module(const char *text)
{
	return consists_of(text, LETTERS DIGITS "_-") ? NULL : "a kernel module's name";
}

static const char *check_word(const char *text)
{
	bool plain = *text;

	for (const char *p = text; *p; p++)
		plain &= *p > ' ' && *p != '"' && *p != 127;
	return plain ? NULL : "a word without blanks or quotation marks";
}

static const char *check_text_any(const char *text)
{
	return NULL;
}

static bool is_plain_path(const char *path)
{
	for (const char *p = path; *p;) {
		size_t len = strcspn(p, "/");

		if (!len || (len <= 2 && !strncmp(p, "..", len)))
			return false;
		p += len;
		if (*p && !*++p)
			return false;
	}
	return *path;
}

static const char *check_from(const char *text)
{
	return is_plain_path(text) ? NULL : "a path beside the document, without \"..\"";
}

static const char *check_absolute(const char *text)
{
	return text[0] == '/' && is_plain_path(text + 1) ? NULL : "an absolute path without \"..\"";
}

static const char *check_directory(const char *text)
{
	return strcmp(text, "/") ? check_absolute(text) : NULL;
}

static const char *check_mode(const char *text)
{
	return strlen(text) == 4 && consists_of(text, "01234567") ? NULL
								  : "four octal digits, like 0755";
}

static const char *check_subnet(const char *text)
{
	char address[16];
	struct in_addr in;
	size_t n = strcspn(text, "/");
	char *end;
	long bits;

	if (n >= sizeof(address) || !text[n] || !consists_of(text + n + 1, DIGITS))
		return "ADDRESS/PREFIX, like " SUBNET_DEFAULT;
	memcpy(address, text, n);
	address[n] = 0;
	bits = strtol(text + n + 1, &end, 10);
	return inet_pton(AF_INET, address, &in) == 1 && bits >= 8 && bits <= 29
		       ? NULL
		       : "ADDRESS/PREFIX with a prefix from 8 to 29, like " SUBNET_DEFAULT;
}

static const char *check_tag(const char *text)
{
	return consists_of(text, LETTERS DIGITS "_.-") && strlen(text) <= 35
		       ? NULL
		       : "at most 35 letters, digits, \"_\", \".\" and \"-\"";
}

static const char *check_device(const char *text)
{
	const char *colon = strchr(text, ':');
	bool pci = colon && (!strncmp(text, "pci:", 4) || !strncmp(text, "vf:", 3));

	return pci && !check_word(colon + 1) && colon[1]
		       ? NULL
		       : "pci:ADDRESS (a whole device) or vf:INTERFACE (a function of it)";
}

static const char *check_variable(const char *text)
{
	return consists_of(text, LETTERS DIGITS "_") && !strchr(DIGITS, text[0])
		       ? NULL
		       : "a variable's name (letters, digits, \"_\")";
}

static const char *check_user(const char *text)
{
	return consists_of(text, LETTERS DIGITS "_.-") && text[0] != '-' ? NULL : "a user's name";
}

/* clang-format off */
const struct field env_fields[] = {
	{.path = "name", .type = &type_text, .check = check_name,
	 .text = "What the environment is called. Images and clusters are named after it when nothing else names them.",
	 .example = "name: lu"},
	{.path = "base", .type = &type_text, .check = check_base, .builtin = "debian",
	 .text = "Where the root file system comes from: \"debian\" is the release of the machine that builds it, debian:CODENAME another, "
		 "oci:REFERENCE a container image, image:NAME one of Wisp's own images, with @sha256:DIGEST exactly that one. "
		 "Where nothing is added to an image it runs as it is.",
	 .example = "base: [debian:bookworm, \"image:hpc-*\"]"},
	{.path = "kernel", .type = &type_text, .check = check_kernel, .builtin = KERNEL_DEFAULT,
	 .text = "The kernel's Debian package; of a meta-package the one it depends on.",
	 .example = "kernel: linux-image-amd64"},
	{.path = "cmdline", .type = &type_set, .check = check_word, .keyed = true,
	 .text = "Words for the end of the kernel's command line, NAME or NAME=VALUE. Each name once.",
	 .example = "cmdline: [nohz=off, quiet]"},
	{.path = "modules", .type = &type_set, .check = check_module,
	 .text = "Kernel modules for the initrd beside those every image has, and what these need.",
	 .example = "modules: [virtiofs]"},
	{.path = "packages", .type = &type_set, .check = check_package, .keyed = true,
	 .text = "Debian packages, PACKAGE or PACKAGE=VERSION, beside Debian's essential ones. Recommended packages are not installed.",
	 .example = "packages: {require: [openmpi-bin], forbid: [\"*-dbg\"]}"},
	{.path = "files", .type = &type_map, .check = check_absolute, .needs = "from",
	 .text = "Files that are put into the root, by their absolute path there.",
	 .example = "files: {/etc/motd: {from: motd, mode: 0644}}"},
	{.path = "files.*.from", .type = &type_text, .check = check_from,
	 .text = "The file's path beside the document that names it.",
	 .example = "files: {/usr/bin/lu: {from: build/lu}}"},
	{.path = "files.*.mode", .type = &type_text, .check = check_mode,
	 .text = "Its mode, four octal digits. When it is left out: 0755 if the source is executable, else 0644.",
	 .example = "files: {/usr/bin/lu: {from: lu, mode: 0755}}"},
	{.path = "steps", .type = &type_steps,
	 .text = "Shell steps (\"sh -eu\", as root) in the new root, when packages and files are there.",
	 .example = "steps: [\"ldconfig\", {step: tune, run: \"echo 1 >/etc/tuned\", after: [ldconfig]}]"},
	{.path = "compression", .type = &type_text, .words = "lz4|zstd|gzip|xz", .builtin = "lz4",
	 .text = "Of the root file system: lz4 is the fastest to build and to read, xz the smallest.",
	 .example = "compression: zstd"},
	{.path = "trim", .type = &type_flag, .builtin = "yes",
	 .text = "Leave out documentation (licences stay), manual pages and translations.",
	 .example = "trim: no"},
	{.path = "signed", .type = &type_flag, .builtin = "no",
	 .text = "Only an image with a good signature of a key that the site trusts is started.",
	 .example = "signed: yes"},
	{.path = "mpi", .type = &type_text, .words = "openmpi|mpich|none", .builtin = "none",
	 .text = "The MPI implementation whose launcher starts the program. none: the program is started once, in the first VM.",
	 .example = "mpi: openmpi"},
	{.path = "vms", .type = &type_number, .min = 1, .max = 1000000, .builtin = "1",
	 .text = "How many virtual machines.",
	 .example = "vms: 1..64"},
	{.path = "vms-per-node", .type = &type_number, .min = 1, .max = 1000, .builtin = "1",
	 .text = "How many of them may be on one node.",
	 .example = "vms-per-node: 2"},
	{.path = "cpus", .type = &type_number, .min = 1, .max = 254, .builtin = "1",
	 .text = "Virtual CPUs of each VM.",
	 .example = "cpus: [4, 8, 16]"},
	{.path = "memory", .type = &type_number, .unit = UNIT_SIZE, .min = 1ll << 20, .max = 1024 * TIB, .builtin = "512M",
	 .text = "Memory of each VM.",
	 .example = "memory: 1G..60G"},
	{.path = "page-size", .type = &type_text, .words = "4K|2M|1G", .builtin = "4K",
	 .text = "Pages of the node behind the memory of a VM; 2M and 1G have to be reserved there.",
	 .example = "page-size: [2M, 1G]"},
	{.path = "prefault", .type = &type_flag, .builtin = "no",
	 .text = "All memory is there before the VM starts, so that the program never waits for the node's kernel to give it.",
	 .example = "prefault: yes"},
	{.path = "pinning", .type = &type_text, .words = "none|cores|threads", .builtin = "none",
	 .text = "Whether each virtual CPU has a place: a core of its own, a hardware thread, or none. With cores a VM of N virtual CPUs is given N cores, "
		 "whatever threads they have: the first thread of each runs a virtual CPU. When they are dedicated the others run the VM's devices, and nothing of anybody else.",
	 .example = "pinning: cores"},
	{.path = "numa", .type = &type_text, .words = "none|one|mirror", .builtin = "none",
	 .text = "The VM and the node's memory: anywhere, all in one NUMA node, or as many virtual nodes as it has real ones, each on its own. "
		 "This Wisp gives a VM one: mirror is refused where the VM does not fit into one.",
	 .example = "numa: one"},
	{.path = "dedicated", .type = &type_flag, .builtin = "no",
	 .text = "The VM's cores belong to it alone.",
	 .example = "dedicated: yes"},
	{.path = "network.kind", .type = &type_text, .words = "private|macvtap", .builtin = "private",
	 .text = "private: a network of the VMs alone, over all nodes. macvtap: each VM is a machine on the network of the nodes themselves, "
		 "whose layer 2 it shares, where their administrators allow that (wispd --macvtap). "
		 "Functions of an SR-IOV device are devices.",
	 .example = "network: {kind: private}"},
	{.path = "network.subnet", .type = &type_text, .check = check_subnet, .builtin = SUBNET_DEFAULT,
	 .text = "The addresses of the VMs.",
	 .example = "network: {subnet: 10.20.0.0/16}"},
	{.path = "network.vlan", .type = &type_number, .min = 1, .max = 4094, .of = "network.kind", .kind = "macvtap",
	 .text = "The VLAN that a network of kind macvtap is, of those that the nodes have for that. A node gives each to one cluster at a time. "
		 "What rules say of it does not concern networks of other kinds.",
	 .example = "network: {kind: macvtap, vlan: 100..109}"},
	{.path = "network.isolated", .type = &type_flag, .builtin = "yes",
	 .text = "Nothing but the VMs themselves is reached over a private network. no: what a node reaches the VMs on it reach, too, as an ordinary user of that node would "
		 "(address translation: nobody can call them), where its administrator allows that (wispd --outside).",
	 .example = "network: {isolated: no}"},
	{.path = "shares", .type = &type_map, .check = check_tag, .needs = "source",
	 .text = "Folders of the node that the VMs see (virtiofs), by a tag.",
	 .example = "shares: {home: {source: /home, target: /home}}"},
	{.path = "shares.*.source", .type = &type_text, .check = check_directory,
	 .text = "The folder on the node.",
	 .example = "shares: {\"*\": {source: \"/scratch/*\"}}"},
	{.path = "shares.*.target", .type = &type_text, .check = check_absolute,
	 .text = "Where it is mounted in the VM. When it is left out: where it is on the node.",
	 .example = "shares: {data: {source: /scratch/data, target: /data}}"},
	{.path = "shares.*.readonly", .type = &type_flag, .builtin = "no",
	 .text = "The VMs cannot write it.",
	 .example = "shares: {\"soft*\": {readonly: yes}}"},
	{.path = "volumes", .type = &type_map, .check = check_tag, .needs = "size|path",
	 .text = "Disks of each VM, by name. With a size alone a volume is empty and lives as long as the VM; with a path it is that file or block device, "
		 "made of that size when it is not there and a size is given.",
	 .example = "volumes: {scratch: {size: 100G, target: /scratch, filesystem: ext4}}"},
	{.path = "volumes.*.size", .type = &type_number, .unit = UNIT_SIZE, .min = 1ll << 20, .max = 1024 * TIB,
	 .text = "Its size.",
	 .example = "volumes: {\"*\": {size: ..200G}}"},
	{.path = "volumes.*.path", .type = &type_text, .check = check_absolute,
	 .text = "The file or block device on the node.",
	 .example = "volumes: {data: {path: /srv/data.img}}"},
	{.path = "volumes.*.target", .type = &type_text, .check = check_absolute,
	 .text = "Where it is mounted in the VM. When it is left out it is not mounted.",
	 .example = "volumes: {scratch: {size: 1G, target: /scratch}}"},
	{.path = "volumes.*.filesystem", .type = &type_text, .words = "ext4|none", .builtin = "none",
	 .text = "What an empty volume is made with.",
	 .example = "volumes: {scratch: {size: 1G, filesystem: ext4}}"},
	{.path = "volumes.*.readonly", .type = &type_flag, .builtin = "no",
	 .text = "The VM cannot write it.",
	 .example = "volumes: {data: {path: /srv/data.img, readonly: yes}}"},
	{.path = "devices", .type = &type_set, .check = check_device,
	 .text = "Devices of the node that belong to a VM: pci:ADDRESS, or vf:INTERFACE for a function of it. None unless they are named. "
		 "A VM that has one cannot be saved or moved.",
	 .example = "devices: [\"pci:0000:3b:00.0\"]"},
	{.path = "checkpoint.interval", .type = &type_number, .unit = UNIT_DURATION, .min = SECOND, .max = 365 * DAY, .builtin = "off",
	 .text = "Time from one checkpoint to the next. off: none by itself.",
	 .example = "checkpoint: {interval: 30m}"},
	{.path = "checkpoint.directory", .type = &type_text, .check = check_absolute,
	 .text = "Where checkpoints are kept. When it is left out: a folder of the cluster in the user's own.",
	 .example = "checkpoint: {directory: /scratch/ann/lu}"},
	{.path = "checkpoint.keep", .type = &type_number, .min = 1, .max = 1000, .builtin = "2",
	 .text = "How many of the last checkpoints are kept.",
	 .example = "checkpoint: {keep: 3}"},
	{.path = "checkpoint.mode", .type = &type_text, .words = "stop|live", .builtin = "stop",
	 .text = "stop: the VM is paused until all is written. live: it runs while most of it is.",
	 .example = "checkpoint: {mode: live}"},
	{.path = "checkpoint.incremental", .type = &type_flag, .builtin = "no",
	 .text = "Only what has changed since the last checkpoint is written.",
	 .example = "checkpoint: {incremental: yes}"},
	{.path = "checkpoint.compress", .type = &type_text, .words = "none|lz4|zstd", .builtin = "none",
	 .text = "Compression of the memory in it.",
	 .example = "checkpoint: {compress: lz4}"},
	{.path = "node.type", .type = &type_text, .check = check_word,
	 .text = "The kind of node the VMs are on, as the site calls it.",
	 .example = "node: {type: fat}"},
	{.path = "node.labels", .type = &type_set, .check = check_word,
	 .text = "Labels the nodes must have.",
	 .example = "node: {labels: [infiniband]}"},
	{.path = "walltime", .type = &type_number, .unit = UNIT_DURATION, .min = SECOND, .max = 10 * 365 * DAY, .builtin = "off",
	 .text = "How long the environment may run, with its restarts from checkpoints. off: until it ends.",
	 .example = "walltime: ..24h"},
	{.path = "program", .type = &type_command,
	 .text = "The program and its arguments.",
	 .example = "program: [mpirun, ./lu, \"-n\", \"100\"]"},
	{.path = "environment", .type = &type_map, .check = check_variable,
	 .text = "Variables of the program.",
	 .example = "environment: {OMP_NUM_THREADS: \"4\"}"},
	{.path = "environment.*", .type = &type_text, .check = check_text_any, .exact = true,
	 .text = "The variable's text.",
	 .example = "environment: {LANG: C}"},
	{.path = "directory", .type = &type_text, .check = check_directory,
	 .text = "The program's working directory in the VM. When it is left out: the user's home there.",
	 .example = "directory: /home/ann/lu"},
	{.path = "ranks", .type = &type_number, .min = 1, .max = MAX_COUNT,
	 .text = "How many MPI processes. When it is left out: one for each virtual CPU.",
	 .example = "ranks: 128"},
	{.path = "ranks-per-vm", .type = &type_number, .min = 1, .max = 100000,
	 .text = "At most how many of them are in one VM. When it is left out: as many as it has virtual CPUs.",
	 .example = "ranks-per-vm: 16"},
	{.path = "user", .type = &type_text, .check = check_user,
	 .text = "Who the program runs as in the VM. When it is left out: the user who started it, made there with the same number.",
	 .example = "user: root"},
};
/* clang-format on */

const size_t env_nfields = ARRAY_SIZE(env_fields);

const struct field *field_find(const char *path)
{
	for (size_t i = 0; i < env_nfields; i++)
		if (!strcmp(env_fields[i].path, path))
			return &env_fields[i];
	return NULL;
}

bool field_is_group(const char *path)
{
	size_t n = strlen(path);

	for (size_t i = 0; i < env_nfields; i++)
		if (!strncmp(env_fields[i].path, path, n) && env_fields[i].path[n] == '.')
			return true;
	return false;
}

const struct field *field_of_entries(const struct field *map)
{
	char path[64];

	snprintf(path, sizeof(path), "%s.*", map->path);
	return field_find(path);
}

/* Levenshtein distance of two short words. */
static unsigned word_distance(const char *a, const char *b)
{
	unsigned row[33], n = (unsigned)strlen(b);

	if (strlen(a) > 32 || n > 32)
		return 100;
	for (unsigned j = 0; j <= n; j++)
		row[j] = j;
	for (unsigned i = 1; *a; i++, a++) {
		unsigned diagonal = row[0];

		row[0] = i;
		for (unsigned j = 1; j <= n; j++) {
			unsigned best = diagonal + (*a != b[j - 1]);

			diagonal = row[j];
			best = best < row[j] + 1 ? best : row[j] + 1;
			row[j] = best < row[j - 1] + 1 ? best : row[j - 1] + 1;
		}
	}
	return row[n];
}

const char *field_nearest(const char *prefix, const char *word, char *buf, size_t size)
{
	size_t skip = *prefix ? strlen(prefix) + 1 : 0;
	/* Half of a short word is another word. */
	unsigned limit = strlen(word) < 6 ? (unsigned)strlen(word) / 2 + 1 : 4, best = limit;

	for (size_t i = 0; i < env_nfields; i++) {
		const char *path = env_fields[i].path;
		char near[64];

		if (skip && (strncmp(path, prefix, skip - 1) || path[skip - 1] != '.'))
			continue;
		snprintf(near, sizeof(near), "%.*s", (int)strcspn(path + skip, "."), path + skip);
		if (strcmp(near, "*") && word_distance(word, near) < best) {
			best = word_distance(word, near);
			snprintf(buf, size, "%s", near);
		}
	}
	return best < limit ? buf : NULL;
}

char *field_name(const struct field *field, const char *key)
{
	const char *star = strstr(field->path, ".*");
	char *text = NULL;
	int n;

	if (!key)
		n = asprintf(&text, "%s", field->path);
	else if (!star)
		n = asprintf(&text, "%s[%s]", field->path, key);
	else
		n = asprintf(&text, "%.*s[%s]%s", (int)(star - field->path), field->path, key,
			     star + 2);
	return n < 0 ? NULL : text;
}
