/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_LIB_LOOP_H
#define WISP_LIB_LOOP_H

/*
 * The event loop: one thread, epoll, callbacks. Sources are file descriptors, timers
 * and signals. All functions belong to the thread that runs the loop, or to any thread
 * while that one does not run it, or to holders of the loop's lock when one was set;
 * loop_stop() alone may be called from everywhere, also from a signal handler.
 */

#include <pthread.h>
#include <stdint.h>
#include <sys/epoll.h>

struct error;
struct loop;
struct loop_source;

/* events: the EPOLL* bits that are ready. The callback may remove any source, also its own. */
typedef void loop_fd_fn(void *arg, uint32_t events);
typedef void loop_timer_fn(void *arg);
typedef void loop_signal_fn(void *arg, int signo);

/* Returns 0 and a loop in *ret, or -errno. The caller owns it. */
int loop_create(struct loop **ret);

/* Frees the loop and all sources that were not removed. Accepts NULL. */
void loop_destroy(struct loop *loop);

/* While a lock is set every callback runs with it held. The lock stays the caller's. */
void loop_set_lock(struct loop *loop, pthread_mutex_t *lock);

/*
 * Watches fd (level-triggered unless events has EPOLLET). The fd stays the caller's and
 * must be open until the source is removed. Returns 0 or -errno; *ret belongs to the loop.
 */
int loop_add_fd(struct loop *loop, int fd, uint32_t events, loop_fd_fn *fn, void *arg,
		struct loop_source **ret);

/* Changes what an fd source waits for; 0 waits for nothing but errors and hang-up. */
int loop_modify_fd(struct loop_source *source, uint32_t events);

/* A timer, not armed. */
int loop_add_timer(struct loop *loop, loop_timer_fn *fn, void *arg, struct loop_source **ret);

/* First expiry after first_ns, then each interval_ns (0: once); first_ns 0 disarms. Monotonic. */
int loop_set_timer(struct loop_source *timer, uint64_t first_ns, uint64_t interval_ns);

/* Blocks signo in the calling thread and delivers it to the callback. */
int loop_add_signal(struct loop *loop, int signo, loop_signal_fn *fn, void *arg,
		    struct loop_source **ret);

/* Removes and frees a source; sets the pointer to NULL. Accepts a pointer to NULL. */
void loop_remove(struct loop_source **source);

/* Dispatches until loop_stop(); returns 0 or -errno. Can be run again after a stop. */
int loop_run(struct loop *loop);

/*
 * Waits at most timeout_ms (-1: for ever) and dispatches once. Number dispatched or -errno. Neither
 * this nor loop_run() may be called from a callback.
 */
int loop_run_once(struct loop *loop, int timeout_ms);

/* Makes loop_run() return soon: after the callbacks that are due. Any thread, async-signal-safe. */
void loop_stop(struct loop *loop);

/* How often the loop has woken up so far. Any thread. */
uint64_t loop_wakeups(const struct loop *loop);

#endif
