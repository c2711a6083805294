/* SPDX-License-Identifier: Apache-2.0 */
/* Records on descriptors, each checked whole. */

#include "image/flow.h"

#include <errno.h>
#include <openssl/evp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "image/chunks.h"
#include "image/manifest.h"
#include "image/progress.h"
#include "lib/error.h"
#include "lib/wire.h"

#define MAGIC "wispimg1"
#define MAGIC_SIZE 8
#define HEAD_SIZE 8
#define SUM_SIZE 32
#define PIECE (64u << 10) /* written at once, so that an interrupt need not wait for long */

void flow_done(struct flow *s)
{
	free(s->buf);
	s->buf = NULL;
	s->room = 0;
}

static bool is_interrupt(const struct flow *s)
{
	return s->progress && progress_check(s->progress, NULL) < 0;
}

/* Until the descriptor is ready. */
static int wait_for(const struct flow *s, int fd, short events, struct error *err)
{
	struct pollfd fds[] = {{.fd = fd, .events = events},
			       {.fd = s->progress ? s->progress->signals : -1, .events = POLLIN}};
	int n;

	do
		n = poll(fds, 2, s->silence_ms);
	while (n < 0 && errno == EINTR && !is_interrupt(s));
	if (fds[1].revents || is_interrupt(s))
		return error_set(err, -EINTR, "interrupted");
	if (n < 0)
		return error_errno(err, -errno, "poll");
	if (n == 0)
		return error_set(err, -ETIMEDOUT, "nothing was heard for %d s",
				 s->silence_ms / 1000);
	return 0;
}

