/* SPDX-License-Identifier: Apache-2.0 */
/* The writer of epochs. */

#include "mover/write.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "mover/crc32c.h"
#include "lib/error.h"
#include "lib/io.h"
#include "mover/epoch.h"
#include "mover/page.h"
#include "mover/pagefile.h"

#define BLOCK 16u /* chunks that a thread takes at once */
#define DIRECT_MIN (64ull << 20)

/* A row with the number of the call that made it, for the order within a chunk. */
struct numbered_row {
	struct row row;
	uint32_t round;
};

struct lane { /* of one thread */
	struct pagefile file;
	unsigned number; /* of the file */
	uint8_t *scratch;
	struct compressor *compressor;
	struct numbered_row *rows;
	size_t nrows, room;
	uint64_t pages, zero, bytes;
};

struct writer {
	const struct store *store;
	struct writer_options options;
	uint64_t epoch;
	bool replace, gentle;
	bool committed;
	int dir;
	char parent[DIGEST_TEXT];
	unsigned threads;
	struct lane *lane;
	_Atomic unsigned files;
	uint32_t round;
	uint64_t created, scan_ns, pages_ns, sync_ns, commit_ns;
};

/* One call of writer_pages(). */
struct pass {
	struct writer *w;
	writer_source source;
	void *arg;
	const uint64_t *bitmap;
};

static int no_memory(struct error *err)
{
	return error_set(err, -ENOMEM, "out of memory");
}

/* Checks the parent and takes its identity. */
static int link_parent(struct writer *w, struct error *err)
{
	struct manifest parent;
	int rc;

	if (!w->options.parent)
		return 0;
	rc = epoch_manifest(w->store, w->options.parent, &parent, err);
	if (rc < 0)
		return rc;
	memcpy(w->parent, parent.identity, sizeof(w->parent));
	if (parent.memory != w->options.memory)
		rc = error_set(err, -EINVAL,
			       "epoch %" PRIu64 " has %" PRIu64 " bytes of memory, not %" PRIu64
			       ": write a full one",
			       parent.epoch, parent.memory, w->options.memory);
	manifest_done(&parent);
	return rc;
}

static int make_lanes(struct writer *w, struct error *err)
{
	w->threads = w->options.threads ? w->options.threads : work_threads(w->options.memory);
	if (w->threads > INDEX_MAX_FILES)
		w->threads = INDEX_MAX_FILES;
	w->lane = calloc(w->threads, sizeof(*w->lane));
	if (!w->lane)
		return no_memory(err);
	for (unsigned i = 0; i < w->threads; i++)
		w->lane[i].file.fd = -1;
	for (unsigned i = 0; i < w->threads && w->options.compression; i++)
		if (posix_memalign((void **)&w->lane[i].scratch, PAGE_BYTES, CHUNK_BYTES) ||
		    compressor_create(w->options.compression, &w->lane[i].compressor) < 0)
			return no_memory(err);
	return 0;
}

static int create(const struct store *store, const struct writer_options *options, uint64_t epoch,
		  bool replace, struct writer **ret, struct error *err)
{
	struct writer *w = calloc(1, sizeof(*w));
	int rc;

	if (!w)
		return no_memory(err);
	w->store = store;
	w->options = *options;
	w->epoch = epoch;
	w->replace = replace;
	w->dir = -1;
	w->created = io_now_ns();
	rc = link_parent(w, err);
	if (rc == 0)
		rc = make_lanes(w, err);
	if (rc == 0) {
		w->dir = store_begin(store, epoch, err);
		rc = w->dir < 0 ? w->dir : 0;
	}
	if (rc < 0)
		writer_destroy(w);
	else
		*ret = w;
	return rc;
}

int writer_create(const struct store *store, const struct writer_options *options,
		  struct writer **ret, struct error *err)
{
	CLEANUP_FREE uint64_t *epochs = NULL;
	size_t n;
	int rc;

	if (!options->memory || options->memory % PAGE_BYTES || options->memory > INDEX_MAX_MEMORY)
		return error_set(err, -EINVAL, "memory of %" PRIu64 " bytes is not in pages",
				 options->memory);
	rc = store_epochs(store, &epochs, &n, err);
	return rc < 0 ? rc : create(store, options, n ? epochs[n - 1] + 1 : 1, false, ret, err);
}

int writer_replace(const struct store *store, const struct writer_options *options, uint64_t epoch,
		   struct writer **ret, struct error *err)
{
	return create(store, options, epoch, true, ret, err);
}

