/* SPDX-License-Identifier: Apache-2.0 */
/* JSON records in the state directories of VMs. */

#include "vms/record.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

#define RECORD_MAX (1u << 20)

char *record_path(const char *dir, const char *file)
{
	return io_format("%s/%s", dir, file);
}

int record_read(const char *dir, const char *record, json_t **ret, struct error *err)
{
	CLEANUP_FREE char *path = record_path(dir, record);
	CLEANUP_FREE char *text = NULL;
	ssize_t n = path ? io_read_file(path, RECORD_MAX, &text, err) : -ENOMEM;
	json_t *value;

	if (n < 0)
		return (int)n;
	value = json_loadb(text, (size_t)n, JSON_REJECT_DUPLICATES, NULL);
	if (!json_is_object(value)) {
		json_decref(value);
		return error_set(err, -EBADMSG, "%s is not a JSON object", path);
	}
	*ret = value;
	return 0;
}

int record_write(const char *dir, const char *record, const json_t *value, struct error *err)
{
	CLEANUP_FREE char *path = record_path(dir, record);
	CLEANUP_FREE char *text = json_dumps(value, JSON_INDENT(2));

	if (!path || !text)
		return error_errno(err, -ENOMEM, "cannot write %s", record);
	return io_write_file(path, text, strlen(text), err);
}

int record_exists(const char *dir, const char *file)
{
	CLEANUP_FREE char *path = record_path(dir, file);

	return path && !access(path, F_OK);
}

const char *record_text(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}
