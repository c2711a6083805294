/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtio block device (specification 5.2): checks the guest's requests and hands them to
 * a store (block/store.h), many at once. A bad request gets its status; only a chain with no
 * room for a status breaks the device.
 */

#include <endian.h>
#include <errno.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/parse.h"
#include "vmm/block/store.h"
#include "vmm/config.h"
#include "vmm/devices.h"
#include "vmm/dev/iov.h"
#include "vmm/virtio/virtio.h"
#include "vmm/vm.h"

#define QUEUE_SIZE 256
#define SECTOR 512u
/* Header, status and these fill a chain. */
#define SEGMENTS (VIRTQ_IOV_MAX - 2)
/* One discard or write-zeroes request: 1 GiB. */
#define RANGE_SECTORS (1u << 21)
/* Together a bit less than REQUEST_MAX: what the driver is told is what we take. */
#define SEGMENT_MAX (64u << 10)
#define REQUEST_MAX (16u << 20)
_Static_assert(SEGMENTS *SEGMENT_MAX <= REQUEST_MAX, "a request we advertise is refused");
/* Requests, and bytes of them, taken from a queue before other devices get their turn. */
#define BATCH 256
#define BATCH_BYTES REQUEST_MAX

struct block {
	struct virtio virtio;
	struct store *store;
	bool readonly;
	uint8_t wce; /* writeback: writes may stay in volatile caches until a flush */
	uint8_t wce_start;
	char serial[VIRTIO_BLK_ID_BYTES];
	uint16_t inflight[VIRTIO_QUEUES_MAX];
	struct virtq_chain chain; /* the one being looked at */
	uint64_t reads, writes, flushes, discards, errors, bytes_read, bytes_written;
};

/* A request in flight, with the parts of its chain that are still needed. */
struct request {
	struct store_io io;
	struct block *blk;
	struct virtq *q;
	uint16_t head;
	uint32_t written; /* for the used ring */
	uint8_t *status;
	uint64_t status_gpa;
	unsigned nranges; /* what a read fills, for the dirty bitmap */
	struct memory_range {
		uint64_t gpa, len;
	} * range; /* behind iov */
	struct iovec iov[];
};

static struct block *block_of(struct virtio *dev)
{
	return (struct block *)dev;
}

/* Takes the last writable byte, where the status goes, off the chain. */
static bool take_status(struct virtq_chain *c, uint8_t **status, uint64_t *gpa)
{
	unsigned last = c->nread + c->nwrite - 1u;

	if (!c->nwrite)
		return false;
	c->iov[last].iov_len--;
	*status = (uint8_t *)c->iov[last].iov_base + c->iov[last].iov_len;
	*gpa = c->gpa[last] + c->iov[last].iov_len;
	c->nwrite -= !c->iov[last].iov_len;
	return true;
}

static void request_finish(struct request *req, uint8_t status)
{
	struct block *b = req->blk;
	struct memory *mem = &b->virtio.device.vm->mem;

	for (unsigned i = 0; i < req->nranges; i++)
		memory_mark_dirty(mem, req->range[i].gpa, req->range[i].len);
	*req->status = status;
	memory_mark_dirty(mem, req->status_gpa, 1);
	virtq_push_id(req->q, req->head, req->written);
	if (status != VIRTIO_BLK_S_OK)
		b->errors++;
	b->inflight[req->q->index]--;
	free(req);
}

static void io_done(struct store_io *io, int result)
{
	struct request *req = container_of(io, struct request, io);

	request_finish(req, !result		    ? VIRTIO_BLK_S_OK
			    : result == -EOPNOTSUPP ? VIRTIO_BLK_S_UNSUPP
						    : VIRTIO_BLK_S_IOERR);
}

/* [sector, sector + count) is on the disk. */
static bool on_disk(const struct block *b, uint64_t sector, uint64_t count)
{
	uint64_t capacity = b->store->size / SECTOR;

	return sector <= capacity && count <= capacity - sector;
}

