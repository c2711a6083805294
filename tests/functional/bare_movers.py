# SPDX-License-Identifier: Apache-2.0
"""Pairs of wisp-movers between bare guests, for tests of migrations."""

import json
import os
import socket
import subprocess
import time

from bare_machine import GUEST, TMP, Machine, incoming
from vmm_client import Vmm

TOKEN = f"{TMP}/token"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_listening(address):
    """Without a connection, which would be one that says nothing."""
    kind, path = address.split(":", 1)
    port = "" if kind == "unix" else f":{int(path.rsplit(':', 1)[1]):04X} 00000000:0000 0A"
    for _ in range(500):
        with open(f"/proc/net/{kind}", encoding="ascii") as f:
            if (path if kind == "unix" else port) in f.read():
                return
        time.sleep(0.01)
    raise AssertionError(f"nobody listens at {address}")


class Movers:
    """A pair of movers between two machines."""
    count = 0

    def __init__(self, old, new, tcp=False, options=(), receives=None):
        Movers.count += 1
        self.base = f"{TMP}/m{Movers.count}"
        self.address = f"tcp:127.0.0.1:{free_port()}" if tcp else f"unix:{self.base}.sock"
        self.old, self.new, self.options = old, new, options
        if receives is None:
            receives = [o for o in options if o.endswith("tls")]
        self.receiver = self.receive(*receives)
        wait_listening(self.address)
        self.sender = self.send()

    def start(self, what, machine, *args):
        return subprocess.Popen(["wisp-mover", what, "--control", machine.path, "--token", TOKEN,
                                 "--record", f"{self.base}.{what}", *args],
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True)

    def receive(self, *args):
        return self.start("receive", self.new, "--listen", self.address, *args)

    def send(self, *args):
        return self.start("send", self.old, "--to", self.address, "--json", *self.options, *args)

    def again(self, what):
        """A mover that died goes on, if it left a record."""
        if os.path.exists(f"{self.base}.{what}"):
            setattr(self, what + "er" if what == "send" else "receiver",
                    getattr(self, what)("--again"))


def state(machine):
    """running, paused..., or dead. On a connection of its own."""
    try:
        control = Vmm(machine.path)
    except OSError:
        return "dead"
    try:
        return control.ask("status")["state"]
    except (OSError, ValueError, AssertionError):
        return "dead"
    finally:
        control.close()


def end_of(process, code=0):
    out, err = process.communicate(timeout=60)
    assert code is None or process.returncode == code, (process.returncode, err)
    return out, err


def start(work, *args, rounds=2):
    """A guest that has gone through its memory so often."""
    m = Machine("-k", GUEST, "-a", work, *args)
    m.wait_rounds(rounds)
    return m


def pair(args, tcp=False, options=(), receives=None, work="work=4096"):
    """A guest, an empty machine like it, and movers that have begun."""
    m = start(work, *args)
    new = incoming(*args)
    return m, new, Movers(m, new, tcp, options, receives)


def survivor(old, new, movers, what=None):
    """The one that runs; exactly one does. The other machine and the receiver end."""
    time.sleep(0.05)
    states = state(old), state(new)
    assert states.count("running") == 1, (what, states)
    loser, winner = (old, new) if states[1] == "running" else (new, old)
    # A source that knows does not come to tell one that was started again.
    movers.receiver.terminate()
    end_of(movers.receiver, None)
    loser.process.kill()
    loser.process.wait()
    return winner


def migrate(old, args, tcp=False, options=()):
    new = incoming(*args)
    movers = Movers(old, new, tcp, options)
    report = json.loads(end_of(movers.sender)[0])
    end_of(movers.receiver)
    assert old.process.wait(20) == 0, old.output()
    assert "lost" not in old.output(), old.output()
    assert state(new) == "running"
    new.wait_rounds(2)
    print(f"{' '.join(options) or 'plain'}: {report['round_count']} rounds, {report['pages']} pages, "
          f"downtime {report['downtime_ns'] / 1e6:.1f} ms")
    return new, report


def write_token():
    with open(TOKEN, "w", encoding="ascii") as f:
        f.write(os.urandom(32).hex() + "\n")
