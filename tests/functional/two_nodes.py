# SPDX-License-Identifier: Apache-2.0
"""Two nodes with root's wispd each, and what an ordinary user (ann) does there: for the tests of cluster-faults.sh, which say

    TEST.py WISPD FOLDER CGROUPS
"""

import contextlib
import glob
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time

from node_client import Client

WISPD, TMP, CGROUPS = sys.argv[1:4]
ANN, KVM = 7001, 7004
LIBEXEC = os.environ["WISP_LIBEXECDIR"]
GRACE = 4
READY = 25  # seconds for VMs to come up
NAME = f"f{os.getpid()}"  # nobody else's on this machine
STAGES = ["resolve", "reserve", "network", "start", "ready", "prepare"]


class Fault(Exception):
    """What there is at that moment is part of it."""

    def __init__(self, text):
        super().__init__(text)
        self.left = left() if all(n.answers() for n in NODES if n.process) else "?"


def say(text):
    print(text, flush=True)


def read(path):
    with open(path, encoding="utf-8", errors="replace") as f:
        return f.read()


def until(what, condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Fault(f"{what} did not come about in {seconds} s")
        time.sleep(0.02)


# -------- nodes --------

class Node:
    """Root's wispd of a node; the second one's is another network namespace."""

    def __init__(self, number):
        self.number, self.name, self.address = number, f"n{number}", f"10.99.0.{number + 1}"
        self.state, self.log = f"{TMP}/n{number}", f"{TMP}/n{number}.log"
        self.cgroups, self.space, self.process = CGROUPS if not number else "none", None, None
        self.options = []

    def start(self):
        enter = ["nsenter", f"--net=/proc/{self.space.pid}/ns/net"] if self.space else []
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [*enter, WISPD, "--state", self.state, "--name", self.name, "--grace", str(GRACE), "--cgroups", self.cgroups,
                 "--topology", "pack:1 numa:1 core:4 pu:2", "--key", f"{TMP}/key", "--listen", f"{self.address}:7450",
                 *self.options], stderr=log)
        until(f"wispd of {self.name}", self.answers, 20)

    def answers(self):
        try:
            Client(f"{self.state}/socket").close()
            return True
        except (OSError, EOFError):
            return False

    def dead(self):
        return self.process.poll() is not None


NODES = [Node(0), Node(1)]


def make_network():
    second = NODES[1]
    second.space = subprocess.Popen(["unshare", "--net", "setpriv", "--pdeathsig", "KILL", "sleep", "100000"])
    until("a network namespace", lambda: os.readlink(f"/proc/{second.space.pid}/ns/net") != os.readlink("/proc/self/ns/net"), 10)
    inside = ["nsenter", f"--net=/proc/{second.space.pid}/ns/net", "ip"]
    for command in (["ip", "link", "add", "to1", "type", "veth", "peer", "name", "to0", "netns", str(second.space.pid)],
                    ["ip", "addr", "add", "10.99.0.1/24", "dev", "to1"], ["ip", "link", "set", "to1", "up"],
                    [*inside, "addr", "add", "10.99.0.2/24", "dev", "to0"], [*inside, "link", "set", "to0", "up"],
                    [*inside, "link", "set", "lo", "up"]):
        subprocess.run(command, check=True)


def make_key():
    with open(f"{TMP}/key", "w", encoding="ascii") as out:
        os.chmod(out.fileno(), 0o600)
        out.write("k" * 32)


def make_home(documents):
    """With documents, NAME.yaml, and an image: the guest as a kernel, and nothing else that it would look at."""
    folder = f"{TMP}/ann/.local/share/wisp/images/bare"
    os.makedirs(folder)
    parts = {}
    for part in ("vmlinux", "vmlinuz", "initrd", "root.squashfs"):
        content = open(os.environ["GUEST"], "rb").read() if part == "vmlinux" else b"x" * 4096
        with open(f"{folder}/{part}", "wb") as out:
            out.write(content)
        parts[part] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    with open(f"{folder}/manifest.json", "w", encoding="ascii") as out:
        json.dump({"format": 1, "name": "bare", "parts": parts, "key": "0" * 64}, out)
    for name, document in documents.items():
        with open(f"{TMP}/ann/{name}.yaml", "w", encoding="ascii") as out:
            out.write(document)
    os.mkdir(f"{TMP}/run")
    for where, _, files in [*os.walk(f"{TMP}/ann"), (f"{TMP}/run", [], [])]:
        for entry in [where] + [f"{where}/{f}" for f in files]:
            os.chown(entry, ANN, ANN)


@contextlib.contextmanager
def two_nodes(documents):
    """They end in order, or in any way where something failed."""
    make_key()
    make_home(documents)
    try:
        make_network()
        for node in NODES:
            node.start()
        yield
        for node in NODES:
            node.process.terminate()
            if node.process.wait(20):
                sys.exit(f"FAIL: wispd of {node.name} ended with {node.process.returncode}")
    finally:
        for node in NODES:
            if node.process and not node.dead():
                node.process.kill()
        kill_all()
        for node in NODES:
            if node.space:
                node.space.kill()


