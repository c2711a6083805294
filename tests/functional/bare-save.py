#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Saves and restores bare guests: bare-save.py GUEST DIRECTORY

A guest that counts in words all over its RAM, and panics when one is wrong, goes from VMM to VMM.
"""

import random
import time

from bare_machine import GUEST, TMP, Machine, incoming, move, refused
from vmm_client import Refused, Vmm, available, content, memfd


def chain(times, step, *args):
    m = Machine("-k", GUEST, "-a", f"work={step}", *args)
    m.wait_rounds(3)
    for i in range(times):
        m = move(m, ("frozen", "elapsed")[i % 2], *args)
        m.wait_rounds(3)
    m.stop()
    print(f"{times} times: {' '.join(args)}")


def hostile(tries, *args):
    """A real state with damage: the VM may run or not, but the VMM answers and ends in order."""
    m = Machine("-k", GUEST, "-a", "work=0x100000", *args)
    m.wait_rounds(2)
    refused(m, "save", "the VM runs", fd=memfd())
    m.control.ask("pause")
    refused(m, "save", "no descriptor")
    refused(m, "load", "has a state already", fd=memfd(), clock="frozen")
    fd = memfd()
    m.control.ask("save", fd=fd)
    good = content(fd)
    m.stop()
    source = random.Random(7)
    counts = {"refused": 0, "taken": 0}
    for i in range(tries):
        bad = bytearray(good)
        if i % 4 == 0:
            bad = bad[:source.randrange(len(bad))]
        else:
            for _ in range(i % 3 + 1):
                bad[source.randrange(len(bad))] ^= 1 << source.randrange(8)
        n = incoming(*args)
        refused(n, "resume", "no state was loaded yet")
        try:
            n.control.ask("load", fd=memfd(bytes(bad)), clock="frozen")
            counts["taken"] += 1
        except Refused as e:
            assert len(str(e)) > 10
            counts["refused"] += 1
            assert n.control.ask("status")["state"] == "failed"
            refused(n, "resume", "the load failed: " + str(e))
            refused(n, "save", "no state", fd=memfd())
            refused(n, "load", "can only be stopped", fd=memfd(good), clock="frozen")
        n.stop()
    assert counts["refused"] >= tries / 4, counts
    print(f"damaged: {counts}")


def other_machines():
    """A state goes into a machine that is not like its own: refused with the difference."""
    m = Machine("-k", GUEST, "-a", "spin", "-m", "64")
    m.control.ask("pause")
    fd = memfd()
    m.control.ask("save", fd=fd)
    m.stop()
    for args, text in [
            (("-m", "128"), "the saved VM has 64 MiB of memory, this one 128"),
            (("-m", "64", "-c", "2"), "vCPUs and devices"),
            (("-m", "64", "--irqchip", "split"), "--irqchip kernel"),
            (("-m", "64", "-d", "rng"), "vCPUs and devices")]:
        n = incoming(*args)
        refused(n, "load", text, fd=fd, clock="frozen")
        n.stop()
    n = incoming("-m", "64")
    refused(n, "load", '"frozen" or "elapsed"', fd=fd)
    n.control.ask("load", fd=fd, clock="frozen")
    refused(n, "load", "has a state already", fd=fd, clock="frozen")
    n.stop()


def held():
    """A pause that is held ends with its connection; another one does not."""
    m = Machine("-k", GUEST, "-a", "work=0x100000", "-m", "64")
    other = Vmm(m.path)
    other.ask("pause", hold=True)
    assert m.control.ask("status")["state"] == "paused"
    other.close()
    m.wait_rounds(2)
    assert m.control.ask("status")["state"] == "running"
    other = Vmm(m.path)
    other.ask("pause")
    other.close()
    time.sleep(0.1)
    assert m.control.ask("status")["state"] == "paused"
    m.stop()


chain(20, "0x40000", "-m", "256")
chain(20, "0x40000", "-m", "256", "-c", "4", "--irqchip", "split")
if available(14000):
    chain(5, "0x1000000", "-m", "6144", "-c", "4")
    chain(5, "0x1000000", "-m", "6144", "--irqchip", "split")
else:
    print("left out: 6 GiB are not available twice")
chain(3, "0x40000", "-m", "64", "-d", "rng", "-d", f"console,file={TMP}/console")
held()
other_machines()
hostile(40, "-m", "64", "-d", "rng")
