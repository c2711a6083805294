#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""bare-part.py WISP-PART GUEST FOLDER: wisp-part with bare guests."""
import hashlib
import json
import os
import subprocess
import sys
import time

from part_daemon import Part, fail

PROGRAM, GUEST, TMP = sys.argv[1:]
RUN, HOME = os.environ["WISP_RUN"], os.environ["WISP_HOME"]
CLUSTER, NAMES = "lu-0123abcd", ["lu-0", "lu-1"]
HOSTS = [{"name": "lu-%d" % i, "address": "10.78.0.%d" % (i + 2)} for i in range(4)]
KEPT = TMP + "/kept.img"
WORDS = ["watch=8"]


def make_image(name):
    """The guest as a kernel, and nothing else that it would look at."""
    folder = HOME + "/images/" + name
    os.makedirs(folder)
    parts = {}
    for part in ("vmlinux", "vmlinuz", "initrd", "root.squashfs"):
        content = open(GUEST, "rb").read() if part == "vmlinux" else b"x" * 4096
        with open(folder + "/" + part, "wb") as out:
            out.write(content)
        parts[part] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    with open(folder + "/manifest.json", "w") as out:
        json.dump({"format": 1, "name": name, "parts": parts, "key": "0" * 64}, out)


def environment(words, **more):
    return {"cpus": 1, "memory": 64 << 20, "cmdline": words, "page-size": "4K", "pinning": "none",
            "prefault": False, "network": {"kind": "private", "isolated": True}, **more}


def setup(env, cluster=CLUSTER, names=None):
    names = names or NAMES
    grant = {"vcpus": 1, "dedicated": False, "page-size": 4096, "nodes": []}
    return {"cluster": cluster, "name": "lu", "node": "n1", "environment": env,
            "grants": {name: grant for name in names}, "cgroup": None,
            "vms": [host for host in HOSTS if host["name"] in names],
            "network": {"name": cluster, "subnet": "10.78.0.0/24", "id": "00000000000000aa",
                        "made": False}}


def part(*args, **more):
    return Part(PROGRAM, setup(*args, **more), TMP + "/part.log")


def record(vm, name="vm.json"):
    with open("%s/vm/%s/%s" % (RUN, vm, name)) as text:
        return json.load(text)


def console(vm):
    with open("%s/vm/%s/console" % (RUN, vm), errors="replace") as text:
        return text.read()


def processes():
    return subprocess.run(["pgrep", "-c", "-f", "wisp-vmm.*" + RUN], stdout=subprocess.PIPE,
                          check=False).stdout.decode().strip()


def expect(what, got, wanted):
    if got != wanted:
        fail("%s: got %r, not %r" % (what, got, wanted))


def wait_for(what, p, test):
    p.until(what, test, 30)


def test_refused():
    p = part(environment(WORDS))
    p.refused("setup comes once", "setup")
    p.refused("there is no request", "dance")
    p.refused("not the name of an image", "start")
    p.refused("no image nothing", "start", image="nothing", hosts=HOSTS)
    p.refused("has no VM x", "start", image="bare", vms=["x"])
    p.refused("is named twice", "start", image="bare", vms=["lu-0", "lu-0"])
    p.refused("digest", "start", image="bare@sha256:" + "0" * 64)
    p.refused("no checkpoint is under way", "save", step="cut")
    p.refused("\"step\" is", "save", step="x")
    p.refused("is not 64", "send", vm="lu-0", target="tcp:127.0.0.1:1")
    p.refused("\"what\" is", "connect", vm="lu-0", what="heart", stream=1)
    p.refused("there is no VM lu-0", "connect", vm="lu-0", what="console", stream=3)
    p.write(1, b"")
    p.write(3, b"")
    expect("what runs after refusals", p.ask("list")["lu-0"]["state"], "none")
    p.leave()
    p = part(environment(WORDS, signed=True))
    p.refused("is not signed", "start", image="bare", hosts=HOSTS)
    p.leave()
    p = part(environment(WORDS, devices=["pci:0000:3b:00.0"]))
    p.refused("the grant of lu-0 has 0 of 1", "start", image="bare", hosts=HOSTS)
    p.leave()
    p = part(environment(WORDS, devices=["pci:0000:3b:00.0"], checkpoint={"interval": 3600000000000}))
    p.refused("cannot be saved", "start", image="bare", hosts=HOSTS)
    p.leave()


