/* SPDX-License-Identifier: Apache-2.0 */
/* The note that an epoch was restored. */

#include "mover/restored.h"

#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/io.h"

#define NOTE_MAX 4096

static char *note_path(const struct store *store, uint64_t epoch)
{
	return io_format("%s/.restored-%" PRIu64, store->path, epoch);
}

uint64_t restored_before(const struct store *store, const struct manifest *epoch,
			 char last[RESTORED_DATE])
{
	CLEANUP_FREE char *path = note_path(store, epoch->epoch);
	CLEANUP_FREE char *text = NULL;
	const char *identity, *date;
	json_int_t times = 0;
	json_t *note;

	if (!path || io_read_file(path, NOTE_MAX, &text, NULL) < 0)
		return 0;
	note = json_loads(text, 0, NULL);
	identity = json_string_value(json_object_get(note, "identity"));
	date = json_string_value(json_object_get(note, "last"));
	/* It may be of another epoch that had this number. */
	if (identity && date && !strcmp(identity, epoch->identity)) {
		times = json_integer_value(json_object_get(note, "times"));
		snprintf(last, RESTORED_DATE, "%s", date);
	}
	json_decref(note);
	return times > 0 ? (uint64_t)times : 0;
}

void restored_note(const struct store *store, const struct manifest *epoch)
{
	/* One epoch may be restored many times at once; each counts. */
	CLEANUP_CLOSE int lock = open(store->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int locked __attribute__((unused)) = lock < 0 ? -1 : flock(lock, LOCK_EX);
	CLEANUP_FREE char *path = note_path(store, epoch->epoch);
	CLEANUP_FREE char *text = NULL;
	char last[RESTORED_DATE] = "";
	uint64_t times = restored_before(store, epoch, last);
	time_t now = time(NULL);
	struct tm tm;
	json_t *note;

	gmtime_r(&now, &tm);
	strftime(last, sizeof(last), "%Y-%m-%dT%H:%M:%SZ", &tm);
	note = json_pack("{s:s, s:I, s:s}", "identity", epoch->identity, "times",
			 (json_int_t)(times + 1), "last", last);
	text = json_dumps(note, JSON_INDENT(1));
	json_decref(note);
	if (path && text)
		io_write_file(path, text, strlen(text), NULL);
}

void restored_forget(const struct store *store, uint64_t epoch)
{
	CLEANUP_FREE char *path = note_path(store, epoch);

	if (path)
		unlink(path);
}
