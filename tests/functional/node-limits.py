# SPDX-License-Identifier: Apache-2.0
"""Clusters in control groups of a real kernel: see node-limits.sh.

    node-limits.py WISPD STATE
"""

import errno
import hashlib
import os
import signal
import subprocess
import sys
import time

from node_client import Client, Refused

WISPD, STATE = sys.argv[1:]
BASE = "/sys/fs/cgroup"
MIB = 1 << 20
COMMON = "vms: 2\ncpus: 1\nmemory: 64M\nvms-per-node: 2\n"


def expect(what, got, wanted):
    if got != wanted:
        sys.exit(f"FAIL: {what}: got {got!r}, not {wanted!r}")


def digest(text):
    closed = subprocess.run(["wisp", "env", "merge", "/dev/stdin"], input=text.encode(), stdout=subprocess.PIPE, check=True)
    return hashlib.sha256(closed.stdout.rstrip(b"\n")).hexdigest()


def read(path):
    with open(path, encoding="ascii") as f:
        return f.read().strip()


def group(cluster, file):
    return read(f"{BASE}/wisp.slice/job-{cluster}/{file}")


class Node(Client):
    def ask(self, op, seconds=60, **members):
        return super().ask(op, seconds, **members)["value"]


def up(node, cluster, document, vni, n):
    name = cluster.split("-")[0]
    vms = [{"name": f"{name}-{i}", "address": f"10.78.0.{2 + i}"} for i in range(n)]
    grants = node.ask("reserve", cluster=cluster, documents=[{"name": "test", "text": document}], digest=digest(document),
                      vms=vms)["grants"]
    node.ask("network", cluster=cluster, vni=vni, subnet="10.78.0.0/24", nodes=["127.0.0.1"])
    node.ask("start", cluster=cluster)
    return grants


def write(file, text):
    with open(f"{BASE}/wisp.slice/{file}", "w", encoding="ascii") as f:
        f.write(text)


def until(what, done):
    end = time.monotonic() + 30
    while not done():
        if time.monotonic() > end:
            sys.exit(f"FAIL: {what}: not within 30 s")
        time.sleep(0.1)


def may_run(pid):
    """Its CPUs."""
    return read(f"/proc/{pid}/status").split("Cpus_allowed_list:\t")[1].split()[0]


def hide(node, uid, name, vm):
    """As its user: out of the VM's group, and without the lock that tells of it."""
    os.seteuid(uid)
    try:
        os.mkdir(f"{BASE}/wisp.slice/job-{name}-00000002/hidden")
        write(f"job-{name}-00000002/hidden/cgroup.procs", vm)
        os.unlink(f"{STATE}/user/{uid}/vm/{name}-0/lock")
    finally:
        os.seteuid(0)
    expect("its end", node.event("vm-ended", 30)[1]["vm"], f"{name}-0")


def connect(uid):
    os.seteuid(uid)
    try:
        return Node(f"{STATE}/socket")
    finally:
        os.seteuid(0)


