#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A stand-in for the daemons of N nodes, as a coordinator sees them through one of them: it answers
the requests of docs/formats/node.md, and a wisp-agent on a UNIX socket is the agent of every VM.

job-node.py SOCKET NODES AGENT [OP=BEHAVIOUR...]   OP of: join facts reserve image network start stop release
    fail@K      node K refuses                    silent@K   node K never answers    slow@K   only after 2 s
    gone@K      (join) node K cannot be reached
    dies@K      (start) the VMs of node K end when they should become ready
    never@K     (start) the VMs of node K do not become ready
    keep        (release) the programs in VMs live on, as they do in checkpoints
    open@K      (send) node K does not know how it ends until it is asked again
    gone@K      (send) the part of node K dies before it calls the other node
    lost@K      (start) node K is lost a second after its VMs are ready
    drains@K    (start) node K drains a second after its VMs are ready
    bad@K       (save-commit) node K says no digest of what it has saved
    late@K      (save-STEP) node K needs 62 s for it
    full        (facts) nodes that have something of a cluster have no room for another
    lacks@K     (image) node K has none, unless it is told where from; then it tells how it comes
Each request is a line on standard output: OP PLACES. A file "how" with such words holds for requests from then on, while it is there.
"""
import json
import os
import socket
import struct
import sys
import threading
import time

PATH, NODES, AGENT = sys.argv[1], int(sys.argv[2]), sys.argv[3]
HOW = {}
for word in sys.argv[4:]:
    op, what = word.split("=")
    name, _, place = what.partition("@")
    HOW.setdefault(op, []).append((name, int(place or 0)))
drained = set()
held = {}  # cluster -> {place: [vm names]}


def later():
    try:
        with open("how", encoding="utf-8") as f:
            return f.read().split()
    except FileNotFoundError:
        return []


def how(op, name):
    return [k for n, k in HOW.get(op, []) if n == name] + \
           [int(word.partition("@")[2] or 0) for word in later() if word.partition("@")[0] == f"{op}={name}"]


def places(text):
    if text is None:
        return list(range(NODES))
    out = []
    for part in filter(None, text.split(",")):
        a, _, b = part.partition("-")
        out += range(int(a), int(b or a) + 1)
    return out


def end_task():
    """What ends with a VM: its agent's program."""
    agent = socket.socket(socket.AF_UNIX)
    agent.connect(AGENT)
    request = json.dumps({"op": "task-remove", "id": "main", "kill": True}).encode()
    agent.sendall(struct.pack("<IHHII", 8, 1, 0, 0x41505357, 1) + struct.pack("<IHH", len(request), 2, 0) + request)
    while agent.recv(4096):
        pass


def compact(m):
    """What a request that is the same for all nodes says of each."""
    if m["op"] == "network" and "places" in m:
        return *m["nodes"], "of", m["places"]
    return [f"{h['name']} {h['address']} x {h['count']}" for h in m.get("hosts", [])]


