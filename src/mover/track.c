/* SPDX-License-Identifier: Apache-2.0 */
/* The log of written pages of a VM. */

#include "mover/track.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"

void track_init(struct track *t, struct vmm *vmm, uint64_t words)
{
	*t = (struct track){.vmm = vmm, .words = words, .fd = -1};
}

static size_t bytes(const struct track *t)
{
	return (size_t)t->words * sizeof(uint64_t);
}

void track_done(struct track *t)
{
	if (t->log)
		munmap((void *)t->log, bytes(t));
	cleanup_close_fd(&t->fd);
	free(t->dirty);
	free(t->since);
}

static int map_log(struct track *t, struct error *err)
{
	void *log = mmap(NULL, bytes(t), PROT_READ | PROT_WRITE, MAP_SHARED, t->fd, 0);

	if (log == MAP_FAILED)
		return error_errno(err, -errno, "cannot map a bitmap");
	t->log = log;
	t->dirty = calloc(t->words, sizeof(*t->dirty));
	t->since = calloc(t->words, sizeof(*t->since));
	return t->dirty && t->since ? 0 : error_set(err, -ENOMEM, "out of memory");
}

int track_start(struct track *t, struct error *err)
{
	int rc;

	t->fd = memfd_create("dirty", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (t->fd < 0 || ftruncate(t->fd, (off_t)bytes(t)) < 0 ||
	    fcntl(t->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0)
		return error_errno(err, -errno, "cannot make a bitmap of %zu bytes", bytes(t));
	rc = map_log(t, err);
	if (rc == 0)
		rc = vmm_call(t->vmm, "dirty-start", NULL, t->fd, NULL, err);
	t->on = rc == 0;
	return rc;
}

int track_take(struct track *t, const char *identity, struct error *err)
{
	struct stat st;
	int rc = vmm_call(t->vmm, "dirty-take", json_pack("{s:s}", "tag", identity), -1, NULL, err);

	if (rc == -ENOENT || rc == -ESTALE)
		return 0;
	if (rc < 0)
		return rc;
	t->fd = jsonline_take_fd(&t->vmm->line);
	if (t->fd < 0 || fstat(t->fd, &st) < 0 || (uint64_t)st.st_size < bytes(t))
		return error_set(err, -EPROTO, "wisp-vmm kept no bitmap of this memory");
	rc = map_log(t, err);
	if (rc < 0)
		return rc;
	t->on = true;
	snprintf(t->taken, sizeof(t->taken), "%s", identity);
	return 1;
}

int track_collect(struct track *t, uint64_t *pages, struct error *err)
{
	int rc = vmm_call(t->vmm, "dirty-collect", NULL, -1, NULL, err);

	*pages = 0;
	for (uint64_t i = 0; rc == 0 && i < t->words; i++) {
		t->dirty[i] = t->log[i] ? atomic_exchange(&t->log[i], 0) : 0;
		t->since[i] |= t->dirty[i];
		*pages += (unsigned)__builtin_popcountll(t->dirty[i]);
	}
	return rc;
}

static void put(struct track *t, const uint64_t *bitmap)
{
	for (uint64_t i = 0; i < t->words; i++)
		if (bitmap[i])
			atomic_fetch_or(&t->log[i], bitmap[i]);
}

void track_put_back(struct track *t)
{
	put(t, t->dirty);
}

int track_keep(struct track *t, const char *identity, struct error *err)
{
	return vmm_call(t->vmm, "dirty-keep", json_pack("{s:s}", "tag", identity), -1, NULL, err);
}

void track_give_back(struct track *t)
{
	if (!t->on || !*t->taken)
		return;
	put(t, t->since);
	track_keep(t, t->taken, NULL);
}
