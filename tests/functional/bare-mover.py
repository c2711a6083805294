#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints and restores of bare guests by wisp-mover: bare-mover.py GUEST DIRECTORY [CYCLES]

The guest counts in words all over its RAM, and panics when one is not what it was. With CYCLES it
is one guest, saved so often at random moments in random ways, that goes on from every second one.
"""

import atexit
import json
import os
import random
import subprocess
import sys
import time

from vmm_client import Refused, Vmm, available

GUEST, TMP = sys.argv[1:3]
MACHINES = []
GENERATION_PAGE = 0xff000


class Machine:
    """A wisp-vmm with its output; what is asked of it is asked on a connection of its own."""
    count = 0

    def __init__(self, *args):
        Machine.count += 1
        number = Machine.count
        self.path = f"{TMP}/control{number}"
        self.out = f"{TMP}/out{number}"
        with open(self.out, "wb") as out:
            self.process = subprocess.Popen(["wisp-vmm", "--control", self.path, *args],
                                            stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        MACHINES.append(self)
        for _ in range(1500):  # pages of 1 GiB take their time
            try:
                self.state()
                return
            except OSError:
                time.sleep(0.02)
        raise AssertionError(self.output())

    def ask(self, command, **args):
        control = Vmm(self.path)
        try:
            return control.ask(command, **args)
        finally:
            control.close()

    def state(self):
        return self.ask("status")["state"]

    def output(self):
        with open(self.out, "rb") as f:
            return f.read().decode(errors="replace")

    def wait_rounds(self, more):
        want = os.stat(self.out).st_size + more
        for _ in range(3000):
            if os.stat(self.out).st_size >= want:
                return
            assert self.process.poll() is None, self.output()
            time.sleep(0.01)
        raise AssertionError(f"no progress: {self.output()}")

    def stop(self):
        self.ask("stop")
        code = self.process.wait(20)
        assert code == 0, f"exit code {code}: {self.output()}"
        assert "lost" not in self.output(), self.output()


@atexit.register
def end_all():
    for m in MACHINES:
        m.process.kill()


def mover(what, machine, folder, *args, code=0, env=None):
    """Runs wisp-mover; its report, or its words when it is to fail. code None: either."""
    done = subprocess.run(["wisp-mover", what, "--control", machine.path, "--dir", folder, "--json",
                           *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=120, check=False, env={**os.environ, **(env or {})})
    assert done.returncode in ((0, 1) if code is None else (code,)), (done.returncode, done.stderr)
    return done.stderr if done.returncode else json.loads(done.stdout)


def verify(folder):
    subprocess.run(["wisp", "checkpoint", "verify", folder], stdout=subprocess.DEVNULL, check=True)


def restored(folder, *args, at=None, clock="frozen", lazy=False):
    m = Machine("--incoming", *args)
    report = mover("restore", m, folder, "--clock", clock, *(["--at", str(at)] if at else []),
                   *(["--lazy"] if lazy else []))
    m.wait_rounds(3)
    return m, report


def cycle(folder, kinds, *args):
    """Epochs of one machine while it works, each restored at once and again in the end."""
    m = Machine("-k", GUEST, "-a", "work=4096", *args)
    m.wait_rounds(2)
    for i, kind in enumerate(kinds, 1):
        report = mover("checkpoint", m, folder, *kind)
        assert report["epoch"] == i and m.state() == "running", report
        m.wait_rounds(2)
        for lazy in False, True:
            other, _ = restored(folder, *args, clock=("frozen", "elapsed")[i % 2], lazy=lazy)
            other.stop()
        print(f"{' '.join(kind) or 'full'}: {report['pages']} pages, {report['bytes'] >> 10} KiB, "
              f"pause {report['pause_ns'] / 1e6:.1f} ms")
    m.stop()
    for i in range(1, len(kinds) + 1):
        other, _ = restored(folder, *args, at=i)
        other.stop()
    verify(folder)


def suspend(folder, *args):
    """A VM that is suspended stays paused, is ended, and goes on from its checkpoint."""
    m = Machine("-k", GUEST, "-a", "work=4096", *args)
    m.wait_rounds(2)
    mover("checkpoint", m, folder, "--suspend")
    assert m.state() == "paused"
    m.stop()
    m, _ = restored(folder, *args)
    # One that is paused by somebody else stays so.
    m.ask("pause")
    mover("checkpoint", m, folder, "--incremental")
    assert m.state() == "paused"
    m.ask("resume")
    m.wait_rounds(1)
    m.stop()


def refusals(folder, *args):
    m = Machine("-k", GUEST, "-a", "work=4096", *args)
    m.wait_rounds(1)
    os.mkdir(folder)
    assert "has no checkpoint" in mover("restore", m, folder, code=1)
    mover("checkpoint", m, folder)
    assert "started with --incoming" in mover("restore", m, folder, code=1)
    other = Machine("--incoming", "-m", "48")
    assert "start it with the same" in mover("restore", other, folder, code=1)
    assert "nothing to save" in mover("checkpoint", other, folder, code=1)
    other.stop()
    path = f"{folder}/1/pages.0"
    with open(path, "r+b") as f:
        f.seek(4096 * 7 + 5)
        byte = f.read(1)
        f.seek(-1, 1)
        f.write(bytes([byte[0] ^ 1]))
    other = Machine("--incoming", *args)
    assert "is damaged at byte" in mover("restore", other, folder, code=1)
    try:
        other.ask("resume")
        raise AssertionError("a VM with nothing in it was resumed")
    except Refused:
        pass
    other.stop()
    for name, text in (path, "bytes, not the"), (f"{folder}/1/index", "bytes, not the"):
        os.truncate(name, os.stat(name).st_size - 4096)
        other = Machine("--incoming", *args)
        assert text in mover("restore", other, folder, code=1)
        assert other.state() == "incoming"
        other.stop()
    assert m.state() == "running"
    m.stop()


def killed(folder, tries, kinds, *args):
    """Movers that are killed at any moment: the VM runs on, what is there is whole."""
    m = Machine("-k", GUEST, "-a", "work=4096", *args)
    m.wait_rounds(2)
    source = random.Random(5)
    ended = 0
    for i in range(tries):
        process = subprocess.Popen(["wisp-mover", "checkpoint", "--control", m.path, "--dir", folder,
                                    *kinds[i % len(kinds)]], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE)
        time.sleep(source.random() * 0.08)
        process.send_signal((9, 15)[i % 2])
        said = process.communicate()[1]
        ended += process.returncode != 0
        assert process.returncode in (0, -9, 130, -15), (process.returncode, said)
        for _ in range(200):
            if m.state() == "running":
                break
            time.sleep(0.01)
        m.wait_rounds(1)
    report = mover("checkpoint", m, folder)
    verify(folder)
    assert not [n for n in os.listdir(folder) if n.startswith(".tmp")]
    m.stop()
    for times in 0, 1, 2:
        other, again = restored(folder, *args)
        assert again.get("restored_before", {}).get("times", 0) == times, again
        other.stop()
    verify(folder)
    print(f"{ended} of {tries} movers ended early, then epoch {report['epoch']}")


def live(folder, kinds, *args):
    """Checkpoints while the guest writes to all its memory, or to a little of it."""
    m = Machine("-k", GUEST, *args)
    m.wait_rounds(2)
    for i, kind in enumerate(kinds, 1):
        report = mover("checkpoint", m, folder, "--live", *kind)
        assert report["epoch"] == i and m.state() == "running", report
        m.wait_rounds(2)
        other, _ = restored(folder, *args[2:], lazy=bool(i % 2))
        other.stop()
        print(f"live {' '.join(kind)}: passes of {[p['pages'] for p in report['passes']]} pages, "
              f"pause {report['pause_ns'] / 1e6:.1f} ms")
        if i > 1 and "dirty" in args[1]:
            assert report["pages"] < 16384 * 2
    verify(folder)
    m.stop()


def throttled(folder, *args):
    """A guest that writes faster than its disk: it is slower meanwhile, if it may be."""
    m = Machine("-k", GUEST, "-a", "dirty=16", *args)
    m.wait_rounds(2)
    slow = {**broken("write", 1), "BROKEN_PATH": folder, "BROKEN_DELAY": "2"}
    live_ = ("--live", "--downtime", "5")
    free = mover("checkpoint", m, folder, *live_, env=slow)
    # A guest whose vCPUs had no CPU for a whole pass was not too fast.
    for tries in range(1, 6):
        slower = mover("checkpoint", m, folder, *live_, "--throttle", env=slow)
        if all(p["pages"] for p in slower["passes"]):
            break
    passes = [[p["pages"] for p in r["passes"]] for r in (free, slower)]
    # How much slower the guest is: bare-track. Here it has as many more passes as it has steps.
    assert free["throttle"] == 0 and slower["throttle"] >= 20, (free, slower)
    assert len(passes[1]) > len(passes[0]), passes
    print(f"passes of {passes[0]} pages; slowed down by {slower['throttle']} %: {passes[1]}")
    slow["BROKEN_DELAY"] = "60"
    why = mover("checkpoint", m, folder, *live_, "--max-pause", "60", env=slow, code=1)
    assert "would pause for" in why and "--throttle slows it down" in why, why
    epochs = sorted(e for e in os.listdir(folder) if not e.startswith("."))
    assert len(epochs) == 1 + tries and m.state() == "running", epochs
    mover("checkpoint", m, folder, *live_, "--max-pause", "5000", env=slow)
    for option in ("--throttle",), ("--max-pause", "5"):
        assert "are for --live" in mover("checkpoint", m, folder, *option, code=2)
    m.wait_rounds(2)
    other, _ = restored(folder, *args)
    other.stop()
    m.stop()


def read_from_disk(process):
    """Bytes that a process that has ended, and was not waited for, made its disk read."""
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    with open(f"/proc/{process.pid}/io", encoding="ascii") as f:
        return int(f.read().split("read_bytes: ")[1].split()[0])


def many(folder, *args):
    """Four VMs from one epoch at once, lazily or not: each goes on by itself, one disk read."""
    m = Machine("-k", GUEST, "-a", "fill=4096 work=65536", *args)
    m.wait_rounds(2)
    mover("checkpoint", m, folder)
    m.stop()
    pages = [f"{folder}/1/{name}" for name in os.listdir(folder + "/1") if "pages" in name]
    size = sum(os.stat(path).st_size for path in pages)
    for lazy in ["--lazy"], []:
        for path in pages:
            with open(path, "rb") as f:
                os.fsync(f)
                os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        machines = [Machine("--incoming", *args) for _ in range(4)]
        movers = [subprocess.Popen(["wisp-mover", "restore", "--control", other.path, "--dir",
                                    folder, *lazy], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
                  for other in machines]
        read = sum(read_from_disk(process) for process in movers)
        assert not any(process.wait() for process in movers)
        # None where the disk is memory. What two ask for at once may be read twice.
        assert read < size * 1.5, (read, size)
        ids = set()
        for other in machines:
            other.wait_rounds(3)
            control = Vmm(other.path)
            fd, _ = control.memory()
            ids.add(os.pread(fd, 16, GENERATION_PAGE + 0xf00))
            os.close(fd)
            control.close()
        assert len(ids) == 4 and bytes(16) not in ids, ids
        # One that is ended, and one that writes, change nothing of the others.
        machines.pop().stop()
        for other in machines:
            other.wait_rounds(2)
            other.stop()
        print(f"4 VMs from {size >> 20} MiB {' '.join(lazy)}: {read >> 20} MiB read from the disk")
    with open(folder + "/.restored-1", encoding="ascii") as f:
        assert json.load(f)["times"] == 8
    verify(folder)


def memory_of(machine):
    """All of its memory but the page of the generation id, which a copy has anew."""
    control = Vmm(machine.path)
    fd, _ = control.memory()
    control.close()
    size = os.fstat(fd).st_size
    data = os.pread(fd, GENERATION_PAGE, 0) + os.pread(fd, size, GENERATION_PAGE + 4096)
    os.close(fd)
    return data


def same_memory(machine, folder, *args):
    """What the newest epoch restores is what the paused machine has."""
    other = Machine("--incoming", *args)
    mover("restore", other, folder, "--paused")
    assert memory_of(other) == memory_of(machine), "another memory was restored"
    other.stop()


def broken(call, number):
    """The environment of a program whose disk fails from this call on."""
    return {"LD_PRELOAD": f"{os.environ['WISP_BUILD']}/tests/broken-disk.so", "BROKEN_CALL": call,
            "BROKEN_PATH": f"{TMP}/broken", "BROKEN_FROM": str(number)}


def failing_disk(folder, *args):
    """A disk that fails at any call: said, the VM runs on or ends, what was there stays whole."""
    m = Machine("-k", GUEST, "-a", "fill=4096 work=65536", *args)
    m.wait_rounds(1)
    mover("checkpoint", m, folder, "--track")
    told = {}
    for call in "write", "sync", "read":
        for number in (1, 2, 3, 5, 9, 40, 100000):
            kind = [(), ("--live",), ("--incremental", "--track")][number % 3]
            said = mover("checkpoint", m, folder, *kind, code=None, env=broken(call, number))
            if isinstance(said, str):
                assert "Input/output error" in said, said
                told[call] = told.get(call, 0) + 1
            assert m.state() == "running"
            m.wait_rounds(1)
            verify(folder)
            assert not [n for n in os.listdir(folder) if n.startswith(".tmp")]
    assert told.get("write", 0) > 3 and told.get("sync", 0) > 1, told
    m.ask("pause")
    mover("checkpoint", m, folder, "--incremental")
    same_memory(m, folder, *args)
    m.stop()
    for number in (1, 2, 3, 5, 9, 40, 200, 100000):
        for lazy in (), ("--lazy",):
            m = Machine("--incoming", *args)
            said = mover("restore", m, folder, *lazy, code=None, env=broken("read", number))
            if isinstance(said, str):
                assert "Input/output error" in said, said
                told["restore"] = told.get("restore", 0) + 1
                m.process.kill()
                m.process.wait()
            else:
                m.wait_rounds(1)
                m.stop()
            assert "lost 0x" not in m.output(), m.output()
    assert told["restore"] > 5, told
    print(f"calls that failed and were told: {told}")


def tracked(folder, kinds, *args):
    """The VMM logs what is written between checkpoints; whatever becomes of one, nothing is lost."""
    m = Machine("-k", GUEST, "-a", "fill=4096 work=65536", *args)
    m.wait_rounds(2)
    report = mover("checkpoint", m, folder, "--track")
    assert report["log_kept"] and not report["log_used"], report
    whole = report["pages"]
    for kind in kinds:
        m.wait_rounds(2)
        report = mover("checkpoint", m, folder, "--incremental", "--track", *kind)
        assert report["log_used"] and report["log_kept"], report
        assert report["pages"] + report["zero_pages"] < whole / 4, report
        other, _ = restored(folder, *args)
        other.stop()
    # A copy has no log, a full one does without and ends it, and so does one that is not asked.
    m.ask("pause")
    report = mover("checkpoint", m, folder, "--incremental", "--track", "--compress", "lz4")
    same_memory(m, folder, *args)
    m.ask("resume")
    mover("checkpoint", m, folder)
    assert not mover("checkpoint", m, folder, "--incremental", "--track")["log_used"]
    assert mover("checkpoint", m, folder, "--incremental")["log_used"]
    assert not mover("checkpoint", m, folder, "--incremental", "--track")["log_used"]
    # Failed and killed ones.
    source = random.Random(3)
    used = 0
    for i in range(16):
        process = subprocess.Popen(["wisp-mover", "checkpoint", "--control", m.path, "--dir", folder,
                                    "--incremental", "--track", *kinds[i % len(kinds)]],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(source.random() * 0.03)
        process.send_signal((15, 9)[i // 2 % 2])
        process.wait()
        m.wait_rounds(1)
        m.ask("pause")
        used += mover("checkpoint", m, folder, "--incremental", "--track")["log_used"]
        same_memory(m, folder, *args)
        m.ask("resume")
    verify(folder)
    m.stop()
    print(f"log used after {used} of 16 that were to fail")


def killed_lazy(folder, tries, *args):
    """Movers that are killed while they bring memory: others go on, and the guest never knows."""
    m = Machine("-k", GUEST, "-a", "work=4096", *args)
    m.wait_rounds(2)
    mover("checkpoint", m, folder)
    m.stop()
    source = random.Random(9)
    kills = waited = 0
    for _ in range(tries):
        m = Machine("--incoming", *args)
        again = []
        while True:
            process = subprocess.Popen(["wisp-mover", "restore", "--control", m.path, "--dir", folder,
                                        "--lazy", *again], stdout=subprocess.PIPE,
                                       stderr=subprocess.PIPE)
            try:
                out, err = process.communicate(timeout=source.random() * 0.2 * (1 + len(again)))
            except subprocess.TimeoutExpired:
                process.kill()
                out, err = process.communicate()
            if process.returncode != -9:
                break
            kills += 1
            waited += os.path.exists(m.path + ".faults")
            again.append("--again")
        assert process.returncode == 0, (process.returncode, err)
        assert m.process.poll() is None and m.state() == "running", m.output()
        assert not os.path.exists(m.path + ".faults")
        m.wait_rounds(2)
        m.stop()
    assert waited > 0
    print(f"{kills} movers killed in {tries} lazy restores, {waited} of them before all was there")


def failed_lazy(folder, *args):
    """A lazy restore that cannot go on ends the VM, and says why."""
    with open(f"{folder}/1/pages.0", "r+b") as f:
        f.seek(-4096, 2)
        f.write(bytes(4096))
    m = Machine("--incoming", *args)
    assert "is damaged" in mover("restore", m, folder, "--lazy", code=1)
    assert m.process.wait(20) == 14 and "is damaged" in m.output(), m.output()
    m = Machine("--incoming", *args)
    assert "is damaged" in mover("restore", m, folder, "--again", code=1)
    m.stop()


def shapes(folder):
    """RAM on both sides of the PCI hole, four vCPUs; a copy of a copy of a copy."""
    shape = ["-m", "4096", "-c", "4", "--irqchip", "split"]
    if available(9000):
        m = Machine("-k", GUEST, "-a", "fill=1048576 work=65536", *shape)
        m.wait_rounds(1)
        for kind in (), ("--live", "--incremental", "--track"), ("--incremental",):
            mover("checkpoint", m, folder, *kind)
            m.stop()
            m, _ = restored(folder, *shape, lazy=bool(kind))
        m.stop()
        verify(folder)
    else:
        print("left out: 4 GiB are not available twice")


def huge_free(kib=2048):
    try:
        with open(f"/sys/kernel/mm/hugepages/hugepages-{kib}kB/free_hugepages",
                  encoding="ascii") as f:
            return int(f.read())
    except FileNotFoundError:
        return 0


def huge(folder):
    """Pages of 2 MiB: restored at once and lazily, also in turns with small ones; movers killed."""
    if huge_free() < 112:
        print("left out: huge pages (112 of 2 MiB are not free)")
        return
    shape, small = ["-m", "48", "--page-size", "2M"], ["-m", "48"]
    m = Machine("-k", GUEST, "-a", "work=4096", *shape)
    m.wait_rounds(2)
    for i, kind in enumerate(((), ("--incremental",), ("--live",), ("--compress", "lz4")), 1):
        mover("checkpoint", m, folder, *kind)
        m.wait_rounds(1)
        for lazy in False, True:
            other, report = restored(folder, *shape, at=i, lazy=lazy)
            assert not lazy or report["waited"]["faults"], report
            other.stop()
    m.stop()
    other, _ = restored(folder, *small, lazy=True)
    mover("checkpoint", other, folder)
    other.stop()
    other, _ = restored(folder, *shape, lazy=True)
    # A lazy restore leaves nothing behind that another would take for memory.
    mover("checkpoint", other, folder)
    other.stop()
    other, _ = restored(folder, *shape)
    other.stop()
    verify(folder)
    killed_lazy(folder + "-killed", 12, "-m", "128", "--page-size", "2M")
    failed_lazy(folder + "-killed", "-m", "128", "--page-size", "2M")


def too_huge(folder):
    """Pages of 1 GiB are restored, but not lazily: that is said before anything happens."""
    if huge_free(1 << 20) < 1:
        print("left out: a page of 1 GiB")
        return
    m = Machine("-k", GUEST, "-a", "work=4096", "-m", "1024")
    m.wait_rounds(2)
    mover("checkpoint", m, folder)
    m.stop()
    m = Machine("--incoming", "-m", "1024", "--page-size", "1G")
    said = mover("restore", m, folder, "--lazy", code=1)
    assert "no restore with --lazy (leave it out): pages of 1024 MiB" in said, said
    assert m.state() == "incoming"
    mover("restore", m, folder)
    m.wait_rounds(3)
    m.stop()


def soak(cycles, folder, *args):
    source = random.Random(cycles)
    words = ("work=4096", "fill=4096 work=65536")
    m = Machine("-k", GUEST, "-a", source.choice(words), *args)
    m.wait_rounds(1)
    counts, longest, start = {}, 0, time.monotonic()
    for i in range(cycles):
        kind = [o for o in ("--live", "--incremental", "--track") if source.random() < 0.5]
        kind += source.choice([[], [], ["--compress", "lz4"], ["--compress", "zstd"]])
        time.sleep(source.random() * 0.1)
        report = mover("checkpoint", m, folder, *kind)
        longest = max(longest, report["pause_ns"] / 1e6)
        counts["log used"] = counts.get("log used", 0) + report["log_used"]
        if i % 2:
            m.stop()
            MACHINES.remove(m)
            lazy = source.random() < 0.5
            m = Machine("--incoming", *args)
            mover("restore", m, folder, "--clock", source.choice(("frozen", "elapsed")),
                  *(["--lazy"] if lazy else []))
            counts["lazy" if lazy else "eager"] = counts.get("lazy" if lazy else "eager", 0) + 1
            m.wait_rounds(1)
        if i % 10 == 9:
            verify(folder)
            subprocess.run(["wisp", "checkpoint", "prune", folder, "--keep",
                            str(source.randint(1, 3))], stdout=subprocess.DEVNULL, check=True)
    m.stop()
    print(f"{cycles} checkpoints, restored {counts}, longest pause {longest:.0f} ms, "
          f"{time.monotonic() - start:.0f} s")


def main():
    if len(sys.argv) > 3:
        soak(int(sys.argv[3]), f"{TMP}/soak", "-m", "64", "-c", "2")
        return
    plain = [(), ("--incremental",), ("--incremental", "--compress", "lz4"),
             ("--compress", "zstd"), ("--incremental", "--compress", "zstd")]
    cycle(f"{TMP}/a", plain, "-m", "64")
    cycle(f"{TMP}/b", plain[:2], "-m", "96", "-c", "2")
    suspend(f"{TMP}/c", "-m", "48")
    refusals(f"{TMP}/d", "-m", "64")
    live(f"{TMP}/f", [(), ("--incremental",), ("--compress", "lz4")], "-a", "work=4096", "-m", "64")
    live(f"{TMP}/g", [(), ("--incremental", "--downtime", "10")], "-a", "dirty=2", "-m", "256")
    throttled(f"{TMP}/t", "-m", "48", "-c", "2")
    many(f"{TMP}/n", "-m", "96", "-c", "2")
    tracked(f"{TMP}/i", [(), ("--live",), ("--compress", "zstd")], "-m", "64", "-c", "2")
    failing_disk(f"{TMP}/broken", "-m", "64")
    shapes(f"{TMP}/s")
    huge(f"{TMP}/p")
    too_huge(f"{TMP}/large")
    killed(f"{TMP}/e", 20, [(), ("--incremental",), ("--compress", "lz4"), ("--live",),
                            ("--live", "--incremental")], "-m", "64")
    killed_lazy(f"{TMP}/h", 12, "-m", "128")
    failed_lazy(f"{TMP}/h", "-m", "128")


main()
