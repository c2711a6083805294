/* SPDX-License-Identifier: Apache-2.0 */
/* The last bytes of a stream, in a ring of memory. */

#include "agent/window.h"

#include <errno.h>
#include <sys/mman.h>

#define KEEP (256u << 10) /* of the ring, when it is empty */

int window_init(struct window *w, size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return -ENOMEM;
	*w = (struct window){.data = p, .size = size};
	return 0;
}

void window_done(struct window *w)
{
	if (w->data)
		munmap(w->data, w->size);
	*w = (struct window){0};
}

/* Where a position is in the ring, and how many bytes there are to the ring's end. */
static size_t locate(const struct window *w, uint64_t position, size_t *left)
{
	size_t at = (size_t)((position - w->base) % w->size);

	*left = w->size - at;
	return at;
}

size_t window_room(const struct window *w, uint8_t **ret)
{
	size_t free = w->size - (size_t)(w->end - w->start), left;

	*ret = w->data + locate(w, w->end, &left);
	return free < left ? free : left;
}

void window_add(struct window *w, size_t n)
{
	w->end += n;
}

size_t window_get(const struct window *w, uint64_t position, const uint8_t **ret)
{
	size_t used = (size_t)(w->end - position), left;

	*ret = w->data + locate(w, position, &left);
	return used < left ? used : left;
}

void window_drop(struct window *w, uint64_t position)
{
	if (position <= w->start)
		return;
	w->start = position;
	if (w->start < w->end)
		return;
	if (w->size > KEEP && w->end - w->base > KEEP)
		madvise(w->data + KEEP, w->size - KEEP, MADV_DONTNEED);
	w->base = w->end;
}