/* Fills the operation of a read or write; returns the status of a bad one. */
static uint8_t prepare_data(struct block *b, struct request *req, uint64_t sector)
{
	const struct virtq_chain *c = &b->chain;
	bool write = req->io.op == STORE_WRITE;
	size_t skip = write ? sizeof(struct virtio_blk_outhdr) : 0;
	const struct iovec *from = write ? c->iov : c->iov + c->nread;
	unsigned n = write ? c->nread : c->nwrite;
	size_t len = iov_bytes(from, n) - skip;

	if (len > REQUEST_MAX || len % SECTOR || !on_disk(b, sector, len / SECTOR) ||
	    (write && b->readonly))
		return VIRTIO_BLK_S_IOERR;
	req->io.offset = sector * SECTOR;
	req->io.length = len;
	req->io.iov = req->iov;
	req->io.niov = iov_slice(from, n, skip, len, req->iov);
	if (write) {
		b->writes++;
		b->bytes_written += len;
		return VIRTIO_BLK_S_OK;
	}
	for (unsigned i = 0; i < n; i++)
		req->range[i] = (struct memory_range){c->gpa[c->nread + i], from[i].iov_len};
	req->nranges = n;
	req->written += (uint32_t)len;
	b->reads++;
	b->bytes_read += len;
	return VIRTIO_BLK_S_OK;
}

static uint8_t prepare_range(struct block *b, struct request *req)
{
	bool zero = req->io.op == STORE_ZERO;
	struct virtio_blk_discard_write_zeroes seg;
	size_t header = sizeof(struct virtio_blk_outhdr);
	uint64_t sector;
	uint32_t count, flags;

	if (!virtio_has(&b->virtio, zero ? VIRTIO_BLK_F_WRITE_ZEROES : VIRTIO_BLK_F_DISCARD))
		return VIRTIO_BLK_S_UNSUPP;
	if (b->chain.read_bytes != header + sizeof(seg))
		return VIRTIO_BLK_S_IOERR; /* one segment is what we told the driver */
	virtq_chain_read(&b->chain, header, &seg, sizeof(seg));
	sector = le64toh(seg.sector);
	count = le32toh(seg.num_sectors);
	flags = le32toh(seg.flags);
	if (flags & ~(zero ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0u))
		return VIRTIO_BLK_S_UNSUPP;
	if (b->readonly || !count || count > RANGE_SECTORS || !on_disk(b, sector, count))
		return VIRTIO_BLK_S_IOERR;
	if (zero && !flags)
		req->io.op = STORE_ZERO_KEEP;
	req->io.offset = sector * SECTOR;
	req->io.length = (uint64_t)count * SECTOR;
	b->discards++;
	return VIRTIO_BLK_S_OK;
}

static uint8_t get_id(struct block *b, struct request *req)
{
	struct virtq_chain *c = &b->chain;
	size_t n = iov_write(&c->iov[c->nread], c->nwrite, 0, b->serial, sizeof(b->serial));

	for (unsigned i = 0; i < c->nwrite; i++)
		memory_mark_dirty(&b->virtio.device.vm->mem, c->gpa[c->nread + i],
				  c->iov[c->nread + i].iov_len);
	req->written += (uint32_t)n;
	return VIRTIO_BLK_S_OK;
}

/* Returns the status when the request is over already, -1 when its io is for the store. */
static int prepare(struct block *b, struct request *req)
{
	struct virtio_blk_outhdr hdr;
	int status;

	if (virtq_chain_read(&b->chain, 0, &hdr, sizeof(hdr)) != sizeof(hdr))
		return VIRTIO_BLK_S_IOERR;
	switch (le32toh(hdr.type)) {
	case VIRTIO_BLK_T_IN:
		req->io.op = STORE_READ;
		status = prepare_data(b, req, le64toh(hdr.sector));
		break;
	case VIRTIO_BLK_T_OUT:
		req->io.op = STORE_WRITE;
		status = prepare_data(b, req, le64toh(hdr.sector));
		break;
	case VIRTIO_BLK_T_FLUSH:
		req->io.op = STORE_FLUSH;
		b->flushes++;
		return b->readonly ? VIRTIO_BLK_S_OK : -1;
	case VIRTIO_BLK_T_GET_ID:
		return get_id(b, req);
	case VIRTIO_BLK_T_DISCARD:
		req->io.op = STORE_DISCARD;
		status = prepare_range(b, req);
		break;
	case VIRTIO_BLK_T_WRITE_ZEROES:
		req->io.op = STORE_ZERO;
		status = prepare_range(b, req);
		break;
	default:
		return VIRTIO_BLK_S_UNSUPP;
	}
	return status == VIRTIO_BLK_S_OK && req->io.length ? -1 : status;
}

