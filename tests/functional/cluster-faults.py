# SPDX-License-Identifier: Apache-2.0
"""Clusters over two nodes, of which a process is killed: see cluster-faults.sh.

    cluster-faults.py WISPD FOLDER CGROUPS some|all|WHO@PHASE[,WHO@PHASE...]

$SEED repeats the moments of an earlier time.
"""

import glob
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time

from node_client import Client

WISPD, TMP, CGROUPS, WHICH = sys.argv[1:]
ANN, KVM = 7001, 7004
LIBEXEC = os.environ["WISP_LIBEXECDIR"]
SEED = int(os.environ.get("SEED") or random.randrange(1 << 32))
CHANCE = random.Random(SEED)
GRACE = 4
NOTICED = 5  # seconds in which the others have to know
STAGES = ["resolve", "reserve", "network", "start", "ready", "prepare"]
PHASES = STAGES + ["run", "checkpoint", "stop"]
WHO = ["wispd0", "wispd1", "part0", "part1", "keeper0", "keeper1", "vmm0", "vmm1", "mover0", "mover1", "job", "helper0", "helper1", "run"]
# Those of `make check`: each kind of process once or twice.
SOME = ["wispd0@run", "wispd1@start", "part1@start", "keeper1@run", "vmm1@run", "mover1@checkpoint", "job@start",
        "helper0@network", "run@run", "wispd0@stop"]
COMM = {"part": "wisp-part", "keeper": "wisp-keeper", "vmm": "wisp-vmm", "mover": "wisp-mover", "job": "wisp-job", "helper": "wisp-node-helpe"}
NAME = f"f{os.getpid()}"  # nobody else's on this machine
DOCUMENT = f"name: {NAME}\nvms: 2\nvms-per-node: 1\ncpus: 1\nmemory: 16M\ncheckpoint: {{mode: live}}\n"


class Fault(Exception):
    """What there is at that moment is part of it."""

    def __init__(self, text):
        super().__init__(text)
        self.left = left() if all(n.answers() for n in NODES if n.process) else "?"


def say(text):
    print(text, flush=True)


def read(path):
    with open(path, encoding="utf-8", errors="replace") as f:
        return f.read()


def until(what, condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Fault(f"{what} did not come about in {seconds} s")
        time.sleep(0.02)


# -------- nodes --------

class Node:
    """Root's wispd of a node; the second one's is another network namespace."""

    def __init__(self, number):
        self.number, self.name, self.address = number, f"n{number}", f"10.99.0.{number + 1}"
        self.state, self.log = f"{TMP}/n{number}", f"{TMP}/n{number}.log"
        self.cgroups, self.space, self.process = CGROUPS if not number else "none", None, None

    def start(self):
        enter = ["nsenter", f"--net=/proc/{self.space.pid}/ns/net"] if self.space else []
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [*enter, WISPD, "--state", self.state, "--name", self.name, "--grace", str(GRACE), "--cgroups", self.cgroups,
                 "--topology", "pack:1 numa:1 core:4 pu:2", "--key", f"{TMP}/key", "--listen", f"{self.address}:7450"], stderr=log)
        until(f"wispd of {self.name}", self.answers, 20)

    def answers(self):
        try:
            Client(f"{self.state}/socket").close()
            return True
        except (OSError, EOFError):
            return False

    def dead(self):
        return self.process.poll() is not None


NODES = [Node(0), Node(1)]


def make_network():
    second = NODES[1]
    second.space = subprocess.Popen(["unshare", "--net", "sleep", "100000"])
    until("a network namespace", lambda: os.readlink(f"/proc/{second.space.pid}/ns/net") != os.readlink("/proc/self/ns/net"), 10)
    inside = ["nsenter", f"--net=/proc/{second.space.pid}/ns/net", "ip"]
    for command in (["ip", "link", "add", "to1", "type", "veth", "peer", "name", "to0", "netns", str(second.space.pid)],
                    ["ip", "addr", "add", "10.99.0.1/24", "dev", "to1"], ["ip", "link", "set", "to1", "up"],
                    [*inside, "addr", "add", "10.99.0.2/24", "dev", "to0"], [*inside, "link", "set", "to0", "up"],
                    [*inside, "link", "set", "lo", "up"]):
        subprocess.run(command, check=True)


