# SPDX-License-Identifier: Apache-2.0
"""node-launcher.py BUILD FOLDER: what node-launcher.sh shows. In place of ssh there is a script."""
import errno, glob, os, signal, sys, time

from node_client import refused
from node_daemons import Daemon, end_all

build, folder = sys.argv[1:]
SECRET = "the secret of a coordinator"
LAUNCHER = f"""#!/bin/sh
# As ssh: a host, and a command there, which has a folder of its own.
host=$1
shift
[ "$host" != h9 ] || {{ echo "h9: Permission denied (publickey)." >&2; exit 255; }}
[ "$host" != h8 ] || exec sleep 1000
[ "$host" != h7 ] || set -- --name other --pipe
export WISP_RUN={folder}/$host WISP_HOME={folder}/$host
echo "a line that every login prints" >&2
exec {build}/src/node/wispd --topology "pack:1 core:2 pu:1" --grace 1 --idle 2 "$@"
"""
NOBODY = 65534
began = time.monotonic()


def step(text):
    print(f"{time.monotonic() - began:6.2f} {text}", flush=True)


def until(what, seconds, text):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, f"in vain for {seconds} s: {text}"
        time.sleep(0.05)


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as f:
        return [int(p) for p in f.read().split()]


def daemon_of(host):
    """The process of the daemon that was started there."""
    for path in glob.glob("/proc/[0-9]*/environ"):
        try:
            environ, line = open(path, "rb").read(), open(path.replace("environ", "cmdline"), "rb").read()
        except OSError:
            continue
        if f"WISP_RUN={folder}/{host}\0".encode() in environ and b"--idle=60" in line:
            return int(path.split("/")[2])
    return None


if not os.geteuid():
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
with open(f"{folder}/launch", "w") as f:
    f.write(LAUNCHER)
top = Daemon(build, folder, "l0", "--launcher", f"sh {folder}/launch %h", listen=False)
try:
    client = top.client()
    names = ["l0", "l1@h1", "l2@h2", "l7@h7", "l8@h8", "l9@h9", "l6@h6:7450"]
    answer = client.ask("join", session=SECRET, place=0, nodes=names, fan=8)
    assert answer["ok"] == "0-2", answer
    for place, text in (3, "it is node other, not l7"), (4, "no connection in time"), \
            (5, "code 255: h9: Permission denied (publickey)."), (6, "has no port"):
        assert text in answer["errors"][place]["error"], answer
    values = client.ask("facts", to="0-2")["values"]
    assert [values[i]["name"] for i in range(3)] == ["l0", "l1", "l2"], values
    step("nodes are reached, and their daemons started, by a launcher; its failures are told")

    other = top.client()
    refused(errno.ENOENT, "has no resources of this node",
            lambda: other.ask("connect", stream=1, node="l1@h1", cluster="lu-00000001", vm="v0",
                              what="agent"))
    refused(errno.EHOSTUNREACH, "Permission denied",
            lambda: other.ask("connect", stream=3, node="l9@h9", cluster="lu-00000001", vm="v0",
                              what="agent"))
    other.close()
    first = daemon_of("h1")
    os.kill(first, signal.SIGKILL)
    when = time.monotonic()
    client.event("node-lost")
    assert time.monotonic() - when < 5
    while client.event("node-back")[1]["nodes"] != "1":
        pass
    assert daemon_of("h1") not in (None, first)
    step("one that was killed is reported, and started again")

    client.close()
    until(lambda: not daemon_of("h1") and not daemon_of("h2"), 20, "daemons that nobody needs end")
    until(lambda: not children(top.process.pid), 20, "launchers end with their connections")
    top.kill(signal.SIGTERM)
    until(lambda: not daemon_of("h7"), 20, "all have gone")
    step("what was started ends when nobody needs it")
except BaseException:
    print(top.said(), file=sys.stderr)
    raise
finally:
    end_all([top])
    for host in "h1", "h2", "h7":
        if daemon_of(host):
            os.kill(daemon_of(host), signal.SIGKILL)
