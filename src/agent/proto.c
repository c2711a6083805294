/* SPDX-License-Identifier: Apache-2.0 */
/* Frames of the agent protocol: encoding and checked decoding. */

#include "agent/proto.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/wire.h"

void buffer_done(struct buffer *b)
{
	free(b->data);
	*b = (struct buffer){0};
}

uint8_t *buffer_reserve(struct buffer *b, size_t n)
{
	size_t used = buffer_used(b);
	uint8_t *bigger;

	if (b->data && b->room - b->end >= n)
		return b->data + b->end;
	if (b->data && b->room - used >= n && b->start >= used) {
		memcpy(b->data, b->data + b->start, used);
	} else {
		size_t room = used + n < 512 ? 512 : (used + n) + (used + n) / 2;

		bigger = malloc(room);
		if (!bigger)
			return NULL;
		if (used)
			memcpy(bigger, b->data + b->start, used);
		free(b->data);
		b->data = bigger;
		b->room = room;
	}
	b->start = 0;
	b->end = used;
	return b->data + used;
}

void buffer_commit(struct buffer *b, size_t n)
{
	b->end += n;
}

void buffer_consume(struct buffer *b, size_t n)
{
	b->start += n;
	if (b->start < b->end)
		return;
	b->start = b->end = 0;
	/* What a burst needed is not kept by an idle session. */
	if (b->room > 4 * PROTO_MAX_PAYLOAD)
		buffer_done(b);
}

int buffer_append(struct buffer *b, const void *data, size_t n)
{
	uint8_t *p = buffer_reserve(b, n);

	if (!p)
		return -ENOMEM;
	if (n)
		memcpy(p, data, n);
	buffer_commit(b, n);
	return 0;
}

/* What each type may carry. */
static const struct frame_rule {
	uint16_t type;
	uint16_t flags;
	uint32_t min, max;
	const char *name;
} rules[] = {
	{FRAME_HELLO, 0, 8, 8, "HELLO"},
	{FRAME_REQUEST, FRAME_MORE, 1, PROTO_MAX_PAYLOAD, "REQUEST"},
	{FRAME_RESULT, FRAME_MORE, 1, PROTO_MAX_PAYLOAD, "RESULT"},
	{FRAME_ERROR, 0, 4, PROTO_MAX_PAYLOAD, "ERROR"},
	{FRAME_STARTED, 0, 4, 4, "STARTED"},
	{FRAME_STDIN, 0, 0, PROTO_MAX_PAYLOAD, "STDIN"},
	{FRAME_STDOUT, 0, 0, PROTO_MAX_PAYLOAD, "STDOUT"},
	{FRAME_STDERR, 0, 0, PROTO_MAX_PAYLOAD, "STDERR"},
	{FRAME_CREDIT, 0, 4, 4, "CREDIT"},
	{FRAME_SIGNAL, 0, 4, 4, "SIGNAL"},
	{FRAME_WINSIZE, 0, 4, 4, "WINSIZE"},
	{FRAME_EXIT, 0, 8, 8, "EXIT"},
	{FRAME_POSITION, 0, 9, 9, "POSITION"},
	{FRAME_ENTRY, 0, 23, PROTO_MAX_PAYLOAD, "ENTRY"},
	{FRAME_DATA, 0, 0, PROTO_MAX_PAYLOAD, "DATA"},
	{FRAME_LEAVE, 0, 0, 0, "LEAVE"},
	{FRAME_DONE, 0, 0, 0, "DONE"},
};

static const struct frame_rule *rule_find(unsigned type)
{
	for (unsigned i = 0; i < ARRAY_SIZE(rules); i++)
		if (rules[i].type == type)
			return &rules[i];
	return NULL;
}

int frame_parse(const struct buffer *b, struct frame *ret, struct error *err)
{
	struct wire_reader r = wire_reader(b->data + b->start, buffer_used(b));
	const struct frame_rule *rule;
	uint32_t size;
	unsigned type, flags;

	if (buffer_used(b) < PROTO_HEADER)
		return 0;
	size = wire_get_u32(&r);
	type = wire_get_u16(&r);
	flags = wire_get_u16(&r);
	rule = rule_find(type);
	if (!rule)
		return error_set(err, -EPROTO, "frame of unknown type %u (not the agent protocol?)",
				 type);
	if (size < rule->min || size > rule->max)
		return error_set(err, -EPROTO, "%s frame with %u bytes", rule->name, size);
	if (flags & ~(unsigned)rule->flags)
		return error_set(err, -EPROTO, "%s frame with flags 0x%x", rule->name, flags);
	if (buffer_used(b) - PROTO_HEADER < size)
		return 0;
	*ret = (struct frame){
		.type = type, .flags = flags, .size = size, .data = r.data + PROTO_HEADER};
	return 1;
}

void frame_consume(struct buffer *b, const struct frame *frame)
{
	buffer_consume(b, PROTO_HEADER + frame->size);
}

