/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A peer in a migration that wants no good. The first byte chooses what the rest is: a data
 * connection, a control connection, its first words, or a connection of a post-copy (pages that
 * follow, or requests), as it is or with its sums put right.
 */

#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "mover/crc32c.h"
#include "lib/error.h"
#include "lib/wire.h"
#include "mover/migrate-copy.h"
#include "mover/migrate-hello.h"
#include "mover/migrate-postcopy.h"
#include "mover/migrate-set.h"
#include "mover/test/fake-vmm.h"
#include "mover/test/hear.h"

#define INPUT_MAX 65536
#define MEMORY (CHUNK_BYTES * 3 + 5 * PAGE_BYTES)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int ok)
{
	if (!ok)
		abort();
}

static uint64_t number_at(const uint8_t *p, unsigned n)
{
	struct wire_reader r = wire_reader(p, n);

	return n == 8 ? wire_get_u64(&r) : wire_get_u32(&r);
}

static void put_at(uint8_t *p, uint32_t value)
{
	struct wire_writer w = wire_writer(p, 4);

	wire_put_u32(&w, value);
}

/* Makes the sums and numbers of a stream of records right. */
static void mend(uint8_t *data, size_t size)
{
	uint32_t number = 0;

	for (size_t at = 0; size - at >= RECORD_HEADER_SIZE;) {
		uint8_t *body = data + at + RECORD_HEADER_SIZE;
		uint64_t left = size - at - RECORD_HEADER_SIZE,
			 length = number_at(data + at + 8, 8);
		uint64_t summed = length < left ? length : left;

		if (number_at(data + at, 4) == MESSAGE_PAGES && summed >= ROW_SIZE) {
			if (summed > ROW_SIZE) /* 42: compression; nothing else is summed here */
				put_at(body + 36,
				       body[42] ? crc32c(0, body + ROW_SIZE, summed - ROW_SIZE)
						: 0);
			summed = ROW_SIZE;
		}
		put_at(data + at + 16, crc32c(0, body, summed));
		put_at(data + at + 20, number++);
		put_at(data + at + 24, 0);
		put_at(data + at + 28, crc32c(0, data + at, 28));
		if (length > left)
			break;
		at += RECORD_HEADER_SIZE + (length + 7 < left ? (length + 7) / 8 * 8 : left);
	}
}

static void try_data(int fd)
{
	struct receiver r = {.memory = MEMORY, .page_size = PAGE_BYTES, .streams = 1};
	struct error err = {{0}};

	r.memfd = memfd_create("ram", MFD_CLOEXEC);
	require(r.memfd >= 0 && ftruncate(r.memfd, MEMORY) == 0);
	require(receiver_init(&r, &err) == 0);
	r.channel[0] = (struct channel){.fd = fd, .timeout_ms = 1000};
	require(receiver_run(&r, 0, &err) < 0 && err.text[0]);
	require(lseek(r.memfd, 0, SEEK_END) == MEMORY);
	receiver_done(&r);
	close(r.memfd);
}

static void try_control(int fd)
{
	struct channel ch = {.fd = fd, .timeout_ms = 1000};
	struct error err = {{0}};
	enum session_state state;

	if (welcome_receive(&ch, &state, &err) == 0)
		require(state < SESSION_STATES);
	for (;;) {
		struct message m = {0};
		json_t *value = NULL;
		uint64_t number;

		if (message_receive(&ch, &m, &err) < 0)
			break;
		if (m.type == MESSAGE_MISSING) {
			uint64_t missing[4], zero[4], next = 0;

			if (missing_take(&m, MEMORY, &next, missing, zero, &err) == 0)
				require(next && next <= 4 && !(zero[0] & ~missing[0]));
		}
		if (message_json(&m, &value, &err) == 0)
			json_decref(value);
		message_u64(&m, &number, &err);
		message_done(&m);
	}
	require(err.text[0]);
	channel_close(&ch);
}

/*
 * Pages that follow a VM, from a source that wants no good: what is right in the memory stays so,
 * whatever comes. Connection 0 is that of requests, of which there was one.
 */
