/* SPDX-License-Identifier: Apache-2.0 */
/* Hosts and name servers that do not answer: who waits for them gives up, or is told to. */

#include "mover/test/scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/socket.h>

#include "mover/address.h"

#define LONG_MS 60000
#define SOON_NS 10000000000ull /* far less than LONG_MS, on any machine */

static sem_t asleep;

/* In the place of the C library's: "silent" is a name that nobody knows anything of. */
int getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
		struct addrinfo **ret)
{
	struct found {
		struct addrinfo info;
		struct sockaddr_in name;
	} * found;

	if (!strcmp(host, "silent"))
		sem_wait(&asleep);
	found = calloc(1, sizeof(*found));
	found->name = (struct sockaddr_in){.sin_family = AF_INET,
					   .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
					   .sin_port = htons((uint16_t)atoi(port))};
	found->info = (struct addrinfo){.ai_family = AF_INET,
					.ai_addr = (struct sockaddr *)&found->name,
					.ai_addrlen = sizeof(found->name)};
	*ret = &found->info;
	return strcmp(host, "unknown") ? 0 : EAI_NONAME;
}

void freeaddrinfo(struct addrinfo *list)
{
	free(list);
}

/* Listens on loopback; with full, so many wait to be accepted that nobody is answered any more. */
struct host {
	int fd, waiting[8];
	char address[64];
};

static void host_init(struct host *h, bool full)
{
	struct sockaddr_in name = {.sin_family = AF_INET,
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof(name);

	h->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(h->fd, (struct sockaddr *)&name, n), 0);
	assert_int_equal(listen(h->fd, full ? 0 : 8), 0);
	assert_int_equal(getsockname(h->fd, (struct sockaddr *)&name, &n), 0);
	snprintf(h->address, sizeof(h->address), "tcp:host:%d", ntohs(name.sin_port));
	for (unsigned i = 0; i < ARRAY_SIZE(h->waiting); i++) {
		h->waiting[i] = -1;
		if (!full)
			continue;
		h->waiting[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		connect(h->waiting[i], (struct sockaddr *)&name, n);
	}
}

static void host_done(struct host *h)
{
	for (unsigned i = 0; i < ARRAY_SIZE(h->waiting); i++)
		if (h->waiting[i] >= 0)
			close(h->waiting[i]);
	close(h->fd);
}

static const _Atomic bool *const nobody[2];

static void *cancel_main(void *arg)
{
	usleep(100000);
	*(_Atomic bool *)arg = true;
	return NULL;
}

static void cancelled(const char *address)
{
	_Atomic bool cancel = false;
	const _Atomic bool *const flags[2] = {&cancel};
	uint64_t begin = io_now_ns();
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, cancel_main, &cancel), 0);
	refused(-ECANCELED, "cancelled", address_connect(address, LONG_MS, flags, &err));
	assert_true(io_now_ns() - begin < SOON_NS);
	pthread_join(thread, NULL);
}

static void test_silent_host(void **state)
{
	struct host h;

	host_init(&h, true);
	cancelled(h.address);
	refused(-ETIMEDOUT,
		"cannot connect to tcp:host:", address_connect(h.address, 200, nobody, &err));
	host_done(&h);
}

static void test_silent_names(void **state)
{
	sem_init(&asleep, 0, 0);
	cancelled("tcp:silent:1");
	refused(-ETIMEDOUT, "nobody says what address",
		address_connect("tcp:silent:1", 100, nobody, &err));
	sem_post(&asleep);
	sem_post(&asleep);
	usleep(100000);
}

static void test_answers(void **state)
{
	struct host h;
	struct error why = {{0}};
	char name[ADDRESS_TEXT];
	int fd;

	host_init(&h, false);
	fd = address_connect(h.address, LONG_MS, nobody, &why);
	assert_true(fd >= 0);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	address_peer(fd, name);
	assert_non_null(strstr(name, "127.0.0.1 port "));
	close(fd);
	host_done(&h);
	refused(-ECONNREFUSED, "cannot connect", address_connect(h.address, 1000, nobody, &err));
	refused(-EHOSTUNREACH,
		"tcp:unknown:1: ", address_connect("tcp:unknown:1", 1000, nobody, &err));
	refused(-EINVAL, "is not tcp:HOST:PORT", address_connect("tcp:1", 1000, nobody, &err));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_answers),
		cmocka_unit_test(test_silent_host),
		cmocka_unit_test(test_silent_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