static void put_header(uint8_t *p, enum frame_type type, unsigned flags, size_t size)
{
	struct wire_writer w = wire_writer(p, PROTO_HEADER);

	wire_put_u32(&w, (uint32_t)size);
	wire_put_u16(&w, (uint16_t)type);
	wire_put_u16(&w, (uint16_t)flags);
}

static int append_flags(struct buffer *b, enum frame_type type, unsigned flags, const void *data,
			size_t size)
{
	uint8_t *p = buffer_reserve(b, PROTO_HEADER + size);

	if (!p)
		return -ENOMEM;
	put_header(p, type, flags, size);
	if (size)
		memcpy(p + PROTO_HEADER, data, size);
	buffer_commit(b, PROTO_HEADER + size);
	return 0;
}

uint8_t *frame_reserve(struct buffer *b)
{
	uint8_t *p = buffer_reserve(b, PROTO_HEADER + PROTO_MAX_PAYLOAD);

	return p ? p + PROTO_HEADER : NULL;
}

void frame_commit(struct buffer *b, enum frame_type type, size_t size)
{
	put_header(b->data + b->end, type, 0, size);
	buffer_commit(b, PROTO_HEADER + size);
}

int frame_append(struct buffer *b, enum frame_type type, const void *data, size_t size)
{
	return append_flags(b, type, 0, data, size);
}

int frame_append_u32(struct buffer *b, enum frame_type type, uint32_t value)
{
	value = htole32(value);
	return frame_append(b, type, &value, sizeof(value));
}

int frame_append_hello(struct buffer *b)
{
	uint32_t hello[2] = {htole32(PROTO_MAGIC), htole32(PROTO_VERSION)};

	return frame_append(b, FRAME_HELLO, hello, sizeof(hello));
}

int frame_append_error(struct buffer *b, int code, const char *text)
{
	char payload[4 + sizeof(((struct error *)0)->text)];
	struct wire_writer w = wire_writer(payload, sizeof(payload));

	wire_put_u32(&w, (uint32_t)-code);
	wire_put_bytes(&w, text, strnlen(text, sizeof(payload) - 4));
	return frame_append(b, FRAME_ERROR, payload, w.pos);
}

int frame_append_winsize(struct buffer *b, unsigned rows, unsigned cols)
{
	uint16_t size[2] = {htole16((uint16_t)rows), htole16((uint16_t)cols)};

	return frame_append(b, FRAME_WINSIZE, size, sizeof(size));
}

int frame_append_exit(struct buffer *b, int status)
{
	bool killed = WIFSIGNALED(status);
	uint32_t kind = killed, value = (uint32_t)(killed ? WTERMSIG(status) : WEXITSTATUS(status));
	uint32_t payload[2] = {htole32(kind), htole32(value)};

	return frame_append(b, FRAME_EXIT, payload, sizeof(payload));
}

int frame_append_position(struct buffer *b, enum stream_number stream, uint64_t position)
{
	uint8_t payload[9];
	struct wire_writer w = wire_writer(payload, sizeof(payload));

	wire_put_u8(&w, (uint8_t)stream);
	wire_put_u64(&w, position);
	return frame_append(b, FRAME_POSITION, payload, sizeof(payload));
}

int frame_append_json(struct buffer *b, enum frame_type type, const json_t *value)
{
	CLEANUP_FREE char *text = json_dumps(value, JSON_COMPACT);
	size_t left = text ? strlen(text) : 0;
	int r = text ? 0 : -ENOMEM;

	if (left > PROTO_MAX_JSON)
		return -EMSGSIZE;
	for (const char *p = text; !r && left;) {
		size_t n = left > PROTO_MAX_PAYLOAD ? PROTO_MAX_PAYLOAD : left;

		r = append_flags(b, type, n < left ? FRAME_MORE : 0, p, n);
		p += n;
		left -= n;
	}
	return r;
}

int frame_check_hello(const struct frame *frame, struct error *err)
{
	struct wire_reader r = wire_reader(frame->data, frame->size);
	uint32_t magic = wire_get_u32(&r), version = wire_get_u32(&r);

	if (frame->type != FRAME_HELLO || magic != PROTO_MAGIC)
		return error_set(err, -EPROTO, "the peer does not speak the agent protocol");
	if (version != PROTO_VERSION)
		return error_set(
			err, -EPROTONOSUPPORT,
			"the peer speaks version %u of the agent protocol, this is version %u",
			version, PROTO_VERSION);
	return 0;
}

uint32_t frame_u32(const struct frame *frame)
{
	struct wire_reader r = wire_reader(frame->data, frame->size);

	return wire_get_u32(&r);
}

void frame_winsize(const struct frame *frame, unsigned *rows, unsigned *cols)
{
	struct wire_reader r = wire_reader(frame->data, frame->size);

	*rows = wire_get_u16(&r);
	*cols = wire_get_u16(&r);
}

int frame_position(const struct frame *frame, enum stream_number *stream, uint64_t *position,
		   struct error *err)
{
	struct wire_reader r = wire_reader(frame->data, frame->size);
	unsigned number = wire_get_u8(&r);

