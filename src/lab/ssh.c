/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys and servers for ssh between nodes. The server is Dropbear: Debian's package of it is a
 * program, while that of OpenSSH would start a server on this machine as well.
 */

#include "lab/ssh.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "lib/process.h"

/* $1: the lab's state directory. One key for the user and one for all servers. */
static const char make_script[] =
	"set -e\n"
	"umask 077\n"
	"mkdir \"$1/ssh\"\n"
	"cd \"$1/ssh\"\n"
	"ssh-keygen -q -t ed25519 -N '' -C wisp-lab -f user\n"
	"dropbearkey -t ed25519 -f host 2>/dev/null | sed -n 's/^ssh-/wisp-lab &/p' >known\n"
	"cat >client <<'END'\n"
	"Host node*\n"
	"	User root\n"
	"	IdentityFile /run/wisp-ssh/user\n"
	"	IdentitiesOnly yes\n"
	"	HostKeyAlias wisp-lab\n"
	"	CheckHostIP no\n"
	"	StrictHostKeyChecking yes\n"
	"	UserKnownHostsFile /run/wisp-ssh/known\n"
	"	GlobalKnownHostsFile /dev/null\n"
	"	LogLevel ERROR\n"
	"END\n"
	"tar -cf ../ssh.tar *\n"
	"rm -r ../ssh\n";

/* /root is this machine's, read-only below, and not for all who start labs. */
const char ssh_install_script[] =
	"set -e\n"
	"mkdir -m 700 /run/wisp-ssh\n"
	"tar -C /run/wisp-ssh --no-same-owner -xf -\n"
	"if ! mkdir -p /root/.ssh 2>/dev/null; then\n"
	"	mount -t tmpfs -o mode=700 tmpfs /root\n"
	"	mkdir /root/.ssh\n"
	"fi\n"
	"mount -t tmpfs -o mode=700 tmpfs /root/.ssh\n"
	"cp /run/wisp-ssh/user.pub /root/.ssh/authorized_keys\n"
	"mkdir -p /etc/ssh/ssh_config.d\n"
	"cp /run/wisp-ssh/client /etc/ssh/ssh_config.d/wisp-lab.conf\n"
	"chmod 644 /etc/ssh/ssh_config.d/wisp-lab.conf\n"
	"PATH=$PATH:/usr/sbin dropbear -s -r /run/wisp-ssh/host -P /run/wisp-ssh/pid\n";

int ssh_check(struct error *err)
{
	static const char *const programs[] = {"/usr/sbin/dropbear", "/usr/bin/dropbearkey",
					       "/usr/bin/ssh", "/usr/bin/ssh-keygen"};

	for (unsigned i = 0; i < ARRAY_SIZE(programs); i++)
		if (access(programs[i], X_OK) < 0)
			return error_set(err, -ENOENT,
					 "--ssh: %s is not installed: apt-get install dropbear-bin "
					 "openssh-client",
					 programs[i]);
	return 0;
}

int ssh_make_keys(const char *dir, struct error *err)
{
	const char *const argv[] = {"sh", "-c", make_script, "sh", dir, NULL};
	CLEANUP_FREE char *archive = io_format("%s/ssh.tar", dir);
	int fd, r = process_run(&(struct process){.argv = argv}, NULL, NULL, err);

	if (r || !archive)
		return error_prefix(err, r ? r : -ENOMEM, "cannot make keys for ssh");
	fd = open(archive, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? error_errno(err, -errno, "cannot open %s", archive) : fd;
}
