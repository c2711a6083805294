/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes at even distances. */

#include "mover/pace.h"

#include <errno.h>
#include <time.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

#define NS 1e9
#define LATE_NS 10e6 /* what may be made up for */
#define PORTION_NS 5e6
#define SLICE_NS 20000000ull /* a cancel is seen within that */

void pace_init(struct pace *p, uint64_t rate)
{
	*p = (struct pace){.rate = rate};
	pthread_mutex_init(&p->mutex, NULL);
}

void pace_done(struct pace *p)
{
	pthread_mutex_destroy(&p->mutex);
}

size_t pace_reserve(struct pace *p, size_t want, uint64_t now, uint64_t *at)
{
	size_t portion = (size_t)((double)p->rate * PORTION_NS / NS);

	SCOPED_LOCK(&p->mutex);
	if (want > portion)
		want = portion;
	if (p->free_ns + LATE_NS < (double)now)
		p->free_ns = (double)now - LATE_NS;
	*at = (uint64_t)p->free_ns;
	p->free_ns += (double)want * NS / (double)p->rate;
	return want;
}

int pace_wait(struct pace *p, size_t want, const _Atomic bool *const cancel[2], size_t *ret,
	      struct error *err)
{
	uint64_t now = io_now_ns(), at;

	*ret = pace_reserve(p, want, now, &at);
	for (; now < at; now = io_now_ns()) {
		uint64_t left = at - now < SLICE_NS ? at - now : SLICE_NS;
		const struct timespec pause = {0, (long)left};

		if ((cancel[0] && *cancel[0]) || (cancel[1] && *cancel[1]))
			return error_set(err, -ECANCELED, "cancelled");
		nanosleep(&pause, NULL);
	}
	return 0;
}
