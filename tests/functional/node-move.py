# SPDX-License-Identifier: Apache-2.0
"""VMs that move between two nodes: see node-move.sh. Asks as a coordinator does.

    node-move.py WISPD STATE CGROUPS HOMES
"""

import errno
import glob
import os
import re
import signal
import time

from node_client import Client, Refused
from node_users import DOCUMENT, RUN, STATE, USERS, VNI, digest, end_all, expect, make_home, make_key, read, start_daemon, until
from vmm_client import Vmm

LU = f"lu-{RUN}"
HOST = {"name": "lu-0", "address": "10.78.0.2"}
STATES = [STATE, STATE + "-n1"]
SECRET = "a secret of ann alone"


def pids(program, place):
    """Of ann's processes at a node."""
    found = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            if os.path.basename(read(path).split("\0")[0]) == program and f"WISP_RUN={STATES[place]}/user/7001\0" in read(path[:-7] + "environ"):
                found.append(int(path.split("/")[2]))
        except OSError:
            pass
    return found


def state(place):
    """Of the VM there, as its VMM says; None: there is none."""
    try:
        vmm = Vmm(f"{STATES[place]}/user/7001/vm/lu-0/control", 5)
        answer = vmm.ask("status")["state"]
        vmm.close()
        return answer
    except (OSError, Exception):
        return None


def running():
    return [place for place in (0, 1) if state(place) == "running"]


class Coordinator:
    def __init__(self):
        port = re.findall(r"at 127.0.0.1 port (\d+)", read(f"{STATE}/../log"))
        self.nodes = ["n0", f"n1@127.0.0.1:{port[1]}"]
        self.client = None

    def join(self):
        if self.client:
            self.client.close()
        os.seteuid(USERS["ann"])
        self.client = Client(f"{STATE}/socket")
        os.seteuid(0)
        self.client.ask("join", session=SECRET, place=0, nodes=self.nodes, fan=16)

    def begin(self, op, place, **members):
        return self.client.begin(op, to=str(place), cluster=LU, **members)

    def finish(self, request, place, seconds=30):
        answer = self.client.finish(request, seconds)
        if answer["errors"]:
            raise Refused(answer["errors"][place])
        return answer["values"].get(place)

    def ask(self, op, place, **members):
        return self.finish(self.begin(op, place, **members), place)

    def prepare(self, place):
        self.ask("reserve", place, documents=[{"name": "test", "text": DOCUMENT}], digest=digest(DOCUMENT), vms=[HOST])
        self.ask("network", place, vni=VNI + place, subnet="10.78.0.0/24", nodes=["127.0.0.1"])

    def move(self, to, **options):
        """Begins it: the requests at the new node and at the old one."""
        token = os.urandom(32).hex()
        receive = self.begin("receive", to, vm="lu-0", image="bare", hosts=[HOST], token=token, listen="127.0.0.1", ready=False)
        self.target = self.client.event("progress")[1]["listening"]
        return receive, self.begin("send", 1 - to, vm="lu-0", target=self.target, token=token, **options)

    def again(self, op, place, **members):
        """0, or the error of that node."""
        try:
            self.ask(op, place, vm="lu-0", again=True, **members)
            return 0
        except Refused as refused:
            return refused.errno

    def end(self, place):
        """The VM there, which may be just ending by itself."""
        try:
            self.ask("stop", place, vms=["lu-0"], kill=True)
        except Refused as refused:
            expect("stop of what has ended", refused.errno, errno.ENOENT)

    def settle(self, receive):
        """Where it is, of a move to n1 whose `send` has ended somehow: both are asked until they agree."""
        end = time.monotonic() + 40
        while time.monotonic() < end:
            there = None
            if receive in self.client.answers:
                there = self.again("receive", 1, image="bare", hosts=[HOST], listen="127.0.0.1")
            here = self.again("send", 0, target=self.target)
            if len(running()) > 1:
                raise SystemExit("FAIL: it runs twice")
            if there == 0 and here == 0:
                return 1
            if here == errno.EALREADY and there == errno.ENOENT:
                return 0
            if here == errno.EALREADY:
                self.end(1)
            time.sleep(0.2)
        raise SystemExit(f"FAIL: not settled: {there}, {here}, {[state(0), state(1)]}")


def there_and_back(c):
    print("there and back", flush=True)
    for to in (1, 0):
        c.prepare(to)
        receive, send = c.move(to)
        report = c.finish(send, 1 - to)["lu-0"]
        c.finish(receive, to)
        expect("outcome", report["outcome"], "moved")
        expect("its end there", c.client.event("vm-ended")[1]["end"]["reason"], "moved to another node")
        expect("where it runs", running(), [to])
        c.ask("release", 1 - to, vms=["lu-0"])
        try:
            c.ask("release", to, vms=["lu-0"])
            raise SystemExit("FAIL: what runs was released")
        except Refused as refused:
            expect("what runs", refused.errno, errno.EBUSY)


def killed(c, what, victims, after):
    """A move to n1 whose processes are killed: it is at one place, and the next one succeeds."""
    c.prepare(1)
    receive, send = c.move(1, bandwidth=8 << 20)
    time.sleep(after)
    for program, place in victims:
        for pid in pids(program, place):
            os.kill(pid, signal.SIGKILL)
    try:
        c.finish(send, 0)
    except Refused:
        pass
    where = c.settle(receive)
    until(what, lambda: running() == [where])
    print(f"{what}: killed after {after} s it runs at n{where}", flush=True)
    c.end(1 - where)
    until("the end of the other", lambda: state(1 - where) is None)
    if where == 0:
        until("release", lambda: released(c, 1))
        c.prepare(1)
        receive, send = c.move(1)
        c.finish(send, 0)
        c.finish(receive, 1)
    expect("the second move", running(), [1])
    until("release", lambda: released(c, 0))
    c.prepare(0)
    receive, send = c.move(0)
    c.finish(send, 1)
    c.finish(receive, 0)
    until("release", lambda: released(c, 1))
    expect("the way back", running(), [0])


def released(c, place):
    try:
        c.ask("release", place, vms=["lu-0"])
        return True
    except Refused as refused:
        expect("release", refused.errno, errno.EBUSY)
        return False


def main():
    make_key()
    for name, uid in USERS.items():
        make_home(name, uid)
    daemons = [start_daemon(f"n{place}", STATES[place]) for place in (0, 1)]
    try:
        c = Coordinator()
        c.join()
        c.prepare(0)
        c.ask("start", 0, hosts=[HOST], image="bare", vms=["lu-0"])
        there_and_back(c)
        # A daemon does not start a part that dies more than 5 times a minute.
        for after in 0.1, 0.5:
            killed(c, "the source's part", [("wisp-part", 0)], after)
            killed(c, "the target's part", [("wisp-part", 1)], after)
            killed(c, "both parts", [("wisp-part", 0), ("wisp-part", 1)], after)
        for after in 0.1, 0.5, 1.3:
            killed(c, "the movers", [("wisp-mover", 0), ("wisp-mover", 1)], after)
        for place in (0, 1):
            c.ask("release", place)
        c.client.close()
        for daemon in daemons:
            daemon.terminate()
            expect("wispd's exit code", daemon.wait(20), 0)
    finally:
        for daemon in daemons:
            if daemon.poll() is None:
                daemon.kill()
        end_all()


main()