/* Starts the request in b->chain. False: the device is broken now. */
static bool start(struct block *b, struct virtq *q)
{
	struct virtq_chain *c = &b->chain;
	unsigned niov = (unsigned)c->nread + c->nwrite;
	struct request *req;
	uint64_t status_gpa;
	uint8_t *status_at;
	int status;

	if (!take_status(c, &status_at, &status_gpa)) {
		virtio_broken(&b->virtio, "block request without room for its status");
		return false;
	}
	/* A driver that reuses descriptors in flight could make us allocate without end. */
	if (b->inflight[q->index] == q->size) {
		virtio_broken(&b->virtio, "more block requests in flight than the queue holds");
		return false;
	}
	req = malloc(sizeof(*req) + niov * sizeof(req->iov[0]) + c->nwrite * sizeof(*req->range));
	if (!req) {
		*status_at = VIRTIO_BLK_S_IOERR;
		memory_mark_dirty(&b->virtio.device.vm->mem, status_gpa, 1);
		virtq_push_id(q, c->head, 1);
		b->errors++;
		return true;
	}
	*req = (struct request){
		.io = {.durable = !b->wce, .done = io_done},
		.blk = b,
		.q = q,
		.head = c->head,
		.written = 1,
		.status = status_at,
		.status_gpa = status_gpa,
		.range = (struct memory_range *)&req->iov[niov],
	};
	b->inflight[q->index]++;
	status = prepare(b, req);
	if (status < 0)
		store_submit(b->store, &req->io);
	else
		request_finish(req, (uint8_t)status);
	return true;
}

static void notify_all(void *arg)
{
	struct block *b = arg;

	for (unsigned i = 0; i < b->virtio.nqueues; i++)
		virtq_notify(&b->virtio.queue[i]);
}

static void block_kick(struct virtio *dev, struct virtq *q)
{
	struct block *b = block_of(dev);
	unsigned budget = BATCH;
	uint64_t bytes = 0;

	do {
		virtq_disable_kicks(q);
		while (budget && virtq_pop(q, &b->chain) > 0 && start(b, q)) {
			bytes += (uint64_t)b->chain.read_bytes + b->chain.write_bytes;
			budget = bytes < BATCH_BYTES ? budget - 1 : 0;
		}
	} while (budget && virtq_enable_kicks(q));
	if (!budget)
		eventfd_write(q->kick_fd, 1); /* the rest after other devices had a turn */
	store_commit(b->store);
	virtq_notify(q);
}

static uint64_t block_features(struct virtio *dev)
{
	struct block *b = block_of(dev);
	uint64_t features = 1ULL << VIRTIO_BLK_F_SIZE_MAX | 1ULL << VIRTIO_BLK_F_SEG_MAX |
			    1ULL << VIRTIO_BLK_F_BLK_SIZE | 1ULL << VIRTIO_BLK_F_FLUSH |
			    1ULL << VIRTIO_BLK_F_TOPOLOGY | 1ULL << VIRTIO_BLK_F_CONFIG_WCE;

	if (b->readonly)
		features |= 1ULL << VIRTIO_BLK_F_RO;
	if (b->store->can_discard)
		features |= 1ULL << VIRTIO_BLK_F_DISCARD;
	if (b->store->can_zero)
		features |= 1ULL << VIRTIO_BLK_F_WRITE_ZEROES;
	if (dev->nqueues > 1)
		features |= 1ULL << VIRTIO_BLK_F_MQ;
	return features;
}

