/* SPDX-License-Identifier: Apache-2.0 */
/* The agent protocol: frames and everything that is decoded from them. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "agent/proto.h"
#include "lib/error.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void decode(const struct frame *frame, struct json_collector *json)
{
	struct error err;
	struct entry entry;
	json_t *value;
	unsigned rows, cols;
	enum stream_number stream;
	uint64_t position;

	switch (frame->type) {
	case FRAME_HELLO:
		frame_check_hello(frame, &err);
		break;
	case FRAME_REQUEST:
	case FRAME_RESULT:
		if (json_collect(json, frame, &value, &err) > 0)
			json_decref(value);
		break;
	case FRAME_ERROR:
		if (frame_error(frame, &err) >= 0)
			abort();
		break;
	case FRAME_EXIT:
		if (frame_exit_code(frame) < 0 || frame_exit_code(frame) > 255)
			abort();
		break;
	case FRAME_WINSIZE:
		frame_winsize(frame, &rows, &cols);
		break;
	case FRAME_POSITION:
		if (!frame_position(frame, &stream, &position, &err) &&
		    (stream > STREAM_ERR || position > INT64_MAX))
			abort();
		break;
	case FRAME_ENTRY:
		frame_entry(frame, true, &entry, &err);
		/* What passes is one component that stays where it is put. */
		if (!frame_entry(frame, false, &entry, &err) &&
		    (!entry.name[0] || strchr(entry.name, '/') || !strcmp(entry.name, "..") ||
		     !strcmp(entry.name, ".") || entry.mode & ~0777u))
			abort();
		break;
	default:
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct json_collector json = {0};
	struct buffer b = {0};
	struct frame frame;
	struct error err;

	/* In two pieces, as a stream may bring it. */
	for (int half = 0; half < 2; half++) {
		size_t n = half ? size - size / 2 : size / 2;

		if (buffer_append(&b, half ? data + size / 2 : data, n))
			abort();
		while (frame_parse(&b, &frame, &err) > 0) {
			decode(&frame, &json);
			frame_consume(&b, &frame);
		}
	}
	buffer_done(&json.text);
	buffer_done(&b);
	return 0;
}
