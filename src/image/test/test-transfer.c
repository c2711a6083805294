/* SPDX-License-Identifier: Apache-2.0 */
/* Images as streams: whole, cut, changed, in part, from several sources, from liars. */

#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "image/arrival.h"
#include "image/flow.h"
#include "image/image.h"
#include "image/send.h"
#include "image/test/fixture.h"
#include "image/transfer.h"

#define MIB (1u << 20)
#define CHUNKS 6 /* 3 of vmlinux, 1 of vmlinuz, 2 of initrd, none of the root */

static const char *const parts[] = {"vmlinux", "vmlinuz", "initrd", "root.squashfs"};

static void write_part(struct fixture *f, const char *folder, unsigned p, unsigned seed,
		       json_t *ret)
{
	static const size_t sizes[] = {9 * MIB, 5, 8 * MIB, 0};
	CLEANUP_FREE char *name = io_format("%s/%s", folder, parts[p]), *path = below(f, name);
	CLEANUP_FREE uint8_t *data = malloc(sizes[p] + 1);
	char digest[DIGEST_TEXT];
	json_t *chunks;

	for (size_t i = 0; i < sizes[p]; i++) {
		seed = seed * 1103515245 + 12345;
		data[i] = (uint8_t)(seed >> 16);
	}
	write_file(f, name, data, sizes[p]);
	assert_int_equal(chunks_of_file(path, &chunks, &f->err), 0);
	assert_int_equal(digest_bytes(data, sizes[p], digest, NULL), 0);
	json_object_set_new(ret, parts[p],
			    json_pack("{s:I, s:s, s:o}", "size", (json_int_t)sizes[p], "sha256",
				      digest, "chunks", chunks));
}

/* An image whose parts are made of the seed, but for the kernel: "images/NAME" is the user's. */
static void make_image(struct fixture *f, const char *folder, unsigned seed,
		       char ret_digest[DIGEST_TEXT])
{
	json_t *rows = json_object(), *manifest;
	CLEANUP_FREE char *name = io_format("%s/manifest.json", folder), *text = NULL;

	for (unsigned p = 0; p < CHUNK_PARTS; p++)
		write_part(f, folder, p, p == 2 ? seed : p, rows);
	manifest = json_pack("{s:i, s:s, s:o}", "format", 1, "name", "tale", "parts", rows);
	text = json_dumps(manifest, JSON_INDENT(1));
	write_text(f, name, text);
	assert_int_equal(image_digest(manifest, ret_digest, &f->err), 0);
	json_decref(manifest);
}

static void sign(struct fixture *f, const char *name)
{
	EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	CLEANUP_FREE char *path = below(f, "key");
	FILE *file = fopen(path, "w");

	assert_int_equal(PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL), 1);
	fclose(file);
	EVP_PKEY_free(key);
	assert_int_equal(image_sign(name, path, &f->err), 0);
}

static char *make_store(struct fixture *f, const char *name)
{
	char *path = below(f, name);

	tree_remove(path, NULL);
	assert_int_equal(mkdir(path, 0755), 0);
	return path;
}

/* The stream of an image of the user. */
static uint8_t *exported(struct fixture *f, const char *name, size_t *size)
{
	CLEANUP_CLOSE int fd = memfd_create("stream", MFD_CLOEXEC);
	struct image image;
	uint8_t *data;

	assert_int_equal(image_open(name, &image, &f->err), 0);
	assert_int_equal(image_export(&image, fd, NULL, &f->err), 0);
	image_close(&image);
	*size = (size_t)lseek(fd, 0, SEEK_END);
	data = malloc(*size);
	assert_int_equal(io_pread_full(fd, data, *size, 0), 0);
	return data;
}

static int import(struct fixture *f, const void *data, size_t size, const struct image_wish *wish,
		  struct image_arrived *ret)
{
	CLEANUP_CLOSE int fd = memfd_create("stream", MFD_CLOEXEC);

	f->err.text[0] = 0;
	assert_int_equal(io_write_full(fd, data, size), 0);
	lseek(fd, 0, SEEK_SET);
	return image_import(fd, wish, ret, &f->err);
}

