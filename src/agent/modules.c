/* SPDX-License-Identifier: Apache-2.0 */
/* Loads kernel modules: all of a list, or those whose device is there. */

#include "agent/modules.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/log.h"

#define DEVICES "/sys/bus/pci/devices"

/* A file of sysfs with one hexadecimal number, or -1. */
static long read_number(const char *folder, const char *device, const char *file)
{
	CLEANUP_FREE char *path = io_format("%s/%s/%s", folder, device, file);
	CLEANUP_FREE char *text = NULL;

	if (!path || io_read_file(path, 64, &text, NULL) < 0)
		return -1;
	return strtol(text, NULL, 16);
}

bool init_has_device(const char *folder, const char *id)
{
	CLEANUP_DIR DIR *dir = opendir(folder);
	unsigned vendor, device;
	struct dirent *e;

	if (!dir || sscanf(id, "%4x:%4x", &vendor, &device) != 2)
		return false;
	while ((e = readdir(dir)))
		if (e->d_name[0] != '.' && read_number(folder, e->d_name, "vendor") == vendor &&
		    read_number(folder, e->d_name, "device") == device)
			return true;
	return false;
}

static void load_module(const struct log *log, const char *path)
{
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		log_warn(log, "init", "cannot open module %s: %s", path, strerror(errno));
	else if (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST)
		log_warn(log, "init", "cannot load module %s: %s", path,
			 errno == ENOENT ? "unknown symbol (list the modules it needs before it)"
					 : strerror(errno));
}

/* In the order of the list; what is loaded or built in already is fine. */
void init_load_modules(const struct log *log, const char *list)
{
	CLEANUP_FREE char *text = NULL;
	struct error err;
	char *rest, *line;
	ssize_t n = io_read_file(list, 65536, &text, &err);

	if (n < 0) {
		if (n != -ENOENT)
			log_warn(log, "init", "%s", err.text);
		return;
	}
	rest = text;
	while ((line = strsep(&rest, "\n"))) {
		char *device = strchr(line, ' ');

		if (device)
			*device++ = 0;
		if (*line && *line != '#' && (!device || init_has_device(DEVICES, device)))
			load_module(log, line);
	}
}