def test_life():
    """Started with their addresses and names, seen, talked to, paused, taken over, stopped."""
    volumes = {"a": {"size": 1 << 20}, "b": {"path": KEPT, "size": 1 << 20, "readonly": True}}
    env = environment(["echo", "watch=8"], volumes=volumes)
    p = part(env)
    expect("states", p.value, {"vms": {"lu-0": "none", "lu-1": "none"}})
    started = p.ask("start", image="bare", hosts=HOSTS)
    expect("address", started["lu-1"], {"address": "10.78.0.3"})
    config = record("lu-0")
    expect("names from the start", sorted(host["name"] for host in config["hosts"]),
           ["lu-0", "lu-1", "lu-2", "lu-3"])
    wait_for("the names at the guest", p, lambda: ",lu-3=10.78.0.5" in console("lu-0"))
    for disk in config["disks"]:
        expect("size of volume", os.path.getsize(disk["path"]), 1 << 20)
    p.refused("runs already", "start", image="bare", hosts=HOSTS)
    expect("state", p.ask("list")["lu-1"]["state"], "starting")
    if "lu-1" not in p.ask("usage"):
        fail("no counters of a VM that runs")
    stream = p.connect("lu-0", "console")
    wait_for("the prompt", p, lambda: b"echo" in p.streams.get(stream, b"") or
             "echo" in console("lu-0"))
    p.write(stream, b"hello")
    wait_for("the echo", p, lambda: b"hello" in p.streams.get(stream, b""))
    p.write(stream, b"")
    wait_for("the end of the console", p, lambda: stream in p.ended)
    paused = p.ask("pause")
    if not paused["lu-0"]["at"] > 1 << 60:
        fail("paused at %s" % paused)
    expect("state", p.ask("list")["lu-0"]["state"], "paused")
    p.ask("resume", vms=["lu-0"])
    expect("state", p.ask("list")["lu-1"]["state"], "paused")

    # Another part goes on, and a stranger's cluster has no say.
    before = record("lu-0")["started"]
    p.kill()
    p = part(env)
    expect("taken over", p.value, {"vms": {"lu-0": "starting", "lu-1": "starting"}})
    expect("the same VM", record("lu-0")["started"], before)
    p.ask("resume")
    other = part(env, cluster="lu-ffff0000")
    expect("a stranger sees", other.value["vms"]["lu-0"], "none")
    other.refused("is not of cluster", "stop", vms=["lu-0"])
    other.refused("runs already", "start", image="bare", hosts=HOSTS)
    other.leave()
    expect("it runs on", p.ask("list")["lu-0"]["state"], "starting")

    # One dies; the other is stopped.
    os.kill(p.ask("list")["lu-0"]["pid"], 9)
    end = p.event("vm-ended", "lu-0")["end"]
    expect("signal", end.get("signal"), 9)
    own = [disk["path"] for disk in config["disks"] if disk["own"]][0]
    wait_for("the end of its volume", p, lambda: not os.path.exists(own))
    expect("the kept volume", os.path.getsize(KEPT), 1 << 20)
    stopped = p.ask("stop", timeout=1)
    expect("how", stopped["lu-0"]["how"], "had ended before")
    p.event("vm-ended", "lu-1")
    expect("nothing runs", processes(), "0")
    expect("nothing is left", os.listdir(RUN + "/vm"), [])
    p.leave()


