#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of bare guests in steps: bare-cut.py GUEST DIRECTORY [full]

With "full" DIRECTORY/full is a file system of 96 MiB, and nothing but that is tested.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time

from bare_machine import TMP, Machine, incoming
from bare_movers import start, state
from bare_steps import Steps, commit_all, cut_all

SHAPE = ("-m", "48")


def epochs(folder):
    return sorted(int(n) for n in os.listdir(folder) if n.isdigit()) if os.path.isdir(folder) else []


def verify(folder):
    if epochs(folder):
        subprocess.run(["wisp", "checkpoint", "verify", folder], stdout=subprocess.DEVNULL, check=True)


def listed(folder):
    return {e["epoch"]: e for e in wisp_checkpoint("list", folder)}


def seal(content):
    """The text that a manifest has (docs/formats/job-checkpoint.md)."""
    def text():
        return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False)
    content["digest"] = hashlib.sha256(text().encode()).hexdigest()
    return text()


def write_manifest(folder, number, done):
    """What a coordinator writes when all VMs have committed."""
    reports = [d["report"] for d in done]
    cuts = [r["cut_at"] for r in reports]
    content = {
        "format": 1, "sequence": number, "job": "0" * 32, "parent": None, "cluster": "four",
        "created": "2026-01-01T00:00:00Z", "version": "test", "network": {"subnet": "10.78.0.0/24"},
        "environment": {"digest": "0" * 64, "closed": {}, "documents": []}, "tasks": [],
        "skew_ns": max(cuts) - min(cuts), "report": {},
        "vms": [{"name": f"four-{i}", "address": f"10.78.0.{i + 2}", "mac": None, "node": "here",
                 "folder": f"vm/four-{i}", "epoch": d["epoch"], "digest": d["digest"],
                 "cut_at": r["cut_at"], "pause_ns": r["pause_ns"]}
                for i, (d, r) in enumerate(zip(done, reports))]}
    with open(f"{folder}/checkpoint-{number}.json", "w", encoding="utf-8") as f:
        f.write(seal(content))


def wisp_checkpoint(what, folder, *args):
    return json.loads(subprocess.run(["wisp", "checkpoint", what, "--json", folder, *args],
                                     stdout=subprocess.PIPE, check=True).stdout)


def restore(machine, folder, *args, code=0):
    done = subprocess.run(["wisp-mover", "restore", "--control", machine.path, "--dir", folder, *args],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60,
                          check=False)
    assert done.returncode == code, (done.returncode, done.stderr)
    return done.stderr


def restored(folder, digest, *args, shape=SHAPE):
    """Goes on from the epoch of that digest, and stays paused until it is resumed."""
    m = incoming(*shape)
    restore(m, folder, "--digest", digest, "--paused", *args)
    assert state(m) == "paused", state(m)
    before = m.rounds()
    time.sleep(0.05)
    assert m.rounds() == before, "it runs"
    m.control.ask("resume")
    m.wait_rounds(3)
    m.stop()


def runs(machine):
    """Within a second."""
    for _ in range(100):
        if state(machine) == "running":
            machine.wait_rounds(1)
            return
        time.sleep(0.01)
    raise AssertionError(f"the VM does not run: {state(machine)}, {machine.output()}")


