/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who fetches an image sends anything: the server says no, or sends what the image has, and ends
 * when the other does.
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
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PART "{\"size\":5,\"sha256\":\"%1$s\",\"chunks\":[\"%1$s\"]}"
#define MANIFEST                                                                         \
	"{\"format\":1,\"name\":\"x\",\"parts\":{\"vmlinux\":" PART ",\"vmlinuz\":" PART \
	",\"initrd\":" PART ",\"root.squashfs\":" PART "}}"

static void require(int ok)
{
	if (!ok)
		abort();
}

static void put(const char *folder, const char *name, const char *text)
{
	CLEANUP_FREE char *path = io_format("%s/images/x/%s", folder, name);

	CLEANUP_FILE FILE *file = fopen(path, "we");

	require(file && fputs(text, file) >= 0);
}

static void make_image(const char *folder, char digest[DIGEST_TEXT])
{
	static const char *const parts[] = {"vmlinux", "vmlinuz", "initrd", "root.squashfs"};
	CLEANUP_FREE char *image = io_format("%s/images/x", folder);
	char sum[DIGEST_TEXT], manifest[2048];
	json_t *json;

	require(io_make_dirs(image, 0755, NULL) == 0);
	digest_bytes("wisp!", 5, sum, NULL);
	snprintf(manifest, sizeof(manifest), MANIFEST, sum);
	put(folder, "manifest.json", manifest);
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
		put(folder, parts[i], "wisp!");
	json = json_loads(manifest, 0, NULL);
	require(json && image_digest(json, digest, NULL) == 0);
	json_decref(json);
}

static void send_want(struct flow *flow, const char *digest, struct input *in)
{
	uint8_t want[RECORD_WANT_SIZE] = {0};

	for (unsigned i = 0; i < 32; i++) {
		char byte[3] = {digest[2 * i], digest[2 * i + 1], 0};

		want[i] = (uint8_t)strtoul(byte, NULL, 16);
	}
	if (input_u8(in) & 1)
		want[input_u8(in) % 48] ^= input_u8(in);
	flow_write(flow, RECORD_WANT, want, sizeof(want), NULL, 0, NULL);
}

/* Chunks that lack, of as many as there are or not; or a record of any kind. */
static void send_any(struct flow *flow, struct input *in)
{
	unsigned kind = input_u8(in) % 3;
	uint8_t data[64] = {4};
	size_t n = kind ? input_u8(in) % sizeof(data) : 5;

	for (size_t i = kind ? 0 : 4; i < n; i++)
		data[i] = input_u8(in);
	flow_write(flow, kind == 2 ? (enum record_type)(input_u8(in) % 9) : RECORD_LACK, data, n,
		   NULL, 0, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {.data = data, .size = size < 1024 ? size : 1024};
	char folder[] = "/tmp/wisp-fuzz-XXXXXX", digest[DIGEST_TEXT];
	struct error err = {{0}};
	struct flow flow = {.silence_ms = 1000};
	int pair[2], rc, room = 1 << 20;

	require(mkdtemp(folder) != NULL);
	setenv("WISP_HOME", folder, 1);
	setenv("WISP_CACHE", folder, 1);
	unsetenv("WISP_STORE");
	make_image(folder, digest);
	require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
	setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	flow.in = flow.out = pair[0];
	if (input_u8(&in) & 7)
		flow_greet(&flow, NULL);
	if (input_u8(&in) & 7)
		send_want(&flow, digest, &in);
	/* What it is answered has to fit into the socket. */
	for (unsigned i = 0; i < 100 && in.pos < in.size; i++)
		send_any(&flow, &in);
	shutdown(pair[0], SHUT_WR);
	rc = image_serve(pair[1], pair[1], 0, NULL, &err);
	require(rc == 0 || err.text[0]);
	close(pair[0]);
	close(pair[1]);
	require(tree_remove(folder, NULL) == 0);
	return 0;
}
