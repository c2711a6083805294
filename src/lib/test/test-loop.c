/* SPDX-License-Identifier: Apache-2.0 */
/* The event loop: sources of each kind, removal inside callbacks and by other threads. */

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <fcntl.h>
#include <unistd.h>
#include <cmocka.h>

#include "lib/cleanup.h"
#include "lib/io.h"
#include "lib/loop.h"

#define MS 1000000ULL
#define SOURCES 40 /* more than one epoll batch */

struct fixture {
	struct loop *loop;
	pthread_mutex_t lock;
	int fd[SOURCES];
	struct loop_source *source[SOURCES];
	unsigned calls;
	uint32_t events;
	int signo;
	bool lock_held;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	pthread_mutex_init(&f->lock, NULL);
	for (unsigned i = 0; i < SOURCES; i++)
		f->fd[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	*state = f;
	return loop_create(&f->loop);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	loop_destroy(f->loop);
	for (unsigned i = 0; i < SOURCES; i++)
		close(f->fd[i]);
	pthread_mutex_destroy(&f->lock);
	free(f);
	return 0;
}

static void count_fd(void *arg, uint32_t events)
{
	struct fixture *f = arg;

	f->calls++;
	f->events = events;
}

static void count_timer(void *arg)
{
	((struct fixture *)arg)->calls++;
}

static void count_signal(void *arg, int signo)
{
	struct fixture *f = arg;

	f->calls++;
	f->signo = signo;
}

static void watch(struct fixture *f, unsigned i, loop_fd_fn *fn)
{
	assert_int_equal(loop_add_fd(f->loop, f->fd[i], EPOLLIN, fn, f, &f->source[i]), 0);
}

static void test_fd(void **state)
{
	struct fixture *f = *state;
	eventfd_t count;

	watch(f, 0, count_fd);
	assert_int_equal(loop_run_once(f->loop, 0), 0);
	eventfd_write(f->fd[0], 1);
	assert_int_equal(loop_run_once(f->loop, -1), 1);
	assert_int_equal(f->events, EPOLLIN);
	/* Level-triggered: as long as nobody reads. */
	assert_int_equal(loop_run_once(f->loop, 0), 1);
	eventfd_read(f->fd[0], &count);
	assert_int_equal(loop_run_once(f->loop, 0), 0);
	assert_int_equal(f->calls, 2);
	assert_int_equal(loop_modify_fd(f->source[0], EPOLLOUT), 0);
	assert_int_equal(loop_run_once(f->loop, 0), 1);
	assert_int_equal(f->events, EPOLLOUT);
	assert_int_equal(loop_modify_fd(f->source[0], 0), 0);
	assert_int_equal(loop_run_once(f->loop, 0), 0);
	assert_int_equal(loop_wakeups(f->loop), 6);
	loop_remove(&f->source[0]);
	assert_null(f->source[0]);
	loop_remove(&f->source[0]);
	/* Removed means free for a new source. */
	watch(f, 0, count_fd);
}

static void test_bad_fd(void **state)
{
	struct fixture *f = *state;
	struct loop_source *s = NULL;
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

	assert_int_equal(loop_add_fd(f->loop, -1, EPOLLIN, count_fd, f, &s), -EBADF);
	assert_int_equal(loop_add_fd(f->loop, null, EPOLLIN, count_fd, f, &s), -EPERM);
	watch(f, 0, count_fd);
	assert_int_equal(loop_add_fd(f->loop, f->fd[0], EPOLLIN, count_fd, f, &s), -EEXIST);
	assert_null(s);
	close(null);
}

static void test_timer(void **state)
{
	struct fixture *f = *state;
	struct loop_source *timer;
	uint64_t start;

	assert_int_equal(loop_add_timer(f->loop, count_timer, f, &timer), 0);
	assert_int_equal(loop_run_once(f->loop, 20), 0);
	start = io_now_ns();
	assert_int_equal(loop_set_timer(timer, 20 * MS, 0), 0);
	assert_int_equal(loop_run_once(f->loop, 10000), 1);
	assert_true(io_now_ns() - start >= 20 * MS);
	/* Once is once. */
	assert_int_equal(loop_run_once(f->loop, 40), 0);
	assert_int_equal(loop_set_timer(timer, 1, MS), 0);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(loop_run_once(f->loop, 10000), 1);
	assert_int_equal(f->calls, 6);
	assert_int_equal(loop_set_timer(timer, 0, MS), 0);
	assert_int_equal(loop_run_once(f->loop, 20), 0);
	/* Longer than a second: both fields of the timespec. */
	assert_int_equal(loop_set_timer(timer, 3600ULL * 1000 * MS + 1, 0), 0);
	assert_int_equal(loop_run_once(f->loop, 20), 0);
	loop_remove(&timer);
}

static void test_signal(void **state)
{
	struct fixture *f = *state;
	struct loop_source *usr2, *term;
	sigset_t old;

	pthread_sigmask(SIG_SETMASK, NULL, &old);
	assert_int_equal(loop_add_signal(f->loop, SIGUSR2, count_signal, f, &usr2), 0);
	assert_int_equal(loop_add_signal(f->loop, SIGTERM, count_signal, f, &term), 0);
	raise(SIGUSR2);
	assert_int_equal(loop_run_once(f->loop, 10000), 1);
	assert_int_equal(f->signo, SIGUSR2);
	raise(SIGTERM);
	assert_int_equal(loop_run_once(f->loop, 10000), 1);
	assert_int_equal(f->signo, SIGTERM);
	assert_int_equal(loop_run_once(f->loop, 0), 0);
	loop_remove(&usr2);
	loop_remove(&term);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	assert_int_equal(loop_add_signal(f->loop, 1000, count_signal, f, &usr2), -EINVAL);
}

static void remove_all(void *arg, uint32_t events)
{
	struct fixture *f = arg;

	f->calls++;
	for (unsigned i = 0; i < SOURCES; i++)
		loop_remove(&f->source[i]);
}

/* The first of many ready sources removes all: none of the others is called, none leaks. */
static void test_remove_in_callback(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < SOURCES; i++) {
		watch(f, i, remove_all);
		eventfd_write(f->fd[i], 1);
	}
	assert_int_equal(loop_run_once(f->loop, 0), 1);
	assert_int_equal(loop_run_once(f->loop, 0), 0);
	assert_int_equal(f->calls, 1);
}

