#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the story of a demo (see report.py) of what it noted in a folder.

usage: story.py FOLDER >STORY.json

The folder has, times being seconds since the beginning:
    began             seconds since 1970
    steps             AT <tab> TEXT
    marks             AT <tab> KIND [WORD...]: start, ready, where VM=NODE..., moving VM, saving, died NODE,
                      ended, over
    output            AT <tab> LINE of the program
    cpu.NODE          SECONDS-SINCE-1970 VM MICROSECONDS
    migrate.json, checkpoint.json, hpccoutf.txt, noticed
"""

import glob
import json
import os
import re
import sys


def read(folder, name):
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        return ""
    with open(path, encoding="utf-8", errors="replace") as f:
        return f.read()


def rows(folder, name):
    """(time, text) of each line."""
    for line in read(folder, name).splitlines():
        at, _, text = line.partition("\t")
        yield float(at), text


class Lanes:
    """What each VM did where, from marks in their order."""

    def __init__(self):
        self.spans, self.now = {}, {}

    def set(self, vm, at, state, node):
        """state None: it is nowhere."""
        since, was, place = self.now.pop(vm, (at, None, None))
        if was and at > since:
            self.spans.setdefault(vm, []).append(
                {"from": since, "to": at, "state": was, "node": place})
        if state:
            self.now[vm] = (at, state, node)

    def all(self, at, state):
        for vm, (_, _, node) in list(self.now.items()):
            self.set(vm, at, state, node)

    def mark(self, at, kind, words):
        if kind in ("starting", "where"):
            for vm, node in (word.split("=") for word in words):
                self.set(vm, at, "starting" if kind == "starting" else "running", node)
        elif kind == "moving":
            self.set(words[0], at, "moving", self.now[words[0]][2])
        elif kind == "saving":
            self.all(at, "saving")
        elif kind == "died":
            for vm, (_, _, node) in list(self.now.items()):
                if node == words[0]:
                    self.set(vm, at, "lost", node)
        elif kind in ("ended", "over"):
            self.all(at, None)

    def lanes(self):
        return [{"vm": vm, "spans": self.spans[vm]} for vm in sorted(self.spans)]


def read_lanes(folder):
    lanes = Lanes()
    for at, text in rows(folder, "marks"):
        kind, *words = text.split()
        lanes.mark(at, kind, words)
    return lanes.lanes()


def read_progress(folder):
    """Of lines that came at once (a restart tells what was said before) the last counts."""
    found = ((at, re.match(r"step (\d+) ", text)) for at, text in rows(folder, "output"))
    last = {at: int(m.group(1)) for at, m in found if m}
    return [{"at": at, "step": step} for at, step in sorted(last.items())]


class Clock:
    """The CPU time of a VM, whose VMMs come and go at several nodes, each with a counter of its own."""

    def __init__(self):
        self.total, self.last, self.samples = 0, {}, []

    def add(self, at, node, used):
        before = self.last.get(node, 0)
        self.total += used - before if used >= before else used
        self.last[node] = used
        self.samples.append([at, self.total])


def read_cpu(folder, began):
    found = []
    for path in glob.glob(os.path.join(folder, "cpu.*")):
        name = os.path.basename(path)
        words = (line.split() for line in read(folder, name).splitlines())
        found += [(float(w[0]) - began, w[1], name, int(w[2]) / 1e6) for w in words if len(w) == 3]
    clocks = {}
    for at, vm, node, used in sorted(found):
        clocks.setdefault(vm, Clock()).add(at, node, used)
    return {vm: clock.samples for vm, clock in clocks.items()}


def verdict(folder):
    ends = [text for _, text in rows(folder, "output") if " steps of " in text]
    found = re.search(r"(\d+) steps of (\d+) ranks, (\d+) records.*: (\w+)", ends[-1]) if ends else None
    return found.groups() if found else ("0", "0", "0", "WRONG")


def hpcc(folder):
    text = read(folder, "hpccoutf.txt")
    figures = dict(re.findall(r"^(\w+)=(\S+)$", text, re.M))
    names = (("HPL_Tflops", "Tflop/s"), ("PTRANS_GBs", "GB/s"), ("MPIRandomAccess_GUPs", "GUP/s"),
             ("StarSTREAM_Triad", "GB/s"), ("MPIFFT_Gflops", "Gflop/s"),
             ("MaxPingPongLatency_usec", "us"), ("MinPingPongBandwidth_GBytes", "GB/s"))
    good = figures.get("Success") == "1" and "PASSED" in text and "FAILED" not in text
    return good, [[f"HPCC {name}", f"{figures[name]} {unit}"] for name, unit in names if name in figures]


def saved_parts(folder):
    """Of the checkpoint: pauses, what was written, figures."""
    saved = json.loads(read(folder, "checkpoint.json") or "{}")
    vms = saved.get("vms", {})
    pauses = [{"what": f"checkpoint, {vm}", "ms": of["pause_ns"] / 1e6} for vm, of in sorted(vms.items())]
    written = sum(of.get("report", {}).get("bytes", 0) for of in vms.values())
    sent = [{"what": "checkpoint of all", "bytes": written, "seconds": saved["ms"] / 1e3}] if written else []
    figures = [["skew of the cut", f"{saved['skew_ns'] / 1e6:.1f} ms"],
               ["checkpoint, all of it", f"{saved['ms'] / 1e3:.1f} s"]] if vms else []
    tcp = saved.get("tcp", {}).get("vms", {}).values()
    if tcp:
        figures.append(["TCP segments sent again after the cut",
                        f"{sum(of['retransmitted'] for of in tcp)} of {sum(of['sent'] for of in tcp)}"])
    return pauses, sent, figures


def moved_parts(folder):
    moved = json.loads(read(folder, "migrate.json") or "{}")
    pauses, sent = [], []
    for of in moved.get("vms", []):
        vm, report = of["vm"], of.get("report", {})
        if "downtime_ns" in report:
            pauses.append({"what": f"migration, {vm}", "ms": report["downtime_ns"] / 1e6})
        if "bytes" in report and "ns" in report:
            sent.append({"what": f"migration, {vm}", "bytes": report["bytes"], "seconds": report["ns"] / 1e9})
    return pauses, sent


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = sys.argv[1]
    steps = [{"at": at, "text": text} for at, text in rows(folder, "steps")]
    count, ranks, records, right = verdict(folder)
    good, benchmark = hpcc(folder)
    pauses, sent = moved_parts(folder)
    more_pauses, more_sent, saved = saved_parts(folder)
    figures = [["MPI ranks, steps of the ring", f"{ranks}, {count}"],
               ["records of each in the file on GlusterFS", records],
               ["HPCC", "passed" if good else "FAILED"], *benchmark, *saved]
    for line in read(folder, "noticed").splitlines():
        figures.append(["a dead node was told of after", line])
    json.dump({"title": "An MPI job that outlives a node", "verdict": right if good else "WRONG",
               "machine": f"3 nodes of a lab, {os.cpu_count()} CPUs for all", "seconds": steps[-1]["at"],
               "steps": steps, "lanes": read_lanes(folder), "progress": read_progress(folder),
               "cpu": read_cpu(folder, float(read(folder, "began"))), "pauses": pauses + more_pauses,
               "sent": sent + more_sent, "figures": figures}, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
