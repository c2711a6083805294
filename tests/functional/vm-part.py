#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""vm-part.py WISP-PART FOLDER: wisp-part with Linux guests, its streams used as the agent's client."""
import json
import struct
import sys

from part_daemon import Part, fail

PROGRAM, TMP = sys.argv[1:]
NAMES = ["lu-0", "lu-1"]
HOSTS = [{"name": "lu-%d" % i, "address": "10.78.0.%d" % (i + 2)} for i in range(3)]
REQUEST, STDOUT, EXIT = 2, 17, 22
HELLO = struct.pack("<IHHII", 8, 1, 0, 0x41505357, 1)


def setup():
    grant = {"vcpus": 1, "dedicated": False, "page-size": 4096, "nodes": []}
    environment = {
        "cpus": 1, "memory": 256 << 20, "page-size": "4K", "pinning": "none",
        "shares": {"s": {"source": TMP + "/shared", "target": "/shared"}},
        "volumes": {"scratch": {"size": 16 << 20, "filesystem": "ext4", "target": "/scratch"}}}
    return {"cluster": "lu-0123abcd", "name": "lu", "node": "n1", "environment": environment,
            "grants": {name: grant for name in NAMES}, "cgroup": None, "vms": HOSTS[:2],
            "network": {"name": "lu-0123abcd", "subnet": "10.78.0.0/24",
                        "id": "00000000000000aa", "made": False}}


def part():
    return Part(PROGRAM, setup(), TMP + "/part.log")


def frame(kind, payload):
    return struct.pack("<IHH", len(payload), kind, 0) + payload


def run(p, vm, script):
    """What a shell in the guest prints; its exit code has to be 0."""
    stream = p.connect(vm, "agent")
    p.write(stream, HELLO)
    p.write(stream, frame(REQUEST, json.dumps({"op": "exec",
                                               "argv": ["sh", "-c", script]}).encode()))
    p.until("the end of a program in " + vm, lambda: stream in p.ended, 60)
    p.write(stream, b"")
    data, out, code = p.streams[stream], b"", None
    while data:
        size, kind, _ = struct.unpack_from("<IHH", data)
        payload, data = data[8:8 + size], data[8 + size:]
        if kind == STDOUT:
            out += payload
        elif kind == EXIT:
            code = struct.unpack("<II", payload)
    if code != (0, 0):
        fail("%s in %s: %s, %r" % (script, vm, code, out))
    return out.decode().strip()


def expect(what, got, wanted):
    if got != wanted:
        fail("%s: got %r, not %r" % (what, got, wanted))


p = part()
p.ask("start", image="minimal", hosts=HOSTS)
for name in NAMES:
    event = p.event("ready", name)
    if not event["times"]["ready_ms"] > 0 or "warning" in event["times"]:
        fail("ready: %s" % event)
expect("hostname", run(p, "lu-1", "hostname"), "lu-1")
expect("a name of another node", run(p, "lu-0", "getent hosts lu-2 | cut -d' ' -f1"), "10.78.0.4")
run(p, "lu-0", "busybox ping -c 1 -W 20 lu-1")
expect("the volume", run(p, "lu-0", "echo x >/scratch/x; grep -c /scratch /proc/mounts"), "1")
expect("the share", run(p, "lu-0", "cat /shared/file"), "shared")
expect("much", run(p, "lu-0", "head -c 3000000 /dev/zero | tr '\\0' x").count("x"), 3000000)

p.ask("save", step="begin", folder=TMP + "/saved", mode="live")
for step in ("cut", "resume", "commit"):
    done = p.ask("save", step=step)
p.until("the share after the cut", lambda: run(p, "lu-0", "cat /shared/file || :") == "shared", 30)

p.kill()
p = part()
expect("taken over", p.value["vms"], {"lu-0": "ready", "lu-1": "ready"})
p.event("ready", "lu-1")
expect("hostname", run(p, "lu-0", "hostname"), "lu-0")
p.ask("stop", kill=True)
for name in NAMES:
    p.event("vm-ended", name)

source = {name: {key: done[name][key] for key in ("folder", "epoch", "digest")} for name in NAMES}
p.ask("restore", image="minimal", hosts=HOSTS, **{"from": source})
p.ask("resume", clock=True)
for name in NAMES:
    p.event("ready", name)
expect("restored", run(p, "lu-0", "cat /scratch/x"), "x")
stopped = p.ask("stop", timeout=60)
expect("how", stopped["lu-0"]["how"], "powered off by its agent")
p.leave()
