/* SPDX-License-Identifier: Apache-2.0 */
/* The ACPI power button, as the kernel's input layer reports it. */

#include "agent/agent.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/input.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "lib/cleanup.h"

struct button {
	struct agent *agent;
	int fd;
};

static void on_event(void *arg, uint32_t events)
{
	struct button *b = arg;
	struct input_event e;

	while (read(b->fd, &e, sizeof(e)) == sizeof(e))
		if (e.type == EV_KEY && e.code == KEY_POWER && e.value)
			shutdown_request(b->agent, SHUTDOWN_POWEROFF, NULL);
}

static bool has_power_key(int fd)
{
	uint8_t keys[KEY_MAX / 8 + 1] = {0};

	return ioctl(fd, EVIOCGBIT(EV_KEY, sizeof(keys)), keys) >= 0 &&
	       keys[KEY_POWER / 8] & (1 << KEY_POWER % 8);
}

/* The button lives as long as the machine. */
static bool button_add(struct agent *agent, int fd)
{
	struct button *b = has_power_key(fd) ? malloc(sizeof(*b)) : NULL;
	struct loop_source *source;

	if (!b)
		return false;
	*b = (struct button){.agent = agent, .fd = fd};
	if (!loop_add_fd(agent->loop, fd, EPOLLIN, on_event, b, &source))
		return true;
	free(b);
	return false;
}

void power_button_watch(struct agent *agent)
{
	CLEANUP_DIR DIR *dir = opendir("/dev/input");
	struct dirent *e;

	while (dir && (e = readdir(dir))) {
		int fd = strncmp(e->d_name, "event", 5)
				 ? -1
				 : openat(dirfd(dir), e->d_name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);

		if (fd >= 0 && !button_add(agent, fd))
			close(fd);
	}
}