void writer_destroy(struct writer *w)
{
	if (!w)
		return;
	for (unsigned i = 0; w->lane && i < w->threads; i++) {
		pagefile_done(&w->lane[i].file);
		free(w->lane[i].scratch);
		compressor_destroy(w->lane[i].compressor);
		free(w->lane[i].rows);
	}
	free(w->lane);
	if (w->dir >= 0 && !w->committed)
		store_abort(w->store, w->epoch);
	cleanup_close_fd(&w->dir);
	free(w);
}

static int lane_begin(struct writer *w, struct lane *lane, struct error *err)
{
	bool direct = w->options.direct == DIRECT_ON ||
		      (w->options.direct == DIRECT_AUTO && w->options.memory >= DIRECT_MIN &&
		       !w->options.parent);
	int rc;

	lane->number = w->files++;
	rc = pagefile_begin(&lane->file, w->dir, lane->number, direct, err);
	return rc < 0 ? error_prefix(err, rc, "checkpoint %s", w->store->path) : 0;
}

static int lane_add(struct lane *lane, const struct row *row, uint32_t round, struct error *err)
{
	if (lane->nrows == lane->room) {
		size_t more = lane->room ? 2 * lane->room : 256;
		struct numbered_row *bigger = realloc(lane->rows, more * sizeof(*bigger));

		if (!bigger)
			return no_memory(err);
		lane->rows = bigger;
		lane->room = more;
	}
	lane->rows[lane->nrows++] = (struct numbered_row){*row, round};
	return 0;
}

/* Compresses the pages in scratch into the file, or puts them there as they are. */
static int store_packed(struct lane *lane, struct row *row, struct error *err)
{
	size_t raw = row_pages(row) * PAGE_BYTES, n;
	uint8_t *to;
	int rc = pagefile_reserve(&lane->file, raw, CHUNK_PACKED_ALIGN, &to, err);

	if (rc < 0)
		return rc;
	n = compressor_pack(lane->compressor, lane->scratch, raw, to, raw);
	if (!n) {
		rc = pagefile_reserve(&lane->file, raw, CHUNK_RAW_ALIGN, &to, err);
		if (rc < 0)
			return rc;
		memcpy(to, lane->scratch, raw);
		row->compression = COMPRESSION_NONE;
		n = raw;
	}
	row->length = (uint32_t)n;
	row->sum = crc32c(0, to, n);
	row->offset = pagefile_add(&lane->file, n);
	return 0;
}

/* Fetches, squeezes and stores the wanted pages of a chunk. */
static int write_chunk(struct pass *pass, struct lane *lane, unsigned thread, uint64_t chunk,
		       uint64_t wanted, struct error *err)
{
	struct writer *w = pass->w;
	struct row row = {.chunk = chunk, .compression = (uint8_t)w->options.compression};
	size_t size = (size_t)__builtin_popcountll(wanted) * PAGE_BYTES;
	uint8_t *to = lane->scratch;
	int rc = lane->file.buf ? 0 : lane_begin(w, lane, err);

	if (rc == 0 && !to)
		rc = pagefile_reserve(&lane->file, size, CHUNK_RAW_ALIGN, &to, err);
	if (rc == 0)
		rc = pass->source(pass->arg, thread, chunk, wanted, to, err);
	if (rc < 0)
		return rc;
	row.zero = page_squeeze(to, wanted);
	row.stored = wanted & ~row.zero;
	lane->zero += (unsigned)__builtin_popcountll(row.zero);
	lane->pages += row_pages(&row);
	/* Of a full epoch what no row has is zero already. */
	if (!w->options.parent && !w->round)
		row.zero = 0;
	if (!row.stored && !row.zero)
		return 0;
	if (row.stored) {
		row.file = (uint16_t)lane->number;
		row.length = row_pages(&row) * PAGE_BYTES;
		if (lane->scratch) {
			rc = store_packed(lane, &row, err);
		} else {
			row.sum = crc32c(0, to, row.length);
			row.offset = pagefile_add(&lane->file, row.length);
		}
		if (rc < 0)
			return error_prefix(err, rc, "checkpoint %s", w->store->path);
		lane->bytes += row.length;
	} else {
		row.compression = 0;
	}
	return lane_add(lane, &row, w->round, err);
}

