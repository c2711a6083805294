# SPDX-License-Identifier: Apache-2.0
"""Makes a virtual function of a node's NVMe disk, with queues of its own, and prints its address.

NVMe base specification 1.4c, 5.22 (Virtualization Management) and 8.5; the disk is QEMU's.
usage: nvme-function.py
"""

import fcntl
import glob
import os
import struct
import time

ADMIN_COMMAND = 0xC0484E41  # NVME_IOCTL_ADMIN_CMD
RESET = 0x4E44  # NVME_IOCTL_RESET
MANAGE = 0x1C
QUEUES, INTERRUPTS = 0, 1
PRIMARY_FLEXIBLE, ASSIGN, ONLINE = 1, 8, 9
FUNCTION = 1  # the id of its controller


def manage(fd, controller, resource, action, number):
    # opcode, flags, nsid, ..., cdw10 is the 11th dword (linux/nvme_ioctl.h)
    command = bytearray(72)
    struct.pack_into("<B", command, 0, MANAGE)
    struct.pack_into("<II", command, 40, action | resource << 8 | controller << 16, number)
    status = fcntl.ioctl(fd, ADMIN_COMMAND, command)
    if status:
        raise SystemExit(f"controller {controller}, resource {resource}, action {action}: status {status:#x}")


def write(path, text):
    with open(path, "w", encoding="ascii") as f:
        f.write(text)


def main():
    device = os.path.realpath("/sys/class/nvme/nvme0/device")
    fd = os.open("/dev/nvme0", os.O_RDWR)
    for resource in (QUEUES, INTERRUPTS):
        manage(fd, 0, resource, PRIMARY_FLEXIBLE, 0)
    fcntl.ioctl(fd, RESET)
    write(f"{device}/sriov_drivers_autoprobe", "0")
    write(f"{device}/sriov_numvfs", "1")
    for resource, number in ((QUEUES, 2), (INTERRUPTS, 1)):
        manage(fd, FUNCTION, resource, ASSIGN, number)
    manage(fd, FUNCTION, 0, ONLINE, 0)
    for _ in range(100):
        if glob.glob("/dev/nvme0n1"):
            break
        time.sleep(0.1)
    print(os.path.basename(os.path.realpath(f"{device}/virtfn0")))


if __name__ == "__main__":
    main()