/* Nothing is there for who looks for images; how many rests there are. */
static unsigned rests(const char *store, unsigned images)
{
	CLEANUP_DIR DIR *dir = opendir(store);
	unsigned n = 0, seen = 0;
	struct dirent *entry;

	while ((entry = readdir(dir))) {
		n += !strncmp(entry->d_name, ARRIVAL_PREFIX, strlen(ARRIVAL_PREFIX));
		seen += entry->d_name[0] != '.';
	}
	assert_int_equal(seen, images);
	return n;
}

static void check_whole(struct fixture *f, const char *store, const char *name, const char *digest)
{
	CLEANUP_FREE char *reference = io_format("%s@sha256:%s", name, digest);
	struct image image;

	setenv("WISP_STORE", store, 1);
	assert_int_equal(image_open(reference, &image, &f->err), 0);
	assert_int_equal(image_verify(&image, &f->err), 0);
	image_close(&image);
	unsetenv("WISP_STORE");
}

static void test_chunks(void **state)
{
	struct fixture *f = *state;
	char digest[DIGEST_TEXT];
	struct chunks chunks;
	struct image image;
	json_t *parts_of;

	make_image(f, "images/a", 1, digest);
	assert_int_equal(image_open("a", &image, &f->err), 0);
	assert_int_equal(chunks_from_manifest(image.manifest, &chunks, &f->err), 0);
	assert_int_equal(chunks.n, CHUNKS);
	assert_int_equal(chunks.bytes, 17 * MIB + 5);
	assert_int_equal(chunks_at(&chunks, 2).size, MIB);
	assert_int_equal(chunks_at(&chunks, 3).part, 1);
	assert_int_equal(chunks_at(&chunks, 5).offset, 4 * MIB);
	chunks_done(&chunks);
	parts_of = json_object_get(image.manifest, "parts");
	json_array_append_new(json_object_get(json_object_get(parts_of, "initrd"), "chunks"),
			      json_string("x"));
	assert_int_equal(chunks_from_manifest(image.manifest, &chunks, &f->err), -EBADMSG);
	json_object_del(json_object_get(parts_of, "initrd"), "chunks");
	assert_int_equal(chunks_from_manifest(image.manifest, &chunks, &f->err), -ENODATA);
	json_object_set_new(json_object_get(parts_of, "vmlinux"), "size", json_integer(1LL << 62));
	assert_int_equal(chunks_from_manifest(image.manifest, &chunks, &f->err), -EBADMSG);
	json_object_del(parts_of, "vmlinux");
	assert_int_equal(chunks_from_manifest(image.manifest, &chunks, &f->err), -EBADMSG);
	image_close(&image);
}

static void test_import(void **state)
{
	struct fixture *f = *state;
	CLEANUP_FREE char *store = make_store(f, "s"), *own = below(f, "images");
	CLEANUP_FREE uint8_t *stream = NULL, *second = NULL;
	struct image_wish wish = {.into = store};
	char digest[DIGEST_TEXT], other[DIGEST_TEXT];
	struct image_arrived got;
	size_t size, size2;

	make_image(f, "images/a", 1, digest);
	stream = exported(f, "a", &size);
	assert_int_equal(import(f, stream, size, &wish, &got), 0);
	assert_string_equal(got.name, "tale");
	assert_string_equal(got.digest, digest);
	/* Its parts are here, in image a. */
	assert_int_equal(got.brought, 0);
	assert_false(got.was_there);
	check_whole(f, store, "tale", digest);
	assert_int_equal(rests(store, 1), 0);
	assert_int_equal(import(f, stream, size, &wish, &got), 0);
	assert_true(got.was_there);

	/* Another of the same name: only on request, and what they share is not brought. */
	make_image(f, "images/b", 2, other);
	second = exported(f, "b", &size2);
	assert_int_equal(tree_remove(own, &f->err), 0);
	setenv("WISP_STORE", store, 1);
	assert_int_equal(import(f, second, size2, &wish, &got), -EEXIST);
	assert_said(f, "--replace");
	assert_int_equal(rests(store, 1), 0);
	wish.name = "two";
	assert_int_equal(import(f, second, size2, &wish, &got), 0);
	assert_string_equal(got.name, "two");
	assert_int_equal(got.brought, 8 * MIB);
	check_whole(f, store, "two", other);
	setenv("WISP_STORE", store, 1);
	wish.name = "tale";
	wish.replace = true;
	assert_int_equal(import(f, second, size2, &wish, &got), 0);
	check_whole(f, store, "tale", other);
	wish = (struct image_wish){0};
	assert_int_equal(import(f, stream, size, &wish, &got), 0);
	check_whole(f, store, "tale", digest);
	wish.name = "not/a name";
	assert_int_equal(import(f, stream, size, &wish, &got), -EINVAL);
	wish = (struct image_wish){.into = "relative"};
	assert_int_equal(import(f, stream, size, &wish, &got), -EINVAL);
	wish.into = "/nonexistent";
	assert_int_equal(import(f, stream, size, &wish, &got), -ENOENT);
}