static int run_pass(struct work *work, unsigned thread, struct error *err)
{
	struct pass *pass = work->arg;
	struct writer *w = pass->w;
	struct lane *lane = &w->lane[thread];
	uint64_t chunks = index_chunks(w->options.memory), first;

	while ((first = atomic_fetch_add(&work->next, BLOCK)) < chunks) {
		for (uint64_t c = first; c < first + BLOCK && c < chunks; c++) {
			uint64_t mask = index_chunk_mask(w->options.memory, c);
			uint64_t wanted = pass->bitmap ? pass->bitmap[c] & mask : mask;
			int rc = work_check(work, err);

			if (rc == 0 && wanted)
				rc = write_chunk(pass, lane, thread, c, wanted, err);
			if (rc < 0)
				return rc;
			work->done += (unsigned)__builtin_popcountll(wanted) * PAGE_BYTES;
		}
	}
	return 0;
}

static uint64_t count_pages(const struct writer *w, const uint64_t *bitmap)
{
	uint64_t n = 0;

	for (uint64_t c = 0; c < index_chunks(w->options.memory); c++)
		n += (unsigned)__builtin_popcountll(bitmap[c] &
						    index_chunk_mask(w->options.memory, c));
	return n;
}

int writer_pages_from(struct writer *w, writer_source fn, void *arg, const uint64_t *bitmap,
		      struct error *err)
{
	struct pass pass = {.w = w, .source = fn, .arg = arg, .bitmap = bitmap};
	struct work work = {.threads = w->threads,
			    .run = run_pass,
			    .arg = &pass,
			    .progress = w->options.progress,
			    .what = "writing",
			    .gentle = w->gentle,
			    .total = bitmap ? count_pages(w, bitmap) * PAGE_BYTES
					    : w->options.memory};
	uint64_t start = io_now_ns();
	int rc = work_run(&work, err);

	w->pages_ns += io_now_ns() - start;
	w->round++;
	return rc;
}

int writer_dir(const struct writer *w)
{
	return w->dir;
}

void writer_gentle(struct writer *w, bool gentle)
{
	w->gentle = gentle;
}

/* Reads the wanted pages run by run. Nothing is mapped: a hole stays one, no page is faulted in. */
static int read_memfd(void *arg, unsigned thread, uint64_t chunk, uint64_t wanted, uint8_t *out,
		      struct error *err)
{
	int fd = *(int *)arg;

	while (wanted) {
		unsigned first = (unsigned)__builtin_ctzll(wanted);
		uint64_t rest = ~(wanted >> first);
		unsigned n = rest ? (unsigned)__builtin_ctzll(rest) : CHUNK_PAGES - first;
		int rc = io_pread_full(fd, out, (size_t)n * PAGE_BYTES,
				       (off_t)(chunk * CHUNK_BYTES + first * PAGE_BYTES));

		if (rc < 0)
			return error_errno(err, rc, "cannot read guest memory");
		out += (size_t)n * PAGE_BYTES;
		wanted = first + n == 64 ? 0 : wanted >> (first + n) << (first + n);
	}
	return 0;
}

static void set_bits(uint64_t *bitmap, uint64_t first, uint64_t end)
{
	for (; first < end && first % 64; first++)
		bitmap[first / 64] |= 1ull << first % 64;
	for (; first + 64 <= end; first += 64)
		bitmap[first / 64] = ~0ull;
	for (; first < end; first++)
		bitmap[first / 64] |= 1ull << first % 64;
}

/* A bitmap of the pages that are not in holes; *ret stays NULL where holes cannot be told. */
static int find_data(int fd, uint64_t memory, uint64_t **ret, struct error *err)
{
	CLEANUP_FREE uint64_t *bitmap = calloc(index_chunks(memory), sizeof(*bitmap));
	off_t end = 0;

	if (!bitmap)
		return no_memory(err);
	while ((uint64_t)end < memory) {
		off_t start = lseek(fd, end, SEEK_DATA);

		if (start < 0 && errno == ENXIO)
			break;
		end = start < 0 ? -1 : lseek(fd, start, SEEK_HOLE);
		if (end < 0)
			return 0;
		if ((uint64_t)end > memory)
			end = (off_t)memory;
		set_bits(bitmap, (uint64_t)start / PAGE_BYTES,
			 ((uint64_t)end + PAGE_BYTES - 1) / PAGE_BYTES);
	}
	*ret = take_ptr(bitmap);
	return 0;
}