/* How much of the configuration we have: up to write_zeroes_may_unmap and its padding. */
#define CONFIG_SIZE (offsetof(struct virtio_blk_config, write_zeroes_may_unmap) + 4)

static void block_config_read(struct virtio *dev, unsigned offset, void *data, unsigned len)
{
	struct block *b = block_of(dev);
	const struct store *s = b->store;
	unsigned exponent = (unsigned)__builtin_ctz(s->physical_size / s->block_size);
	struct virtio_blk_config config = {
		.capacity = htole64(s->size / SECTOR),
		.size_max = htole32(SEGMENT_MAX),
		.seg_max = htole32(SEGMENTS),
		.blk_size = htole32(s->block_size),
		.physical_block_exp = (uint8_t)exponent,
		.min_io_size = htole16((uint16_t)(1u << exponent)),
		.wce = b->wce,
		.num_queues = htole16((uint16_t)dev->nqueues),
		.max_discard_sectors = htole32(RANGE_SECTORS),
		.max_discard_seg = htole32(1),
		.discard_sector_alignment = htole32(s->physical_size / SECTOR),
		.max_write_zeroes_sectors = htole32(RANGE_SECTORS),
		.max_write_zeroes_seg = htole32(1),
		.write_zeroes_may_unmap = 1,
	};

	memcpy(data, (char *)&config + offset, len);
}

/* Only the cache mode can be written (specification 5.2.5.2). */
static void block_config_write(struct virtio *dev, unsigned offset, const void *data, unsigned len)
{
	struct block *b = block_of(dev);

	if (offset == offsetof(struct virtio_blk_config, wce) && len == 1 &&
	    virtio_has(dev, VIRTIO_BLK_F_CONFIG_WCE))
		b->wce = *(const uint8_t *)data & 1;
}

static int block_activate(struct virtio *dev, struct error *err)
{
	struct block *b = block_of(dev);

	/* A driver that cannot flush relies on writes being durable (specification 5.2.5.2). */
	if (!virtio_has(dev, VIRTIO_BLK_F_FLUSH) && !virtio_has(dev, VIRTIO_BLK_F_CONFIG_WCE))
		b->wce = 0;
	return 0;
}

static int block_pause(struct virtio *dev)
{
	store_drain(block_of(dev)->store);
	return 0;
}

static int block_claim(struct virtio *dev, bool claim, struct error *err)
{
	return store_claim(block_of(dev)->store, claim, err);
}

static bool block_disk(struct virtio *dev, struct device_disk *ret)
{
	struct block *b = block_of(dev);

	ret->fd = store_file(b->store, &ret->path);
	ret->store = b->store;
	ret->readonly = b->readonly;
	return true;
}

static void block_deactivate(struct virtio *dev)
{
	struct block *b = block_of(dev);

	store_drain(b->store);
	b->wce = b->wce_start;
}

static void block_describe(struct virtio *dev, json_t *object)
{
	struct block *b = block_of(dev);

	json_object_set_new(object, "size", json_integer((json_int_t)b->store->size));
	json_object_set_new(object, "readonly", json_boolean(b->readonly));
}

static void block_stats(struct virtio *dev, json_t *object)
{
	struct block *b = block_of(dev);

	json_object_set_new(object, "reads", json_integer((json_int_t)b->reads));
	json_object_set_new(object, "writes", json_integer((json_int_t)b->writes));
	json_object_set_new(object, "flushes", json_integer((json_int_t)b->flushes));
	json_object_set_new(object, "discards", json_integer((json_int_t)b->discards));
	json_object_set_new(object, "errors", json_integer((json_int_t)b->errors));
	json_object_set_new(object, "bytes-read", json_integer((json_int_t)b->bytes_read));
	json_object_set_new(object, "bytes-written", json_integer((json_int_t)b->bytes_written));
}

