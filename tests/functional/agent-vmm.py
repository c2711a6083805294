#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""agent-vmm.py AGENT_SOCKET VSOCK_PATH...: plays the VMMs' user-space vsock for an agent that
listens on a UNIX socket: takes "CONNECT 1024", answers "OK 1" and passes the bytes on."""

import socket
import sys
import threading


def listen(path):
    s = socket.socket(socket.AF_UNIX)
    s.bind(path)
    s.listen(64)
    return s


def pump(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        for s in (source, target):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def serve(host, agent):
    line = b""
    while not line.endswith(b"\n"):
        line += host.recv(1)
    if line != b"CONNECT 1024\n":
        host.close()
        return
    guest = socket.socket(socket.AF_UNIX)
    guest.connect(agent)
    host.sendall(b"OK 1\n")
    other = threading.Thread(target=pump, args=(host, guest))
    other.start()
    pump(guest, host)
    other.join()
    host.close()
    guest.close()


def accept(server, agent):
    while True:
        host, _ = server.accept()
        threading.Thread(target=serve, args=(host, agent), daemon=True).start()


def main(agent, *paths):
    servers = [listen(path) for path in paths]
    for server in servers[1:]:
        threading.Thread(target=accept, args=(server, agent), daemon=True).start()
    accept(servers[0], agent)


main(*sys.argv[1:])