int writer_pages(struct writer *w, int memfd, const uint64_t *bitmap, struct error *err)
{
	CLEANUP_FREE uint64_t *data = NULL;
	uint64_t start = io_now_ns();
	struct stat st;
	int rc = 0;

	if (fstat(memfd, &st) < 0)
		return error_errno(err, -errno, "cannot examine guest memory");
	if ((uint64_t)st.st_size < w->options.memory)
		return error_set(err, -EINVAL, "guest memory has %lld bytes, not %" PRIu64,
				 (long long)st.st_size, w->options.memory);
	if (!bitmap)
		rc = find_data(memfd, w->options.memory, &data, err);
	w->scan_ns += io_now_ns() - start;
	if (rc < 0)
		return rc;
	return writer_pages_from(w, read_memfd, &memfd, bitmap ? bitmap : data, err);
}

static int run_finish(struct work *work, unsigned thread, struct error *err)
{
	struct writer *w = work->arg;
	uint64_t i;

	while ((i = work->next++) < w->threads) {
		int rc = w->lane[i].file.buf ? pagefile_finish(&w->lane[i].file, err) : 0;

		if (rc < 0)
			return error_prefix(err, rc, "checkpoint %s", w->store->path);
	}
	return 0;
}

static int compare_rows(const void *a, const void *b)
{
	const struct numbered_row *x = a, *y = b;

	if (x->row.chunk != y->row.chunk)
		return x->row.chunk < y->row.chunk ? -1 : 1;
	return (x->round > y->round) - (x->round < y->round);
}

/* All rows, in order. */
static int collect_rows(const struct writer *w, struct index *index, struct error *err)
{
	CLEANUP_FREE struct numbered_row *all = NULL;
	size_t n = 0;

	for (unsigned i = 0; i < w->threads; i++)
		n += w->lane[i].nrows;
	all = malloc((n + 1) * sizeof(*all));
	index->rows = malloc((n + 1) * sizeof(*index->rows));
	if (!all || !index->rows)
		return no_memory(err);
	n = 0;
	for (unsigned i = 0; i < w->threads; i++) {
		if (w->lane[i].nrows)
			memcpy(all + n, w->lane[i].rows, w->lane[i].nrows * sizeof(*all));
		n += w->lane[i].nrows;
	}
	qsort(all, n, sizeof(*all), compare_rows);
	for (size_t i = 0; i < n; i++)
		index->rows[i] = all[i].row;
	index->nrows = n;
	return 0;
}