/* A damaged image does not leave. */
static void test_damaged_source(void **state)
{
	struct fixture *f = *state;
	CLEANUP_CLOSE int fd = memfd_create("stream", MFD_CLOEXEC);
	CLEANUP_FREE char *path = below(f, "images/a/initrd");
	CLEANUP_CLOSE int part = -1;
	char digest[DIGEST_TEXT];
	struct image image;

	make_image(f, "images/a", 1, digest);
	part = open(path, O_WRONLY);
	assert_int_equal(pwrite(part, "!", 1, 5 * MIB), 1);
	assert_int_equal(image_open("a", &image, &f->err), 0);
	assert_int_equal(image_export(&image, fd, NULL, &f->err), -EBADMSG);
	assert_said(f, "initrd is damaged");
	image_close(&image);
}

/* Cut anywhere: refused, nothing to be seen; the whole stream then brings the rest. */
static void test_cut(void **state)
{
	struct fixture *f = *state;
	CLEANUP_FREE char *store = make_store(f, "s"), *own = below(f, "images");
	CLEANUP_FREE uint8_t *stream = NULL;
	struct image_wish wish = {.into = store};
	char digest[DIGEST_TEXT];
	struct image_arrived got;
	size_t size;

	make_image(f, "images/a", 1, digest);
	stream = exported(f, "a", &size);
	assert_int_equal(tree_remove(own, &f->err), 0);
	for (size_t n = 0; n < size; n += n < 64 ? 1 : n < 8192 ? 511 : size / 9) {
		int rc = import(f, stream, n, &wish, &got);

		if (rc != -EPIPE)
			print_message("%zu of %zu bytes: %s\n", n, size, f->err.text);
		assert_int_equal(rc, -EPIPE);
		rests(store, 0);
	}
	assert_int_equal(rests(store, 0), 1);
	assert_int_equal(import(f, stream, size - 1, &wish, &got), -EPIPE);
	assert_int_equal(import(f, stream, size, &wish, &got), 0);
	assert_int_equal(got.brought, 0); /* all chunks were there, only the end was not */
	check_whole(f, store, "tale", digest);
	assert_int_equal(rests(store, 1), 0);
}

static void test_flipped(void **state)
{
	struct fixture *f = *state;
	CLEANUP_FREE char *own = below(f, "images");
	CLEANUP_FREE uint8_t *stream = NULL;
	char digest[DIGEST_TEXT];
	struct image_arrived got;
	size_t size;

	make_image(f, "images/a", 1, digest);
	sign(f, "a");
	stream = exported(f, "a", &size);
	assert_int_equal(tree_remove(own, &f->err), 0);
	for (size_t at = 0; at < size; at += at < 70 ? 3 : at < 4096 ? 97 : size / 13) {
		CLEANUP_FREE char *store = make_store(f, "s");
		struct image_wish wish = {.into = store};

		stream[at] ^= 4;
		assert_true(import(f, stream, size, &wish, &got) < 0);
		assert_true(f->err.text[0]);
		rests(store, 0);
		stream[at] ^= 4;
	}
	/* The last byte, of the end's sum. */
	stream[size - 1] ^= 1;
	assert_int_equal(import(f, stream, size, &(struct image_wish){0}, &got), -EBADMSG);
	stream[size - 1] ^= 1;
	assert_int_equal(import(f, stream, size, &(struct image_wish){0}, &got), 0);
	check_whole(f, "/none", "tale", digest);
}

