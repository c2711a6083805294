/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_AGENT_PROTO_H
#define WISP_AGENT_PROTO_H

/*
 * The frames of the agent protocol (docs/formats/agent.md): encoding, and checking of
 * what a peer sent. Used by the agent, the host's client and wisp-rsh. No I/O but in
 * struct channel, which is for blocking users. Any thread; an object belongs to one at a time.
 */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct error;

#define PROTO_MAGIC 0x41505357u /* "WSPA" */
#define PROTO_VERSION 1u
#define PROTO_HEADER 8u
#define PROTO_MAX_PAYLOAD 65536u
#define PROTO_MAX_JSON (4u << 20)	/* a request or result made of several frames */
#define PROTO_STDIN_WINDOW (256u << 10) /* bytes of stdin under way */
#define PROTO_PORT 1024u
#define PROTO_RELAY_PORT 1025u
#define PROTO_MAX_DEPTH 256u /* of a copied tree: each level holds a file descriptor */

enum frame_type {
	FRAME_HELLO = 1,
	FRAME_REQUEST = 2,
	FRAME_RESULT = 3,
	FRAME_ERROR = 4,
	FRAME_STARTED = 5,
	FRAME_STDIN = 16,
	FRAME_STDOUT = 17,
	FRAME_STDERR = 18,
	FRAME_CREDIT = 19,
	FRAME_SIGNAL = 20,
	FRAME_WINSIZE = 21,
	FRAME_EXIT = 22,
	FRAME_POSITION = 23,
	FRAME_ENTRY = 32,
	FRAME_DATA = 33,
	FRAME_LEAVE = 34,
	FRAME_DONE = 35,
};

/* The standard streams of a program, as POSITION numbers them. */
enum stream_number {
	STREAM_IN = 0,
	STREAM_OUT = 1,
	STREAM_ERR = 2,
};

#define FRAME_MORE 1u /* the payload goes on in the next frame */

/* A FIFO of bytes. Zero-initialise; free with buffer_done(). */
struct buffer {
	uint8_t *data;
	size_t start, end, room;
};

static inline size_t buffer_used(const struct buffer *b)
{
	return b->end - b->start;
}

void buffer_done(struct buffer *b);
/* A pointer to n free bytes at the end, NULL when out of memory; buffer_commit() adds them. */
uint8_t *buffer_reserve(struct buffer *b, size_t n);
void buffer_commit(struct buffer *b, size_t n);
void buffer_consume(struct buffer *b, size_t n);
int buffer_append(struct buffer *b, const void *data, size_t n);

/* One frame; data points into the buffer it was parsed from. */
struct frame {
	enum frame_type type;
	unsigned flags;
	size_t size;
	const uint8_t *data;
};

/*
 * Looks at the front of the buffer. Returns 1 and the frame (take it out with
 * frame_consume()), 0 when it is not whole, -EPROTO when it is none: header, flags and the
 * length that its type allows are checked here.
 */
int frame_parse(const struct buffer *b, struct frame *ret, struct error *err);
void frame_consume(struct buffer *b, const struct frame *frame);

/* Appends a frame; size <= PROTO_MAX_PAYLOAD. Returns 0 or -ENOMEM. */
int frame_append(struct buffer *b, enum frame_type type, const void *data, size_t size);
/*
 * For reading straight into a frame: room for a whole payload (NULL when out of memory);
 * frame_commit() makes the first size bytes a frame.
 */
uint8_t *frame_reserve(struct buffer *b);
void frame_commit(struct buffer *b, enum frame_type type, size_t size);
int frame_append_u32(struct buffer *b, enum frame_type type, uint32_t value);
int frame_append_hello(struct buffer *b);
/* code is a negative errno. */
int frame_append_error(struct buffer *b, int code, const char *text);
int frame_append_winsize(struct buffer *b, unsigned rows, unsigned cols);
/* status is that of waitpid(). */
int frame_append_exit(struct buffer *b, int status);
int frame_append_position(struct buffer *b, enum stream_number stream, uint64_t position);
/* As many frames as the text needs. -EMSGSIZE beyond PROTO_MAX_JSON. */
int frame_append_json(struct buffer *b, enum frame_type type, const json_t *value);

/* Decoders; the frame has passed frame_parse(). */
int frame_check_hello(const struct frame *frame, struct error *err);
uint32_t frame_u32(const struct frame *frame);
void frame_winsize(const struct frame *frame, unsigned *rows, unsigned *cols);
/* -EPROTO when there is no such stream, or position. */
int frame_position(const struct frame *frame, enum stream_number *stream, uint64_t *position,
		   struct error *err);
/* The code a shell would give: 0..255, or 128 + signal. */
int frame_exit_code(const struct frame *frame);
/* Puts the peer's text into err and returns its errno, negative. */
int frame_error(const struct frame *frame, struct error *err);

/* Collects the frames of one JSON value. Zero-initialise; buffer_done(&text) frees it. */
struct json_collector {
	struct buffer text;
};
/* Returns 1 and a new reference when whole, 0 when more frames follow, or -errno. */
int json_collect(struct json_collector *c, const struct frame *frame, json_t **ret,
		 struct error *err);

enum entry_kind {
	ENTRY_FILE = 1,
	ENTRY_DIR = 2,
	ENTRY_LINK = 3,
};

struct entry {
	enum entry_kind kind;
	mode_t mode;
	int64_t mtime_ns;
	uint64_t size;
	char name[256];	   /* checked: one component */
	char target[4096]; /* of a symbolic link */
};

/* top: the first entry of a tree, whose name is empty. -EPROTO with the reason. */
int frame_entry(const struct frame *frame, bool top, struct entry *ret, struct error *err);
int frame_append_entry(struct buffer *b, const struct entry *entry);

/*
 * Copies n bytes to ret, which has room for one more, and ends them with NUL. Control characters
 * become '?': what a guest wrote must not control the terminal it is shown on.
 */
void text_printable(const char *text, size_t n, char *ret);

/* A blocking stream of frames. The fd stays the caller's. */
struct channel {
	int fd;
	struct buffer in;
	struct frame frame;   /* given out last; taken out of the buffer by the next receive */
	uint64_t deadline_ns; /* by io_now_ns(), for sockets; then -ETIMEDOUT. 0: none */
};

void channel_init(struct channel *ch, int fd);
void channel_done(struct channel *ch);
/* Waits for the next frame; valid until the next call. -EPIPE when the peer has gone. */
int channel_receive(struct channel *ch, struct frame *ret, struct error *err);
/* The next frame must be of this type; ERROR is turned into its errno and text. */
int channel_expect(struct channel *ch, enum frame_type type, struct frame *ret, struct error *err);
int channel_send(struct channel *ch, enum frame_type type, const void *data, size_t size,
		 struct error *err);
int channel_send_buffer(struct channel *ch, const struct buffer *b, struct error *err);
int channel_send_json(struct channel *ch, enum frame_type type, const json_t *value,
		      struct error *err);
/* Exchanges HELLO. */
int channel_hello(struct channel *ch, struct error *err);

#endif