	if (number > STREAM_ERR)
		return error_set(err, -EPROTO, "a position of stream %u", number);
	*stream = number;
	*position = wire_get_u64(&r);
	if (*position > INT64_MAX)
		return error_set(err, -EPROTO, "a position beyond all streams");
	return 0;
}

int frame_exit_code(const struct frame *frame)
{
	struct wire_reader r = wire_reader(frame->data, frame->size);
	uint32_t kind = wire_get_u32(&r), value = wire_get_u32(&r);

	return (int)((value & 0xff) + (kind ? 128 : 0)) & 0xff;
}

void text_printable(const char *text, size_t n, char *ret)
{
	const uint8_t *p = (const uint8_t *)text;

	for (size_t i = 0; i < n; i++) {
		bool c1 = i && p[i - 1] == 0xc2 && p[i] >= 0x80 && p[i] < 0xa0;

		if (c1)
			ret[i - 1] = '?';
		ret[i] = p[i] < ' ' || p[i] == 127 || c1 ? '?' : text[i];
	}
	ret[n] = 0;
}

int frame_error(const struct frame *frame, struct error *err)
{
	uint32_t code = frame_u32(frame);
	size_t n = frame->size - 4;
	char text[sizeof(err->text)];

	if (n >= sizeof(text))
		n = sizeof(text) - 1;
	/* The text goes to a terminal: a hostile peer gets no control sequences there. */
	text_printable((const char *)frame->data + 4, n, text);
	return error_set(err, code && code < 4096 ? -(int)code : -EPROTO, "%s", text);
}

int json_collect(struct json_collector *c, const struct frame *frame, json_t **ret,
		 struct error *err)
{
	json_error_t jerr;
	json_t *value;

	if (buffer_used(&c->text) + frame->size > PROTO_MAX_JSON)
		return error_set(err, -EMSGSIZE, "request or result larger than %u bytes",
				 PROTO_MAX_JSON);
	if (buffer_append(&c->text, frame->data, frame->size))
		return error_errno(err, -ENOMEM, "cannot collect a request");
	if (frame->flags & FRAME_MORE)
		return 0;
	value = json_loadb((char *)c->text.data + c->text.start, buffer_used(&c->text),
			   JSON_REJECT_DUPLICATES, &jerr);
	buffer_done(&c->text);
	if (!value)
		return error_set(err, -EPROTO, "not JSON: %s", jerr.text);
	if (!json_is_object(value)) {
		json_decref(value);
		return error_set(err, -EPROTO, "not a JSON object");
	}
	*ret = value;
	return 1;
}

/* One component that stays in its directory. */
static bool name_valid(const char *name, size_t n)
{
	return n && n < sizeof(((struct entry *)0)->name) && !memchr(name, '/', n) &&
	       !memchr(name, 0, n) && !(n == 1 && name[0] == '.') &&
	       !(n == 2 && name[0] == '.' && name[1] == '.');
}

int frame_entry(const struct frame *frame, bool top, struct entry *ret, struct error *err)
{
	struct wire_reader r = wire_reader(frame->data, frame->size);
	unsigned kind = wire_get_u8(&r);
	struct entry e = {.kind = kind, .mode = wire_get_u32(&r) & 0777};
	size_t n, target;
	const char *p;

	e.mtime_ns = (int64_t)wire_get_u64(&r);
	e.size = wire_get_u64(&r);
	n = wire_get_u16(&r);
	p = wire_get_bytes(&r, n);
	if (!wire_ok(&r) || kind < ENTRY_FILE || kind > ENTRY_LINK)
		return error_set(err, -EPROTO, "the peer sent a malformed entry");
	if (top ? n : !name_valid(p, n))
		return error_set(err, -EPROTO,
				 "the peer sent a name that could leave the destination");
	memcpy(e.name, p, n);
	target = r.size - r.pos;
	p = wire_get_bytes(&r, target);
	if ((kind == ENTRY_LINK) != (target > 0) || target >= sizeof(e.target) ||
	    memchr(p, 0, target))
		return error_set(err, -EPROTO, "the peer sent a malformed symbolic link");
	memcpy(e.target, p, target);
	*ret = e;
	return 0;
}

int frame_append_entry(struct buffer *b, const struct entry *e)
{
	uint8_t payload[23 + sizeof(e->name) + sizeof(e->target)];
	struct wire_writer w = wire_writer(payload, sizeof(payload));

	wire_put_u8(&w, (uint8_t)e->kind);
	wire_put_u32(&w, e->mode);
	wire_put_u64(&w, (uint64_t)e->mtime_ns);
	wire_put_u64(&w, e->size);
	wire_put_u16(&w, (uint16_t)strlen(e->name));
	wire_put_bytes(&w, e->name, strlen(e->name));
	wire_put_bytes(&w, e->target, strlen(e->target));
	return frame_append(b, FRAME_ENTRY, payload, w.pos);
}
