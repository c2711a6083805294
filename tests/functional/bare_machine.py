# SPDX-License-Identifier: Apache-2.0
"""Bare guests in wisp-vmm, for tests that save, move and follow them. Used with arguments
GUEST DIRECTORY; VMMs that are left at the end are killed."""

import atexit
import os
import subprocess
import sys
import time

from vmm_client import Refused, Vmm, content, copy_memory, memfd

GUEST, TMP = sys.argv[1:3]
GENERATION = 0xfff00  # where the guest finds its generation id


class Machine:
    """A wisp-vmm with its control connection and its output."""
    count = 0
    all = []

    def __init__(self, *args):
        Machine.count += 1
        self.path = f"{TMP}/control{Machine.count}"
        self.out = f"{TMP}/out{Machine.count}"
        with open(self.out, "wb") as out:
            self.process = subprocess.Popen(["wisp-vmm", "--control", self.path, *args],
                                            stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        Machine.all.append(self.process)
        self.control = None
        for _ in range(1500):  # pages of 1 GiB take their time
            try:
                self.control = Vmm(self.path)
                break
            except OSError:
                time.sleep(0.02)
        assert self.control, self.output()

    def output(self):
        with open(self.out, "rb") as f:
            return f.read().decode(errors="replace")

    def rounds(self):
        return os.stat(self.out).st_size

    def wait_rounds(self, more):
        want = self.rounds() + more
        for _ in range(2000):
            if self.rounds() >= want:
                return
            assert self.process.poll() is None, self.output()
            time.sleep(0.01)
        raise AssertionError(f"no progress: {self.output()}")

    def stop(self):
        self.control.ask("stop")
        code = self.process.wait(20)
        assert code == 0, f"exit code {code}: {self.output()}"
        assert "lost" not in self.output(), self.output()
        self.control.close()


@atexit.register
def end_all():
    for process in Machine.all:
        process.kill()


def incoming(*args):
    m = Machine("--incoming", *args)
    assert m.control.ask("status")["state"] == "incoming"
    return m


def refused(machine, command, text, fd=None, **args):
    try:
        machine.control.ask(command, fd=fd, **args)
    except Refused as e:
        assert text in str(e), f"{command}: {e}, not {text}"
        return e.errno
    raise AssertionError(f"{command} was not refused")


def move(old, clock, *args):
    """Stops old; the machine that goes on from its state."""
    blob, again = memfd(), memfd()
    old.control.ask("pause")
    saved = old.control.ask("save", fd=blob)
    assert saved["bytes"] == len(content(blob)) and saved["cpu"]["features"]
    time.sleep(0.01)
    old.control.ask("save", fd=again)
    assert content(blob) == content(again), "two saves of one pause differ"
    new = incoming(*args)
    source, layout = old.control.memory()
    target, other = new.control.memory()
    assert layout == other
    copy_memory(source, target)
    new.control.ask("load", fd=blob, clock=clock)
    assert new.control.ask("status")["state"] == "paused"
    assert saved["devices"] == list(new.control.ask("stats")["devices"])
    new.control.ask("resume")
    ids = [os.pread(fd, 16, GENERATION) for fd in (source, target)]
    assert ids[0] != ids[1], "the copy has the generation id of the other"
    for fd in (blob, again, source, target):
        os.close(fd)
    old.stop()
    return new
