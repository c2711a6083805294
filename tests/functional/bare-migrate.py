#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Live migrations of bare guests by wisp-mover: bare-migrate.py GUEST DIRECTORY [MOVES]

The guest counts in words all over its RAM, and panics when one is not what it was. With MOVES it
moves so often in random ways, and as often one of its movers is killed.
"""

import json
import os
import random
import subprocess
import sys
import time

from bare_machine import GUEST, TMP, Machine, incoming
from bare_movers import (Movers, end_of, migrate, pair, start, state, survivor,
                         write_token)

def journey(work, *args):
    m = start(work, *args)
    m, _ = migrate(m, args)
    m, _ = migrate(m, args, True, ("--streams", "4", "--max-downtime", "20", "--throttle"))
    m, _ = migrate(m, args, False, ("--streams", "1", "--compress", "lz4"))
    m, _ = migrate(m, args, True, ("--compress", "zstd", "--clock", "frozen", "--no-tls"))
    m, _ = migrate(m, args, False, ("--tls",))
    m.stop()


def limited(*args):
    """A limit of the bandwidth: all connections together, while the VM runs."""
    m, new, movers = pair(args, True, ("--bandwidth", "40M", "--streams", "3", "--max-downtime",
                                       "5000", "--progress", "json"))
    out, err = end_of(movers.sender)
    report = json.loads(out)
    assert "rounds" in end_of(movers.receiver)[0]
    lines = [json.loads(line) for line in err.splitlines()]
    copy = [line for line in lines if line["phase"] == "copy" and line["done"]]
    assert copy and copy[0]["total"] == 64 << 20 and copy[-1]["rate"] > 1 << 20, lines
    assert report["outcome"] == "moved" and report["memory"] == 64 << 20, report
    first = report["rounds"][0]
    assert first["bytes"] > 8 << 20, report
    assert first["bytes"] / (first["ns"] / 1e9 + 0.011) < 40 << 20, report
    print(f"limited to 40 MiB/s: {first['bytes'] / first['ns'] * 1e9 / 2**20:.1f} MiB/s, "
          f"downtime {report['downtime_ns'] / 1e6:.1f} ms")
    new.wait_rounds(1)
    new.stop()


def slowed(*args):
    """A VM that writes faster than can be sent: the vCPU that writes gets slower, no other."""
    m, new, movers = pair(args, True, ("--bandwidth", "16M", "--max-downtime", "50", "--throttle",
                                       "--rounds", "12"), work="dirty=24")
    report = json.loads(end_of(movers.sender, None)[0])
    end_of(movers.receiver, None)
    writer, other = report["throttled"]
    assert writer >= 20 and writer == report["throttle"] and other == 0, report
    winner = new if report["outcome"] == "moved" else m
    assert state(winner) == "running", report
    winner.wait_rounds(1)
    winner.stop()
    print(f"slowed by {report['throttled']} % in {report['round_count']} rounds: "
          f"{report['outcome']}")


def cancelled(*args):
    """One operation at a time; a signal ends it at any moment, and the VM runs on."""
    m, new, movers = pair(args, True, ("--bandwidth", "4M", "--progress", "json"))
    while json.loads(movers.sender.stderr.readline())["done"] == 0:
        pass
    err = subprocess.run(["wisp-mover", "checkpoint", "--control", m.path, "--dir", f"{TMP}/ck"],
                         stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert err.returncode == 1 and f"send, process {movers.sender.pid}" in err.stderr, err
    movers.sender.send_signal(2)
    end_of(movers.sender, 130)
    err = end_of(movers.receiver, 1)[1]
    assert "cancelled" in err, err
    assert not os.path.exists(f"{m.path}.busy")
    assert state(m) == "running"
    source = random.Random(7)
    outcomes = []
    for i in range(12):
        new = incoming(*args)
        movers = Movers(m, new)
        time.sleep(source.random() * 0.2)
        (movers.sender, movers.receiver)[i % 2].terminate()
        end_of(movers.sender, None)
        outcomes.append(movers.sender.returncode)
        m = survivor(m, new, movers, i)
    m.wait_rounds(1)
    m.stop()
    print(f"ended by signals: {outcomes}")


def refusals(*args):
    m = start("work=4096", *args)
    new = incoming("-m", "48", "-c", "2", "-d", "rng")
    movers = Movers(m, new)
    out, err = end_of(movers.sender, 1)
    for what in "vcpus", "topology", "memory size", "memory regions", "device rng0":
        assert f"obstacle: {what}: " in err, err
    failed = json.loads(out)
    assert failed["outcome"] == "here" and len(failed["obstacles"]) >= 5, failed
    assert all(set(o) == {"what", "source", "target", "fix"} for o in failed["obstacles"]), failed
    assert state(m) == "running" and state(new) == "incoming"
    movers.receiver.terminate()
    end_of(movers.receiver, 130)
    new = incoming(*args)
    movers = Movers(m, new, options=("--dry-run",))
    end_of(movers.sender)
    assert state(m) == "running" and state(new) == "incoming"
    movers.options = ()
    movers.sender = movers.send()
    end_of(movers.sender)
    end_of(movers.receiver)
    new.wait_rounds(1)
    new.stop()


def killed(tries, *args):
    """Either mover dies at any moment; another goes on with its record: then exactly one runs."""
    m = start("work=4096", *args)
    source = random.Random(3)
    moved = 0
    for i in range(tries):
        new = incoming(*args)
        movers = Movers(m, new, options=("--timeout", "2000"))
        what = ("send", "receive")[i % 2]
        time.sleep(source.random() * 0.3)
        process = movers.sender if what == "send" else movers.receiver
        process.kill()
        end_of(process, None)
        movers.again(what)
        end_of(movers.sender, None)
        m = survivor(m, new, movers, (i, what))
        moved += m is new
        m.wait_rounds(1)
        assert "lost" not in m.output(), m.output()
    m.stop()
    print(f"{tries} movers killed, {moved} VMs moved all the same")


def strangers(*args):
    """Another token, or TLS on one side only: said on both sides, and nothing has changed."""
    m = start("work=4096", *args)
    new = incoming(*args)
    with open(f"{TMP}/wrong", "w", encoding="ascii") as f:
        f.write("7" * 64)
    for send, receive, words in (
            (("--token", f"{TMP}/wrong"), (), "same token"),
            (("--token", f"{TMP}/wrong", "--no-tls"), ("--no-tls",), "same token"),
            ((), ("--no-tls",), "give the target --tls, or the source --no-tls"),
            (("--no-tls",), (), "give the source --tls, or the target --no-tls")):
        movers = Movers(m, new, True, send, receive)
        err = end_of(movers.sender, 1)[1]
        assert words in err, err
        err = movers.receiver.stderr.readline()
        assert words in err and "127.0.0.1" in err, err
        movers.receiver.terminate()
        end_of(movers.receiver, 130)
        assert state(m) == "running" and state(new) == "incoming"
    new.stop()
    m.wait_rounds(1)
    m.stop()


def killed_undecided(*args):
    """A migration whose sender was killed while it had a record, which is not for long."""
    while True:
        m, new = start("work=4096", *args), incoming(*args)
        movers = Movers(m, new)
        while movers.sender.poll() is None:
            if os.path.exists(f"{movers.base}.send"):
                movers.sender.kill()
                end_of(movers.sender, None)
                if os.path.exists(f"{movers.base}.send"):
                    return m, new, movers
        end_of(movers.receiver, None)
        m.process.kill()
        new.process.kill()


def other_record(*args):
    """The record of one VM is not used for another."""
    m, new, movers = killed_undecided(*args)
    other = Machine("-k", GUEST, "-a", "work=4096", *args)
    movers.old = other
    err = end_of(movers.send("--again"), 3)[1]
    assert "another VM" in err and m.path in err, err
    assert state(other) == "running"
    other.stop()
    movers.old = m
    end_of(movers.send("--again"), None)
    assert [state(m), state(new)].count("running") == 1
    winner = m if state(m) == "running" else new
    movers.receiver.terminate()
    end_of(movers.receiver, None)
    winner.wait_rounds(1)
    winner.stop()


def disks(*args):
    """What the disks contain tells whether they are the same, also those that are only read."""
    same, read, other, empty = (f"{TMP}/{name}" for name in ("same", "read", "other", "empty"))
    for path in same, read, other:
        with open(path, "wb") as f:
            f.write(os.urandom(8 << 20))
    with open(empty, "wb") as f:
        f.truncate(8 << 20)
    def options(written, only_read):
        return (*args, "--device", f"block,path={written}",
                "--device", f"block,path={only_read},readonly")
    m = start("work=4096", *options(same, read))
    for device, there in ("block0", (other, read)), ("block0", (empty, read)), \
            ("block1", (same, other)):
        new = incoming(*options(*there))
        movers = Movers(m, new)
        assert f"device {device}: content" in end_of(movers.sender, None)[1]
        movers.receiver.terminate()
        end_of(movers.receiver, None)
        new.process.kill()
        new.process.wait()
        assert state(m) == "running"
    # Not what it was when the target was started.
    new = incoming(*options(same, read))
    with open(same, "r+b") as f:
        f.write(os.urandom(8 << 20))
    movers = Movers(m, new)
    report = json.loads(end_of(movers.sender)[0])
    end_of(movers.receiver)
    assert all("flush_ns" in r for r in report["rounds"]), report
    assert m.process.wait(20) == 0 and state(new) == "running"
    new.stop()


def soak(moves, *args):
    source = random.Random(moves)
    m = Machine("-k", GUEST, "-a", "work=4096", *args)
    for _ in range(moves):
        options = ["--throttle", "--streams", str(source.randint(1, 4)), "--compress",
                   source.choice(("none", "lz4", "zstd")), "--clock",
                   source.choice(("frozen", "elapsed"))]
        time.sleep(source.random() * 0.2)
        m, _ = migrate(m, args, source.random() < 0.5, options)
    m.stop()
    killed(moves, *args)


def main():
    write_token()
    if len(sys.argv) > 3:
        soak(int(sys.argv[3]), "-m", "48")
        return
    journey("work=4096", "-m", "64")
    journey("dirty=2", "-m", "256", "-c", "2")
    refusals("-m", "64")
    disks("-m", "64")
    limited("-m", "64")
    slowed("-m", "48", "-c", "2")
    cancelled("-m", "64")
    strangers("-m", "64")
    other_record("-m", "64")
    killed(10, "-m", "64")


main()