def four():
    """Four VMs are cut at once, again and again, and go on from each of these."""
    machines = [start("work=4096", *SHAPE) for _ in range(4)]
    folders = [f"{TMP}/four/vm/four-{i}" for i in range(4)]
    kinds = [("--live",), ("--live", "--incremental", "--track"), ("--incremental", "--track"),
             ("--stop", "--compress", "lz4"), ("--live", "--incremental", "--compress", "zstd")]
    for number, kind in enumerate(kinds, 1):
        movers = [Steps(m.path, f, *kind) for m, f in zip(machines, folders)]
        for m in movers:
            ready = m.hear("ready")
            assert ready["remaining"] >= 0 and ready["rate"] > 0, ready
        cuts, resumed = cut_all(movers)
        now = time.time_ns()
        for m, f in zip(machines, folders):
            m.wait_rounds(1)
            assert epochs(f) == list(range(1, number)), "visible before its commit"
        done = commit_all(movers)
        skew = max(c["at"] for c in cuts) - min(c["at"] for c in cuts)
        for c, r, d, f in zip(cuts, resumed, done, folders):
            report = d["report"]
            assert now - 60e9 < c["at"] < now, (c, now)
            assert (report["cut_at"], report["pause_ns"]) == (c["at"], r["pause_ns"]), (c, r, report)
            # Nobody ran before all had stopped.
            assert c["at"] + r["pause_ns"] > max(x["at"] for x in cuts), (cuts, resumed)
            assert d["epoch"] == number and report["digest"] == d["digest"], d
            assert listed(f)[number]["digest"] == d["digest"], listed(f)
            verify(f)
        write_manifest(f"{TMP}/four", number, done)
        for i, (d, f) in enumerate(zip(done, folders)):
            restored(f, d["digest"], *(["--lazy"] if i % 2 else []))
        print(f"4 VMs {' '.join(kind)}: skew {skew / 1e6:.1f} ms, longest pause "
              f"{max(r['pause_ns'] for r in resumed) / 1e6:.1f} ms")
    other = incoming(*SHAPE)
    first = listed(folders[0])[1]["digest"]
    said = restore(other, folders[0], "--digest", first, code=1)
    assert "is not the epoch that was wanted" in said, said
    said = restore(other, folders[0], "--digest", first[:-1] + "g", code=1)
    assert "a digest is sha256: and 64" in said or "is not the epoch" in said, said
    assert "a digest is sha256:" in restore(other, folders[0], "--digest", first[7:], code=1)
    assert state(other) == "incoming"
    restore(other, folders[0], "--at", "1", "--digest", first)
    other.wait_rounds(2)
    other.stop()
    for m in machines:
        m.stop()
    # The folder as that of a job: all of it, and what is left of it, is what was cut.
    job = f"{TMP}/four"
    assert [c["ok"] for c in wisp_checkpoint("verify", job)] == [True] * len(kinds)
    assert wisp_checkpoint("list", job)[0]["vms"] == 4
    removed = wisp_checkpoint("prune", job, "--keep", "1")
    assert removed == {"removed": [1, 2, 3, 4], "epochs": 16, "merged": 4}, removed
    assert [c["ok"] for c in wisp_checkpoint("verify", job)] == [True]
    for d, f in zip(done, folders):
        restored(f, d["digest"])


def advance(mover, step):
    """Up to this step: what it has said last."""
    if step == "begin":
        return
    for said, told in ("ready", "cut"), ("cut", "resume"), ("resumed", None), ("written", "commit"):
        mover.hear(said)
        if said == step:
            return
        if told:
            mover.tell(told)