class Peer:
    def __init__(self, sock):
        self.sock, self.lock, self.streams, self.credit = sock, threading.Lock(), {}, {}
        self.more = threading.Condition()

    def read(self, n):
        data = b""
        while len(data) < n:
            got = self.sock.recv(n - len(data))
            if not got:
                raise EOFError
            data += got
        return data

    def frame(self, kind, payload):
        with self.lock:
            self.sock.sendall(struct.pack(">IB", len(payload) + 1, kind) + payload)

    def send(self, message):
        self.frame(1, json.dumps(message).encode())

    def next(self):
        n, kind = struct.unpack(">IB", self.read(5))
        return kind, self.read(n - 1)

    def beat(self):
        try:
            while True:
                time.sleep(1)
                self.frame(3, b"")
        except OSError:
            pass

    # -------- the tree --------

    def answer(self, m, ok, errors=(), values=None):
        text = ",".join(map(str, ok))
        self.send({"re": m["id"], "done": True, "ok": text, "errors": list(errors), "values": values or {}})

    def tree(self, m):
        op, to = m["op"], places(m.get("to"))
        print(op, *filter(None, [m.get("step")]), ",".join(map(str, to)), *compact(m), flush=True)
        if set(how(op, "silent")) & set(to):
            return
        if set(how(op, "slow")) & set(to):
            time.sleep(2)
        bad = [{"node": k, "errno": 16, "error": f"no {op} here"} for k in how(op, "fail") if k in to]
        bad += [{"node": k, "errno": 113, "error": "no route to it"} for k in how(op, "gone") if k in to]
        good = [k for k in to if k not in [b["node"] for b in bad]]
        values = {}
        if op == "facts":
            good, values = [], {str(k): {
                "name": f"n{k}", "type": "compute", "labels": [], "draining": "repairs" if k in drained else None,
                "topology": {"threads": 8, "cores": 8}, "free": {"threads": 8, "memory": 0 if how(op, "full") and any(k in c for c in held.values()) else 8 << 30}} for k in good}
        if op == "image" and not m.get("from"):
            bad += [{"node": k, "errno": 2, "error": "no image here"} for k in how(op, "lacks") if k in to]
            good = [k for k in to if k not in [b["node"] for b in bad]]
        if op == "image" and m.get("from"):
            print("from", *m["from"], flush=True)
            self.send({"event": "progress", "op": "image", "cluster": m["cluster"], "node": to[0], "done": 1 << 20, "total": 3 << 20})
        if op == "reserve":
            for k in good:
                held.setdefault(m["cluster"], {}).setdefault(k, []).extend(v["name"] for v in m["vms"])
        if op == "receive" and good and not m.get("again"):
            self.coming = m["id"], good
            self.send({"event": "progress", "op": "receive", "node": to[0], "cluster": m["cluster"], "vm": m["vm"],
                       "listening": "tcp:127.0.0.1:1"})
            return
        if op == "send" and how(op, "gone"):
            self.answer(m, [], [{"node": to[0], "errno": 114 if m.get("again") else 104, "error": "it runs here"}])
            return
        if op == "stop" and "vms" in m:
            self.answer({"id": self.coming[0]}, [], [{"node": to[0], "errno": 125, "error": "the VMs are stopped"}])
        if op == "send" and not m.get("again"):
            bad += [{"node": k, "errno": 115, "error": "cut off", "unsettled": "undecided"} for k in how(op, "open") if k in to]
            good = [k for k in good if k not in [b["node"] for b in bad]]
            last, there = self.coming
            self.answer({"id": last}, [] if bad else there, [{"node": there[0], "errno": 115 if good or how(op, "open") else 5,
                        "error": "nothing has come"}] if bad else [])
        if op == "send" and good:
            self.send({"event": "vm-ended", "node": to[0], "cluster": m["cluster"], "vm": m["vm"], "end": {"reason": "moved"}})
            values, good = {str(k): {m["vm"]: {"rounds": 2}} for k in good}, []
        if op == "save" and m["step"] == "begin":
            self.epoch, self.folder = 1 + getattr(self, "epoch", 0), m["folder"]
        if op == "save" and set(how("save-" + m["step"], "silent")) & set(to):
            return
        if op == "save" and set(how("save-" + m["step"], "late")) & set(to):
            time.sleep(62)
        if op == "save":
            bad += [{"node": k, "errno": 5, "error": "a disk has failed"} for k in how("save-" + m["step"], "fail") if k in to]
            good = [k for k in to if k not in [b["node"] for b in bad]]
        if op == "save" and m["step"] != "abort":
            values = {str(k): {vm: {"at": time.time_ns(), "pause_ns": 5000000, "epoch": self.epoch,
                                "digest": "none" if k in how("save-commit", "bad") else "sha256:" + 64 * "a"}
                               for vm in held[m["cluster"]][k]} for k in good}
            good = []
        if op == "tcp":
            self.sent = 100 + getattr(self, "sent", 0)
            values = {str(k): {vm: {"sent": self.sent, "retransmitted": self.sent // 100 * (k + 1), "timeouts": 0}
                               for vm in held[m["cluster"]][k]} for k in good}
            good = []
        self.holds = op != "release"
        if op == "start" or op == "release" and m["cluster"] in held and len(to) == len(held[m["cluster"]]) and not how("release", "keep"):
            end_task()
        if op == "release" and "vms" not in m and len(to) < NODES:
            for k in good:
                held.get(m["cluster"], {}).pop(k, None)
        elif op == "release" and "vms" not in m:
            held.pop(m["cluster"], None)
        self.answer(m, good, bad, values)
        if op == "start" or op == "resume" and m.get("clock"):
            threading.Thread(target=self.boot, args=(m["cluster"], good), daemon=True).start()

    def boot(self, cluster, good):
        for k in good:
            for vm in held.get(cluster, {}).get(k, []):
                if k in how("start", "dies"):
                    self.send({"event": "vm-ended", "node": k, "cluster": cluster, "vm": vm, "console": "Kernel panic\nthe end",
                               "end": {"reason": "panic", "said": "the guest has panicked"}})
                elif k not in how("start", "never"):
                    self.send({"event": "ready", "node": k, "cluster": cluster, "vm": vm, "times": {"ready_ms": 12}})
        for k in how("start", "lost"):
            time.sleep(1)
            self.send({"event": "node-lost", "nodes": str(k)})
        for k in how("start", "drains"):
            time.sleep(1)
            drained.add(k)
            self.send({"event": "drain", "node": k, "cluster": cluster, "because": "repairs"})

    # -------- streams --------

    def connect(self, m):
        n = m["stream"]
        print("connect", m["node"], m["vm"], m["what"], flush=True)
        agent = socket.socket(socket.AF_UNIX)
        agent.connect(AGENT)
        self.streams[n], self.credit[n] = agent, 262144
        self.send({"re": m["id"], "done": True})
        threading.Thread(target=self.pump, args=(n, agent), daemon=True).start()

    def pump(self, n, agent):
        try:
            while True:
                data = agent.recv(32768)
                with self.more:
                    while data and self.credit[n] < len(data):
                        self.more.wait()
                    self.credit[n] -= len(data)
                self.frame(2, struct.pack(">I", n) + data)
                if not data:
                    return
        except OSError:
            pass

    def data(self, payload):
        n, rest = struct.unpack(">I", payload[:4])[0], payload[4:]
        try:
            if rest:
                self.streams[n].sendall(rest)
                self.send({"op": "credit", "stream": n, "bytes": len(rest)})
            else:
                self.streams[n].shutdown(socket.SHUT_WR)
        except OSError:
            pass

    # -------- its life --------

    def message(self, m, joined):
        op = m["op"]
        if op == "credit":
            with self.more:
                self.credit[m["stream"]] += m["bytes"]
                self.more.notify_all()
        elif op == "connect":
            self.connect(m)
        elif op == "join":
            self.tree(m)
            return True
        elif joined:
            self.tree(m)
        elif op == "facts":
            self.send({"re": m["id"], "done": True, "value": {"name": "n0", "type": "compute"}})
        else:
            self.send({"re": m["id"], "done": True})
        return joined

    def serve(self):
        joined = False
        try:
            n, _ = struct.unpack(">IB", self.read(5))
            self.read(n - 1)
            self.send({"wisp": 1, "node": "n0"})
            threading.Thread(target=self.beat, daemon=True).start()
            while True:
                kind, payload = self.next()
                if kind == 1:
                    joined = self.message(json.loads(payload), joined)
                elif kind == 2:
                    self.data(payload)
        except (EOFError, OSError):
            pass
        if joined and getattr(self, "holds", False):
            end_task()
        if joined:
            print("left", flush=True)


def main():
    listener = socket.socket(socket.AF_UNIX)
    if os.path.exists(PATH):
        os.unlink(PATH)
    listener.bind(PATH)
    listener.listen(64)
    print("listens", flush=True)
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=Peer(sock).serve, daemon=True).start()


main()
