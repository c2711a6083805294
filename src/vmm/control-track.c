/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands of the control socket for who follows a running VM: written pages, faults, speed. What
 * they start belongs to the connection and ends with it.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "vmm/call.h"
#include "vmm/dirty.h"
#include "vmm/throttle.h"
#include "vmm/userfault.h"
#include "vmm/vm.h"

#define TAG_MAX 256

#define HOLD_MAX_MS 86400000

int cmd_dirty_start(struct call *call, struct error *err)
{
	CLEANUP_CLOSE int fd = call_take_fd(call, "the bitmap", err);
	int r = fd < 0 ? fd : 0;

	if (!r && call->vm->userfault)
		r = error_set(err, -EBUSY, "the memory of this VM has not all come yet");
	if (!r)
		r = call_check_stays(call->vm, err);
	if (!r)
		r = dirty_start(call->vm, fd, call->owner, err);

	if (!r)
		json_object_set_new(call->result, "pages",
				    json_integer((json_int_t)dirty_pages(call->vm)));
	return r;
}

/* A member that is a number from 0, or fallback when it is not there. */
static int get_number(const json_t *args, const char *name, uint64_t fallback, uint64_t *ret,
		      struct error *err)
{
	const json_t *value = json_object_get(args, name);

	if (value && (!json_is_integer(value) || json_integer_value(value) < 0))
		return error_set(err, -EINVAL, "\"%s\" is no number from 0", name);
	*ret = value ? (uint64_t)json_integer_value(value) : fallback;
	return 0;
}

int cmd_dirty_collect(struct call *call, struct error *err)
{
	uint64_t first = 0, pages = 0, total = dirty_pages(call->vm);
	int64_t n;
	int r = get_number(call->args, "first_page", 0, &first, err);

	if (!r)
		r = get_number(call->args, "pages", first < total ? total - first : 0, &pages, err);
	if (r)
		return r;
	n = dirty_collect(call->vm, first, pages, err);
	if (n < 0)
		return (int)n;
	json_object_set_new(call->result, "pages", json_integer(n));
	return 0;
}

int cmd_dirty_stop(struct call *call, struct error *err)
{
	dirty_stop(call->vm);
	return 0;
}

static int get_tag(const json_t *args, const char **ret, struct error *err)
{
	*ret = json_string_value(json_object_get(args, "tag"));
	return *ret && **ret && strlen(*ret) <= TAG_MAX
		       ? 0
		       : error_set(err, -EINVAL, "\"tag\" is a text of 1 to %d bytes", TAG_MAX);
}

int cmd_dirty_keep(struct call *call, struct error *err)
{
	const char *tag;
	int r = get_tag(call->args, &tag, err);

	return r ? r : dirty_keep(call->vm, call->owner, tag, err);
}

int cmd_dirty_take(struct call *call, struct error *err)
{
	const char *tag;
	int r = get_tag(call->args, &tag, err);

	if (!r)
		r = dirty_take(call->vm, call->owner, tag, err);
	if (r < 0)
		return r;
	call->pass = r;
	return 0;
}

static int parse_modes(const json_t *args, unsigned *ret, struct error *err)
{
	static const char *const names[] = {"missing", "minor", "wp"};
	const json_t *modes = json_object_get(args, "modes");
	unsigned found = 0;

	for (size_t i = 0; i < json_array_size(modes); i++) {
		const char *text = json_string_value(json_array_get(modes, i));
		unsigned bit = 0;

		for (unsigned k = 0; text && k < ARRAY_SIZE(names); k++)
			if (!strcmp(text, names[k]))
				bit = 1u << k;
		if (!bit)
			return error_set(err, -EINVAL,
					 "\"modes\" has other than missing, minor, "
					 "wp");
		found |= bit;
	}
	if (!found)
		return error_set(err, -EINVAL, "userfault needs \"modes\": missing, minor, wp");
	*ret = found;
	return 0;
}

int cmd_userfault(struct call *call, struct error *err)
{
	unsigned modes = 0;
	uint64_t hold_ms = 0;
	int r = parse_modes(call->args, &modes, err);

	if (!r)
		r = get_number(call->args, "hold_ms", 0, &hold_ms, err);
	if (!r && hold_ms > HOLD_MAX_MS)
		r = error_set(err, -EINVAL, "\"hold_ms\" is %d at most", HOLD_MAX_MS);
	if (!r)
		r = userfault_start(call->vm, modes, call->fd, (unsigned)hold_ms, err);
	if (r < 0)
		return r;
	call->pass = r;
	call->close_pass = true;
	call_faults(call->vm, call->result);
	return 0;
}

int cmd_userfault_stop(struct call *call, struct error *err)
{
	userfault_stop(call->vm);
	return 0;
}

int cmd_throttle(struct call *call, struct error *err)
{
	const json_t *list = json_object_get(call->args, "vcpus");
	CLEANUP_FREE uint8_t *percent = calloc(call->vm->nvcpus ? call->vm->nvcpus : 1, 1);

	if (!percent)
		return error_errno(err, -ENOMEM, "throttle");
	if (json_array_size(list) != call->vm->nvcpus)
		return error_set(err, -EINVAL, "throttle needs \"vcpus\": %u numbers",
				 call->vm->nvcpus);
	for (unsigned i = 0; i < call->vm->nvcpus; i++) {
		const json_t *value = json_array_get(list, i);

		if (!json_is_integer(value) || json_integer_value(value) < 0 ||
		    json_integer_value(value) > THROTTLE_MAX)
			return error_set(err, -EINVAL, "vCPU %u: 0 to %d percent", i, THROTTLE_MAX);
		percent[i] = (uint8_t)json_integer_value(value);
	}
	return throttle_set(call->vm, percent, call->owner, err);
}

/* Memory that is still missing is no matter of this: userfault-watch.c has its own. */
void control_track_gone(struct vm *vm, const void *owner)
{
	if (dirty_owned_by(vm, owner))
		dirty_stop(vm);
	if (throttle_owned_by(vm, owner))
		throttle_stop(vm);
}
