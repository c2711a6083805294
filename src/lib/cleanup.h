/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_LIB_CLEANUP_H
#define WISP_LIB_CLEANUP_H

/*
 * Clean-up attributes for locals. Set the variable at its declaration (fds to -1,
 * pointers to NULL); hand ownership out with take_fd() or take_ptr().
 *
 *     CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
 *     CLEANUP_FREE char *line = NULL;
 */

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static inline void cleanup_free_ptr(void *p)
{
	int saved = errno;

	free(*(void **)p);
	errno = saved;
}

static inline void cleanup_close_fd(int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		close(*fd);
	errno = saved;
}

static inline void cleanup_close_file(FILE **f)
{
	int saved = errno;

	if (*f)
		fclose(*f);
	errno = saved;
}

static inline void cleanup_close_dir(DIR **d)
{
	int saved = errno;

	if (*d)
		closedir(*d);
	errno = saved;
}

static inline void cleanup_unlock_mutex(pthread_mutex_t **m)
{
	if (*m)
		pthread_mutex_unlock(*m);
}

static inline pthread_mutex_t *cleanup_lock_mutex(pthread_mutex_t *m)
{
	pthread_mutex_lock(m);
	return m;
}

#define CLEANUP_FREE __attribute__((cleanup(cleanup_free_ptr)))
#define CLEANUP_CLOSE __attribute__((cleanup(cleanup_close_fd)))
#define CLEANUP_FILE __attribute__((cleanup(cleanup_close_file)))
#define CLEANUP_DIR __attribute__((cleanup(cleanup_close_dir)))

/* Holds the mutex until the end of the scope. */
#define SCOPED_LOCK(mutex)                                                                     \
	__attribute__((cleanup(cleanup_unlock_mutex), unused)) pthread_mutex_t *scoped_lock_ = \
		cleanup_lock_mutex(mutex)

static inline int take_fd(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}

#define take_ptr(p)                         \
	({                                  \
		__typeof__(p) taken_ = (p); \
		(p) = NULL;                 \
		taken_;                     \
	})

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define container_of(ptr, type, member) ((type *)((char *)(ptr) - __builtin_offsetof(type, member)))

#endif