/* *got: how many came before the end. */
static int read_bytes(struct flow *s, void *to, size_t n, size_t *got, struct error *err)
{
	for (*got = 0; *got < n;) {
		int rc = wait_for(s, s->in, POLLIN, err);
		ssize_t r;

		if (rc < 0)
			return rc;
		r = read(s->in, (uint8_t *)to + *got, n - *got);
		if (r < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (r < 0 && errno != ECONNRESET)
			return error_errno(err, -errno, "cannot read the stream");
		if (r <= 0)
			return error_set(err, -EPIPE, "the stream ends in the middle");
		*got += (size_t)r;
	}
	return 0;
}

static int write_bytes(struct flow *s, const void *from, size_t n, struct error *err)
{
	for (const uint8_t *p = from; n;) {
		size_t piece = n < PIECE ? n : PIECE;
		int rc = wait_for(s, s->out, POLLOUT, err);
		ssize_t r;

		if (rc < 0)
			return rc;
		r = send(s->out, p, piece, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (r < 0 && errno == ENOTSOCK)
			r = write(s->out, p, piece);
		if (r < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (r < 0)
			return error_errno(err, -errno, "cannot write the stream");
		p += r;
		n -= (size_t)r;
	}
	return 0;
}

int flow_greet(struct flow *s, struct error *err)
{
	return write_bytes(s, MAGIC, MAGIC_SIZE, err);
}

int flow_read_greeting(struct flow *s, struct error *err)
{
	char magic[MAGIC_SIZE];
	size_t got;
	int rc = read_bytes(s, magic, sizeof(magic), &got, err);

	if (rc == 0 && memcmp(magic, MAGIC, MAGIC_SIZE))
		return error_set(err, -EPROTO, "it is no stream of an image");
	return rc;
}

/* The longest payload of a type; 0 also for those that there are not. */
static size_t size_limit(uint32_t type)
{
	switch (type) {
	case RECORD_IMAGE:
		return MANIFEST_MAX;
	case RECORD_CHUNK:
		return 4 + CHUNK_SIZE;
	case RECORD_ERROR:
		return 4 + RECORD_TEXT;
	case RECORD_WANT:
		return RECORD_WANT_SIZE;
	case RECORD_LACK:
		return 4 + CHUNKS_MAX / 8;
	default:
		return 0;
	}
}

static int check_head(uint32_t type, uint32_t size, struct error *err)
{
	if (type < RECORD_IMAGE || type > RECORD_LACK)
		return error_set(err, -EPROTO, "a record of type %u, which there is not", type);
	if (size > size_limit(type))
		return error_set(err, -EPROTO, "a record of type %u with %u bytes", type, size);
	return 0;
}

static int sum_of(const void *head, const void *first, size_t nfirst, const void *data, size_t size,
		  uint8_t ret[SUM_SIZE])
{
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	bool good = md && EVP_DigestInit_ex(md, EVP_sha256(), NULL) &&
		    EVP_DigestUpdate(md, head, HEAD_SIZE) && EVP_DigestUpdate(md, first, nfirst) &&
		    EVP_DigestUpdate(md, data, size) && EVP_DigestFinal_ex(md, ret, NULL);

	EVP_MD_CTX_free(md);
	return good ? 0 : -EIO;
}

static int make_room(struct flow *s, size_t size, struct error *err)
{
	uint8_t *buf;

	if (size <= s->room)
		return 0;
	buf = realloc(s->buf, size);
	if (!buf)
		return error_set(err, -ENOMEM, "out of memory");
	s->buf = buf;
	s->room = size;
	return 0;
}

/* What is behind the head. */
static int read_payload(struct flow *s, const uint8_t *head, uint32_t type, uint32_t size,
			struct error *err)
{
	size_t sum_size = type == RECORD_CHUNK ? 0 : SUM_SIZE, got;
	uint8_t sum[SUM_SIZE];
	int rc = make_room(s, size + sum_size, err);

	if (rc == 0)
		rc = read_bytes(s, s->buf, size + sum_size, &got, err);
	if (rc < 0 || !sum_size)
		return rc;
	if (sum_of(head, s->buf, size, NULL, 0, sum) || memcmp(sum, s->buf + size, SUM_SIZE))
		return error_set(err, -EBADMSG, "a record was changed on its way");
	return 0;
}

int flow_read(struct flow *s, struct flow_record *ret, struct error *err)
{
	uint8_t head[HEAD_SIZE];
	struct wire_reader r = wire_reader(head, sizeof(head));
	uint32_t type, size;
	size_t got;
	int rc = read_bytes(s, head, sizeof(head), &got, err);

	if (rc < 0)
		return rc == -EPIPE && !got ? 0 : rc;
	type = wire_get_u32(&r);
	size = wire_get_u32(&r);
	rc = check_head(type, size, err);
	if (rc == 0)
		rc = read_payload(s, head, type, size, err);
	if (rc < 0)
		return rc;
	*ret = (struct flow_record){(enum record_type)type, s->buf, size};
	return 1;
}

int flow_write(struct flow *s, enum record_type type, const void *head, size_t head_size,
	       const void *data, size_t size, struct error *err)
{
	uint8_t bytes[HEAD_SIZE], sum[SUM_SIZE];
	struct wire_writer w = wire_writer(bytes, sizeof(bytes));
	int rc;

	wire_put_u32(&w, type);
	wire_put_u32(&w, (uint32_t)(head_size + size));
	if (type != RECORD_CHUNK && sum_of(bytes, head, head_size, data, size, sum))
		return error_set(err, -EIO, "SHA-256 failed");
	rc = write_bytes(s, bytes, sizeof(bytes), err);
	if (rc == 0)
		rc = write_bytes(s, head, head_size, err);
	if (rc == 0)
		rc = write_bytes(s, data, size, err);
	if (rc == 0 && type != RECORD_CHUNK)
		rc = write_bytes(s, sum, sizeof(sum), err);
	return rc;
}

int flow_write_error(struct flow *s, int code, const char *text)
{
	uint8_t head[4];
	struct wire_writer w = wire_writer(head, sizeof(head));

	wire_put_u32(&w, (uint32_t)-code);
	return flow_write(s, RECORD_ERROR, head, sizeof(head), text, strnlen(text, RECORD_TEXT),
			  NULL);
}

int flow_take_error(const struct flow_record *record, struct error *err)
{
	size_t n = record->size > 4 ? record->size - 4 : 0;
	char text[400];

	if (n > sizeof(text) - 1)
		n = sizeof(text) - 1;
	memcpy(text, record->data + record->size - (record->size > 4 ? record->size - 4 : 0), n);
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)text[i] < ' ' || text[i] == 0x7f)
			text[i] = '?';
	text[n] = 0;
	return error_set(err, -EREMOTEIO, "the source says: %s", n ? text : "no reason");
}

bool flow_has_input(const struct flow *s, int timeout_ms)
{
	struct pollfd fd = {.fd = s->in, .events = POLLIN | POLLRDHUP};

	return poll(&fd, 1, timeout_ms) > 0;
}