def make_home():
    """With an image: the guest as a kernel, and nothing else that it would look at."""
    folder = f"{TMP}/ann/.local/share/wisp/images/bare"
    os.makedirs(folder)
    parts = {}
    for part in ("vmlinux", "vmlinuz", "initrd", "root.squashfs"):
        content = open(os.environ["GUEST"], "rb").read() if part == "vmlinux" else b"x" * 4096
        with open(f"{folder}/{part}", "wb") as out:
            out.write(content)
        parts[part] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    with open(f"{folder}/manifest.json", "w", encoding="ascii") as out:
        json.dump({"format": 1, "name": "bare", "parts": parts, "key": "0" * 64}, out)
    with open(f"{TMP}/ann/lu.yaml", "w", encoding="ascii") as out:
        out.write(DOCUMENT)
    os.mkdir(f"{TMP}/run")
    for where, _, files in [*os.walk(f"{TMP}/ann"), (f"{TMP}/run", [], [])]:
        for entry in [where] + [f"{where}/{f}" for f in files]:
            os.chown(entry, ANN, ANN)


# -------- processes --------

def processes(wanted=None):
    """pid -> (name, node) of all that was started for clusters; node None: of wisp run's side."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            comm = read(f"/proc/{pid}/comm").strip()
            if wanted and comm != wanted:
                continue
            environment, status = read(f"/proc/{pid}/environ"), read(f"/proc/{pid}/stat")
        except OSError:
            continue
        pid = int(pid)
        state, parent = status.rsplit(")", 1)[1].split()[:2]
        if f"WISP_LIBEXECDIR={LIBEXEC}" not in environment or state == "Z":
            continue
        node = next((n.number for n in NODES if f"WISP_RUN={n.state}/" in environment or n.process and int(parent) == n.process.pid), None)
        found[pid] = (comm, node)
    mine = {os.getpid(), *[n.process.pid for n in NODES if n.process], *[n.space.pid for n in NODES if n.space]}
    return {pid: what for pid, what in found.items() if pid not in mine and what[0] not in ("timeout", "sh", "unshare", "bare-lib.sh", "cluster-faults.") }


def find(who, run):
    """Its pid, or None."""
    if who == "run":
        return run.process.pid
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


def left():
    """What is there of any cluster, as text; "": nothing."""
    what = [f"{comm} ({pid}) of {'node n%d' % node if node is not None else 'wisp run'}" for pid, (comm, node) in processes().items()]
    for node in NODES:
        what += glob.glob(f"{node.state}/net/*") + glob.glob(f"{node.state}/user/*/vm/*") + glob.glob(f"{node.state}/user/*/net/*")
        what += glob.glob(f"{node.state}/user/*/*.log")
        client = Client(f"{node.state}/socket")
        what += [f"{c['cluster']} at {node.name}" for c in client.ask("list", all=True)["value"]["clusters"]]
        client.close()
    if CGROUPS != "none":
        what += glob.glob(f"{CGROUPS}/wisp.slice/job-{NAME}-*")
    return ", ".join(what)


# -------- what ann does --------

def ann(*command, **more):
    environment = {"PATH": os.environ["PATH"], "HOME": f"{TMP}/ann", "USER": "ann", "WISP_RUN": f"{TMP}/run", "WISP_LIBEXECDIR": LIBEXEC}
    return subprocess.Popen(command, user=ANN, group=ANN, extra_groups=[KVM], env=environment, cwd=f"{TMP}/ann",
                            stdin=subprocess.DEVNULL, text=True, **more)


def ask(*command, seconds=60):
    """Exit code and all that it said."""
    process = ann(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        return process.communicate(timeout=seconds)[0], process.returncode
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return f"no end after {seconds} s", None


class Run:
    """wisp run, and what it says, when."""

    def __init__(self, *words):
        self.process = ann("wisp", "run", "--json", "--socket", f"{NODES[0].state}/socket", "--nodes",
                           ",".join(f"{n.name}@{n.address}" for n in NODES), "--image", "bare", "lu.yaml", "--", *words,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.out, self.said = [], []
        self.threads = [threading.Thread(target=self.hear, args=a, daemon=True) for a in
                        ((self.process.stdout, self.out), (self.process.stderr, self.said))]
        for thread in self.threads:
            thread.start()

    def hear(self, stream, lines):
        for line in stream:
            lines.append((time.monotonic(), line.strip()))

    def began(self, stage):
        """Who is late hears only that it is done, or of the stage behind it."""
        behind = STAGES[STAGES.index(stage):] + ["run"] if stage in STAGES else [stage]
        return any(json.loads(line).get("stage") in behind for _, line in self.said if line.startswith("{"))

    def ended(self):
        """And all is heard that it has said."""
        return self.process.poll() is not None and not any(thread.is_alive() for thread in self.threads)

    def after(self, when):
        """What people were told since then."""
        told = []
        for at, line in self.said:
            event = json.loads(line) if line.startswith("{") else {"text": line, "event": "end"}
            if at >= when and (event["event"] in ("note", "ended", "end") or event.get("state") == "failed"):
                told.append((at, event.get("why") or event.get("text") or f"{event.get('stage')} failed"))
        return told

    def text(self):
        return "\n".join(line for _, line in self.said + self.out)


# -------- a case --------

def strike(who, run, patience):
    """Kills it, when it is there; the moment, or None."""
    end = time.monotonic() + patience
    pid = find(who, run)
    while pid is None and time.monotonic() < end:
        time.sleep(0.0005)
        pid = find(who, run)
    if pid is None:
        return None
    if who.rstrip("01") in ("mover", "helper"):
        time.sleep(CHANCE.random() * 0.004)
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


def strike_in(who, phase, run, folder):
    """The moment, or None, and a command that was under way."""
    command = None
    # A helper has done its work before that is heard.
    wait_for_stage(run, "reserve" if (who[:6], phase) == ("helper", "network") else phase if phase in STAGES else "run")
    if phase == "run":
        until("the program", lambda: run.out, 20)
        time.sleep(CHANCE.random())
    elif phase in STAGES:
        nap(who, 0.4)
    else:
        until("the program", lambda: run.out, 20)
        if phase == "checkpoint":
            text, code = ask("wisp", "cluster", "checkpoint", NAME, "--to", folder)
            if code:
                raise Fault(f"the checkpoint before failed: {text}")
            command = ann("wisp", "cluster", "checkpoint", NAME, "--to", folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        else:
            command = ann("wisp", "cluster", "stop", NAME, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        nap(who, 0.5)
    return strike(who, run, 2 if who.rstrip("01") in ("mover", "helper") else 0.5), command


def goes_on(run):
    """The program runs, and all VMs are known to."""
    if run.ended() or not run.began("run") or not run.out:
        return False
    text, code = ask("wisp", "cluster", "show", NAME, "--json")
    try:
        state = json.loads(text)
        return code == 0 and all(vm["state"] == "ready" for vm in state["vms"]) and not any("gone" in n for n in state["nodes"])
    except ValueError:
        return False


def finish_command(command):
    if command is None:
        return 0
    try:
        text = command.communicate(timeout=90)[0]
    except subprocess.TimeoutExpired:
        command.kill()
        raise Fault("the command that was under way does not end")
    if command.returncode < 0:
        raise Fault(f"the command that was under way ended by signal {-command.returncode}: {text}")
    return command.returncode


def case(who, phase):
    folder = f"{TMP}/ann/saved"
    run = Run("sh", "-c", "echo runs; exec sleep 1000")
    command = None
    try:
        struck, command = strike_in(who, phase, run, folder)
        if struck is None:
            ask("wisp", "cluster", "stop", NAME)
            until("the end of wisp run", run.ended, 60)
            until("nothing left", lambda: not left(), 30)
            return "it was not there"
        if who.startswith("wispd"):
            time.sleep(CHANCE.choice([0.1, 1, 3]))
            NODES[int(who[-1])].start()
        if who == "run":
            run.process.wait()
        done = finish_command(command)
        return judge(who, phase, run, struck, done, folder)
    finally:
        if command and command.poll() is None:
            command.kill()
        if not run.ended():
            run.process.kill()


def judge(who, phase, run, struck, done, folder):
    """What has become of it; Fault: what should not have."""
    if phase == "stop" or who == "run" or who.rstrip("01") in ("vmm", "keeper", "job"):
        until("the end of wisp run", run.ended, 60)
    else:
        until("its end, or that it goes on", lambda: run.ended() or goes_on(run), 60)
    told = run.after(struck)
    result = "goes on"
    if run.ended():
        result = f"ended with {run.process.returncode} after {time.monotonic() - struck:.1f} s"
    noticed = min([at for at, _ in told] or [struck + 99 if run.ended() and who != "run" and phase != "stop" else struck]) - struck
    if noticed > NOTICED:
        raise Fault(f"noticed after {noticed:.1f} s")
    if run.ended() and run.process.returncode == 0 and phase != "stop":
        raise Fault("it ended with 0")
    if not run.ended():
        if phase == "checkpoint":
            text, code = ask("wisp", "cluster", "checkpoint", NAME, "--to", folder)
            if code:
                raise Fault(f"a second checkpoint: {text}")
        text, code = ask("wisp", "cluster", "stop", NAME)
        if code:
            raise Fault(f"it cannot be stopped: {text}")
        until("the end of wisp run", run.ended, 30)
    if phase == "checkpoint":
        text, code = ask("wisp", "checkpoint", "verify", folder)
        if code:
            raise Fault(f"the checkpoint before is not valid: {text}")
    again = time.monotonic()
    text, code = ask("wisp", "run", "-q", "--socket", f"{NODES[0].state}/socket", "--nodes",
                     ",".join(f"{n.name}@{n.address}" for n in NODES), "--image", "bare", "lu.yaml", "--", "echo", "again")
    if code or "again" not in text:
        raise Fault(f"a second command: exit code {code}: {text}")
    ask("wisp", "cluster", "list")
    until("nothing left", lambda: not left(), GRACE + 15)
    why = told[-1][1] if told else ""
    return f"{result}, noticed after {noticed:.1f} s, again in {time.monotonic() - again:.1f} s: {why}"


def logs():
    """Of what is left, before it is cleaned up."""
    for pattern in ("n?.log", "n?/user/*/*.log", "n?/user/*/vm/*/log", "run/job/*/log"):
        for path in glob.glob(f"{TMP}/{pattern}"):
            say(f"{path[len(TMP) + 1:]} ends:\n" + "".join(f"    {line}\n" for line in read(path).splitlines()[-12:]))


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
    return [(w, p) for w, p in pairs if (w[:5] != "mover" or p == "checkpoint") and
            (w[:6] != "helper" or p in ("network", "stop"))]


def clean_up():
    """So that the next case begins with nothing."""
    for pid in processes():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    for node in NODES:
        if node.dead():
            node.start()
    until("nothing left", lambda: not left(), 60)


def main():
    say(f"SEED={SEED}")
    with open(f"{TMP}/key", "w", encoding="ascii") as out:
        os.chmod(out.fileno(), 0o600)
        out.write("k" * 32)
    make_home()
    failed = 0
    try:
        make_network()
        for node in NODES:
            node.start()
        for who, phase in chosen():
            if not one(who, phase):
                failed += 1
                clean_up()
            for old in glob.glob(f"{TMP}/run/job/*"):
                subprocess.run(["rm", "-rf", old], check=True)
            subprocess.run(["rm", "-rf", f"{TMP}/ann/saved"], check=True)
        if failed:
            sys.exit(f"FAIL: {failed} faults; SEED={SEED} WISP_FAULTS=... repeats them")
        for node in NODES:
            node.process.terminate()
            if node.process.wait(20):
                sys.exit(f"FAIL: wispd of {node.name} ended with {node.process.returncode}")
    finally:
        for node in NODES:
            if node.process and not node.dead():
                node.process.kill()
        for pid in processes():
            os.kill(pid, signal.SIGKILL)
        for node in NODES:
            if node.space:
                node.space.kill()


main()
