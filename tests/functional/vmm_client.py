# SPDX-License-Identifier: Apache-2.0
"""A client of the control socket that passes descriptors, for tests of save and restore."""

import array
import json
import os
import socket


class Refused(Exception):
    """The VMM's error: errno and text."""

    def __init__(self, error):
        super().__init__(error["text"])
        self.errno = error["errno"]


class Vmm:
    def __init__(self, path, timeout=60):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(timeout)
        self.sock.connect(path)
        self.data = b""
        self.fds = []

    def close(self):
        self.sock.close()

    def ask(self, command, fd=None, **args):
        """The result; the descriptor of the answer, if one came, is then in self.fds."""
        line = json.dumps({"version": 1, "command": command, **args}).encode() + b"\n"
        if fd is None:
            self.sock.sendall(line)
        else:
            socket.send_fds(self.sock, [line], [fd])
        while b"\n" not in self.data:
            data, fds, _, _ = socket.recv_fds(self.sock, 65536, 4)
            if not data:
                raise Refused({"errno": 32, "text": "hung up"})
            self.data += data
            self.fds += fds
        line, self.data = self.data.split(b"\n", 1)
        answer = json.loads(line)
        if not answer["ok"]:
            raise Refused(answer["error"])
        return answer["result"]

    def memory(self):
        """The memfd of guest RAM, and its regions."""
        result = self.ask("memory")
        return self.fds.pop(0), result


def memfd(data=b"", size=None, seal=False):
    fd = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, data)
    if size:
        os.truncate(fd, size)
    if seal:
        import fcntl
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return fd


def content(fd):
    return os.pread(fd, os.fstat(fd).st_size, 0)


def available(mib):
    """The machine has that much to give away."""
    with open("/proc/meminfo", encoding="ascii") as f:
        return int(next(line for line in f if line.startswith("MemAvailable")).split()[1]) > mib << 10


def copy_memory(source, target):
    """Copies what is not a hole; what the target had elsewhere is gone."""
    size = os.fstat(source).st_size
    at = 0
    while True:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
        except OSError:
            break
        end = os.lseek(source, at, os.SEEK_HOLE)
        while at < end:
            data = os.pread(source, min(end - at, 1 << 20), at)
            os.pwrite(target, data, at)
            at += len(data)
    assert at <= size