static void replace_self(void *arg, uint32_t events)
{
	struct fixture *f = arg;

	f->calls++;
	loop_remove(&f->source[0]);
	watch(f, 0, count_fd);
}

static void test_replace_in_callback(void **state)
{
	struct fixture *f = *state;

	watch(f, 0, replace_self);
	eventfd_write(f->fd[0], 1);
	assert_int_equal(loop_run_once(f->loop, 0), 1);
	assert_int_equal(loop_run_once(f->loop, 0), 1);
	assert_int_equal(f->events, EPOLLIN);
}

static void remove_own_timer(void *arg)
{
	struct fixture *f = arg;

	f->calls++;
	loop_remove(&f->source[0]);
}

static void test_timer_removes_itself(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(loop_add_timer(f->loop, remove_own_timer, f, &f->source[0]), 0);
	assert_int_equal(loop_set_timer(f->source[0], 1, 1), 0);
	assert_int_equal(loop_run_once(f->loop, 10000), 1);
	assert_int_equal(loop_run_once(f->loop, 20), 0);
	assert_int_equal(f->calls, 1);
}

/* Every ready source gets its turn, also when there are more than one batch holds. */
static void test_many(void **state)
{
	struct fixture *f = *state;
	int n = 0;

	for (unsigned i = 0; i < SOURCES; i++) {
		assert_int_equal(loop_add_fd(f->loop, f->fd[i], EPOLLIN | EPOLLET, count_fd, f,
					     &f->source[i]),
				 0);
		eventfd_write(f->fd[i], 1);
	}
	for (unsigned i = 0; i < SOURCES && n < SOURCES; i++)
		n += loop_run_once(f->loop, 0);
	assert_int_equal(n, SOURCES);
	assert_int_equal(f->calls, SOURCES);
	/* The rest is freed with the loop. */
	loop_remove(&f->source[3]);
}

