#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""agent-hostile.py SOCKET FOLDER CLIENT: bad clients of an agent, and a bad agent of a client."""

import json
import os
import random
import socket
import struct
import subprocess
import sys
import threading

HELLO = struct.pack("<IHHII", 8, 1, 0, 0x41505357, 1)
REQUEST, ERROR, STARTED, STDIN, CREDIT, SIGNAL, POSITION, ENTRY, DATA, LEAVE, DONE = (
    2, 4, 5, 16, 19, 20, 23, 32, 33, 34, 35)


def frame(kind, payload=b"", flags=0):
    return struct.pack("<IHH", len(payload), kind, flags) + payload


def request(**members):
    return frame(REQUEST, json.dumps(members).encode())


def connect(path):
    s = socket.socket(socket.AF_UNIX)
    s.connect(path)
    s.settimeout(20)  # only now: connecting waits while the queue is full
    return s


def read_all(s):
    data = b""
    try:
        while piece := s.recv(65536):
            data += piece
    except ConnectionResetError:
        pass
    return data


def frames(data):
    while len(data) >= 8:
        size, kind, _ = struct.unpack_from("<IHH", data)
        yield kind, data[8:8 + size]
        data = data[8 + size:]


def refused(path, data, code):
    """The agent answers these bytes by ERROR with that errno and closes."""
    with connect(path) as s:
        assert s.recv(len(HELLO), socket.MSG_WAITALL) == HELLO
        s.sendall(data)
        last = list(frames(read_all(s)))[-1]
        assert last[0] == ERROR, last
        got = struct.unpack_from("<I", last[1])[0]
        assert got == code, (got, last[1])


def bad_clients(path):
    eproto, enosys, einval, eprotonosupport = 71, 38, 22, 93
    refused(path, b"GET / HTTP/1.0\r\n\r\n", eproto)
    refused(path, struct.pack("<IHHII", 8, 1, 0, 0x41505357, 2), eprotonosupport)
    refused(path, struct.pack("<IHHII", 8, 1, 0, 0x12345678, 1), eproto)
    refused(path, request(op="ping"), eproto)
    refused(path, HELLO + HELLO, eproto)
    refused(path, HELLO + frame(REQUEST, b"[1]"), eproto)
    refused(path, HELLO + frame(REQUEST, b'{"op":'), eproto)
    refused(path, HELLO + request(op="nosuch"), enosys)
    refused(path, HELLO + request(op=7), einval)
    refused(path, HELLO + struct.pack("<IHH", 65537, REQUEST, 0), eproto)
    refused(path, HELLO + request(op="exec"), einval)
    refused(path, HELLO + request(op="exec", argv=["a", 7]), einval)
    refused(path, HELLO + request(op="exec", argv="a"), einval)
    refused(path, HELLO + request(op="exec", argv=["a"], env={"A=B": "c"}), einval)
    refused(path, HELLO + request(op="exec", argv=["a"], terminal=7), einval)
    refused(path, HELLO + request(op="exec", argv=["a"], user=-1), einval)
    refused(path, HELLO + request(op="copy-in"), einval)
    refused(path, HELLO + request(op="configure", hostname=7), einval)
    refused(path, HELLO + request(op="configure", net=[7]), einval)
    refused(path, HELLO + request(op="configure", clock=-1), einval)
    refused(path, HELLO + 65 * frame(REQUEST, b"x" * 65536, 1), 90)
    erange, enoent = 34, 2
    refused(path, HELLO + request(op="task-start", argv=["true"]), einval)
    refused(path, HELLO + request(op="task-start", id="../x", argv=["true"]), einval)
    refused(path, HELLO + request(op="task-start", id="x"), einval)
    refused(path, HELLO + request(op="task-attach"), einval)
    refused(path, HELLO + request(op="task-remove", id="x"), enoent)
    task = HELLO + request(op="task-start", id="x", argv=["sleep", "1000"])
    refused(path, task + frame(STDIN), eproto)
    attach = HELLO + request(op="task-attach", id="x")
    refused(path, HELLO + request(op="task-attach", id="x", stdout=1), erange)
    refused(path, HELLO + request(op="task-signal", id="x", signal=0), einval)
    refused(path, attach + frame(POSITION, struct.pack("<BQ", 1, 1)), eproto)
    refused(path, attach + frame(POSITION, struct.pack("<BQ", 3, 0)), eproto)
    refused(path, attach + frame(POSITION, struct.pack("<BQ", 1, 2**64 - 1)), eproto)
    refused(path, attach + frame(STDIN) + frame(STDIN, b"x"), eproto)
    refused(path, attach + 5 * frame(STDIN, b"x" * 65536), eproto)
    refused(path, HELLO + request(op="task-remove", id="x"), 16)
    with connect(path) as s:
        s.sendall(HELLO + request(op="task-remove", id="x", kill=True))
        assert list(frames(read_all(s)))[-1] == (3, b"{}")
    run = HELLO + request(op="exec", argv=["sleep", "1000"])
    refused(path, run + frame(CREDIT, b"1234"), eproto)
    refused(path, run + frame(SIGNAL, struct.pack("<I", 99)), einval)
    refused(path, run + 5 * frame(STDIN, b"x" * 65536), eproto)
    refused(path, run + frame(ENTRY, b"x" * 23), eproto)


