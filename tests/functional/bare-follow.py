#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Post-copy migrations of bare guests by wisp-mover: bare-follow.py GUEST DIRECTORY

The guest counts in words all over its RAM, and panics when one is not what it was.
"""

import json
import os
import random
import select
import socket
import threading
import time

from bare_machine import incoming
from bare_movers import (Movers, end_of, free_port, migrate, pair, start, state, survivor,
                         wait_listening, write_token)
from vmm_client import Refused, Vmm

SLOW = ("--bandwidth", "60M", "--timeout", "1000")


def check(report, vcpus):
    assert report["missing"] > 0 and report["follow_ns"] > 0 and report["followed"] > 0, report
    waited = report["waited"]
    assert len(waited["vcpus"]) == vcpus, report
    sums = [v["wait_ns"] for v in waited["vcpus"]]
    longest = [v["longest_ns"] for v in waited["vcpus"]]
    assert all(a <= b for a, b in zip(longest, sums)), report
    print(f"    {report['missing']} pages missing, {report['asked']} asked for, vCPU 0 waited "
          f"{sums[0] / 1e6:.1f} ms, {longest[0] / 1e6:.2f} at most; all there after "
          f"{report['follow_ns'] / 1e6:.0f} ms")
    # All may have come before the guest wanted the first.
    return report["asked"] and sums[0] and waited["faults"]


def journey(work, vcpus, *args):
    args = (*args, "-c", str(vcpus))
    m = start(work, *args)
    waited = 0
    for tcp, options in (
            (False, ("--postcopy",)),
            (False, ("--postcopy", "--bandwidth", "100M")),
            (True, ("--postcopy", "--streams", "4")),
            (True, ("--postcopy", "--compress", "lz4", "--clock", "frozen", "--no-tls")),
            (False, ("--hybrid", "--rounds", "1", "--max-downtime", "1")),
            (True, ("--hybrid", "--rounds", "2", "--max-downtime", "1", "--compress", "zstd"))):
        m, report = migrate(m, args, tcp, options)
        # A hybrid may come to an end before it is to.
        waited += options[0] == "--hybrid" and "missing" not in report or check(report, vcpus)
        m.wait_rounds(2)
    assert waited > 0 or "dirty" in work
    m.stop()


def converges(*args):
    """A hybrid that can send all there is sends all there is."""
    m = start("dirty=1", *args)
    m, report = migrate(m, args, False, ("--hybrid", "--max-downtime", "5000"))
    assert "missing" not in report, report
    m.stop()


def huge_free(kib=2048):
    try:
        with open(f"/sys/kernel/mm/hugepages/hugepages-{kib}kB/free_hugepages",
                  encoding="ascii") as f:
            return int(f.read())
    except FileNotFoundError:
        return 0


def huge(tries):
    """Pages of 2 MiB at the target, at the source, at both; movers killed, connections cut."""
    if huge_free() < 128:
        print("left out: huge pages (128 of 2 MiB are not free)")
        return
    small, large = ("-m", "64"), ("-m", "64", "--page-size", "2M")
    m = start("work=4096", *small)
    for args, tcp, options in (
            (large, False, ("--postcopy",)),
            (large, True, ("--postcopy", "--compress", "lz4")),
            (small, False, ("--postcopy", "--bandwidth", "100M")),
            (large, False, ("--postcopy", "--bandwidth", "100M", "--streams", "4")),
            (large, True, ("--hybrid", "--rounds", "1", "--max-downtime", "1")),
            (large, False, ())):
        m, report = migrate(m, args, tcp, options)
        if "missing" in report:
            assert report["missing"] % 512 == 0 or args is small, report
            check(report, 1)
        m.wait_rounds(2)
    # What is zero comes as such though the page was something else before.
    m.stop()
    killed(tries, 0.6, ("--postcopy",), *large)
    killed(tries, 1.8, ("--hybrid", "--rounds", "1", "--max-downtime", "1"), *large, "-c", "4")
    broken("cut", *large)


def too_huge(*args):
    """Pages of 1 GiB are said to be too large before anything moves."""
    if huge_free(1 << 20) < 1:
        print("left out: a page of 1 GiB")
        return
    m = start("work=4096", "-m", "1024")
    new = incoming("-m", "1024", "--page-size", "1G")
    movers = Movers(m, new, options=("--postcopy",))
    err = end_of(movers.sender, 1)[1]
    assert "pages of 1024 MiB" in err, err
    assert state(m) == "running" and state(new) == "incoming"
    movers.receiver.terminate()
    end_of(movers.receiver, 130)
    new.stop()
    m.stop()


def incomplete(*args):
    """A VM whose memory has not all come is not saved, nor moved on."""
    m, new, movers = pair(args, True, ("--postcopy", "--bandwidth", "4M"))
    while state(new) != "running":
        time.sleep(0.02)
    control = Vmm(new.path)
    control.ask("status")
    try:
        fd = os.memfd_create("state")
        control.ask("pause")
        control.ask("save", fd=fd)
        raise AssertionError("it was saved")
    except Refused as e:
        assert "not all come" in str(e), str(e)
    control.ask("resume")
    movers.sender.kill()
    end_of(movers.sender, None)
    movers.options = ("--postcopy",)
    movers.again("send")
    end_of(movers.sender)
    end_of(movers.receiver)
    new.wait_rounds(2)
    new.stop()


def killed(tries, span, options, *args):
    """Either mover, or both, die at any moment; others go on: then exactly one VM runs."""
    m = start("work=4096", *args)
    source = random.Random(11)
    moved = 0
    for i in range(tries):
        new = incoming(*args)
        movers = Movers(m, new, options=(*options, *SLOW))
        for what in (("send",), ("receive",), ("send", "receive"))[i % 3]:
            time.sleep(source.random() * span)
            process = movers.sender if what == "send" else movers.receiver
            process.kill()
            end_of(process, None)
            movers.again(what)
        end_of(movers.sender, None)
        m = survivor(m, new, movers, i)
        moved += m is new
        assert not os.path.exists(m.path + ".faults")
        m.wait_rounds(2)
        assert "lost" not in m.output(), m.output()
    m.stop()
    print(f"{tries} times movers killed ({options[0]}), {moved} VMs moved all the same")


class Network(threading.Thread):
    """Between two movers: can be cut, or swallow everything."""

    def __init__(self, to):
        super().__init__(daemon=True)
        self.port, self.to = free_port(), to
        self.server = socket.create_server(("127.0.0.1", self.port))
        self.pairs = {}
        self.bytes = 0
        self.stalled = False
        self.start()

    def connect(self):
        client = self.server.accept()[0]
        try:
            other = socket.create_connection(self.to)
        except OSError:
            client.close()
            return
        self.pairs[client], self.pairs[other] = other, client

    def close(self, s):
        for end in s, self.pairs.pop(s, None):
            if end:
                self.pairs.pop(end, None)
                end.close()

    def forward(self, s):
        try:
            data = s.recv(1 << 18)
            if data:
                self.bytes += len(data)
                self.pairs[s].sendall(data)
                return
        except (OSError, KeyError):
            pass
        self.close(s)

    def run(self):
        while True:
            if self.stalled:
                time.sleep(0.02)
                continue
            for s in select.select([self.server, *self.pairs], [], [], 0.02)[0]:
                if s is self.server:
                    self.connect()
                elif s in self.pairs:
                    self.forward(s)

    def cut(self):
        for s in list(self.pairs):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def broken(kind, *args):
    """The connections break again and again: both movers find together by themselves."""
    m = start("work=4096", *args)
    new = incoming(*args)
    port = free_port()
    network = Network(("127.0.0.1", port))
    movers = Movers.__new__(Movers)
    Movers.count += 1
    movers.base = f"{m.path}.movers"
    movers.old, movers.new, movers.options = m, new, ("--postcopy", *SLOW)
    movers.address = f"tcp:127.0.0.1:{port}"
    movers.receiver = movers.receive("--timeout", "1000")
    wait_listening(movers.address)
    movers.address = f"tcp:127.0.0.1:{network.port}"
    movers.sender = movers.send()
    while state(new) != "running":
        assert movers.sender.poll() is None, movers.sender.communicate()
        time.sleep(0.01)
    for _ in range(3):
        before = network.bytes
        while network.bytes < before + (8 << 20) and movers.sender.poll() is None:
            time.sleep(0.01)
        if kind == "cut":
            network.cut()
        else:
            network.stalled = True
            time.sleep(2.5)
            network.cut()
            network.stalled = False
    report = json.loads(end_of(movers.sender)[0])
    end_of(movers.receiver)
    assert m.process.wait(20) == 0
    new.wait_rounds(2)
    print(f"network {kind}: {report['followed']} pages sent for {report['missing']} missing")
    new.stop()


def lost(how, *args):
    """What cannot go on ends, and says so."""
    m, new, movers = pair(args, True, ("--postcopy", "--bandwidth", "4M"), ("--patience", "2"))
    while state(new) != "running":
        time.sleep(0.01)
    time.sleep(0.1)
    if how == "target":
        new.process.kill()
        # It ran: the source does not go on with what it was before.
        end_of(movers.sender)
        assert "died" in end_of(movers.receiver, 1)[1]
        assert m.process.wait(20) == 0
        return
    m.process.kill()
    movers.sender.kill()
    end_of(movers.sender, None)
    if how == "source":
        movers.again("send")
        assert "is lost" in end_of(movers.sender, 1)[1]
        assert "lost at the source" in end_of(movers.receiver, 1)[1]
    elif how == "host":
        assert "has not come back for 2 s" in end_of(movers.receiver, 1)[1]
    else:
        movers.receiver.kill()
        end_of(movers.receiver, None)
    assert new.process.wait(20) == 14, new.output()
    assert "the VM ends" in new.output(), new.output()
    m.process.wait()


def main():
    write_token()
    journey("work=4096", 1, "-m", "64")
    journey("work=4096", 4, "-m", "128")
    journey("dirty=32", 1, "-m", "256")
    converges("-m", "64")
    huge(5)
    too_huge()
    incomplete("-m", "64")
    killed(6, 0.6, ("--postcopy",), "-m", "64")
    killed(6, 1.8, ("--hybrid", "--rounds", "1", "--max-downtime", "1"), "-m", "64", "-c", "4")
    broken("cut", "-m", "128")
    broken("stalled", "-m", "128")
    for how in "target", "source", "host", "both":
        lost(how, "-m", "64")


main()