static void stop_here(void *arg, uint32_t events)
{
	struct fixture *f = arg;

	f->calls++;
	loop_stop(f->loop);
}

static void test_stop(void **state)
{
	struct fixture *f = *state;

	watch(f, 0, stop_here);
	eventfd_write(f->fd[0], 1);
	assert_int_equal(loop_run(f->loop), 0);
	assert_in_range(f->calls, 1, 2);
	/* Before it runs is early enough, and once stops once. */
	loop_remove(&f->source[0]);
	loop_stop(f->loop);
	loop_stop(f->loop);
	assert_int_equal(loop_run(f->loop), 0);
	assert_int_equal(loop_run_once(f->loop, 0), 0);
}

static void *stop_later(void *arg)
{
	usleep(20000);
	loop_stop(((struct fixture *)arg)->loop);
	return NULL;
}

static void test_stop_from_thread(void **state)
{
	struct fixture *f = *state;
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, stop_later, f), 0);
	assert_int_equal(loop_run(f->loop), 0);
	pthread_join(thread, NULL);
}

static void look_at_lock(void *arg, uint32_t events)
{
	struct fixture *f = arg;

	f->lock_held = pthread_mutex_trylock(&f->lock) == EBUSY;
}

static void test_lock(void **state)
{
	struct fixture *f = *state;

	loop_set_lock(f->loop, &f->lock);
	watch(f, 0, look_at_lock);
	eventfd_write(f->fd[0], 1);
	assert_int_equal(loop_run_once(f->loop, 0), 1);
	assert_true(f->lock_held);
	assert_int_equal(pthread_mutex_trylock(&f->lock), 0);
	pthread_mutex_unlock(&f->lock);
}

static void *run_loop(void *arg)
{
	loop_run(((struct fixture *)arg)->loop);
	return NULL;
}

/*
 * A source of which the loop's thread already holds an event may be removed by who has the
 * lock. Nothing of it is touched afterwards (the sanitizers look), and it is not called.
 */
static void test_remove_from_thread(void **state)
{
	struct fixture *f = *state;
	pthread_t thread;

	loop_set_lock(f->loop, &f->lock);
	assert_int_equal(pthread_create(&thread, NULL, run_loop, f), 0);
	for (unsigned i = 0; i < 500; i++) {
		unsigned calls;

		pthread_mutex_lock(&f->lock);
		watch(f, 0, count_fd);
		eventfd_write(f->fd[0], 1);
		if (i % 50 == 0) /* time to get stuck between epoll_wait() and the lock */
			usleep(2000);
		loop_remove(&f->source[0]);
		calls = f->calls;
		pthread_mutex_unlock(&f->lock);
		sched_yield();
		pthread_mutex_lock(&f->lock);
		assert_int_equal(f->calls, calls);
		pthread_mutex_unlock(&f->lock);
	}
	loop_stop(f->loop);
	pthread_join(thread, NULL);
	assert_int_equal(f->calls, 0);
}

static void test_destroy_nothing(void **state)
{
	loop_destroy(NULL);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(fd),
		TEST(bad_fd),
		TEST(timer),
		TEST(signal),
		TEST(remove_in_callback),
		TEST(replace_in_callback),
		TEST(timer_removes_itself),
		TEST(many),
		TEST(stop),
		TEST(stop_from_thread),
		TEST(lock),
		TEST(remove_from_thread),
		TEST(destroy_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
