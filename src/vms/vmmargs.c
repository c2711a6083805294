/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of wisp-vmm. */

#include "vms/vmmargs.h"

#include <errno.h>
#include <string.h>

#include "lib/args.h"
#include "lib/error.h"
#include "vms/record.h"

/*
 * The kernel cuts its command line at 2048 bytes: names that do not fit come when the agent
 * answers, like those of VMs that start later.
 */
#define HOSTS_MAX 1024

/* Options that are passed on under their own names when they are there. */
static const char *const passed_on[] = {"cpus",	     "memory",	"page-size", "pin",
					"cpu-model", "irqchip", "log-level", NULL};

/* The cipher tests of each boot take a tenth of it, and the kernel's packager has run them. */
#define CMDLINE "console=ttyS0 quiet panic=-1 cryptomgr.notests"

static void add_cmdline(const json_t *config, const char *hosts, struct args *args)
{
	args_add(args, "--cmdline");
	args_add(args, CMDLINE " wisp.root=/dev/vda wisp.name=%s", record_text(config, "name"));
	args_extend(args, " wisp.net=%s,%s/%lld", record_text(config, "mac"),
		    record_text(config, "address"),
		    (long long)json_integer_value(json_object_get(config, "prefix")));
	if (*record_text(config, "gateway"))
		args_extend(args, ",%s", record_text(config, "gateway"));
	if (*record_text(config, "dns"))
		args_extend(args, " wisp.dns=%s", record_text(config, "dns"));
	if (strlen(hosts) <= HOSTS_MAX)
		args_extend(args, " wisp.hosts=%s", hosts);
	if (*record_text(config, "cmdline"))
		args_extend(args, " %s", record_text(config, "cmdline"));
}

/* wisp-vmm separates keys by commas and has no way to write one inside a path. */
static int add_disk(const char *path, const char *name, int readonly, struct args *args,
		    struct error *err)
{
	if (strchr(path, ','))
		return error_set(err, -EINVAL, "disk \"%s\": a comma in the path is not possible",
				 path);
	args_add(args, "--device");
	args_add(args, "block,path=%s%s", path, readonly ? ",readonly" : "");
	/* By that the agent finds it: what virtio has room for. */
	if (*name)
		args_extend(args, ",serial=%.20s", name);
	return 0;
}

int vmm_args(const json_t *config, const char *program, const char *dir, const char *hosts,
	     bool incoming, struct args *args, struct error *err)
{
	const json_t *disk, *share, *device;
	size_t i;
	int r;

	if (strchr(dir, ','))
		return error_set(err, -EINVAL, "%s: a comma in the path is not possible", dir);
	args_add(args, "%s", program);
	args_add(args, "--name=%s", record_text(config, "name"));
	if (incoming) {
		args_add(args, "--incoming");
	} else {
		args_add(args, "--kernel=%s", record_text(config, "kernel"));
		args_add(args, "--initrd=%s", record_text(config, "initrd"));
		add_cmdline(config, hosts, args);
	}
	for (i = 0; passed_on[i]; i++)
		if (*record_text(config, passed_on[i]))
			args_add(args, "--%s=%s", passed_on[i], record_text(config, passed_on[i]));
	if (json_is_true(json_object_get(config, "prefault")))
		args_add(args, "--prefault");
	/* The keeper restarts it instead, so that it then knows the network as it is. */
	args_add(args, "--on-reboot=exit");
	args_add(args, "--control=%s/" VM_CONTROL, dir);
	args_add(args, "--serial=file=%s/" VM_CONSOLE, dir);
	r = add_disk(record_text(config, "root"), "", 1, args, err);
	json_array_foreach (json_object_get(config, "disks"), i, disk)
		if (!r)
			r = add_disk(record_text(disk, "path"), record_text(disk, "name"),
				     json_is_true(json_object_get(disk, "readonly")), args, err);
	args_add(args, "--device=net,fd=%d,mac=%s,vhost=%s", VMM_FD_TAP, record_text(config, "mac"),
		 record_text(config, "vhost"));
	args_add(args, "--device=vsock,cid=3,path=%s/" VM_VSOCK, dir);
	args_add(args, "--device=rng");
	json_array_foreach (json_object_get(config, "shares"), i, share)
		args_add(args, "--device=fs,tag=%s,fd=%d", record_text(share, "tag"),
			 VMM_FD_SHARE + (int)i);
	json_array_foreach (json_object_get(config, "devices"), i, device)
		args_add(args, "--device=vfio,host=%s", json_string_value(device));
	return r;
}
