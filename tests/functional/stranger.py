# SPDX-License-Identifier: Apache-2.0
"""What a process of an ordinary user can reach of somebody else's.

    stranger.py of FOLDER [NETWORK]     what is there of the user whose run folder that is
    stranger.py as USER <WHAT-IS-THERE  prints JSON {"tried": N, "reached": [what]}
Both are run by root. USER's attempts are a child's, with the groups that the user's parts of clusters have. What is there
is JSON {"paths": [...], "pids": [...], "abstract": [...], "networks": [...]}. Files are opened to read and to write,
folders listed, sockets called (those of the file system and the kernel's abstract names), processes looked into, traced,
read and signalled, networks entered. Nothing is changed: the owner may be asked likewise, to see that there was something
to reach.
"""

import ctypes
import glob
import json
import os
import pwd
import socket
import stat
import sys

PTRACE_SEIZE, PTRACE_DETACH = 0x4206, 17
SYS_PIDFD_GETFD = 438
libc = ctypes.CDLL(None, use_errno=True)


def check(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result


def call(address):
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(5)
        s.connect(address)


def open_it(path, flags):
    os.close(os.open(path, flags | os.O_NONBLOCK))


class Buffer(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]


def read_memory(pid):
    """Its first mapping, as /proc says: what is refused there already does not get here."""
    with open(f"/proc/{pid}/maps", encoding="ascii") as f:
        start = int(f.readline().split("-")[0], 16)
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


def enter(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        check(libc.setns(fd, 0))
    finally:
        os.close(fd)


def of_path(path):
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        mode = None
    yield "see", lambda: os.lstat(path)
    if mode is None or stat.S_ISSOCK(mode):
        yield "call", lambda: call(path)
    if mode is None or stat.S_ISDIR(mode):
        yield "list", lambda: os.listdir(path)
    if mode is None or stat.S_ISREG(mode):
        yield "read", lambda: open_it(path, os.O_RDONLY)
        yield "write", lambda: open_it(path, os.O_WRONLY)


def of_process(pid):
    folder = f"/proc/{pid}"
    yield "signal", lambda: os.kill(pid, 0)
    yield "descriptors of", lambda: os.listdir(f"{folder}/fd")
    yield "environment of", lambda: open(f"{folder}/environ", "rb").read()
    yield "root of", lambda: os.listdir(f"{folder}/root/")
    yield "memory of", lambda: open_it(f"{folder}/mem", os.O_RDWR)
    yield "copy from", lambda: read_memory(pid)
    yield "descriptor from", lambda: take_descriptor(pid)
    yield "namespace of", lambda: enter(f"{folder}/ns/net")
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

    for path in there.get("paths", []):
        for what, how in of_path(path):
            attempt(what, path, how)
    for name in there.get("abstract", []):
        attempt("call", "@" + name, lambda: call("\0" + name))
    for path in there.get("networks", []):
        attempt("enter", path, lambda: enter(path))
    for pid in there.get("pids", []):
        for what, how in of_process(pid):
            attempt(what, pid, how)
    return {"tried": tried, "reached": reached}


def become(name):
    user = pwd.getpwnam(name)
    os.setgroups(os.getgrouplist(name, user.pw_gid) + [os.stat("/dev/kvm").st_gid])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
    os.chdir("/")


def reach_as(name, there):
    """No program is run for it: the user may have no rights to Python's folder."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            become(name)
            with open(writing, "w", encoding="ascii") as out:
                json.dump(reach(there), out)
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, encoding="ascii") as done:
        text = done.read()
    os.waitpid(child, 0)
    return json.loads(text)


if __name__ == "__main__":
    print(json.dumps(things(*sys.argv[2:]) if sys.argv[1] == "of" else reach_as(sys.argv[2], json.load(sys.stdin))))
