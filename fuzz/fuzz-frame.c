/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A peer of the node protocol that sends anything in pieces of any size: each frame is taken or
 * refused once, and the buffer stays within what has come.
 */

#include <stdlib.h>
#include <string.h>

#include "channel/frame.h"
#include "input.h"
#include "lib/error.h"

#define MAX_HERE 2048

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int ok)
{
	if (!ok)
		abort();
}

static void check(const struct frame *f)
{
	size_t n;
	uint8_t *p;

	require(f->type >= FRAME_MESSAGE && f->type <= FRAME_ALIVE);
	if (f->type != FRAME_MESSAGE)
		return;
	require(json_is_object(f->message));
	if (!frame_encode(f->message, FRAME_MAX, &p, &n, NULL))
		free(p);
	json_decref(f->message);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {.data = data, .size = size};
	struct frame_reader r = {.max = MAX_HERE};
	struct error err = {{0}};
	struct frame f;
	int rc = 0;

	while (rc >= 0 && in.pos < in.size) {
		size_t n = 1 + input_u8(&in), room;
		uint8_t *p = frame_room(&r, &room);

		require(p != NULL && r.room <= 4 * (MAX_HERE + 256));
		if (n > in.size - in.pos)
			n = in.size - in.pos;
		if (n > room)
			n = room;
		memcpy(p, in.data + in.pos, n);
		frame_added(&r, n);
		in.pos += n;
		while ((rc = frame_take(&r, &f, &err)) > 0)
			check(&f);
		require(rc == 0 || err.text[0]);
	}
	frame_reader_done(&r);
	return 0;
}
