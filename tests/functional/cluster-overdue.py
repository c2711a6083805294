# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that a rule wants are counted by the nodes: see cluster-overdue.sh."""

import os
import sqlite3
import time

from node_client import Client
from two_nodes import GRACE, NAME, NODES, TMP, Fault, Run, ask, left, logs, say, two_nodes, until

EVERY = 1800
SLACK = 900  # CLUSTER_SAVE_GRACE of src/node/cluster.h
DOCUMENT = "name: {}\nvms: {}\nvms-per-node: 1\ncpus: 1\nmemory: 16M\ncheckpoint: {{interval: 30m, directory: {}/ann/kept, mode: live}}\n"
RULE = "rule: often\nbecause: nodes fail\ncheckpoint: {interval: ..1h}\n"
SLEEP = ["sh", "-c", "echo runs; exec sleep 1000"]


def expect(what, got, wanted):
    if got != wanted:
        raise Fault(f"{what}: got {got!r}, not {wanted!r}")


def of_store(node, sql):
    """A row of its database, which the daemon has open as well."""
    store = sqlite3.connect(f"{node.state}/node.db", timeout=10)
    try:
        row = store.execute(sql).fetchone()
        store.commit()
        return row
    finally:
        store.close()


def saved(node):
    return of_store(node, "SELECT save_every, saved FROM cluster")


def later(node, seconds):
    """As if so much time had gone by there; a daemon looks when somebody leaves."""
    of_store(node, f"UPDATE cluster SET saved = saved - {seconds}")
    Client(f"{node.state}/socket").close()


def begin():
    run = Run(*SLEEP)
    until("the program", lambda: run.out or run.ended(), 30)
    if run.ended():
        raise Fault(f"it does not run: {run.text()}")
    return run


def counted():
    print("a checkpoint of all VMs counts at each node, and time begins anew", flush=True)
    run = begin()
    before = [saved(node) for node in NODES]
    expect("what the rule leaves", [every for every, _ in before], [EVERY, EVERY])
    if not all(0 <= time.time() - at < 60 for _, at in before):
        raise Fault(f"the time from which it counts: {before}")
    for node in NODES:
        later(node, EVERY)
    text, code = ask("wisp", "cluster", "checkpoint", NAME, "--to", f"{TMP}/ann/saved")
    expect(f"a checkpoint: {text}", code, 0)
    for node in NODES:
        if time.time() - saved(node)[1] > 60:
            raise Fault(f"{node.name} does not know of the checkpoint: {saved(node)}")
    return run


def overdue(run):
    print("without one the node ends the cluster, and says why", flush=True)
    later(NODES[1], 2 * EVERY + SLACK - 60)
    time.sleep(1)
    expect("it runs", run.ended(), False)
    later(NODES[1], 60)
    until("the end of wisp run", run.ended, 30)
    if run.process.returncode == 0 or "node n1 ends it: a rule of this node wants a checkpoint every 1800 s" not in run.text():
        raise Fault(f"how it ended: {run.process.returncode}: {run.text()}")
    until("nothing left", lambda: not left(), GRACE + 15)


def main():
    os.mkdir(f"{TMP}/policy")
    with open(f"{TMP}/policy/often.yaml", "w", encoding="ascii") as out:
        out.write(RULE)
    for node in NODES:
        node.options = ["--policy", f"{TMP}/policy"]
    with two_nodes({NAME: DOCUMENT.format(NAME, 2, TMP)}):
        try:
            overdue(counted())
        except Fault as fault:
            say(f"FAIL: {fault}; left: {fault.left}")
            logs()
            raise SystemExit(1) from fault


main()
