# SPDX-License-Identifier: Apache-2.0
"""Root's wispd with wisp-part and bare guests: see node-part.sh.

    node-part.py WISPD STATE CGROUPS HOMES
"""

import glob
import os
import re
import signal
import subprocess
import sys

from node_client import Refused
from node_users import (CGROUPS, DOCUMENT, LEADS_OUT, Node, OUTSIDE, RUN, STATE, USERS, VNI, digest, end_all, expect,
                        make_home, make_key, parts, read, reserve, start_daemon, until, vmms)

LU, CG = f"lu-{RUN}", f"cg-{RUN}"


def up(node, cluster, vni, document=DOCUMENT):
    hosts = reserve(node, cluster, document)
    node.ask("network", cluster=cluster, vni=vni, subnet="10.78.0.0/24", nodes=["127.0.0.1"])
    node.ask("start", cluster=cluster, hosts=hosts, image="bare", vms=[h["name"] for h in hosts])


def check_process(pid, vm, cluster, uid, groups):
    status = dict(line.split(":\t", 1) for line in read(f"/proc/{pid}/status").splitlines() if ":\t" in line)
    expect("user of " + vm, status["Uid"].split(), [str(uid)] * 4)
    expect("groups of " + vm, sorted(int(g) for g in status["Groups"].split()), groups)
    for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        expect(f"{kind} of {vm}", int(status[kind], 16), 0)
    expect("no_new_privs of " + vm, status["NoNewPrivs"].strip(), "1")
    expect("network of " + vm, os.stat(f"/proc/{pid}/ns/net").st_ino, os.stat(f"{STATE}/net/{cluster}").st_ino)
    if os.stat(f"/proc/{pid}/ns/pid").st_ino == os.stat("/proc/self/ns/pid").st_ino:
        sys.exit(f"FAIL: {vm} is in the node's PID namespace")
    for fd in os.listdir(f"/proc/{pid}/fd"):
        target = os.readlink(f"/proc/{pid}/fd/{fd}")
        if "node.db" in target or target.startswith("/etc/"):
            sys.exit(f"FAIL: {vm} has {target}")
    if CGROUPS != "none":
        expect("control group of " + vm, f"/job-{cluster}/vm-{vm}\n" in read(f"/proc/{pid}/cgroup"), True)


def ways_out():
    return [name for name in os.listdir("/proc/sys/net/ipv4/conf") if name.startswith("wispout")]


def check_way_out(pid, cluster):
    """Of a VM whose environment asked for one."""
    words = read(f"/proc/{pid}/cmdline")
    expect("gateway of " + cluster, re.findall(r"wisp.net=\S+?,\S+?/24,?(\S*)", words), ["10.78.0.1"] if cluster == CG else [""])
    devices = subprocess.run(["nsenter", f"--net={STATE}/net/{cluster}", "ls", "/proc/sys/net/ipv4/conf"],
                             stdout=subprocess.PIPE, check=True).stdout.decode().split()
    expect("way out of " + cluster, "out" in devices, cluster == CG)


def consoles():
    """Of a VM here and, by another node's daemon, as of one elsewhere; for its user alone."""
    port = re.findall(r"at 127.0.0.1 port (\d+)", read(f"{STATE}/../log"))[-1]
    process = start_daemon("n0", STATE + "-n0")
    try:
        for state, node in (STATE, "n1"), (STATE + "-n0", f"n1@127.0.0.1:{port}"):
            client = Node("ann", state)
            client.open(1, node=node, cluster=LU, vm="lu-0", what="console")
            client.wait(lambda: sum(map(len, client.data[1])) > 100)
            client.write(1, b"")
            client.close()
            client = Node("bob", state)
            try:
                client.open(1, node=node, cluster=LU, vm="lu-0", what="console")
                sys.exit("FAIL: bob may see ann's console")
            except Refused as refused:
                expect("bob at ann's console", refused.errno, 1)
            client.close()
        client = Node("bob", STATE + "-n0")
        try:
            reserve(client, CG, LEADS_OUT)
            sys.exit("FAIL: a network leads out of a node whose administrator does not want that")
        except Refused as refused:
            expect("no --outside", (refused.errno, "--outside" in str(refused)), (1, True))
        client.close()
    finally:
        process.terminate()
        expect("n0's exit code", process.wait(20), 0)


def main():
    make_key()
    for name, uid in USERS.items():
        make_home(name, uid)
    process = start_daemon()
    try:
        print("two users' clusters", flush=True)
        ann, bob = Node("ann"), Node("bob")
        up(ann, LU, VNI, DOCUMENT)
        up(bob, CG, VNI + 1, LEADS_OUT if OUTSIDE else DOCUMENT)
        running = vmms()
        expect("VMs", sorted(running), ["cg-0", "cg-1", "lu-0", "lu-1"])
        check_process(running["lu-0"], "lu-0", LU, 7001, [7001, 7003, 7004])
        check_process(running["cg-1"], "cg-1", CG, 7002, [7002, 7004])
        if OUTSIDE:
            check_way_out(running["lu-0"], LU)
            check_way_out(running["cg-1"], CG)
            expect("ways out", len(ways_out()), 1)

        print("part and daemon are killed, VMs run on", flush=True)
        before = parts()
        expect("parts", len(before), 2)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        until("new parts", lambda: len([p for p in parts() if p not in before]) == 2)
        process.kill()
        process.wait()
        ann.close()
        bob.close()
        process = start_daemon()
        ann, bob = Node("ann"), Node("bob")
        expect("VMs", vmms(), running)
        expect("paused", sorted(ann.ask("pause", cluster=LU)), ["lu-0", "lu-1"])
        ann.ask("resume", cluster=LU)

        print("consoles, also from another node", flush=True)
        consoles()

        print("ends and records", flush=True)
        os.kill(running["lu-1"], signal.SIGKILL)
        expect("end", ann.event("vm-ended")[1]["vm"], "lu-1")
        ann.ask("stop", cluster=LU, kill=True)
        records = {r["vm"]: r for r in ann.ask("account")["records"] if r["ended"]}
        until("records", lambda: len([r for r in ann.ask("account")["records"] if r["ended"]]) == 2)
        records = {r["vm"]: r for r in ann.ask("account")["records"]}
        expect("others' records", "cg-0" in records, False)
        if not records["lu-0"]["exits"]:
            sys.exit(f"FAIL: no exits of a VM that prints: {records['lu-0']}")
        if CGROUPS != "none" and not records["lu-0"]["cpu_seconds"]:
            sys.exit(f"FAIL: no CPU time: {records['lu-0']}")
        ann.ask("release", cluster=LU)
        expect("VMs", sorted(vmms()), ["cg-0", "cg-1"])
        bob.ask("release", cluster=CG)
        expect("VMs", vmms(), {})
        expect("parts", parts(), [])
        expect("networks", os.listdir(f"{STATE}/net"), [])
        expect("ways out", ways_out(), [])
        expect("state", glob.glob(f"{STATE}/user/*/vm/*") + glob.glob(f"{STATE}/user/*/net/*"), [])
        expect("control groups", glob.glob(f"{CGROUPS}/wisp.slice/job-*-{RUN}"), [])
        ann.close()
        bob.close()
        process.terminate()
        expect("wispd's exit code", process.wait(20), 0)
    finally:
        if process.poll() is None:
            process.kill()
        end_all()


main()
