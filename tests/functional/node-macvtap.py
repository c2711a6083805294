# SPDX-License-Identifier: Apache-2.0
"""Clusters on the nodes' own network: see node-macvtap.sh.

    node-macvtap.py WISPD STATE CGROUPS HOMES
"""

import ctypes
import errno
import fcntl
import glob
import os
import select
import signal
import struct
import subprocess
import sys
import time

from node_client import refused
from node_users import DOCUMENT, RUN, STATE, USERS, VNI, Node, digest, end_all, expect, make_home, make_key, start_daemon, until, vmms

STATES = [STATE, STATE + "-n1"]
LU, MO = f"lu-{RUN}", f"mo-{RUN}"
HEADER = 12
SIOCSIFHWADDR, TUNSETVNETHDRSZ = 0x8924, 0x400454D8
IN_OTHER = ["unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh"]


def ip(*words, pid=None):
    inside = ["nsenter", f"--net=/proc/{pid}/ns/net"] if pid else []
    return subprocess.run([*inside, "ip", *words], stderr=subprocess.STDOUT, stdout=subprocess.PIPE, check=False, text=True)


def has(*words):
    """Whether the kernel makes such a device."""
    made = ip("link", "add", *words)
    ip("link", "del", "probe")
    return made.returncode == 0


class Bench:
    """Two nodes; with VLANs where the kernel has them."""

    def __init__(self, vlans):
        self.option = [f"--macvtap=node{place}{':100-109' * vlans}" for place in (0, 1)]
        self.vlans = vlans
        self.daemons = [None, None]
        self.nodes = {}

    def start(self, place, *more):
        before = IN_OTHER if place else []
        self.daemons[place] = start_daemon(f"n{place}", STATES[place], before, more or [self.option[place]])
        if place and ip("link", "show", "node1").returncode == 0:
            pid = str(self.daemons[1].pid)
            ip("link", "set", "node1", "netns", pid)
            for words in (("addr", "add", "192.168.50.2/24", "dev", "node1"), ("link", "set", "node1", "up")):
                expect("node1", ip(*words, pid=pid).returncode, 0)
        for user in USERS:
            self.nodes[user, place] = Node(user, STATES[place])

    def stop(self, place, kill=False):
        for user in USERS:
            self.nodes[user, place].close()
        daemon = self.daemons[place]
        daemon.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        code = daemon.wait(20)
        if not kill:
            expect("wispd's exit code", code, 0)

    def document(self, vlan):
        return DOCUMENT + "network: {kind: macvtap" + (f", vlan: {vlan}" if vlan else "") + "}\n"

    def reserve(self, user, place, cluster, vlan, vms=None):
        document = self.document(vlan)
        vms = vms or [host(cluster, place)]
        self.nodes[user, place].ask("reserve", cluster=cluster, documents=[{"name": "test", "text": document}], digest=digest(document), vms=vms)

    def network(self, user, place, cluster):
        self.nodes[user, place].ask("network", cluster=cluster, vni=VNI + (cluster == MO), subnet="10.78.0.0/24",
                                    nodes=[f"192.168.50.{1 + place}", f"192.168.50.{2 - place}"])

    def up(self, user, place, cluster, vlan):
        self.reserve(user, place, cluster, vlan)
        self.network(user, place, cluster)
        self.nodes[user, place].ask("start", cluster=cluster, image="bare", hosts=[host(cluster, 0), host(cluster, 1)], vms=[host(cluster, place)["name"]])

    def release(self, user, place, cluster):
        self.nodes[user, place].ask("release", cluster=cluster)


def host(cluster, place):
    return {"name": f"{cluster.split('-')[0]}-{place}", "address": f"10.78.0.{2 + place}"}


