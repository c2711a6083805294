# SPDX-License-Identifier: Apache-2.0
"""Clusters of two users on one node, from their reservation to their end: see node-cluster.sh.

    node-cluster.py WISPD STATE CGROUPS
"""

import glob
import hashlib
import os
import signal
import socket
import subprocess
import sys
import time

from node_client import Client, Refused

WISPD, STATE, CGROUPS = sys.argv[1:]
ANN, BOB = 1, 5  # daemon and games: users that every Debian has
VNI = 1 << 20 | os.getpid() * 4 & 0xfffff  # nobody else's on this machine
RUN = f"{os.getpid():08x}"  # likewise, of clusters
LU, CG = f"lu-{RUN}", f"cg-{RUN}"
DOCUMENT = "vms: 4\ncpus: 1\nmemory: 64M\nvms-per-node: 4\ndedicated: yes\n"
SECRET = "a secret of sixteen bytes or more"
GRACE = 3


def say(text):
    print(text, flush=True)


def until(what, condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"FAIL: {what} did not come about in {seconds} s")
        time.sleep(0.05)


def expect(what, got, wanted):
    if got != wanted:
        sys.exit(f"FAIL: {what}: got {got!r}, not {wanted!r}")


def refuse(code, text, function, *args, **members):
    try:
        function(*args, **members)
    except Refused as refused:
        if refused.errno != code or text not in str(refused):
            sys.exit(f"FAIL: refused with {refused.errno} ({refused}), not {code} ({text})")
        return
    sys.exit(f"FAIL: not refused: {args} {members}")


def digest(text):
    """Of the environment that a document comes to."""
    closed = subprocess.run(["wisp", "env", "merge", "/dev/stdin"], input=text.encode(), stdout=subprocess.PIPE, check=True)
    return hashlib.sha256(closed.stdout.rstrip(b"\n")).hexdigest()


DIGEST = digest(DOCUMENT)


class Node(Client):
    """A client that is any user; answers are their values alone."""

    def __init__(self, path, uid=0):
        os.seteuid(uid)
        try:
            super().__init__(path)
        finally:
            os.seteuid(0)

    def answer(self, request):
        return self.finish(request)["value"]

    def ask(self, op, seconds=30, **members):
        return super().ask(op, seconds, **members)["value"]

    def event(self, name, vm=None):
        while True:
            message = super().event(name)[1]
            if vm in (None, message["vm"]):
                return message


class Daemon:
    """Root's, or a user's own."""

    def __init__(self, uid=0, state=STATE):
        self.process, self.uid, self.state = None, uid, state
        self.start()

    def start(self):
        command = [WISPD, "--state", self.state, "--name", "n1", "--topology", "pack:1 core:4 pu:2", "--grace", str(GRACE)]
        if not self.uid:
            command += ["--cgroups", CGROUPS, "--metrics", f"{STATE}/metrics"]
        with open(f"{STATE}/../log", "ab") as log:
            self.process = subprocess.Popen(command, stderr=log, user=self.uid or None, group=self.uid or None,
                                            env={**os.environ, "WISP_RUN": f"{STATE}/user/{self.uid}", "HOME": self.state} if self.uid else None)
        until("wispd", self.answers)

    def answers(self):
        try:
            Node(f"{self.state}/socket").close()
            return True
        except OSError:
            return False

    def kill(self):
        self.process.kill()
        self.process.wait()

    def end(self):
        self.process.terminate()
        expect("wispd's exit code", self.process.wait(20), 0)


def user(uid, secret=SECRET, state=STATE):
    node = Node(f"{state}/socket", uid)
    node.ask("session", session=secret + str(uid))
    return node


def reserve(node, cluster, first, n=2):
    name = cluster.rsplit("-", 1)[0]
    vms = [{"name": f"{name}-{i}", "address": f"10.78.0.{first + i}"} for i in range(n)]
    return node.ask("reserve", cluster=cluster, documents=[{"name": "test", "text": DOCUMENT}], digest=DIGEST, vms=vms)


def network(node, cluster, vni):
    node.ask("network", cluster=cluster, vni=vni, subnet="10.78.0.0/24", nodes=["127.0.0.1"])


def dir_of(uid, vm):
    return f"{STATE}/user/{uid}/vm/{vm}"


def pid_of(uid, vm):
    with open(dir_of(uid, vm) + "/pid", encoding="ascii") as f:
        return int(f.read())


