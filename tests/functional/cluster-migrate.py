# SPDX-License-Identifier: Apache-2.0
"""Several VMs of a cluster move at once: see cluster-migrate.sh. VMs 0 to 2 begin at the first node, 3 to 5 at the second."""

import json
import os
import signal
import subprocess
import sys
import time

from two_nodes import NAME, NODES, Fault, Run, ann, ask, left, logs, processes, read, say, two_nodes, until

DOCUMENT = f"name: {NAME}\nvms: 6\nvms-per-node: 6\ncpus: 1\nmemory: 32M\ncmdline: [--, fill=512]\n"
THREE = [f"{NAME}-{i}" for i in (3, 4, 5)]
COUNTS = ["sh", "-c", "n=0; while echo $n; do n=$((n + 1)); sleep 0.1; done"]
MIB = 1 << 20
BANDWIDTH = 64 * MIB


def expect(what, got, wanted):
    if got != wanted:
        raise Fault(f"{what}: got {got!r}, not {wanted!r}")


def places():
    text, code = ask("wisp", "cluster", "show", NAME, "--json")
    if code:
        raise Fault(f"wisp cluster show: {text}")
    return [vm["node"] for vm in json.loads(text)["vms"]][3:]


class Move:
    """wisp cluster migrate, and what it says of each VM as it goes."""

    def __init__(self, to, *options, names=THREE):
        self.names = names
        self.process = ann("wisp", "cluster", "migrate", NAME, *names, "--to", to, *options, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def wait(self, code=0):
        text = self.process.communicate(timeout=60)[0]
        if self.process.returncode != code:
            raise Fault(f"the move ended with {self.process.returncode}: {text}")
        return text

    def order(self):
        """Of "goes" and "runs" (it is there), as they are told."""
        lines = [line.split() for line in self.wait().splitlines()]
        return [words[1] for words in lines if words and words[0].rstrip(":") in self.names]


def goes_on(run):
    before = len(run.out)
    until("the program goes on", lambda: len(run.out) > before + 2 or run.ended(), 10)
    expect("what it counts", [line for _, line in run.out], [str(n) for n in range(len(run.out))])


def at_once(run):
    say("all at once, and one after the other")
    expect("the order", Move("n0", "--bandwidth", "64M").order(), ["goes"] * 3 + ["runs"] * 3)
    expect("places", places(), ["n0"] * 3)
    expect("the order", Move("n1", "--parallel", "1").order(), ["goes", "runs"] * 3)
    expect("places", places(), ["n1"] * 3)
    goes_on(run)


def limited(run):
    say("a bandwidth for all of them")
    answer = json.loads(Move("n0", "--bandwidth", "64M", "--json").wait())
    expect("what became of them", [vm["state"] for vm in answer["vms"]], ["moved"] * 3)
    sent = sum(vm["report"]["bytes"] for vm in answer["vms"])
    say(f"{sent / MIB:.0f} MiB in {answer['ms'] / 1000:.1f} s")
    if sent < 48 * MIB:
        raise Fault(f"{sent} bytes are less than what the guests have written")
    if sent / (answer["ms"] / 1000) > 1.15 * BANDWIDTH:
        raise Fault(f"{sent} bytes in {answer['ms']} ms are more than {BANDWIDTH} a second")
    goes_on(run)


def vmm_of(vm):
    for pid in processes("wisp-vmm"):
        if f"--name={vm}" in read(f"/proc/{pid}/cmdline").split("\0"):
            return pid
    raise Fault(f"{vm} has no VMM")


def senders(at=0):
    return [pid for pid, (_, node) in processes("wisp-mover").items() if node == at]


def one_killed(run):
    say("one of three movers is killed")
    move = Move("n1", "--bandwidth", "32M")
    until("three movers", lambda: len(senders()) >= 3, 20)
    time.sleep(0.5)
    os.kill(senders()[0], signal.SIGKILL)
    text = move.wait(1)
    expect("who has moved", sorted(places()), ["n0", "n1", "n1"])
    stayed = THREE[places().index("n0")]
    if f"{stayed} is still at n0, not at n1: " not in text:
        raise Fault(f"nobody says why {stayed} has stayed: {text}")
    Move("n1", names=[stayed]).wait()
    expect("places", places(), ["n1"] * 3)
    goes_on(run)


def given_up(run):
    say("a move of three, two of them at once, is interrupted")
    move = Move("n0", "--bandwidth", "8M", "--parallel", "2")
    until("two movers", lambda: len(senders(1)) >= 2, 20)
    time.sleep(0.3)
    move.process.send_signal(signal.SIGINT)
    begun = time.monotonic()
    text = move.wait(1)
    if time.monotonic() - begun > 5:
        raise Fault(f"it takes {time.monotonic() - begun:.1f} s to give it up")
    expect("places", places(), ["n1"] * 3)
    for vm, why in zip(THREE, ("cancelled", "cancelled", "the migration was given up")):
        if not any(f"{vm} is still at n1, not at n0: " in line and why in line for line in text.splitlines()):
            raise Fault(f"nobody says why {vm} has stayed: {text}")
    expect("movers", senders(1), [])
    goes_on(run)
    Move("n0", "--bandwidth", "64M").wait()
    expect("places", places(), ["n0"] * 3)
    Move("n1").wait()
    goes_on(run)


def gone_before(run):
    say("a VM ends when it is about to go")
    vmm = vmm_of(THREE[0])
    move = Move("n0", names=THREE[:1])
    move.process.stdout.readline()
    os.kill(vmm, signal.SIGKILL)
    move.wait(1)
    until("the end of wisp run", run.ended, 10)
    if not any(f"VM {THREE[0]} at node n1 has ended: killed by signal 9" in line for _, line in run.said):
        raise Fault(f"nobody says why it has ended: {run.said}")


def main():
    with two_nodes({NAME: DOCUMENT}):
        try:
            run = Run(*COUNTS)
            until("the program", lambda: run.out or run.ended(), 30)
            expect("places", places(), ["n1"] * 3)
            for part in at_once, limited, one_killed, given_up, gone_before:
                part(run)
            until("nothing left", lambda: not left(), 20)
        except Fault as fault:
            logs()
            sys.exit(f"FAIL: {fault}; left: {fault.left}")


main()
