# SPDX-License-Identifier: Apache-2.0
"""Traffic between two namespaces. usage: network-ends.py FROM TO ADDRESS WHAT; WHAT is
"small" (a datagram and its answer; exit code 1 when there is none), "large" (datagrams of a full
frame, and larger), "tcp" (8 MiB there and back)."""

import hashlib
import os
import socket
import sys
import threading

PORT = 5000


def enter(name):
    # Of this thread alone.
    fd = os.open(f"/run/netns/{name}", os.O_RDONLY)
    import ctypes
    if ctypes.CDLL(None, use_errno=True).setns(fd, 0x40000000) < 0:
        raise OSError(ctypes.get_errno(), "setns")
    os.close(fd)


def made_in(name, kind):
    """A socket of another namespace."""
    made = []

    def make():
        enter(name)
        made.append(socket.socket(socket.AF_INET, kind))
    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    return made[0]


def datagrams(there, here, address, sizes):
    there.bind((address, PORT))
    there.settimeout(1)
    here.settimeout(1)
    for size in sizes:
        for _ in range(4):  # the first of each side may only say what fits
            here.sendto(b"x" * size, (address, PORT))
            try:
                data, sender = there.recvfrom(70000)
                there.sendto(data, sender)
                if len(here.recv(70000)) == size:
                    break
            except TimeoutError:
                pass
        else:
            sys.exit(f"no answer to {size} bytes")


def echo(there):
    connection = there.accept()[0]
    total = b""
    while part := connection.recv(1 << 20):
        total += part
    connection.sendall(total)
    connection.close()


def tcp(there, here, address):
    data = os.urandom(8 << 20)
    there.bind((address, PORT))
    there.listen(1)
    thread = threading.Thread(target=echo, args=(there,))
    thread.start()
    here.settimeout(30)
    here.connect((address, PORT))
    here.sendall(data)
    here.shutdown(socket.SHUT_WR)
    back = hashlib.sha256()
    while part := here.recv(1 << 20):
        back.update(part)
    thread.join()
    if back.digest() != hashlib.sha256(data).digest():
        sys.exit("what came back is not what was sent")
    # TCP_INFO: tcpi_pmtu is the 15th 32-bit word after 8 bytes.
    info = here.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    print("path MTU", int.from_bytes(info[60:64], "little"))


FROM, TO, ADDRESS, WHAT = sys.argv[1:]
KIND = socket.SOCK_STREAM if WHAT == "tcp" else socket.SOCK_DGRAM
THERE, HERE = made_in(TO, KIND), made_in(FROM, KIND)
if WHAT == "tcp":
    tcp(THERE, HERE, ADDRESS)
else:
    datagrams(THERE, HERE, ADDRESS, [32] if WHAT == "small" else [32, 1400, 1472, 9000])