def test_half():
    """What cannot start takes all that began with it along; a stop ends a start."""
    p = part(environment(WORDS, shares={"x": {"source": TMP + "/nowhere"}}))
    p.refused("nowhere", "start", image="bare", hosts=HOSTS)
    expect("nothing runs", processes(), "0")
    p.leave()
    p = part(environment(WORDS))
    start = p.send("start", image="bare", hosts=HOSTS)
    stop = p.send("stop", kill=True)
    try:
        p.answer(start)
    except Exception as reason:
        if "stopped" not in str(reason):
            fail("the start ended with: %s" % reason)
    p.answer(stop)
    expect("nothing runs", processes(), "0")
    start = p.send("start", image="bare", hosts=HOSTS)
    p.until("a VM", lambda: os.path.exists(RUN + "/vm/lu-0/vm.json"), 20)
    p.kill()
    time.sleep(1)
    p = part(environment(WORDS))
    p.ask("stop", kill=True)
    expect("nothing is left", (processes(), os.listdir(RUN + "/vm")), ("0", []))
    p.leave()


def save(p, folder, **more):
    p.ask("save", step="begin", folder=folder, mode="live", **more)
    cut = p.ask("save", step="cut")
    p.ask("save", step="resume")
    done = p.ask("save", step="commit")
    if not all(cut[name]["at"] for name in NAMES):
        fail("cut: %s" % cut)
    return done


def counts(p):
    """How far the guests are: they print a point each round."""
    return {name: console(name).count(".") for name in NAMES}


def test_cut():
    """All are saved at once, given up in every step, and restored elsewhere in time."""
    folder = TMP + "/checkpoints"
    env = environment(["dirty=4"], volumes={"a": {"size": 1 << 20}})
    p = part(env)
    p.ask("start", image="bare", hosts=HOSTS)
    first = save(p, folder)
    expect("epochs", [first[name]["epoch"] for name in NAMES], [1, 1])
    expect("folder", first["lu-1"]["folder"], folder + "/vm/lu-1")
    for steps in (["begin"], ["begin", "cut"], ["begin", "cut", "resume"]):
        for step in steps:
            p.ask("save", step=step, folder=folder)
        p.ask("save", step="abort")
    p.refused("no checkpoint is under way", "save", step="commit")
    p.ask("save", step="begin", folder=folder)
    p.refused("is under way", "save", step="begin", folder=folder)
    p.refused("comes behind", "save", step="resume")
    p.ask("save", step="cut")
    time.sleep(0)
    p.until("the end of patience", lambda: p.ask("list")["lu-0"]["state"] != "paused", 20)
    p.refused("5 s", "save", step="resume")
    second = save(p, folder, incremental=True)
    expect("epochs", second["lu-0"]["epoch"], 2)

    # Killed in a cut: the VMs run, another part saves them.
    p.ask("save", step="begin", folder=folder)
    p.ask("save", step="cut")
    p.kill()
    p = part(env)
    p.until("VMs that run", lambda: all(vm["state"] == "starting"
                                        for vm in p.ask("list").values()), 20)
    p.until("no mover", lambda: all("operation" not in vm for vm in p.ask("list").values()), 20)
    third = save(p, folder)
    p.ask("stop", kill=True)
    for name in NAMES:
        p.event("vm-ended", name)

    source = {name: {key: third[name][key] for key in ("folder", "epoch", "digest")}
              for name in NAMES}
    wrong = {**source, "lu-1": {**source["lu-1"], "digest": "sha256:" + "0" * 64}}
    p.refused("lu-1", "restore", image="bare", hosts=HOSTS, **{"from": wrong})
    expect("nothing runs", processes(), "0")
    p.ask("restore", image="bare", hosts=HOSTS, **{"from": source})
    expect("restored", {vm["state"] for vm in p.ask("list").values()}, {"paused"})
    before = counts(p)
    p.ask("resume")
    wait_for("both to go on", p, lambda: all(counts(p)[n] > before[n] for n in NAMES))
    p.ask("stop", kill=True)
    p.leave()


