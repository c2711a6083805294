# SPDX-License-Identifier: Apache-2.0
"""Clusters over two nodes, of which a process is killed: see cluster-faults.sh. Of $WISP_FAULTS: some, all,
or WHO@PHASE[,WHO@PHASE...]; $SEED repeats the moments of an earlier time.
"""

import glob
import json
import os
import random
import signal
import subprocess
import sys
import time

from vmm_client import Vmm, Refused
from two_nodes import NAME, NODES, GRACE, STAGES, TMP, Fault, Run, ann, ask, kill_all, left, logs, processes, read, run_command, say, two_nodes, until

WHICH = os.environ.get("WISP_FAULTS") or "some"
SEED = int(os.environ.get("SEED") or random.randrange(1 << 32))
CHANCE = random.Random(SEED)
NOTICED = 5  # seconds in which the others have to know
PHASES = STAGES + ["run", "checkpoint", "move", "stop"]
WHO = ["wispd0", "wispd1", "part0", "part1", "keeper0", "keeper1", "vmm0", "vmm1", "mover0", "mover1", "job", "helper0", "helper1",
       "agent0", "agent1", "run", "command"]
# Those of `make check`: each kind of process once or twice.
SOME = ["wispd0@checkpoint", "wispd1@start", "part1@start", "keeper1@run", "vmm1@run", "mover1@checkpoint", "job@start",
        "helper0@network", "run@run", "wispd0@stop"]
COMM = {"part": "wisp-part", "keeper": "wisp-keeper", "vmm": "wisp-vmm", "mover": "wisp-mover", "job": "wisp-job", "helper": "wisp-node-helpe",
        "agent": "wisp-agent"}
DOCUMENT = f"name: {NAME}\nvms: 2\nvms-per-node: 2\ncpus: 1\nmemory: 16M\ncheckpoint: {{mode: live}}\n"
# Its VMs have something that takes a while to go.
MOVES = DOCUMENT.replace("16M", "64M") + "cmdline: [--, fill=512]\n"
MOVER = f"{NAME}-1"  # from n1 to n0; the program is in the other VM
MOVE_SECONDS = 2.1


def find(who, run):
    """Its pid, or None."""
    if who == "run":
        return run.process.pid
    if who == "command":
        return run.command.pid
    if who.startswith("wispd"):
        return NODES[int(who[-1])].process.pid
    kind = who.rstrip("01")
    if kind == "helper":
        wispd = NODES[int(who[-1])].process.pid
        return next((int(pid) for pid in read(f"/proc/{wispd}/task/{wispd}/children").split()), None)
    for pid, (comm, node) in processes(COMM[kind]).items():
        if (kind == "job" or node == int(who[-1])):
            return pid
    return None


# -------- a case --------

def strike(who, run, patience, span):
    """Kills it, when it is there, some moment in a span; the time, or None."""
    end = time.monotonic() + patience
    pid = find(who, run)
    while pid is None and time.monotonic() < end:
        time.sleep(0.0005)
        pid = find(who, run)
    if pid is None:
        return None
    time.sleep(CHANCE.random() * span)
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return None
    when = time.monotonic()
    for node in NODES:
        if node.process.pid == pid:
            node.process.wait()
    return when


def wait_for_stage(run, stage):
    until(f"stage {stage}", lambda: run.began(stage) or run.ended(), 15)
    if not run.began(stage):
        raise Fault(f"before it was to be struck: {run.text()}")


def nap(who, most):
    """Who is there for a moment only is waited for."""
    if who.rstrip("01") not in ("mover", "helper"):
        time.sleep(CHANCE.choice([0, CHANCE.random() * 0.1, CHANCE.random() * most]))


