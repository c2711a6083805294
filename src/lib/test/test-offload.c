/* SPDX-License-Identifier: Apache-2.0 */
/* Work in threads, waited for and not, and hosts looked up by it. */

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "lib/error.h"
#include "lib/lookup.h"
#include "lib/offload.h"

struct job {
	sem_t go, released;
	int done;
};

static void work(void *arg)
{
	struct job *j = arg;

	sem_wait(&j->go);
	j->done = 1;
}

static void release(void *arg)
{
	struct job *j = arg;

	sem_post(&j->released);
}

static void job_init(struct job *j)
{
	*j = (struct job){0};
	sem_init(&j->go, 0, 0);
	sem_init(&j->released, 0, 0);
}

static int readable(int fd, int ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, ms);
}

static bool is_released(struct job *j)
{
	struct timespec soon;

	clock_gettime(CLOCK_REALTIME, &soon);
	soon.tv_sec += 20;
	return !sem_timedwait(&j->released, &soon);
}

static void test_waited_for(void **state)
{
	struct offload *o = NULL;
	struct error err;
	struct job j;

	job_init(&j);
	assert_int_equal(offload_start(work, release, &j, &o, &err), 0);
	assert_int_equal(readable(offload_fd(o), 50), 0);
	sem_post(&j.go);
	assert_int_equal(readable(offload_fd(o), 20000), 1);
	assert_int_equal(j.done, 1);
	assert_int_not_equal(sem_trywait(&j.released), 0);
	offload_drop(&o);
	assert_null(o);
	assert_true(is_released(&j));
	offload_drop(&o);
}

static void test_dropped(void **state)
{
	struct offload *o = NULL;
	struct error err;
	struct job j;

	job_init(&j);
	assert_int_equal(offload_start(work, release, &j, &o, &err), 0);
	offload_drop(&o);
	assert_int_not_equal(sem_trywait(&j.released), 0);
	sem_post(&j.go);
	assert_true(is_released(&j));
	assert_int_equal(j.done, 1);
}

static int look_up(const char *host, const char *port, struct lookup **l, struct error *err)
{
	const struct addrinfo *list = NULL;
	int r;

	assert_int_equal(lookup_start(host, port, l, err), 0);
	assert_int_equal(readable(lookup_fd(*l), 20000), 1);
	r = lookup_result(*l, &list, err);
	assert_true(r || list->ai_addr);
	return r;
}

static void test_hosts(void **state)
{
	struct lookup *l = NULL;
	struct error err;

	assert_int_equal(look_up("127.0.0.1", "7450", &l, &err), 0);
	lookup_drop(&l);
	assert_int_equal(look_up("::1", "7450", &l, &err), 0);
	lookup_drop(&l);
	assert_int_equal(look_up("no..host", "7450", &l, &err), -EHOSTUNREACH);
	assert_non_null(strstr(err.text, "no..host: "));
	lookup_drop(&l);
	assert_int_equal(lookup_start("127.0.0.1", "1", &l, &err), 0);
	lookup_drop(&l);
	assert_null(l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_waited_for),
		cmocka_unit_test(test_dropped),
		cmocka_unit_test(test_hosts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