static void try_rest(int fd, bool requests, bool huge)
{
	static const uint64_t small[] = {0xff00ff, ~0ull, 0, 1}, large[] = {~0ull, ~0ull, 0, 0};
	static const uint64_t zero[4] = {0xf};
	const uint64_t *missing = huge ? large : small;
	uint64_t memory = huge ? 4 * CHUNK_BYTES : MEMORY;
	struct world world = {0};
	struct error err = {{0}};
	struct catcher *c = NULL;
	struct channel ch[2];
	struct fake_vmm f;
	int other[2];

	require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, other) == 0);
	fake_init(&f, &world, memory, true);
	f.unit = huge ? 2 * CHUNK_PAGES : 0;
	memset(f.ram, 0x5a, memory);
	require(catcher_create(
			&(struct catcher_options){.vmm = &f.vmm,
						  .memory = memory,
						  .page_size = huge ? 2 * CHUNK_BYTES : PAGE_BYTES,
						  .timeout_ms = 1000},
			missing, zero, &c, &err) == 0);
	ch[!requests] = (struct channel){.fd = fd, .timeout_ms = 1000};
	ch[requests] = (struct channel){.fd = other[0], .timeout_ms = 1000};
	require(catcher_start(c, ch, 2, false, &err) == 0);
	/* Its end is one as well, but for a last word on a connection of pages. */
	shutdown(other[1], SHUT_WR);
	while (!*catcher_failed(c) && catcher_wait(c))
		;
	require(catcher_stop(c, &err) == 0);
	for (uint64_t p = 0; p < memory / PAGE_BYTES; p++) {
		uint8_t byte;

		if (missing[p / 64] >> p % 64 & 1)
			continue;
		require(pread(f.fd, &byte, 1, (off_t)(p * PAGE_BYTES)) == 1 && byte == 0x5a);
	}
	catcher_destroy(c);
	fake_done(&f);
	close(other[1]);
}

/* Requests of a target that wants no good: nothing but pages of the VM is read. */
static void try_requests(int fd)
{
	static const uint64_t none[4];
	struct error err = {{0}};
	struct pusher *p = NULL;
	struct channel ch[2];
	int ram = memfd_create("ram", MFD_CLOEXEC), other[2];

	require(ram >= 0 && ftruncate(ram, MEMORY) == 0);
	require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, other) == 0);
	require(pusher_create(ram, MEMORY, COMPRESSION_NONE, 2, &p, &err) == 0);
	ch[0] = (struct channel){.fd = fd, .timeout_ms = 100};
	ch[1] = (struct channel){.fd = other[0], .timeout_ms = 100};
	require(pusher_start(p, ch, none, NULL, &err) == 0);
	while (!*pusher_failed(p))
		usleep(100);
	pusher_destroy(p);
	close(other[1]);
	close(ram);
}

/* The first words of either side, in the clear or not; nobody without the token gets in. */
static void try_hello(int fd, bool source, bool tls)
{
	static const struct secret clear = {.token = "fuzz"};
	struct channel ch = {.fd = fd, .timeout_ms = 1000};
	struct hello hello = {.kind = HELLO_NEW, .streams = 1};
	struct secret secret = clear;
	struct error err = {{0}};

	secret.tls = tls;
	if (source)
		require(hello_say(&ch, &secret, &hello, &err) < 0);
	else
		require(hear_one(&ch, &secret, &hello, &err) < 0);
	require(err.text[0]);
	channel_close(&ch);
}

/* Whether this user may serve faults. */
static bool may_fault(void)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *copy;
	int fd[2];

	if (size < 2 || size > INPUT_MAX)
		return 0;
	signal(SIGPIPE, SIG_IGN);
	copy = malloc(size);
	require(copy && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) == 0);
	memcpy(copy, data + 1, size - 1);
	if (data[0] & 2)
		mend(copy, size - 1);
	require(send(fd[0], copy, size - 1, MSG_DONTWAIT) == (ssize_t)size - 1);
	shutdown(fd[0], SHUT_WR);
	free(copy);
	if (data[0] & 16 && !may_fault())
		close(fd[1]);
	else if (data[0] & 16)
		try_rest(fd[1], data[0] & 1, data[0] & 8);
	else if (data[0] & 32)
		try_requests(fd[1]);
	else if (data[0] & 4)
		try_hello(fd[1], data[0] & 1, data[0] & 8);
	else if (data[0] & 1)
		try_control(fd[1]);
	else
		try_data(fd[1]);
	close(fd[0]);
	return 0;
}
