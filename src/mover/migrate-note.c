/* SPDX-License-Identifier: Apache-2.0 */
/* The record of a hand-over. */

#include "mover/migrate-note.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

#define NOTE_MAX 65536

static const char *const names[NOTE_STATES] = {"prepared", "running", "aborted", "giving",
					       "given",	   "gone",    "back"};

static void to_hex(const uint8_t *bytes, size_t n, char *out)
{
	for (size_t i = 0; i < n; i++)
		snprintf(out + 2 * i, 3, "%02x", bytes[i]);
}

static bool from_hex(const char *text, uint8_t *out, size_t n)
{
	if (!text || strlen(text) != 2 * n || strspn(text, "0123456789abcdef") != 2 * n)
		return false;
	for (size_t i = 0; i < n; i++) {
		char two[3] = {text[2 * i], text[2 * i + 1], '\0'};

		out[i] = (uint8_t)strtoul(two, NULL, 16);
	}
	return true;
}

/* The name of a file is durable when its folder is. */
static int sync_folder(const char *path)
{
	CLEANUP_FREE char *copy = strdup(path);
	CLEANUP_CLOSE int fd = -1;

	if (!copy)
		return -ENOMEM;
	fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 || fsync(fd) ? -errno : 0;
}

static int replace(const char *path, const char *text)
{
	CLEANUP_FREE char *beside = io_format("%s.new", path);
	CLEANUP_CLOSE int fd = -1;
	int rc;

	if (!beside)
		return -ENOMEM;
	fd = open(beside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	rc = io_write_full(fd, text, strlen(text));
	if (rc == 0 && (fsync(fd) || rename(beside, path)))
		rc = -errno;
	return rc < 0 ? rc : sync_folder(path);
}

/* The path from the root; the socket itself need not be there. */
static int absolute(const char *path, char ret[NOTE_CONTROL], struct error *err)
{
	CLEANUP_FREE char *folder = path ? strdup(path) : NULL;
	CLEANUP_FREE char *real = folder ? realpath(dirname(folder), NULL) : NULL;
	const char *slash = path ? strrchr(path, '/') : NULL;

	if (!path) {
		*ret = '\0';
		return 0;
	}
	if (!real)
		return error_errno(err, -errno, "%s", path);
	if (snprintf(ret, NOTE_CONTROL, "%s/%s", strcmp(real, "/") ? real : "",
		     slash ? slash + 1 : path) >= NOTE_CONTROL)
		return error_set(err, -ENAMETOOLONG, "%s is too long a path", path);
	return 0;
}

int note_name(struct note *note, struct machine *vmm, const char *control, struct error *err)
{
	int rc = absolute(control, note->control, err);

	return rc < 0 ? rc : vmm->ops->name(vmm, note->vm, err);
}

int note_stale(const struct note *note, struct error *err)
{
	return error_set(err, -ESTALE,
			 "the record is about another VM, whose control socket is %.300s",
			 note->control);
}

int note_check(const struct note *note, struct machine *vmm, const char *control, struct error *err)
{
	char vm[MACHINE_NAME] = "", path[NOTE_CONTROL];
	int rc = vmm->ops->name(vmm, vm, err);
	bool same = rc == 0 && !strcmp(vm, note->vm);

	if (rc == -ENOTCONN) {
		rc = absolute(control, path, err);
		same = rc == 0 && !strcmp(path, note->control);
	}
	return rc < 0 || same ? rc : note_stale(note, err);
}

int note_write(const char *path, const struct note *note, struct error *err)
{
	char session[2 * SESSION_SIZE + 1], token[2 * TOKEN_SIZE + 1];
	CLEANUP_FREE char *text = NULL;
	json_t *root;
	int rc;

	to_hex(note->session, SESSION_SIZE, session);
	to_hex(note->token, TOKEN_SIZE, token);
	root = json_pack("{s:s,s:b,s:b,s:s,s:s,s:s,s:s,s:i}", "session", session, "rest",
			 note->rest, "told", note->told, "state", names[note->state], "token",
			 token, "vm", note->vm, "control", note->control, "version", 1);
	text = root ? json_dumps(root, JSON_INDENT(2) | JSON_SORT_KEYS) : NULL;
	json_decref(root);
	rc = text ? replace(path, text) : -ENOMEM;
	return rc < 0 ? error_errno(err, rc, "cannot record the hand-over in %s", path) : 0;
}

static bool copy_text(const json_t *root, const char *name, char *ret, size_t room)
{
	const char *text = json_string_value(json_object_get(root, name));

	return text && (size_t)snprintf(ret, room, "%s", text) < room;
}

static int parse(const json_t *root, struct note *ret)
{
	const char *session = json_string_value(json_object_get(root, "session"));
	const char *token = json_string_value(json_object_get(root, "token"));
	const char *state = json_string_value(json_object_get(root, "state"));
	struct note note;
	unsigned i = 0;

	while (i < NOTE_STATES && state && strcmp(state, names[i]))
		i++;
	if (json_integer_value(json_object_get(root, "version")) != 1 || !state ||
	    i == NOTE_STATES || !from_hex(session, note.session, SESSION_SIZE) ||
	    !from_hex(token, note.token, TOKEN_SIZE) ||
	    !copy_text(root, "vm", note.vm, sizeof(note.vm)) ||
	    !copy_text(root, "control", note.control, sizeof(note.control)))
		return -EBADMSG;
	note.state = (enum note_state)i;
	note.rest = json_is_true(json_object_get(root, "rest"));
	note.told = json_is_true(json_object_get(root, "told"));
	*ret = note;
	return 0;
}

int note_read(const char *path, struct note *ret, struct error *err)
{
	CLEANUP_FREE char *text = NULL;
	ssize_t n = io_read_file(path, NOTE_MAX, &text, err);
	json_t *root;
	int rc;

	if (n < 0)
		return (int)n;
	root = json_loadb(text, (size_t)n, 0, NULL);
	rc = parse(root, ret);
	json_decref(root);
	return rc < 0 ? error_set(err, rc, "%s is no record of a hand-over", path) : 0;
}