# -------- processes --------

def processes(wanted=None):
    """pid -> (name, node) of all that was started for clusters; node None: of wisp run's side."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            comm = read(f"/proc/{pid}/comm").strip()
            if wanted and comm != wanted:
                continue
            environment, status = read(f"/proc/{pid}/environ"), read(f"/proc/{pid}/stat")
        except OSError:
            continue
        pid = int(pid)
        state, parent = status.rsplit(")", 1)[1].split()[:2]
        if f"WISP_LIBEXECDIR={LIBEXEC}" not in environment or state == "Z":
            continue
        node = next((n.number for n in NODES if f"WISP_RUN={n.state}/" in environment or n.process and int(parent) == n.process.pid), None)
        found[pid] = (comm, node)
    mine = {os.getpid(), *[n.process.pid for n in NODES if n.process], *[n.space.pid for n in NODES if n.space]}
    return {pid: what for pid, what in found.items() if pid not in mine and what[0] not in ("timeout", "sh", "unshare", "bare-lib.sh", "cluster-faults.") }


def kill_all():
    for pid in processes():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def left(nodes=None):
    """What is there of any cluster (at some nodes), as text; "": nothing."""
    what = [f"{comm} ({pid}) of {'node n%d' % node if node is not None else 'wisp run'}" for pid, (comm, node) in processes().items()
            if not nodes or node in [n.number for n in nodes]]
    for node in nodes or NODES:
        what += glob.glob(f"{node.state}/net/*") + glob.glob(f"{node.state}/user/*/vm/*") + glob.glob(f"{node.state}/user/*/net/*")
        what += glob.glob(f"{node.state}/user/*/*.log")
        client = Client(f"{node.state}/socket")
        what += [f"{c['cluster']} at {node.name}" for c in client.ask("list", all=True)["value"]["clusters"]]
        client.close()
        if node.cgroups != "none":
            what += glob.glob(f"{CGROUPS}/wisp.slice/job-{NAME}-*")
    return ", ".join(what)


# -------- what ann does --------

def ann(*command, **more):
    environment = {"PATH": os.environ["PATH"], "HOME": f"{TMP}/ann", "USER": "ann", "WISP_RUN": f"{TMP}/run", "WISP_LIBEXECDIR": LIBEXEC}
    return subprocess.Popen(command, user=ANN, group=ANN, extra_groups=[KVM], env=environment, cwd=f"{TMP}/ann",
                            stdin=subprocess.DEVNULL, text=True, **more)


def ask(*command, seconds=60):
    """Exit code and all that it said."""
    process = ann(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        return process.communicate(timeout=seconds)[0], process.returncode
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return f"no end after {seconds} s", None


def run_command(option, nodes=NODES):
    """Up to the document."""
    return ["wisp", "run", option, "--socket", f"{NODES[0].state}/socket", "--nodes", ",".join(f"{n.name}@{n.address}" for n in nodes),
            "--image", "bare", "--ready", str(READY)]


def event_of(line):
    """Of what wisp run --json says; also of text, and of half a line where it was killed."""
    try:
        return json.loads(line)
    except ValueError:
        return {"text": line, "event": "end"}


class Run:
    """wisp run, and what it says, when."""

    def __init__(self, *words, document=NAME, nodes=NODES):
        self.process = ann(*run_command("--json", nodes), f"{document}.yaml", "--", *words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.out, self.said = [], []
        self.threads = [threading.Thread(target=self.hear, args=a, daemon=True) for a in
                        ((self.process.stdout, self.out), (self.process.stderr, self.said))]
        for thread in self.threads:
            thread.start()

    def hear(self, stream, lines):
        for line in stream:
            lines.append((time.monotonic(), line.strip()))

    def began(self, stage):
        """Who is late hears only that it is done, or of the stage behind it."""
        behind = STAGES[STAGES.index(stage):] + ["run"] if stage in STAGES else [stage]
        return any(event_of(line).get("stage") in behind for _, line in self.said)

    def ended(self):
        """And all is heard that it has said."""
        return self.process.poll() is not None and not any(thread.is_alive() for thread in self.threads)

    def after(self, when):
        """What people were told since then."""
        told = []
        for at, line in self.said:
            event = event_of(line)
            if at >= when and (event["event"] in ("note", "ended", "end") or event.get("state") == "failed"):
                told.append((at, event.get("why") or event.get("text") or f"{event.get('stage')} failed"))
        return told

    def text(self):
        return "\n".join(line for _, line in self.said + self.out)


def logs():
    """Of what is left, before it is cleaned up."""
    for pattern in ("n?.log", "n?/user/*/*.log", "n?/user/*/vm/*/log", "run/job/*/log"):
        for path in glob.glob(f"{TMP}/{pattern}"):
            say(f"{path[len(TMP) + 1:]} ends:\n" + "".join(f"    {line}\n" for line in read(path).splitlines()[-12:]))