def random_clients(path):
    rng = random.Random(1)
    seeds = [HELLO, HELLO + request(op="facts"), HELLO + request(op="exec", argv=["true"]),
             HELLO + request(op="exec", argv=["cat"]) + frame(STDIN, b"x" * 100)]
    for _ in range(300):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randrange(1, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        with connect(path) as s:
            try:
                s.sendall(data)
                s.shutdown(socket.SHUT_WR)
            except BrokenPipeError:
                pass
            read_all(s)


def silent_clients(path):
    """Many that say nothing or half a frame hinder nobody."""
    silent = [connect(path) for _ in range(100)]
    for s in silent[::2]:
        s.sendall(HELLO[:5])
    with connect(path) as s:
        s.sendall(HELLO + request(op="ping"))
        assert list(frames(read_all(s)))[-1][0] == 3
    for s in silent:
        s.close()


def entry(kind, name=b"", target=b""):
    return frame(ENTRY, struct.pack("<BIqQH", kind, 0o755, 0, 0, len(name)) + name + target)


def bad_agent(folder, client):
    """Trees that try to get out of the destination."""
    file_end = frame(DATA, b"evil") + frame(DATA)
    trees = [
        entry(2) + entry(1, b"../evil") + file_end + frame(LEAVE) + frame(DONE),
        entry(2) + entry(1, b"..") + file_end + frame(LEAVE) + frame(DONE),
        entry(2) + entry(1, (folder + "/evil").encode()) + file_end + frame(LEAVE) + frame(DONE),
        entry(1, b"evil") + file_end + frame(DONE),
        entry(2) + entry(3, b"x", b"../..") + entry(2, b"x") + entry(1, b"evil") + file_end +
        frame(LEAVE) + frame(LEAVE) + frame(DONE),
        entry(2) + frame(LEAVE) + frame(LEAVE) + entry(1, b"evil") + file_end + frame(DONE),
        entry(2) + entry(2, b"d") * 300,
        entry(2) + os.urandom(100),
        b"",
    ]
    path = os.path.join(folder, "bad")
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen()

    def serve():
        for tree in trees:
            s, _ = server.accept()
            s.recv(len(HELLO), socket.MSG_WAITALL)
            s.sendall(HELLO)
            s.recv(65536)
            try:
                s.sendall(frame(STARTED, b"1234") + tree)
                s.shutdown(socket.SHUT_WR)
                while s.recv(65536):
                    pass
            except OSError:
                pass
            s.close()

    threading.Thread(target=serve, daemon=True).start()
    for i in range(len(trees)):
        dest = os.path.join(folder, f"dest{i}", "inner")
        os.makedirs(dest)
        done = subprocess.run([client, f"unix:{path}", "cp-out", "/some/tree", dest], timeout=30,
                              stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
        assert done.returncode == 255, (i, done)
        for where, _, names in os.walk(folder):
            assert "evil" not in names, (i, where)
        assert sorted(os.listdir(os.path.dirname(dest))) == ["inner"], i


def main(path, folder, client):
    bad_clients(path)
    random_clients(path)
    silent_clients(path)
    bad_agent(folder, client)


main(*sys.argv[1:])