def given_up():
    """At each step, in each way: the VM runs, nothing is left, earlier epochs are good."""
    folder = f"{TMP}/up"
    m = start("work=4096", *SHAPE)
    mover = Steps(m.path, folder)
    mover.hear("ready")
    cut_all([mover])
    commit_all([mover])

    def gone(mover, code, error):
        said = mover.line(30)
        while said and said["step"] != "failed":
            said = mover.line(30)
        assert said["errno"] == error, said
        assert said["error"] in mover.end(code), said

    ways = {
        "kill": lambda mover: mover.kill(),
        "abort": lambda mover: (mover.tell("abort"), gone(mover, 130, 125)),
        "close": lambda mover: (mover.close(), gone(mover, 130, 125)),
        "signal": lambda mover: (mover.process.send_signal(signal.SIGTERM), gone(mover, 130, 125)),
        "garbage": lambda mover: (mover.write(b"cut\n"), gone(mover, 1, 74)),
        "long": lambda mover: (mover.write(b"x" * 5000), gone(mover, 1, 90)),
        "unknown": lambda mover: (mover.tell("proceed"), gone(mover, 1, 71)),
        "deaf": lambda mover: (mover.process.stdout.close(), mover.close(), mover.process.wait(30)),
    }
    kinds = [("--live",), ("--incremental",), ("--live", "--incremental", "--track"), ()]
    for i, step in enumerate(("begin", "ready", "cut", "resumed", "written")):
        for k, (name, way) in enumerate(ways.items()):
            if (step, name) == ("begin", "signal"):
                continue  # it may come before it is waited for
            mover = Steps(m.path, folder, *kinds[(i + k) % len(kinds)])
            advance(mover, step)
            way(mover)
            runs(m)
            assert epochs(folder) == [1], (step, name, epochs(folder))
            left = [n for n in os.listdir(folder) if n.startswith(".tmp")]
            assert not left or name == "kill", (step, name, left)
            verify(folder)
    # What comes too early: nothing is done by halves.
    for step, word in ("begin", "resume"), ("ready", "resume"), ("ready", "commit"), \
            ("cut", "commit"), ("cut", "cut"), ("written", "resume"):
        mover = Steps(m.path, folder, "--live")
        advance(mover, step)
        mover.tell(word)
        gone(mover, 1, 71)
        runs(m)
    assert epochs(folder) == [1]
    # Killed while it commits: whole or not at all, and the next number either way.
    visible = 0
    for i in range(10):
        before = epochs(folder)
        mover = Steps(m.path, folder, "--live")
        advance(mover, "written")
        mover.tell("commit")
        time.sleep(0.0004 * i)
        mover.process.kill()
        mover.end(None)
        runs(m)
        verify(folder)
        after = epochs(folder)
        assert after in (before, before + [before[-1] + 1]), (before, after)
        visible += after != before
    print(f"{visible} of 10 that were killed after \"commit\" were committed")
    m.stop()


def waits():
    """As long as it takes for "commit", 5 s for "resume"; cut before it is ready."""
    folder = f"{TMP}/waits"
    m = start("work=4096", *SHAPE)
    mover = Steps(m.path, folder, "--live")
    advance(mover, "cut")
    began = time.monotonic()
    said = mover.line(20)
    took = time.monotonic() - began
    assert said["step"] == "failed" and said["errno"] == 110 and 4 < took < 15, (said, took)
    assert "within 5 s of the cut" in mover.end(1)
    runs(m)
    assert epochs(folder) == []
    # The 5 s end a pause in which much is written, and do not if it was told to resume.
    slow = {"LD_PRELOAD": f"{os.environ['WISP_BUILD']}/tests/broken-disk.so", "BROKEN_CALL": "write",
            "BROKEN_PATH": folder, "BROKEN_FROM": "1", "BROKEN_DELAY": "200"}
    for told in False, True:
        mover = Steps(m.path, folder, "--stop", env=slow)
        mover.hear("ready")
        mover.tell("cut")
        mover.hear("cut", 3)
        began = time.monotonic()
        if told:
            mover.tell("resume")
            mover.hear("resumed")
            commit_all([mover])
            assert time.monotonic() - began > 5, "it was not slow"
        else:
            assert mover.line(20)["errno"] == 110
            assert time.monotonic() - began < 15
            mover.end(1)
        runs(m)
    mover = Steps(m.path, folder, "--live")
    mover.tell("cut")
    mover.hear("ready")
    mover.hear("cut")
    mover.tell("resume")
    mover.hear("resumed")
    mover.hear("written")
    time.sleep(6)
    runs(m)
    assert epochs(folder) == [1]
    mover.tell("commit")
    mover.close()
    mover.hear("committed")
    mover.end()
    assert epochs(folder) == [1, 2]
    verify(folder)
    m.stop()


