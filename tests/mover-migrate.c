/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Speed of migration without a VM, and what limits it. One JSON object with seconds and bytes:
 *
 *     mover-migrate move MIB STREAMS ADDRESS      a VM that does not write moves to another process
 *     mover-migrate socket MIB STREAMS ADDRESS    as many bytes, from and to memory that is hot
 *     mover-migrate populate MIB THREADS [2M]     as many pages of a new guest memory
 */

#include <inttypes.h>
#include <linux/memfd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "lib/cleanup.h"
#include "lib/io.h"
#include "lib/parse.h"
#include "mover/address.h"
#include "mover/channel.h"
#include "mover/migrate.h"
#include "mover/test/fake-vmm.h"
#include "mover/work.h"
#include "vmm/ram-file.h"

struct plan {
	uint64_t size;
	unsigned streams;
	const char *address;
	int fd[MIGRATE_STREAMS];
	uint8_t *map;
	uint64_t unit; /* bytes that are populated at once */
	bool sends;
};

static void die(const char *what, const struct error *err)
{
	fprintf(stderr, "mover-migrate: %s: %s\n", what, err ? err->text : strerror(errno));
	exit(1);
}

static int print(const struct plan *p, uint64_t ns, uint64_t bytes)
{
	printf("{\"bytes\": %" PRIu64 ", \"seconds\": %.6f, \"streams\": %u}\n", bytes,
	       (double)ns / 1e9, p->streams);
	return 0;
}

static void fill(struct fake_vmm *f)
{
	uint64_t seed = 88172645463325252u;

	for (uint64_t *p = (uint64_t *)f->ram, *end = p + f->size / 8; p < end; p++) {
		seed ^= seed << 13;
		seed ^= seed >> 7;
		seed ^= seed << 17;
		*p = seed;
	}
}

/*
 * Where this machine is virtual itself, memory that nobody used lately is not there, and the first
 * touch measures its host. So as many pages are used and freed before.
 */
static void warm(uint64_t size)
{
	void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (map == MAP_FAILED)
		return;
	madvise(map, size, MADV_HUGEPAGE);
	madvise(map, size, MADV_POPULATE_WRITE);
	munmap(map, size);
}

static int receive(const struct plan *p, int listen)
{
	struct migrate_options o = {.listen = listen, .note = "/dev/shm/wisp-bench-to"};
	struct migrate_result result;
	struct error err = {{0}};
	struct world world = {0};
	struct fake_vmm to;

	fake_init(&to, &world, p->size, true);
	warm(p->size + p->size / 4);
	o.vmm = &to.vmm;
	if (migrate_receive(&o, &result, &err) < 0)
		die("receive", &err);
	return 0;
}

static int send_vm(const struct plan *p, struct fake_vmm *from)
{
	struct migrate_options o = {
		.address = p->address, .note = "/dev/shm/wisp-bench-from", .streams = p->streams};
	struct migrate_result result;
	struct error err = {{0}};
	const json_t *round;
	uint64_t ns;

	o.timeout_ms = 60000; /* the other side warms up */
	o.vmm = &from->vmm;
	if (migrate_send(&o, &result, &err) < 0)
		die("send", &err);
	round = json_array_get(json_object_get(result.report, "rounds"), 0);
	ns = (uint64_t)json_integer_value(json_object_get(round, "ns"));
	unlink("/dev/shm/wisp-bench-from");
	unlink("/dev/shm/wisp-bench-to");
	return print(p, ns, (uint64_t)json_integer_value(json_object_get(round, "bytes")));
}

static int move(const struct plan *p)
{
	struct error err = {{0}};
	int listen = address_listen(p->address, &err), rc;
	struct world world = {0};
	struct fake_vmm from;
	pid_t child;

	if (listen < 0)
		die("listen", &err);
	fake_init(&from, &world, p->size, false);
	fill(&from);
	child = fork();
	if (child == 0)
		_exit(receive(p, listen));
	rc = send_vm(p, &from);
	waitpid(child, NULL, 0);
	return rc;
}

static int copy(struct work *work, unsigned thread, struct error *err)
{
	const struct plan *p = work->arg;
	uint64_t left = p->size / p->streams;
	uint8_t *buf = aligned_alloc(PAGE_BYTES, CHUNK_BYTES);
	struct channel ch = {.fd = p->fd[thread]};
	int rc = 0;

	memset(buf, 1, CHUNK_BYTES);
	for (; rc == 0 && left >= CHUNK_BYTES; left -= CHUNK_BYTES) {
		struct iovec iov = {buf, CHUNK_BYTES};

		rc = p->sends ? channel_send(&ch, &iov, 1, err)
			      : channel_receive(&ch, buf, CHUNK_BYTES, err);
	}
	free(buf);
	return rc;
}

static void run(struct plan *p, int (*fn)(struct work *, unsigned, struct error *))
{
	struct work work = {.threads = p->streams, .run = fn, .arg = p, .what = "bench"};
	struct error err = {{0}};

	if (work_run(&work, &err) < 0)
		die("run", &err);
}

static int plain(struct plan *p)
{
	const _Atomic bool *const never[2] = {0};
	struct error err = {{0}};
	int listen = address_listen(p->address, &err);
	uint64_t start;
	char last = 0;

	if (listen < 0)
		die("listen", &err);
	p->sends = fork() == 0;
	for (unsigned i = 0; i < p->streams; i++) {
		p->fd[i] = p->sends ? address_connect(p->address, 10000, never, &err)
				    : address_accept(listen, 10000, never, &err);
		if (p->fd[i] < 0)
			die("connect", &err);
	}
	start = io_now_ns();
	run(p, copy);
	if (p->sends)
		_exit(last);
	wait(NULL);
	return print(p, io_now_ns() - start, p->size);
}

static int touch(struct work *work, unsigned thread, struct error *err)
{
	const struct plan *p = work->arg;
	uint64_t share = p->size / p->streams / p->unit * p->unit;

	for (uint64_t at = 0; at < share; at += p->unit)
		madvise(p->map + thread * share + at, p->unit, MADV_POPULATE_WRITE);
	return 0;
}

static int populate(struct plan *p)
{
	bool huge = p->address && !strcmp(p->address, "2M");
	struct error err;
	int fd = ram_file_create(p->size, huge ? 2 << 20 : 4096, &err);
	uint64_t start;

	if (fd < 0)
		die("memory", &err);
	p->map = mmap(NULL, p->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p->map == MAP_FAILED)
		die("mmap", NULL);
	p->unit = 2 << 20;
	if (!huge)
		warm(p->size + p->size / 4);
	start = io_now_ns();
	run(p, touch);
	return print(p, io_now_ns() - start, p->size);
}

int main(int argc, char **argv)
{
	struct error err = {{0}};
	struct plan p = {0};
	unsigned mib;

	if (argc < 4 || parse_uint(argv[2], "MIB", 1, 1u << 20, &mib, &err) < 0 ||
	    parse_uint(argv[3], "STREAMS", 1, MIGRATE_STREAMS, &p.streams, &err) < 0)
		die("usage: mover-migrate move|socket|populate MIB STREAMS [ADDRESS]", &err);
	p.size = (uint64_t)mib << 20;
	p.address = argv[4];
	if (!strcmp(argv[1], "populate"))
		return populate(&p);
	if (argc != 5)
		die("no address", &err);
	return strcmp(argv[1], "move") ? plain(&p) : move(&p);
}