class Tap:
    """What a wisp-vmm has, as its device uses it."""

    def __init__(self, pid):
        found = [fd for fd in os.listdir(f"/proc/{pid}/fd") if os.readlink(f"/proc/{pid}/fd/{fd}") == "/tap"]
        if not found:
            sys.exit(f"FAIL: no macvtap among the descriptors of process {pid}")
        pidfd = os.pidfd_open(pid)
        self.fd = ctypes.CDLL(None, use_errno=True).syscall(438, pidfd, int(found[0]), 0)
        os.close(pidfd)
        fcntl.ioctl(self.fd, TUNSETVNETHDRSZ, struct.pack("i", HEADER))

    def claim(self, last):
        """Where the guest has a driver wisp-vmm does."""
        fcntl.ioctl(self.fd, SIOCSIFHWADDR, b"\0" * 16 + struct.pack("H6B", 1, 2, 0x57, 10, 78, 0, last) + b"\0" * 16)

    def say(self, last, to=None):
        mac = bytes((2, 0x57, 10, 78, 0))
        os.write(self.fd, bytes(HEADER) + (mac + bytes([to]) if to else b"\xff" * 6) + mac + bytes([last]) + b"\x88\xb5" + bytes(46))

    def hears(self, last, seconds=0.5):
        end, heard = time.monotonic() + seconds, False
        while not heard and select.select([self.fd], [], [], max(0, end - time.monotonic()))[0]:
            frame = os.read(self.fd, 2048)[HEADER:]
            heard = frame[12:14] == b"\x88\xb5" and frame[11] == last
        return heard


def pid_of(place, name):
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            words = open(path, encoding="utf-8", errors="replace").read().split("\0")
            environ = open(path[:-7] + "environ", encoding="utf-8", errors="replace").read()
        except OSError:
            continue
        if words[0].endswith("/wisp-vmm") and f"--name={name}" in words and f"WISP_RUN={STATES[place]}/user/" in environ:
            return int(path.split("/")[2])
    return None


def keepers():
    found = []
    for path in glob.glob("/proc/[0-9]*/comm"):
        try:
            if open(path, encoding="ascii").read() == "wisp-keeper\n" and f"WISP_RUN={STATE}" in open(path[:-4] + "environ", encoding="utf-8", errors="replace").read():
                found.append(int(path.split("/")[2]))
        except OSError:
            pass
    return found


def nothing_left(b, place):
    """No network, and nothing uses the interface: a bridge could have it, which one with a macvtap refuses."""
    pid = b.daemons[place].pid
    expect("networks", os.listdir(f"{STATES[place]}/net"), [])
    ip("link", "add", "probe", "type", "bridge", pid=pid)
    until("an interface without users", lambda: ip("link", "set", f"node{place}", "master", "probe", pid=pid).returncode == 0)
    ip("link", "del", "probe", pid=pid)
    if b.vlans:
        expect("the VLAN", ip("link", "add", "link", f"node{place}", "name", "probe", "type", "vlan", "id", "100", pid=pid).returncode, 0)
        ip("link", "del", "probe", pid=pid)
    expect("state", glob.glob(f"{STATES[place]}/user/*/vm/*") + glob.glob(f"{STATES[place]}/user/*/net/*"), [])


def check_refused(b):
    print("refused", flush=True)
    b.start(0, "--grace=20")
    refused(errno.EPERM, "has not started wispd with --macvtap", lambda: b.reserve("ann", 0, LU, 100))
    b.stop(0)
    b.start(0, "--macvtap=nowhere" + ":100-109" * b.vlans)
    b.reserve("ann", 0, LU, 100 * b.vlans)
    refused(errno.ENODEV, "no interface nowhere", lambda: b.network("ann", 0, LU))
    b.release("ann", 0, LU)
    nothing_left(b, 0)
    b.stop(0)
    b.start(0)
    if b.vlans:
        refused(errno.EPERM, "network.vlan is missing", lambda: b.reserve("ann", 0, LU, 0))
        refused(errno.EPERM, "110 is not allowed on n0, which has 100 to 109", lambda: b.reserve("ann", 0, LU, 110))
    else:
        refused(errno.EPERM, "in no VLAN", lambda: b.reserve("ann", 0, LU, 100))
    for option in "", ":1", "node0:", "node0:0", "node0:2-1", "node0:1-4095", "node0:x", "node0:1x", "n" * 16:
        expect(f"--macvtap={option}", subprocess.run([sys.argv[1], f"--macvtap={option}"], stderr=subprocess.DEVNULL, check=False).returncode, 2)


