# SPDX-License-Identifier: Apache-2.0
"""Root's wispd with users and bare guests: for the tests of node-part.sh, which say

    TEST.py WISPD STATE CGROUPS HOMES
"""

import glob
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

from node_client import Client

WISPD, STATE, CGROUPS, HOMES = sys.argv[1:]
USERS = {"ann": 7001, "bob": 7002}
VNI = 1 << 20 | os.getpid() * 4 & 0xfffff  # nobody else's on this machine
RUN = f"{os.getpid():08x}"  # likewise, of clusters
DOCUMENT = "vms: 2\ncpus: 1\nmemory: 64M\nvms-per-node: 2\ncmdline: [watch=8]\n"
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


def make_key():
    with open(f"{STATE}/../key", "w", encoding="ascii") as out:
        os.chmod(out.fileno(), 0o600)
        out.write("k" * 32)


def start_daemon(name="n1", state=STATE, before=(), more=(), address="127.0.0.1"):
    """before: a command that runs another in the node's network."""
    with open(f"{STATE}/../log", "ab") as log:
        process = subprocess.Popen([*before, WISPD, "--state", state, "--name", name, "--grace", "20", *more, *["--outside"][:state == STATE],
                                    "--cgroups", CGROUPS if state == STATE else "none",
                                    "--key", f"{STATE}/../key", "--listen", f"{address}:0"], stderr=log)
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
    """Of our daemons alone: their environment says whose they are."""
    for path in glob.glob("/proc/[0-9]*/environ"):
        try:
            if f"WISP_RUN={STATE}" in read(path):
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


def reserve(node, cluster, document, which=(0, 1)):
    """The VMs of these numbers."""
    name = cluster.split("-")[0]
    hosts = [{"name": f"{name}-{i}", "address": f"10.78.0.{2 + i}"} for i in which]
    node.ask("reserve", cluster=cluster, documents=[{"name": "test", "text": document}], digest=digest(document), vms=hosts)
    return hosts
