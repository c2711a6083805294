# SPDX-License-Identifier: Apache-2.0
"""Root's wispd with wisp-part and bare guests: see node-part.sh.

    node-part.py WISPD STATE CGROUPS HOMES
"""

import errno
import glob
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import stranger
from node_client import Client, Refused, refused

WISPD, STATE, CGROUPS, HOMES = sys.argv[1:]
USERS = {"ann": 7001, "bob": 7002}
VNI = 1 << 20 | os.getpid() * 4 & 0xfffff  # nobody else's on this machine
RUN = f"{os.getpid():08x}"  # likewise, of clusters
LU, CG = f"lu-{RUN}", f"cg-{RUN}"
DOCUMENT = "cpus: 1\nmemory: 64M\nvms-per-node: 2\ncmdline: [watch=8]\n"
OUTSIDE = bool(shutil.which("nft"))  # what a way out of a network takes
LEADS_OUT = DOCUMENT + "network: {isolated: no}\n"


def expect(what, got, wanted):
    if got != wanted:
        sys.exit(f"FAIL: {what}: got {got!r}, not {wanted!r}")


def until(what, condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"FAIL: {what} did not come about in {seconds} s")
        time.sleep(0.05)


def read(path):
    with open(path, encoding="utf-8", errors="replace") as f:
        return f.read()


def digest(text):
    closed = subprocess.run(["wisp", "env", "merge", "/dev/stdin"], input=text.encode(), stdout=subprocess.PIPE, check=True)
    return hashlib.sha256(closed.stdout.rstrip(b"\n")).hexdigest()


def make_home(name, uid):
    """With an image: the guest as a kernel, and nothing else that it would look at."""
    folder = f"{HOMES}/{name}/.local/share/wisp/images/bare"
    os.makedirs(folder)
    parts = {}
    for part in ("vmlinux", "vmlinuz", "initrd", "root.squashfs"):
        content = open(os.environ["GUEST"], "rb").read() if part == "vmlinux" else b"x" * 4096
        with open(f"{folder}/{part}", "wb") as out:
            out.write(content)
        parts[part] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    with open(f"{folder}/manifest.json", "w", encoding="ascii") as out:
        json.dump({"format": 1, "name": "bare", "parts": parts, "key": "0" * 64}, out)
    for where, folders, files in os.walk(f"{HOMES}/{name}"):
        for entry in [where] + [f"{where}/{f}" for f in folders + files]:
            os.chown(entry, uid, uid)


class Node(Client):
    def __init__(self, name, state=STATE):
        os.seteuid(USERS[name])
        try:
            super().__init__(f"{state}/socket")
        finally:
            os.seteuid(0)
        self.ask("session", session=f"the secret of {name} alone")

    def ask(self, op, seconds=60, **members):
        return super().ask(op, seconds, **members)["value"]


def start_daemon(name="n1", state=STATE):
    with open(f"{STATE}/../log", "ab") as log:
        process = subprocess.Popen([WISPD, "--state", state, "--name", name, "--grace", "20", *["--outside"][:state == STATE],
                                    "--cgroups", CGROUPS if state == STATE else "none",
                                    "--key", f"{STATE}/../key", "--listen", "127.0.0.1:0"], stderr=log)
    for _ in range(200):
        try:
            Node("ann", state).close()
            return process
        except OSError:
            time.sleep(0.05)
    sys.exit("FAIL: wispd does not answer")


def vmms():
    """pid by name of a VM."""
    found = {}
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            words = read(path).split("\0")
        except OSError:
            continue
        if words[0].endswith("/wisp-vmm") and STATE in "".join(words):
            found[next(w for w in words if w.startswith("--name="))[7:]] = int(path.split("/")[2])
    return found


def end_all():
    """Of our daemon alone: their environment says whose they are."""
    for path in glob.glob("/proc/[0-9]*/environ"):
        try:
            if f"WISP_RUN={STATE}/user/" in read(path):
                os.kill(int(path.split("/")[2]), signal.SIGKILL)
        except OSError:
            pass


def parts():
    found = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            if read(path).split("\0")[0] == os.environ["WISP_LIBEXECDIR"] + "/wisp-part":
                found.append(int(path.split("/")[2]))
        except OSError:
            pass
    return found


def reserve(node, cluster, document, n=2):
    name = cluster.split("-")[0]
    hosts = [{"name": f"{name}-{i}", "address": f"10.78.0.{2 + i}"} for i in range(n)]
    node.ask("reserve", cluster=cluster, documents=[{"name": "test", "text": document}], digest=digest(document), vms=hosts)
    return hosts


