/* SPDX-License-Identifier: Apache-2.0 */
/* Records of pages: what is summed, and that damage is found where nothing else would find it. */

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <cmocka.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "mover/migrate-message.h"
#include "mover/page.h"

#define MEMORY (4 * CHUNK_BYTES)

struct pair {
	struct channel from, to;
};

/* In the place of the system's: counts what is asked of sockets. */
static unsigned asked;

int getsockopt(int fd, int level, int name, void *value, socklen_t *n)
{
	asked++;
	return (int)syscall(SYS_getsockopt, fd, level, name, value, n);
}

static void make_tcp(int fd[2])
{
	struct sockaddr_in name = {.sin_family = AF_INET,
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	CLEANUP_CLOSE int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t n = sizeof(name);

	assert_int_equal(bind(listener, (struct sockaddr *)&name, n), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&name, &n), 0);
	fd[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(fd[0], (struct sockaddr *)&name, n), 0);
	fd[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	assert_true(fd[1] >= 0);
}

static void make_pair(struct pair *p, bool tcp)
{
	int fd[2];

	if (tcp)
		make_tcp(fd);
	else
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
	*p = (struct pair){.from = {.fd = fd[0], .timeout_ms = 5000},
			   .to = {.fd = fd[1], .timeout_ms = 5000}};
}

static void close_pair(struct pair *p)
{
	channel_close(&p->from);
	channel_close(&p->to);
}

static int take(struct pair *p, struct row *row, uint8_t *data, struct error *err)
{
	struct message m = {0};
	int rc = message_next(&p->to, &m, err);

	if (rc == 0)
		assert_int_equal(m.type, MESSAGE_PAGES);
	return rc < 0 ? rc : message_receive_pages(&p->to, &m, MEMORY, row, data, err);
}

static void round_trip(bool tcp)
{
	uint8_t sent[2 * PAGE_BYTES], got[CHUNK_BYTES];
	struct row row = {.chunk = 3, .stored = 0x11, .zero = 0x8, .length = sizeof(sent)}, back;
	struct error err;
	struct pair p;

	make_pair(&p, tcp);
	memset(sent, 0xa5, sizeof(sent));
	assert_int_equal(channel_is_sound(&p.from), !tcp);
	assert_int_equal(channel_takes_files(&p.from), !tcp);
	assert_int_equal(message_send_pages(&p.from, &row, sent, &err), 0);
	assert_int_equal(take(&p, &back, got, &err), 0);
	assert_int_equal(back.chunk, 3);
	assert_int_equal(back.stored, 0x11);
	assert_int_equal(back.zero, 0x8);
	assert_int_equal(!back.sum, !tcp);
	assert_memory_equal(sent, got, sizeof(sent));
	close_pair(&p);
}

static void test_round_trip(void **state)
{
	round_trip(false);
	round_trip(true);
}

/* What kind of socket it is does not change. */
static void test_asked_once(void **state)
{
	struct pair p;

	for (unsigned tcp = 0; tcp < 2; tcp++) {
		make_pair(&p, tcp);
		asked = 0;
		for (unsigned i = 0; i < 100; i++) {
			assert_int_equal(channel_is_sound(&p.from), !tcp);
			assert_int_equal(channel_takes_files(&p.from), !tcp);
		}
		assert_int_equal(asked, 1);
		close_pair(&p);
	}
}

/* A bit of the data flips in a network; one of the row flips anywhere. */
static void test_damage(void **state)
{
	static const size_t places[] = {RECORD_HEADER_SIZE + 9, RECORD_HEADER_SIZE + 36,
					RECORD_HEADER_SIZE + ROW_SIZE + 4000};
	uint8_t wire[RECORD_HEADER_SIZE + ROW_SIZE + PAGE_BYTES], page[PAGE_BYTES] = {1},
								  got[CHUNK_BYTES];
	struct row row = {.chunk = 1, .stored = 2, .length = PAGE_BYTES}, back;

	for (unsigned i = 0; i < ARRAY_SIZE(places); i++) {
		struct error err = {{0}};
		struct pair p, again;

		make_pair(&p, true);
		make_pair(&again, true);
		assert_int_equal(message_send_pages(&p.from, &row, page, &err), 0);
		assert_int_equal(channel_receive(&p.to, wire, sizeof(wire), &err), 0);
		wire[places[i]] ^= 0x10;
		assert_int_equal(write(again.from.fd, wire, sizeof(wire)), sizeof(wire));
		assert_int_equal(take(&again, &back, got, &err), -EBADMSG);
		assert_non_null(strstr(err.text, "damaged"));
		close_pair(&p);
		close_pair(&again);
	}
}

/* Pages go from a file into a file, also when the connection takes less than all of them. */
static void test_files(void **state)
{
	CLEANUP_CLOSE int from = memfd_create("from", MFD_CLOEXEC),
			  to = memfd_create("to", MFD_CLOEXEC);
	uint8_t page[PAGE_BYTES], got[PAGE_BYTES];
	struct error err = {{0}};
	struct pair p;
	int pipe[2];

	assert_int_equal(ftruncate(to, MEMORY), 0);
	assert_int_equal(pipe2(pipe, O_CLOEXEC), 0);
	make_pair(&p, false);
	for (unsigned i = 0; i < 16; i++) {
		memset(page, (int)i + 1, sizeof(page));
		assert_int_equal(pwrite(from, page, sizeof(page), i * PAGE_BYTES), sizeof(page));
	}
	assert_int_equal(channel_send_file(&p.from, from, 0, 16 * PAGE_BYTES, &err), 0);
	assert_int_equal(channel_receive_file(&p.to, pipe, to, CHUNK_BYTES, 9 * PAGE_BYTES, &err),
			 0);
	assert_int_equal(channel_receive_file(&p.to, pipe, to, 0, 7 * PAGE_BYTES, &err), 0);
	for (unsigned i = 0; i < 16; i++) {
		uint64_t at = i < 9 ? CHUNK_BYTES + i * PAGE_BYTES : (i - 9) * PAGE_BYTES;

		memset(page, (int)i + 1, sizeof(page));
		assert_int_equal(pread(to, got, sizeof(got), (off_t)at), sizeof(got));
		assert_memory_equal(got, page, sizeof(page));
	}
	/* A file that is shorter than was said, and a peer that has gone. */
	assert_int_equal(channel_send_file(&p.from, from, 15 * PAGE_BYTES, 2 * PAGE_BYTES, &err),
			 -EIO);
	channel_close(&p.from);
	assert_int_equal(channel_receive_file(&p.to, pipe, to, 0, 2 * PAGE_BYTES, &err), -EPIPE);
	close_pair(&p);
	close(pipe[0]);
	close(pipe[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_asked_once),
		cmocka_unit_test(test_damage),
		cmocka_unit_test(test_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
