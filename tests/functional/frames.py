# SPDX-License-Identifier: Apache-2.0
"""Frames of every kind to whoever can hear them, each with a mark in it: to and from each of the MACs (broadcast and
multicast, too), with ARP, UDP and VXLAN of these numbers for each of the addresses, and of no known kind, with and without
a VLAN.

    frames.py MARK VNI,... ADDRESS,... MAC,...      writes them, each behind its length (two bytes, big-endian)
"""

import socket
import struct
import sys

EVERYBODY = "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "33:33:00:00:00:01", "01:80:c2:00:00:00"
OF_NO_KIND, VLAN, IP, ARP, VXLAN_PORT = 0x88b5, 0x8100, 0x0800, 0x0806, 4789


def mac_of(text):
    return bytes.fromhex(text.replace(":", ""))


def frame(dest, source, kind, data):
    return (dest + source + struct.pack(">H", kind) + data).ljust(60, b"\0")


def checksum(data):
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    total = (total & 0xffff) + (total >> 16)
    return ~(total + (total >> 16)) & 0xffff


def udp(source, dest, port, data):
    head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 28 + len(data), 0, 0, 64, 17, 0, source, dest)
    head = head[:10] + struct.pack(">H", checksum(head)) + head[12:]
    return head + struct.pack(">HHHH", 7, port, 8 + len(data), 0) + data


def vxlan(vni, source, mark):
    inner = frame(b"\xff" * 6, source, OF_NO_KIND, mark)
    return struct.pack(">II", 8 << 24, vni << 8) + inner


def frames(mark, vnis, addresses, macs):
    addresses = [socket.inet_aton(a) for a in addresses]
    for source in map(mac_of, macs):
        for dest in map(mac_of, (*macs, *EVERYBODY)):
            yield frame(dest, source, OF_NO_KIND, mark)
            yield frame(dest, source, VLAN, struct.pack(">HH", 1, OF_NO_KIND) + mark)
            for address in addresses:
                yield frame(dest, source, IP, udp(addresses[0], address, 9, mark))
                yield frame(dest, source, ARP, struct.pack(">HHBBH", 1, IP, 6, 4, 1) + source + address + bytes(6) + address + mark)
                for vni in vnis:
                    yield frame(dest, source, IP, udp(addresses[0], address, VXLAN_PORT, vxlan(vni, source, mark)))


def main(mark, vnis, addresses, macs):
    for f in frames(mark.encode(), list(map(int, vnis.split(","))), addresses.split(","), macs.split(",")):
        sys.stdout.buffer.write(struct.pack(">H", len(f)) + f)


if __name__ == "__main__":
    main(*sys.argv[1:])
