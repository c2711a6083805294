#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Moves a Linux guest to another wisp-vmm: guest-save.py IMAGE DIRECTORY IRQCHIP CLOCK VHOST"""

import atexit
import hashlib
import os
import socket
import subprocess
import sys
import time

from vmm_client import Refused, Vmm, content, copy_memory, memfd
from vmm_bitmap import Bitmap, PAGE

IMAGE, TMP, IRQCHIP, CLOCK, VHOST = sys.argv[1:6]
CLIENT = os.environ["WISP_BUILD"] + "/tests/agent-client"
HOST, GUEST = "10.99.0.1", "10.99.0.2"
vmms = []


@atexit.register
def end_all():
    for process in vmms:
        process.kill()


class Machine:
    def __init__(self, number, *start):
        self.path, self.vsock = f"{TMP}/control{number}", f"{TMP}/vsock{number}"
        self.log = f"{TMP}/log{number}"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                ["wisp-vmm", *start, "-m", "256", "-c", "2", "--irqchip", IRQCHIP,
                 "--control", self.path, "-s", f"file={TMP}/serial{number}",
                 "-d", f"block,path={IMAGE}/root.squashfs,readonly", "-d", f"block,path={TMP}/disk",
                 "-d", f"net,tap=tap{number},mac=02:00:00:00:00:02,vhost={VHOST}",
                 "-d", f"vsock,cid=3,path={self.vsock}", "-d", "rng",
                 "-d", f"console,file={TMP}/hvc{number}"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        vmms.append(self.process)
        for _ in range(500):
            try:
                self.control = Vmm(self.path, 300)
                return
            except OSError:
                assert self.process.poll() is None, self.text()
                time.sleep(0.02)
        raise AssertionError("no control socket")

    def text(self):
        with open(self.log, "rb") as f:
            return f.read().decode(errors="replace")

    def agent(self, *args, data=None):
        p = subprocess.run([CLIENT, f"vsock:{self.vsock}", *args], input=data, timeout=200,
                           stdout=subprocess.PIPE, check=False)
        assert p.returncode == 0, f"{args}: exit code {p.returncode}, {self.text()}"
        return p.stdout.decode().strip()

    def sh(self, script, data=b""):
        return self.agent("exec", "sh", "-c", script, data=data)


def send_to_guest(data):
    for _ in range(50):
        try:
            with socket.create_connection((GUEST, 7000), 60) as s:
                s.sendall(data)
                return
        except ConnectionRefusedError:
            time.sleep(0.2)
    raise AssertionError("nobody listens in the guest")


def follow(m, target, data):
    """Copies memory to target while data arrives by the network; pauses and saves at last."""
    source, layout = m.control.memory()
    bitmap = Bitmap(layout["size"])
    m.control.ask("dirty-start", fd=bitmap.fd)
    m.control.ask("dirty-collect")
    bitmap.take()
    copy_memory(source, target)
    send_to_guest(data[:len(data) // 2])
    rounds = []
    for last in (False, False, True):
        if last:
            time.sleep(1)
            m.control.ask("pause")
            m.control.ask("save", fd=(blob := memfd()))
        m.control.ask("dirty-collect")
        dirty = bitmap.take()
        for page in dirty:
            os.pwrite(target, os.pread(source, PAGE, page * PAGE), page * PAGE)
        rounds.append(len(dirty))
    assert m.control.ask("dirty-collect")["pages"] == 0
    saved = os.pread(source, layout["size"], 0)
    assert saved == os.pread(target, layout["size"], 0), "the copy differs from the memory"
    print(f"pages of each round: {rounds}, {len(content(blob))} bytes of state")
    return blob


def main():
    data = os.urandom(4 << 20)
    digest = hashlib.sha256(data[:len(data) // 2]).hexdigest()
    m = Machine(1, "-k", f"{IMAGE}/vmlinux", "-i", f"{IMAGE}/initrd", "-a",
                "console=ttyS0 quiet panic=-1 cryptomgr.notests wisp.root=/dev/vda wisp.name=a "
                f"wisp.net=02:00:00:00:00:02,{GUEST}/24")
    m.agent("wait", "120000")
    print("vhost:", m.control.ask("stats")["devices"]["net0"]["vhost"])
    m.sh("mkfs.ext4 -q /dev/vdb && busybox mount /dev/vdb /mnt")
    # Writes, reads back and counts for ever.
    m.sh("""busybox setsid sh -c 'i=0; while :; do i=$((i+1))
        dd if=/dev/hwrng of=/tmp/x bs=4k count=16 2>/dev/null; cp /tmp/x /mnt/x$((i%8)); sync
        echo 1 >/proc/sys/vm/drop_caches
        cmp /tmp/x /mnt/x$((i%8)) || echo $i >>/tmp/bad; echo $i >/tmp/count; done' \
        </dev/null >/tmp/work.log 2>&1 &
        busybox setsid sh -c 'busybox nc -l -p 7000 >/tmp/net' </dev/null >/dev/null 2>&1 &""")
    time.sleep(2)
    target = memfd(size=256 << 20)
    uptime = float(m.sh("cut -d' ' -f1 /proc/uptime"))
    blob = follow(m, target, data)
    away = 5
    time.sleep(away)
    n = Machine(2, "--incoming")  # the disk is the saved VM's until it is given away
    memory, _ = n.control.memory()
    copy_memory(target, memory)
    n.control.ask("load", fd=blob, clock=CLOCK)
    n.control.ask("resume")
    try:
        m.control.ask("resume")
        raise AssertionError("both run, with one disk")
    except Refused as e:
        assert "is used by another process" in str(e), str(e)
    m.control.ask("stop")
    assert m.process.wait(30) == 0
    n.agent("wait", "60000")
    count = int(n.sh("cat /tmp/count"))
    later = float(n.sh("cut -d' ' -f1 /proc/uptime"))
    behind = time.time() - float(n.sh("date +%s.%N"))
    print(f"uptime {uptime} then {later}; the guest's clock is {behind:.1f} s behind")
    assert later > uptime
    if CLOCK == "elapsed":
        assert abs(behind) < 3, behind
    else:
        assert away - 1 < behind < away + 60, behind
    for _ in range(100):
        if int(n.sh("cat /tmp/count")) > count + 3:
            break
        time.sleep(0.5)
    else:
        raise AssertionError("the work does not go on")
    assert n.sh("cat /tmp/bad 2>/dev/null; true") == "", "data of the disk was lost"
    assert n.sh("sha256sum /tmp/net").split()[0] == digest, "data of the network was lost"
    n.sh(f"busybox ping -c 2 -w 30 {HOST} >/dev/null")
    n.sh("busybox setsid sh -c 'busybox nc -l -p 7000 >/tmp/net2' </dev/null >/dev/null 2>&1 &")
    send_to_guest(data)
    time.sleep(1)
    assert n.sh("sha256sum /tmp/net2").split()[0] == hashlib.sha256(data).hexdigest()
    n.sh("echo after >/dev/ttyS0; test $(head -c 4096 /dev/hwrng | wc -c) = 4096")
    with open(f"{TMP}/serial2", "rb") as f:
        assert b"after" in f.read()
    log = n.sh("dmesg -l emerg,alert,crit,err,warn | grep -iE 'stuck|stall|lockup|bug|hung' || true")
    assert not log, log
    n.control.ask("stop")
    assert n.process.wait(30) == 0


main()
