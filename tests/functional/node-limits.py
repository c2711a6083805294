# SPDX-License-Identifier: Apache-2.0
"""Clusters in control groups of a real kernel: see node-limits.sh.

    node-limits.py WISPD STATE
"""

import hashlib
import os
import signal
import subprocess
import sys
import time

from node_client import Client

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
        expect("where the VM runs", read(f"/proc/{vm}/status").split("Cpus_allowed_list:\t")[1].split()[0], mine)

        print("what was used is in the record, and all is given back", flush=True)
        os.kill(int(vm), signal.SIGKILL)
        bob.event("vm-ended", 30)
        record = bob.ask("account")["records"][0]
        expect("record", (record["how"], record["cores"]), ("killed", 1))
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
