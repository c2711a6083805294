/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_IMAGE_DELIVER_H
#define WISP_IMAGE_DELIVER_H

/* What imports and fetches have in common: where an image comes to, how it is called there, how far
 * it is. One thread. */

#include "image/arrival.h"
#include "image/transfer.h"

struct flow_record;

struct delivery {
	const struct image_wish *wish;
	bool any_name; /* another one is found when it is taken */
	struct arrival arrival;
	struct image_arrived result;
	char *store;
};

/* Begins; an image of the digest that is there already is told in result.was_there, and nothing
 * more is to be done. */
int deliver_begin(const struct image_wish *wish, bool any_name, const char *digest,
		  struct delivery *ret, struct error *err);

/* Takes the payload behind the digest of an "image" record. result.was_there as above. */
int deliver_take(struct delivery *d, const void *data, size_t size, struct error *err);

/* Takes a "chunk" record. */
int deliver_put(struct delivery *d, const struct flow_record *record, struct error *err);

/* Gives it its name. */
int deliver_commit(struct delivery *d, struct error *err);
void deliver_end(struct delivery *d);

#endif