def processor_ms(process):
    with open(f"/proc/{process.pid}/stat", encoding="ascii") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def held():
    """Ready for long: it takes little, and what it is to write in the pause stays little."""
    for words, most in ("dirty=2", 100), ("work=4096", 400):
        folder = f"{TMP}/held-{words[0]}"
        m = start(words, "-m", "96")
        mover = Steps(m.path, folder, "--live", "--downtime", "5")
        mover.hear("ready")
        before = processor_ms(mover.process)
        time.sleep(4)
        used = processor_ms(mover.process) - before
        assert used < most, f"{words}: {used} ms of 4 s"
        mover.tell("cut")
        mover.hear("cut")
        mover.tell("resume")
        mover.hear("resumed")
        done = commit_all([mover])[0]
        restored(folder, done["digest"], shape=("-m", "96"))
        m.stop()
        print(f"held for 4 s, {words}: {used:.0f} ms of a CPU, {len(done['report']['passes'])} rounds")


def suspended():
    """Two VMs are put to sleep together, or run on when that is given up; one that slept before."""
    machines = [start("work=4096", *SHAPE) for _ in range(2)]
    folders = [f"{TMP}/suspend/{i}" for i in range(2)]

    def begin():
        movers = [Steps(m.path, f, "--live", "--suspend") for m, f in zip(machines, folders)]
        for m in movers:
            m.hear("ready")
        cut_all(movers, resumes=False)
        return movers

    for way in (lambda m: (m.tell("abort"), m.end(130)), lambda m: m.kill(),
                lambda m: (m.tell("resume"), m.end(1))):
        for m in begin():
            m.hear("written")
            way(m)
        for m in machines:
            runs(m)
    movers = begin()
    time.sleep(6)
    done = commit_all(movers)
    for m, d, f in zip(machines, done, folders):
        assert state(m) == "paused" and epochs(f) == [1]
        restored(f, d["digest"], "--lazy")
    machines[0].control.ask("resume")
    runs(machines[0])
    # Paused by somebody: it stays so.
    mover = Steps(machines[1].path, folders[1], "--live", "--incremental")
    mover.hear("ready")
    cut_all([mover])
    commit_all([mover])
    assert state(machines[1]) == "paused"
    machines[1].control.ask("resume")
    for m in machines:
        runs(m)
        m.stop()


def disks():
    """A VM with a disk: paused after a restore, lazily or not, it has both, and goes on when told."""
    folder, disk = f"{TMP}/disks", f"{TMP}/disk"
    content = os.urandom(1 << 20) + bytes(7 << 20)
    with open(disk, "wb") as f:
        f.write(content)
    m = start("work=4096", *SHAPE, "--device", f"block,path={disk}")
    mover = Steps(m.path, folder, "--live")
    mover.hear("ready")
    cut_all([mover])
    done = commit_all([mover])[0]
    m.stop()
    for lazy in [], ["--lazy"]:
        with open(disk + "-new", "wb") as f:
            f.truncate(len(content))
        restored(folder, done["digest"], *lazy,
                 shape=(*SHAPE, "--device", f"block,path={disk}-new"))
        with open(disk + "-new", "rb") as f:
            assert f.read() == content, "the disk has something else"


def lazily():
    """Restored lazily and paused, two VMs are resumed at once while most of their memory is to come."""
    folder, shape = f"{TMP}/lazily", ("-m", "256")
    m = start("fill=4096 work=65536", *shape)
    mover = Steps(m.path, folder, "--live")
    mover.hear("ready")
    cut_all([mover])
    digest = commit_all([mover])[0]["digest"]
    m.stop()
    slow = {**os.environ, "LD_PRELOAD": f"{os.environ['WISP_BUILD']}/tests/broken-disk.so",
            "BROKEN_CALL": "read", "BROKEN_PATH": f"{folder}/1/pages", "BROKEN_FROM": "1",
            "BROKEN_DELAY": "10"}
    machines = [incoming(*shape) for _ in range(2)]
    movers = [subprocess.Popen(["wisp-mover", "restore", "--control", x.path, "--dir", folder,
                                "--digest", digest, "--paused", "--lazy"], env=slow,
                               stdout=subprocess.DEVNULL) for x in machines]
    for x in machines:
        for _ in range(1000):
            if state(x) == "paused":
                break
            time.sleep(0.01)
    assert [p.poll() for p in movers] == [None, None], "all memory is there already"
    for x in machines:
        x.control.ask("resume")
    for x, p in zip(machines, movers):
        assert p.wait(60) == 0
        x.wait_rounds(3)
        x.stop()