/* Writes the index file and tells its digest. */
static int write_index(struct writer *w, struct index *index, char sha256[DIGEST_TEXT],
		       uint64_t *size, struct error *err)
{
	CLEANUP_CLOSE int fd = openat(w->dir, "index", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	char path[64];
	int rc;

	if (fd < 0)
		return error_errno(err, -errno, "cannot make an index in %s", w->store->path);
	rc = index_write(fd, index, err);
	if (rc == 0 && fsync(fd) < 0)
		rc = error_errno(err, -errno, "cannot sync the index");
	if (rc < 0)
		return error_prefix(err, rc, "checkpoint %s", w->store->path);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return digest_file(path, sha256, size, err);
}

static json_t *files_json(const struct writer *w, const char *sha256, uint64_t index_size)
{
	json_t *files = json_pack("{s:{s:I, s:s}}", "index", "size", (json_int_t)index_size,
				  "sha256", sha256);

	for (unsigned i = 0; i < w->threads; i++)
		if (w->lane[i].file.buf)
			json_object_set_new(
				files, w->lane[i].file.name,
				json_pack("{s:I}", "size", (json_int_t)w->lane[i].file.written));
	return files;
}

static json_t *report_json(const struct writer *w, uint64_t index_size)
{
	uint64_t pages = 0, zero = 0, bytes = index_size, total = io_now_ns() - w->created;
	bool direct = false;

	for (unsigned i = 0; i < w->threads; i++) {
		pages += w->lane[i].pages;
		zero += w->lane[i].zero;
		bytes += w->lane[i].file.written;
		direct |= w->lane[i].file.buf && w->lane[i].file.direct;
	}
	return json_pack("{s:I, s:I, s:I, s:I, s:b, s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "threads",
			 (json_int_t)w->threads, "pages", (json_int_t)pages, "zero_pages",
			 (json_int_t)zero, "bytes", (json_int_t)bytes, "direct", direct,
			 "compression", compression_name(w->options.compression), "rounds",
			 (json_int_t)w->round, "scan_ns", (json_int_t)w->scan_ns, "pages_ns",
			 (json_int_t)w->pages_ns, "sync_ns", (json_int_t)w->sync_ns, "total_ns",
			 (json_int_t)total, "rate",
			 (json_int_t)((double)pages * PAGE_BYTES * 1e9 / (double)total));
}

static json_t *date_json(uint64_t ns)
{
	time_t t = (time_t)(ns / 1000000000);
	char text[32];
	struct tm tm;

	gmtime_r(&t, &tm);
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
	return json_string(text);
}

/* Syncs the page files and writes the index; fills what the manifest says of the files. */
static int finish_files(struct writer *w, struct index *index, json_t *manifest, json_t **report,
			char sha256[DIGEST_TEXT], struct error *err)
{
	struct work work = {.threads = w->threads,
			    .run = run_finish,
			    .arg = w,
			    .progress = w->options.progress,
			    .what = "syncing"};
	uint64_t start = io_now_ns(), size;
	int rc = work_run(&work, err);

	w->sync_ns = io_now_ns() - start;
	index->memory = w->options.memory;
	index->epoch = w->epoch;
	index->parent_epoch = w->options.parent;
	memcpy(index->parent, w->parent, sizeof(index->parent));
	index->files = w->files;
	if (rc == 0)
		rc = collect_rows(w, index, err);
	if (rc == 0)
		rc = write_index(w, index, sha256, &size, err);
	if (rc < 0)
		return rc;
	*report = report_json(w, size);
	json_object_set_new(manifest, "files", files_json(w, sha256, size));
	json_object_set(manifest, "report", *report);
	return 0;
}

static void add_files(json_t *manifest, json_t *files)
{
	if (files)
		json_object_update(json_object_get(manifest, "files"), files);
}

static int publish(struct writer *w, json_t *manifest, struct error *err)
{
	int rc = manifest_write(w->dir, manifest, err);

	if (rc == 0)
		rc = store_commit(w->store, w->epoch, w->dir, w->replace, err);
	if (rc == 0)
		w->committed = true;
	return rc;
}

static json_t *opaque(const json_t *value)
{
	return value ? json_deep_copy(value) : json_null();
}

int writer_commit(struct writer *w, const struct writer_vm *vm, uint64_t *epoch, json_t **ret,
		  struct error *err)
{
	struct index index = {.state = (uint8_t *)vm->state, .state_size = vm->state_size};
	json_t *manifest = json_object(), *report = NULL;
	char identity[DIGEST_TEXT];
	struct timespec now;
	int rc;

	clock_gettime(CLOCK_REALTIME, &now);
	index.time = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
	rc = finish_files(w, &index, manifest, &report, identity, err);
	free(index.rows);
	if (rc == 0) {
		add_files(manifest, vm->files);
		json_object_update_new(
			manifest,
			json_pack("{s:i, s:I, s:s, s:s, s:o, s:o, s:s?, s:o, s:o, s:I, s:I}",
				  "format", MANIFEST_FORMAT, "epoch", (json_int_t)w->epoch, "kind",
				  w->options.parent ? "incremental" : "full", "identity", identity,
				  "parent",
				  w->options.parent ? json_pack("{s:I, s:s}", "epoch",
								(json_int_t)w->options.parent,
								"identity", w->parent)
						    : json_null(),
				  "created", date_json(index.time), "image", vm->image, "config",
				  opaque(vm->config), "cpu", opaque(vm->cpu), "memory",
				  (json_int_t)w->options.memory, "state",
				  (json_int_t)vm->state_size));
		rc = publish(w, manifest, err);
	}
	json_decref(manifest);
	if (rc == 0 && epoch)
		*epoch = w->epoch;
	if (rc == 0 && ret)
		*ret = json_incref(report);
	json_decref(report);
	return rc;
}

int writer_commit_merged(struct writer *w, const json_t *old, json_t *files, uint64_t time,
			 const void *state, uint64_t state_size, struct error *err)
{
	struct index index = {.state = (uint8_t *)state, .state_size = state_size, .time = time};
	json_t *manifest = json_deep_copy(old), *report = NULL;
	char sha256[DIGEST_TEXT];
	int rc =
		manifest ? finish_files(w, &index, manifest, &report, sha256, err) : no_memory(err);

	free(index.rows);
	if (rc == 0) {
		add_files(manifest, files);
		/* The report stays that of the VM's checkpoint: it says what that cost. */
		json_object_set(manifest, "report", json_object_get(old, "report"));
		json_object_set_new(manifest, "kind", json_string("full"));
		json_object_set_new(manifest, "parent", json_null());
		json_object_set_new(manifest, "merged", json_true());
		rc = publish(w, manifest, err);
	}
	json_decref(manifest);
	json_decref(report);
	return rc;
}
