/* SPDX-License-Identifier: Apache-2.0 */
/* lz4 and zstd behind one door. */

#include "mover/compress.h"

#include <errno.h>
#include <lz4.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "lib/error.h"

#define ZSTD_LEVEL 1 /* memory images gain little from more, see performance.md */

struct compressor {
	enum compression kind;
	ZSTD_CCtx *zstd;
	ZSTD_DCtx *unzstd;
	void *lz4;
};

static const char *const names[COMPRESSION_COUNT] = {"none", "lz4", "zstd"};

int compression_parse(const char *text, enum compression *ret, struct error *err)
{
	for (unsigned i = 0; i < COMPRESSION_COUNT; i++) {
		if (!strcmp(text, names[i])) {
			*ret = (enum compression)i;
			return 0;
		}
	}
	return error_set(err, -EINVAL, "compression \"%s\" is not one of none, lz4, zstd", text);
}

const char *compression_name(enum compression kind)
{
	return names[kind];
}

int compressor_create(enum compression kind, struct compressor **ret)
{
	struct compressor *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	c->kind = kind;
	c->unzstd = ZSTD_createDCtx();
	if (kind == COMPRESSION_ZSTD)
		c->zstd = ZSTD_createCCtx();
	if (kind == COMPRESSION_LZ4)
		c->lz4 = malloc((size_t)LZ4_sizeofState());
	if (!c->unzstd || (kind == COMPRESSION_ZSTD && !c->zstd) ||
	    (kind == COMPRESSION_LZ4 && !c->lz4)) {
		compressor_destroy(c);
		return -ENOMEM;
	}
	*ret = c;
	return 0;
}

void compressor_destroy(struct compressor *c)
{
	if (!c)
		return;
	ZSTD_freeCCtx(c->zstd);
	ZSTD_freeDCtx(c->unzstd);
	free(c->lz4);
	free(c);
}

size_t compressor_pack(struct compressor *c, const void *data, size_t n, void *out, size_t room)
{
	size_t most = n - n / 16, got;

	if (most > room)
		most = room;
	if (c->kind == COMPRESSION_LZ4)
		return (size_t)LZ4_compress_fast_extState(c->lz4, data, out, (int)n, (int)most, 1);
	if (c->kind != COMPRESSION_ZSTD)
		return 0;
	got = ZSTD_compressCCtx(c->zstd, out, most, data, n, ZSTD_LEVEL);
	return ZSTD_isError(got) ? 0 : got;
}

int compressor_unpack(struct compressor *c, enum compression kind, const void *data, size_t n,
		      void *out, size_t raw)
{
	size_t got = 0;

	if (kind == COMPRESSION_LZ4)
		got = (size_t)LZ4_decompress_safe(data, out, (int)n, (int)raw);
	else if (kind == COMPRESSION_ZSTD)
		got = ZSTD_decompressDCtx(c->unzstd, out, raw, data, n);
	return got == raw ? 0 : -EBADMSG;
}