def up(node, cluster, vni, document=DOCUMENT, n=2):
    hosts = reserve(node, cluster, document, n)
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


def check_apart(clusters):
    """Nothing of one is the other's; what there was to reach, its owner reaches."""
    for owner, other in ("ann", "bob"), ("bob", "ann"):
        folder = f"{STATE}/user/{USERS[owner]}"
        there = stranger.things(folder, f"{STATE}/net/{clusters[owner]}")
        own, others = stranger.reach_as(owner, there), stranger.reach_as(other, there)
        print(f"{other} tried {others['tried']} ways to {owner}'s {len(there['paths'])} files and {len(there['pids'])} "
              f"processes; {owner} has {len(own['reached'])} of them", flush=True)
        expect(f"what {other} reaches of {owner}'s", others["reached"], [f"see {folder}"])
        for what in "read", "write", "list", "call", "signal", "memory of", "trace":
            if not any(r.startswith(what + " ") for r in own["reached"]):
                sys.exit(f"FAIL: {owner} can not {what} anything of {owner}'s: {own}")


def check_refused(other, cluster, vm):
    """Whatever the node is asked for a cluster of another user's, and with its network's number."""
    for op, members in {"network": {"vni": VNI, "subnet": "10.78.0.0/24", "nodes": ["127.0.0.1"]}, "image": {"digest": "0" * 64},
                        "start": {}, "restore": {"from": {}}, "pause": {}, "resume": {}, "stop": {"kill": True}, "release": {},
                        "save": {"step": "begin", "folder": "/tmp", "mode": "live"}, "send": {"vm": vm, "to": "tcp:127.0.0.1:1"},
                        "receive": {"vm": vm}, "connect": {"node": "n1", "vm": vm, "what": "agent", "stream": 1}}.items():
        refused(errno.EPERM, "another user's", lambda: other.ask(op, cluster=cluster, **members))
    listed = "".join(json.dumps(other.ask(op)) for op in ("list", "account", "metrics"))
    expect(f"{cluster} in what is told", cluster in listed or vm in listed, False)


def vcpus(pid):
    """{CPU that a vCPU may run on, and the one where it was last} of all its threads that are pinned to one."""
    allowed = set()
    for task in os.listdir(f"/proc/{pid}/task"):
        status = read(f"/proc/{pid}/task/{task}/status")
        cpus = re.search(r"Cpus_allowed_list:\s*(\S+)", status).group(1)
        if status.split(None, 2)[1].startswith("vcpu"):
            allowed |= {cpus, read(f"/proc/{pid}/task/{task}/stat").rsplit(")", 1)[1].split()[36]}
    return allowed


def check_cores(ann, bob):
    """Dedicated ones: where the vCPUs of both are while they compete, and who may have a third."""
    if os.cpu_count() < 2:
        return
    document = DOCUMENT + "dedicated: yes\n"
    up(ann, f"da-{RUN}", VNI + 2, document, 1)
    up(bob, f"db-{RUN}", VNI + 3, document, 1)
    running, seen = vmms(), {"da-0": set(), "db-0": set()}
    for _ in range(200):
        for name, cpus in seen.items():
            cpus |= vcpus(running[name])
        time.sleep(0.01)
    print("dedicated: " + ", ".join(f"{name} on CPU {' '.join(sorted(cpus))}" for name, cpus in seen.items()), flush=True)
    expect("CPUs of each VM of one vCPU", [len(cpus) for cpus in seen.values()], [1, 1])
    expect("shared CPUs", seen["da-0"] & seen["db-0"], set())
    if os.cpu_count() == 2:
        answer = refused(errno.EBUSY, "", lambda: up(bob, f"dc-{RUN}", VNI + 4, document, 1))
        expect("ann in what bob is told", any("ann" in str(m) or "7001" in str(m) for m in answer.get("missing", [])), True)
    ann.ask("release", cluster=f"da-{RUN}")
    bob.ask("release", cluster=f"db-{RUN}")


def main():
    with open(f"{STATE}/../key", "w", encoding="ascii") as out:
        os.chmod(out.fileno(), 0o600)
        out.write("k" * 32)
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
        print("apart", flush=True)
        check_refused(bob, LU, "lu-0")
        check_refused(ann, CG, "cg-0")
        refused(errno.EEXIST, "VXLAN number", lambda: up(bob, f"dc-{RUN}", VNI))
        bob.ask("release", cluster=f"dc-{RUN}")
        check_apart({"ann": LU, "bob": CG})

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
        check_cores(ann, bob)
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
