# SPDX-License-Identifier: Apache-2.0
"""What a process of an ordinary user can reach of somebody else's.

    stranger.py OWNER OTHER FOLDER NETWORK [FOLDER-OF-CHECKPOINTS]

FOLDER is OWNER's run folder. Both users try the same, in children: files are opened to read and to write, folders listed
and written to, sockets called (those of the file system and the kernel's abstract names), processes looked into, traced,
read, moved and signalled, networks entered. Nothing is changed. OWNER shows that there was something to reach. Says how
many ways OTHER tried; exit code 1 and which, when any is open or OWNER has none of a kind.
"""

import ctypes
import glob
import os
import socket
import stat
import sys

from as_user import Child, check, enter, libc

PTRACE_SEIZE, PTRACE_DETACH = 0x4206, 17
SYS_PIDFD_GETFD = 438
CLONE_NEWUSER = 0x10000000
KINDS = socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET


def call(address, kind):
    with socket.socket(socket.AF_UNIX, kind) as s:
        s.settimeout(5)
        s.connect(address)


def call_any(address):
    for kind in KINDS[:-1]:
        try:
            return call(address, kind)
        except OSError:
            pass
    return call(address, KINDS[-1])


def make_in(folder):
    path = f"{folder}/of-a-stranger"
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    os.unlink(path)


def open_it(path, flags):
    os.close(os.open(path, flags | os.O_NONBLOCK))


class Buffer(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]


def read_memory(pid):
    """Its first mapping, as /proc says: what is refused there already does not get here."""
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as f:
        start = int(f.readline().split("-")[0] or "0", 16)
    room = ctypes.create_string_buffer(16)
    here, there = Buffer(ctypes.addressof(room), 16), Buffer(start, 16)
    check(libc.process_vm_readv(pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0))


def take_descriptor(pid):
    pidfd = os.pidfd_open(pid)
    try:
        os.close(check(libc.syscall(SYS_PIDFD_GETFD, pidfd, 0, 0)))
    finally:
        os.close(pidfd)


def trace(pid):
    check(libc.ptrace(PTRACE_SEIZE, pid, 0, 0))


def enter_as_root_of_own(path):
    """By a user namespace in which everything is allowed."""
    check(libc.unshare(CLONE_NEWUSER))
    enter(path)


def elsewhere(how, *arguments):
    """In a child, as it may not come back from there."""
    pid = os.fork()
    if not pid:
        code = 2
        try:
            how(*arguments)
            code = 0
        except OSError:
            code = 1
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code == 1:
        raise PermissionError
    if code:
        raise RuntimeError(f"its child ended with {code}")


def of_path(path):
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        mode = None
    yield "see", lambda: os.lstat(path)
    if mode is None or stat.S_ISSOCK(mode):
        yield "call", lambda: call_any(path)
    if mode is None or stat.S_ISDIR(mode):
        yield "list", lambda: os.listdir(path)
        yield "make a file in", lambda: make_in(path)
    if mode is None or stat.S_ISREG(mode):
        yield "read", lambda: open_it(path, os.O_RDONLY)
        yield "write", lambda: open_it(path, os.O_WRONLY)


def of_process(pid):
    folder = f"/proc/{pid}"
    yield "signal", lambda: os.kill(pid, 0)
    yield "descriptors of", lambda: os.listdir(f"{folder}/fd")
    yield "environment of", lambda: open(f"{folder}/environ", "rb").read()
    yield "root of", lambda: os.listdir(f"{folder}/root/")
    yield "folder of", lambda: os.listdir(f"{folder}/cwd/")
    yield "program of", lambda: os.readlink(f"{folder}/exe")
    yield "mapped files of", lambda: os.listdir(f"{folder}/map_files")
    yield "memory of", lambda: open_it(f"{folder}/mem", os.O_RDWR)
    yield "copy from", lambda: read_memory(pid)
    yield "descriptor from", lambda: take_descriptor(pid)
    yield "namespace of", lambda: elsewhere(enter, f"{folder}/ns/net")
    yield "place of", lambda: os.sched_setaffinity(pid, os.sched_getaffinity(pid))
    yield "priority of", lambda: os.setpriority(os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, pid))
    yield "trace", lambda: trace(pid)


def read(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            return f.read()
    except OSError:
        return ""


def things(folder, *networks):
    """What a user has here: files and sockets, processes, names of sockets, networks."""
    paths = [folder] + [f"{where}/{name}" for where, folders, files in os.walk(folder) for name in folders + files]
    pids = [int(p.split("/")[2]) for p in glob.glob("/proc/[0-9]*/environ") if f"WISP_RUN={folder}\0" in read(p)]
    lines = [line.split() for pid in pids for line in read(f"/proc/{pid}/net/unix").splitlines()]
    names = {words[-1][1:] for words in lines if words[-1].startswith("@")}
    return {"paths": paths, "pids": pids, "abstract": sorted(names), "networks": list(networks)}


def reach(there):
    tried, reached = 0, []

    def attempt(what, subject, how):
        nonlocal tried
        tried += 1
        try:
            how()
            reached.append(f"{what} {subject}")
        except OSError:
            pass
        except Exception as e:
            raise RuntimeError(f"{what} {subject}") from e

    for path in there.get("paths", []):
        for what, how in of_path(path):
            attempt(what, path, how)
    for name in there.get("abstract", []):
        attempt("call", "@" + name, lambda: call_any("\0" + name))
    for path in there.get("networks", []):
        attempt("enter", path, lambda: elsewhere(enter, path))
        attempt("enter as root of its own", path, lambda: elsewhere(enter_as_root_of_own, path))
    for pid in there.get("pids", []):
        for what, how in of_process(pid):
            attempt(what, pid, how)
    return {"tried": tried, "reached": reached}


def reach_as(name, there, network=None):
    """From that network; without it from this one."""
    return Child(name, network, reach, there).result()


def kinds():
    """What owners can do with some of their things here."""
    scope = read("/proc/sys/kernel/yama/ptrace_scope").strip() or "0"
    return ["read", "write", "list", "call", "signal", "place of", "make a file in"] + ["memory of", "trace"] * (scope == "0")


def apart(owner, other, folder, network, saved=(), places=(None,)):
    """How many ways the other tried from these networks, which were open, and which kinds the owner lacks."""
    there = things(folder, network)
    for checkpoints in saved:
        there["paths"] += things(checkpoints)["paths"][1:]
    own = reach_as(owner, there, places[0])["reached"]
    others = [reach_as(other, there, place) for place in places]
    reached = [what for each in others for what in each["reached"] if not what.startswith("see ") or folder + "/" in what]
    return sum(each["tried"] for each in others), reached, [kind for kind in kinds() if not any(o.startswith(kind + " ") for o in own)]


def main(owner, other, folder, network, *saved):
    tried, reached, lacks = apart(owner, other, folder, network, saved, (None, network))
    print(f"{other} tried {tried} ways to what is {owner}'s; open: {reached}; {owner} lacks: {lacks}")
    sys.exit(bool(reached or lacks))


if __name__ == "__main__":
    main(*sys.argv[1:])
