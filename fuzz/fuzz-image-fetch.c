/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who serves an image sends anything: records of any kind and order, with right sums, chunks that
 * are right or not, or bytes that are no records. What is taken is an image whose every byte is the
 * one its digest stands for; all else is told, and leaves no image.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image/flow.h"
#include "image/image.h"
#include "image/transfer.h"
#include "image/tree.h"
#include "input.h"
#include "lib/error.h"
#include "lib/io.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* An image of four parts of a few bytes: one chunk each but for the last, which is empty. */
#define TEXT "wisp!"
#define SUM "%s"
#define PART(name) "\"" name "\":{\"size\":5,\"sha256\":\"" SUM "\",\"chunks\":[\"" SUM "\"]}"

struct sample {
	char folder[64], digest[DIGEST_TEXT], manifest[2048];
	uint8_t bytes[32];
};

static void require(int ok)
{
	if (!ok)
		abort();
}

static struct sample make_sample(void)
{
	struct sample s = {.folder = "/tmp/wisp-fuzz-XXXXXX"};
	char t[DIGEST_TEXT], e[DIGEST_TEXT];
	json_t *json;

	require(mkdtemp(s.folder) != NULL);
	setenv("WISP_HOME", s.folder, 1);
	setenv("WISP_CACHE", s.folder, 1);
	unsetenv("WISP_STORE");
	digest_bytes(TEXT, 5, t, NULL);
	digest_bytes("", 0, e, NULL);
	snprintf(s.manifest, sizeof(s.manifest),
		 "{\"format\":1,\"name\":\"x\",\"parts\":{" PART("vmlinux") "," PART(
			 "vmlinuz") "," PART("initrd") ",\"root.squashfs\":{\"size\":0,\"sha256\":"
						       "\"%s\",\"chunks\":[]}}}",
		 t, t, t, t, t, t, e);
	json = json_loads(s.manifest, 0, NULL);
	require(json && image_digest(json, s.digest, NULL) == 0);
	json_decref(json);
	for (unsigned i = 0; i < 32; i++) {
		char byte[3] = {s.digest[2 * i], s.digest[2 * i + 1], 0};

		s.bytes[i] = (uint8_t)strtoul(byte, NULL, 16);
	}
	return s;
}

/* The right image, or one in which a byte is another. */
static void send_image_record(struct flow *flow, const struct sample *s, struct input *in)
{
	uint8_t head[36] = {0};
	char manifest[sizeof(s->manifest)];
	size_t n = strlen(s->manifest);
	unsigned change = input_u8(in);

	memcpy(head, s->bytes, 32);
	memcpy(manifest, s->manifest, n);
	if (change & 1)
		manifest[input_number(in, 2) % n] = (char)input_u8(in);
	if (change & 2)
		n = input_number(in, 2) % (n + 1);
	head[32] = (uint8_t)n;
	head[33] = (uint8_t)(n >> 8);
	if (change & 4)
		head[input_u8(in) % 36] ^= input_u8(in);
	flow_write(flow, RECORD_IMAGE, head, sizeof(head), manifest, n, NULL);
}

static void send_any(struct flow *flow, struct input *in)
{
	uint8_t data[300];
	size_t n = input_u8(in);
	enum record_type type = (enum record_type)(input_u8(in) % 9);

	for (size_t i = 0; i < n; i++)
		data[i] = input_u8(in);
	flow_write(flow, type, data, n, NULL, 0, NULL);
}

static void send_chunk_record(struct flow *flow, struct input *in)
{
	uint8_t head[4] = {input_u8(in) & 3};
	char text[] = TEXT;

	if (input_u8(in) & 1)
		text[input_u8(in) % 5] ^= (char)(input_u8(in) & 3);
	flow_write(flow, RECORD_CHUNK, head, 4, text, input_u8(in) & 1 ? 4 : 5, NULL);
}

static void send_all(struct flow *flow, const struct sample *s, struct input *in)
{
	if (input_u8(in) != 0)
		require(flow_greet(flow, NULL) == 0);
	while (in->pos < in->size) {
		switch (input_u8(in) % 6) {
		case 0:
			send_image_record(flow, s, in);
			break;
		case 1:
		case 2:
			send_chunk_record(flow, in);
			break;
		case 3:
			flow_write(flow, RECORD_END, NULL, 0, NULL, 0, NULL);
			break;
		case 4:
			send_any(flow, in);
			break;
		default: {
			uint8_t raw = input_u8(in);

			io_write_full(flow->out, &raw, 1);
		}
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {.data = data, .size = size < 2048 ? size : 2048};
	struct sample s = make_sample();
	struct image_wish wish = {0};
	struct image_arrived got;
	struct error err = {{0}};
	struct image image;
	int pair[2], rc, room = 1 << 20;

	require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
	setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	/* What is sent fits into the socket; what the other says is not heard. */
	send_all(&(struct flow){.in = pair[0], .out = pair[0], .silence_ms = 1000}, &s, &in);
	shutdown(pair[0], SHUT_WR);
	rc = image_fetch(pair[1], pair[1], s.digest, &wish, &got, &err);
	require(rc == 0 || err.text[0]);
	require((image_open("x", &image, NULL) == 0) == (rc == 0));
	if (rc == 0) {
		require(image_verify(&image, NULL) == 0);
		image_close(&image);
	}
	close(pair[0]);
	close(pair[1]);
	require(tree_remove(s.folder, NULL) == 0);
	return 0;
}