static void block_destroy(struct virtio *dev)
{
	struct block *b = block_of(dev);

	store_destroy(b->store);
	free(b);
}

static const struct state_field block_state[] = {
	STATE_FIELD(struct block, wce),
	STATE_END,
};

static const struct virtio_class block_class = {
	.id = VIRTIO_ID_BLOCK,
	.name = "block",
	.pci_class = 0x018000, /* mass storage, other */
	.features = block_features,
	.config_read = block_config_read,
	.config_write = block_config_write,
	.activate = block_activate,
	.deactivate = block_deactivate,
	.kick = block_kick,
	.pause = block_pause,
	.claim = block_claim,
	.describe = block_describe,
	.disk = block_disk,
	.stats = block_stats,
	.destroy = block_destroy,
	.state = block_state,
};

struct block_options {
	struct store_options store;
	const char *path;
	unsigned queues;
};

static int parse_options(struct block *b, const struct device_config *cfg,
			 struct block_options *opt, struct error *err)
{
	const char *readonly = device_config_get(cfg, "readonly");
	const char *serial = device_config_get(cfg, "serial");
	const char *cache = device_config_get(cfg, "cache");
	const char *queues = device_config_get(cfg, "queues");
	int r = 0;

	opt->queues = 1;
	opt->path = device_config_get(cfg, "path");
	if (readonly)
		r = parse_bool(readonly, "readonly", &opt->store.readonly, err);
	if (!r && queues)
		r = parse_uint(queues, "queues", 1, VIRTIO_QUEUES_MAX, &opt->queues, err);
	if (r)
		return r;
	if (cache && strcmp(cache, "none") && strcmp(cache, "writeback"))
		return error_set(err, -EINVAL, "block: cache=%s: it is writeback or none", cache);
	if (serial && strlen(serial) > sizeof(b->serial))
		return error_set(err, -EINVAL, "block: serial=%s is longer than %zu characters",
				 serial, sizeof(b->serial));
	if (serial)
		memcpy(b->serial, serial, strlen(serial));
	opt->store.direct = cache && !strcmp(cache, "none");
	opt->store.depth = opt->queues * QUEUE_SIZE;
	b->readonly = opt->store.readonly;
	return 0;
}

static int block_create(struct vm *vm, const struct device_config *cfg, struct device **ret,
			struct error *err)
{
	struct block *b = calloc(1, sizeof(*b));
	struct block_options opt = {0};
	int r;

	if (!b)
		return error_errno(err, -ENOMEM, "block device");
	b->virtio.cls = &block_class;
	b->virtio.config_size = CONFIG_SIZE;
	b->wce = b->wce_start = 1;
	/* Its VM still runs elsewhere, perhaps with the same disk. */
	opt.store.unlocked = vm->config && vm->config->incoming;
	r = parse_options(b, cfg, &opt, err);
	if (!r)
		r = store_open_file(opt.path, &opt.store, vm->loop, &vm->log, &b->store, err);
	if (!r) {
		b->store->batch_done = notify_all;
		b->store->arg = b;
		b->virtio.nqueues = opt.queues;
		for (unsigned i = 0; i < opt.queues; i++)
			b->virtio.queue[i].max = QUEUE_SIZE;
		r = virtio_create(&b->virtio, vm, &block_desc, err);
	}
	if (r) {
		store_destroy(b->store);
		free(b);
		return r;
	}
	*ret = &b->virtio.device;
	return 0;
}

static const struct device_key block_keys[] = {
	{"path", "FILE", "raw image file or block device", true},
	{"readonly", NULL, "the guest cannot write; several VMs may share the file", false},
	{"serial", "ID", "serial number the guest sees, at most 20 characters", false},
	{"cache", "MODE", "writeback: the host's page cache (default); none: direct I/O", false},
	{"queues", "N", "number of request queues, 1 to 8 (default 1)", false},
	{0},
};

const struct device_desc block_desc = {
	.name = "block",
	.summary = "virtio disk on a raw file or a block device",
	.keys = block_keys,
	.max = 16,
	.create = block_create,
};