def failing():
    """A disk that fails at any call: told at that step, and the VM runs."""
    folder = f"{TMP}/broken"
    m = start("fill=4096 work=65536", *SHAPE)
    mover = Steps(m.path, folder)
    advance(mover, "written")
    mover.tell("commit")
    mover.hear("committed")
    mover.end()
    seen, there = set(), [1]
    for call in "write", "sync":
        for number in (*range(1, 12), 100000):
            kind = ("--live",) if number % 2 else ("--stop",)
            mover = Steps(m.path, folder, *kind, env={
                "LD_PRELOAD": f"{os.environ['WISP_BUILD']}/tests/broken-disk.so",
                "BROKEN_CALL": call, "BROKEN_PATH": folder, "BROKEN_FROM": str(number)})
            before, answers = "begin", {"ready": "cut", "cut": "resume", "written": "commit"}
            while (said := mover.line(60))["step"] not in ("failed", "committed"):
                before = said["step"]
                if before in answers:
                    mover.tell(answers[before])
            if said["step"] == "failed":
                assert said["errno"] == 5, said
                seen.add(before)
                mover.end(1)
                assert not [n for n in os.listdir(folder) if n.startswith(".tmp")]
            else:
                mover.end()
                there.append(there[-1] + 1)
            assert epochs(folder) == there, (call, number, epochs(folder))
            runs(m)
            verify(folder)
    assert {"begin", "cut", "resumed"} <= seen, seen
    print(f"failed after {sorted(seen)}")
    m.stop()


def full():
    """A full file system: before the pause, in it, after it."""
    folder = f"{TMP}/full/ck"
    m = start("fill=4096 work=65536", *SHAPE)
    mover = Steps(m.path, folder)
    advance(mover, "written")
    mover.tell("commit")
    mover.hear("committed")
    mover.end()
    seen = set()
    for step in "begin", "ready", "resumed":
        if step == "begin":
            fill(left=1 << 20)
        mover = Steps(m.path, folder, "--live" if step != "ready" else "--stop")
        advance(mover, step)
        if step != "begin":
            fill()
        before, answers = step, {"ready": "cut", "cut": "resume", "written": "commit"}
        if step in answers:
            mover.tell(answers[step])
        while (said := mover.line(60))["step"] not in ("failed", "committed"):
            before = said["step"]
            if before in answers:
                mover.tell(answers[before])
        os.unlink(f"{TMP}/full/filler")
        # What comes last is little, and may have had its room already.
        if said["step"] == "failed":
            assert said["errno"] == 28, said
            seen.add(before)
            assert "No space left on device" in mover.end(1)
            assert epochs(folder) == [1]
        else:
            mover.end()
        assert not [n for n in os.listdir(folder) if n.startswith(".tmp")]
        runs(m)
        verify(folder)
    assert {"begin", "cut"} <= seen, seen
    m.stop()
    print(f"no space left after {sorted(seen)}")


def fill(left=0):
    """Takes all the room there is, but for some."""
    with open(f"{TMP}/full/filler", "wb", buffering=0) as f:
        try:
            while f.write(bytes(1 << 16)):
                pass
        except OSError:
            pass
        f.truncate(f.tell() - left)


def main():
    if sys.argv[3:] == ["full"]:
        full()
        return
    for name in sys.argv[3:]:
        globals()[name]()
    if sys.argv[3:]:
        return
    four()
    given_up()
    waits()
    held()
    suspended()
    disks()
    lazily()
    failing()


main()
