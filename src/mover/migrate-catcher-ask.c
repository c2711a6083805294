/* SPDX-License-Identifier: Apache-2.0 */
/* Faults of a VM whose pages follow become requests to the source. */

#include "mover/migrate-catcher.h"

#define AT_ONCE 16

static int ask(struct catcher *c, const struct fault *fault, struct error *err)
{
	uint64_t chunk = fault->page / CHUNK_PAGES, bit = 1ull << fault->page % CHUNK_PAGES;
	bool before = atomic_fetch_or(&c->asked[chunk], bit) & bit;

	blocktime_begin(&c->blocktime, fault->thread, fault->page);
	/* After the bit is in `asked` who learns that a page is zero gives it himself. */
	if (c->zero[chunk] & bit || !(c->due[chunk] & bit)) {
		int rc = faults_zero(&c->faults, fault->page, err);

		blocktime_end(&c->blocktime, chunk, bit);
		return rc;
	}
	if (c->wanted[chunk] & bit)
		return before ? 0 : request_send(&c->channel[0], chunk, bit, err);
	/* Somebody is giving it, or has: then he may have woken who did not wait yet. */
	faults_wake(&c->faults, fault->page);
	blocktime_end(&c->blocktime, chunk, bit);
	return 0;
}

static int ask_huge(struct catcher *c, const struct fault *fault, struct error *err)
{
	uint64_t first = huge_first(c->huge, fault->page / CHUNK_PAGES);
	int rc;

	blocktime_begin(&c->blocktime, fault->thread, first * CHUNK_PAGES);
	rc = huge_show_if_whole(c->huge, first, err);
	if (rc) {
		/* Who showed it may have woken who did not wait yet. */
		faults_wake(&c->faults, fault->page);
		catcher_end_huge(c, first);
		return rc < 0 ? rc : 0;
	}
	for (uint64_t chunk = first; rc == 0 && chunk < first + huge_chunks(c->huge); chunk++) {
		uint64_t pages = c->wanted[chunk];

		pages &= ~atomic_fetch_or(&c->asked[chunk], pages);
		if (pages)
			rc = request_send(&c->channel[0], chunk, pages, err);
	}
	return rc;
}

/* Until it is told to stop: when the connections are gone, what is zero can be given still. */
void *catcher_ask_main(void *arg)
{
	struct catcher *c = arg;
	struct fault fault[AT_ONCE];
	struct error err = {{0}};
	int n, rc;

	while ((n = faults_wait(&c->faults, c->stop_fd, fault, AT_ONCE, &err)) > 0)
		for (int i = 0; i < n; i++)
			if ((rc = (c->huge ? ask_huge : ask)(c, &fault[i], &err)) < 0)
				catcher_fail(c, rc, &err);
	if (n < 0)
		catcher_fail(c, n, &err);
	return NULL;
}
