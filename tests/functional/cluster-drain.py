# SPDX-License-Identifier: Apache-2.0
"""A node drains, and VMs of clusters leave it: see cluster-drain.sh. Programs run in VMs of the first node, the second drains."""

import json
import os
import signal
import sys
import time

from two_nodes import NAME, NODES, TMP, Fault, Run, ask, left, logs, run_command, say, two_nodes, until

FIRST, SECOND = NODES
WHY = "a fan is loud"
OTHER = f"{NAME}-other"
DOCUMENT = "name: {}\nvms: {}\nvms-per-node: {}\ncpus: 1\nmemory: {}\n"
DOCUMENTS = {NAME: DOCUMENT.format(NAME, 2, 2, "16M"), OTHER: DOCUMENT.format(OTHER, 2, 1, "16M")}
COUNTS = ["sh", "-c", "n=0; while echo $n; do n=$((n + 1)); sleep 0.1; done"]


def expect(what, got, wanted):
    if got != wanted:
        raise Fault(f"{what}: got {got!r}, not {wanted!r}")


def good(*command):
    text, code = ask(*command)
    if code:
        raise Fault(f"{' '.join(command)}: exit code {code}: {text}")
    return text


def refused(word, *command):
    text, code = ask(*command)
    if code != 1 or word not in text:
        raise Fault(f"{' '.join(command)}: exit code {code}, and nothing of {word!r}: {text}")


def operate(*words):
    """As root, the second node's operator."""
    code = os.spawnlp(os.P_WAIT, "wisp", "wisp", "node", *words, "--socket", f"{SECOND.state}/socket")
    expect(" ".join(words), code, 0)


def facts(node):
    return json.loads(good("wisp", "node", "show", "--json", "--socket", f"{node.state}/socket"))


def drains():
    return facts(SECOND)["draining"]


def places(name=NAME):
    return [vm["node"] for vm in json.loads(good("wisp", "cluster", "show", name, "--json"))["vms"]]


def begin():
    run = Run(*COUNTS)
    until("the program", lambda: run.out or run.ended(), 30)
    expect("places", places(), ["n0", "n1"])
    return run


def goes_on(run):
    """The program in the other VM has noticed nothing."""
    before = len(run.out)
    until("the program goes on", lambda: len(run.out) > before + 2 or run.ended(), 10)
    expect("what it counts", [line for _, line in run.out], [str(n) for n in range(len(run.out))])


def moved(run, seconds=20):
    until("the move", lambda: places() == ["n0", "n0"], seconds)
    until("an empty node", lambda: not left([SECOND]), 10)
    expect("it drains still", drains(), WHY)
    goes_on(run)


def back(run):
    operate("resume")
    expect("it drains", drains(), None)
    good("wisp", "cluster", "migrate", NAME, f"{NAME}-1", "--to", "n1")
    expect("places", places(), ["n0", "n1"])
    goes_on(run)


def noted(run, words):
    return [line for _, line in run.said if "VMs stay at nodes that drain" in line and words in line]


def at_once(run):
    say("VMs leave, and nothing comes")
    operate("drain", WHY)
    moved(run)
    refused(f"draining: {WHY}", *run_command("-q"), f"{OTHER}.yaml", "--", "true")
    refused(f"draining: {WHY}", "wisp", "cluster", "migrate", NAME, f"{NAME}-1", "--to", "n1")
    back(run)
    expect("a cluster of both", good(*run_command("-q"), f"{OTHER}.yaml", "--", "echo", "both").split()[-1], "both")


def without_room(run):
    say("no room elsewhere")
    with open(f"{TMP}/ann/full.yaml", "w", encoding="ascii") as out:
        out.write(DOCUMENT.format(OTHER, 1, 1, f"{(facts(FIRST)['free']['memory'] >> 20) - 8}M"))
    full = Run("sleep", "1000", document="full", nodes=[FIRST])
    until("the other cluster", lambda: full.began("run") or full.ended(), 30)
    if not full.began("run"):
        raise Fault(f"no cluster with all of the memory: {full.text()}")
    operate("drain", WHY)
    until("the reason", lambda: noted(run, f"no node has room for VM {NAME}-1: n0: "), 5)
    expect("places", places(), ["n0", "n1"])
    operate("drain", WHY)
    time.sleep(1)
    expect("what is said of it", len(noted(run, "")), 1)
    expect("it drains still", drains(), WHY)
    goes_on(run)
    good("wisp", "cluster", "stop", OTHER)
    until("its end", full.ended, 20)
    operate("drain", WHY)
    moved(run)
    back(run)


def unheard(run):
    say("the coordinator's daemon is away when it is said")
    FIRST.process.send_signal(signal.SIGKILL)
    FIRST.process.wait()
    operate("drain", WHY)
    FIRST.start()
    moved(run)
    operate("resume")


def as_it_starts():
    say("a cluster that starts just then")
    run = Run(*COUNTS)
    until("its reservation", lambda: run.began("network") or run.ended(), 30)
    operate("drain", WHY)
    until("the program", lambda: run.out or run.ended(), 30)
    moved(run)
    operate("resume")
    end(run)


def end(run):
    good("wisp", "cluster", "stop", NAME)
    until("its end", run.ended, 30)
    until("nothing left", lambda: not left(), 20)


def main():
    with two_nodes(DOCUMENTS):
        try:
            run = begin()
            for part in at_once, without_room, unheard:
                part(run)
            end(run)
            as_it_starts()
        except Fault as fault:
            logs()
            sys.exit(f"FAIL: {fault}; left: {fault.left}")


main()