def lives(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat", encoding="ascii") as f:
        return f.read().rsplit(")", 1)[1].split()[0] != "Z"


def group(cluster):
    return f"{CGROUPS}/wisp.slice/job-{cluster}"


def processes(cluster):
    """All in the cluster's control group."""
    found = []
    for procs in glob.glob(group(cluster) + "/**/cgroup.procs", recursive=True):
        with open(procs, encoding="ascii") as f:
            found += [int(line) for line in f]
    return found


def parts():
    """Of our daemons alone: their environment says whose they are."""
    found = {}
    for path in glob.glob("/proc/[0-9]*/environ"):
        try:
            with open(path, "rb") as f:
                environment = f.read().split(b"\0")
            if f"WISP_RUN={STATE}/user/".encode() in b"\0".join(environment):
                with open(os.path.dirname(path) + "/comm", encoding="ascii") as f:
                    found[int(path.split("/")[2])] = f.read().strip()
        except OSError:
            pass
    return found


def nothing_left(cluster=None):
    expect("networks", [] if cluster is None else os.path.exists(f"{STATE}/net/{cluster}"),
           os.listdir(f"{STATE}/net") if cluster is None else False)
    if CGROUPS != "none":
        expect("control groups", glob.glob(group(cluster or "*-" + RUN)), [])
    if cluster is None:
        expect("processes", parts(), {})
        for uid in (ANN, BOB):
            for kind in ("vm", "net"):
                expect(f"{kind} of {uid}", glob.glob(f"{STATE}/user/{uid}/{kind}/*"), [])
            expect(f"logs of {uid}", glob.glob(f"{STATE}/user/{uid}/*.log"), [])


def up(node, cluster, first, vni):
    name = cluster.rsplit("-", 1)[0]
    reserve(node, cluster, first)
    network(node, cluster, vni)
    node.ask("start", cluster=cluster, vms=[f"{name}-0", f"{name}-1"])
    node.event("ready", f"{name}-1")


def test_two_users(daemon):
    say("two users, each with a cluster; neither touches the other's")
    ann, bob = user(ANN), user(BOB)
    reserve(ann, LU, 2)
    refuse(11, "\"network\" comes first", ann.ask, "start", cluster=LU, vms=["lu-0"])
    network(ann, LU, VNI)
    reserve(bob, CG, 2)
    refuse(17, f"VXLAN number {VNI}", network, bob, CG, VNI)
    network(bob, CG, VNI + 1)
    network(bob, CG, VNI + 1)
    refuse(17, "another network", network, bob, CG, VNI + 2)
    for node, cluster, vms in ((ann, LU, ["lu-0", "lu-1"]), (bob, CG, ["cg-0", "cg-1"])):
        node.ask("start", cluster=cluster, vms=vms)
        expect("ready", node.event("ready", vms[0])["cluster"], cluster)
    for op in ("start", "stop", "pause", "save", "network", "release", "image"):
        refuse(1, "another user's", bob.ask, op, cluster=LU, vms=["lu-0"])
    refuse(2, "no resources", bob.ask, "start", cluster="no-00000003", vms=["no-0"])
    refuse(16, "runs already", ann.ask, "start", cluster=LU, vms=["lu-0"])
    for uid, vm in ((ANN, "lu-0"), (BOB, "cg-0")):
        expect("user of " + vm, os.stat(f"/proc/{pid_of(uid, vm)}").st_uid, uid)
        if CGROUPS != "none":
            with open(f"/proc/{pid_of(uid, vm)}/cgroup", encoding="ascii") as f:
                expect("group of " + vm, f"/vm-{vm}\n" in f.read(), True)
    expect("processes", sorted(parts().values()), sorted(["wisp-keeper", "wisp-part", "stand-in-vm", "stand-in-vm"] * 2))
    states = {c["cluster"]: c["state"] for c in Node(f"{STATE}/socket").ask("list", all=True)["clusters"]}
    expect("states", states, {LU: "running", CG: "running"})

    text = ann.ask("metrics")["text"]
    expect("metrics", (f'cluster_vms{{cluster="{LU}",user="1"}} 2' in text, CG in text), (True, False))

    with socket.socket(socket.AF_UNIX) as http:
        http.connect(f"{STATE}/metrics")
        http.sendall(b"GET /metrics HTTP/1.1\r\nHost: n1\r\n\r\n")
        served = http.makefile().read()
    expect("metrics of all", ("200 OK" in served, "wisp_cluster_vms" in served, CG in served), (True, True, True))

    say("a VM ends: what it had is free, and it was accounted")
    os.kill(pid_of(ANN, "lu-1"), signal.SIGKILL)
    expect("end", ann.event("vm-ended", "lu-1")["end"]["reason"], "killed")
    expect("VMs", [v["name"] for v in ann.ask("list")["clusters"][0]["vms"]], ["lu-0"])
    record = [r for r in ann.ask("account")["records"] if r["vm"] == "lu-1"][0]
    expect("record", (record["how"], record["cpus"], record["cores"]), ("killed", 1, 1))
    expect("other record", [r["ended"] for r in ann.ask("account")["records"] if r["vm"] == "lu-0"], [None])

    say("stopped and released; twice is once")
    ann.ask("stop", cluster=LU)
    ann.event("vm-ended", "lu-0")
    record = [r for r in ann.ask("account")["records"] if r["vm"] == "lu-0"][0]
    expect("what its VMM counted", (record["exits"], record["bytes"]), (1000, 4096))
    if CGROUPS != "none" and not 0 < record["cpu_seconds"] < 60:
        sys.exit(f"FAIL: CPU time of a VM: {record}")
    ann.ask("release", cluster=LU)
    ann.ask("release", cluster=LU)
    nothing_left(LU)
    expect("bob's VM", lives(pid_of(BOB, "cg-0")), True)
    first, second = bob.begin("release", cluster=CG), bob.begin("release", cluster=CG)
    refuse(108, "being ended", bob.ask, "start", cluster=CG, vms=["cg-0"])
    bob.answer(first)
    bob.answer(second)
    nothing_left()
    ann.close()
    bob.close()


def test_part_killed(daemon):
    say("a part that is killed is started again, and knows its VMs")
    ann = user(ANN)
    up(ann, LU, 2, VNI)
    for _ in range(3):
        part = [pid for pid, name in parts().items() if name == "wisp-part"]
        expect("parts", len(part), 1)
        vm = pid_of(ANN, "lu-0")
        os.kill(part[0], signal.SIGKILL)
        until("another part", lambda old=part[0]: [p for p, n in parts().items() if n == "wisp-part" and p != old])
        expect("VM", lives(vm), True)
    ann.ask("pause", cluster=LU)
    os.kill(pid_of(ANN, "lu-0"), signal.SIGKILL)
    expect("end", ann.event("vm-ended", "lu-0")["cluster"], LU)

    say("the user kills everything: it is released all the same")
    for pid in parts():
        os.kill(pid, signal.SIGKILL)
    ann.ask("release", cluster=LU)
    nothing_left()
    ann.close()


def test_daemon_killed(daemon):
    say("wispd is killed at every step: its next one finds what is there, or ends it")
    steps = ["reserve", "network", "start", "running", "release"]
    for number, step in enumerate(steps):
        for delay in (0, 0.02, 0.1):
            cluster = f"k{number}-{RUN}"
            ann = user(ANN)
            if step == "reserve":
                reserve(ann, cluster, 2)
            elif step == "network":
                reserve(ann, cluster, 2)
                ann.begin("network", cluster=cluster, vni=VNI + 3, subnet="10.78.0.0/24", nodes=["127.0.0.1"])
            elif step == "start":
                reserve(ann, cluster, 2)
                network(ann, cluster, VNI + 3)
                ann.begin("start", cluster=cluster, vms=[f"k{number}-0"])
            else:
                up(ann, cluster, 2, VNI + 3)
            if step == "release":
                ann.begin("release", cluster=cluster)
            time.sleep(delay)
            daemon.kill()
            ann.close()
            daemon.start()
            if step == "running":
                ann = user(ANN)
                expect("state", ann.ask("list")["clusters"][0]["state"], "running")
                ann.ask("pause", cluster=cluster)
                os.kill(pid_of(ANN, f"k{number}-0"), signal.SIGKILL)
                ann.event("vm-ended", f"k{number}-0")
                ann.close()
            # Nobody comes back: the grace time ends it.
            root = Node(f"{STATE}/socket")
            until(f"the end after {step}", lambda node=root: not node.ask("list", all=True)["clusters"])
            root.close()
            nothing_left()


def test_lost(daemon):
    say("VMs that ended while no daemon ran are released, and their cluster with them")
    ann = user(ANN)
    up(ann, LU, 2, VNI)
    daemon.kill()
    os.kill(pid_of(ANN, "lu-0"), signal.SIGKILL)
    for pid, name in parts().items():
        if name == "wisp-keeper":
            os.kill(pid, signal.SIGKILL)
    daemon.start()
    ann.close()
    ann = user(ANN)
    expect("VMs", [v["name"] for v in ann.ask("list")["clusters"][0]["vms"]], ["lu-1"])
    records = {r["vm"]: r["how"] for r in ann.ask("account", cluster=LU)["records"] if not r["how"] == "released"}
    expect("record", records.get("lu-0"), "lost")
    ann.ask("release", cluster=LU)
    nothing_left()
    ann.close()


def test_sweeper_killed(daemon):
    say("what sweeps the rests of a cluster as its user is killed, and runs once more")
    libexec = os.environ["WISP_LIBEXECDIR"]
    os.makedirs(f"{libexec}/real")
    os.rename(f"{libexec}/wisp-keeper", f"{libexec}/real/wisp-keeper")
    os.mkdir(f"{libexec}/mark")
    os.chmod(f"{libexec}/mark", 0o1777)
    with open(f"{libexec}/wisp-keeper", "w", encoding="utf-8") as f:
        f.write(f'#!/bin/sh\n[ "$1" != end ] || ! mkdir {libexec}/mark/killed || kill -KILL $$\nexec {libexec}/real/wisp-keeper "$@"\n')
        os.fchmod(f.fileno(), 0o755)
    ann = user(ANN)
    up(ann, LU, 2, VNI)
    ann.ask("release", cluster=LU)
    nothing_left()
    ann.close()
    expect("who was killed", os.listdir(f"{libexec}/mark"), ["killed"])
    os.rename(f"{libexec}/real/wisp-keeper", f"{libexec}/wisp-keeper")


def linked(cluster):
    """Other nodes that the cluster's network here leads to."""
    shown = subprocess.run(["nsenter", f"--net={STATE}/net/{cluster}", "bridge", "fdb", "show"], stdout=subprocess.PIPE, text=True,
                           check=True)
    return sorted({line.split(" dst ")[1].split()[0] for line in shown.stdout.splitlines() if " dst " in line})


def test_all_at_once(daemon):
    say("who is asked for a network with all others finds its own address by its place")
    cluster = f"all-{RUN}"
    ann = user(ANN)
    reserve(ann, cluster, 2)
    ann.ask("join", session=SECRET + str(ANN), place=4, nodes=[ann.node], fan=16)

    def ask(nodes, places, subnet="10.78.0.0/24"):
        answer = Client.ask(ann, "network", cluster=cluster, vni=VNI + 3, subnet=subnet, nodes=nodes, places=places)
        return answer["errors"].get(4, {}).get("error", "")

    for nodes, places, reason in ((["127.0.0.1-127.0.0.3"], "0-1,3", "not this one's (4)"), (["127.0.0.1-127.0.0.3"], "0,4", "not those"),
                                  (["127.0.0.3-127.0.0.1"], "0,3-4", "FIRST-LAST"), (["127.0.0.1-x"], "4", "FIRST-LAST"),
                                  (["10.0.0.0-10.255.255.255"], "4", "more than"), (["127.0.0.1"], "x", "places")):
        got = ask(nodes, places)
        if reason not in got:
            sys.exit(f"FAIL: {nodes} of {places}: {got!r}, not {reason!r}")
    got = ask(["127.0.0.1"], "4", "10.0.0.0/8")
    expect("of another subnet", "the environment's is 10.78.0.0/24" in got and got, got)
    expect("network", ask(["127.0.0.1-127.0.0.3", "127.0.1.9"], "0,3-4,7"), "")
    expect("links", linked(cluster), ["127.0.0.1", "127.0.0.2", "127.0.1.9"])
    got = ask(["127.0.0.1", "127.1.0.0-127.1.255.254"], "4-65539")
    expect("too many, one after the other", "at most 65536 nodes" in got and got, got)
    expect("again", ask(["127.0.0.1-127.0.0.4", "127.0.1.9"], "0,3-4,6-7"), "")
    expect("links", linked(cluster), ["127.0.0.1", "127.0.0.2", "127.0.0.4", "127.0.1.9"])
    ann.ask("release", cluster=cluster)
    nothing_left(cluster)
    ann.close()


def test_own():
    say("a user's own daemon: one node, no root anywhere")
    state = f"{STATE}/user/{ANN}/own"
    os.makedirs(state)
    os.chown(state, ANN, ANN)
    daemon = Daemon(ANN, state)
    try:
        ann = user(ANN, state=state)
        reserve(ann, LU, 2)
        refuse(1, "needs root's wispd", ann.ask, "network", cluster=LU, vni=7, subnet="10.78.0.0/24",
               nodes=["127.0.0.1", "127.0.0.2"])
        network(ann, LU, VNI)
        ann.ask("start", cluster=LU)
        ann.event("ready", "lu-1")
        vm = pid_of(ANN, "lu-0")
        daemon.kill()
        ann.close()
        daemon.start()
        ann = user(ANN, state=state)
        expect("state", ann.ask("list")["clusters"][0]["state"], "running")
        expect("VM", lives(vm), True)
        ann.ask("release", cluster=LU)
        expect("VM", lives(vm), False)
        expect("clusters", ann.ask("list")["clusters"], [])
        expect("state directories", os.listdir(f"{STATE}/user/{ANN}/vm"), [])
        ann.close()
        daemon.end()
    finally:
        if daemon.process.poll() is None:
            daemon.kill()


def main():
    daemon = Daemon()
    try:
        for test in (test_two_users, test_part_killed, test_daemon_killed, test_lost, test_sweeper_killed, test_all_at_once):
            test(daemon)
        daemon.end()
        test_own()
    finally:
        if daemon.process.poll() is None:
            daemon.kill()
        else:
            say(f"wispd ended with {daemon.process.returncode}")
        for pid in parts():
            os.kill(pid, signal.SIGKILL)


main()
