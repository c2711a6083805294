/* SPDX-License-Identifier: Apache-2.0 */
/* Saved state: tables of fields written out and, once all of them are right, read back. */

#include "vmm/state.h"

#include <errno.h>
#include <string.h>

#include "lib/error.h"

void state_put_name(struct wire_writer *w, const char *name)
{
	size_t len = strlen(name);

	wire_put_u16(w, (uint16_t)len);
	wire_put_bytes(w, name, len);
}

static bool is_zero(const uint8_t *p, size_t n)
{
	while (n && !p[n - 1])
		n--;
	return !n;
}

/* How many elements of a field are saved. */
static uint32_t saved_count(const struct state_field *f, const uint8_t *data)
{
	uint32_t n = f->count;

	while (f->trim && n && is_zero(data + (size_t)(n - 1) * f->size, f->size))
		n--;
	return n;
}

static void put_field(struct wire_writer *w, const struct state_field *f, const uint8_t *data)
{
	uint32_t n = saved_count(f, data);

	state_put_name(w, f->name);
	wire_put_u32(w, f->size);
	wire_put_u32(w, n);
	wire_put_bytes(w, data, (size_t)f->size * n);
}

/* x86-64 keeps integers as the format does, so elements are copied as they are. */
void state_save(struct wire_writer *w, const struct state_field *fields, const void *base)
{
	uint16_t n = 0;

	while (fields[n].name)
		n++;
	wire_put_u16(w, n);
	for (const struct state_field *f = fields; f->name; f++)
		put_field(w, f, (const uint8_t *)base + f->offset);
}

/* Takes the name that must come next. */
int state_get_name(struct wire_reader *r, const char *want, struct error *err)
{
	uint16_t len = wire_get_u16(r);
	const char *name = wire_get_bytes(r, len);

	if (!name)
		return error_set(err, -EBADMSG, "saved state ends where \"%s\" should be", want);
	if (len != strlen(want) || memcmp(name, want, len))
		return error_set(err, -EBADMSG, "saved state has \"%.*s\" where \"%s\" should be",
				 len > 64 ? 64 : (int)len, name, want);
	return 0;
}

/* The number of elements that follow is one the field can have. */
static int check_shape(const struct state_field *f, uint32_t size, uint32_t count,
		       struct error *err)
{
	if (size == f->size && (f->trim ? count <= f->count : count == f->count))
		return 0;
	return error_set(err, -EBADMSG,
			 "saved field \"%s\" has %u elements of %u bytes, not %s%u of %u", f->name,
			 count, size, f->trim ? "at most " : "", f->count, f->size);
}

static int get_field(struct wire_reader *r, const struct state_field *f, void *base,
		     struct error *err)
{
	int ret = state_get_name(r, f->name, err);
	uint32_t size, count;
	const uint8_t *data;
	size_t bytes;

	if (ret)
		return ret;
	size = wire_get_u32(r);
	count = wire_get_u32(r);
	ret = wire_ok(r) ? check_shape(f, size, count, err) : 0;
	if (ret)
		return ret;
	bytes = (size_t)f->size * count;
	data = wire_get_bytes(r, bytes);
	if (!data)
		return error_set(err, -EBADMSG, "saved state ends inside \"%s\"", f->name);
	/* There is one way to write a state. */
	if (f->trim && count && is_zero(data + bytes - f->size, f->size))
		return error_set(err, -EBADMSG, "saved field \"%s\" ends with a zero", f->name);
	if (!base)
		return 0;
	memcpy((uint8_t *)base + f->offset, data, bytes);
	memset((uint8_t *)base + f->offset + bytes, 0, (size_t)f->size * f->count - bytes);
	return 0;
}

/* Reads a table; without base it only checks. */
static int get_table(struct wire_reader *r, const struct state_field *fields, void *base,
		     struct error *err)
{
	uint16_t n = wire_get_u16(r), want = 0;
	int ret;

	for (; fields[want].name; want++) {
		ret = want < n ? get_field(r, &fields[want], base, err)
			       : error_set(err, -EBADMSG, "saved state lacks \"%s\"",
					   fields[want].name);
		if (ret)
			return ret;
	}
	if (n != want)
		return error_set(err, -EBADMSG, "saved state has %u fields, not %u", n, want);
	return wire_ok(r) ? 0 : error_set(err, -EBADMSG, "saved state is cut short");
}

int state_restore(struct wire_reader *r, const struct state_field *fields, void *base,
		  struct error *err)
{
	struct wire_reader check = *r;
	int ret = get_table(&check, fields, NULL, err);

	return ret ? ret : get_table(r, fields, base, err);
}

void state_save_parts(struct wire_writer *w, const struct state_part *parts, unsigned n)
{
	wire_put_u16(w, (uint16_t)n);
	for (unsigned i = 0; i < n; i++) {
		state_put_name(w, parts[i].name);
		state_save(w, parts[i].fields, parts[i].base);
	}
}

static int get_parts(struct wire_reader *r, const struct state_part *parts, unsigned n, bool apply,
		     struct error *err)
{
	uint16_t count = wire_get_u16(r);

	if (count != n)
		return error_set(err, -EBADMSG, "saved state has %u parts, not %u", count, n);
	for (unsigned i = 0; i < n; i++) {
		int ret = state_get_name(r, parts[i].name, err);

		if (!ret)
			ret = get_table(r, parts[i].fields, apply ? parts[i].base : NULL, err);
		if (ret)
			return error_prefix(err, ret, "%s", parts[i].name);
	}
	return 0;
}

int state_restore_parts(struct wire_reader *r, const struct state_part *parts, unsigned n,
			struct error *err)
{
	struct wire_reader check = *r;
	int ret = get_parts(&check, parts, n, false, err);

	return ret ? ret : get_parts(r, parts, n, true, err);
}

int state_check_parts(struct wire_reader *r, const struct state_part *parts, unsigned n,
		      struct error *err)
{
	return get_parts(r, parts, n, false, err);
}
