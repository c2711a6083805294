/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_MOVER_TEST_SCRATCH_H
#define WISP_MOVER_TEST_SCRATCH_H

/* What the tests of checkpoints share: a folder, guest memory, epochs in one call. */

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "mover/chain.h"
#include "mover/write.h"

#define ok(call)                                                      \
	do {                                                          \
		struct error err = {{0}};                             \
		int rc_ = (call);                                     \
		if (rc_ < 0)                                          \
			fail_msg("%s: %d: %s", #call, rc_, err.text); \
	} while (0)

/* The call fails with that code and a reason that contains the text. */
#define refused(code, words, call)                                                          \
	do {                                                                                \
		struct error err = {{0}};                                                   \
		int rc_ = (call);                                                           \
		if (rc_ != (code) || !strstr(err.text, words))                              \
			fail_msg("%s: %d, not %d with \"%s\": %s", #call, rc_, code, words, \
				 err.text);                                                 \
	} while (0)

/* A folder that a group's setup and teardown make and remove, in *state. */
static inline int scratch_make(void **state, const char *below)
{
	*state = io_format("%s/wisp-test-mover-XXXXXX", below);
	return *state && mkdtemp(*state) ? 0 : -1;
}

static inline int scratch_setup(void **state)
{
	return scratch_make(state, "/tmp");
}

static inline int scratch_teardown(void **state)
{
	char command[128];
	int rc;

	snprintf(command, sizeof(command), "rm -rf '%s'", (char *)*state);
	rc = system(command);
	free(*state);
	return rc;
}

struct guest {
	int fd;
	uint64_t size;
	uint8_t *ram;
	uint64_t *dirty; /* bitmap for the tests to use */
};

static inline void guest_init(struct guest *g, uint64_t size)
{
	g->fd = memfd_create("test-ram", MFD_CLOEXEC);
	g->size = size;
	assert_int_equal(ftruncate(g->fd, (off_t)size), 0);
	g->ram = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, g->fd, 0);
	assert_true(g->ram != MAP_FAILED);
	g->dirty = calloc(index_chunks(size), sizeof(*g->dirty));
	assert_non_null(g->dirty);
}

static inline void guest_done(struct guest *g)
{
	munmap(g->ram, g->size);
	close(g->fd);
	free(g->dirty);
}

/* A page whose content follows from the number; it compresses to about a quarter. */
static inline void guest_fill(struct guest *g, uint64_t page, uint32_t number)
{
	uint32_t *word = (uint32_t *)(g->ram + page * PAGE_BYTES);

	for (unsigned i = 0; i < PAGE_BYTES / 4; i++)
		word[i] = (number + i / 8) * 2654435761u;
	g->dirty[page / 64] |= 1ull << page % 64;
}

static inline void guest_zero(struct guest *g, uint64_t page)
{
	memset(g->ram + page * PAGE_BYTES, 0, PAGE_BYTES);
	g->dirty[page / 64] |= 1ull << page % 64;
}

static inline void guest_clean(struct guest *g)
{
	memset(g->dirty, 0, index_chunks(g->size) * sizeof(*g->dirty));
}

/* Writes an epoch of the guest: full, or what is dirty on a parent. Returns its number. */
static inline uint64_t guest_save(struct guest *g, const char *dir, uint64_t parent,
				  enum compression compression)
{
	const struct writer_options options = {
		.memory = g->size, .parent = parent, .compression = compression, .threads = 2};
	const struct writer_vm vm = {.state = "state of the machine", .state_size = 20};
	struct store store;
	struct writer *w;
	uint64_t epoch = 0;

	ok(store_open(dir, true, &store, &err));
	ok(writer_create(&store, &options, &w, &err));
	ok(writer_pages(w, g->fd, parent ? g->dirty : NULL, &err));
	ok(writer_commit(w, &vm, &epoch, NULL, &err));
	writer_destroy(w);
	store_close(&store);
	guest_clean(g);
	return epoch;
}

/* Restores an epoch to fresh memory and compares, eagerly and page by page. */
static inline void guest_compare(const struct guest *g, const char *dir, uint64_t epoch)
{
	struct epoch_reader reader;
	struct store store;
	struct chain chain;
	struct guest copy;

	guest_init(&copy, g->size);
	ok(store_open(dir, false, &store, &err));
	ok(chain_open(&store, epoch, &chain, &err));
	store_close(&store);
	ok(chain_restore(&chain, copy.fd, 2, NULL, NULL, &err));
	assert_memory_equal(copy.ram, g->ram, g->size);
	ok(epoch_reader_init(&reader, &err));
	for (uint64_t p = 0; p < g->size / PAGE_BYTES; p++) {
		uint8_t page[PAGE_BYTES] = {0};

		ok(chain_read_page(&chain, p, &reader, page, &err));
		assert_memory_equal(page, g->ram + p * PAGE_BYTES, PAGE_BYTES);
	}
	epoch_reader_done(&reader);
	assert_int_equal(chain.epoch[0].index.state_size, 20);
	assert_memory_equal(chain.epoch[0].index.state, "state of the machine", 20);
	chain_close(&chain);
	guest_done(&copy);
}

#endif
