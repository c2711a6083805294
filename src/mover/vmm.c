/* SPDX-License-Identifier: Apache-2.0 */
/* The mover's side of a VMM's control socket. */

#include "mover/vmm.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

#define PATIENCE_S 120 /* a save waits for requests of disks */
#define ANSWER_MAX (1u << 20)

int vmm_connect(const char *path, struct vmm *ret, struct error *err)
{
	struct timeval limit = {.tv_sec = PATIENCE_S};
	int fd = io_unix_connect(path, err);

	if (fd < 0)
		return fd;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	*ret = (struct vmm){.fd = fd};
	return 0;
}

void vmm_close(struct vmm *vmm)
{
	jsonline_done(&vmm->line);
	cleanup_close_fd(&vmm->fd);
	vmm->fd = -1;
}

static int receive(struct vmm *vmm, const char *command, json_t **ret, struct error *err)
{
	int rc;

	do {
		/* With a time limit 0 means either: some bytes, or none in time. */
		uint64_t start = io_now_ns();

		rc = jsonline_receive(&vmm->line, vmm->fd, ANSWER_MAX);
		if (rc == 0 && io_now_ns() - start > (uint64_t)(PATIENCE_S - 1) * 1000000000)
			rc = -ETIMEDOUT;
	} while (rc == 0);
	if (rc < 0)
		return error_errno(err, rc, "wisp-vmm does not answer \"%s\"", command);
	return jsonline_take(&vmm->line, ret, err);
}

static int check(const json_t *answer, const char *command, json_t **ret, struct error *err)
{
	const json_t *reason = json_object_get(answer, "error");
	const char *text = json_string_value(json_object_get(reason, "text"));
	json_int_t code = json_integer_value(json_object_get(reason, "errno"));

	if (!json_is_true(json_object_get(answer, "ok")))
		return error_set(err, code > 0 && code < 4096 ? -(int)code : -EREMOTEIO,
				 "wisp-vmm refuses \"%s\": %s", command, text ? text : "?");
	if (ret)
		*ret = json_incref(json_object_get(answer, "result"));
	return 0;
}

int vmm_call(struct vmm *vmm, const char *command, json_t *args, int pass, json_t **ret,
	     struct error *err)
{
	json_t *request = args ? args : json_object(), *answer = NULL;
	int rc;

	json_object_set_new(request, "command", json_string(command));
	rc = jsonline_write_fd(vmm->fd, request, pass);
	json_decref(request);
	vmm->lost = rc < 0;
	if (rc < 0)
		return error_errno(err, rc, "cannot ask wisp-vmm to \"%s\"", command);
	rc = receive(vmm, command, &answer, err);
	vmm->lost = rc < 0;
	if (rc == 0)
		rc = check(answer, command, ret, err);
	json_decref(answer);
	return rc;
}

int vmm_memory(struct vmm *vmm, struct vmm_memory *ret, struct error *err)
{
	CLEANUP_CLOSE int fd = -1;
	json_t *result = NULL;
	struct stat st;
	int rc = vmm_call(vmm, "memory", NULL, -1, &result, err);

	if (rc < 0)
		return rc;
	fd = jsonline_take_fd(&vmm->line);
	ret->size = (uint64_t)json_integer_value(json_object_get(result, "size"));
	ret->page_size = (uint64_t)json_integer_value(json_object_get(result, "page_size"));
	json_decref(result);
	if (fd < 0 || fstat(fd, &st) < 0 || (uint64_t)st.st_size < ret->size || !ret->size)
		return error_set(err, -EPROTO,
				 "wisp-vmm did not hand over %" PRIu64 " bytes of memory",
				 ret->size);
	ret->fd = take_fd(&fd);
	return 0;
}