def check_talk(b):
    print("two nodes, two machines of one cluster", flush=True)
    for place in (0, 1):
        b.up("ann", place, LU, 100 * b.vlans)
    taps = [Tap(pid_of(place, f"lu-{place}")) for place in (0, 1)]
    for place in (0, 1):
        taps[place].claim(2 + place)
    taps[0].say(2)
    expect("heard by all", taps[1].hears(2), True)
    taps[1].say(3, to=2)
    expect("heard by one", taps[0].hears(3), True)
    # What was made stays as it is when it is asked for again, and so does what a machine has.
    b.network("ann", 0, LU)
    taps[1].say(3, to=2)
    expect("heard again", taps[0].hears(3), True)
    if b.vlans:
        print("another cluster, another VLAN", flush=True)
        b.reserve("bob", 0, MO, 100)
        refused(errno.EBUSY, "VLAN 100 of node0 is in use", lambda: b.network("bob", 0, MO))
        b.release("bob", 0, MO)
        for place in (0, 1):
            b.up("bob", place, MO, 101)
        others = [Tap(pid_of(place, f"mo-{place}")) for place in (0, 1)]
        for place in (0, 1):
            others[place].claim(2 + place)
        taps[0].say(2)
        taps[0].say(2, to=3)
        expect("heard in another VLAN", [tap.hears(2) for tap in others], [False, False])
        expect("heard in its own", taps[1].hears(2), True)
        for tap in others:
            os.close(tap.fd)
        for place in (0, 1):
            b.release("bob", place, MO)
    return taps


def check_move(b, taps):
    print("a machine moves", flush=True)
    for tap in taps:
        os.close(tap.fd)
    b.reserve("ann", 1, LU, 100 * b.vlans, [host(LU, 0)])
    b.network("ann", 1, LU)
    source, target, token = b.nodes["ann", 0], b.nodes["ann", 1], os.urandom(32).hex()
    receive = target.begin("receive", cluster=LU, vm="lu-0", image="bare", hosts=[host(LU, 0), host(LU, 1)], token=token, listen="192.168.50.2", ready=False)
    listening = target.event("progress")[1]["listening"]
    source.ask("send", cluster=LU, vm="lu-0", target=listening, token=token)
    target.finish(receive)
    tap, other = Tap(pid_of(1, "lu-0")), Tap(pid_of(1, "lu-1"))
    # The address is free at the old node: a machine on the cable's other end is not heard there.
    tap.claim(2)
    other.say(3, to=2)
    expect("heard by who moved", tap.hears(3), True)
    os.close(tap.fd)
    os.close(other.fd)
    b.release("ann", 0, LU)
    nothing_left(b, 0)
    b.release("ann", 1, LU)
    nothing_left(b, 1)


def check_killed(b):
    print("killed", flush=True)
    for what in "VMM", "keeper", "wispd":
        b.up("ann", 0, LU, 100 * b.vlans)
        if what == "VMM":
            os.kill(pid_of(0, "lu-0"), signal.SIGKILL)
            b.nodes["ann", 0].event("vm-ended")
        elif what == "keeper":
            for pid in keepers():
                os.kill(pid, signal.SIGKILL)
            b.nodes["ann", 0].event("vm-ended")
        else:
            b.stop(0, kill=True)
            b.start(0)
            os.close(Tap(pid_of(0, "lu-0")).fd)
        b.release("ann", 0, LU)
        nothing_left(b, 0)
    # The helper dies with its daemon, wherever it is.
    for delay in 0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1:
        b.reserve("ann", 0, LU, 100 * b.vlans)
        b.nodes["ann", 0].begin("network", cluster=LU, vni=VNI, subnet="10.78.0.0/24", nodes=["192.168.50.1", "192.168.50.2"])
        time.sleep(delay)
        b.stop(0, kill=True)
        b.start(0)
        b.release("ann", 0, LU)
        until("its end", lambda: not keepers())
        nothing_left(b, 0)


def run(vlans):
    b = Bench(vlans)
    try:
        check_refused(b)
        b.start(1)
        check_move(b, check_talk(b))
        check_killed(b)
        for place in (0, 1):
            b.stop(place)
        expect("VMs", vmms(), {})
        expect("keepers", keepers(), [])
    finally:
        for daemon in b.daemons:
            if daemon and daemon.poll() is None:
                daemon.kill()
        end_all()


def main():
    expect("a cable", ip("link", "add", "node0", "type", "veth", "peer", "name", "node1").returncode, 0)
    ip("addr", "add", "192.168.50.1/24", "dev", "node0")
    ip("link", "set", "node0", "up")
    if not has("link", "node0", "name", "probe", "type", "macvtap"):
        print("SKIP: the kernel of this machine has no macvtap")
        sys.exit(77)
    vlans = has("link", "node0", "name", "probe", "type", "vlan", "id", "9")
    if not vlans:
        print("the kernel of this machine has no VLANs: without")
    make_key()
    for name, uid in USERS.items():
        make_home(name, uid)
    run(vlans)


main()