def main():
    with open(f"{STATE}/../log", "ab") as log:
        process = subprocess.Popen([WISPD, "--state", STATE, "--name", "n1", "--housekeeping", "0"], stderr=log)
    try:
        for _ in range(300):
            if os.path.exists(f"{STATE}/socket"):
                break
            time.sleep(0.1)
        ann, bob = connect(1), connect(5)

        print("a shared cluster has what is there", flush=True)
        up(ann, "sh-00000001", COMMON, 4711, 2)
        expect("CPUs", group("sh-00000001", "cpuset.cpus"), "1-2")
        expect("memory", int(group("sh-00000001", "memory.max")), (2 * 64 + 2 + 2 * 128 + 256) * MIB)
        expect("processes", group("sh-00000001", "pids.max"), str(256 + 2 * 65))
        expect("a VM's group", len(group("sh-00000001", "vm-sh-0/cgroup.procs").split()), 1)
        expect("whose it is", os.stat(f"{BASE}/wisp.slice/job-sh-00000001/vm-sh-0").st_uid, 1)

        print("a dedicated one takes its cores from it, and gives them back", flush=True)
        grants = up(bob, "de-00000002", COMMON + "dedicated: yes\n", 4712, 1)
        mine = grants["de-0"]["cpus"]
        expect("CPUs", group("de-00000002", "cpuset.cpus"), mine)
        expect("partition", group("de-00000002", "cpuset.cpus.partition").split()[0] in ("isolated", "root"), True)
        if mine in group("sh-00000001", "cpuset.cpus.effective"):
            sys.exit("FAIL: the shared cluster still has the CPU: " + group("sh-00000001", "cpuset.cpus.effective"))
        vm = group("de-00000002", "vm-de-0/cgroup.procs")
        expect("where the VM runs", may_run(vm), mine)

        print("a VM whose user hides it has its cores no more", flush=True)
        hide(bob, 5, "de", vm)
        expect("where it runs now", may_run(vm), "1-2")
        expect("partition", group("de-00000002", "cpuset.cpus.partition"), "member")
        mine = up(ann, "dd-00000003", COMMON + "dedicated: yes\n", 4713, 1)["dd-0"]["cpus"]
        expect("partition", group("dd-00000003", "cpuset.cpus.partition").split()[0] in ("isolated", "root"), True)
        expect("where the hidden one runs", may_run(vm), "1" if mine == "2" else "2")
        ann.ask("release", cluster="dd-00000003")

        print("without a CPU that is left for it, it ends", flush=True)
        ann.ask("release", cluster="sh-00000001")
        up(ann, "dd-00000004", COMMON + "dedicated: yes\n", 4714, 2)
        expect("partition", group("dd-00000004", "cpuset.cpus.partition").split()[0] in ("isolated", "root"), True)
        until("the end of what was hidden", lambda: not os.path.exists(f"/proc/{vm}"))
        bob.ask("release", cluster="de-00000002")
        ann.ask("release", cluster="dd-00000004")

        print("who cannot have cores of his own does not start", flush=True)
        up(ann, "sh-00000001", COMMON, 4711, 1)
        os.mkdir(f"{BASE}/wisp.slice/foreign")
        write("foreign/cpuset.cpus", "1-2")
        bob.ask("reserve", cluster="de-00000002", documents=[{"name": "test", "text": COMMON + "dedicated: yes\n"}],
                digest=digest(COMMON + "dedicated: yes\n"), vms=[{"name": "de-0", "address": "10.78.0.2"}])
        bob.ask("network", cluster="de-00000002", vni=4712, subnet="10.78.0.0/24", nodes=["127.0.0.1"])
        try:
            bob.ask("start", cluster="de-00000002")
            sys.exit("FAIL: it starts with cores that it does not have alone")
        except Refused as refused:
            expect("refusal", (refused.errno, "are not de-00000002's alone" in str(refused)), (errno.EBUSY, True))
        os.rmdir(f"{BASE}/wisp.slice/foreign")
        bob.ask("start", cluster="de-00000002")
        vm = group("de-00000002", "vm-de-0/cgroup.procs")

        print("what was used is in the record, and all is given back", flush=True)
        os.kill(int(vm), signal.SIGKILL)
        bob.event("vm-ended", 30)
        hidden, record = sorted(bob.ask("account")["records"], key=lambda r: r["how"], reverse=True)
        expect("records", (hidden["how"], record["how"], record["cores"]), ("lost", "killed", 1))
        if not record["cpu_seconds"]:
            sys.exit(f"FAIL: no CPU time: {record}")
        bob.ask("release", cluster="de-00000002")
        expect("CPUs come back", group("sh-00000001", "cpuset.cpus"), "1-2")
        ann.ask("release", cluster="sh-00000001")
        expect("slice", os.path.exists(f"{BASE}/wisp.slice"), False)
        ann.close()
        bob.close()
        process.terminate()
        expect("wispd's exit code", process.wait(30), 0)
    finally:
        if process.poll() is None:
            process.kill()


main()