MOVER = """#!/usr/bin/env python3
import json, os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
def say(step, **members):
    print(json.dumps({"step": step, **members}), flush=True)
say("ready")
for line in sys.stdin:
    step = json.loads(line)["step"]
    if step == "cut":
        say("cut", at=time.time_ns())
    elif step == "resume":
        for _ in range(8):
            time.sleep(0.5)
            if os.path.exists("%s/hangs"):
                time.sleep(1000)
            say("progress")
        say("resumed", pause_ns=1)
        say("written")
    elif step == "commit":
        say("committed", epoch=1, digest="sha256:0")
        break
"""


def test_slow():
    """A step that gets on takes as long as it takes; one that does not has an end, and is named."""
    folder, movers = TMP + "/slowly", TMP + "/movers"
    os.mkdir(movers)
    with open(movers + "/wisp-mover", "w") as out:
        out.write(MOVER % movers)
    os.chmod(movers + "/wisp-mover", 0o755)
    os.environ["WISP_LIBEXECDIR"] = movers
    p = part(environment(WORDS))
    p.ask("start", image="bare", hosts=HOSTS)
    begin = {"step": "begin", "folder": folder, "mode": "stop", "silence-ms": 2000}
    p.ask("save", **begin)
    p.ask("save", step="cut")
    p.ask("save", step="resume")
    p.ask("save", step="commit")
    p.ask("save", **begin)
    p.ask("save", step="cut")
    with open(movers + "/hangs", "w"):
        pass
    before = time.monotonic()
    answer = p.refused("has not got on for 2 s: does the file system of %s hang?" % folder, "save", step="resume")
    if time.monotonic() - before > 8:
        fail("the hanging mover was waited for")
    expect("the VM that hangs", answer["error"].split(":")[0] in NAMES, True)
    p.refused("has not ended yet", "save", **begin)
    p.ask("save", step="abort")  # when they were killed
    os.remove(movers + "/hangs")
    p.ask("save", **begin)
    p.ask("save", step="abort")
    p.ask("stop", kill=True)
    p.leave()
    del os.environ["WISP_LIBEXECDIR"]


def test_move():
    """From one node to another; a node is a run folder here."""
    env = environment(["watch=4"])
    away = {"WISP_RUN": RUN + "-2"}
    p = part(env, names=["lu-0"])
    p.ask("start", image="bare", hosts=HOSTS)
    os.environ.update(away)
    q = part(env, names=["lu-0"])
    os.environ["WISP_RUN"] = RUN
    token = os.urandom(32).hex()
    receive = q.send("receive", vm="lu-0", image="bare", hosts=HOSTS, token=token,
                     listen="127.0.0.1")
    listening = q.event("progress", "lu-0")["listening"]
    sent = p.send("send", vm="lu-0", target=listening, token=token)
    q.answer(receive)
    p.answer(sent)
    expect("where it was", p.event("vm-ended", "lu-0")["end"]["reason"], "moved to another node")
    expect("where it is", q.ask("list")["lu-0"]["state"], "starting")
    q.ask("stop", kill=True)
    # Nobody comes: the machine that waits is ended, and a stop ends the wait.
    receive = q.send("receive", vm="lu-0", image="bare", hosts=HOSTS, token=token,
                     listen="127.0.0.1")
    q.event("progress", "lu-0")
    q.ask("stop", kill=True)
    try:
        q.answer(receive)
        fail("a receive that was stopped has succeeded")
    except Exception as reason:
        if "stopped" not in str(reason):
            fail("receive ended with: %s" % reason)
    p.leave()
    q.leave()
    p = part(environment(WORDS, volumes={"a": {"size": 1 << 20}}), names=["lu-0"])
    p.refused("cannot move volumes", "receive", vm="lu-0", image="bare", hosts=HOSTS,
              token=token, listen="127.0.0.1")
    p.leave()


make_image("bare")
for test in (test_refused, test_life, test_half, test_cut, test_slow, test_move):
    begun = time.monotonic()
    test()
    print("%s: %.1f s" % (test.__name__, time.monotonic() - begun))