/* What has come is looked at again: it may have been changed meanwhile. */
static void test_resume(void **state)
{
	struct fixture *f = *state;
	CLEANUP_FREE char *store = make_store(f, "s"), *own = below(f, "images"), *part = NULL;
	CLEANUP_FREE uint8_t *stream = NULL;
	struct image_wish wish = {.into = store};
	CLEANUP_CLOSE int fd = -1;
	char digest[DIGEST_TEXT];
	struct image_arrived got;
	size_t size;

	make_image(f, "images/a", 1, digest);
	stream = exported(f, "a", &size);
	assert_int_equal(tree_remove(own, &f->err), 0);
	assert_int_equal(import(f, stream, size - 6 * MIB, &wish, &got), -EPIPE);
	part = io_format("%s/" ARRIVAL_PREFIX "%s/vmlinux", store, digest);
	fd = open(part, O_WRONLY);
	assert_int_equal(pwrite(fd, "!", 1, 5 * MIB), 1);
	assert_int_equal(import(f, stream, size, &wish, &got), 0);
	/* The second chunk of vmlinux, and the two of the initrd's that had not come whole. */
	assert_int_equal(got.brought, 12 * MIB);
	check_whole(f, store, "tale", digest);
}

/* No room: said before anything is written, and nothing is left of it. */
static void test_full(void **state)
{
	struct fixture *f = *state;
	CLEANUP_FREE char *store = make_store(f, "s"), *own = below(f, "images");
	CLEANUP_FREE uint8_t *stream = NULL;
	char digest[DIGEST_TEXT];
	size_t size;
	int status;
	pid_t pid;

	make_image(f, "images/a", 1, digest);
	stream = exported(f, "a", &size);
	assert_int_equal(tree_remove(own, &f->err), 0);
	pid = fork();
	if (pid == 0) {
		struct image_wish wish = {.into = store};
		struct image_arrived got;
		struct error err;
		int fds[2];

		/* No file may be so long, as on a disk that is full; the stream comes by a pipe. */
		signal(SIGXFSZ, SIG_IGN);
		setrlimit(RLIMIT_FSIZE, &(struct rlimit){MIB, MIB});
		if (pipe(fds) || write(fds[1], stream, 8192) != 8192)
			_exit(9);
		close(fds[1]);
		_exit(image_import(fds[0], &wish, &got, &err) == -EFBIG ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(rests(store, 0), 0);
}

struct job {
	pthread_t thread;
	int fd;
	const uint8_t *stream;
	size_t size;
	const char *digest;
	struct image_wish wish;
	struct image_arrived got;
	struct error err;
	unsigned patience;
	int rc;
};

static void *run_import(void *arg)
{
	struct job *j = arg;
	CLEANUP_CLOSE int fd = memfd_create("stream", MFD_CLOEXEC);

	io_write_full(fd, j->stream, j->size);
	lseek(fd, 0, SEEK_SET);
	j->rc = image_import(fd, &j->wish, &j->got, &j->err);
	return NULL;
}

static void *run_serve(void *arg)
{
	struct job *j = arg;

	j->rc = image_serve(j->fd, j->fd, j->patience, NULL, &j->err);
	close(j->fd);
	return NULL;
}

static void *run_fetch(void *arg)
{
	struct job *j = arg;

	j->rc = image_fetch(j->fd, j->fd, j->digest, &j->wish, &j->got, &j->err);
	close(j->fd);
	return NULL;
}

static void start(struct job *j, void *(*fn)(void *))
{
	assert_int_equal(pthread_create(&j->thread, NULL, fn, j), 0);
}

static int end(struct job *j)
{
	pthread_join(j->thread, NULL);
	return j->rc;
}

/* Two at once: one brings it, the other finds it. */
static void test_together(void **state)
{
	struct fixture *f = *state;
	CLEANUP_FREE char *store = make_store(f, "s"), *own = below(f, "images");
	CLEANUP_FREE uint8_t *stream = NULL;
	struct job jobs[4] = {0};
	unsigned brought = 0;
	char digest[DIGEST_TEXT];
	size_t size;

	make_image(f, "images/a", 1, digest);
	stream = exported(f, "a", &size);
	assert_int_equal(tree_remove(own, &f->err), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(jobs); i++) {
		jobs[i].stream = stream;
		jobs[i].size = size;
		jobs[i].wish.into = store;
		start(&jobs[i], run_import);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(jobs); i++) {
		if (end(&jobs[i]))
			print_message("%s\n", jobs[i].err.text);
		assert_int_equal(jobs[i].rc, 0);
		brought += !jobs[i].got.was_there;
	}
	assert_int_equal(brought, 1);
	check_whole(f, store, "tale", digest);
	assert_int_equal(rests(store, 1), 0);
}

/* A server for the own images of the process. */
static void serve(struct job *server, int *ret_fd, unsigned patience)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	server->fd = pair[0];
	server->patience = patience;
	*ret_fd = pair[1];
	start(server, run_serve);
}

static void test_fetch(void **state)
{
	struct fixture *f = *state;
	CLEANUP_FREE char *store = make_store(f, "s");
	struct job server = {0}, client = {.wish = {.into = store}};
	char digest[DIGEST_TEXT];

	make_image(f, "images/a", 1, digest);
	client.digest = digest;
	serve(&server, &client.fd, 0);
	run_fetch(&client);
	assert_int_equal(client.rc, 0);
	assert_int_equal(end(&server), 0);
	assert_string_equal(client.got.name, "tale");
	check_whole(f, store, "tale", digest);

	/* Another has the name: it gets one of its own. */
	make_image(f, "images/a", 2, digest);
	serve(&server, &client.fd, 0);
	run_fetch(&client);
	assert_int_equal(client.rc, 0);
	assert_int_equal(end(&server), 0);
	assert_memory_equal(client.got.name, "tale-", 5);
	assert_memory_equal(client.got.name + 5, digest, 12);
	check_whole(f, store, client.got.name, digest);

	/* One that is not there. */
	digest[0] = digest[0] == 'a' ? 'b' : 'a';
	serve(&server, &client.fd, 0);
	run_fetch(&client);
	assert_int_equal(client.rc, -EREMOTEIO);
	assert_non_null(strstr(client.err.text, "the source says: no image"));
	assert_int_equal(end(&server), -ENOENT);
	assert_int_equal(rests(store, 2), 0);
}

/* What is arriving is served as it comes; what then does not come is told, and another source
 * brings it. */
static void test_pipeline(void **state)
{
	struct fixture *f = *state;
	CLEANUP_FREE char *store = make_store(f, "s"), *own = below(f, "images"),
			  *kept = below(f, "k");
	CLEANUP_FREE char *home = below(f, "images"), *manifest = NULL, *data = malloc(CHUNK_SIZE);
	struct job server = {0}, client = {.wish = {.into = store}}, late = client;
	struct arrival a;
	struct stock stock;
	struct image image;
	char digest[DIGEST_TEXT];
	uint32_t n;

	make_image(f, "images/a", 1, digest);
	assert_int_equal(rename(own, kept), 0);
	assert_int_equal(image_open("a", &image, &f->err), -ENOENT);
	setenv("WISP_STORE", kept, 1);
	assert_int_equal(image_open("a", &image, &f->err), 0);
	assert_int_equal(stock_open(&image, &stock, &f->err), 0);
	image_close(&image);
	unsetenv("WISP_STORE");

	client.digest = late.digest = digest;
	serve(&server, &client.fd, 20000);
	start(&client, run_fetch);
	usleep(50000);
	assert_int_equal(arrival_begin(home, digest, NULL, &a, &f->err), 0);
	assert_int_equal(arrival_take(&a, stock.manifest, stock.manifest_size, NULL, 0, &f->err),
			 0);
	assert_int_equal(arrival_fill(&a, &f->err), 0);
	assert_int_equal(a.missing, CHUNKS);
	for (unsigned i = 0; i < 3; i++) {
		unsigned chunk = (const unsigned[]){4, 0, 3}[i];

		assert_int_equal(stock_read(&stock, chunk, data, &n, &f->err), 0);
		assert_int_equal(arrival_put(&a, chunk, data, n, &f->err), 0);
	}
	usleep(200000);
	arrival_end(&a);
	assert_int_equal(end(&client), -EREMOTEIO);
	assert_int_equal(end(&server), -EAGAIN);
	assert_non_null(strstr(client.err.text, "nobody brings the rest"));
	assert_int_equal(rests(store, 0), 1);

	/* It goes on here, and the other goes on with it. */
	serve(&server, &late.fd, 0);
	assert_int_equal(arrival_begin(home, digest, NULL, &a, &f->err), 0);
	assert_int_equal(arrival_take(&a, stock.manifest, stock.manifest_size, NULL, 0, &f->err),
			 0);
	assert_int_equal(arrival_fill(&a, &f->err), 0);
	assert_int_equal(a.missing, CHUNKS - 3);
	start(&late, run_fetch);
	for (uint32_t i = 0; i < CHUNKS; i++) {
		usleep(20000);
		assert_int_equal(stock_read(&stock, i, data, &n, &f->err), 0);
		assert_int_equal(arrival_put(&a, i, data, n, &f->err), 0);
	}
	assert_int_equal(arrival_put(&a, CHUNKS, data, 1, &f->err), -EBADMSG);
	assert_int_equal(arrival_commit(&a, "x", false, &f->err), 0);
	arrival_end(&a);
	assert_int_equal(end(&late), 0);
	assert_int_equal(end(&server), 0);
	/* One more chunk may have been copied from the image that was whole by then. */
	assert_true(late.got.brought <= 12 * MIB);
	check_whole(f, store, "tale", digest);
	check_whole(f, "/none", "x", digest);
	stock_close(&stock);
}

/* A source that has nothing but what this very fetch brings. */
static void test_own_tail(void **state)
{
	struct fixture *f = *state;
	struct job server = {0};
	char digest[DIGEST_TEXT];
	CLEANUP_FREE char *home = below(f, "images"),
			  *manifest_path = below(f, "images/a/manifest.json");
	CLEANUP_FREE char *manifest = NULL;
	struct flow flow = {.silence_ms = 5000};
	struct flow_record record;
	uint8_t bytes[32];
	struct arrival a;
	ssize_t n;

	make_image(f, "images/a", 1, digest);
	n = io_read_file(manifest_path, MIB, &manifest, &f->err);
	assert_int_equal(image_remove("a", &f->err), 0);
	assert_int_equal(arrival_begin(home, digest, NULL, &a, &f->err), 0);
	assert_int_equal(arrival_take(&a, manifest, (size_t)n, NULL, 0, &f->err), 0);
	assert_int_equal(arrival_fill(&a, &f->err), 0);
	serve(&server, &flow.in, 0);
	flow.out = flow.in;
	digest_to_bytes(digest, bytes);
	assert_int_equal(flow_greet(&flow, &f->err), 0);
	assert_int_equal(
		flow_write(&flow, RECORD_WANT, bytes, 32, a.token, sizeof(a.token), &f->err), 0);
	assert_int_equal(flow_read_greeting(&flow, &f->err), 0);
	assert_int_equal(flow_read(&flow, &record, &f->err), 1);
	assert_int_equal(record.type, RECORD_ERROR);
	assert_int_equal(flow_take_error(&record, &f->err), -EREMOTEIO);
	assert_said(f, "this very fetch");
	close(flow.in);
	flow_done(&flow);
	assert_int_equal(end(&server), -EDEADLK);
	arrival_end(&a);
	assert_int_equal(rests(home, 0), 0);
}

/* Sources that lie, and one that dies: each is another's turn, and nothing wrong is taken. */
static void lie(struct fixture *f, const char *store, const struct stock *stock, unsigned how,
		const char *said)
{
	struct job client = {.digest = stock->digest, .wish = {.into = store}};
	struct flow flow = {.silence_ms = 5000};
	CLEANUP_FREE char *data = calloc(1, CHUNK_SIZE);
	struct flow_record record;
	struct stock lied = *stock;
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	client.fd = pair[0];
	flow.in = flow.out = pair[1];
	start(&client, run_fetch);
	assert_int_equal(flow_read_greeting(&flow, &f->err), 0);
	assert_int_equal(flow_read(&flow, &record, &f->err), 1);
	assert_int_equal(record.type, RECORD_WANT);
	if (how == 0)
		io_write_full(flow.out, "not this", 8);
	else
		flow_greet(&flow, &f->err);
	if (how == 1)
		lied.digest[5] ^= 1;
	if (how == 2)
		lied.manifest_size -= 2;
	if (how == 3) {
		lied.signature = (char *)"wisp-signature 1\n";
		lied.signature_size = 17;
	}
	if (how && how != 4)
		send_image(&flow, &lied, &f->err);
	if (how > 4 && flow_read(&flow, &record, &f->err) == 1 && record.type == RECORD_LACK) {
		if (how == 5)
			send_chunk(&flow, 0, data, CHUNK_SIZE, &f->err);
		if (how == 6)
			send_chunk(&flow, 0, data, 7, &f->err);
		if (how == 7)
			send_chunk(&flow, 4711, data, 7, &f->err);
		if (how == 8)
			flow_write(&flow, RECORD_END, NULL, 0, NULL, 0, &f->err);
		if (how == 9)
			flow_write(&flow, RECORD_WANT, NULL, 0, NULL, 0, &f->err);
		if (how == 10)
			io_write_full(flow.out, "\377\0\0\0\377\377\377\377", 8);
		if (how == 11)
			flow_write_error(&flow, -EIO, "it \033[31m burns");
		if (how == 12)
			io_write_full(flow.out, "\2\0\0\0\4\0\0\1", 8);
	}
	close(flow.in);
	flow_done(&flow);
	if (end(&client) != -EREMOTEIO || !strstr(client.err.text, said))
		print_message("lie %u: %d %s\n", how, client.rc, client.err.text);
	assert_int_equal(client.rc, -EREMOTEIO);
	assert_non_null(strstr(client.err.text, said));
	rests(store, 0);
}

static void test_liars(void **state)
{
	static const char *const said[] = {"it is no stream of an image",
					   "sends another image",
					   "no JSON object",
					   "its signature does not",
					   "ends",
					   "chunk 0 of vmlinux is damaged",
					   "chunk 0 of vmlinux is",
					   "it has no chunk 4711",
					   "left chunks out",
					   "a record of type 6 among",
					   "which there is not",
					   "it ?[31m burns",
					   "a record of type 2 with"};
	struct fixture *f = *state;
	CLEANUP_FREE char *store = make_store(f, "s"), *own = below(f, "images"),
			  *kept = below(f, "k");
	char digest[DIGEST_TEXT];
	struct stock stock;
	struct image image;

	make_image(f, "images/a", 1, digest);
	assert_int_equal(image_open("a", &image, &f->err), 0);
	assert_int_equal(stock_open(&image, &stock, &f->err), 0);
	image_close(&image);
	assert_int_equal(rename(own, kept), 0);
	for (unsigned how = 0; how < ARRAY_SIZE(said); how++)
		lie(f, store, &stock, how, said[how]);
	stock_close(&stock);
}

/* What nobody has gone on with for a week goes with the next arrival; one that is at work stays. */
static void test_sweep(void **state)
{
	struct fixture *f = *state;
	CLEANUP_FREE char *store = make_store(f, "s"), *old = below(f, "s/" ARRIVAL_PREFIX "old");
	CLEANUP_FREE char *young = below(f, "s/" ARRIVAL_PREFIX "young");
	struct timespec times[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
	struct arrival busy, next;
	char digest[DIGEST_TEXT];

	memset(digest, '7', sizeof(digest));
	digest[DIGEST_TEXT - 1] = 0;
	assert_int_equal(mkdir(old, 0755), 0);
	assert_int_equal(mkdir(young, 0755), 0);
	assert_int_equal(utimensat(AT_FDCWD, old, times, 0), 0);
	assert_int_equal(arrival_begin(store, digest, NULL, &busy, &f->err), 0);
	assert_int_equal(utimensat(AT_FDCWD, busy.folder, times, 0), 0);
	digest[0] = '8';
	assert_int_equal(arrival_begin(store, digest, NULL, &next, &f->err), 0);
	assert_int_equal(access(old, F_OK), -1);
	assert_int_equal(access(young, F_OK), 0);
	assert_int_equal(access(busy.folder, F_OK), 0);
	arrival_end(&next);
	arrival_end(&busy);
	assert_int_equal(rests(store, 0), 1);
}

/* The folder of one who lost the race for its lock goes with who won it. */
static void test_rests(void **state)
{
	struct fixture *f = *state;
	CLEANUP_FREE char *store = make_store(f, "s"), *folder = NULL;
	char digest[DIGEST_TEXT];
	struct arrival a;

	memset(digest, '7', sizeof(digest));
	digest[DIGEST_TEXT - 1] = 0;
	folder = io_format("%s/" ARRIVAL_PREFIX "%s", store, digest);
	assert_int_equal(mkdir(folder, 0755), 0);
	assert_int_equal(arrival_begin(store, digest, NULL, &a, &f->err), 0);
	arrival_end(&a);
	assert_int_equal(rests(store, 0), 0);
}

/* Every node has a way to a root, nobody more children than the fan-out, and nobody waits in a
 * circle. */
static void check_plan(size_t n, size_t fan, unsigned long long seed)
{
	bool *has = calloc(n + 1, sizeof(*has));
	size_t *children = calloc(n + 1, sizeof(*children)),
	       *sources = calloc(n + 1, sizeof(*sources));
	struct image_plan plan;
	struct error err;
	size_t roots = 0;

	for (size_t i = 0; i < n; i++) {
		has[i] = seed >> i % 64 & 1;
		roots += has[i];
	}
	if (!roots) {
		assert_int_equal(image_plan_make(has, n, fan, &plan, &err), -ENODATA);
		goto out;
	}
	assert_int_equal(image_plan_make(has, n, fan, &plan, &err), 0);
	for (size_t i = 0; i < n; i++) {
		size_t m = image_plan_sources(&plan, i, sources, n);

		assert_true(has[i] ? m == 0 : m >= roots && m <= n);
		for (size_t k = 0; k < m; k++)
			assert_true(plan.position_of[sources[k]] < plan.position_of[i]);
		if (m)
			children[sources[0]]++;
	}
	for (size_t i = 0; i < n; i++)
		assert_true(children[i] <= fan);
	image_plan_done(&plan);
out:
	free(has);
	free(children);
	free(sources);
}

static void test_plan(void **state)
{
	const bool has[] = {true, false, false, false, false, false, true};
	size_t sources[7];
	struct image_plan plan;
	struct error err;

	for (size_t n = 1; n < 40; n++)
		for (size_t fan = 1; fan < 5; fan++)
			for (unsigned long long seed = 0; seed < 40; seed++)
				check_plan(n, fan, seed * 0x9e3779b97f4a7c15ull >> seed % 7);
	check_plan(10000, 2, 1);
	assert_int_equal(image_plan_make(has, 7, 0, &plan, &err), -EINVAL);
	assert_int_equal(image_plan_make(has, 7, 2, &plan, &err), 0);
	assert_int_equal(image_plan_sources(&plan, 0, sources, 7), 0);
	assert_int_equal(image_plan_sources(&plan, 3, sources, 7), 2);
	assert_true(sources[0] == 6 && sources[1] == 0);
	assert_int_equal(image_plan_sources(&plan, 5, sources, 7), 3);
	assert_true(sources[0] == 1 && sources[1] == 0 && sources[2] == 6);
	assert_int_equal(image_plan_sources(&plan, 5, sources, 1), 3);
	image_plan_done(&plan);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_FOLDER(test_chunks),    WITH_FOLDER(test_import),
		WITH_FOLDER(test_cut),	     WITH_FOLDER(test_flipped),
		WITH_FOLDER(test_resume),    WITH_FOLDER(test_damaged_source),
		WITH_FOLDER(test_full),	     WITH_FOLDER(test_together),
		WITH_FOLDER(test_fetch),     WITH_FOLDER(test_pipeline),
		WITH_FOLDER(test_own_tail),  WITH_FOLDER(test_liars),
		WITH_FOLDER(test_sweep),     WITH_FOLDER(test_rests),
		cmocka_unit_test(test_plan),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
