/* SPDX-License-Identifier: Apache-2.0 */
/* How a VM ended, in words. */

#include "vms/end.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/io.h"
#include "vms/record.h"

json_t *end_describe(int status, const char *said)
{
	static const struct {
		int code;
		const char *text;
	} codes[] = {{0, "powered off"},	 {1, "failed"},
		     {2, "could not start"},	 {EXIT_REBOOT, "rebooted"},
		     {11, "guest kernel panic"}, {12, "guest triple fault"},
		     {13, "hypervisor error"},	 {14, "memory lost"}};
	bool killed = WIFSIGNALED(status);
	int code = killed ? WTERMSIG(status) : WEXITSTATUS(status);
	CLEANUP_FREE char *text = NULL;

	for (unsigned i = 0; !killed && i < ARRAY_SIZE(codes); i++)
		if (codes[i].code == code)
			text = strdup(codes[i].text);
	if (!text)
		text = killed ? io_format("killed by signal %d (%s)", code, strsignal(code))
			      : io_format("wisp-vmm exited with %d", code);
	return json_pack("{ss, si, ss, sI}", "reason", text ? text : "ended",
			 killed ? "signal" : "code", code, "said", status && !killed ? said : "",
			 "time", (json_int_t)time(NULL));
}

/* The last line of the VMM's messages: why it failed, if it did. */
char *end_last_words(const char *dir)
{
	CLEANUP_FREE char *path = io_format("%s/" VM_LOG, dir);
	CLEANUP_CLOSE int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	char tail[512] = "", *line;
	struct stat st;
	ssize_t n = -1;

	if (fd >= 0 && !fstat(fd, &st))
		n = pread(fd, tail, sizeof(tail) - 1,
			  st.st_size > (off_t)sizeof(tail) - 1
				  ? st.st_size - (off_t)sizeof(tail) + 1
				  : 0);
	while (n > 0 && tail[n - 1] == '\n')
		tail[--n] = 0;
	line = n > 0 ? strrchr(tail, '\n') : NULL;
	line = line ? line + 1 : tail;
	for (char *c = line; *c; c++) /* JSON takes no broken UTF-8 */
		if (*c < ' ' || *c > '~')
			*c = '?';
	return strdup(line);
}
