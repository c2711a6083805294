/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client of the control socket that sends anything. Each of its lines gets one answer, which is
 * JSON and says either ok or why not, as long as it stays connected.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/error.h"
#include "lib/io.h"
#include "lib/jsonline.h"
#include "vmm/config.h"
#include "vmm/control.h"
#include "vmm/dev/power.h"
#include "vmm/dev/serial.h"
#include "vmm/test/guest-driver.h"

#define INPUT_MAX 8192

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_answers(int fd, bool to_console)
{
	struct jsonline line = {0};
	int r;

	while ((r = jsonline_read(&line, fd, 1 << 20)) > 0) {
		json_t *answer = NULL;
		struct error err;

		r = jsonline_take(&line, &answer, &err);
		if (r == -EBADMSG && to_console)
			break; /* what the console sends is no JSON */
		guest_require(!r);
		guest_require(json_integer_value(json_object_get(answer, "version")) == 1);
		if (json_is_false(json_object_get(answer, "ok")))
			guest_require(json_string_length(
				json_object_get(json_object_get(answer, "error"), "text")));
		else
			guest_require(json_object_get(answer, "result"));
		json_decref(answer);
	}
	jsonline_done(&line);
}

static void run_client(struct guest *g, const char *path, const uint8_t *data, size_t size)
{
	int fd = io_unix_connect_nonblock(path, NULL);

	guest_require(fd >= 0);
	guest_run(g);
	if (io_write_full(fd, data, size))
		size = 0;
	guest_run(g);
	check_answers(fd, memmem(data, size, "console", 7));
	close(fd);
	guest_run(g);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct guest g;
	struct vm_config config = {.serial = "none"};
	char path[64];
	struct control *control;
	struct error err;

	guest_create(&g);
	g.vm.config = &config;
	log_init(&g.vm.log, "fuzz", -1, LOG_WARN);
	snprintf(path, sizeof(path), "/tmp/wisp-fuzz-control-%d", (int)getpid());
	guest_require(!serial_create(&g.vm, "none", &err) && !power_create(&g.vm, &err));
	guest_require(!control_create(&g.vm, path, &control, &err));
	run_client(&g, path, data, size < INPUT_MAX ? size : INPUT_MAX);
	run_client(&g, path, (const uint8_t *)"{\"command\":\"status\"}\n", 21);
	control_destroy(control);
	guest_destroy(&g);
	return 0;
}