def begin(*words):
    return ann("wisp", "cluster", *words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def begin_move(place):
    return begin("migrate", NAME, MOVER, "--to", place, "--bandwidth", "24M")


def strike_in_move(who, run):
    """At its beginning, some time, or as it is handed over."""
    run.command = begin_move("n0")
    at, end = CHANCE.choice([(0, 0.2), (0, MOVE_SECONDS), (MOVE_SECONDS - 0.3, MOVE_SECONDS + 0.2)])
    time.sleep(at)
    return strike(who, run, 1, end - at)


def strike_in(who, phase, run, folder):
    """The moment, or None; a command that was under way is run.command."""
    # A helper has done its work before that is heard.
    wait_for_stage(run, "reserve" if (who[:6], phase) == ("helper", "network") else phase if phase in STAGES else "run")
    if phase == "run":
        until("the program", lambda: run.out, 20)
        time.sleep(CHANCE.random())
    elif phase in STAGES:
        nap(who, 0.4)
    elif phase == "move":
        until("the program", lambda: run.out, 20)
        return strike_in_move(who, run)
    else:
        until("the program", lambda: run.out, 20)
        if phase == "checkpoint":
            text, code = ask("wisp", "cluster", "checkpoint", NAME, "--to", folder)
            if code:
                raise Fault(f"the checkpoint before failed: {text}")
            run.command = begin("checkpoint", NAME, "--to", folder)
        else:
            run.command = begin("stop", NAME)
        nap(who, 0.5)
    brief = who.rstrip("01") in ("mover", "helper")
    return strike(who, run, 2 if brief else 0.5, 0.004 if brief else 0)


def goes_on(run):
    """The program runs, and all VMs are known to."""
    if run.ended() or not run.began("run") or not run.out:
        return False
    text, code = ask("wisp", "cluster", "show", NAME, "--json")
    try:
        state = json.loads(text)
        return code == 0 and all(vm["state"] == "ready" for vm in state["vms"]) and not any("gone" in n for n in state["nodes"])
    except (ValueError, KeyError):  # it has just ended
        return False


def finish_command(who, command):
    try:
        text = command.communicate(timeout=90)[0]
    except subprocess.TimeoutExpired:
        command.kill()
        raise Fault("the command that was under way does not end")
    if command.returncode < 0 and who != "command":
        raise Fault(f"the command that was under way ended by signal {-command.returncode}: {text}")


def case(who, phase):
    folder = f"{TMP}/ann/saved"
    run = Run("sh", "-c", "echo runs; exec sleep 1000", document="moves" if phase == "move" else NAME)
    run.command = None
    try:
        struck = strike_in(who, phase, run, folder)
        if struck is None:
            ask("wisp", "cluster", "stop", NAME)
            until("the end of wisp run", run.ended, 60)
            until("nothing left", lambda: not left(), 30)
            return "it was not there"
        if who.startswith("wispd"):
            time.sleep(CHANCE.choice([0.1, 1, GRACE - 2]))  # the coordinator needs a second more
            NODES[int(who[-1])].start()
        if who == "run":
            run.process.wait()
        if run.command:
            finish_command(who, run.command)
        return judge(who, phase, run, struck, folder)
    finally:
        if run.command and run.command.poll() is None:
            run.command.kill()
        if not run.ended():
            run.process.kill()


def where():
    """Of the VM that moves: nodes where it runs, by its VMMs."""
    found = []
    for node in NODES:
        try:
            vmm = Vmm(f"{node.state}/user/7001/vm/{MOVER}/control", 5)
            if vmm.ask("status")["state"] == "running":
                found.append(node.name)
            vmm.close()
        except (OSError, Refused):
            pass
    return found


def second(what, make):
    """Succeeds; what a killed one has begun may go on for a while."""
    end = time.monotonic() + 20
    while True:
        command = make()
        text = command.communicate(timeout=90)[0]
        if not command.returncode:
            return
        if not any(word in text for word in ("being moved", "is under way", "already")) or time.monotonic() > end:
            raise Fault(f"a second {what}: exit code {command.returncode}: {text}")
        time.sleep(0.1)


def move_again():
    """To where it is not."""
    places = []

    def move():
        places[:] = where()
        return begin_move("n0" if places == ["n1"] else "n1")
    second("move", move)
    if len(places) != 1 or where() == places:
        raise Fault(f"{MOVER} ran at {places}, was moved, and runs at {where()}")


def judge(who, phase, run, struck, folder):
    """What has become of it; Fault: what should not have."""
    if who.startswith("keeper") and phase in STAGES:  # or what had just made it, which would have ended anyway
        until("its end, or that it goes on with its keeper", lambda: run.ended() or (find(who, run) and goes_on(run)), 60)
    elif who in ("run", "job", "agent0") or (phase == "stop" and who != "command") or (who.rstrip("01") in ("vmm", "keeper") and phase != "move"):
        until("the end of wisp run", run.ended, 60)
    else:
        until("its end, or that it goes on", lambda: run.ended() or goes_on(run), 60)
    told = run.after(struck)
    result = "goes on"
    if run.ended():
        result = f"ended with {run.process.returncode} after {time.monotonic() - struck:.1f} s"
    noticed = min([at for at, _ in told] or [struck + 99 if run.ended() and who != "run" and phase != "stop" else struck]) - struck
    # Of an agent that was killed before it answered nobody had heard: that is a guest that does not come up.
    unheard = who.startswith("agent") and told and "are not ready after" in told[0][1]
    if noticed > NOTICED and not unheard:
        raise Fault(f"noticed after {noticed:.1f} s")
    if run.ended() and run.process.returncode == 0 and phase != "stop":
        raise Fault("it ended with 0")
    if not run.ended():
        if phase == "checkpoint":
            second("checkpoint", lambda: begin("checkpoint", NAME, "--to", folder))
        if phase == "move":
            move_again()
        text, code = ask("wisp", "cluster", "stop", NAME)
        if code:
            raise Fault(f"it cannot be stopped: {text}")
        until("the end of wisp run", run.ended, 30)
    if phase == "checkpoint":
        text, code = ask("wisp", "checkpoint", "verify", folder)
        if code:
            raise Fault(f"the checkpoint before is not valid: {text}")
    again = time.monotonic()
    text, code = ask(*run_command("-q"), f"{NAME}.yaml", "--", "echo", "again")
    if code or "again" not in text:
        raise Fault(f"a second command: exit code {code}: {text}")
    ask("wisp", "cluster", "list")
    until("nothing left", lambda: not left(), GRACE + 15)
    why = told[-1][1] if told else ""
    return f"{result}, noticed after {noticed:.1f} s, again in {time.monotonic() - again:.1f} s: {why}"


def one(who, phase):
    begun = time.monotonic()
    try:
        said = case(who, phase)
        for _ in range(2):
            if said == "it was not there":
                said = case(who, phase)
        say(f"{who}@{phase}: {said} ({time.monotonic() - begun:.1f} s)")
        return True
    except Fault as fault:
        say(f"FAULT {who}@{phase}: {fault}; left: {fault.left}")
        logs()
        return False


def chosen():
    if WHICH == "some":
        return [w.split("@") for w in SOME]
    if WHICH != "all":
        return [w.split("@") for w in WHICH.split(",")]
    pairs = [(who, phase) for who in WHO for phase in PHASES]
    return [(w, p) for w, p in pairs if (w[:5] != "mover" or p in ("checkpoint", "move")) and
            (w[:6] != "helper" or p in ("network", "stop")) and (w[:5] != "agent" or p not in STAGES[:-2]) and (w != "command" or p in ("checkpoint", "move", "stop"))]


def clean_up():
    """So that the next case begins with nothing."""
    kill_all()
    for node in NODES:
        if node.dead():
            node.start()
    until("nothing left", lambda: not left(), 60)


def main():
    say(f"SEED={SEED}")
    failed = 0
    with two_nodes({NAME: DOCUMENT, "moves": MOVES}):
        for who, phase in chosen():
            if not one(who, phase):
                failed += 1
                clean_up()
            for old in glob.glob(f"{TMP}/run/job/*"):
                subprocess.run(["rm", "-rf", old], check=True)
            subprocess.run(["rm", "-rf", f"{TMP}/ann/saved"], check=True)
        if failed:
            sys.exit(f"FAIL: {failed} faults; SEED={SEED} WISP_FAULTS=... repeats them")


main()
