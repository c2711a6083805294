/* SPDX-License-Identifier: Apache-2.0 */
/* Connections to the agent of a VM. */

#include "vms/agent.h"

#include <errno.h>

#include "agent/client.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"
#include "vms/record.h"

char *vm_agent_address(const char *dir)
{
	return io_format("vsock:%s/" VM_VSOCK, dir);
}

int vm_agent_connect(const char *dir, struct error *err)
{
	CLEANUP_FREE char *address = vm_agent_address(dir);

	return address ? client_connect(address, err) : error_errno(err, -ENOMEM, "agent");
}
