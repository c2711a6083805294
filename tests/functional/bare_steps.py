# SPDX-License-Identifier: Apache-2.0
"""wisp-mover checkpoint --steps, told its steps (docs/formats/checkpoint-steps.md); and many at once."""

import json
import os
import select
import subprocess
import time


class Steps:
    """One wisp-mover. env: what its environment has besides."""

    def __init__(self, control, folder, *args, env=None, mover="wisp-mover"):
        self.process = subprocess.Popen(
            [mover, "checkpoint", "--steps", "--control", control, "--dir", folder, *args],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, **(env or {})})
        self.data = b""
        self.last = None

    def line(self, timeout):
        """The next line that is more than a sign of life, or None at the end."""
        said = self.any_line(timeout)
        while said and said["step"] == "progress":
            said = self.any_line(timeout)
        return said

    def any_line(self, timeout):
        end = time.monotonic() + timeout
        fd = self.process.stdout.fileno()
        while b"\n" not in self.data:
            if not select.select([fd], [], [], max(end - time.monotonic(), 0))[0]:
                raise AssertionError(f"nothing heard within {timeout} s, last {self.last}")
            more = os.read(fd, 65536)
            if not more:
                assert not self.data, self.data
                return None
            self.data += more
        line, self.data = self.data.split(b"\n", 1)
        self.last = json.loads(line)
        return self.last

    def hear(self, step, timeout=60):
        said = self.line(timeout)
        assert said and said["step"] == step, f"{said}, not {step}: {self.words(said)}"
        return said

    def words(self, said):
        return self.process.stderr.read().decode() if said is None else ""

    def tell(self, step):
        self.write(json.dumps({"step": step}).encode() + b"\n")

    def write(self, data):
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def close(self):
        self.process.stdin.close()

    def end(self, code=0):
        """Its last words on standard error."""
        got = self.process.wait(60)
        said = self.process.stderr.read().decode()
        for f in self.process.stdin, self.process.stdout, self.process.stderr:
            f.close()
        assert code is None or got == code, f"exit code {got}, not {code}: {said}"
        return said

    def kill(self):
        self.process.kill()
        self.end(-9)


def cut_all(movers, resumes=True):
    """Cuts, waits for all, resumes. What each said: cut, and resumed."""
    for m in movers:
        m.tell("cut")
    cuts = [m.hear("cut") for m in movers]
    if not resumes:
        return cuts, []
    for m in movers:
        m.tell("resume")
    return cuts, [m.hear("resumed") for m in movers]


def commit_all(movers):
    """When all is written it becomes visible; what each said at last."""
    written = [m.hear("written") for m in movers]
    for m in movers:
        m.tell("commit")
    done = [m.hear("committed") for m in movers]
    for m, w, d in zip(movers, written, done):
        assert (w["epoch"], w["digest"]) == (d["epoch"], d["digest"]), (w, d)
        m.end()
    return done
